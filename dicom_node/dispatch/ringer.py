"""Sends messages to the broker, from a thread of its own: who rings never waits for it."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
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
#: seconds between two messages to one queue, of which the first after a rest goes out at once; and rings that
#: one message stands for: who is woken claims several rows
SPACING_S, COVERS = 0.1, 8
#: seconds without a try after one that failed
_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Ring:
    """What a message says: which task, into which queue, about which row of the ledger, if about one."""

    task: str
    queue: str
    row: int | None


@dataclass(frozen=True, slots=True)
class _Line:
    """A connection to the broker, and what sends over it; made once: it takes longer than sending does."""

    app: Celery
    connection: Any
    producer: Any

    def send(self, rings: list[Ring]) -> None:
        """Send, and wait until the broker has each."""
        for ring in rings:
            self.app.send_task(
                ring.task, args=(ring.row,), queue=queue(ring.queue), producer=self.producer, retry=False
            )

    def close(self) -> None:
        """Give the connection up."""
        _release(self.connection)


class Ringer:
    """Publishes rings in turn, a few of one queue as one message.

    A message costs its sender, the broker and who hears it more than a look into the ledger; so in a stream
    of arrivals nobody is told of each: who hears of one row looks for more.

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
        #: queue -> when the next message may go to it, by the monotonic clock
        self._due: dict[str, float] = {}
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
        line: _Line | None = None
        while (waited := self._next()) is not None:
            try:
                line = self._publish(line, [ring for rings in waited for ring in rings[::COVERS]])
                self._note(connected=True)
            except Exception as error:  # whatever a broker does, it costs nobody but this thread
                line = None
                self._give_up(sum(map(len, waited)), error)
        if line is not None:
            line.close()

    def _next(self) -> list[list[Ring]] | None:
        """All rings that wait, for each queue whose turn it is; None at the end."""
        with self._changed:
            while not (queues := self._whose_turn()) and not (self._stopping and not self._waiting):
                self._changed.wait(self._patience_s())
            return [self._taken(name) for name in queues] or None

    def _whose_turn(self) -> list[str]:
        now = time.monotonic()
        return [name for name in self._waiting if self._stopping or self._due.get(name, 0.0) <= now]

    def _patience_s(self) -> float | None:
        """Seconds until it is the turn of a queue for which a ring waits; None if none does."""
        soonest = min((self._due.get(name, 0.0) for name in self._waiting), default=None)
        return None if soonest is None else max(0.0, soonest - time.monotonic())

    def _taken(self, name: str) -> list[Ring]:
        """What waits for a queue; one message goes for every so many."""
        self._due[name] = time.monotonic() + SPACING_S
        return list(self._waiting.pop(name))

    def _publish(self, line: _Line | None, rings: list[Ring]) -> _Line:
        """Send; over a new connection if the present one has died since it was last used."""
        if line is not None:
            try:
                line.send(rings)
                return line
            except Exception:
                line.close()
        line = self._connect()
        try:
            line.send(rings)
        except BaseException:
            line.close()
            raise
        return line

    def _connect(self) -> _Line:
        app = self._application()
        connection = app.connection_for_write()
        try:
            return _Line(app, connection, app.amqp.Producer(connection, auto_declare=False))
        except BaseException:
            _release(connection)
            raise

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


def _release(connection: Any) -> None:
    with contextlib.suppress(Exception):
        connection.release()
