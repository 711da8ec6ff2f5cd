"""The processes that do the work, and the thread that keeps them alive.

Rules that bind here:
1. A worker holds a lease on what it works on, beats while it works, and proves the lease when it is done.
2. What goes wrong with one instance ends in an outcome of that instance; it ends neither worker nor node.
3. A worker may be killed at any moment. What it held is taken back at once, and another takes its place.
4. A worker outlives its node by no more than the instance in hand: it listens at a pipe that closes with it.
   Through the same pipe it tells what it evaluates networks on, which is known as long as it lives.
5. Where a batcher evaluates the networks, it is one more such process; without it workers do it themselves.
6. A worker or a batcher that hangs ends itself (`watchdog`), and is replaced like any other that died.

Workers are spawned, not forked: the node has threads and locks, and TensorFlow survives no fork.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING

from blessmark.errors import WatermarkError
from dicom_node import batches, log, private, watchdog
from dicom_node.bells import Bells
from dicom_node.blobs.port import BlobStore
from dicom_node.config import Config, Role, Route
from dicom_node.errors import (
    BlobsUnavailable,
    LedgerError,
    LedgerUnavailable,
    NodeError,
    SpoolFull,
    StaleLease,
)
from dicom_node.insist import insist
from dicom_node.jobs import PASSED, UNEXPECTED, Outcome, Work, failed, passed
from dicom_node.keys import FileKeyRing, PresentRing
from dicom_node.ledger import Ended, Ledger
from dicom_node.measuring import Measured, measured
from dicom_node.metrics import PROCESSED, RINGS_LOST, UNPROTECTED, NetworkRun, Reading
from dicom_node.processes import living, share_cores, usable_cores
from dicom_node.stores import open_ledger, open_spool

if TYPE_CHECKING:
    from blessmark.types import Segmenter
    from dicom_node.segmenters import Engines

_LOG = logging.getLogger(__name__)

#: instances claimed at a time; the commit is shared, and so is the suspicion if the worker dies
BATCH = 4
#: nobody rings when a released instance falls due, so workers also look by themselves this often, seconds
POLL_S = 1.0
#: attempts after which even an error that may pass is treated as one that does not; a full disk always may
PATIENCE = 8
#: longest wait before an instance is tried again, seconds
_LONGEST_WAIT_S = 60.0
#: longest step of the work on an instance, seconds, and for each byte of it more: to decode it, or to judge a
#: frame. To judge a slide of many empty tiles takes hours, and a decoder that hangs takes for ever
_LONGEST_WORK_S, _LONGEST_BYTE_S = 3600.0, 1e-4
#: what is done is recorded with what is done within so many seconds, and before anything of so many bytes
_RECORDED_WITHIN_S = 0.05
_LARGE_BYTES = 4_000_000
#: what a worker says once it has loaded what it needs
_READY = "ready"
#: the process that evaluates the networks of all workers
_BATCHER = "batcher"
#: a worker that lived this long, in seconds, starts with a clean record
_PROVEN_S = 60.0

#: results of an instance whose record travels with it; and the reason of one that had its own when it came
_PROTECTED = frozenset({"protected", "protected-header", "protected-whole-image"})
_PROTECTED_BEFORE = "already-protected"

_UNWATCHED = contextlib.nullcontext(lambda: None)

Processor = Callable[[Work], Outcome]
#: is told of every network that a process starts to evaluate
Tell = Callable[[NetworkRun], None]
Factory = Callable[[Config, Tell], Processor]
#: around a piece of work; gives what is called when it has come a step further
_Watch = contextlib.AbstractContextManager[Callable[[], None]]
#: records ends of work, all or none; those whose lease has gone, by their ids
_Finish = Callable[[Sequence[Ended]], Mapping[int, StaleLease]]


def build_processor(config: Config, tell: Tell) -> Processor:
    """What this process does with an instance, by its route.

    Raises ConfigError when a route asks for what this installation cannot do; SelfTestError when this process
    does not compute what the self-test did.
    """
    spool = open_spool(config)
    draws = _Draws(config, tell)
    processors = {route.name: _ROLES[route.role](config, route, spool, draws) for route in config.routes}
    if _uses_the_engine(config):
        from blessmark.selftest import rehearse

        rehearse()  # who says that it is ready has its loops; else its first image waits for half a second
    return lambda work: processors[work.arrival.route](work)


class _Draws:
    """Gives segmenters by name; the engine's libraries take seconds to load, and only where one is drawn."""

    def __init__(self, config: Config, tell: Tell) -> None:
        self._networks, self._tell = config.networks, tell
        self._batcher = batches.address_of(config) if batches.is_wanted(config.networks) else ""
        self._engines: Engines | None = None

    def __call__(self, name: str) -> Segmenter:
        from dicom_node.segmenters import Engines, timed

        if self._engines is None:
            self._engines = Engines(self._networks, self._tell, batcher=self._batcher)
        return timed(self._engines.segmenter(name))


