"""A Celery worker in a thread of this process, which turns messages into rings of doorbells.

The task does no work itself: it wakes the loop that does, which claims from the ledger, and returns when that
turn has ended. So a message is acknowledged after the ledger has the outcome, and comes again if the process
dies; whether anything is to be done then, the ledger says.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.worker import WorkController, state
from celery.worker import consumer as celery_consumer
from kombu.asynchronous import set_event_loop

from dicom_node import log
from dicom_node.dispatch.application import SEND, WORK

_LOG = logging.getLogger(__name__)
# an acknowledgement over a connection that has died: the message comes again, and costs a look
logging.getLogger("celery.worker.request").setLevel(logging.CRITICAL + 1)
#: seconds after which a new Celery worker takes the place of one that ended by itself
_PAUSE_S = 2.0
#: longest that a stop waits; what has not ended then ends by itself, and the next hearer waits for it
_STOP_S = 5.0
#: between two looks whether the hearer before has ended, seconds
_TURN_S = 0.5
#: longest wait between two tries to reach the broker, seconds
_LONGEST_S = 5

#: held by the hearer whose worker runs: Celery keeps in modules what tells it to stop, and its event loop
_TURN = threading.Lock()

Heard = Callable[[str], object]


class Consumer(celery_consumer.Consumer):  # type: ignore[misc]
    """Celery's, without what is for tasks with a time of their own: its exchanges and 28 queues.

    It asks a broker that is away every few seconds, for as long as it takes, and says so once.
    """

    class Blueprint(celery_consumer.Consumer.Blueprint):  # type: ignore[misc]
        """The steps of a start."""

        default_steps = tuple(
            step for step in celery_consumer.Consumer.Blueprint.default_steps if "delayed" not in step
        )

    def ensure_connected(self, connection: Any) -> Any:
        """The connection, once there is one; Celery itself would ask at last only every half minute."""
        made = connection.ensure_connection(
            self._not_yet,
            interval_start=1,
            interval_step=1,
            interval_max=_LONGEST_S,
            callback=state.maybe_shutdown,
        )
        if not self.app.heard:
            log.event(_LOG, "broker-heard-again")
        self.app.heard = True
        return made

    def _not_yet(self, error: BaseException, _interval_s: float) -> None:
        if self.app.heard:
            log.event(_LOG, "broker-not-heard", level=logging.WARNING, error=error)
        self.app.heard = False

    def on_connection_error_after_connected(self, error: BaseException) -> None:
        """Begin anew; what this process had in hand comes again, and the ledger says that it is done."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Celery would have the default of a later version chosen now
            super().on_connection_error_after_connected(error)


class Hearer:
    """Consumes from queues as long as the process lives, whatever becomes of the broker.

    One in a process at a time: a second one hears when the first has ended, however long that takes.

    Parameters
    ----------
    application : makes the Celery application, which names the queues; called in the thread
    heard : called with the queue of each message, from a thread of a pool; returns when it is dealt with
    threads : how many messages may be under way at once
    """

    def __init__(self, application: Callable[[], Celery], heard: Heard, threads: int) -> None:
        self._application, self._heard, self._threads = application, heard, threads
        self._stopping = threading.Event()
        self._controller: Any = None
        self._app: Any = None
        self._has_turn = False
        self._thread = threading.Thread(target=self._run, name="hearer", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether it hears the broker; also before it has tried."""
        return self._app is None or bool(self._app.heard)

    def start(self) -> None:
        """Start; returns at once, and keeps trying while there is no broker."""
        self._thread.start()

    def stop(self) -> None:
        """End; whoever is under way must have been told to return."""
        self._stopping.set()
        if self._has_turn:
            state.should_stop = 0  # Celery's own way: a worker ends when it next looks at this
            hub = getattr(self._controller, "hub", None)
            if hub is not None:
                hub.call_soon(lambda: None)  # it looks now
        self._thread.join(_STOP_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            if not _TURN.acquire(timeout=_TURN_S):
                continue  # the one before a reload has not ended yet
            try:
                self._take_turn()
            finally:
                _TURN.release()

    def _take_turn(self) -> None:
        """Consume until told to stop."""
        state.should_stop = None  # so said the hearer before
        self._has_turn = True
        while not self._stopping.is_set():
            set_event_loop(
                None
            )  # Celery would go on with the closed one of the worker before, and its timers
            try:
                self._consume()
            except Exception as error:
                log.event(_LOG, "dispatch-fault", level=logging.ERROR, error=error)
            self._stopping.wait(_PAUSE_S)

    def _consume(self) -> None:
        app = self._app = self._application()
        app.heard = True
        app.set_current()
        app.set_default()  # the threads of the pool look for their task there
        heard = self._heard

        def hear(task: Any, _row: int | None = None) -> None:
            heard(task.request.delivery_info["routing_key"])

        for name in (WORK, SEND):
            app.task(hear, name=name, bind=True, ignore_result=True, shared=False, lazy=False)
        self._controller = WorkController(
            app=app,
            pool="threads",
            concurrency=self._threads,
            without_heartbeat=True,
            without_mingle=True,
            without_gossip=True,
        )
        with contextlib.suppress(SystemExit):  # how Celery ends a worker
            self._controller.start()
