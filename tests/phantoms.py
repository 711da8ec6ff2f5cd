"""Phantoms for the segmenters: a body in air, as each modality draws it. Integers only, no random stream."""

from __future__ import annotations

import numpy as np

from blessmark.types import BoolArray, Frame, IntArray, Rectangle


def noise(shape: tuple[int, int], levels: int, seed: int = 0) -> IntArray:
    """int32 0..levels-1, scattered by an integer hash, so that it is the same for ever."""
    row, col = (np.asarray(axis, np.uint64) for axis in np.ogrid[: shape[0], : shape[1]])
    value = row * np.uint64(0x9E3779B97F4A7C15) + col * np.uint64(0xC2B2AE3D27D4EB4F) + np.uint64(seed)
    for shift in (33, 29):
        value = (value ^ (value >> np.uint64(shift))) * np.uint64(0xFF51AFD7ED558CCD)
    return ((value >> np.uint64(40)) % np.uint64(levels)).astype(np.int32)


def ellipse(shape: tuple[int, int], row: int, col: int, height: int, width: int) -> BoolArray:
    """True inside the ellipse with that centre and those half axes."""
    rows, cols = np.ogrid[: shape[0], : shape[1]]
    return ((rows - row) * width) ** 2 + ((cols - col) * height) ** 2 <= (height * width) ** 2


def disc(shape: tuple[int, int]) -> BoolArray:
    """True inside the circle that the image just holds."""
    return ellipse(shape, shape[0] // 2, shape[1] // 2, shape[0] // 2, shape[1] // 2)


def body(shape: tuple[int, int]) -> BoolArray:
    """True inside a body that leaves air on every side."""
    return ellipse(shape, shape[0] // 2, shape[1] // 2, shape[0] // 4, shape[1] // 3)


def body_in_air(shape: tuple[int, int] = (256, 256), air: int = 20, tissue: int = 1000) -> IntArray:
    """int32 [rows, cols]: noisy tissue in noisy air, with a lung that is as dark as the air."""
    plane = noise(shape, 21) + air
    inside = body(shape)
    plane[inside] = tissue + noise(shape, 41, seed=1)[inside]
    lung = ellipse(shape, shape[0] // 2, shape[1] // 2, shape[0] // 10, shape[1] // 10)
    plane[lung] = air + noise(shape, 21, seed=2)[lung]
    return plane


def circular_ct(shape: tuple[int, int] = (256, 256), fill: int = -2000) -> IntArray:
    """int32 [rows, cols] in Hounsfield units: a body in air in a circular field of view in constant fill."""
    plane = body_in_air(shape, air=-1010, tissue=30)
    plane[~disc(shape)] = fill
    return plane


def frame(*planes: IntArray, lo: int = 0, hi: int = 4095, padding: tuple[int, int] | None = None,
          forced_roi: tuple[Rectangle, ...] = ()) -> Frame:  # fmt: skip
    """A frame of those planes."""
    return Frame(np.stack(planes).astype(np.int32), lo, hi, padding, forced_roi=forced_roi)


def blocks_of(mask: BoolArray, grown_by: int = 0) -> BoolArray:
    """bool [rows // 8, cols // 8]: blocks that the mask touches, and their neighbours up to that distance."""
    rows, cols = (side // 8 for side in mask.shape)
    blocks = mask[: rows * 8, : cols * 8].reshape(rows, 8, cols, 8).any(axis=(1, 3))
    for _ in range(grown_by):
        wide = np.pad(blocks, 1)
        blocks = np.logical_or.reduce([wide[r : r + rows, c : c + cols] for r in range(3) for c in range(3)])
    return blocks


def fundus(shape: tuple[int, int] = (256, 256), seed: int = 0) -> IntArray:
    """int32 [rows, cols] in 0..255: dark vessels on the lit disc of a retina, black around it."""
    row, col = np.mgrid[: shape[0], : shape[1]]
    middle, radius = shape[0] // 2, min(shape) // 2 - 4
    away = (row - middle) ** 2 + (col - shape[1] // 2) ** 2
    plane = 150 - 50 * away // radius**2 + noise(shape, 5, seed)
    for number in range(5):
        bend = (col * (number + 2) // 9) % 24
        centre = shape[0] * (2 * number + 1) // 10 + np.minimum(bend, 24 - bend)
        across = np.abs(row - centre)
        plane -= np.where(across <= 2, 45 - 10 * across, 0)
    return np.where(away <= radius**2, plane, 0).astype(np.int32)


def angiogram(shape: tuple[int, int] = (256, 256), seed: int = 0) -> IntArray:
    """int32 [rows, cols] in 0..255: dark vessels on an uneven, noisy ground that fills the frame."""
    row, col = np.mgrid[: shape[0], : shape[1]]
    plane = 110 + 60 * row // shape[0] + 20 * col // shape[1] + noise(shape, 13, seed)
    for number in range(4):
        centre = shape[1] * (number + 1) // 5 + (row * (number - 2)) // 6 + seed
        across = np.abs(col - centre)
        plane -= np.where(across <= 4, 60 - 10 * across, 0)
    return np.clip(plane, 0, 255).astype(np.int32)
