"""`anatomy-net` learns the deterministic map of `anatomy` on DICOM files: grids, crops, scores.

A sample is one plane at block resolution. Its truth is the map that `anatomy` draws from the same view, so no
hand has labelled anything. Whole folders are held out, because slices of one series are almost copies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from blessmark.errors import PixelError
from blessmark.pixels import Image, load, read
from blessmark.segment.anatomy import Anatomy
from blessmark.segment.anatomy_net import network_input
from blessmark.segment.integer import Images, Network, NumpyRuntime
from blessmark.types import BoolArray, Lattice
from blessmark.view import invariant_view
from training.export import lowered
from training.photos import DataError
from training.recipe import BODIES, Recipe
from training.samples import Batches, Float

#: folders of other scanners than those trained on
_HELD_OUT = frozenset({"transfer_syntaxes", "edge_cases", "mr_enhanced"})
_FRAMES_PER_FILE = 4
_LEAST_BLOCKS = 12
_LARGEST_OFFSET = 1 << 14


@dataclass(frozen=True, slots=True)
class Body:
    """One plane as the network sees it and what `anatomy` says of it.

    Attributes
    ----------
    folder : where its file lies
    codes : uint8 [rows, cols, 2], padded to multiples of four
    roi : bool [block rows, block cols], unpadded
    """

    folder: str
    codes: Images
    roi: BoolArray


def bodies(data: Path, held_out: bool) -> list[Body]:
    """A few frames of every readable file below the folder, grey ones only, in a fixed order.

    Raises
    ------
    DataError
        there is no DICOM file with pixels
    """
    files = sorted(path for path in data.rglob("*.dcm") if (_source(path) in _HELD_OUT) == held_out)
    found = [body for path in files for body in _of_file(path)]
    if not found:
        raise DataError(f"no DICOM images below {data}")
    return found


def _of_file(path: Path) -> Iterator[Body]:
    try:
        image = load(read(path))
    except PixelError:
        return
    if not isinstance(image, Image) or image.channels != 1 or min(image.rows, image.cols) < 8 * _LEAST_BLOCKS:
        return
    for number in np.unique(np.linspace(1, image.frames, _FRAMES_PER_FILE).astype(int)):
        for lattice in Lattice:
            view = invariant_view(image.frame(int(number)), lattice)
            yield Body(_source(path), network_input(view.samples[0], view.lo), Anatomy().roi_blocks(view))


def _source(path: Path) -> str:
    """The folder that stands for a scanner: a held-out one above the file, or the one it lies in."""
    return next((part for part in path.parts if part in _HELD_OUT), path.parent.name)


def draw(plates: Sequence[Body], recipe: Recipe, step: int) -> tuple[Float, Float]:
    """Crops of a step: turned, flipped, at another gain, with other noise; every folder counts the same."""
    rng = np.random.default_rng([recipe.seed, step])
    folders = sorted({plate.folder for plate in plates})
    crops = []
    for _ in range(recipe.batch):
        folder = folders[int(rng.integers(len(folders)))]
        of_folder = [plate for plate in plates if plate.folder == folder]
        crops.append(_crop(of_folder[int(rng.integers(len(of_folder)))], rng, recipe))
    return np.stack([codes for codes, _ in crops]), np.stack([roi for _, roi in crops])


def _crop(plate: Body, rng: np.random.Generator, recipe: Recipe) -> tuple[Float, Float]:
    rows, cols = plate.roi.shape
    margins = [(0, max(0, recipe.side - length)) for length in (rows, cols)]
    codes = np.pad(plate.codes[:rows, :cols], [*margins, (0, 0)], mode="edge").astype(np.float32)
    roi = np.pad(plate.roi, margins, mode="edge").astype(np.float32)
    top, left = (int(rng.integers(length - recipe.side + 1)) for length in roi.shape)
    window = (slice(top, top + recipe.side), slice(left, left + recipe.side))
    codes, roi = codes[window], roi[window]
    if rng.random() < 0.5:
        codes, roi = codes.swapaxes(0, 1), roi.T
    flips = (slice(None, None, rng.choice([-1, 1])), slice(None, None, rng.choice([-1, 1])))
    return _varied(codes[flips], rng, recipe), roi[flips][..., None]


def _varied(codes: Float, rng: np.random.Generator, recipe: Recipe) -> Float:
    """Another gain is an offset of the logarithm; noise widens the span of a block, never turns it round."""
    moved = codes + rng.normal(0, recipe.augment.level)
    wider = np.abs(rng.normal(0, rng.uniform(0, recipe.augment.noise), codes.shape))
    moved[..., 0] -= wider[..., 0]
    moved[..., 1] += wider[..., 1]
    return np.asarray(np.clip(np.rint(moved), 0, 255), np.float32)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Blocks of some images: all, free for `anatomy`, free for the network, free for the network alone."""

    name: str
    images: int
    blocks: int
    free: int
    free_for_network: int
    wrongly_free: int

    def __add__(self, other: Agreement) -> Agreement:
        sums = {name: getattr(self, name) + getattr(other, name) for name in self.__slots__ if name != "name"}
        return Agreement(self.name, **sums)

    def row(self) -> dict[str, float | str]:
        """The figures that a card tells."""
        return {
            "folder": self.name,
            "images": self.images,
            "nroi_anatomy": round(self.free / self.blocks, 4),
            "nroi_network": round(self.free_for_network / self.blocks, 4),
            "wrongly_free_per_10000": round(1e4 * self.wrongly_free / max(1, self.free_for_network), 1),
        }


