"""Golden vectors of the carrier `dct` (docs/format/dct.md): every side, kind of map, depth, and attacks.

How near restoring comes depends on a detector that computes in floats, so the restored samples are not part
of these vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from blessmark.carrier import dct_framing
from blessmark.carrier.block_maps import maps_for
from blessmark.carrier.dct import cut
from blessmark.payload import crypto
from blessmark.selftest import (
    check,
    facts,
    key_of,
    original_frame,
    read,
    receipt_facts,
    received_frame,
    segmenter_of,
    written,
)
from blessmark.types import IntArray
from tools.vector_making import (
    EVERYWHERE,
    KEY,
    OTHER_KEY,
    Scene,
    Vector,
    about,
    added,
    ellipse,
    header_with,
    layer,
    marked,
    reading,
    received,
)

#: what of a verdict is not stated: the first hangs on floats, the others say nothing about blocks
_UNSTATED = ("restored_sha256", "packets", "shards_needed")

_BODY = (
    layer(EVERYWHERE, 24, levels=6),
    layer(ellipse(240, 240, 90, 110), 1040, levels=60, slope=(1, 1), shift=1),
)
#: (id, comment, side, threshold, tier, scene)
_MARKS: tuple[tuple[str, str, int, float, str, Scene], ...] = (
    (
        "blocks-6",
        "12 bits, no region of interest, a full record",
        6,
        0.01,
        "full",
        Scene(
            "b6", (258, 250), (layer(EVERYWHERE, 700, levels=90, slope=(3, 1), shift=2),), segmenter="whole/1"
        ),
    ),
    (
        "blocks-8-colour",
        "three channels of 8 bits; the last block carries less",
        8,
        0.02,
        "full",
        Scene("b8", (176, 184), (layer(EVERYWHERE, 90, 120, 40, levels=7),), hi=255, segmenter="whole/1"),
    ),
    (
        "blocks-10-signed",
        "16 bits signed, padding at the low end, room for the seal only",
        10,
        0.01,
        "seal",
        Scene(
            "b10",
            (270, 283),
            (layer(EVERYWHERE, -900, levels=2000), layer(ellipse(0, 0, 60, 60), -2000)),
            lo=-32768,
            hi=32767,
            padding=(-2000, -2000),
            number=5,
            segmenter="whole/1",
        ),
    ),
    (
        "blocks-veiled",
        "anatomy sees every second block",
        6,
        0.01,
        "full",
        Scene("bv", (480, 480), _BODY, segmenter="anatomy/1"),
    ),
    (
        "blocks-veiled-given",
        "a stated map, a forced rectangle, an even range",
        6,
        0.01,
        "core",
        Scene(
            "bg",
            (400, 400),
            (layer(EVERYWHERE, 246, levels=9),),
            hi=254,
            nroi=((0, 0, 28, 50),),
            forced_roi=((10, 20, 60, 80),),
        ),
    ),
    (
        "blocks-network",
        "the paper's own network, in colour",
        6,
        0.01,
        "full",
        Scene("bn", (240, 240), (layer(EVERYWHERE, 150, 90, 50, levels=5),), hi=255, segmenter="vessels/1"),
    ),
)


def block_vectors() -> list[Vector]:
    """Marks, then attacks on the first and the fourth of them."""
    made = [_mark(*facts_) for facts_ in _MARKS]
    by_id = {vector["id"]: vector for vector in made}
    return [*made, *_attacks(by_id)]


def _mark(id_: str, comment: str, side: int, threshold: float, tier: str, scene: Scene) -> Vector:
    vector: Vector = {"id": id_, "comment": comment, "flags": ["positive", "blocks", tier], "profile": 1}
    vector |= scene.vector()
    vector["write"] = {"key": KEY, "about": about(), "blocks": {"side": side, "threshold": threshold}}
    original = original_frame(vector)
    done = written(vector, original)
    receipt = receipt_facts(done.receipt)
    assert receipt["tier"] == tier, f"{id_} became {receipt['tier']}"
    block_map = maps_for((segmenter_of(vector),), (side,))[0]
    found = dct_framing.read(done.frame, block_map, crypto.derive(key_of(KEY)))
    assert found is not None, id_
    assert found.seal is not None, id_
    vector["map"]["carriers"] = [int(place) for place in found.places]
    vector["write"] |= {
        "receipt": receipt,
        "message": found.message.hex(),
        "threshold": found.threshold,
        "detector": found.seal.detector,
        "half_db": int(2 * found.seal.psnr_db),
    }
    vector["received"] = received(original, done.frame.samples)
    vector["read"] = reading(scene.number)
    return _finished(vector, "authentic")


def _attacks(by_id: dict[str, Vector]) -> Iterator[Vector]:
    base, veiled = by_id["blocks-6"], by_id["blocks-veiled"]
    body = added(marked(veiled), 240, 240, 1)
    yield _attacked(
        veiled, "blocks-body-plus-one", "one step in the region of interest", "pixels-altered", body
    )
    spare = added(marked(base), 257, 249, -1)
    yield _attacked(base, "blocks-edge-minus-one", "a pixel beyond the last block", "pixels-altered", spare)
    yield _attacked(
        base, "blocks-seal-bit", "the lowest bit of a seal's sample", "pixels-altered", _seal_bit(base)
    )
    yield _attacked(base, "blocks-message-bit", "a block transposed", "damaged", _message_bit(base))
    yield _attacked(base, "blocks-wrong-key", "another key", "unmarked", keys=[OTHER_KEY])
    yield _attacked(base, "blocks-wrong-number", "another frame number", "unmarked", number=2)
    header = header_with(base, 0x00100010, b"Example^Other ")
    yield _attacked(base, "blocks-header", "another name in the header", "header-altered", header=header)
    cropped = _attacked(base, "blocks-cut", "a column cut off", "unmarked", cut=(258, 249))
    yield cropped


def _seal_bit(base: Vector) -> IntArray:
    """The first site of the seal, its lowest bit changed."""
    frame = original_frame(base).with_samples(marked(base))
    block_map = maps_for((segmenter_of(base),), (6,))[0]
    walk = dct_framing.Walk(frame, block_map, crypto.derive(key_of(KEY)))
    carriers = len(base["map"]["carriers"])
    place = int(walk.first(carriers + 1)[carriers])
    row, col = divmod(place, frame.cols // 6)
    samples = marked(base)
    samples[0, 6 * row, 6 * col] ^= 1
    return samples


def _message_bit(base: Vector) -> IntArray:
    """The last block of the message transposed, which exchanges its two coefficients."""
    samples = marked(base)
    grid = cut(samples, 6)
    row, col = divmod(base["map"]["carriers"][-1], grid.shape[1])
    grid[row, col] = grid[row, col].swapaxes(1, 2).copy()
    return np.asarray(samples)


def _attacked(
    base: Vector,
    id_: str,
    comment: str,
    finding: str,
    samples: IntArray | None = None,
    cut: tuple[int, int] | None = None,
    **how: Any,
) -> Vector:
    vector = {"id": id_, "comment": comment, "flags": ["negative", finding], "profile": 1, "of": base["id"]}
    vector |= {part: base[part] for part in ("plane", "frame")}
    vector["map"] = {part: base["map"][part] for part in ("segmenter", "blocks")}
    vector["write"] = None
    original = original_frame(base)
    vector["received"] = received(original, marked(base) if samples is None else samples, cut)
    vector["read"] = {**base["read"], **how}
    return _finished(vector, finding)


def _finished(vector: Vector, finding: str) -> Vector:
    """The vector with the verdict on it, which must be the one its author expects."""
    verdict = read(vector, received_frame(vector, original_frame(vector)))
    vector["expect"] = {name: value for name, value in facts(verdict).items() if name not in _UNSTATED}
    assert str(verdict.finding) == finding, f"{vector['id']} is found {verdict.finding}"
    check(vector)
    return vector
