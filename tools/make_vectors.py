"""Writes the golden vectors of format v1: tests/vectors/v1/*.json and the subset packaged with the engine.

The only writer. Every vector is declared here together with what its author expects the reader to say, so
that no vector merely records whatever the engine happened to do. Vectors are frozen with the format: files
that hold something else are not overwritten, unless the format has not been released.

    python -m tools.make_vectors [--format-not-yet-released]
"""

from __future__ import annotations

import argparse
import base64
import bz2
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from blessmark.carrier.lattice import Window, find_sites
from blessmark.carrier.tile_framing import Reader
from blessmark.extract import extract
from blessmark.payload import crypto, record
from blessmark.profile import V1
from blessmark.roi import block_map
from blessmark.selftest import (
    FORMAT,
    Given,
    Ring,
    check,
    content_hash,
    digest,
    facts,
    generate,
    key_of,
    original_frame,
    read,
    receipt_facts,
    received_frame,
    sealed,
    segmenter_of,
    written,
)
from blessmark.types import Frame, Framing, IntArray, Lattice
from blessmark.view import invariant_view

REPOSITORY = Path(__file__).parent.parent
TARGET = REPOSITORY / "tests" / "vectors" / "v1"
PACKAGED = REPOSITORY / "core" / "blessmark" / "vectors" / "v1.json"

Vector = dict[str, Any]
Area = dict[str, Any]

