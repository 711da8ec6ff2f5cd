"""Brings what waits to the repository, in order, and forgets it when the repository has it.

A message is sent, then kept for `SETTLE_S` seconds in which the connection has to stand, then removed. If the
connection breaks before, everything that was not removed is sent again: at least once, in order.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from dicom_node import log
from dicom_node.audit.repository import Repository
from dicom_node.audit.store import Store
from dicom_node.errors import NodeError, PeerError

_LOG = logging.getLogger(__name__)
#: seconds that a connection has to stand after a message before the message counts as read
SETTLE_S = 5.0
#: between two looks for new messages, seconds
POLL_S = 0.5
#: waits after failures: the first, the longest
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0
#: between two warnings about a repository that is away, seconds
_ALARM_S = 600.0
#: seconds that a stop may take to tell what is left
_DRAIN_S = 3.0


class Courier(threading.Thread):
    """Sends the messages of a store to a repository.

    Parameters
    ----------
    store : what waits
    repository : who is told
    clock : seconds that only go up
    """

    def __init__(
        self, store: Store, repository: Repository, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(name="audit-courier", daemon=True)
        self._store = store
        self._repository = repository
        self._clock = clock
        self._stopping = threading.Event()
        self._sent: deque[tuple[int, float]] = deque()
        self._failures = 0
        self._alarm_at = float("-inf")

    def run(self) -> None:
        """Send until told to stop; a repository that is away is asked again, ever more seldom."""
        while not self._stopping.wait(self._pause_s()):
            self._contained(self.turn)
        if not self._failures:
            self._contained(self._finish)

    def stop(self) -> None:
        """Tell what is left, if the repository is there; the rest waits for the next start."""
        self._stopping.set()
        self.join(_DRAIN_S + 5.0)

    def turn(self) -> None:
        """Send what waits; forget what has settled."""
        with contextlib.nullcontext() if self._sent else contextlib.suppress(PeerError):
            self._repository.check()  # one that hangs up when nothing is to be told may do so
        last = self._sent[-1][0] if self._sent else -1
        for number in self._store.waiting():
            if number > last:
                self._send(number)
        self._settle(self._clock() - SETTLE_S)
        if self._failures:
            log.event(_LOG, "audit-repository-back")
        self._failures = 0

    def _send(self, number: int) -> None:
        message = self._store.read(number)
        if message is not None:
            self._repository.send(message)
            self._sent.append((number, self._clock()))

    def _settle(self, sent_before: float) -> None:
        """Forget what was sent before a time, on a connection that still stands."""
        if not self._repository.check():
            return
        settled = [number for number, at in self._sent if at <= sent_before]
        self._store.remove(settled)
        for _ in settled:
            self._sent.popleft()

    def _finish(self) -> None:
        self.turn()
        if self._repository.close():
            self._store.remove([number for number, _ in self._sent])

    def _pause_s(self) -> float:
        if not self._failures:
            return POLL_S
        return min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(self._failures - 1, 10))

    def _contained(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as error:
            self._failures += 1
            self._sent.clear()  # what has not settled is sent again
            if self._clock() >= self._alarm_at:
                self._alarm_at = self._clock() + _ALARM_S
                away = isinstance(error, PeerError)
                what = "audit-repository-away" if away else "audit-fault"
                level = logging.WARNING if isinstance(error, NodeError) else logging.CRITICAL
                log.event(_LOG, what, level=level, error=error)
