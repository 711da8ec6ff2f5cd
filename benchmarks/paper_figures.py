"""The paper's figures 8 and 9 as PNG files: boxes of PSNR and SSIM, and images before and after."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot

from benchmarks.paper_page import Sheet
from blessmark.types import IntArray

matplotlib.use("Agg")
#: a difference of one grey level must be seen
_AMPLIFIED = 40


def boxes(folder: Path, quantity: str, groups: Mapping[str, Sequence[float]]) -> Sheet:
    """One box a group; groups without a finite value are left out."""
    finite = {name: [v for v in values if math.isfinite(v)] for name, values in groups.items()}
    shown = {name: values for name, values in finite.items() if values}
    figure, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
    axes.boxplot(list(shown.values()), tick_labels=list(shown))
    axes.set_ylabel(quantity)
    axes.grid(axis="y", alpha=0.4)
    return _saved(folder, figure, quantity)


def triptych(folder: Path, before: IntArray, after: IntArray, caption: str) -> Sheet:
    """Original, difference (grey is none) and marked, int32 [channels, rows, cols] of 8 bits."""
    difference = np.clip(128 + _AMPLIFIED * (after - before), 0, 255)
    panels = {"original": before, f"difference x {_AMPLIFIED}": difference, "marked": after}
    figure, all_axes = pyplot.subplots(1, 3, figsize=(13, 3.4), layout="constrained")
    for axes, (title, samples) in zip(all_axes, panels.items(), strict=True):
        picture = np.moveaxis(samples, 0, 2).astype(np.uint8)
        axes.imshow(picture[..., 0] if picture.shape[2] == 1 else picture, cmap="gray", vmin=0, vmax=255)
        axes.set_title(title)
        axes.axis("off")
    return _saved(folder, figure, caption)


def _saved(folder: Path, figure: pyplot.Figure, caption: str) -> Sheet:
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^a-z0-9]+", "-", caption.lower()).strip("-")[:60] + ".png"
    figure.savefig(folder / name, dpi=110)
    pyplot.close(figure)
    return Sheet(name, caption)
