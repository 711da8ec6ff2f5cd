"""Does this machine reproduce the format? Packaged vectors, run when a node starts.

A vector is a synthetic plane, a map, keys, what was written into it, what a reader receives and what that
reader must say. It is plain JSON (tests/vectors/schema.json), self-contained, and read here, by the test
suite and by the tool that makes it, the only one that may write one.
"""

from __future__ import annotations

import base64
import bz2
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from blessmark.carrier import dct
from blessmark.embed import embed, seal_for_header
from blessmark.embed_dct import embed_dct
from blessmark.errors import SelfTestError, WatermarkError
from blessmark.payload import erasure
from blessmark.portrait import portrait
from blessmark.profile import V1
from blessmark.segment import segmenter
from blessmark.types import (
    About,
    BlockSettings,
    BoolArray,
    Embedded,
    Frame,
    Framing,
    IntArray,
    Lattice,
    Receipt,
    Record,
    Rectangle,
    Segmenter,
    SiteKey,
    Verdict,
    View,
)
from blessmark.verify import verify

#: one vector, as its JSON says it
Vector = Mapping[str, Any]

FORMAT = "blessmark/1"
_PACKAGED = Path(__file__).with_name("vectors") / "v1.json"
#: how many vectors are packaged; a file that lost some must not pass
_COUNT = 10


def selftest() -> int:
    """Reproduce every packaged vector; returns how many there are.

    Afterwards every loop is compiled, so that no image waits for that.

    Raises
    ------
    SelfTestError
        the file is missing, damaged or incomplete, or this machine gives another answer for a vector
    """
    vectors = load(_PACKAGED)
    if len(vectors) != _COUNT:
        raise SelfTestError(
            f"{_PACKAGED.name} holds {len(vectors)} vectors, not {_COUNT}; install the package again"
        )
    for vector in vectors:
        check(vector)
    _check_the_rest()
    return len(vectors)


def rehearse() -> None:
    """Reproduce one vector, so that what the first image needs is loaded in this process.

    Raises
    ------
    SelfTestError
        as `selftest`
    """
    check(load(_PACKAGED)[0])
    _check_the_drawn()


def _check_the_rest() -> None:
    """Run the loops that no vector needs: a wrong shard, a bit in a block, and what is drawn."""
    data, points = np.arange(12, dtype=np.uint16).reshape(4, 3), np.arange(8, dtype=np.int64)
    shards = erasure.encode(data, points)
    shards[0] ^= 1
    read_again = next(erasure.decode(points, shards, len(data), groups=points))
    blocks, both = np.zeros((2, 1, 1, 6, 6), np.int32), np.ones((2, 1, 1), np.bool_)
    placed = dct.place(dct.Choices(blocks, both, both), blocks[0], np.zeros(1, np.uint8))
    if not np.array_equal(read_again.data, data) or placed is None:
        raise SelfTestError("shards or blocks come out otherwise than they must")
    _check_the_drawn()


def _check_the_drawn() -> None:
    """Run the loops that draw: portraits, and a body in a constant surround, square and around a disc."""
    seen = [portrait(Frame(np.ones((channels, 8, 8), np.int32), 0, 255)) for channels in (1, 3)]
    if not all((each.mean == 1).all() for each in seen):
        raise SelfTestError("portraits come out otherwise than they must")
    plane = np.zeros((1, 64, 64), np.int32)
    plane[0, 24:40, 24:40] = 1000
    body = segmenter("anatomy").roi_blocks(View(plane, Lattice.QUARTER, 0, 4095, None))
    if not body[2:6, 2:6].all() or body.sum() != 16:
        raise SelfTestError("a body in a constant surround is drawn otherwise than it must")
    row, col = np.ogrid[-127:128:2, -127:128:2]
    disc = np.where(row**2 + col**2 < 127**2, np.int32(-1000), np.int32(-2000))[None]
    disc[0, 48:80, 48:80] = 0
    body = segmenter("anatomy").roi_blocks(View(disc, Lattice.QUARTER, -2048, 2047, None))
    if not body[5:11, 5:11].all() or body.sum() != 36:
        raise SelfTestError("a body in a disc is drawn otherwise than it must")


