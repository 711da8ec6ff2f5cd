"""One of several processes that receive, and what it and the node's process say to each other.

It has a `Receiver` like a node that receives by itself, with its own connections to spool and ledger. What it
has in common with those beside it is in shared memory (`dimse.board`); everything else goes over a pipe:

    to the node    Ready, Rung (bells to ring), Heard, Told and Occurred (audit trail), Answer
    from the node  Stop, Adopt, Carry, Noted

The pipe is its lifeline too: a process whose node has died hangs up and ends at once, so that the next node
finds the port free. What it had acknowledged is on disk; what it had not, the peers send again.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

from dicom_node import log, private, security
from dicom_node.audit.events import Event
from dicom_node.audit.message import Origin
from dicom_node.commitment import Due
from dicom_node.committer import desk_of
from dicom_node.config import Config
from dicom_node.dimse.board import Board, Row, SharedFailures
from dicom_node.dimse.commit import Desk, desk_handlers
from dicom_node.dimse.listening import Shared, SharedSocket
from dicom_node.dimse.scp import Receiver
from dicom_node.errors import NodeError
from dicom_node.metrics import OCCURRENCES, Reading
from dicom_node.stores import open_ledger, open_spool

_LOG = logging.getLogger(__name__)
#: seconds between two looks at what is told in the shared memory; and between two writes of what was counted
PULSE_S, _SETTLE_S = 0.1, 1.0
#: within so many seconds of one message with rings all that follows goes into the next
_GATHER_S = 0.01
#: seconds that an event of the audit trail may take until it is on disk; a disk that is slower is told of
_NOTED_S = 10.0


# ---- what is said ----


@dataclass(frozen=True, slots=True)
class Ready:
    """Associations are accepted."""


@dataclass(frozen=True, slots=True)
class Rung:
    """How often `Receiver.on_queued` was called with each destination, and, as None, `on_arrival`."""

    counts: tuple[tuple[str | None, int], ...]


@dataclass(frozen=True, slots=True)
class Heard:
    """As `Auditor.heard`."""

    job: int
    address: str


@dataclass(frozen=True, slots=True)
class Told:
    """As `Auditor.tell`; answered with `Noted` when it is on disk."""

    number: int
    event: Event


@dataclass(frozen=True, slots=True)
class Occurred:
    """What `security` was told; answered with `Noted` when it is on disk."""

    number: int
    occurrence: security.Occurrence


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a question; `problem` is the text of the error, if there was one."""

    number: int
    status: int | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Noted:
    """An event is on disk."""

    number: int


@dataclass(frozen=True, slots=True)
class Adopt:
    """Take the next associations by another configuration."""

    number: int
    config: Config


@dataclass(frozen=True, slots=True)
class Carry:
    """Give an answer over the association that brought its request, if it is here."""

    number: int
    due: Due
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Accept no more, finish what is under way within so many seconds, end."""

    drain_s: float


@dataclass(frozen=True, slots=True)
class Order:
    """Everything that a receiver process is told when it is spawned; `origin` None: no audit trail."""

    name: str
    number: int
    config: Config
    board: Board
    clear: socket.socket | None
    tls: socket.socket | None
    origin: Origin | None
    log_salt: bytes


# ---- the process ----


def run_process(order: Order, line: Connection) -> None:
    """The body of a receiver process; ends with status 1 when it cannot receive."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they reach the whole group; the node itself says when to stop
    _set_up_log(order, order.config)
    log.silence_warnings()
    private.keep_out_of_dumps()
    threading.excepthook = _thread_failed
    try:
        _One(order, line).run()
    except BrokenPipeError:
        log.event(_LOG, "receiver-not-needed", level=logging.DEBUG)
    except Exception as error:
        # a bare traceback would quote whatever the exception quotes
        log.event(_LOG, "receiver-failed", level=logging.CRITICAL, error=error)
        sys.exit(1)


def _set_up_log(order: Order, config: Config) -> None:
    log.setup(config.log.format, config.log.level, salt=order.log_salt, receiver=order.name)


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    log.event(_LOG, "thread-failed", level=logging.ERROR, error=failure.exc_value)


