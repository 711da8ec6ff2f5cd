"""PSNR of fundus photographs at the capacity that BlessMark reports, and with a usual record."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.images import KEY, RING, Fixed, Fundus, fundus, fundus_about, fundus_names
from benchmarks.results import Cell, Result, Table, quantiles, share
from benchmarks.run import Run, spread
from blessmark.carrier import global_framing
from blessmark.embed import allowed_change, embed
from blessmark.errors import CapacityError
from blessmark.fidelity import psnr_db
from blessmark.payload import crypto
from blessmark.recover import recover
from blessmark.roi import block_map, roi_share
from blessmark.segment import known, segmenter
from blessmark.types import BoolArray, Framing, Lattice

_BITS = 0.021
_WANTED_DB = 66.0
#: maps that everything is measured with; those of segmenters get the first message only
_BY_HAND = ("vessels", "vessels + surround")


@dataclass(frozen=True, slots=True)
class _Row:
    """One embedding; `psnr_db` None when the message did not fit."""

    image: str
    method: str
    map_name: str
    nroi: float
    psnr_db: float | None
    exact: bool


def measure(run: Run) -> Result:
    """Embed random messages of 0.021 bit per pixel and per sample globally, and a record in tiles."""
    names = fundus_names(run.data)[: 1 if run.quick else None]
    rows = [row for rows in spread(functools.partial(_measure, run), names) for row in rows]
    groups = dict.fromkeys((row.method, row.map_name) for row in rows)
    lines = tuple(_line(method, name, _of(rows, method, name)) for method, name in groups)
    columns = ("message", "map", "NROI", "images", "PSNR least", "median", "greatest", ">= 66 dB", "exact")
    table = Table("PSNR in dB over all samples of the three channels", columns, lines)
    return Result("fidelity", "Fidelity", _NOTES, (table,), {"seed": run.seed, "images": len(names)})


_NOTES = (
    "HRF fundus photographs at half size (2 x 2 mean, 1168 x 1752 RGB, 8 bits); peak 255.",
    "Maps: `vessels` has the blocks that hold a pixel of the hand-drawn mask `manual1` as ROI; "
    "`vessels + surround` those outside the camera's field of view too; the others are drawn by a segmenter.",
    "0.021 bit per pixel is the paper's capacity for 6 x 6 blocks. The paper does not say whether a colour "
    "pixel counts once or once per channel; both are given.",
    "Exact: the message read back bit for bit from the marked image alone, and every sample restored.",
    "In the paper: 55.24 dB marked, 60.09 dB restored at 0.021 (retina); 65.01 dB for its lossless peer.",
)


def _of(rows: list[_Row], method: str, name: str) -> list[_Row]:
    return [row for row in rows if (row.method, row.map_name) == (method, name)]


def _line(method: str, name: str, rows: list[_Row]) -> tuple[Cell, ...]:
    levels = [row.psnr_db for row in rows if row.psnr_db is not None]
    nroi = f"{100 * sum(row.nroi for row in rows) / len(rows):.0f} %"
    if not levels:
        return (method, name, nroi, len(rows), None, None, None, "no room", None)
    reached = share(sum(level >= _WANTED_DB for level in levels), len(rows))
    exact = share(sum(row.exact for row in rows), len(levels))
    return (method, name, nroi, len(rows), *quantiles(levels), reached, exact)


def _measure(run: Run, name: str) -> list[_Row]:
    image = fundus(run.data, name)
    maps = _maps(image)
    pixels = image.frame.rows * image.frame.cols
    rng = np.random.default_rng([run.seed, sum(name.encode())])
    by_hand = {name: maps[name] for name in _BY_HAND}
    per_pixel, per_sample = (rng.bytes(round(_BITS * pixels * count) // 8) for count in (1, 3))
    return [
        *_global_rows(image, maps, "0.021 bit per pixel, global", per_pixel),
        *_global_rows(image, by_hand, "0.021 bit per sample, global", per_sample),
        *_record_rows(image, by_hand),
    ]


def _maps(image: Fundus) -> dict[str, BoolArray]:
    masks = ((image.vessels,), (image.vessels, image.outside))
    drawn = {name: image.map_of(*mask) for name, mask in zip(_BY_HAND, masks, strict=True)}
    names = [name for name in known() if name.startswith(("anatomy", "vessels"))]
    return drawn | {name: block_map(segmenter(name), image.frame, Lattice.QUARTER) for name in names}


def _global_rows(image: Fundus, maps: Mapping[str, BoolArray], method: str, message: bytes) -> Iterator[_Row]:
    frame, keys = image.frame, crypto.derive(KEY)
    for name, roi in maps.items():
        cap = allowed_change(frame, Lattice.QUARTER)
        plan = global_framing.plan(frame, roi, Lattice.QUARTER, keys, cap)
        marked = global_framing.embed(plan, keys, message)
        if marked is None:
            yield _Row(image.name, method, name, 1 - roi_share(roi), None, False)
            continue
        reading = global_framing.read(marked, roi, Lattice.QUARTER, keys)
        exact = reading is not None and reading.message == message
        exact = exact and reading is not None and np.array_equal(reading.restored.samples, frame.samples)
        yield _Row(image.name, method, name, 1 - roi_share(roi), psnr_db(frame, marked.samples), exact)


def _record_rows(image: Fundus, maps: Mapping[str, BoolArray]) -> Iterator[_Row]:
    about = fundus_about(image.name)
    for name, roi in maps.items():
        fixed, nroi = Fixed(roi), 1 - roi_share(roi)
        try:
            done = embed(image.frame, about, RING, fixed, framings=(Framing.TILE,))
        except CapacityError:
            yield _Row(image.name, "a record of usual length, tiles", name, nroi, None, False)
            continue
        back = recover(done.frame, RING, (fixed,))
        exact = back.exact and np.array_equal(back.frame.samples, image.frame.samples)
        assert math.isfinite(done.receipt.psnr_db)
        yield _Row(image.name, "a record of usual length, tiles", name, nroi, done.receipt.psnr_db, exact)
