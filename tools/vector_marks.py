"""The images that golden vectors mark: every framing, lattice, tier, depth and kind of content."""

from __future__ import annotations

from typing import Any

from blessmark.selftest import original_frame, sealed
from tools.vector_making import (
    EVERYWHERE,
    KEY,
    Mark,
    Scene,
    Vector,
    about,
    ellipse,
    finished,
    layer,
    reading,
    received,
    rectangle,
)

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
FULL, CORE, SEAL = (("tile", "quarter", tier) for tier in ("full", "core", "seal"))
WIDE, WIDE_CORE = (("tile", "quincunx", tier) for tier in ("full", "core"))
GLOBAL, GLOBAL_WIDE = ("global", "quarter", "full"), ("global", "quincunx", "full")
WHOLE: dict[str, Any] = {"segmenter": "whole/1"}
ANATOMY: dict[str, Any] = {"segmenter": "anatomy/1"}
BYTE: dict[str, Any] = {"hi": 255}

AIR = layer(EVERYWHERE, 20, levels=4)


def grey(seed: str) -> Scene:
    """A body in the middle of a slope."""
    slope = layer(EVERYWHERE, 20, levels=4, slope=(1, 2), shift=6)
    inside = layer(ellipse(160, 160, 90, 110), 900, levels=40, slope=(3, -1), shift=2)
    around = ((0, 0, 40, 6), (0, 34, 40, 40), (0, 6, 8, 34), (32, 6, 40, 34))
    return Scene(seed, (320, 320), (slope, inside), nroi=around)


def flat(seed: str, shape: tuple[int, int], base: int, levels: int, **facts: Any) -> Scene:
    """Noise and nothing else."""
    return Scene(seed, shape, (layer(EVERYWHERE, base, levels=levels),), **facts)


SMALL = Scene(
    "small",
    (192, 192),
    (AIR, layer(ellipse(96, 96, 40, 40), 700, levels=30)),
    nroi=((0, 0, 24, 8), (0, 16, 24, 24)),
)
PHANTOM = Scene(
    "anatomy",
    (448, 448),
    (
        layer(EVERYWHERE, 24, levels=6),
        layer(ellipse(224, 230, 120, 150), 1040, levels=60, slope=(1, 1), shift=1),
        layer(ellipse(224, 190, 40, 30), 24, levels=6),
    ),
    **ANATOMY,
)
HOUNSFIELD = Scene(
    "hounsfield",
    (256, 256),
    (
        layer(EVERYWHERE, -1010, levels=5),
        layer(ellipse(128, 128, 36, 48), 30, levels=30),
        layer(ellipse(128, 128, 126, 126, outside=True), -2000),
    ),
    lo=-32768,
    hi=32767,
    padding=(-2000, -2000),
    **ANATOMY,
)
INVERTED = Scene(
    "inverted",
    (256, 256),
    (
        layer(EVERYWHERE, 246, levels=4),
        layer(ellipse(128, 128, 60, 60), 60, levels=20),
        layer(rectangle(0, 0, 20, 256), 255),
    ),
    padding=(254, 255),
    nroi=((0, 0, 32, 8), (24, 8, 32, 32), (0, 24, 32, 32), (0, 8, 8, 24)),
    **BYTE,
)
SPRINKLED = Scene(
    "sprinkled",
    (192, 192),
    (
        layer(EVERYWHERE, 2, levels=3),
        *(layer(rectangle(r, c, r + 1, c + 1), 0) for r in range(9, 60, 10) for c in range(5, 64, 6)),
    ),
    padding=(0, 1),
    nroi=((0, 0, 24, 24),),
    **BYTE,
)
COLOUR = Scene(
    "colour",
    (192, 192),
    (layer(EVERYWHERE, 12, 10, 9, levels=4), layer(ellipse(96, 96, 60, 50), 150, 90, 60, levels=50)),
    nroi=((0, 0, 24, 5), (0, 19, 24, 24)),
    **BYTE,
)
EDGES = Scene(
    "edges", (203, 149), (layer(EVERYWHERE, 100, levels=4, slope=(2, -1), shift=3),), hi=1023, **WHOLE
)
NOISY_COLOUR = Scene("noisy colour", (130, 130), (layer(EVERYWHERE, 60, 70, 80, levels=32),), **BYTE, **WHOLE)
DEEP = Scene(
    "deep", (256, 256), (layer(EVERYWHERE, 30000, levels=48, slope=(5, 3), shift=1),), hi=65535, **WHOLE
)
SECTOR = Scene(
    "sector",
    (256, 320),
    (layer(EVERYWHERE, 3, levels=3), layer(ellipse(120, 160, 90, 90), 60, levels=90)),
    number=5,
    forced_roi=((20, 60, 220, 261), (-4, 300, 9, 400)),
    **BYTE,
    **WHOLE,
)

