"""How far a marked image is from its original."""

from __future__ import annotations

import math

from blessmark.jit import compiled
from blessmark.types import Frame, IntArray


def psnr_db(original: Frame, samples: IntArray) -> float:
    """Peak signal-to-noise ratio of `samples` against `original`, in dB; infinity when they are equal.

    The peak is the full scale for 8 bits, else the range the image uses (deep images leave most of their
    scale empty, which would flatter the figure).
    """
    used = int(original.samples.max()) - int(original.samples.min())
    return psnr_of(original, _squares(original.samples, samples), used)


def psnr_of(original: Frame, squares: int, used: int) -> float:
    """`psnr_db` by the sum of the squared differences, and the greatest less the least original sample."""
    if squares == 0:
        return math.inf
    full = original.hi - original.lo
    peak = full if full <= 255 else max(used, 1)
    return 10 * math.log10(peak * peak / (squares / math.prod(original.shape)))


@compiled
def _squares(before: IntArray, after: IntArray) -> int:
    total = 0
    for channel in range(before.shape[0]):
        for r in range(before.shape[1]):
            for c in range(before.shape[2]):
                change = int(after[channel, r, c]) - int(before[channel, r, c])
                total += change * change
    return total
