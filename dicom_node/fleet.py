"""Keeps several receiver processes at work on the same ports; to the node they are one receiver.

Rules that bind here:
1. The listening sockets are the node's own. Whoever dies, ends or is slow takes nothing along that has not
   been accepted yet; somebody else accepts it.
2. A process may be killed at any moment. Its associations break, and what they had under way is sent again;
   those of the others go on. Its places become free, what it was writing is removed, another takes its place.
3. A configuration is taken up by all or by none: what it names is looked at before anybody is told. Who
   cannot take it up all the same finishes what it has in hand and is replaced by one that starts with it.
4. What a process tells is heard to the end, also when it is dead.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from dicom_node import log
from dicom_node.audit.auditor import Auditor
from dicom_node.audit.trail import refusals
from dicom_node.commitment import Due
from dicom_node.config import Config
from dicom_node.dimse.admission import Identities
from dicom_node.dimse.board import Board, Row
from dicom_node.dimse.listening import listen
from dicom_node.dimse.secure import server_context
from dicom_node.errors import OutputError, PeerError
from dicom_node.ledger import Ledger
from dicom_node.metrics import RECEIVER_RESTARTS, Reading
from dicom_node.processes import living
from dicom_node.receiving import (
    Adopt,
    Answer,
    Carry,
    Heard,
    Noted,
    Occurred,
    Order,
    Ready,
    Rung,
    Stop,
    Told,
    run_process,
)
from dicom_node.spool import sweep_of
from dicom_node.worker import restart_delay_s

_LOG = logging.getLogger(__name__)

#: `node.receivers: auto` is no more than that: the ledger has one writer at a time
_MOST = 4
#: seconds for all processes to come up at a start
_UP_S = 60.0
#: seconds that a process may take to answer a question, beyond what is asked of it
_ANSWER_S = 10.0
#: looks, four a second, without a sign of life after which a process is stuck: while it runs, while it starts
_SILENT, _SILENT_AT_START = 120, 480
#: seconds for objects under way of a process that is replaced, and to end after that
_DRAIN_S, _END_S = 10.0, 5.0
#: a process that lived this long, in seconds, starts with a clean record
_PROVEN_S = 60.0


@dataclass(slots=True)
class _Slot:
    """One place for a process: who sits there now, what it has told, how often it was left in a hurry."""

    name: str
    number: int
    row: Row
    process: SpawnProcess | None = None
    line: Connection | None = None
    hearing: threading.Thread | None = None
    ready: bool = False
    failures: int = 0
    started_at: float = 0.0
    start_at: float = 0.0
    #: when it was last seen to turn, and looks since
    turned_at: float = 0.0
    silent: int = 0
    #: why it is to end, if it is, and when it is killed for not doing so
    ending: str = ""
    kill_at: float = float("inf")
    sending: threading.Lock = field(default_factory=threading.Lock)

    @property
    def alive(self) -> bool:
        process = self.process  # who supervises forgets it when it has died
        return process is not None and process.is_alive()

    def say(self, message: object) -> None:
        """Tell the process; one that is gone is looked after by who supervises."""
        with self.sending, contextlib.suppress(OSError):
            if self.line is not None:
                self.line.send(message)


class Receivers:
    """The receiver of a node, as several processes; to be used like `dimse.scp.Receiver`.

    Parameters
    ----------
    config : where to listen, whom to accept, how many processes
    ledger : where it is counted how often one had to be replaced
    on_arrival, on_queued : called for every object that was kept, as a receiver calls them
    auditor : is told what was refused; None without an audit trail
    log_salt : makes the UIDs in their logs those of this site
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        *,
        on_arrival: Callable[..., object],
        on_queued: Callable[..., object],
        auditor: Auditor | None = None,
        log_salt: bytes = b"",
    ) -> None:
        count = receiver_count(config)
        self._config = config
        self._ledger = ledger
        self._on_arrival = on_arrival
        self._on_queued = on_queued
        self._auditor = auditor
        self._log_salt = log_salt
        self._context = multiprocessing.get_context("spawn")
        self._board = Board(count)
        self._slots = [
            _Slot(f"receiver-{number}", number, self._board.row(number)) for number in range(count)
        ]
        self._sockets: tuple[socket.socket | None, socket.socket | None] = (None, None)
        #: held to start a process, and to tell all of them something
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._watch = threading.Thread(target=self._supervise, name="receivers", daemon=True)
        self._numbers = itertools.count()
        self._asked: dict[int, _Question] = {}

    # ---- what a receiver tells ----

    @property
    def port(self) -> int | None:
        """The port that is listened on in the clear; None is none."""
        return _port_of(self._sockets[0], self._config.node.port)

    @property
    def tls_port(self) -> int | None:
        """The port that is listened on with TLS; None is none."""
        return _port_of(self._sockets[1], self._config.node.tls_port)

    @property
    def listening(self) -> bool:
        """Whether associations are being accepted, by one process at least."""
        return any(self._sockets) and self.running > 0

    @property
    def alive(self) -> bool:
        """Whether somebody replaces the processes that die."""
        return self._watch.is_alive()

    @property
    def open_associations(self) -> int:
        """How many associations are open, in all processes."""
        if self._stopping.is_set():
            return 0
        return sum(slot.row.open_associations for slot in self._slots)

    @property
    def configured(self) -> int:
        """How many processes there should be."""
        return len(self._slots)

    @property
    def running(self) -> int:
        """How many processes accept associations."""
        return sum(slot.ready and slot.alive and not slot.ending for slot in self._slots)

    @property
    def named_pids(self) -> dict[str, int]:
        """The process id of every process that runs."""
        return living({slot.name: slot.process for slot in self._slots})

    # ---- start, change, stop ----

    def start(self) -> None:
        """Listen, and wait until the processes are there.

        Raises OutputError when an address cannot be bound or no process comes up, TlsError and KeyFileError
        when a file for TLS or of users is no good.
        """
        node = self._config.node
        _require_usable(self._config, None)
        with contextlib.ExitStack() as undo:
            undo.callback(self.stop)
            clear = None if node.port is None else listen(node.bind, node.port)
            self._sockets = (clear, None)
            self._sockets = (clear, None if node.tls_port is None else listen(node.bind, node.tls_port))
            for slot in self._slots:
                self._start(slot)
            self._watch.start()
            deadline = time.monotonic() + _UP_S
            while not all(slot.ready or slot.failures for slot in self._slots):
                if time.monotonic() > deadline:
                    break
                time.sleep(0.02)
            if not self.running:
                raise OutputError("no receiver process came up; the log says why")
            undo.pop_all()

    def adopt(self, config: Config) -> None:
        """Take the next associations by another configuration; those that are open keep route and terms.

        Raises TlsError or KeyFileError when a file that it names is no good; nothing has changed then.
        """
        _require_usable(config, self._config)
        with self._lock:
            self._config = config
            asked = [(slot, self._ask(slot, lambda number: Adopt(number, config))) for slot in self._slots]
        deadline = time.monotonic() + _ANSWER_S
        for slot, question in asked:
            answer = question.wait(max(0.0, deadline - time.monotonic()))
            if slot.alive and (answer is None or answer.problem is not None):
                self._replace(slot, None if answer is None else answer.problem)

    def carry(self, due: Due, timeout_s: float) -> int | None:
        """Give an answer over the association that brought its request, whichever process has that.

        As `Desk.carry`: None if nobody has it any more, else the status; raises PeerError.
        """
        for slot in self._slots:
            question = self._ask(slot, lambda number: Carry(number, due, timeout_s))
            answer = question.wait(timeout_s + _ANSWER_S)
            if answer is not None and answer.problem is not None:
                raise PeerError(answer.problem)
            if answer is not None and answer.status is not None:
                return answer.status
        return None

    def stop(self, drain_s: float = _DRAIN_S) -> None:
        """Accept no more, give objects under way `drain_s` seconds to arrive, then hang up; once."""
        self._stopping.set()
        if self._watch.is_alive():
            self._watch.join()
        for slot in self._slots:
            slot.ending = slot.ending or "stopping"
            slot.say(Stop(drain_s))
        for listening in self._sockets:
            if listening is not None:
                listening.close()
        self._sockets = (None, None)
        deadline = time.monotonic() + drain_s + _END_S
        for slot in self._slots:
            if slot.process is not None:
                slot.process.join(max(0.0, deadline - time.monotonic()))
                self._bury(slot)
        self._board.close()

    # ---- processes ----

    def _start(self, slot: _Slot) -> None:
        ours, theirs = self._context.Pipe()
        with self._lock:
            slot.row.clear()
            process = self._context.Process(
                target=run_process, args=(self._order(slot), theirs), name=slot.name, daemon=True
            )
            process.start()
            theirs.close()
            slot.process, slot.line, slot.started_at = process, ours, time.monotonic()
            slot.ready, slot.ending, slot.kill_at = False, "", float("inf")
            slot.turned_at, slot.silent = 0.0, 0
        hearing = threading.Thread(target=self._hear, args=(slot, ours), name=slot.name, daemon=True)
        slot.hearing = None
        try:
            hearing.start()
        except RuntimeError:  # no thread to be had; nobody would hear what it says
            process.kill()
            raise
        slot.hearing = hearing

    def _order(self, slot: _Slot) -> Order:
        return Order(
            slot.name,
            slot.number,
            self._config,
            self._board,
            *self._sockets,
            None if self._auditor is None else self._auditor.origin,
            self._log_salt,
        )

    def _supervise(self) -> None:
        while not self._stopping.wait(0.05):
            wait([slot.process.sentinel for slot in self._slots if slot.process is not None], timeout=0.2)
            for slot in self._slots:
                try:
                    self._look_after(slot)
                except (OSError, RuntimeError) as error:  # no process, thread or memory to be had for now
                    log.event(_LOG, "supervisor-fault", level=logging.ERROR, error=error, receiver=slot.name)

    def _look_after(self, slot: _Slot) -> None:
        if slot.process is None:
            if time.monotonic() >= slot.start_at:
                slot.start_at = time.monotonic() + 1.0  # should it not come about
                self._start(slot)
        elif not slot.process.is_alive():
            lived_s = time.monotonic() - slot.started_at
            slot.failures = 0 if slot.ending else 1 if lived_s > _PROVEN_S else slot.failures + 1
            slot.start_at = time.monotonic() + restart_delay_s(slot.failures)
            self._bury(slot)
        else:
            self._look_for_life(slot)

    def _look_for_life(self, slot: _Slot) -> None:
        """End who does not end, and who has hung for long; looks are counted, for clocks jump."""
        slot.silent = slot.silent + 1 if slot.turned_at == slot.row.turned_at else 0
        slot.turned_at = slot.row.turned_at
        stuck = not slot.ending and slot.silent > (_SILENT if slot.ready else _SILENT_AT_START)
        if stuck or time.monotonic() >= slot.kill_at:
            assert slot.process is not None
            log.event(_LOG, "receiver-stuck", level=logging.ERROR, receiver=slot.name)
            slot.kill_at = float("inf")
            slot.process.kill()

    def _replace(self, slot: _Slot, problem: str | None) -> None:
        """Have a process finish what it has in hand and end; another begins with what is in force."""
        log.event(
            _LOG,
            "receiver-replaced",
            level=logging.WARNING,
            error=problem or "it did not answer",
            receiver=slot.name,
        )
        slot.ending, slot.kill_at = "replaced", time.monotonic() + _DRAIN_S + _END_S
        slot.say(Stop(_DRAIN_S))

    def _bury(self, slot: _Slot) -> None:
        """Take back what a process had that has died; what was told to stop and did not is killed."""
        process, slot.process = slot.process, None
        assert process is not None
        if process.is_alive():
            process.kill()
            process.join()
        if slot.hearing is not None:
            slot.hearing.join(_ANSWER_S)
        with slot.sending:
            if slot.line is not None:
                slot.line.close()
            slot.line = None
        for number, question in list(self._asked.items()):  # others ask meanwhile
            if question.slot is slot:
                self._asked.pop(number, None)
                question.answer(None)
        slot.row.clear()
        slot.ready = False
        assert process.pid is not None
        swept = sweep_of(self._config.storage.spool_dir, process.pid)
        if slot.ending != "stopping":
            self._ledger.count_soon(Reading(RECEIVER_RESTARTS))
        if process.exitcode or not slot.ending:
            log.event(
                _LOG,
                "receiver-died",
                level=logging.ERROR,
                receiver=slot.name,
                exit_code=process.exitcode,
                swept=swept,
            )

    # ---- what is said ----

    def _hear(self, slot: _Slot, line: Connection) -> None:
        """Take in what a process tells, to the end; the body of a thread for each."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                said = line.recv()
                try:
                    self._take_in(slot, said)
                except Exception as error:  # who listens no more holds up a process
                    log.event(_LOG, "listener-failed", level=logging.ERROR, error=error, receiver=slot.name)

    def _ring(self, counts: Sequence[tuple[str | None, int]]) -> None:
        for destination, count in counts:
            for _ in range(count):
                if destination is None:
                    self._on_arrival()
                else:
                    self._on_queued(destination)

    def _take_in(self, slot: _Slot, said: object) -> None:
        match said:
            case Rung(counts=counts):
                self._ring(counts)
            case Ready() if slot.process is not None:
                slot.ready = True
                log.event(_LOG, "receiver-ready", receiver=slot.name, pid=slot.process.pid)
            case Answer(number=number):
                question = self._asked.pop(number, None)
                if question is not None:
                    question.answer(said)
            case Heard(job=job, address=address) if self._auditor is not None:
                self._auditor.heard(job, address)
            case Told(number=number, event=event) if self._auditor is not None:
                self._auditor.tell(event)
                slot.say(Noted(number))
            case Occurred(number=number, occurrence=occurrence) if self._auditor is not None:
                refusals(self._auditor)(occurrence)
                slot.say(Noted(number))

    def _ask(self, slot: _Slot, ask: Callable[[int], object]) -> _Question:
        question, number = _Question(slot), next(self._numbers)
        self._asked[number] = question
        if slot.alive:  # should it die from here on, whoever buries it answers
            slot.say(ask(number))
        else:
            self._asked.pop(number, None)
            question.answer(None)
        return question


class _Question:
    """What a process was asked, until it answers."""

    def __init__(self, slot: _Slot) -> None:
        self.slot = slot
        self._answered = threading.Event()
        self._answer: Answer | None = None

    def answer(self, answer: Answer | None) -> None:
        """It has; None: it never will."""
        self._answer = answer
        self._answered.set()

    def wait(self, seconds: float) -> Answer | None:
        """What it said; None if it did not."""
        self._answered.wait(seconds)
        return self._answer


def _port_of(listening: socket.socket | None, configured: int | None) -> int | None:
    return configured if listening is None else int(listening.getsockname()[1])


def _require_usable(config: Config, before: Config | None) -> None:
    """Raise what a process would raise for the files that a configuration names: TlsError, KeyFileError.

    What it does not change is not looked at: its files may be no good at this moment.
    """
    if before is None or config.access != before.access:
        Identities(config.access)
    door, old = ((each.tls, each.node.tls_clients) if each else None for each in (config, before))
    if config.node.tls_port is not None and door != old:
        server_context(config.tls, config.node.tls_clients)


def receiver_count(config: Config) -> int:
    """How many processes receive; `auto` is one per core that this process may use, four at most."""
    count = config.node.receivers
    return min(_MOST, len(os.sched_getaffinity(0))) if count == "auto" else count
