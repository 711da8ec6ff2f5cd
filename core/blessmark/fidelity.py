"""How far a marked image is from its original."""

from __future__ import annotations

import math

import numpy as np

from blessmark.types import Frame, IntArray


def psnr_db(original: Frame, samples: IntArray) -> float:
    """Peak signal-to-noise ratio of `samples` against `original`, in dB; infinity when they are equal.

    The peak is the full scale for 8 bits, else the range the image uses (deep images leave most of their
    scale empty, which would flatter the figure).
    """
    difference = (samples - original.samples).astype(np.float64)
    error = float(np.mean(difference * difference))
    if error == 0:
        return math.inf
    full = original.hi - original.lo
    used = int(original.samples.max()) - int(original.samples.min())
    peak = full if full <= 255 else max(used, 1)
    return 10 * math.log10(peak * peak / error)
