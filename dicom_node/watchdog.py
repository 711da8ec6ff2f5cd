"""Ends this process when a step of its work takes too long.

A native decoder that hangs may hold the interpreter, so no thread of ours could do it: the kernel does, by a
signal that nobody catches. Whoever looks after the process then takes back what it had in hand, as after any
other death.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator

#: a piece of work is not given its time again more often, seconds
_OFTEN_S = 1.0


class Watchdog:
    """Watches pieces of work, which several threads may do at once. One for a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: thread -> until when the step of its piece of work may take
        self._until: dict[int, float] = {}

    @contextlib.contextmanager
    def over(self, limit_s: float) -> Iterator[Callable[[], None]]:
        """Around a piece of work, each step of which may take so many seconds; gives what begins the next."""
        thread, begun = threading.get_ident(), time.monotonic()

        def step() -> None:
            nonlocal begun
            if (now := time.monotonic()) - begun < _OFTEN_S:
                return
            with self._lock:
                if thread in self._until:
                    begun, self._until[thread] = now, now + limit_s
                    self._wind()

        with self._lock:
            self._until[thread] = begun + limit_s
            self._wind()
        try:
            yield step
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
