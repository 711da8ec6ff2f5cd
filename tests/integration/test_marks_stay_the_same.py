"""Marked images are what the engine made before its loops were compiled (ADR 0037), to the last bit.

`frozen_marks.json` was written by that engine and is never written again: an image, how it was marked, and
the SHA-256 of what came out, for the same key, record and time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest

from blessmark import pixels
from blessmark.embed import embed
from blessmark.errors import CapacityError
from blessmark.payload.signature import Instance, SigningKey
from blessmark.portrait import portrait
from blessmark.segment import segmenter
from blessmark.selftest import Ring, digest
from blessmark.signing import sign
from blessmark.types import About, Frame, Framing, SiteKey
from blessmark.verify import verify
from tests.phantoms import body_in_air, circular_ct, frame

RING = Ring((SiteKey(7, bytes(range(32))),))
SIGNER = SigningKey(bytes(range(1, 33)))
ABOUT = About("1.2.840.10008.7", 3, 1_700_000_000, "frozen", b"ISO_IR 100", {0x00100010: b"Frozen^Name "})
FROZEN: dict[str, list[object]] = json.loads(Path(__file__).with_name("frozen_marks.json").read_text("utf-8"))
FILES = Path(pydicom.data.__file__).parent / "test_files"


def images() -> Iterator[tuple[str, Frame]]:
    """Phantoms of every kind, and what pydicom brings uncompressed."""
    plane = body_in_air()
    yield "body", frame(plane)
    yield "odd shape", frame(body_in_air((203, 331)))
    yield "inverted", frame(4095 - np.minimum(plane, 4095), hi=4095)
    yield "colour", frame(plane // 8, plane // 9 + 3, plane[::-1] // 8, hi=255)
    yield "signed, filled", frame(circular_ct(), lo=-2048, hi=2047)
    yield "padded", frame(circular_ct(), lo=-2048, hi=2047, padding=(-2000, -2000))
    yield "deep and noisy", frame(plane * 37 % 65536, hi=65535)
    yield "flat", frame(np.full((130, 190), 700))
    for path in sorted(FILES.glob("*.dcm")):
        name = f"file {path.name}"
        if any(key.startswith(name) for key in FROZEN):
            image = pixels.load(pydicom.dcmread(path))
            assert isinstance(image, pixels.Image)
            yield name, image.frame(1)


def made(image: Frame) -> Iterator[tuple[str, list[object]]]:
    """What the engine makes of one image, by both maps and either framing."""
    seen = hashlib.sha256(portrait(image).to_bytes()).hexdigest()
    yield "portrait", [seen]
    for map_, framings in (
        ("anatomy", (Framing.TILE, Framing.GLOBAL)),
        ("whole", (Framing.TILE, Framing.GLOBAL)),
        ("whole", (Framing.GLOBAL,)),
    ):
        drawer = segmenter(map_)
        try:
            done = embed(image, ABOUT, RING, drawer, framings=framings)
        except CapacityError:
            yield f"{map_} {len(framings)}", ["no room"]
            continue
        receipt = done.receipt
        assert receipt.lattice is not None
        how = f"{receipt.tier.name} {receipt.framing} {receipt.lattice.name}".lower()
        signed = sign(image, done, drawer, Instance("1.2.3", 3), 1_700_000_001, SIGNER)
        found = verify(done.frame, RING, (drawer,))
        yield (
            f"{map_} {len(framings)}",
            [
                digest(done.frame.samples),
                how,
                receipt.changed_samples,
                receipt.capacity_bits,
                f"{receipt.psnr_db:.6f}",
                digest(signed.done.frame.samples),
                found.exact,
                found.evidence.packets,
            ],
        )


@pytest.mark.parametrize(("name", "image"), list(images()), ids=[name for name, _ in images()])
def test_a_mark_is_what_it_was(name: str, image: Frame) -> None:
    actual = {f"{name}: {how}": facts for how, facts in made(image)}

    assert actual == {key: facts for key, facts in FROZEN.items() if key.startswith(f"{name}: ")}


def test_every_kind_of_mark_is_among_them() -> None:
    kinds = {str(facts[1]) for facts in FROZEN.values() if len(facts) > 1}

    assert {"full tile quarter", "full global quarter"} <= kinds
    assert ["no room"] in FROZEN.values()
