"""Which blocks did marking alter? The paper's detector and a better one, and Algorithm 3 with them.

    paper      flatten, m^2 ReLU, m^2 ReLU, 1 sigmoid, on the samples of one block (BlessMark, Fig. 7)
    context    64 ReLU, 32 ReLU, 1 sigmoid, on coefficients and samples of the block and what is around it

Restoring is approximate whatever they say, because rounding has lost what a perfect answer would need; so
floats do, and two machines may differ in a block now and then. What is authentic does not depend on it.
"""

from __future__ import annotations

import enum
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from blessmark.carrier.dct import HUNDREDTHS, Bits, Pair, Places, cut, dct_pair, marked, unmarked
from blessmark.errors import WatermarkError
from blessmark.types import BoolArray, Frame, IntArray

Float = npt.NDArray[np.float32]

#: samples worked on at once
_CHUNK = 8192
#: a threshold of 2.55 grey levels, the paper's at 8 bits, is the unit that samples are scaled by
_PAPER_THRESHOLD = 255
#: the paper's network sees (sample - mean) / 4 at that threshold
_PAPER_SCALE = 4.0
#: how the four direct and the four diagonal neighbours lie
_AROUND = ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))
_DIRECT = 4
#: side of the corner of highest frequencies that enters coefficient by coefficient
_CORNER = 4


class Detector(enum.IntEnum):
    """The number that the seal of a frame names a detector by."""

    NONE = 0  #: nothing is altered back: the image as it is comes closest to the original
    PAPER = 1
    CONTEXT = 2


@dataclass(frozen=True, slots=True)
class Dense:
    """Layers of a fully connected network: float32 (weights [in, out], bias [out]) each.

    All but the last are followed by ReLU, the last gives one logit.
    """

    layers: tuple[tuple[Float, Float], ...]

    def logits(self, inputs: Float) -> Float:
        """float32 [n, in] -> [n]."""
        values = inputs
        for index, (weights, bias) in enumerate(self.layers):
            values = values @ weights + bias
            if index + 1 < len(self.layers):
                values = np.maximum(values, 0)
        return np.asarray(values[:, 0])


def restored(
    samples: IntArray,
    frame: Frame,
    side: int,
    places: Places,
    bits: Bits,
    threshold: int,
    detector: Detector,
) -> IntArray:
    """Algorithm 3: the samples, int32 [channels, rows, cols], with what the detector finds altered undone.

    `places` are the blocks that carry `bits`, one a channel; the last block may carry fewer.
    """
    result = samples.copy()
    if detector is Detector.NONE or not len(places):
        return result
    grid = cut(result, side)
    row, col = np.divmod(places, grid.shape[1])
    carried = np.zeros((len(places), frame.channels), np.uint8)
    carried.reshape(-1)[: len(bits)] = bits
    found = altered(samples, side, places, carried, threshold, detector)
    found.reshape(-1)[len(bits) :] = False
    which, channel = np.nonzero(found)
    pair = dct_pair(side)
    blocks = grid[row[which], col[which], channel]
    undone = unmarked(pair, blocks, carried[which, channel], threshold, frame.bounds)
    grid[row[which], col[which], channel] = undone
    if detector is Detector.CONTEXT:
        which, channel = np.divmod(np.arange(len(bits)), frame.channels)
        blocks = cut(samples, side)[row[which], col[which], channel]
        flat, level = flat_before(pair, blocks, bits, threshold, frame.bounds)
        grid[row[which[flat]], col[which[flat]], channel[flat]] = level[flat, None, None]
    return result


def flat_before(
    pair: Pair, blocks: IntArray, bits: Bits, threshold: int, bounds: tuple[int, int]
) -> tuple[BoolArray, IntArray]:
    """Which blocks int32 [n, side, side] marking made of a flat block, and the level of that block.

    What clipping took from such a block cannot be undone by arithmetic; but there are few levels that it may
    have had, and marking each again shows which one it was. So synthetic background comes back exactly.
    """
    found, level = np.zeros(len(blocks), np.bool_), np.zeros(len(blocks), np.int32)
    values = blocks.reshape(len(blocks), pair.side**2)
    for guess in (values.min(axis=1), values.max(axis=1), np.median(values, axis=1).astype(np.int32)):
        for bit in (0, 1):
            left = np.flatnonzero((bits == bit) & ~found)
            flat = np.broadcast_to(guess[left, None, None], (len(left), pair.side, pair.side))
            same = (marked(pair, flat, bit, threshold, bounds) == blocks[left]).all(axis=(1, 2))
            found[left[same]], level[left[same]] = True, guess[left[same]]
    return found, level


def altered(
    samples: IntArray, side: int, places: Places, bits: Bits, threshold: int, detector: Detector
) -> BoolArray:
    """bool [n, channels]: which blocks at `places` were altered to carry `bits`, uint8 [n, channels]."""
    network = packaged(detector, side)
    logits = [
        network.logits(
            inputs(samples, side, places[at : at + _CHUNK], bits[at : at + _CHUNK], threshold, detector)
        )
        for at in range(0, len(places), _CHUNK)
    ]
    return np.asarray(np.concatenate(logits) > 0).reshape(len(places), samples.shape[0])


