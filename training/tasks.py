"""What each network is trained on, how its crops are drawn and how it is scored."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from blessmark.segment.block import BLOCK_SIDES
from blessmark.segment.integer import Network, NumpyRuntime
from blessmark.types import Lattice
from training.bodies import BodyTask
from training.export import lowered
from training.photos import Photo, find, read
from training.recipe import PAPER_PX, VESSELS, Recipe, block_recipe
from training.samples import Batches, Float, Plate, batch, in_blocks, plates_of, reduced
from training.scores import as_table, logits_of, pooled, score, score_in_blocks

#: more than any logit, so that the search always ends
_LARGEST_OFFSET = 1 << 14
HRF = "HRF, images numbered 01 to 11; 13 and 15 held out"
HRF_LICENCE = (
    "CC BY 4.0. Trained on the High-Resolution Fundus Image Database (HRF, CC BY 4.0): A. Budai, R. Bock, "
    "A. Maier, J. Hornegger, G. Michelson, Robust Vessel Segmentation in Fundus Images, "
    "International Journal of Biomedical Imaging 2013"
)


class Task(Protocol):
    """One network to be made."""

    @property
    def recipe(self) -> Recipe:
        """Its topology and schedule."""

    @property
    def data(self) -> str:
        """What its packaged weights were trained on, for the card."""

    @property
    def licence(self) -> str:
        """Of the packaged weights, with the attribution that their data ask for."""

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
    data: str = HRF
    licence: str = HRF_LICENCE
    #: vessel pixels of the training part that must lie in ROI blocks
    protected: float = 0.93
    #: which quarter of the photographs is held out, see `photos.find`
    fold: int = 0

    def batches(self, data: Path) -> Batches:
        plates = [each for photo in _part(data, self.fold, held_out=False) for each in plates_of(photo)]
        recipe = self.recipe
        return partial(
            batch, plates, recipe.seed, count=recipe.batch, side=recipe.side, augment=recipe.augment
        )

    def calibrated(self, network: Network, data: Path) -> Network:
        photos, runtime = _part(data, self.fold, held_out=False), NumpyRuntime(network)
        logits = [logits_of(runtime, photo, Lattice.QUARTER) for photo in photos]

        def enough(offset: int) -> bool:
            shifted = [score(each + offset, photo) for each, photo in zip(logits, photos, strict=True)]
            return pooled(shifted).protected >= self.protected

        return lowered(network, bisect_left(range(_LARGEST_OFFSET), True, key=enough))

    def scores(self, network: Network, data: Path) -> dict[str, Any]:
        photos, runtime = _part(data, self.fold, held_out=True), NumpyRuntime(network)

        def table(lattice: Lattice) -> list[dict[str, float | str]]:
            return as_table([score(logits_of(runtime, photo, lattice), photo) for photo in photos])

        return {lattice.name.lower(): table(lattice) for lattice in Lattice}


@dataclass(frozen=True, slots=True)
class BlockTask:
    """The paper's network of `blessmark.segment.block`, on photographs of the paper's size."""

    side: int
    data: str = HRF
    licence: str = HRF_LICENCE
    fold: int = 0

    @property
    def recipe(self) -> Recipe:
        return block_recipe(self.side)

    def batches(self, data: Path) -> Batches:
        plates = [Plate(*reduced(photo, PAPER_PX)[:2]) for photo in _part(data, self.fold, held_out=False)]
        recipe = self.recipe

        def draw(step: int) -> tuple[Float, Float]:
            cells, share = batch(plates, recipe.seed, step, recipe.batch, recipe.side, recipe.augment)
            return in_blocks(cells, self.side), in_blocks(share, self.side)

        return draw

    def calibrated(self, network: Network, data: Path) -> Network:  # noqa: ARG002
        """As trained: the paper's threshold is 0.5."""
        return network

    def scores(self, network: Network, data: Path) -> dict[str, Any]:
        photos, runtime = _part(data, self.fold, held_out=True), NumpyRuntime(network)
        return {"blocks": as_table([score_in_blocks(runtime, photo, self.side) for photo in photos])}


def _part(data: Path, fold: int, *, held_out: bool) -> list[Photo]:
    return [read(entry) for entry in find(data, fold) if entry.held_out == held_out]


TASKS: dict[str, Task] = {
    "vessels": VesselTask(),
    "anatomy-net": BodyTask(),
    **{f"blessmark-block-{side}": BlockTask(side) for side in BLOCK_SIDES},
}