class Rings:
    """Bells that the node is to ring: the first at once, those of a stream together, none of them lost."""

    def __init__(self, send: Callable[[object], None]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._waiting: Counter[str | None] = Counter()
        self._due = threading.Event()
        self._said_at = -math.inf

    def ring(self, destination: str | None) -> None:
        """Ring for a destination, for None: for work; at once, or when `gather` comes to it."""
        now = time.monotonic()
        with self._lock:
            waits = bool(self._waiting) or now - self._said_at < _GATHER_S
            if waits:
                self._waiting[destination] += 1
            else:
                self._said_at = now
        if waits:
            self._due.set()
        else:
            self._send(Rung(((destination, 1),)))

    def gather(self) -> None:
        """Wait until something waits, and others with it, then say it."""
        self._due.wait()
        time.sleep(_GATHER_S)
        self.flush()

    def flush(self) -> None:
        """Say what waits."""
        with self._lock:
            waiting, self._waiting = self._waiting, Counter()
            self._said_at = time.monotonic()
            self._due.clear()
        if waiting:
            self._send(Rung(tuple(waiting.items())))


class Messenger:
    """The auditor of a process that has none: tells the node's, and returns when it has it on disk."""

    def __init__(self, origin: Origin, send: Callable[[object], None]) -> None:
        self.origin = origin
        self._send = send
        self._numbers = itertools.count()
        self._waiting: dict[int, threading.Event] = {}

    def tell(self, event: Event) -> None:
        """Have an event on disk; never raises."""
        self._and_wait(lambda number: Told(number, event))

    def occurred(self, occurrence: security.Occurrence) -> None:
        """Have an occurrence on disk; never raises."""
        self._and_wait(lambda number: Occurred(number, occurrence))

    def heard(self, job: int, address: str) -> None:
        """Remember where an object came from."""
        self._send(Heard(job, address))

    def noted(self, number: int) -> None:
        """It is on disk."""
        waiting = self._waiting.get(number)
        if waiting is not None:
            waiting.set()

    def _and_wait(self, message: Callable[[int], object]) -> None:
        number, done = next(self._numbers), threading.Event()
        self._waiting[number] = done
        self._send(message(number))
        if not done.wait(_NOTED_S):
            log.event(_LOG, "audit-held-up", level=logging.ERROR, error="the node's process does not answer")
        del self._waiting[number]


class _One:
    """The parts of a receiver process, put together."""

    def __init__(self, order: Order, line: Connection) -> None:
        self._order, self._config, self._line = order, order.config, line
        self._sending = threading.Lock()
        self._stopping = threading.Event()
        self._spool, self._ledger = open_spool(order.config), open_ledger(order.config)
        self._messenger = None if order.origin is None else Messenger(order.origin, self._say)
        self._rings = Rings(self._say)
        self._row: Row = order.board.row(order.number)
        self._desk: Desk = desk_of(lambda: self._config, self._ledger)
        self._receiver = Receiver(
            order.config,
            self._spool,
            self._ledger,
            on_arrival=lambda: self._rings.ring(None),
            on_queued=self._rings.ring,
            auditor=self._messenger,
            services=desk_handlers(lambda: self._desk),
            shared=Shared(
                self._row,
                SharedFailures(order.board),
                *(
                    None if each is None else SharedSocket(each, self._row)
                    for each in (order.clear, order.tls)
                ),
            ),
        )

    def run(self) -> None:
        """Receive until told to stop, or until the node is gone."""
        with contextlib.ExitStack() as undo:
            undo.callback(self._ledger.close)
            undo.enter_context(security.listening(self._count))
            if self._messenger is not None:
                undo.enter_context(security.listening(self._messenger.occurred))
            self._receiver.start()
            self._show()
            threads = [
                threading.Thread(target=self._each, args=step, name="pulse", daemon=True)
                for step in ((PULSE_S, self._show), (PULSE_S, self._receiver.tidy), (_SETTLE_S, self._settle))
            ]
            for thread in threads:
                thread.start()
            threading.Thread(target=self._ring, name="rings", daemon=True).start()
            self._line.send(Ready())
            drain_s = self._listen()
            # the audit trail is answered over the line, also while the last objects come in
            threading.Thread(target=self._listen, name="lifeline", daemon=True).start()
            self._receiver.stop(drain_s)
            self._stopping.set()
            for thread in threads:
                thread.join()
            self._rings.flush()
            self._settle()

    def _say(self, message: object) -> None:
        """Tell the node; one that is gone is noticed by who listens."""
        with self._sending, contextlib.suppress(OSError):
            self._line.send(message)

    def _listen(self) -> float:
        """Do what the node says until it says to stop; the seconds that it gives, none if it is gone."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                match self._line.recv():
                    case Stop(drain_s=drain_s):
                        return drain_s
                    case Noted(number=number) if self._messenger is not None:
                        self._messenger.noted(number)
                    case Adopt(number=number, config=config):
                        self._say(Answer(number, problem=self._adopt(config)))
                    case Carry() as asked:
                        threading.Thread(target=self._carry, args=(asked,), name="carry", daemon=True).start()
        return 0.0

    def _adopt(self, config: Config) -> str | None:
        """Go on with another configuration; what is wrong with it, if anything is."""
        try:
            self._receiver.adopt(config)
        except (NodeError, OSError) as error:
            return str(error)
        self._spool.adopt(config.storage.reserve_bytes, config.storage.keep_s)
        self._config = config
        _set_up_log(self._order, config)
        return None

    def _carry(self, asked: Carry) -> None:
        try:
            answer = Answer(asked.number, self._desk.carry(asked.due, asked.timeout_s))
        except NodeError as error:
            answer = Answer(asked.number, problem=str(error))
        self._say(answer)

    def _ring(self) -> None:
        while True:
            self._rings.gather()

    def _count(self, occurrence: security.Occurrence) -> None:
        self._ledger.count_soon(Reading(OCCURRENCES, (occurrence.event, occurrence.reason)))

    def _each(self, seconds: float, step: Callable[[], None]) -> None:
        """Do something again and again; each such step in a thread of its own, for any may have to wait."""
        while not self._stopping.wait(seconds):
            step()

    def _show(self) -> None:
        """Keep the shared memory up to date; whoever accepts no more is no measure for those who do."""
        receiver = self._receiver
        self._row.say(receiver.open_associations, len(receiver.associations), receiver.turned_at)

    def _settle(self) -> None:
        with contextlib.suppress(NodeError):  # it waits, and whoever must write says what is wrong
            self._ledger.settle()
