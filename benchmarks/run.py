"""How a benchmark is asked for, and how its images are spread over the cores."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Run:
    """Folder with the images, seed of every random choice, and whether a short run is wanted."""

    data: Path
    seed: int = 1
    quick: bool = False


def spread(function: Callable[[Item], Found], items: Sequence[Item]) -> list[Found]:
    """`function` of every item, on all cores; for figures that are no timings."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        return list(pool.map(function, items, chunksize=max(1, min(8, len(items) // 8))))
