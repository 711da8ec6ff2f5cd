"""What each network is trained on, how its crops are drawn and how it is scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from blessmark.segment.integer import Conv, Network, NumpyRuntime
from blessmark.segment.vessels import Vessels
from blessmark.types import Lattice
from training.fitting import Batches
from training.photos import find, read
from training.recipe import VESSELS, Recipe
from training.samples import batch, plates_of
from training.scores import as_table, pooled, score


class Task(Protocol):
    """One network to be made."""

    @property
    def recipe(self) -> Recipe:
        """Its topology and schedule."""

    def batches(self, data: Path) -> Batches:
        """Reads the training part of the data; the result draws the crops of a step."""

    def calibrated(self, network: Network, data: Path) -> Network:
        """The network at its operating point, chosen on the training part."""

    def scores(self, network: Network, data: Path) -> dict[str, Any]:
        """What the card tells, measured on the held-out part."""


@dataclass(frozen=True, slots=True)
class VesselTask:
    """The U-Net of `blessmark.segment.vessels`."""

    recipe: Recipe = VESSELS
    #: vessel pixels of the training part that must lie in ROI blocks
    protected: float = 0.94

    def batches(self, data: Path) -> Batches:
        plates = [each for entry in find(data) if not entry.held_out for each in plates_of(read(entry))]
        recipe = self.recipe
        return partial(
            batch, plates, recipe.seed, count=recipe.batch, side=recipe.side, augment=recipe.augment
        )

    def calibrated(self, network: Network, data: Path) -> Network:
        photos = [read(entry) for entry in find(data) if not entry.held_out]
        for offset in range(0, 64):
            shifted = with_offset(network, offset)
            segmenter = Vessels(NumpyRuntime(shifted))
            total = pooled([score(segmenter, photo, Lattice.QUARTER) for photo in photos])
            if total.protected >= self.protected:
                return shifted
        return network

    def scores(self, network: Network, data: Path) -> dict[str, Any]:
        segmenter = Vessels(NumpyRuntime(network))
        photos = [read(entry) for entry in find(data) if entry.held_out]
        return {
            lattice.name.lower(): as_table([score(segmenter, photo, lattice) for photo in photos])
            for lattice in Lattice
        }