class _Keyed:
    """A role that needs keys: made anew when the ring has changed, so that an instance sees one ring only."""

    def __init__(self, config: Config, make: Callable[[FileKeyRing], Processor]) -> None:
        self._present, self._make = PresentRing(config.keys.ring), make
        ring = self._present.now()
        self._made = ring, make(ring)

    def __call__(self, work: Work) -> Outcome:
        ring, (made_with, process) = self._present.now(), self._made
        if ring is not made_with:
            process = self._make(ring)
            self._made = ring, process
        return process(work)


def _pass_on(_config: Config, route: Route, _spool: BlobStore, _draws: _Draws) -> Processor:
    return lambda work: passed(work, route, PASSED)


def _protect(config: Config, route: Route, spool: BlobStore, draws: _Draws) -> Processor:
    from dicom_node import protect, signers

    signs = config.signs(route) and config.keys.signing is not None
    signer = signers.load(config.keys.signing) if signs and config.keys.signing is not None else None
    return _Keyed(config, lambda ring: protect.Protector(config, route, ring, spool, draws, signer))


def _recover(config: Config, route: Route, spool: BlobStore, draws: _Draws) -> Processor:
    from dicom_node import review

    return _Keyed(config, lambda ring: review.Recoverer(config, route, ring, spool, draws))


def _verify(config: Config, route: Route, spool: BlobStore, draws: _Draws) -> Processor:
    from dicom_node import review

    return _Keyed(config, lambda ring: review.Verifier(config, route, ring, spool, draws))


_ROLES: Mapping[Role, Callable[[Config, Route, BlobStore, _Draws], Processor]] = {
    Role.PASS: _pass_on,
    Role.PROTECT: _protect,
    Role.RECOVER: _recover,
    Role.VERIFY: _verify,
}


def restart_delay_s(failures: int) -> float:
    """Seconds before a worker is started again after so many deaths in a row: 0, 1, 2, 4 .. 60."""
    return 0.0 if failures <= 1 else min(60.0, 2.0 ** (failures - 2))


