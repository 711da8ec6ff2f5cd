"""`whole/1`: nothing is region of interest, the explicit opt-in for images without any background.

The carrier stays exactly reversible; what it gives up is the promise not to touch the region of interest.
"""

from __future__ import annotations

import numpy as np

from blessmark.profile import V1
from blessmark.types import BoolArray, View


class Whole:
    """The map without a region of interest; see `types.Segmenter`."""

    id: str = "whole/1"
    reach_px: int | None = 0

    def roi_blocks(self, view: View) -> BoolArray:
        """bool [rows // 8, cols // 8], False everywhere."""
        _, rows, cols = view.shape
        return np.zeros((rows // V1.block_px, cols // V1.block_px), np.bool_)
