"""Ends this process when a piece of its work takes too long.

A native decoder that hangs may hold the interpreter, so no thread of ours could do it: the kernel does, by a
signal that nobody catches. Whoever looks after the process then takes back what it had in hand, as after any
other death.
"""

from __future__ import annotations

import signal
import threading
import time
from types import TracebackType


class Watchdog:
    """A context manager around each piece of work; several threads may be in it at once. One for a process.

    Parameters
    ----------
    limit_s : how long a piece of work may take, seconds
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._lock = threading.Lock()
        #: when each piece in hand began, the oldest first
        self._since: dict[int, float] = {}

    def __enter__(self) -> None:
        with self._lock:
            self._since[threading.get_ident()] = time.monotonic()
            if len(self._since) == 1:
                signal.setitimer(signal.ITIMER_REAL, self._limit_s)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            del self._since[threading.get_ident()]
            oldest = next(iter(self._since.values()), None)
            # of 0 seconds is none at all
            left_s = 0.0 if oldest is None else max(1e-3, oldest + self._limit_s - time.monotonic())
            signal.setitimer(signal.ITIMER_REAL, left_s)


def bites() -> None:
    """Let the signal end this process, whatever the one that started it does about it."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
