"""Who has something to do for others rings for them; the ledger says what it is."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from multiprocessing.synchronize import Semaphore


class Bells:
    """Tells workers and forwarders, across processes, that there is something to do.

    Semaphores, not events: a process killed while it touches an event takes the event's lock with it.
    """

    def __init__(self, destinations: Mapping[str, object]) -> None:
        context = multiprocessing.get_context("spawn")
        self._work = context.Semaphore(0)
        self._sends = {name: context.Semaphore(0) for name in destinations}

    def ring_work(self) -> None:
        """Wake one resting worker."""
        self._work.release()

    def rest_work(self, seconds: float) -> None:
        """Wait until somebody rings for work, at most `seconds`."""
        _rest(self._work, seconds)

    def ring_sends(self, destination: str) -> None:
        """Wake one resting lane of a destination; a name that is not configured has none."""
        if destination in self._sends:
            self._sends[destination].release()

    def rest_sends(self, destination: str, seconds: float) -> None:
        """Wait until somebody rings for a destination, at most `seconds`."""
        _rest(self._sends[destination], seconds)


def _rest(bell: Semaphore, seconds: float) -> None:
    if bell.acquire(timeout=seconds):
        while bell.acquire(block=False):  # rung for each of a batch that one claim takes
            pass
