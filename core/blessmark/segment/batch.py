"""Maps of several frames drawn together, for a segmenter that can: a network, and a graphics card above all.

The maps are those that the segmenter draws one by one; how many views go together does not show in any.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from blessmark.types import BoolArray, Frame, Lattice, Segmenter, View
from blessmark.view import invariant_view

#: frames that are drawn together unless told otherwise
FRAMES = 16
#: samples of a frame that are kept together at most, so that large frames do not fill the memory
_SAMPLES = 1 << 22


@runtime_checkable
class DrawsTogether(Protocol):
    """What a segmenter offers that is faster with several views at a time."""

    def roi_blocks_of(self, views: Sequence[View]) -> list[BoolArray]:
        """One map a view, each as `Segmenter.roi_blocks` draws it."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """A segmenter that has drawn the map of one view already; a `types.Segmenter`."""

    segmenter: Segmenter
    view: View
    drawn: BoolArray

    @property
    def id(self) -> str:
        return self.segmenter.id

    @property
    def reach_px(self) -> int | None:
        return self.segmenter.reach_px

    def roi_blocks(self, view: View) -> BoolArray:
        """bool [rows // 8, cols // 8]: the map drawn ahead if that is the view, else a new one."""
        return self.drawn if _same(view, self.view) else self.segmenter.roi_blocks(view)


def drawn_ahead(
    frames: Iterable[Frame], segmenter: Segmenter, count: int = FRAMES
) -> Iterator[tuple[Frame, Segmenter]]:
    """Each frame with a segmenter that gives its map; up to `count` maps are drawn together.

    Only the maps of the quarter lattice are: embedding and reading begin there, and rarely go on.
    """
    if count <= 1 or not isinstance(segmenter, DrawsTogether):  # the question takes longer than the answer
        yield from ((frame, segmenter) for frame in frames)
        return
    for group in _groups(frames, count):
        if len(group) == 1:
            yield group[0], segmenter
            continue
        views = [invariant_view(frame, Lattice.QUARTER) for frame in group]
        maps = segmenter.roi_blocks_of(views)
        yield from (
            (frame, Ahead(segmenter, view, drawn))
            for frame, view, drawn in zip(group, views, maps, strict=True)
        )


def _groups(frames: Iterable[Frame], count: int) -> Iterator[list[Frame]]:
    group: list[Frame] = []
    samples = 0
    for frame in frames:
        if group and (len(group) == count or samples + math.prod(frame.shape) > _SAMPLES):
            yield group
            group, samples = [], 0
        group.append(frame)
        samples += math.prod(frame.shape)
    if group:
        yield group


def _same(one: View, other: View) -> bool:
    return (
        one.lattice is other.lattice
        and (one.lo, one.hi, one.padding) == (other.lo, other.hi, other.padding)
        and np.array_equal(one.planes, other.planes)
    )
