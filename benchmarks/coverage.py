"""Which images take their full record, on which step of the ladder, and what stops the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.images import RING, Sample, chosen, dicom_files, sample
from benchmarks.results import Cell, Result, Table, quantiles, share
from benchmarks.run import Run, spread
from blessmark.embed import embed
from blessmark.errors import CapacityError
from blessmark.roi import block_map
from blessmark.segment import segmenter
from blessmark.types import Lattice, Tier

_LEAST_SIDE = 180
#: the widest bands of the format; what does not fit with them does not fit at all
_WIDEST = 4


@dataclass(frozen=True, slots=True)
class _Row:
    """One image; `rung` is "" when nothing fits, `why` tells what stopped a full record."""

    image: str
    modality: str
    has_nroi: bool
    tier: Tier | None = None
    rung: str = ""
    localised: bool = False
    psnr_db: float = 0.0
    record_bits: int = 0
    why: str = ""


def measure(run: Run) -> Result:
    """Embed the record of every image of at least 180 x 180 pixels, as the node does by default."""
    files = dicom_files(run.data)
    found = spread(_measure, chosen(files, 16, run.seed) if run.quick else files)
    rows = [row for row in found if row is not None]
    tables = (_by_modality(rows), _by_rung(rows), _failures(rows))
    return Result("coverage", "Coverage", _NOTES, tables, {"seed": run.seed, "images": len(rows)})


_NOTES = (
    "Every file of the image folder's `dicom/` that holds an image of at least 180 x 180 pixels which can be "
    "marked; the middle frame of a multi-frame image. Segmenter `anatomy`, default cap on the change.",
    "The record is what the node takes from the header by default; its length counts tag and padding.",
    "Full: of the images that have any block outside the region of interest.",
)


def _measure(path: Path) -> _Row | None:
    image = sample(path, _LEAST_SIDE)
    if image is None:
        return None
    anatomy = segmenter("anatomy")
    if all(block_map(anatomy, image.frame, lattice).all() for lattice in Lattice):
        return _Row(image.name, image.modality, has_nroi=False)
    try:
        done = embed(image.frame, image.about, RING, anatomy).receipt
    except CapacityError:
        return _Row(image.name, image.modality, has_nroi=True, why=_obstacle(image))
    return _Row(
        image.name,
        image.modality,
        has_nroi=True,
        tier=done.tier,
        rung=f"{done.framing} {done.lattice.name.lower()}",
        localised=done.localised,
        psnr_db=done.psnr_db,
        record_bits=done.message_bits,
        why="" if done.tier is Tier.FULL else _obstacle(image),
    )


def _obstacle(image: Sample) -> str:
    """What keeps a full record out: the policy's cap, or the picture itself."""
    anatomy = segmenter("anatomy")
    blocks = max(int((~block_map(anatomy, image.frame, lattice)).sum()) for lattice in Lattice)
    try:
        done = embed(image.frame, image.about, RING, anatomy, max_change=_WIDEST)
        fits = done.receipt.tier is Tier.FULL
    except CapacityError:
        fits = False
    if fits:
        return f"the cap: it would fit with a change of up to {_WIDEST}; {blocks} blocks"
    return f"too few quiet pixels in {blocks} blocks"


def _by_modality(rows: list[_Row]) -> Table:
    groups = [*sorted({row.modality for row in rows}), "all"]
    lines = tuple(_modality_line(m, [r for r in rows if m in (r.modality, "all")]) for m in groups)
    columns = ("modality", "images", "any NROI", "full record", "with digests of the ROI", "PSNR median, dB")
    return Table("Images that take their full record", columns, lines)


def _modality_line(modality: str, rows: list[_Row]) -> tuple[Cell, ...]:
    able = [row for row in rows if row.has_nroi]
    full = [row for row in able if row.tier is Tier.FULL]
    median = quantiles([row.psnr_db for row in full])[1] if full else None
    localised = share(sum(row.localised for row in full), len(full))
    return (modality, len(rows), len(able), share(len(full), len(able)), localised, median)


def _by_rung(rows: list[_Row]) -> Table:
    marked = [row for row in rows if row.tier is not None]
    counts = Counter((row.tier, row.rung) for row in marked)
    lines = tuple(
        (tier.name.lower(), rung, count, *_lengths(r for r in marked if (r.tier, r.rung) == (tier, rung)))
        for (tier, rung), count in counts.most_common()
        if tier is not None
    )
    columns = ("record", "step", "images", "message bits least", "median", "greatest")
    return Table("Steps of the ladder", columns, lines)


def _lengths(rows: Iterable[_Row]) -> tuple[float, float, float]:
    least, median, most = quantiles([row.record_bits for row in rows])
    return int(least), int(median), int(most)


def _failures(rows: list[_Row]) -> Table:
    lines = tuple(
        (row.image, row.modality, "none" if row.tier is None else row.tier.name.lower(), row.why)
        for row in rows
        if row.why
    )
    return Table("Images with NROI that do not take it", ("image", "modality", "took", "why"), lines)