def load(path: Path) -> list[Vector]:
    """The vectors of one file.

    Raises
    ------
    SelfTestError
        it cannot be read, or its content is not what its hash says
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        vectors, stated = list(content["vectors"]), content["sha256"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise SelfTestError(
            f"{path.name} cannot be read ({type(error).__name__}); install it again"
        ) from error
    if content_hash(vectors) != stated:
        raise SelfTestError(f"{path.name} is damaged: its hash does not match; install it again")
    return vectors


def content_hash(vectors: Sequence[Vector]) -> str:
    """SHA-256 of the vectors as JSON with sorted keys and no white space."""
    return hashlib.sha256(json.dumps(vectors, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def check(vector: Vector) -> None:
    """Write and read one vector as the engine does today, and compare.

    Raises
    ------
    SelfTestError
        naming the vector and what differs
    """
    try:
        differing = list(_differences(vector))
    except (WatermarkError, LookupError, ValueError, TypeError) as error:
        raise SelfTestError(f"vector {vector.get('id')}: {type(error).__name__}: {error}") from error
    if differing:
        raise SelfTestError(f"vector {vector['id']}: {'; '.join(differing)}")


def _differences(vector: Vector) -> Iterable[str]:
    original = original_frame(vector)
    if digest(original.samples) != vector["plane"]["sha256"]:
        yield "the generator gives another plane"
    yield from written_differences(vector, original)
    received = received_frame(vector, original)
    if digest(received.samples) != vector["received"]["sha256"]:
        yield "the changes lead to another plane"
    expected, found = vector["expect"], facts(read(vector, received))
    yield from _unequal(expected, {name: found[name] for name in expected})


def written_differences(vector: Vector, original: Frame) -> Iterable[str]:
    """What embedding does otherwise than the vector says; nothing for a vector that was not embedded."""
    write = vector["write"]
    if write is None:
        return
    if "sealed" in write:
        if sealed(vector, original).hex() != write["sealed"]:
            yield "the sealed header element differs"
        return
    done = written(vector, original)
    if digest(done.frame.samples) != vector["received"]["sha256"]:
        yield "embedding gives another plane"
    yield from _unequal(write["receipt"], receipt_facts(done.receipt))


def _unequal(expected: Mapping[str, Any], actual: Mapping[str, Any], within: str = "") -> Iterable[str]:
    for name in sorted(expected.keys() | actual.keys()):
        wanted, got = expected.get(name), actual.get(name)
        if isinstance(wanted, dict) and isinstance(got, dict):
            yield from _unequal(wanted, got, f"{within}{name}.")
        elif wanted != got:
            yield f"{within}{name} is {got!r} instead of {wanted!r}"


def written(vector: Vector, original: Frame) -> Embedded:
    """What embedding makes of the original."""
    write = vector["write"]
    if "blocks" in write:
        settings = BlockSettings(write["blocks"]["side"], write["blocks"]["threshold"])
        ring, about = Ring((key_of(write["key"]),)), about_of(write["about"])
        return embed_dct(original, about, ring, segmenter_of(vector), settings)
    framings = tuple(Framing(name) for name in write["framings"])
    return embed(
        original,
        about_of(write["about"]),
        Ring((key_of(write["key"]),)),
        segmenter_of(vector),
        max_change=write["max_change"],
        framings=framings,
    )


def sealed(vector: Vector, original: Frame) -> bytes:
    """The record of the original, sealed for the header."""
    write = vector["write"]
    ring = Ring((key_of(write["key"]),))
    return seal_for_header(original, about_of(write["about"]), ring, segmenter_of(vector))


def read(vector: Vector, received: Frame) -> Verdict:
    """What the engine says about what is received."""
    how = vector["read"]
    return verify(
        replace(received, number=how["number"]),
        Ring(tuple(key_of(key) for key in how["keys"])),
        (segmenter_of(vector),),
        header=None if how["header"] is None else _fields(how["header"]),
        sealed=None if how["sealed"] is None else bytes.fromhex(how["sealed"]),
        hinted_keys=[bytes.fromhex(hint) for hint in how["hinted_keys"]],
    )


@dataclass(frozen=True, slots=True)
class Ring:
    """A key ring in memory; see `types.KeyRing`."""

    keys: tuple[SiteKey, ...]

    @property
    def current(self) -> SiteKey:
        """The first key."""
        return self.keys[0]


class Given:
    """A segmenter that gives the map that a vector states, whatever the view; see `types.Segmenter`."""

    id: str = "given/1"
    reach_px: int | None = 0

    def __init__(self, roi: BoolArray) -> None:
        self._roi = roi

    def roi_blocks(self, view: View) -> BoolArray:
        """The stated map, cut where the received plane was cut."""
        _, rows, cols = view.shape
        return self._roi[: rows // V1.block_px, : cols // V1.block_px].copy()


def segmenter_of(vector: Vector) -> Segmenter:
    """The segmenter that draws the map of a vector: a real one by its id, or the stated map."""
    name = vector["map"]["segmenter"]
    return Given(map_of(vector["map"]["blocks"])) if name == Given.id else segmenter(name)


def map_of(rows: Sequence[str]) -> BoolArray:
    """bool [rows, cols] from lines of `#` (region of interest) and `.`."""
    return np.array([[block == "#" for block in row] for row in rows], np.bool_)


def key_of(key: Mapping[str, Any]) -> SiteKey:
    """A site key."""
    return SiteKey(key["id"], bytes.fromhex(key["secret"]))


def about_of(about: Mapping[str, Any]) -> About:
    """What the watermark was to say."""
    texts = {name: about[name] for name in ("sop_instance_uid", "frames", "time_s", "node")}
    return About(**texts, charset=bytes.fromhex(about["charset"]), fields=_fields(about["fields"]))


def _fields(fields: Mapping[str, str]) -> dict[int, bytes]:
    return {int(tag, 16): bytes.fromhex(value) for tag, value in fields.items()}


def original_frame(vector: Vector) -> Frame:
    """The frame before embedding."""
    frame, plane = vector["frame"], vector["plane"]
    return Frame(
        generate(plane),
        frame["lo"],
        frame["hi"],
        None if frame["padding"] is None else tuple(frame["padding"]),
        frame["number"],
        tuple(Rectangle(*corners) for corners in frame["forced_roi"]),
    )


def received_frame(vector: Vector, original: Frame) -> Frame:
    """The frame that the reader receives: the original with the stated changes, cut to the stated size."""
    received = vector["received"]
    changes = np.frombuffer(bz2.decompress(base64.b64decode(received["changes"])), "<i4")
    samples = original.samples + changes.reshape(original.samples.shape)
    rows, cols = received["rows"], received["cols"]
    cut = np.ascontiguousarray(samples[:, :rows, :cols], np.int32)
    frame = {**vector["frame"], **vector["read"]["frame"]}
    padding = None if frame["padding"] is None else tuple(frame["padding"])
    return replace(original, samples=cut, lo=frame["lo"], hi=frame["hi"], padding=padding)


def digest(samples: IntArray) -> str:
    """SHA-256 of samples [channels, rows, cols] as little-endian 32-bit integers."""
    return hashlib.sha256(samples.astype("<i4").tobytes()).hexdigest()


def generate(plane: Mapping[str, Any]) -> IntArray:
    """int32 [channels, rows, cols]: the layers of a plane, painted one over the other."""
    channels, rows, cols = plane["channels"], plane["rows"], plane["cols"]
    samples = np.zeros((channels, rows, cols), np.int32)
    row, col = np.ogrid[:rows, :cols]
    for number, layer in enumerate(plane["layers"]):
        inside = _area(layer["area"], rows, cols)
        slope = (layer["slope"][0] * row + layer["slope"][1] * col) >> layer["shift"]
        for channel in range(channels):
            noise = _noise(f"{plane['seed']}/{number}/{channel}", (rows, cols), layer["levels"])
            samples[channel][inside] = (layer["base"][channel] + slope + noise)[inside]
    return samples


def _area(area: Mapping[str, Any], rows: int, cols: int) -> BoolArray:
    """True inside (or, for `outside`, outside) a rectangle or an ellipse."""
    row, col = np.ogrid[:rows, :cols]
    a, b, c, d = area["at"]
    if area["shape"] == "rectangle":
        inside = (row >= a) & (row < c) & (col >= b) & (col < d)
    else:
        inside = ((row - a) * d) ** 2 + ((col - b) * c) ** 2 <= (c * d) ** 2
    return np.asarray(inside != area["outside"])


def _noise(seed: str, shape: tuple[int, int], levels: int) -> npt.NDArray[np.int64]:
    """Numbers 0 .. levels - 1: SHA-256 of `seed/0`, `seed/1` ..., sixteen 16-bit numbers from each."""
    if levels == 1:
        return np.zeros(shape, np.int64)
    count = shape[0] * shape[1]
    blocks = (hashlib.sha256(f"{seed}/{counter}".encode()).digest() for counter in range(-(-count // 16)))
    return np.frombuffer(b"".join(blocks), ">u2")[:count].reshape(shape).astype(np.int64) % levels


def facts(verdict: Verdict) -> dict[str, Any]:
    """What of a verdict a vector states."""
    evidence = verdict.evidence
    return {
        "finding": str(verdict.finding),
        "exact": verdict.exact,
        "key_id": evidence.key_id,
        "framing": None if evidence.framing is None else str(evidence.framing),
        "lattice": None if evidence.lattice is None else evidence.lattice.name.lower(),
        "packets": evidence.packets,
        "shards_needed": evidence.shards_needed,
        "altered_tiles": [list(tile) for tile in evidence.altered_tiles],
        "altered_fields": [f"{tag:08X}" for tag in evidence.altered_fields],
        "record": None if verdict.record is None else _record_facts(verdict.record),
        "restored_sha256": None if verdict.restored is None else digest(verdict.restored.samples),
    }


def _record_facts(record: Record) -> dict[str, Any]:
    return {
        "tier": record.tier.name.lower(),
        "pixel_digest": record.pixel_digest.hex(),
        "uid_digest": record.uid_digest.hex(),
        "frame": record.frame,
        "frames": record.frames,
        "time_s": record.time_s,
        "node": record.node,
        "segmenter": record.segmenter,
        "charset": record.charset.hex(),
        "fields": {f"{tag:08X}": value.hex() for tag, value in sorted(record.fields.items())},
        "digests": record.digests.hex(),
    }


def receipt_facts(receipt: Receipt) -> dict[str, Any]:
    """What of a receipt a vector states."""
    return {
        "tier": receipt.tier.name.lower(),
        "framing": str(receipt.framing),
        "lattice": None if receipt.lattice is None else Lattice(receipt.lattice).name.lower(),
        "message_bits": receipt.message_bits,
        "changed_samples": receipt.changed_samples,
        "max_change": receipt.max_change,
        "localised": receipt.localised,
    }
