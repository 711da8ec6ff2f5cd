"""What probably happened to a marked frame that is not what was released any more: hints, never findings.

A finding rests on keys and hashes. A cause is told from statistics: the portrait of the frame as it was
released (`portrait`), that of the frame as it arrived, traces of a lossy codec in its samples, and where
altered tiles lie. It can be wrong, and somebody who wants it to be wrong can make it so; it tells an
operator where to look first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from blessmark.portrait import SIDE, Cells, Portrait, portrait
from blessmark.types import Cause, Finding, Frame, Hint, IntArray, Verdict

#: means of cells that agree so well, as correlation, are of the same picture
_SAME_PICTURE = 0.98
#: by how much the best match must beat the others, as share of what the others miss
_CLEARLY = 0.5
#: how far cells are moved on average by what changes brightness, share of their range
_MOVED = 0.02
#: what a straight line may leave unexplained, share of the range
_STRAIGHT = 0.02
#: cells that still are exactly as they were, at least, for a change to be called local
_UNTOUCHED = 0.25
#: roughness below this is told as this, grey levels
_FAINT = 1 / 16
#: flat cells after noise, how evenly it is added, details after smoothing and after sharpening, what is alike
_ROUGHER, _EVEN, _SMOOTHER, _SHARPER, _ALIKE = 1.3, 0.4, 0.84, 1.12, 0.003
#: coherence of coefficients with the steps of a quantiser
_COHERENT = 0.45
#: blocks that are looked at for traces of a codec, at most
_MOST_BLOCKS = 4096
_BLOCK = 8


@dataclass(frozen=True, slots=True)
class Claims:
    """What the header says about compression, now and when the frame was released; None: not known."""

    lossy_now: bool = False
    lossy_then: bool | None = None


def explained(verdict: Verdict, frame: Frame, then: Portrait | None, claims: Claims) -> Verdict:
    """The verdict on `frame` with hints at what happened to it, where there is something to explain.

    A frame in which nothing was ever found is not explained: most such frames were never marked.
    """
    if verdict.finding not in (Finding.PIXELS_ALTERED, Finding.DAMAGED):
        return verdict
    evidence = verdict.evidence
    located = verdict.record is not None and evidence.tiles is not None
    tiles = int(evidence.tiles.size) if evidence.tiles is not None and located else 0
    hints = likely(then, frame, len(evidence.altered_tiles), tiles, claims)
    return replace(verdict, evidence=replace(evidence, causes=hints))


def likely(then: Portrait | None, frame: Frame, altered: int, tiles: int, claims: Claims) -> tuple[Hint, ...]:
    """What probably happened to `frame`, the likeliest first; nothing where nothing speaks for anything.

    Parameters
    ----------
    then : the portrait of the frame as it was released, None if it did not arrive
    frame : as received, and not what was released
    altered, tiles : how many tiles are known to be altered, and how many there are; 0 altered: unknown
    claims : what the header says about compression
    """
    codec = _codec(frame, claims)
    if then is None:
        local = [_local(altered, tiles)] if 0 < altered <= tiles // 4 else []
        return tuple(([codec] if codec else []) + local)
    now = portrait(frame)
    if (then.rows, then.cols) != (now.rows, now.cols):
        shape = _reshaped(then, now)
        return (shape, *([codec] if codec else []))
    for rule in (_turned, _pasted, _rescaled):
        hint = rule(then, now)
        if hint is not None:
            return _with_codec(hint, codec, claims)
    if 0 < altered <= tiles // 4:
        return (_local(altered, tiles),)
    return (codec or _textured(then, now),)


def _with_codec(hint: Hint, codec: Hint | None, claims: Claims) -> tuple[Hint, ...]:
    """Both, where a codec may have been at work too; first what the header says."""
    if codec is None or (hint.cause is not Cause.RESCALED and not claims.lossy_now):
        return (hint,)
    return (codec, hint) if claims.lossy_now and not claims.lossy_then else (hint, codec)


def _local(altered: int, tiles: int) -> Hint:
    return Hint(Cause.PASTED_REGION, f"{altered} of {tiles} tiles are altered, the others are not")


# Geometry


def _reshaped(then: Portrait, now: Portrait) -> Hint:
    """Another shape: resized if it is the same picture, turned, or a part of it."""
    said = f"{then.cols} x {then.rows} became {now.cols} x {now.rows}"
    if _likeness(then.mean, now.mean) >= _SAME_PICTURE:
        return Hint(Cause.RESIZED, f"{said}, the same picture")
    if (then.rows, then.cols) == (now.cols, now.rows):
        best = max(_likeness(turn(then.mean), now.mean) for turn in _TURNS.values())
        if best >= _SAME_PICTURE:
            return Hint(Cause.TURNED, said)
    return Hint(Cause.CROPPED, f"{said}, another part of the picture")


_TURNS: dict[str, Callable[[Cells], Cells]] = {
    "by 90 degrees": lambda cells: np.rot90(cells, -1),
    "by 180 degrees": lambda cells: np.rot90(cells, 2),
    "by 270 degrees": lambda cells: np.rot90(cells, 1),
    "mirrored left to right": np.fliplr,
    "mirrored top to bottom": np.flipud,
    "mirrored along a diagonal": np.transpose,
    "mirrored along the other diagonal": lambda cells: np.rot90(cells, 2).T,
}


def _turned(then: Portrait, now: Portrait) -> Hint | None:
    """The same shape, and the picture lies another way."""
    as_it_is = _missed(then.mean, now.mean)
    misses = {name: _missed(turn(then.mean), now.mean) for name, turn in _TURNS.items()}
    name, least = min(misses.items(), key=lambda item: item[1])
    if least < as_it_is * (1 - _CLEARLY) and _likeness(_TURNS[name](then.mean), now.mean) >= _SAME_PICTURE:
        return Hint(Cause.TURNED, name)
    return None


def _likeness(one: Cells, other: Cells) -> float:
    """Correlation of the means of cells; 1 for two that do not vary."""
    a, b = one.ravel() - one.mean(), other.ravel() - other.mean()
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm > 0 else 1.0


def _missed(one: Cells, other: Cells) -> float:
    return float(np.abs(one - other).sum())


# Brightness


def _rescaled(then: Portrait, now: Portrait) -> Hint | None:
    """Another range, or another brightness nearly everywhere; codecs, filters and noise leave means alone."""
    if (then.lo, then.hi) != (now.lo, now.hi):
        return Hint(Cause.RESCALED, f"samples of {then.lo} to {then.hi} became {now.lo} to {now.hi}")
    spread = float(np.ptp(then.mean))
    moved = float(np.abs(now.mean - then.mean).mean())
    least = 2 * _MOVED if _noise(_Texture.of(then, now)) else _MOVED
    if moved <= least * max(spread, 1.0):
        return None
    gain, offset = np.polyfit(then.mean.ravel(), now.mean.ravel(), 1) if spread > 0 else (1.0, moved)
    missed = float(np.sqrt(np.mean((now.mean - (gain * then.mean + offset)) ** 2)))
    if missed <= _STRAIGHT * spread:
        return Hint(Cause.RESCALED, f"gain {gain:.2f}, offset {offset:.0f}")
    return Hint(Cause.RESCALED, f"cells are {moved:.1f} grey levels from where they were")


# Parts


def _pasted(then: Portrait, now: Portrait) -> Hint | None:
    """Some cells are other ones, and the rest are as they were."""
    least = max(1 / 8, 0.002 * float(np.ptp(then.mean)))
    other = np.abs(now.mean - then.mean) > least
    rougher = np.abs(now.rough - then.rough) > np.maximum(1 / 4, 0.1 * then.rough)
    changed = other | rougher
    share = float(changed.mean())
    exactly = (np.abs(now.mean - then.mean) <= 1 / 16) & (np.abs(now.rough - then.rough) <= 1 / 16)
    if 0 < share <= 0.5 and float(exactly.mean()) >= max(_UNTOUCHED, 0.8 * (1 - share)):
        return Hint(
            Cause.PASTED_REGION, f"{int(changed.sum())} of {SIDE * SIDE} cells differ, the others do not"
        )
    return None


# Texture


@dataclass(frozen=True, slots=True)
class _Texture:
    """Roughness relative to what it was: of the median cell, the flattest and the busiest quarter.

    `even` tells how much what was added to flat cells is of what was added to busy ones.
    """

    median: float
    flat: float
    busy: float
    even: float

    @classmethod
    def of(cls, then: Portrait, now: Portrait) -> _Texture:
        before, after = np.maximum(then.rough, _FAINT), np.maximum(now.rough, _FAINT)
        busy = then.rough >= np.quantile(then.rough, 0.75)
        flat = then.rough <= np.quantile(then.rough, 0.25)
        added = np.sqrt(np.maximum(after**2 - before**2, 0))
        return cls(
            float(np.median(after / before)),
            float(after[flat].sum() / before[flat].sum()),
            float(after[busy].sum() / before[busy].sum()),
            float(np.median(added[flat]) / max(0.1, float(np.median(added[busy])))),
        )


def _noise(found: _Texture) -> bool:
    """Noise adds as much everywhere, which shows in flat cells most."""
    return found.flat >= _ROUGHER and found.flat >= _ROUGHER * found.busy and found.even >= _EVEN


def _textured(then: Portrait, now: Portrait) -> Hint:
    """The same brightness everywhere: what became of details?"""
    found = _Texture.of(then, now)
    said = f"faint details at {100 * found.flat:.0f} %, strong ones at {100 * found.busy:.0f} %"
    if _noise(found):
        return Hint(Cause.NOISE, said)
    if found.busy <= _SMOOTHER or min(found.median, found.busy) >= _SHARPER:
        return Hint(Cause.FILTERED, said)
    if abs(found.median - 1) > _ALIKE or found.flat < 1 - _ALIKE:
        return Hint(Cause.LOSSY_COMPRESSION, said)
    return Hint(Cause.NOISE, "small changes all over")


# Traces of a codec


def _codec(frame: Frame, claims: Claims) -> Hint | None:
    """What says that a lossy codec was at work since."""
    if claims.lossy_now and not claims.lossy_then:
        since = "" if claims.lossy_then is None else ", and did not when the image was released"
        return Hint(Cause.LOSSY_COMPRESSION, f"the header says so{since}")
    step = quantiser_step(frame)
    if step is None:
        return None
    return Hint(
        Cause.LOSSY_COMPRESSION, f"coefficients of 8 x 8 blocks lie {step:g} apart, as JPEG leaves them"
    )


def quantiser_step(frame: Frame) -> float | None:
    """The step of a JPEG quantiser that shows in the samples, None if none does.

    Rounding moves a coefficient of a block by 0.3 grey levels or so; after a quantiser with steps of two and
    more, coefficients still stand in rows.
    """
    coefficients = _low_coefficients(frame.samples)
    found = [step for values in coefficients if (step := _comb(values)) is not None]
    return float(np.median(found)) if len(found) >= len(_PLACES) // 2 else None


#: coefficients that are looked at: low ones, which most blocks have
_PLACES = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2))
_STEPS = np.arange(2.0, 65.0)


def _low_coefficients(samples: IntArray) -> Iterator[npt.NDArray[np.float64]]:
    """The values of some DCT coefficients over blocks of the frame, those of blocks that vary."""
    plane = samples[0] if len(samples) != 3 else _LUMINANCE @ samples.reshape(3, -1)
    rows, cols = samples.shape[1] // _BLOCK, samples.shape[2] // _BLOCK
    plane = np.asarray(plane, np.float64).reshape(samples.shape[1:])
    cut = plane[: rows * _BLOCK, : cols * _BLOCK].reshape(rows, _BLOCK, cols, _BLOCK).transpose(0, 2, 1, 3)
    blocks = cut.reshape(-1, _BLOCK, _BLOCK)
    blocks = blocks[np.ptp(blocks, axis=(1, 2)) > 2]
    blocks = blocks[:: max(1, -(-len(blocks) // _MOST_BLOCKS))]
    for u, v in _PLACES:
        yield np.einsum("r,nrq,q->n", _BASIS[u], blocks, _BASIS[v])


_LUMINANCE = np.array([0.299, 0.587, 0.114])
_BASIS = np.array(
    [
        [
            math.sqrt((1 if u == 0 else 2) / _BLOCK) * math.cos((2 * r + 1) * u * math.pi / (2 * _BLOCK))
            for r in range(_BLOCK)
        ]
        for u in range(_BLOCK)
    ]
)


def _comb(values: npt.NDArray[np.float64]) -> float | None:
    """The step at which values stand in rows; those in the middle row say nothing."""
    best, coherence = None, _COHERENT
    for step in _STEPS:
        telling = values[(np.abs(values) > step / 2) & (np.abs(values) < 40 * step)]
        if len(telling) < 64 or np.unique(np.rint(telling / step)).size < 4:
            continue
        found = float(np.cos(2 * np.pi * telling / step).mean())
        if found > coherence + 0.02:
            best, coherence = float(step), found
    return best
