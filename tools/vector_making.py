"""How golden vectors are made: scenes, marks and attacks on them, each with what its author expects.

A vector that does not come out as expected is an error here, so that none merely records whatever the engine
happened to do.
"""

from __future__ import annotations

import base64
import bz2
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from blessmark.carrier.sites import Window, find_sites
from blessmark.carrier.tile_framing import Reader
from blessmark.extract import extract
from blessmark.payload import crypto, record
from blessmark.profile import V1
from blessmark.roi import block_map
from blessmark.selftest import (
    Given,
    Ring,
    check,
    digest,
    facts,
    generate,
    key_of,
    original_frame,
    read,
    receipt_facts,
    received_frame,
    segmenter_of,
    written,
)
from blessmark.types import Frame, Framing, IntArray, Lattice
from blessmark.view import invariant_view

Vector = dict[str, Any]
Area = dict[str, Any]

KEY = {"id": 7, "secret": bytes(range(32)).hex()}
OTHER_KEY = {"id": 8, "secret": bytes(range(100, 132)).hex()}
FINGERPRINT = crypto.fingerprint(key_of(KEY)).hex()
OTHER_FINGERPRINT = crypto.fingerprint(key_of(OTHER_KEY)).hex()
#: what of a verdict depends on how hard a reader tries, where a segmenter draws another map than it did
READER_DEPENDENT = ("packets", "altered_tiles", "restored_sha256")

#: an ordinary record; nobody's
FIELDS = {
    0x00080018: b"2.25.329800735698586629295641978511506172918",
    0x00080020: b"20240131",
    0x00080030: b"131415.250000 ",
    0x00080050: b"A2024013100 ",
    0x00080060: b"CT",
    0x00080080: b"Example University Hospital ",
    0x00080090: b"Example^Referring ",
    0x00100010: b"Example^Anna",
    0x00100020: b"EX-00417",
    0x00100030: b"19680229",
    0x00100040: b"F ",
    0x0020000D: b"2.25.113059749145936325402354257176981405696",
    0x0020000E: b"2.25.113059749145936325402354257176981405697",
}


def about(fields: Mapping[int, bytes] = FIELDS, **other: Any) -> dict[str, Any]:
    """What a watermark is to say."""
    stated = {
        "sop_instance_uid": "2.25.329800735698586629295641978511506172918",
        "frames": 1,
        "time_s": 1_790_000_000,
        "node": "vectors",
        "charset": b"ISO_IR 100".hex(),
    }
    return {**stated, **other, "fields": _hex_fields(fields)}


def _hex_fields(fields: Mapping[int, bytes]) -> dict[str, str]:
    return {f"{tag:08X}": value.hex() for tag, value in sorted(fields.items())}


def rectangle(top: int, left: int, bottom: int, right: int, *, outside: bool = False) -> Area:
    return {"shape": "rectangle", "at": [top, left, bottom, right], "outside": outside}


def ellipse(row: int, col: int, height: int, width: int, *, outside: bool = False) -> Area:
    """The ellipse with that centre and those half axes."""
    return {"shape": "ellipse", "at": [row, col, height, width], "outside": outside}


def layer(
    area: Area, *base: int, levels: int = 1, slope: tuple[int, int] = (0, 0), shift: int = 0
) -> dict[str, Any]:
    """base + ((slope . (row, col)) >> shift) + 0 .. levels - 1, inside `area`; one base for each channel."""
    return {"area": area, "base": list(base), "slope": list(slope), "shift": shift, "levels": levels}


EVERYWHERE = rectangle(0, 0, 1 << 16, 1 << 16)


