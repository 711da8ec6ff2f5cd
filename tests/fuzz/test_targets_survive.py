"""What the fuzzer finds stays found: every target takes changed inputs, and those that once were findings.

`make fuzz` searches, guided by coverage; here are a few hundred cases of plain chance, the same in every run.
"""

from __future__ import annotations

import random

import pytest

from tests.fuzz.targets import TARGETS

#: target -> inputs, as hexadecimal digits, that once made it raise
FOUND: dict[str, list[str]] = {}
#: cases of each target; what takes milliseconds gets few
_CASES = {"judge": 40, "frame": 60, "settings": 60, "message": 100}


def changed(seed: bytes, chance: random.Random, longest: int) -> bytes:
    """A seed with bytes changed, cut out, doubled or cut off."""
    data = bytearray(seed)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(4):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del data[at : at + chance.randint(1, 20)]
            case 2:
                data[at:at] = data[at : at + chance.randint(1, 20)]
            case _:
                data[at : at + 4] = chance.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f"))
    return bytes(data[:longest])


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes_it_returns(name: str) -> None:
    target, chance = TARGETS[name], random.Random(name)
    seeds = target.seeds()
    for number in range(_CASES.get(name, 300)):
        target.run(changed(seeds[number % len(seeds)], chance, target.longest))


@pytest.mark.parametrize(("name", "data"), [(name, each) for name, found in FOUND.items() for each in found])
def test_what_was_found_is_mended(name: str, data: str) -> None:
    TARGETS[name].run(bytes.fromhex(data))
