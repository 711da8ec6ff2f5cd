"""Sends messages to the broker, from a thread of its own: who rings never waits for it."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from celery import Celery

from dicom_node import log
from dicom_node.dispatch.application import queue

_LOG = logging.getLogger(__name__)
#: rings that wait for one queue at most; so many wake everybody there is
WAITING = 64
#: seconds without a try after one that failed
_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Ring:
    """What a message says: which task, into which queue, about which row of the ledger, if about one."""

    task: str
    queue: str
    row: int | None


class Ringer:
    """Publishes rings in turn.

    Parameters
    ----------
    application : makes the Celery application; called in the thread, at the first ring
    lost : told how many rings were dropped, since the broker did not take them
    """

    def __init__(self, application: Callable[[], Celery], lost: Callable[[int], object]) -> None:
        self._application = application
        self._lost = lost
        self._changed = threading.Condition()
        self._waiting: dict[str, deque[Ring]] = {}
        self._stopping = False
        self._thread: threading.Thread | None = None
        #: whether the last message was taken
        self.connected = True

    def ring(self, ring: Ring) -> None:
        """Have a message sent soon; returns at once. Of very many for one queue the oldest are left out."""
        with self._changed:
            if self._stopping:
                return
            self._waiting.setdefault(ring.queue, deque(maxlen=WAITING)).append(ring)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ringer", daemon=True)
                self._thread.start()
            self._changed.notify()

    def stop(self, drain_s: float = 2.0) -> None:
        """Send what waits, if the broker takes it within `drain_s`, and end."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join(drain_s)

    def _run(self) -> None:
        connection: Any = None
        while (rings := self._next()) is not None:
            try:
                connection = self._publish(connection, rings)
                self._note(connected=True)
            except Exception as error:  # whatever a broker does, it costs nobody but this thread
                _close(connection)
                connection = None
                self._give_up(len(rings), error)
        _close(connection)

    def _next(self) -> list[Ring] | None:
        """One ring of each queue that has any, so that none waits for another; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            rings = [waiting.popleft() for waiting in self._waiting.values()]
            self._waiting = {name: waiting for name, waiting in self._waiting.items() if waiting}
        return rings or None

    def _publish(self, connection: Any, rings: list[Ring]) -> Any:
        """Send; over a new connection if the present one has died since it was last used."""
        if connection is not None:
            try:
                self._send(connection, rings)
                return connection
            except Exception:
                _close(connection)
        connection = self._application().connection_for_write()
        try:
            self._send(connection, rings)
        except BaseException:
            _close(connection)
            raise
        return connection

    def _send(self, connection: Any, rings: list[Ring]) -> None:
        app = self._application()
        producer = app.amqp.Producer(connection, auto_declare=False)
        for ring in rings:
            app.send_task(
                ring.task, args=(ring.row,), queue=queue(ring.queue), producer=producer, retry=False
            )

    def _give_up(self, count: int, error: Exception) -> None:
        """Drop what could not be sent and what came meanwhile: all of it is in the ledger."""
        self._note(connected=False, error=error)
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, _PAUSE_S)
            count += sum(len(waiting) for waiting in self._waiting.values())
            self._waiting.clear()
        self._lost(count)

    def _note(self, *, connected: bool, error: Exception | None = None) -> None:
        if connected and not self.connected:
            log.event(_LOG, "broker-back")
        elif not connected and self.connected:
            log.event(_LOG, "broker-away", level=logging.WARNING, error=error)
        self.connected = connected


def _close(connection: Any) -> None:
    if connection is not None:
        with contextlib.suppress(Exception):
            connection.release()