@dataclass(frozen=True)
class Scene:
    """An image before anything is written into it, and its map."""

    seed: str
    shape: tuple[int, int]
    layers: tuple[dict[str, Any], ...]
    lo: int = 0
    hi: int = 4095
    padding: tuple[int, int] | None = None
    number: int = 1
    forced_roi: tuple[tuple[int, int, int, int], ...] = ()
    segmenter: str = Given.id
    #: of `given/1`: what is not region of interest
    nroi: tuple[tuple[int, int, int, int], ...] = ()

    def vector(self) -> Vector:
        """The parts of a vector that describe the scene."""
        plane = {
            "channels": len(self.layers[0]["base"]),
            "rows": self.shape[0],
            "cols": self.shape[1],
            "seed": self.seed,
            "layers": list(self.layers),
        }
        frame = {
            "lo": self.lo,
            "hi": self.hi,
            "padding": None if self.padding is None else list(self.padding),
            "number": self.number,
            "forced_roi": [list(corners) for corners in self.forced_roi],
        }
        samples = generate(plane)
        assert self.lo <= samples.min(), f"{self.seed} falls below its range"
        assert samples.max() <= self.hi, f"{self.seed} exceeds its range"
        plane["sha256"] = digest(samples)
        return {"plane": plane, "frame": frame, "map": {"segmenter": self.segmenter, "blocks": self.blocks()}}

    def blocks(self) -> list[str]:
        """The map of `given/1` in blocks, from rectangles in blocks."""
        roi = np.full((self.shape[0] // 8, self.shape[1] // 8), "#")
        for top, left, bottom, right in self.nroi:
            roi[top:bottom, left:right] = "."
        return ["".join(row) for row in roi]


@dataclass(frozen=True)
class Mark:
    """What is to be written into a scene; `rung` is the expected framing, lattice and tier."""

    id: str
    comment: str
    rung: tuple[str, str, str]
    scene: Scene
    about: dict[str, Any] = field(default_factory=about)
    max_change: int | None = None

    def vector(self) -> Vector:
        """Embed and read back."""
        vector: Vector = {
            "id": self.id,
            "comment": self.comment,
            "flags": ["positive", *self.rung],
            "profile": 1,
        }
        vector |= self.scene.vector()
        framing = self.rung[0]
        vector["write"] = {
            "key": KEY,
            "about": self.about,
            "framings": [framing],
            "max_change": self.max_change,
        }
        original = original_frame(vector)
        done = written(vector, original)
        receipt = receipt_facts(done.receipt)
        reached = receipt["framing"], receipt["lattice"], receipt["tier"]
        assert reached == self.rung, f"{self.id} became {reached}"
        blocks = segmenter_of(vector).roi_blocks(invariant_view(original, done.receipt.lattice))
        vector["map"]["blocks"] = ["".join("#" if block else "." for block in row) for row in blocks]
        vector["write"] |= {"receipt": receipt, **_message(vector, done.frame)}
        vector["received"] = received(original, done.frame.samples)
        vector["read"] = reading(self.scene.number)
        return finished(vector, "authentic", exact=True)


def _message(vector: Vector, marked: Frame) -> dict[str, Any]:
    """The sealed message, and which tiles carry how many shards of it."""
    found = extract(marked, Ring((key_of(KEY),)), (segmenter_of(vector),))
    assert found is not None, vector["id"]
    assert found.record is not None, vector["id"]
    keys = crypto.derive(key_of(KEY))
    message = crypto.seal_message(keys, record.encode(found.record), crypto.context(marked))
    packets = []
    if found.framing is Framing.TILE:
        reader = Reader(marked, found.lattice, keys)
        reader.read(block_map(segmenter_of(vector), marked, found.lattice))
        for tile, packet in sorted(reader.packets.items()):
            packets.append([*divmod(tile, reader.grid.shape[1]), packet.count])
    return {"message": message.hex(), "packets": packets}


def received(original: Frame, samples: IntArray, cut: tuple[int, int] | None = None) -> dict[str, Any]:
    """What the reader receives, as a difference to the original."""
    rows, cols = cut or samples.shape[1:]
    changes = (samples - original.samples).astype("<i4").tobytes()
    return {
        "changes": base64.b64encode(bz2.compress(changes)).decode(),
        "rows": rows,
        "cols": cols,
        "sha256": digest(samples[:, :rows, :cols]),
    }


def reading(number: int) -> dict[str, Any]:
    return {
        "keys": [KEY],
        "number": number,
        "frame": {},
        "header": None,
        "sealed": None,
        "hinted_keys": [],
    }


def attacked(
    base: Vector,
    id_: str,
    comment: str,
    finding: str,
    samples: IntArray | None = None,
    *,
    tiles: Sequence[tuple[int, int]] | None = (),
    fields: Sequence[int] = (),
    exact: bool = False,
    cut: tuple[int, int] | None = None,
    **reading: Any,
) -> Vector:
    """A vector that receives something else than `base` wrote, or reads it otherwise.

    `tiles` are those that must be reported as altered. None: the segmenter draws another map now, so how
    much can be read depends on how hard a reader tries, and is not stated.
    """
    vector = {"id": id_, "comment": comment, "flags": ["negative", finding], "profile": 1, "of": base["id"]}
    vector |= {part: base[part] for part in ("plane", "frame", "map")}
    vector["write"] = None
    original = original_frame(base)
    vector["received"] = received(original, marked(base) if samples is None else samples, cut)
    vector["read"] = {**base["read"], **reading}
    expected = finished(vector, finding, exact=exact)["expect"]
    assert expected["altered_fields"] == [f"{tag:08X}" for tag in fields], id_
    if tiles is None:
        for name in READER_DEPENDENT:
            del expected[name]
    else:
        assert expected["altered_tiles"] == [list(t) for t in sorted(tiles)], id_
    return vector


def finished(vector: Vector, finding: str, *, exact: bool) -> Vector:
    """The vector with the verdict on it, which must be the one its author expects."""
    verdict = read(vector, received_frame(vector, original_frame(vector)))
    vector["expect"] = facts(verdict)
    got = str(verdict.finding), verdict.exact
    assert got == (finding, exact), f"{vector['id']} is found {got}"
    check(vector)
    return vector


def marked(vector: Vector) -> IntArray:
    """The samples that a vector's reader receives, to be changed at will."""
    samples: IntArray = received_frame(vector, original_frame(vector)).samples.copy()
    return samples


def pristine(vector: Vector) -> IntArray:
    """The samples before embedding."""
    return original_frame(vector).samples


def added(samples: IntArray, row: int, col: int, value: int, channel: int = 0) -> IntArray:
    """One sample changed by `value`."""
    result = samples.copy()
    result[channel, row, col] += value
    return result


def filled(samples: IntArray, top: int, left: int, bottom: int, right: int, value: int) -> IntArray:
    """A rectangle painted over."""
    result = samples.copy()
    result[:, top:bottom, left:right] = value
    return result


def shaken(samples: IntArray) -> IntArray:
    """Plus one on a pseudo-random half of the samples."""
    noise = generate(
        {
            "channels": len(samples),
            "rows": samples.shape[1],
            "cols": samples.shape[2],
            "seed": "shaken",
            "layers": [layer(EVERYWHERE, *[0] * len(samples), levels=2)],
        }
    )
    return np.asarray(samples + noise, np.int32)


def header_with(vector: Vector, tag: int, value: bytes | None) -> dict[str, str]:
    """The header as the writer saw it, but for one field that is changed or (None) taken away."""
    fields: dict[str, str] = {**vector["write"]["about"]["fields"]}
    del fields[f"{tag:08X}"]
    return fields if value is None else {**fields, f"{tag:08X}": value.hex()}


def order_of(vector: Vector) -> list[int]:
    """The sites of a vector's image in coding order."""
    frame = original_frame(vector)
    lattice = Lattice[vector["expect"]["lattice"].upper()]
    keys = crypto.derive(key_of(KEY))
    words = crypto.order_words(keys, frame.number, lattice, frame.rows, frame.cols)
    roi = block_map(segmenter_of(vector), frame, lattice)
    window = Window(0, 0, frame.rows, frame.cols)
    sites: list[int] = find_sites(frame, roi, window, lattice, V1.predictor(lattice), words).index.tolist()
    return sites