def compare(body: Body, logits: npt.NDArray[np.int32]) -> Agreement:
    """One plane's map beside that of `anatomy`."""
    rows, cols = body.roi.shape
    free = logits[:rows, :cols] <= 0
    wrongly = int((free & body.roi).sum())
    return Agreement(body.folder, 1, body.roi.size, int((~body.roi).sum()), int(free.sum()), wrongly)


def by_folder(found: Sequence[Agreement]) -> list[Agreement]:
    """Added up per folder, then all together."""
    totals: dict[str, Agreement] = {}
    for each in found:
        for name in (each.name, "all"):
            named = replace(each, name=name)
            totals[name] = totals[name] + named if name in totals else named
    return [*(each for name, each in sorted(totals.items()) if name != "all"), totals["all"]]


@dataclass(frozen=True, slots=True)
class BodyTask:
    """The network of `blessmark.segment.anatomy_net`; see `tasks.Task`."""

    recipe: Recipe = BODIES
    data: str = "ct_head, ct_phantom, mr_structural, mr_sagittal, cr, dx, us; other folders held out"
    licence: str = "Apache-2.0; trained on files under BSD-2, CC BY 3.0 (TCIA Phantom FDA), PDDL and MIT"
    #: of the blocks that the network frees on the training part, the share that `anatomy` keeps
    wrongly_free: float = 1e-4

    def batches(self, data: Path) -> Batches:
        plates, recipe = bodies(data, held_out=False), self.recipe
        return lambda step: draw(plates, recipe, step)

    def calibrated(self, network: Network, data: Path) -> Network:
        plates, runtime = bodies(data, held_out=False), NumpyRuntime(network)
        pairs = [(plate, runtime.logits(plate.codes[None])[0]) for plate in plates]
        for offset in range(0, _LARGEST_OFFSET, 64):
            total = by_folder([compare(plate, logits + offset) for plate, logits in pairs])[-1]
            if total.wrongly_free <= self.wrongly_free * total.free_for_network:
                return lowered(network, offset)
        return network

    def scores(self, network: Network, data: Path) -> dict[str, Any]:
        runtime = NumpyRuntime(network)
        return {
            part: [each.row() for each in by_folder([_judged(runtime, body) for body in bodies(data, held)])]
            for part, held in (("other scanners", True), ("scanners trained on", False))
        }


def _judged(runtime: NumpyRuntime, body: Body) -> Agreement:
    return compare(body, runtime.logits(body.codes[None])[0])
