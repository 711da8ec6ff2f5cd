"""Crops that a vessel network is trained on, drawn from a seed and a step number alone.

Because a crop depends on nothing but (seed, step), training that was interrupted continues with the same
crops that an uninterrupted run would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from blessmark.segment.vessels import network_input, scale_of
from blessmark.types import BoolArray, Lattice, View
from blessmark.view import invariant_view
from training.photos import Photo

#: longer side of the smallest photographs in use, pixels
_SMALLEST_PX = 560

Float = npt.NDArray[np.float32]
#: step -> network inputs and truth of that step
Batches = Callable[[int], tuple[Float, Float]]


@dataclass(frozen=True, slots=True)
class Plate:
    """One photograph at one scale, as the network sees it.

    Attributes
    ----------
    cells : uint8 [rows, cols], the network's input
    share : uint8 [2 rows, 2 cols], vessel share of every k x k pixels, 255 where all of them are;
        [rows, cols] for networks with one logit a sample
    """

    cells: npt.NDArray[np.uint8]
    share: npt.NDArray[np.uint8]

    @property
    def fine(self) -> int:
        """Truth pixels along one input sample."""
        return int(self.share.shape[0] // self.cells.shape[0])


@dataclass(frozen=True, slots=True)
class Augment:
    """How strongly crops are varied; standard deviations unless said otherwise."""

    pivot: int = 128  #: what contrast turns about
    dark: int = 64  #: samples below are surround and keep their contrast and level
    contrast: float = 0.25  #: of the logarithm of a factor on the deviation from the surroundings
    level: float = 8.0  #: of an offset, in steps of the input
    noise: float = 4.0  #: largest standard deviation of added noise, in steps of the input
    blur_share: float = 0.15  #: share of crops that are blurred
    warp_share: float = 0.5  #: share of crops that are turned by any angle and zoomed
    zoom: float = 0.15  #: of the logarithm of the zoom


def scales_for(rows: int, cols: int) -> range:
    """Every scale from that of inference to the one at which the image is as small as any camera's."""
    least = scale_of(rows, cols)
    return range(least, max(least, max(rows, cols) // _SMALLEST_PX) + 1)


def plates_of(photo: Photo) -> list[Plate]:
    """The photograph at every scale, seen through both lattices."""
    views = [invariant_view(photo.frame, lattice) for lattice in Lattice]
    scales = scales_for(*photo.vessels.shape)
    return [_plate(view, photo.vessels, scale) for view in views for scale in scales]


def _plate(view: View, vessels: BoolArray, scale: int) -> Plate:
    cells = network_input(view, scale)[..., 0]
    rows, cols = cells.shape
    return Plate(cells, vessel_share(vessels, scale, 2 * rows, 2 * cols))


def vessel_share(vessels: BoolArray, scale: int, rows: int, cols: int) -> npt.NDArray[np.uint8]:
    """uint8 [rows, cols]: 255 times the share of vessel pixels in each scale x scale square, 0 outside."""
    padded = np.zeros((rows * scale, cols * scale), np.uint16)
    padded[: vessels.shape[0], : vessels.shape[1]] = vessels
    total = padded.reshape(rows, scale, cols, scale).sum(axis=(1, 3), dtype=np.uint32)
    return np.asarray(total * 255 // scale**2, np.uint8)


def batch(
    plates: Sequence[Plate], seed: int, step: int, count: int, side: int, augment: Augment
) -> tuple[Float, Float]:
    """Crops for one training step.

    Returns
    -------
    float32 [count, side, side, 1] in whole steps 0..255; float32 [count, fine side, fine side, 1] in 0..1
    """
    rng = np.random.default_rng([seed, step])
    widths = np.array([each.cells.shape[1] for each in plates], np.float64)  # the larger, the more to see
    chosen = rng.choice(len(plates), count, p=widths / widths.sum())
    crops = [_crop(plates[int(index)], rng, side, augment) for index in chosen]
    return np.stack([cells for cells, _ in crops]), np.stack([share for _, share in crops])


def _crop(plate: Plate, rng: np.random.Generator, side: int, augment: Augment) -> tuple[Float, Float]:
    if rng.random() < augment.warp_share:
        cells, share = _warped(plate, rng, side, augment)
    else:
        cells, share = _straight(plate, rng, side)
    if rng.random() < 0.5:
        cells, share = cells.T, share.T
    flips = (slice(None, None, rng.choice([-1, 1])), slice(None, None, rng.choice([-1, 1])))
    return _vary(cells[flips], rng, augment)[..., None], share[flips][..., None] / np.float32(255)


def _straight(plate: Plate, rng: np.random.Generator, side: int) -> tuple[Float, Float]:
    rows, cols = plate.cells.shape
    top, left = rng.integers(max(1, rows - side + 1)), rng.integers(max(1, cols - side + 1))
    cells = _filled(plate.cells[top : top + side, left : left + side], side)
    fine = plate.fine
    share = plate.share[fine * top : fine * (top + side), fine * left : fine * (left + side)]
    return cells, _filled(share, fine * side)


def _filled(part: npt.NDArray[np.uint8], side: int) -> Float:
    """The part in the corner of a square: plates smaller than a crop are surrounded by nothing."""
    square = np.zeros((side, side), np.float32)
    square[: part.shape[0], : part.shape[1]] = part
    return square


def _warped(plate: Plate, rng: np.random.Generator, side: int, augment: Augment) -> tuple[Float, Float]:
    """A square turned and zoomed around a random centre; cells and pixels by one and the same map."""
    angle, zoom = rng.uniform(0, 2 * np.pi), np.exp(rng.normal(0, augment.zoom))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    centre = np.array([rng.uniform(0, length) for length in plate.cells.shape])
    cells = _sampled(plate.cells, turn, centre, side)
    return cells, _sampled(plate.share, turn, plate.fine * centre, plate.fine * side)


def _sampled(
    image: npt.NDArray[np.uint8], turn: npt.NDArray[np.float64], centre: npt.NDArray[np.float64], side: int
) -> Float:
    """Sample around `centre`, given in corner coordinates; pixel i lies at i + 0.5."""
    offset = centre - turn @ np.full(2, side / 2) + turn @ np.full(2, 0.5) - 0.5
    reach = int(np.ceil(side * 0.75 * float(np.abs(turn).max()) * 2**0.5)) + 2
    start = np.maximum(np.floor(centre).astype(int) - reach, 0)
    part = image[start[0] : start[0] + 2 * reach + 1, start[1] : start[1] + 2 * reach + 1]
    return np.asarray(
        ndimage.affine_transform(part.astype(np.float32), turn, offset - start, (side, side), order=1)
    )


def _vary(cells: Float, rng: np.random.Generator, augment: Augment) -> Float:
    """Contrast, level, noise and blur; the dark surround beside the field of view keeps its level."""
    factor = np.exp(rng.normal(0, augment.contrast))
    turned = augment.pivot + (cells - augment.pivot) * factor + rng.normal(0, augment.level)
    varied = np.where(cells < augment.dark, cells, turned)
    if rng.random() < augment.blur_share:
        varied = ndimage.gaussian_filter(varied, rng.uniform(0.3, 1.0))
    varied = varied + rng.normal(0, rng.uniform(0, augment.noise), cells.shape)
    return np.clip(np.rint(varied), 0, 255).astype(np.float32)


def reduced(photo: Photo, longer_side: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], BoolArray]:
    """Green, vessel share (0..255) and field of a photograph reduced by the integer nearest to that size."""
    scale = max(1, round(max(photo.vessels.shape) / longer_side))
    rows, cols = (length // scale for length in photo.vessels.shape)
    green = photo.rgb[: rows * scale, : cols * scale, 1].reshape(rows, scale, cols, scale)
    mean = (green.sum(axis=(1, 3), dtype=np.uint32) + scale**2 // 2) // scale**2
    whole = (slice(rows * scale), slice(cols * scale))
    field = vessel_share(photo.field[whole], scale, rows, cols) >= 128
    return mean.astype(np.uint8), vessel_share(photo.vessels[whole], scale, rows, cols), field


def in_blocks(images: Float, side: int) -> Float:
    """[n, rows, cols, 1] cut into [n * blocks, side, side, 1]."""
    count, rows, cols, _ = images.shape
    cut = images.reshape(count, rows // side, side, cols // side, side, 1)
    return cut.swapaxes(2, 3).reshape(-1, side, side, 1)
