"""How good a vessel map is: per image and pooled, at the working scale and in pixels of the photograph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from blessmark.profile import V1
from blessmark.segment.integer import Runtime
from blessmark.segment.vessels import network_input, scale_of
from blessmark.types import BoolArray, IntArray, Lattice
from blessmark.view import invariant_view
from training.photos import Photo
from training.recipe import PAPER_PX
from training.samples import reduced, vessel_share


@dataclass(frozen=True, slots=True)
class Counts:
    """Pixels found and meant, found only, meant only."""

    both: int
    found: int
    meant: int

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.both + other.both, self.found + other.found, self.meant + other.meant)

    @property
    def dice(self) -> float:
        return _ratio(2 * self.both, 2 * self.both + self.found + self.meant)

    @property
    def precision(self) -> float:
        return _ratio(self.both, self.both + self.found)

    @property
    def recall(self) -> float:
        return _ratio(self.both, self.both + self.meant)


@dataclass(frozen=True, slots=True)
class Score:
    """One photograph, or several added up.

    Attributes
    ----------
    field : at the working scale, inside the field of view; a k x k square is vessel if half of it is
    whole : the same over the whole image
    pixels : in pixels of the photograph, inside the field of view
    vessel_pixels, protected_pixels : of the truth, and how many of them lie in ROI blocks
    blocks, free_blocks : all 8 x 8 blocks, and those outside the region of interest
    """

    name: str
    field: Counts
    whole: Counts
    pixels: Counts
    vessel_pixels: int
    protected_pixels: int
    blocks: int
    free_blocks: int

    @property
    def protected(self) -> float:
        return _ratio(self.protected_pixels, self.vessel_pixels)

    @property
    def free(self) -> float:
        return _ratio(self.free_blocks, self.blocks)

    def row(self) -> dict[str, float | str]:
        """The figures that a card tells, rounded to four places."""
        figures = {
            "dice": self.field.dice,
            "precision": self.field.precision,
            "recall": self.field.recall,
            "dice_whole_image": self.whole.dice,
            "dice_photo_pixels": self.pixels.dice,
            "vessel_pixels_in_roi_blocks": self.protected,
            "nroi_share": self.free,
        }
        return {"image": self.name, **{name: round(value, 4) for name, value in figures.items()}}


def logits_of(runtime: Runtime, photo: Photo, lattice: Lattice) -> IntArray:
    """int32 [rows, cols]: what the network says of each k x k square of the photograph."""
    view = invariant_view(photo.frame, lattice)
    return np.asarray(runtime.logits(network_input(view, scale_of(*photo.vessels.shape))[None])[0])


def score(logits: IntArray, photo: Photo) -> Score:
    """Compare the logits of one photograph with its truth; positive ones are vessel."""
    k = scale_of(*photo.vessels.shape)
    rows, cols = photo.vessels.shape
    found = (logits > 0).repeat(k, axis=0).repeat(k, axis=1)[:rows, :cols]
    return Score(
        photo.name,
        *_working_scale(logits, photo, k),
        _count(found, photo.vessels, photo.field),
        *_blocks(found, photo.vessels),
    )


def score_in_blocks(runtime: Runtime, photo: Photo, side: int) -> Score:
    """Score a network that sees isolated blocks, at the size it is made for."""
    green, share, field = reduced(photo, PAPER_PX)
    rows, cols = (length // side for length in green.shape)
    whole = (slice(rows * side), slice(cols * side))
    blocks = green[whole].reshape(rows, side, cols, side).swapaxes(1, 2).reshape(-1, side, side, 1)
    logits = runtime.logits(blocks).reshape(rows, cols, side, side)
    found = (logits > 0).swapaxes(1, 2).reshape(rows * side, cols * side)
    truth, inside = share[whole] >= 128, field[whole]
    counts = _count(found, truth, inside)
    everywhere = _count(found, truth, np.ones_like(inside))
    return Score(photo.name, counts, everywhere, counts, *_blocks(found, truth, side))


def pooled(scores: Sequence[Score]) -> Score:
    """All pixels of all photographs as if they were one."""
    total = replace(scores[0], name="pooled")
    for each in scores[1:]:
        total = Score(
            "pooled",
            total.field + each.field,
            total.whole + each.whole,
            total.pixels + each.pixels,
            *(getattr(total, name) + getattr(each, name) for name in _SUMMED),
        )
    return total


_SUMMED = ("vessel_pixels", "protected_pixels", "blocks", "free_blocks")


def _working_scale(logits: IntArray, photo: Photo, scale: int) -> tuple[Counts, Counts]:
    truth = vessel_share(photo.vessels, scale, *logits.shape) >= 128
    field = vessel_share(photo.field, scale, *logits.shape) >= 128
    return _count(logits > 0, truth, field), _count(logits > 0, truth, np.ones_like(field))


def _count(found: BoolArray, truth: BoolArray, field: BoolArray) -> Counts:
    both = int((found & truth & field).sum())
    return Counts(both, int((found & field).sum()) - both, int((truth & field).sum()) - both)


def _blocks(found: BoolArray, vessels: BoolArray, side: int = V1.block_px) -> tuple[int, int, int, int]:
    roi = _by_block(found, side).any(axis=(1, 3))
    of_vessels = _by_block(vessels, side).sum(axis=(1, 3))
    return int(of_vessels.sum()), int(of_vessels[roi].sum()), roi.size, int((~roi).sum())


def _by_block(pixels: BoolArray, side: int) -> BoolArray:
    rows, cols = (length // side for length in pixels.shape)
    return pixels[: rows * side, : cols * side].reshape(rows, side, cols, side)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def as_table(scores: Sequence[Score]) -> list[dict[str, float | str]]:
    """One row a photograph, then the pooled one."""
    return [each.row() for each in (*scores, pooled(scores))]
