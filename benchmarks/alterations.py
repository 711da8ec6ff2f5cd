"""What may befall a marked image on its way, whole images above all: codecs, sizes, turns, windows, filters.

Codecs are real ones where they take the depth: JPEG by libjpeg for 8 bits (deeper images go through the same
transform and tables here, their steps scaled to the range in use), JPEG-LS by CharLS, JPEG 2000 by OpenJPEG.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace

import jpeg_ls
import numpy as np
import numpy.typing as npt
import openjpeg
from PIL import Image as Picture
from scipy import fft, ndimage

from blessmark.types import Frame, IntArray

Floats = npt.NDArray[np.float64]

#: ITU-T T.81 table K.1
_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
_BLOCK = 8


@dataclass(frozen=True, slots=True)
class Alteration:
    """An altered frame; `causes` are words that would be right, `lossy` is what an honest header says."""

    name: str
    causes: tuple[str, ...]
    frame: Frame
    lossy: bool = False


def alterations(frame: Frame, rng: np.random.Generator) -> Iterator[Alteration]:
    """Every alteration of the table that changes this frame."""
    made = [*_codecs(frame), *_shapes(frame), *_levels(frame), *_textures(frame, rng), *_parts(frame, rng)]
    for each in made:
        same = each.frame.samples.shape == frame.samples.shape
        if not (same and np.array_equal(each.frame.samples, frame.samples)):
            yield each


def _of(frame: Frame, samples: IntArray | Floats) -> Frame:
    whole = np.rint(samples) if samples.dtype.kind == "f" else samples
    return replace(frame, samples=np.ascontiguousarray(np.clip(whole, frame.lo, frame.hi), np.int32))


def _codecs(frame: Frame) -> Iterator[Alteration]:
    lossy = ("lossy-compression",)
    for quality in (50, 75, 90, 95):
        yield Alteration(f"JPEG, quality {quality}", lossy, jpeg(frame, quality), lossy=True)
    for near in (1, 3):
        yield Alteration(f"JPEG-LS, near {near}", lossy, _jpeg_ls(frame, near), lossy=True)
    for ratio in (10, 20):
        yield Alteration(f"JPEG 2000, {ratio} to 1", lossy, _jpeg_2000(frame, ratio), lossy=True)


def jpeg(frame: Frame, quality: int) -> Frame:
    """The frame after JPEG compression of that quality, as libjpeg counts it."""
    if (frame.lo, frame.hi) != (0, 255) or frame.channels not in (1, 3):
        return _of(frame, np.stack([_transformed(plane, quality) for plane in frame.samples]))
    planes = frame.samples.astype(np.uint8)
    picture = Picture.fromarray(
        planes[0] if len(planes) == 1 else np.ascontiguousarray(planes.transpose(1, 2, 0))
    )
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    back = np.asarray(Picture.open(buffer), np.int32)
    return _of(frame, back[None] if back.ndim == 2 else back.transpose(2, 0, 1))


def _transformed(plane: IntArray, quality: int) -> Floats:
    """One plane through the transform and quantiser of JPEG."""
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    unit = max(1.0, (int(plane.max()) - int(plane.min())) / 255)
    steps = np.maximum(1, np.floor((_LUMINANCE * scale + 50) / 100)) * unit
    rows, cols = plane.shape
    padded = np.pad(plane.astype(np.float64), ((0, -rows % _BLOCK), (0, -cols % _BLOCK)), mode="edge")
    high, wide = (side // _BLOCK for side in padded.shape)
    blocks = padded.reshape(high, _BLOCK, wide, _BLOCK).transpose(0, 2, 1, 3)
    coefficients = fft.dctn(blocks, axes=(2, 3), norm="ortho")
    back = fft.idctn(np.rint(coefficients / steps) * steps, axes=(2, 3), norm="ortho")
    return np.asarray(back.transpose(0, 2, 1, 3).reshape(padded.shape)[:rows, :cols])


def _unsigned(frame: Frame) -> tuple[npt.NDArray[np.uint16] | npt.NDArray[np.uint8], int]:
    """Samples from 0 in the narrowest type that holds them, and what was taken off."""
    planes = frame.samples - frame.lo
    return (planes.astype(np.uint8) if frame.hi - frame.lo < 256 else planes.astype(np.uint16)), frame.lo


def _jpeg_ls(frame: Frame, near: int) -> Frame:
    planes, base = _unsigned(frame)
    back = [jpeg_ls.decode(np.asarray(jpeg_ls.encode(plane, near))) for plane in planes]
    return _of(frame, np.stack(back).astype(np.int32).reshape(frame.samples.shape) + base)


def _jpeg_2000(frame: Frame, ratio: int) -> Frame:
    planes, base = _unsigned(frame)
    bits = (frame.hi - frame.lo).bit_length()
    coded = [
        openjpeg.encode(plane, bits_stored=bits, photometric_interpretation=2, compression_ratios=[ratio])
        for plane in planes
    ]
    back = np.stack([openjpeg.decode(content) for content in coded])
    return _of(frame, back.astype(np.int32).reshape(frame.samples.shape) + base)


def _shapes(frame: Frame) -> Iterator[Alteration]:
    for factor in (0.5, 0.75, 1.5, 2.0):
        zoomed = [ndimage.zoom(plane.astype(np.float64), factor, order=1) for plane in frame.samples]
        yield Alteration(f"resized by {factor:g}", ("resized",), _of(frame, np.stack(zoomed)))
    samples, rows, cols = frame.samples, frame.rows, frame.cols
    for share in (16, 4):
        part = samples[:, rows // share :, : cols - cols // share]
        yield Alteration(f"1/{share} of rows and columns cropped", ("cropped",), _of(frame, part))
    yield Alteration("rotated by 90 degrees", ("turned",), _of(frame, np.rot90(samples, axes=(1, 2))))
    yield Alteration("rotated by 180 degrees", ("turned",), _of(frame, samples[:, ::-1, ::-1]))
    yield Alteration("mirrored left to right", ("turned",), _of(frame, samples[:, :, ::-1]))
    yield Alteration("mirrored top to bottom", ("turned",), _of(frame, samples[:, ::-1]))


def _levels(frame: Frame) -> Iterator[Alteration]:
    low, high = int(frame.samples.min()), int(frame.samples.max())
    span, middle = max(1, high - low), frame.samples - (low + high) / 2
    rescaled = ("rescaled",)
    yield Alteration("brightness + 5 %", rescaled, _of(frame, frame.samples + span // 20))
    yield Alteration("contrast x 1.2", rescaled, _of(frame, middle * 1.2 + (low + high) / 2))
    yield Alteration("contrast x 0.8", rescaled, _of(frame, middle * 0.8 + (low + high) / 2))
    shares = (frame.samples - low) / span
    yield Alteration("gamma 0.8", rescaled, _of(frame, low + span * shares**0.8))
    centre, width = np.quantile(frame.samples, 0.7), span / 3
    window = np.clip((frame.samples - centre) / width + 0.5, 0, 1)
    yield Alteration("window burnt in", rescaled, _of(frame, low + span * window))
    if frame.hi - frame.lo > 255:
        eight = np.rint(255 * shares).astype(np.int32)
        yield Alteration("8 bits of 12 or more", rescaled, Frame(eight, 0, 255, None, frame.number))
        yield Alteration(
            "4 lowest bits cleared",
            ("rescaled", "noise", "lossy-compression"),
            _of(frame, frame.samples & ~15),
        )


def _textures(frame: Frame, rng: np.random.Generator) -> Iterator[Alteration]:
    span = max(1, int(frame.samples.max()) - int(frame.samples.min()))
    for percent in (0.5, 2.0):
        noise = rng.normal(0, max(0.8, span * percent / 100), frame.samples.shape)
        yield Alteration(
            f"noise of {percent:g} % of the range", ("noise",), _of(frame, frame.samples + noise)
        )
    sprinkled = (rng.random(frame.samples.shape) < 0.01) * rng.choice((-1, 1), frame.samples.shape)
    yield Alteration("1 % of the samples moved by 1", ("noise",), _of(frame, frame.samples + sprinkled))
    for sigma in (0.7, 1.5):
        blurred = ndimage.gaussian_filter(frame.samples.astype(np.float64), (0, sigma, sigma))
        yield Alteration(f"blurred, sigma {sigma:g}", ("filtered",), _of(frame, blurred))
    smooth = ndimage.gaussian_filter(frame.samples.astype(np.float64), (0, 1, 1))
    yield Alteration("sharpened", ("filtered",), _of(frame, 1.7 * frame.samples - 0.7 * smooth))
    median = ndimage.median_filter(frame.samples, (1, 3, 3))
    yield Alteration("median of 3 x 3", ("filtered",), _of(frame, median))


def _parts(frame: Frame, rng: np.random.Generator) -> Iterator[Alteration]:
    for side in (16, 48, 128):
        if 3 * side > min(frame.rows, frame.cols):
            continue
        height, width = frame.rows - side, frame.cols - side
        from_row, from_col, row, col = (int(rng.integers(0, most)) for most in (height, width, height, width))
        samples = frame.samples.copy()
        samples[:, row : row + side, col : col + side] = frame.samples[
            :, from_row : from_row + side, from_col : from_col + side
        ]
        yield Alteration(f"{side} x {side} from elsewhere", ("pasted-region",), _of(frame, samples))
        samples = frame.samples.copy()
        samples[:, row : row + side, col : col + side] = int(frame.samples.max())
        yield Alteration(f"{side} x {side} painted white", ("pasted-region",), _of(frame, samples))