class Worker:
    """The loop of one worker process: claim, process, finish.

    Parameters
    ----------
    name : under which leases are held; one name, one living process
    config : lease and policies
    ledger, bells : shared with the other processes
    process : what to do with an instance
    abreast : instances of a batch that are worked on at a time, where they mostly wait for a batcher
    watched : gives what is entered around the work on an instance, which gives what is called at each step
    """

    def __init__(
        self,
        name: str,
        config: Config,
        ledger: Ledger,
        bells: Bells,
        process: Processor,
        *,
        abreast: int = 1,
        watched: Callable[[Work], _Watch] = lambda _: _UNWATCHED,
    ) -> None:
        self.name = name
        self._watched = watched
        self.stopping = threading.Event()
        self._config = config
        self._lease_s = config.workers.lease_s
        self._ledger = ledger
        self._bells = bells
        self._process = process
        self._heart = Heart(ledger)
        #: what was claimed with the last record, to be worked on next
        self._claimed: list[Work] = []
        self._abreast = ThreadPoolExecutor(abreast, "abreast") if abreast > 1 else None

    def stop(self) -> None:
        """Have it end after the instance in hand; from any thread."""
        self.stopping.set()
        self._bells.rouse_work()

    def run(self) -> None:
        """Work until told to stop; a ledger that refuses is asked again later."""
        while self._claimed or not self.stopping.is_set():
            try:
                if not self.turn():
                    self._bells.rest_work(POLL_S)
            except NodeError as error:
                log.event(_LOG, "worker-fault", level=logging.ERROR, error=error, worker=self.name)
                self.stopping.wait(POLL_S)

    def turn(self) -> int:
        """Claim a batch and bring every instance of it to an end; returns how many there were."""
        works, self._claimed = self._claimed, []
        works = works or self._ledger.claim_work(self.name, BATCH, self._lease_s)
        self._heart.take(works, self._lease_s)
        ended: list[_Handled] = []
        try:
            done = iter((self._abreast.map if self._abreast else map)(self._one, works))
            for work in works:
                if ended and _is_due(ended, work):
                    self._conclude(ended)
                ended += next(done)
            if len(works) == BATCH and not self.stopping.is_set():  # more is likely to wait
                self._conclude(ended, self._finish_and_claim)
        finally:
            self._conclude(ended)
            self._heart.let_go(works)
        return len(works)

    def _one(self, work: Work) -> list[_Handled]:
        if self.stopping.is_set():
            self._ledger.release(work, time.time(), "stopping")
            return []
        return self._handle(work)

    def _handle(self, work: Work) -> list[_Handled]:
        """What became of an instance, still to be recorded; nothing if it was put off."""
        started = time.monotonic()
        error: Exception | None = None
        route = self._config.route(work.arrival.route)
        with measured() as seen:
            try:
                with self._watched(work) as seen.step:
                    outcome = self._process(work)
            except Exception as caught:
                error = caught
                outcome = failed(work, route, _reason(caught))
        if not _may_pass(error, work.attempts):
            end = Ended(work, _counted(outcome, route, seen), 0 if route is None else route.priority)
            return [_Handled(end, error, seen, started, time.monotonic())]
        try:
            self._put_off(work, outcome.reason, error)
        except StaleLease as stale:
            self._lost(stale, work)
        return []

    def _put_off(self, work: Work, reason: str, error: Exception | None) -> None:
        wait_s = min(_LONGEST_WAIT_S, 2.0 ** min(work.attempts, PATIENCE))
        insist(lambda: self._ledger.release(work, time.time() + wait_s, reason), self.stopping)
        log.event(
            _LOG,
            "put-off",
            level=logging.WARNING,
            error=error,
            job=work.id,
            uid=log.uid_hash(work.arrival.sop_instance_uid),
            worker=self.name,
            attempts=work.attempts,
            retry_in_s=wait_s,
        )

    def _conclude(self, handled: list[_Handled], finish: _Finish | None = None) -> None:
        """Record what became of instances, in one transaction, tell of it, and empty the list."""
        done, handled[:] = handled[:], []
        if not done:
            return
        try:
            self._record(done, finish or self._ledger.finish_all)
        except LedgerError as error:
            if len(done) == 1 or isinstance(error, LedgerUnavailable):
                raise
            for each in done:  # nothing was recorded, and one that cannot be costs the others nothing
                self._record_alone(each)

    def _record_alone(self, handled: _Handled) -> None:
        try:
            self._record([handled], self._ledger.finish_all)
        except LedgerUnavailable:
            raise
        except LedgerError as error:  # its lease runs out, and it is tried again
            log.event(_LOG, "worker-fault", level=logging.ERROR, error=error, worker=self.name)

    def _finish_and_claim(self, ended: Sequence[Ended]) -> Mapping[int, StaleLease]:
        """Record, and take what comes next in the same commit."""
        lost, self._claimed = self._ledger.finish_and_claim(ended, self.name, BATCH, self._lease_s)
        return lost

    def _record(self, done: list[_Handled], finish: _Finish) -> None:
        lost: dict[int, StaleLease] = {}
        ended = [each.end for each in done]
        insist(lambda: lost.update(finish(ended)), self.stopping)
        queued: dict[str, None] = {}
        for each in done:
            if each.end.work.id in lost:
                self._lost(lost[each.end.work.id], each.end.work)
                continue
            queued |= dict.fromkeys(each.end.outcome.destinations)
            self._report(each)
        for destination in queued:  # one claim takes all of them
            self._bells.ring_sends(destination)

    def _lost(self, stale: StaleLease, work: Work) -> None:
        log.event(_LOG, "lease-lost", level=logging.WARNING, error=stale, job=work.id, worker=self.name)

    def _report(self, handled: _Handled) -> None:
        work, outcome, seen = handled.end.work, handled.end.outcome, handled.seen
        level = _level(outcome, handled.error)
        if not _LOG.isEnabledFor(level):
            return
        log.event(
            _LOG,
            "processed",
            level=level,
            error=handled.error,
            job=work.id,
            uid=log.uid_hash(work.arrival.sop_instance_uid),
            route=work.arrival.route,
            worker=self.name,
            state=outcome.state,
            result=outcome.result,
            reason=outcome.reason,
            finding=outcome.finding or None,
            attempts=work.attempts,
            modality=seen.modality,
            **{f"{stage}_s": seconds for stage, seconds in seen.seconds.items()},
            total_s=handled.ended_at - handled.started_at,
        )


