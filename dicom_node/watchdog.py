"""Ends this process when a piece of its work takes too long.

A native decoder that hangs may hold the interpreter, so no thread of ours could do it: the kernel does, by a
signal that nobody catches. Whoever looks after the process then takes back what it had in hand, as after any
other death.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator


class Watchdog:
    """Watches pieces of work, which several threads may do at once. One for a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: thread -> until when its piece of work may take
        self._until: dict[int, float] = {}

    @contextlib.contextmanager
    def over(self, limit_s: float) -> Iterator[None]:
        """Around a piece of work, which may take so many seconds."""
        thread = threading.get_ident()
        with self._lock:
            self._until[thread] = time.monotonic() + limit_s
            self._wind()
        try:
            yield
        finally:
            with self._lock:
                del self._until[thread]
                self._wind()

    def _wind(self) -> None:
        first = min(self._until.values(), default=None)
        # of 0 seconds is none at all
        left_s = 0.0 if first is None else max(1e-3, first - time.monotonic())
        signal.setitimer(signal.ITIMER_REAL, left_s)


def bites() -> None:
    """Let the signal end this process, whatever the one that started it does about it; in the main thread."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # what is blocked there stays blocked in every process from there on
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