def inputs(
    samples: IntArray, side: int, places: Places, bits: Bits, threshold: int, detector: Detector
) -> Float:
    """float32 [n * channels, width]: what a detector's network is given."""
    if detector is Detector.PAPER:
        row, col = np.divmod(places, samples.shape[2] // side)
        return _levelled(cut(samples, side)[row, col], threshold)
    return _features(samples, side, places, bits, threshold)


@cache
def packaged(detector: Detector, side: int) -> Dense:
    """The packaged weights of a detector for blocks of that side.

    Raises
    ------
    WatermarkError
        there are none, or the file is not the one its description was written for
    """
    name = f"{detector.name.lower()}-{side}"
    folder = files("blessmark.carrier") / "weights"
    try:
        content, text = (folder / f"{name}.npz").read_bytes(), (folder / f"{name}.json").read_text("utf-8")
    except OSError as error:
        raise WatermarkError(f"no weights for the detector {name!r}; reinstall the package") from error
    network = parse(content)
    if digest(network) != json.loads(text)["sha256"]:
        raise WatermarkError(f"weights of {name} do not match their description; reinstall the package")
    return network


def parse(content: bytes) -> Dense:
    """A network from the bytes of its `.npz`."""
    with np.load(BytesIO(content), allow_pickle=False) as stored:
        count = len(stored.files) // 2
        return Dense(
            tuple(
                (stored[f"w{at}"].astype(np.float32), stored[f"b{at}"].astype(np.float32))
                for at in range(count)
            )
        )


def dump(network: Dense) -> bytes:
    """The bytes that `parse` reads; weights are kept in half precision."""
    buffer = BytesIO()
    arrays: dict[str, Any] = {}
    for at, (weights, bias) in enumerate(network.layers):
        arrays[f"w{at}"], arrays[f"b{at}"] = weights.astype(np.float16), bias.astype(np.float16)
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def digest(network: Dense) -> str:
    """SHA-256 over all weights, in half precision."""
    sha = hashlib.sha256()
    for weights, bias in network.layers:
        sha.update(repr(weights.shape).encode())
        sha.update(weights.astype("<f2").tobytes() + bias.astype("<f2").tobytes())
    return sha.hexdigest()


def _levelled(blocks: IntArray, threshold: int) -> Float:
    """float32 [n * channels, side * side]: (sample - mean) / 4 at the paper's threshold."""
    flat = blocks.reshape(-1, blocks.shape[-1] ** 2).astype(np.float32)
    scale = np.float32(_PAPER_THRESHOLD / (_PAPER_SCALE * max(1, threshold)))
    return np.asarray((flat - flat.mean(axis=1, keepdims=True)) * scale)


def _features(samples: IntArray, side: int, places: Places, bits: Bits, threshold: int) -> Float:
    """Coefficients and samples of each block and a summary of the blocks around it, all in thresholds.

    A block that carries 1 is transposed, which exchanges the two coefficients: afterwards the first one is
    the greater in every block.
    """
    grid = cut(samples, side)
    rows, cols, channels = grid.shape[:3]
    row, col = np.divmod(places, cols)
    near = [(np.clip(row + r, 0, rows - 1), np.clip(col + c, 0, cols - 1)) for r, c in ((0, 0), *_AROUND)]
    wanted, back = np.unique(np.concatenate([r * cols + c for r, c in near]), return_inverse=True)
    spectra = _spectra(grid[wanted // cols, wanted % cols], threshold)
    index = back.reshape(len(near), -1)
    summary = _summary(spectra)
    own = np.where((bits == 1)[..., None, None], spectra[index[0]].swapaxes(2, 3), spectra[index[0]])
    around = summary[index[1:]]
    others = (summary[index[0]].sum(axis=1, keepdims=True) - summary[index[0]]) / max(1, channels - 1)
    parts = [
        own[:, :, -_CORNER:, -_CORNER:].reshape(len(places), channels, -1),
        own[:, :, -1:, -2] - own[:, :, -2:-1, -1],
        summary[index[0]],
        others if channels > 1 else summary[index[0]],
        *around[:_DIRECT],
        around.mean(axis=0),
        around.min(axis=0),
    ]
    stacked = np.arcsinh(4 * np.concatenate(parts, axis=2)).reshape(len(places) * channels, -1)
    blocks = grid[row, col]
    upright = np.where((bits == 1)[..., None, None], blocks.swapaxes(2, 3), blocks)
    return np.concatenate([stacked, _levelled(upright, threshold)], axis=1).astype(np.float32)


def _spectra(blocks: IntArray, threshold: int) -> Float:
    """The orthonormal DCT of blocks [n, channels, side, side], in thresholds."""
    basis = _basis(blocks.shape[-1])
    unit = np.float32(HUNDREDTHS / max(1, threshold))
    return np.asarray(basis @ (blocks.astype(np.float32) * unit) @ basis.T)


def _summary(spectra: Float) -> Float:
    """[..., 4]: distance of the pair, mean size of the other high, the middle and the low coefficients."""
    side = spectra.shape[-1]
    order = np.add.outer(np.arange(side), np.arange(side))
    pair = order == 2 * side - 3
    size = np.abs(spectra)
    bands = (
        (order >= 2 * side - 5) & ~pair,
        (order >= side) & (order < 2 * side - 5),
        (order > 0) & (order < side),
    )
    means = [size[..., band].mean(axis=-1) for band in bands]
    return np.stack([np.abs(spectra[..., -1, -2] - spectra[..., -2, -1]), *means], axis=-1)


@cache
def _basis(side: int) -> Float:
    order, place = np.ogrid[:side, :side]
    basis = np.cos((2 * place + 1) * order * (math.pi / (2 * side))) * math.sqrt(2 / side)
    basis[0] /= math.sqrt(2)
    return np.asarray(basis, np.float32)


def sizes(detector: Detector, side: int) -> Sequence[int]:
    """Widths of the layers behind the input."""
    return (side * side, side * side, 1) if detector is Detector.PAPER else (64, 32, 1)
