"""Who has something to do for others rings for them; the ledger says what it is."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Mapping
from multiprocessing.synchronize import Semaphore

#: between two rings that are to wake two, seconds
_BETWEEN_S = 0.01


class Bells:
    """Tells workers and forwarders, across processes, that there is something to do.

    Semaphores, not events: a process killed while it touches an event takes the event's lock with it.
    """

    def __init__(self, destinations: Mapping[str, object]) -> None:
        context = multiprocessing.get_context("spawn")
        self._work = context.Semaphore(0)
        self._sends = {name: context.Semaphore(0) for name in destinations}

    def ring_work(self, instance_id: int | None = None) -> None:  # noqa: ARG002 - for who hears it elsewhere
        """Wake one resting worker, for an instance if it is about one."""
        self._work.release()

    def rest_work(self, seconds: float) -> None:
        """Wait until somebody rings for work, at most `seconds`."""
        _rest(self._work, seconds)

    def ring_sends(self, destination: str, delivery_id: int | None = None) -> None:  # noqa: ARG002
        """Wake one resting lane of a destination; a name that is not configured has none."""
        if destination in self._sends:
            self._sends[destination].release()

    def rest_sends(self, destination: str, seconds: float) -> bool:
        """Wait until somebody rings for a destination, at most `seconds`; false if nobody did."""
        return _rest(self._sends[destination], seconds)

    def rung_sends(self, destination: str) -> bool:
        """Whether somebody has rung for a destination since a lane of it last rested."""
        return self._sends[destination].get_value() > 0

    def rouse_work(self) -> None:
        """End the rest of one worker of this node: it is to stop."""
        self._work.release()

    def rouse_sends(self, destination: str) -> None:
        """End the rest of one lane of this node: it is to stop."""
        self._sends[destination].release()

    def rouse_all(self, workers: int, lanes: Mapping[str, int]) -> None:
        """End every rest, of so many workers and of so many lanes of each destination.

        A semaphore is waited for until a time of day: whoever rests while the clock is set back by an hour
        would rest for an hour, unless somebody rings. In between there is time to take the ring: whoever is
        woken first takes all there are.
        """
        for bell, count in [(self._work, workers), *((self._sends[name], lanes[name]) for name in lanes)]:
            for _ in range(count):
                bell.release()
                time.sleep(_BETWEEN_S)

    def hear_work(self) -> None:
        """Called by a process whose thread will rest for work; here there is nothing to prepare."""

    def hear_sends(self) -> None:
        """Called by a process whose threads will rest for destinations; here there is nothing to prepare."""

    def tell_lost(self, lost: Callable[[int], object]) -> None:
        """Have `lost` told how many rings could not be passed on; here each is."""

    @property
    def connected(self) -> bool | None:
        """Whether the broker took the last ring; None where there is none."""
        return None

    def close(self) -> None:
        """Called by a process that will neither ring nor rest any more; here there is nothing to end."""


def _rest(bell: Semaphore, seconds: float) -> bool:
    if not bell.acquire(timeout=seconds):
        return False
    while bell.acquire(block=False):  # rung for each of a batch that one claim takes
        pass
    return True