@dataclass(frozen=True, slots=True)
class _Handled:
    """An instance that was worked on: what is to be recorded of it, and what is told then."""

    end: Ended
    error: Exception | None
    seen: Measured
    started_at: float
    ended_at: float


def _is_due(handled: Sequence[_Handled], following: Work) -> bool:
    """Whether what is done is to be recorded before the next instance, which may take long."""
    return following.size > _LARGE_BYTES or time.monotonic() - handled[0].ended_at > _RECORDED_WITHIN_S


class Heart:
    """Keeps leases alive while they are held.

    Its thread sleeps a third of a lease at a time and ends when it finds nothing held, so that work that is
    quickly done costs neither a thread nor a beat.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._held: dict[Work, float] = {}
        self._beats = False

    def take(self, works: Sequence[Work], lease_s: float) -> None:
        """Keep these alive from now on; each was leased for `lease_s` just now."""
        with self._lock:
            self._held |= dict.fromkeys(works, time.monotonic())
            starts, self._beats = bool(self._held) and not self._beats, self._beats or bool(self._held)
        if starts:
            threading.Thread(target=self._beat, args=(lease_s,), name="heart", daemon=True).start()

    def let_go(self, works: Sequence[Work]) -> None:
        """Beat no longer for these."""
        with self._lock:
            for work in works:
                self._held.pop(work, None)

    def _beat(self, lease_s: float) -> None:
        while True:
            time.sleep(lease_s / 3)
            with self._lock:
                self._beats = bool(self._held)
                # what is younger lives until the next beat
                old = [work for work, since in self._held.items() if time.monotonic() - since > lease_s / 6]
            if not self._beats:
                return
            for work in old:
                # a lost lease shows when the work is finished; a refusing ledger is asked again next time
                with contextlib.suppress(NodeError):
                    self._ledger.beat(work, lease_s)


def _counted(outcome: Outcome, route: Route | None, seen: Measured) -> Outcome:
    """The outcome with everything that is counted of it."""
    readings = [Reading(PROCESSED, (seen.modality, outcome.result)), *seen.readings()]
    protects = route is not None and route.role is Role.PROTECT
    if protects and outcome.result not in _PROTECTED and outcome.reason != _PROTECTED_BEFORE:
        readings.append(Reading(UNPROTECTED, (outcome.reason,)))
    return replace(outcome, readings=(*outcome.readings, *readings))


def _level(outcome: Outcome, error: Exception | None) -> int:
    if error is not None:
        return logging.ERROR
    if outcome.alarms:
        return logging.WARNING
    # what goes on to a destination is told by a line from there
    return logging.DEBUG if outcome.destinations else logging.INFO


def _may_pass(error: Exception | None, attempts: int) -> bool:
    """Whether to try an instance again; a full disk or a store that is away says nothing against it."""
    if isinstance(error, SpoolFull | BlobsUnavailable):
        return True
    return isinstance(error, NodeError) and error.retryable and attempts < PATIENCE


def _reason(error: Exception) -> str:
    """A bounded word for an error: its class if it is one of ours, else that it was unexpected."""
    return type(error).__name__ if isinstance(error, NodeError | WatermarkError) else UNEXPECTED


@dataclass(frozen=True, slots=True)
class Order:
    """Everything that a worker process is told when it is spawned."""

    name: str
    config: Config
    bells: Bells
    factory: Factory
    log_salt: bytes


def run_process(order: Order, lifeline: Connection) -> None:
    """The body of a worker process; ends with status 1 when it cannot work."""
    _live(order, lifeline, _work)


def run_batcher(order: Order, lifeline: Connection) -> None:
    """The body of the process that evaluates the networks of all workers."""
    _live(order, lifeline, _batch)


def _live(order: Order, lifeline: Connection, body: Callable[[Order, Connection], None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # they reach the whole group; the node itself says when to stop
    log.setup(order.config.log.format, order.config.log.level, salt=order.log_salt)
    log.silence_warnings()
    private.keep_out_of_dumps()
    watchdog.bites()
    try:
        body(order, lifeline)
    except BrokenPipeError:
        # told to stop, or left behind by its node, before it could say that it is ready
        log.event(_LOG, "worker-not-needed", level=logging.DEBUG, worker=order.name)
    except Exception as error:
        # a bare traceback would quote whatever the exception quotes
        log.event(_LOG, "worker-failed", level=logging.CRITICAL, error=error, worker=order.name)
        sys.exit(1)


def _batch(order: Order, lifeline: Connection) -> None:
    from dicom_node import batcher

    batcher.serve(order.config, lifeline.send, lifeline, lambda: lifeline.send(_READY))


def _work(order: Order, lifeline: Connection) -> None:
    ledger = open_ledger(order.config)
    process = order.factory(order.config, lifeline.send)
    lifeline.send(_READY)
    order.bells.tell_lost(lambda count: ledger.count_soon(Reading(RINGS_LOST, (), count)))
    order.bells.hear_work()
    abreast = BATCH if batches.is_wanted(order.config.networks) else 1
    worker = Worker(
        order.name, order.config, ledger, order.bells, process, abreast=abreast, watched=_watched_by_a_dog()
    )
    threading.Thread(target=_listen, args=(lifeline, worker), name="lifeline", daemon=True).start()
    worker.run()
    order.bells.close()
    ledger.close()


def _watched_by_a_dog() -> Callable[[Work], _Watch]:
    dog = watchdog.Watchdog()
    return lambda work: dog.over(_LONGEST_WORK_S + work.size * _LONGEST_BYTE_S)


def _listen(lifeline: Connection, worker: Worker) -> None:
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv()
    worker.stop()


@dataclass(slots=True)
class _Slot:
    """One place for a worker: who sits there now, what it told, how often it was left in a hurry."""

    name: str
    body: Callable[[Order, Connection], None] = run_process
    process: SpawnProcess | None = None
    lifeline: Connection | None = None
    failures: int = 0
    started_at: float = 0.0
    start_at: float = 0.0
    networks: tuple[NetworkRun, ...] = ()
    ready: bool = False


class Workers:
    """Keeps the configured number of worker processes alive.

    Parameters
    ----------
    config : how many, and everything that they are told
    ledger : where the instances of dead workers are taken back
    bells : rung when the workers are to stop
    factory : makes the processor, inside the worker process; must be importable there
    """

    def __init__(
        self, config: Config, ledger: Ledger, bells: Bells, *, factory: Factory, log_salt: bytes = b""
    ) -> None:
        self._order = Order("", config, bells, factory, log_salt)
        self._ledger = ledger
        self._bells = bells
        self._context = multiprocessing.get_context("spawn")
        self._slots = [_Slot(f"worker-{number}") for number in range(worker_count(config))]
        wanted = batches.is_wanted(config.networks)
        self._batcher = [_Slot(_BATCHER, run_batcher)] if wanted else []
        self._stopping = threading.Event()
        self._watch = threading.Thread(target=self._supervise, name="supervisor", daemon=True)

    @property
    def alive(self) -> int:
        """How many workers are running."""
        running = [slot.process for slot in self._slots]  # who supervises forgets those that died meanwhile
        return sum(process is not None and process.is_alive() for process in running)

    @property
    def configured(self) -> int:
        """How many workers there should be."""
        return len(self._slots)

    @property
    def ready(self) -> int:
        """How many workers are running and have loaded what they need."""
        running = [slot.process for slot in self._slots if slot.ready]
        return sum(process is not None and process.is_alive() for process in running)

    @property
    def supervised(self) -> bool:
        """Whether the thread that replaces dead workers is running."""
        return self._watch.is_alive()

    @property
    def named_pids(self) -> dict[str, int]:
        """The process id of every running worker."""
        return living({slot.name: slot.process for slot in self._slots})

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the running workers."""
        return tuple(self.named_pids.values())

    @property
    def networks(self) -> tuple[NetworkRun, ...]:
        """What every living worker evaluates networks on, one entry for each network of each worker."""
        return tuple(run for slot in self._everybody for run in slot.networks)

    @property
    def batcher_pid(self) -> int | None:
        """The process that evaluates the networks of all workers, if there is one and it runs."""
        processes = [slot.process for slot in self._batcher]
        running = [process.pid for process in processes if process is not None]
        return running[0] if running else None

    @property
    def _everybody(self) -> list[_Slot]:
        """All places; the batcher comes first, and goes last."""
        return [*self._batcher, *self._slots]

    def start(self) -> None:
        """Start the workers and the thread that watches them; returns at once."""
        share_cores(len(self._slots))
        for slot in self._everybody:
            self._start(slot)
        self._watch.start()

    def stop(self, drain_s: float = 30.0) -> None:
        """Let every worker finish the instance in hand; after `drain_s` seconds kill it."""
        self._stopping.set()
        self._watch.join()
        deadline = time.monotonic() + drain_s
        self._end(self._slots, deadline)
        self._end(self._batcher, deadline)

    def _end(self, slots: list[_Slot], deadline: float) -> None:
        for slot in slots:
            if slot.lifeline is not None:
                slot.lifeline.close()
            self._bells.rouse_work()
        for slot in slots:
            if slot.process is not None:
                slot.process.join(max(0.0, deadline - time.monotonic()))
                try:
                    self._bury(slot, stopped=True)
                except NodeError as error:  # the next start takes back what it held
                    log.event(_LOG, "supervisor-fault", level=logging.ERROR, error=error, worker=slot.name)

    def _supervise(self) -> None:
        while not self._stopping.wait(0.05):
            sentinels = [slot.process.sentinel for slot in self._everybody if slot.process is not None]
            wait(sentinels, timeout=0.2)
            for slot in self._everybody:
                _hear(slot)
                try:
                    self._look_after(slot)
                except (NodeError, OSError) as error:  # no process, memory or descriptor to be had for now
                    log.event(_LOG, "supervisor-fault", level=logging.ERROR, error=error, worker=slot.name)

    def _look_after(self, slot: _Slot) -> None:
        if slot.process is None:
            if time.monotonic() >= slot.start_at:
                slot.start_at = time.monotonic() + POLL_S  # should it not come about
                self._start(slot)
        elif not slot.process.is_alive():
            lived_s = time.monotonic() - slot.started_at
            slot.failures = 1 if lived_s > _PROVEN_S else slot.failures + 1
            slot.start_at = time.monotonic() + restart_delay_s(slot.failures)
            self._bury(slot)

    def _start(self, slot: _Slot) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=slot.body,
            args=(replace(self._order, name=slot.name), theirs),
            name=slot.name,
            daemon=True,
        )
        process.start()
        theirs.close()
        slot.process, slot.lifeline, slot.started_at = process, ours, time.monotonic()
        slot.networks, slot.ready = (), False

    def _bury(self, slot: _Slot, *, stopped: bool = False) -> None:
        """Take back what a dead worker held, and forget it; what was told to stop and did not is killed."""
        process, slot.process = slot.process, None
        assert process is not None
        if stopped and process.is_alive():
            process.kill()
            process.join()
        if slot.lifeline is not None:
            slot.lifeline.close()
        slot.networks, slot.ready = (), False
        taken_back = self._ledger.worker_died(slot.name, stopped=stopped)
        if process.exitcode or taken_back:
            log.event(
                _LOG,
                "worker-died",
                level=logging.ERROR,
                worker=slot.name,
                exit_code=process.exitcode,
                reason="hung" if process.exitcode == -signal.SIGALRM else None,
                count=taken_back,
            )
            self._bells.ring_work()


def _hear(slot: _Slot) -> None:
    """Take in what the worker has told since."""
    with contextlib.suppress(EOFError, OSError):  # it died; it is looked after next
        while slot.lifeline is not None and slot.lifeline.poll():
            said = slot.lifeline.recv()
            if said == _READY:
                slot.ready = True
            else:
                slot.networks += (said,)


def worker_count(config: Config) -> int:
    """How many workers to run; `auto` is one per core that this process may use.

    Where every route only passes on, `auto` is one: the receiver does what there is to do, but for rows that
    an earlier configuration has left.
    """
    count = config.workers.count
    if count != "auto":
        return count
    return usable_cores() if _uses_the_engine(config) else 1


def _uses_the_engine(config: Config) -> bool:
    return any(route.role is not Role.PASS for route in config.routes)