KEY = {"id": 7, "secret": bytes(range(32)).hex()}
OTHER_KEY = {"id": 8, "secret": bytes(range(100, 132)).hex()}
FINGERPRINT = crypto.fingerprint(key_of(KEY)).hex()
OTHER_FINGERPRINT = crypto.fingerprint(key_of(OTHER_KEY)).hex()

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
#: what headers really hold: escapes, odd lengths, wrong padding, nothing, unknown tags, values like noise
ODD_FIELDS = {
    0x00100010: b"YAMADA^TARO=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B ",
    0x00100020: b"odd",
    0x00100030: b"",
    0x00100040: b"  ",
    0x00080020: b"2024.01.31",
    0x0020000D: b"1.2.840.10008.1.1 ",
    0x00081030: b"Kontrolle \xc4rztliche Anordnung",
    0x00181030: b"\0\0",
    0x00091001: bytes(range(0xD0, 0xF8)),
    0xFFFFFFFE: b"spelled out",
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
    rows: int
    cols: int
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
            "rows": self.rows,
            "cols": self.cols,
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
        roi = np.full((self.rows // 8, self.cols // 8), "#")
        for top, left, bottom, right in self.nroi:
            roi[top:bottom, left:right] = "."
        return ["".join(row) for row in roi]


def positive(
    id_: str,
    comment: str,
    scene: Scene,
    rung: tuple[str, str, str],
    *,
    max_change: int | None = None,
    what: dict[str, Any] | None = None,
    flags: Sequence[str] = (),
) -> Vector:
    """A vector that is embedded and reads back; `rung` is the expected framing, lattice and tier."""
    vector = {"id": id_, "comment": comment, "flags": ["positive", *rung, *flags], "profile": 1}
    vector |= scene.vector()
    framings = ["tile"] if rung[0] == "tile" else ["global"]
    vector["write"] = {
        "key": KEY,
        "about": about() if what is None else what,
        "framings": framings,
        "max_change": max_change,
    }
    original = original_frame(vector)
    done = written(vector, original)
    receipt = done.receipt
    reached = (str(receipt.framing), Lattice(receipt.lattice).name.lower(), receipt.tier.name.lower())
    assert reached == rung, f"{id_} became {reached}"
    blocks = segmenter_of(vector).roi_blocks(invariant_view(original, receipt.lattice))
    vector["map"]["blocks"] = ["".join("#" if block else "." for block in row) for row in blocks]
    vector["write"] |= {"receipt": receipt_facts(receipt), **_message(vector, done.frame)}
    vector["received"] = _received(original, done.frame.samples)
    vector["read"] = _reading(scene.number)
    return _finished(vector, "authentic", exact=True)


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
            packets.append([*divmod(tile, reader.grid.shape[1]), len(packet.shards)])
    return {"message": message.hex(), "packets": packets}


def _received(original: Frame, samples: IntArray, cut: tuple[int, int] | None = None) -> dict[str, Any]:
    """What the reader receives, as a difference to the original."""
    rows, cols = cut or samples.shape[1:]
    changes = (samples - original.samples).astype("<i4").tobytes()
    return {
        "changes": base64.b64encode(bz2.compress(changes)).decode(),
        "rows": rows,
        "cols": cols,
        "sha256": digest(samples[:, :rows, :cols]),
    }


def _reading(number: int) -> dict[str, Any]:
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

    `tiles` are those that must be reported as altered; None leaves it to the engine where only the map that
    a global segmenter redraws decides.
    """
    vector = {"id": id_, "comment": comment, "flags": ["negative", finding], "profile": 1, "of": base["id"]}
    vector |= {part: base[part] for part in ("plane", "frame", "map")}
    vector["write"] = None
    original = original_frame(base)
    vector["received"] = _received(original, marked(base) if samples is None else samples, cut)
    vector["read"] = {**base["read"], **reading}
    done = _finished(vector, finding, exact=exact)
    found = done["expect"]
    if tiles is not None:
        assert found["altered_tiles"] == [list(t) for t in sorted(tiles)], f"{id_}: {found['altered_tiles']}"
    assert found["altered_fields"] == [f"{tag:08X}" for tag in fields], f"{id_}: {found['altered_fields']}"
    return done


def _finished(vector: Vector, finding: str, *, exact: bool) -> Vector:
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


def header_of(vector: Vector, **changed: bytes | None) -> dict[str, str]:
    """The header as the writer saw it, with some fields changed or (None) taken away."""
    fields = dict(vector["write"]["about"]["fields"])
    for tag, value in changed.items():
        fields.pop(tag.removeprefix("t"))
        if value is not None:
            fields[tag.removeprefix("t")] = value.hex()
    return fields


AIR = layer(EVERYWHERE, 20, levels=4)

GREY = Scene(
    "grey",
    320,
    320,
    (
        layer(EVERYWHERE, 20, levels=4, slope=(1, 2), shift=6),
        layer(ellipse(160, 160, 90, 110), 900, levels=40, slope=(3, -1), shift=2),
    ),
    nroi=((0, 0, 40, 6), (0, 34, 40, 40), (0, 6, 8, 34), (32, 6, 40, 34)),
)
SMALL = Scene(
    "small",
    192,
    192,
    (AIR, layer(ellipse(96, 96, 40, 40), 700, levels=30)),
    nroi=((0, 0, 24, 8), (0, 16, 24, 24)),
)


def tile_vectors() -> list[Vector]:
    """Tile framing, every lattice, tier, depth and kind of content."""
    return [
        positive(
            "tile-grey12",
            "an explicit map around a body; survives any hit of 193 x 193 pixels",
            GREY,
            ("tile", "quarter", "full"),
        ),
        positive(
            "tile-small",
            "too few tiles to survive a large hit; packets of 16 shards",
            SMALL,
            ("tile", "quarter", "full"),
        ),
        positive(
            "tile-anatomy",
            "the map is drawn by anatomy/1; 448 x 448",
            Scene(
                "anatomy",
                448,
                448,
                (
                    layer(EVERYWHERE, 24, levels=6),
                    layer(ellipse(224, 230, 120, 150), 1040, levels=60, slope=(1, 1), shift=1),
                    layer(ellipse(224, 190, 40, 30), 24, levels=6),
                ),
                segmenter="anatomy/1",
            ),
            ("tile", "quarter", "full"),
        ),
        positive(
            "tile-signed-padding",
            "Hounsfield units, padding around a circular field, anatomy/1",
            Scene(
                "hounsfield",
                256,
                256,
                (
                    layer(EVERYWHERE, -1010, levels=5),
                    layer(ellipse(128, 128, 36, 48), 30, levels=30),
                    layer(ellipse(128, 128, 126, 126, outside=True), -2000),
                ),
                lo=-32768,
                hi=32767,
                padding=(-2000, -2000),
                segmenter="anatomy/1",
            ),
            ("tile", "quarter", "full"),
        ),
        positive(
            "tile-padding-high",
            "padding at the high end lowers the upper bound; bright surround",
            Scene(
                "inverted",
                256,
                256,
                (
                    layer(EVERYWHERE, 246, levels=4),
                    layer(ellipse(128, 128, 60, 60), 60, levels=20),
                    layer(rectangle(0, 0, 20, 256), 255),
                ),
                hi=255,
                padding=(254, 255),
                nroi=((0, 0, 32, 8), (24, 8, 32, 32), (0, 24, 32, 32), (0, 8, 8, 24)),
            ),
            ("tile", "quarter", "full"),
        ),
        positive(
            "tile-padding-on-sites",
            "padding on lattice pixels only, inside NROI blocks; bound of 2",
            Scene(
                "sprinkled",
                192,
                192,
                (
                    layer(EVERYWHERE, 2, levels=3),
                    *(
                        layer(rectangle(r, c, r + 1, c + 1), 0)
                        for r in range(9, 60, 10)
                        for c in range(5, 64, 6)
                    ),
                ),
                hi=255,
                padding=(0, 1),
                nroi=((0, 0, 24, 24),),
            ),
            ("tile", "quarter", "full"),
        ),
        positive(
            "tile-rgb",
            "three channels share a map and an order",
            Scene(
                "colour",
                192,
                192,
                (
                    layer(EVERYWHERE, 12, 10, 9, levels=4),
                    layer(ellipse(96, 96, 60, 50), 150, 90, 60, levels=50),
                ),
                hi=255,
                nroi=((0, 0, 24, 5), (0, 19, 24, 24)),
            ),
            ("tile", "quarter", "full"),
        ),
        positive(
            "tile-edges",
            "whole/1; partial tiles (one too small), partial blocks, odd sides",
            Scene(
                "edges",
                203,
                149,
                (layer(EVERYWHERE, 100, levels=4, slope=(2, -1), shift=3),),
                hi=1023,
                segmenter="whole/1",
            ),
            ("tile", "quarter", "full"),
        ),
        positive(
            "tile-quincunx",
            "too noisy for the quarter lattice, so the other one",
            Scene("noisy", 192, 192, (layer(EVERYWHERE, 400, levels=5),), nroi=((0, 0, 16, 16),)),
            ("tile", "quincunx", "full"),
            max_change=1,
        ),
        positive(
            "tile-quincunx-rgb-noise",
            "quincunx in three channels with an expansion above 1",
            Scene(
                "noisy colour",
                130,
                130,
                (layer(EVERYWHERE, 60, 70, 80, levels=32),),
                hi=255,
                segmenter="whole/1",
            ),
            ("tile", "quincunx", "full"),
            max_change=2,
        ),
        positive(
            "tile-expansion",
            "16 bits of noise: T = 4 and wide Z",
            Scene(
                "deep",
                256,
                256,
                (layer(EVERYWHERE, 30000, levels=48, slope=(5, 3), shift=1),),
                hi=65535,
                segmenter="whole/1",
            ),
            ("tile", "quarter", "full"),
            max_change=4,
        ),
        positive(
            "tile-core",
            "room for the core record only",
            Scene(
                "core",
                128,
                128,
                (layer(EVERYWHERE, 50, levels=3),),
                hi=255,
                nroi=((0, 0, 8, 8), (0, 8, 8, 10)),
            ),
            ("tile", "quincunx", "core"),
            max_change=1,
        ),
        positive(
            "tile-seal",
            "room for the seal only",
            Scene(
                "seal",
                128,
                128,
                (layer(EVERYWHERE, 50, levels=3),),
                hi=255,
                nroi=((0, 0, 8, 8), (0, 8, 5, 10)),
            ),
            ("tile", "quarter", "seal"),
            max_change=1,
        ),
        positive(
            "tile-forced-roi",
            "frame 5 of 30; rectangles that are ROI whatever the segmenter says",
            Scene(
                "sector",
                256,
                320,
                (layer(EVERYWHERE, 3, levels=3), layer(ellipse(120, 160, 90, 90), 60, levels=90)),
                hi=255,
                number=5,
                forced_roi=((20, 60, 220, 261), (-4, 300, 9, 400)),
                segmenter="whole/1",
            ),
            ("tile", "quarter", "full"),
            what=about(frames=30),
        ),
        positive(
            "tile-odd-record",
            "escapes, odd lengths, spelled-out tags, incompressible bytes, another UID",
            Scene("odd record", 256, 256, (AIR,), nroi=((0, 0, 32, 20),)),
            ("tile", "quarter", "full"),
            what=about(ODD_FIELDS, charset=b"\\ISO 2022 IR 87".hex(), node="Knoten Süd", frames=70_000),
        ),
    ]


def global_vectors() -> list[Vector]:
    """Global framing and the header element."""
    vectors = [
        positive(
            "global-quarter",
            "one order over a small image",
            Scene(
                "one",
                144,
                144,
                (layer(EVERYWHERE, 90, levels=4, slope=(1, 1), shift=3),),
                hi=255,
                segmenter="whole/1",
            ),
            ("global", "quarter", "full"),
        ),
        positive(
            "global-quincunx",
            "too scarce for the quarter lattice",
            Scene("two", 64, 72, (layer(EVERYWHERE, 90, levels=3),), hi=255, segmenter="whole/1"),
            ("global", "quincunx", "full"),
        ),
        positive(
            "global-rgb",
            "three channels",
            Scene(
                "three",
                72,
                80,
                (layer(EVERYWHERE, 30, 60, 90, levels=4, slope=(3, 5), shift=3),),
                hi=255,
                nroi=((0, 0, 9, 6), (4, 6, 9, 8)),
            ),
            ("global", "quarter", "full"),
        ),
        positive(
            "global-one-sided",
            "a surround of exactly the lower bound leaves only the upper side",
            Scene(
                "floor",
                128,
                128,
                (layer(EVERYWHERE, 0), layer(ellipse(64, 64, 40, 40), 500, levels=50)),
                nroi=((0, 0, 16, 3), (0, 13, 16, 16)),
            ),
            ("global", "quarter", "full"),
        ),
        positive(
            "global-padding",
            "signed, padding below; sites beside padded blocks",
            Scene(
                "below",
                128,
                128,
                (layer(EVERYWHERE, -1020, levels=3), layer(rectangle(0, 0, 30, 128), -1024)),
                lo=-1024,
                hi=3071,
                padding=(-1024, -1024),
                nroi=((0, 0, 16, 15),),
            ),
            ("global", "quarter", "full"),
        ),
        positive(
            "global-noise",
            "T above 1 for header and message, Z doubled",
            Scene(
                "four",
                112,
                112,
                (layer(EVERYWHERE, 20000, levels=24, slope=(9, 7), shift=1),),
                hi=65535,
                segmenter="whole/1",
            ),
            ("global", "quincunx", "full"),
            max_change=4,
        ),
        positive(
            "global-texture",
            "stripes that another predictor or centre serves better",
            Scene(
                "stripes",
                128,
                128,
                (
                    layer(EVERYWHERE, 200, levels=2),
                    *(layer(rectangle(r, 0, r + 1, 128), 204, levels=3) for r in range(1, 128, 4)),
                ),
                hi=1023,
                segmenter="whole/1",
            ),
            ("global", "quarter", "full"),
        ),
        positive(
            "global-core",
            "room for the core record only",
            Scene("five", 64, 64, (layer(EVERYWHERE, 90, levels=3),), hi=255, nroi=((0, 0, 6, 8),)),
            ("global", "quincunx", "core"),
            max_change=1,
        ),
        positive(
            "global-seal",
            "room for the seal only",
            Scene(
                "six", 48, 48, (layer(EVERYWHERE, 90, levels=3),), hi=255, nroi=((0, 0, 4, 6), (4, 0, 5, 4))
            ),
            ("global", "quincunx", "seal"),
            max_change=1,
        ),
    ]
    return [*vectors, _in_header()]


def _in_header() -> Vector:
    """An image that is all ROI: its record travels sealed in a header element."""
    scene = Scene("full field", 200, 136, (layer(EVERYWHERE, 800, levels=900),), number=2)
    vector: Vector = {
        "id": "header-element",
        "comment": "no pixel may change, so the record travels sealed in the header",
        "flags": ["positive", "header", "full"],
        "profile": 1,
        **scene.vector(),
        "write": {"key": KEY, "about": about(frames=3)},
    }
    original = original_frame(vector)
    vector["write"]["sealed"] = sealed(vector, original).hex()
    vector["received"] = _received(original, original.samples)
    vector["read"] = {**_reading(2), "sealed": vector["write"]["sealed"]}
    return _finished(vector, "authentic", exact=True)


def tampering_vectors(made: Mapping[str, Vector]) -> list[Vector]:
    """Pixels changed after embedding."""
    grey, small, anatomy = made["tile-grey12"], made["tile-small"], made["tile-anatomy"]
    again = _second_image(grey)
    one, element = made["global-quarter"], made["header-element"]
    image = marked(grey)
    rolled = image.copy()
    rolled[:, 100] = np.roll(image[:, 100], 1, axis=-1)
    tile_copied = image.copy()
    tile_copied[:, 64:128, :64] = marked(again)[:, 64:128, :64]
    transplanted = pristine(again) + image - pristine(grey)
    return [
        attacked(
            grey,
            "one-site-in-a-used-tile",
            "a carrier pixel, by one",
            "pixels-altered",
            added(image, 21, 13, 1),
            tiles=[(0, 0)],
        ),
        attacked(
            grey,
            "one-pixel-in-a-used-tile",
            "a pixel that is no site, by one",
            "pixels-altered",
            added(image, 20, 12, -1),
            tiles=[(0, 0)],
        ),
        attacked(
            grey,
            "one-pixel-in-the-roi-of-a-used-tile",
            "the packet covers its tile's ROI",
            "pixels-altered",
            added(image, 100, 56, 1),
            tiles=[(1, 0)],
        ),
        attacked(
            grey,
            "one-pixel-in-a-quiet-tile",
            "found by the localisation grid",
            "pixels-altered",
            added(image, 160, 150, 3),
            tiles=[(2, 2)],
        ),
        attacked(
            grey,
            "patch-16-in-a-used-tile",
            "16 x 16 pixels painted over",
            "pixels-altered",
            filled(image, 40, 200, 56, 216, 22),
            tiles=[(0, 3)],
        ),
        attacked(
            grey,
            "patch-16-in-a-quiet-tile",
            "16 x 16 pixels of the body painted over",
            "pixels-altered",
            filled(image, 150, 140, 166, 156, 950),
            tiles=[(2, 2)],
        ),
        attacked(
            anatomy,
            "patch-160",
            "160 x 160 pixels painted over; the rest is read by local maps",
            "pixels-altered",
            filled(marked(anatomy), 30, 250, 190, 410, 700),
            tiles=None,
        ),
        attacked(
            grey,
            "patch-160-given-map",
            "160 x 160 pixels painted over",
            "pixels-altered",
            filled(image, 0, 0, 160, 160, 25),
            tiles=[(r, c) for r in range(3) for c in range(3)],
        ),
        attacked(
            grey,
            "one-row-shifted",
            "row 100 moved by one pixel",
            "pixels-altered",
            rolled,
            tiles=[(1, c) for c in range(5)],
        ),
        attacked(
            grey,
            "tile-of-another-image",
            "its packet authenticates, its shards do not agree",
            "pixels-altered",
            tile_copied,
            tiles=[(1, 0)],
        ),
        attacked(
            again,
            "watermark-of-another-image",
            "all changes copied onto another original",
            "unmarked",
            transplanted,
        ),
        attacked(
            small,
            "most-tiles-lost",
            "one packet is left of six",
            "damaged",
            filled(filled(marked(small), 0, 0, 128, 192, 21), 128, 0, 192, 64, 21),
        ),
        attacked(small, "noise", "plus one on half of the samples", "unmarked", shaken(marked(small))),
        attacked(small, "rounded", "lossy: the two lowest bits cleared", "unmarked", marked(small) & ~3),
        attacked(small, "moved-down", "every row one lower", "unmarked", np.roll(marked(small), 1, axis=1)),
        attacked(
            small,
            "rows-cut",
            "the last 64 rows are missing: packets without a record",
            "damaged",
            cut=(128, 192),
            tiles=[],
        ),
        attacked(small, "columns-cut", "the last 64 columns are missing", "unmarked", cut=(192, 128)),
        attacked(
            made["tile-rgb"],
            "one-sample-of-one-channel",
            "blue, by one",
            "pixels-altered",
            added(marked(made["tile-rgb"]), 130, 90, 1, 2),
            tiles=[(2, 1)],
        ),
        attacked(
            made["tile-seal"],
            "seal-one-pixel",
            "a seal locates nothing beside its tiles",
            "damaged",
            added(marked(made["tile-seal"]), 3, 3, 1),
        ),
        attacked(
            made["tile-seal"],
            "seal-roi-pixel",
            "known to be altered, not where",
            "pixels-altered",
            added(marked(made["tile-seal"]), 100, 100, 1),
        ),
        attacked(one, "global-header-bit", "a site of the header packet", "unmarked", _header_flipped(one)),
        attacked(
            one,
            "global-message-bit",
            "a site of the message: the header reads, the record does not",
            "damaged",
            _message_flipped(one),
        ),
        attacked(
            made["global-one-sided"],
            "global-roi-pixel",
            "found and located by the grid",
            "pixels-altered",
            added(marked(made["global-one-sided"]), 70, 60, 1),
            tiles=[(1, 0)],
        ),
        attacked(
            element,
            "header-element-pixel",
            "the sealed record locates the change",
            "pixels-altered",
            added(pristine(element), 70, 130, 1),
            tiles=[(1, 2)],
        ),
        *_embedded_again(small),
    ]


def _second_image(first: Vector) -> Vector:
    """Another image of the same size and map under the same key."""
    scene = Scene(**{**GREY.__dict__, "seed": "grey again"})
    return positive(
        "tile-grey12-again", f"another image like {first['id']}", scene, ("tile", "quarter", "full")
    )


def _header_flipped(vector: Vector) -> IntArray:
    """The first site that embedding changed, as it was before."""
    return _site_undone(vector, 0.0)


def _message_flipped(vector: Vector) -> IntArray:
    """A site well inside the message, as it was before embedding."""
    return _site_undone(vector, 0.8)


def _site_undone(vector: Vector, place: float) -> IntArray:
    """One of the sites that embedding changed, at that share of them in coding order, as it was before."""
    samples, before = marked(vector), pristine(vector).reshape(-1)
    changed = set(np.flatnonzero(samples.reshape(-1) != before).tolist())
    sites = [index for index in _order(vector) if index in changed]
    site = sites[int(place * len(sites))]
    samples.reshape(-1)[site] = before[site]
    return samples


def _order(vector: Vector) -> list[int]:
    """The sites of a vector's image in coding order."""
    frame = original_frame(vector)
    lattice = Lattice[vector["expect"]["lattice"].upper()]
    keys = crypto.derive(key_of(KEY))
    words = crypto.order_words(keys, frame.number, lattice, frame.rows, frame.cols)
    roi = block_map(segmenter_of(vector), frame, lattice)
    window = Window(0, 0, frame.rows, frame.cols)
    sites: list[int] = find_sites(frame, roi, window, lattice, V1.predictor(lattice), words).index.tolist()
    return sites


def _embedded_again(base: Vector) -> list[Vector]:
    """A second watermark over the first: it is read instead, and gives the first marked image back."""
    frame = received_frame(base, original_frame(base))
    own = {**base, "write": {**base["write"], "about": about(node="second")}}
    other = {**base, "write": {**base["write"], "key": OTHER_KEY}}
    twice, foreign = (written(each, frame).frame.samples for each in (own, other))
    return [
        attacked(
            base,
            "embedded-again",
            "under the same key: the later record reads",
            "authentic",
            twice,
            exact=True,
        ),
        attacked(
            base, "embedded-again-under-another-key", "the first watermark is buried", "unmarked", foreign
        ),
        attacked(
            base,
            "embedded-again-under-a-key-of-the-ring",
            "the other key reads, and is exact",
            "authentic",
            foreign,
            exact=True,
            keys=[KEY, OTHER_KEY],
        ),
    ]


def identity_vectors(made: Mapping[str, Vector]) -> list[Vector]:
    """Whole images, keys, numbers and headers exchanged, lost or altered."""
    small, element, forced = made["tile-small"], made["header-element"], made["tile-forced-roi"]
    one = made["global-quarter"]
    name, uid = 0x00100010, 0x00080018
    return [
        attacked(small, "unmarked", "the original itself", "unmarked", pristine(small)),
        attacked(
            small,
            "watermark-removed",
            "the header still claims a key that the ring holds",
            "damaged",
            pristine(small),
            hinted_keys=[FINGERPRINT],
        ),
        attacked(small, "wrong-key", "nothing tells it from an unmarked image", "unmarked", keys=[OTHER_KEY]),
        attacked(
            small,
            "wrong-key-with-hint",
            "the header claims a key that the ring lacks",
            "wrong-key",
            keys=[OTHER_KEY],
            hinted_keys=[FINGERPRINT],
        ),
        attacked(
            small,
            "false-hint",
            "a hint proves nothing",
            "authentic",
            exact=True,
            hinted_keys=[OTHER_FINGERPRINT],
        ),
        attacked(one, "global-wrong-key", "global framing under another key", "unmarked", keys=[OTHER_KEY]),
        attacked(
            forced,
            "frames-swapped",
            "frame 5 in the place of frame 6",
            "damaged",
            number=6,
            hinted_keys=[FINGERPRINT],
        ),
        attacked(one, "global-frame-number", "another frame number", "unmarked", number=2),
        attacked(
            small,
            "range-altered",
            "BitsStored says another range: packets without a record",
            "damaged",
            frame={"hi": 8191},
        ),
        attacked(
            small,
            "padding-altered",
            "a padding value that was not declared: other bounds",
            "unmarked",
            frame={"padding": [0, 24]},
        ),
        attacked(
            small,
            "header-altered",
            "the patient's name in the header is another",
            "header-altered",
            fields=[name],
            exact=True,
            header=header_of(small, t00100010=b"Example^Berta "),
        ),
        attacked(
            small,
            "header-field-missing",
            "a field of the record is gone from the header",
            "header-altered",
            fields=[name],
            exact=True,
            header=header_of(small, t00100010=None),
        ),
        attacked(
            small,
            "header-padding-differs",
            "padding is no alteration",
            "authentic",
            exact=True,
            header=header_of(small, t00100010=b"Example^Anna  "),
        ),
        attacked(
            small,
            "image-exchanged",
            "a marked image under another instance's header",
            "header-altered",
            fields=[uid],
            exact=True,
            header=header_of(small, t00080018=b"2.25.1\0\0"),
        ),
        attacked(
            small,
            "header-and-pixels-altered",
            "pixels weigh more",
            "pixels-altered",
            added(marked(small), 100, 100, 1),
            tiles=[(1, 1)],
            fields=[name],
            header=header_of(small, t00100010=b"Example^Berta "),
        ),
        attacked(
            element, "header-element-other-frame", "the sealed record of another frame", "unmarked", number=1
        ),
        attacked(
            element,
            "header-element-wrong-key",
            "no key of the ring opens it",
            "wrong-key",
            keys=[OTHER_KEY],
            hinted_keys=[FINGERPRINT],
        ),
        attacked(
            element,
            "header-element-flipped",
            "one bit of it is flipped",
            "damaged",
            sealed=_flipped(element),
            hinted_keys=[FINGERPRINT],
        ),
        attacked(
            element,
            "header-element-field",
            "and the header says another name",
            "header-altered",
            exact=True,
            fields=[name],
            header=header_of(element, t00100010=b"Example^Berta "),
        ),
    ]


def _flipped(vector: Vector) -> str:
    content = bytearray.fromhex(vector["write"]["sealed"])
    content[40] ^= 1
    return content.hex()


#: what the engine carries along and reproduces when a node starts
PACKAGED_IDS = (
    "tile-small",
    "tile-signed-padding",
    "tile-quincunx",
    "global-rgb",
    "global-one-sided",
    "global-noise",
    "header-element",
    "header-and-pixels-altered",
    "rows-cut",
    "global-message-bit",
)


def files() -> dict[Path, str]:
    """Every file and its content."""
    sets = {"tile": tile_vectors(), "global": global_vectors()}
    made = {vector["id"]: vector for vectors in sets.values() for vector in vectors}
    sets |= {"tampering": tampering_vectors(made), "identity": identity_vectors(made)}
    everything = {vector["id"]: vector for vectors in sets.values() for vector in vectors}
    result = {TARGET / f"{name}.json": _document(name, vectors) for name, vectors in sets.items()}
    packaged = [everything[id_] for id_ in PACKAGED_IDS]
    result[PACKAGED] = _document("packaged", packaged)
    return result


def _document(title: str, vectors: Sequence[Vector]) -> str:
    """One file: readable, one line for each part of a vector."""
    head = {"format": FORMAT, "title": title, "count": len(vectors), "sha256": content_hash(vectors)}
    lines = ["{", *(f'"{name}": {json.dumps(value)},' for name, value in head.items()), '"vectors": [']
    for number, vector in enumerate(vectors):
        parts = [f'  "{name}": {json.dumps(value)}' for name, value in vector.items()]
        lines += [" {", ",\n".join(parts), " }" + "," * (number + 1 < len(vectors))]
    return "\n".join([*lines, "]", "}", ""])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the vectors; refuse to change frozen ones."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--format-not-yet-released", action="store_true", help="overwrite vectors that differ"
    )
    free = parser.parse_args(arguments).format_not_yet_released
    contents = files()
    changed = [path for path, text in contents.items() if path.exists() and path.read_text("utf-8") != text]
    if changed and not free:
        names = ", ".join(path.name for path in changed)
        print(
            f"{names}: this engine makes other vectors than the frozen ones; that is a new format",
            file=sys.stderr,
        )
        return 1
    for path, text in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        print(f"{path.relative_to(REPOSITORY)}  {len(text)} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