TILE = (
    Mark("tile-grey12", "survives any hit of 193 x 193 pixels", FULL, grey("grey")),
    Mark("tile-grey12-again", "another image of the same size and map", FULL, grey("grey again")),
    Mark("tile-small", "too few tiles to survive a large hit; packets of 16 shards", FULL, SMALL),
    Mark("tile-anatomy", "the map is drawn by anatomy/1", FULL, PHANTOM),
    Mark("tile-signed-padding", "Hounsfield units, padding around a circular field", FULL, HOUNSFIELD),
    Mark("tile-padding-high", "padding at the high end, bright surround", FULL, INVERTED),
    Mark("tile-padding-on-sites", "padding on lattice pixels only, inside NROI blocks", FULL, SPRINKLED),
    Mark("tile-rgb", "three channels share a map and an order", FULL, COLOUR),
    Mark("tile-edges", "partial tiles, one of them too small; partial blocks", FULL, EDGES),
    Mark(
        "tile-quincunx",
        "too noisy for the quarter lattice",
        WIDE,
        flat("noisy", (192, 192), 400, 5, nroi=((0, 0, 16, 16),)),
        max_change=1,
    ),
    Mark("tile-quincunx-rgb", "noise in three channels", WIDE, NOISY_COLOUR, max_change=2),
    Mark("tile-expansion", "16 bits of noise: T up to 4, wide Z", FULL, DEEP, max_change=4),
    Mark(
        "tile-core",
        "room for the core record only",
        WIDE_CORE,
        flat("core", (128, 128), 50, 3, nroi=((0, 0, 8, 8), (0, 8, 8, 10)), **BYTE),
        max_change=1,
    ),
    Mark(
        "tile-seal",
        "room for the seal only",
        SEAL,
        flat("seal", (128, 128), 50, 3, nroi=((0, 0, 8, 8), (0, 8, 5, 10)), **BYTE),
        max_change=1,
    ),
    Mark("tile-forced-roi", "frame 5 of 30; rectangles that are ROI anyway", FULL, SECTOR, about(frames=30)),
    Mark(
        "tile-odd-record",
        "escapes, odd lengths, spelled-out tags, incompressible bytes, a UID that is not the field's",
        FULL,
        Scene("odd record", (256, 256), (AIR,), nroi=((0, 0, 32, 20),)),
        about(ODD_FIELDS, charset=b"\\ISO 2022 IR 87".hex(), node="Knoten Süd", frames=70_000),
    ),
)

ONE = Scene("one", (144, 144), (layer(EVERYWHERE, 90, levels=4, slope=(1, 1), shift=3),), **BYTE, **WHOLE)
THREE = Scene(
    "three",
    (72, 80),
    (layer(EVERYWHERE, 30, 60, 90, levels=4, slope=(3, 5), shift=3),),
    nroi=((0, 0, 9, 6), (4, 6, 9, 8)),
    **BYTE,
)
FLOOR = Scene(
    "floor",
    (128, 128),
    (layer(EVERYWHERE, 0), layer(ellipse(64, 64, 40, 40), 500, levels=50)),
    nroi=((0, 0, 16, 3), (0, 13, 16, 16)),
)
BELOW = Scene(
    "below",
    (128, 128),
    (layer(EVERYWHERE, -1020, levels=3), layer(rectangle(0, 0, 30, 128), -1024)),
    lo=-1024,
    hi=3071,
    padding=(-1024, -1024),
    nroi=((0, 0, 16, 15),),
)
FOUR = Scene(
    "four", (112, 112), (layer(EVERYWHERE, 20000, levels=24, slope=(9, 7), shift=1),), hi=65535, **WHOLE
)
STRIPES = Scene(
    "stripes",
    (128, 128),
    (
        layer(EVERYWHERE, 200, levels=2),
        *(layer(rectangle(r, 0, r + 1, 128), 204, levels=3) for r in range(1, 128, 4)),
    ),
    hi=1023,
    **WHOLE,
)

GLOBAL_ = (
    Mark("global-quarter", "one order over a small image", GLOBAL, ONE),
    Mark(
        "global-quincunx",
        "too scarce for the quarter lattice",
        GLOBAL_WIDE,
        flat("two", (64, 72), 90, 3, **BYTE, **WHOLE),
    ),
    Mark("global-rgb", "three channels", GLOBAL, THREE),
    Mark("global-one-sided", "a surround of exactly the lower bound", GLOBAL, FLOOR),
    Mark("global-padding", "signed, padding below; sites beside padded blocks", GLOBAL, BELOW),
    Mark("global-noise", "T above 1, wide Z", GLOBAL_WIDE, FOUR, max_change=4),
    Mark("global-texture", "stripes that another predictor serves better", GLOBAL, STRIPES),
    Mark(
        "global-core",
        "room for the core record only",
        ("global", "quincunx", "core"),
        flat("five", (64, 64), 90, 3, nroi=((0, 0, 6, 8),), **BYTE),
        max_change=1,
    ),
    Mark(
        "global-seal",
        "room for the seal only",
        ("global", "quincunx", "seal"),
        flat("six", (48, 48), 90, 3, nroi=((0, 0, 4, 6), (4, 0, 5, 4)), **BYTE),
        max_change=1,
    ),
)


def tile_vectors() -> list[Vector]:
    """Marks in tile framing."""
    return [mark.vector() for mark in TILE]


def global_vectors() -> list[Vector]:
    """Marks in global framing, and one beside the pixels."""
    return [*(mark.vector() for mark in GLOBAL_), header_vector()]


def header_vector() -> Vector:
    """An image that is all ROI: its record travels sealed in a header element."""
    vector: Vector = {
        "id": "header-element",
        "comment": "no pixel may change, so the record travels sealed in the header",
        "flags": ["positive", "header", "full"],
        "profile": 1,
        **flat("full field", (200, 136), 800, 900, number=2).vector(),
        "write": {"key": KEY, "about": about(frames=3)},
    }
    original = original_frame(vector)
    element = sealed(vector, original).hex()
    vector["write"]["sealed"] = element
    vector["received"] = received(original, original.samples)
    vector["read"] = {**reading(2), "sealed": element}
    return finished(vector, "authentic", exact=True)
