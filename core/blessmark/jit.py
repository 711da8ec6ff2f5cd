"""The one place that knows how hot loops are compiled (numba, cached on disk)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile `function` on first use and keep the machine code in numba's cache.

    `nogil` lets worker threads overlap; `fastmath` stays off and the loops are integer-only, so the
    result is the same on every machine.
    """
    return cast(F, numba.njit(cache=True, nogil=True)(function))
