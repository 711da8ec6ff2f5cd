"""The one place that knows how hot loops are compiled (numba, cached on disk)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])

#: every loop that is compiled, so that a test can tell whether the self-test leaves one to be compiled later
LOOPS: list[Any] = []


def compiled(function: F) -> F:
    """Compile `function` on first use and keep the machine code in numba's cache.

    `nogil` lets worker threads overlap; `fastmath` stays off and the loops are integer-only, so the
    result is the same on every machine. The cache is keyed by the processor, and written by renaming, so that
    machines and processes may share it. Where no folder can be written to, each process compiles for itself.
    """
    try:
        loop = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba found no folder for its cache
        loop = numba.njit(nogil=True)(function)
    LOOPS.append(loop)
    return cast(F, loop)
