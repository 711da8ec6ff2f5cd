"""Waiting for what other threads and processes do, on a machine that may stand still for seconds."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TypeVar

_Error = TypeVar("_Error", bound=Exception)

#: how long a test waits for what must happen; only a test that fails waits that long
PATIENCE_S = 300.0
#: longest that one look is counted as: what takes longer was stopped, as a whole machine may be
_TURN_S = 10.0


def wait_until(done: Callable[[], object], limit_s: float = PATIENCE_S) -> None:
    """Return once `done()` holds; AssertionError after `limit_s` in which this process was not stopped."""
    left_s, since = limit_s, time.monotonic()
    while not done():
        assert left_s > 0, "waited in vain"
        time.sleep(0.01)
        now = time.monotonic()
        left_s, since = left_s - min(now - since, _TURN_S), now


def failing(act: Callable[[], object], error: type[_Error], match: str) -> _Error:
    """The error that says `match`, after as many attempts as it takes.

    Who has little patience fails in other ways too while the machine stands still.
    """
    found: list[_Error] = []

    def fails() -> bool:
        try:
            act()
        except error as caught:
            found.append(caught)
            return re.search(match, str(caught)) is not None
        return False

    wait_until(fails)
    return found[-1]
