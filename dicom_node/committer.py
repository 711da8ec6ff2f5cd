"""Keeps storage commitment going: answers peers, asks destinations, and waits for neither.

Rules that bind here:
1. The ledger is the only memory. What is decided, asked or answered is on disk before anybody is told.
2. Every destination is asked from a thread of its own, and no peer is given two answers at a time: one that
   is slow, silent or gone holds up nobody else.
3. An answer is delivered until the peer takes it, at most so often as `commitment.retry` allows. A crash
   between the peer's yes and its row makes the node say the same once more; nothing makes it say other.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
import uuid
from collections.abc import Callable

from dicom_node import log, retry
from dicom_node.commitment import Ask, Due, Judge, Report, Request, Settled, Taken
from dicom_node.config import Config, Destination, RetryPolicy
from dicom_node.dimse import commit
from dicom_node.dimse.commit import Desk, Inquirer
from dicom_node.errors import PeerError
from dicom_node.ledger import Ledger

_LOG = logging.getLogger(__name__)

#: seconds between two looks; also keeps an answer from overtaking the response to its request
POLL_S = 1.0
#: answers on their way at once, to different peers
REPORTERS = 4
#: requests looked at, and answers handed out, at a time
BATCH = 64
#: gives an answer over the association of its request: the status, or None if that is not open any more
Carry = Callable[[Due, float], int | None]
#: pause after a fault of the node itself, seconds
_FAULT_PAUSE_S = 5.0
#: seconds for which ended requests are remembered, so that their Transaction UIDs are known
REMEMBER_S = 90 * 86400.0
_FORGET_EVERY_S = 3600.0


def judge(config: Config) -> Judge:
    """What this configuration promises."""

    def goes_somewhere(name: str) -> bool:
        route = config.route(name)
        return route is not None and any(map(config.is_mandatory, route.destinations))

    return Judge(config.commitment.promise, config.is_mandatory, goes_somewhere)


def new_transaction_uid() -> str:
    """A UID that was never used (PS3.5 section B.2)."""
    return f"2.25.{uuid.uuid4().int}"


class Committer:
    """Storage commitment, both ways.

    Parameters
    ----------
    config : who may ask, who is asked
    ledger : what is safe, and everything that was said
    carry : gives answers over the associations of their requests, as `Desk.carry`, where other processes have
        those; None: they come to `desk`
    """

    def __init__(self, config: Config, ledger: Ledger, carry: Carry | None = None) -> None:
        self._ledger = ledger
        self.desk = desk_of(lambda: config, ledger)
        asked = {name: peer for name, peer in config.destinations.items() if peer.commitment}
        self._asked = frozenset(asked)
        self._promiser = _Promiser(config, ledger, carry or self.desk.carry)
        self._askers = [_Asker(name, peer, config, ledger, self.desk) for name, peer in asked.items()]

    @property
    def alive(self) -> bool:
        """Whether every thread is running."""
        return all(thread.is_alive() for thread in (self._promiser, *self._askers))

    def start(self) -> None:
        """Start; returns at once. What destinations are no longer asked for is let go of."""
        waived = self._ledger.waive_commitments(self._asked)
        if waived:
            log.event(_LOG, "commitments-waived", level=logging.WARNING, count=waived)
        for thread in (self._promiser, *self._askers):
            thread.start()

    def stop(self, drain_s: float = 10.0) -> None:
        """Let every thread finish what it has in hand; after `drain_s` seconds break what still hangs."""
        threads = (self._promiser, *self._askers)
        for thread in threads:
            thread.stopping.set()
        deadline = time.monotonic() + drain_s
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for thread in threads:
            if thread.is_alive():
                thread.abort()
                thread.join(1.0)


def desk_of(config: Callable[[], Config], ledger: Ledger) -> Desk:
    """Takes what peers say, by the configuration that is in force at that moment."""

    def take_request(request: Request) -> Taken | None:
        commitment = config().commitment
        if not (commitment.same_association or config().requester(request.peer)):
            return None
        return ledger.take_request(request, commitment.wait_s)

    def take_report(report: Report) -> bool:
        settled = ledger.take_report(report, config().commitment.ask.refusals, delay)
        if settled is None:
            return False
        _log_settled(report, settled)
        return True

    def delay(destination: str) -> Callable[[int], float]:
        peer = config().destinations.get(destination)
        return _delay(RetryPolicy() if peer is None else peer.retry)

    return Desk(take_request, take_report)


def _log_settled(report: Report, settled: Settled) -> None:
    unhappy = settled.asked_again or settled.sent_again or settled.given_up
    log.event(
        _LOG,
        "commitment-answered",
        level=logging.WARNING if unhappy else logging.INFO,
        transaction=log.uid_hash(report.transaction_uid),
        destination=settled.destination,
        committed=settled.committed,
        asked_again=settled.asked_again,
        sent_again=settled.sent_again,
        given_up=settled.given_up,
    )


def _delay(policy: RetryPolicy) -> Callable[[int], float]:
    """How long to wait after so many requests or answers that came to nothing."""
    rng = random.Random()  # noqa: S311 - spreads retries, keeps no secret
    return lambda attempts: retry.delay_s(policy, attempts, rng)


class _Worker(threading.Thread):
    """A thread that takes turns until it is told to stop; a fault costs it a pause."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.is_set():
            try:
                pause_s = self.turn()
            except Exception as error:
                log.event(_LOG, "committer-fault", level=logging.ERROR, error=error)
                pause_s = _FAULT_PAUSE_S
            self.stopping.wait(pause_s)
        self.close()

    def turn(self) -> float:
        """Do what is due; the seconds to rest afterwards."""
        raise NotImplementedError

    def close(self) -> None:
        """Called at the end, from the thread itself."""

    def abort(self) -> None:
        """Break what hangs; from any thread."""


class _Asker(_Worker):
    """Asks one destination for what it was sent."""

    def __init__(
        self, name: str, destination: Destination, config: Config, ledger: Ledger, desk: Desk
    ) -> None:
        super().__init__(f"ask-{name}")
        self._destination_name = name
        self._settings = config.commitment.ask
        self._ledger = ledger
        self._inquirer = Inquirer(
            name, destination, config.node.ae_title, desk, self._settings.linger_s, config.tls
        )
        self._delay = _delay(destination.retry)

    def turn(self) -> float:
        """Give up waiting for what is overdue, then ask for the next batch."""
        overdue = self._ledger.expire_asks(self._destination_name, self._delay)
        if overdue:
            log.event(
                _LOG,
                "commitment-overdue",
                level=logging.WARNING,
                destination=self._destination_name,
                count=overdue,
            )
        self._inquirer.tidy()
        ask = self._ledger.claim_ask(
            self._destination_name,
            new_transaction_uid(),
            self._settings.batch,
            collect_s=self._settings.collect_s,
            answer_s=self._settings.answer_s,
        )
        if ask is None:
            return POLL_S
        return 0.0 if self._ask(ask) else POLL_S

    def _ask(self, ask: Ask) -> bool:
        """Make a request and record whether it was taken."""
        try:
            status: int | None = self._inquirer.ask(ask)
            error = None
        except PeerError as caught:
            status, error = None, caught
        taken = status == commit.SUCCESS
        if taken:
            self._ledger.ask_taken(ask)
        else:
            self._ledger.ask_failed(ask, self._delay)
        log.event(
            _LOG,
            "commitment-asked" if taken else "commitment-not-asked",
            level=logging.INFO if taken else logging.WARNING,
            error=error,
            transaction=log.uid_hash(ask.transaction_uid),
            destination=self._destination_name,
            status=None if status is None else f"{status:04x}",
            count=len(ask.references),
            attempts=ask.attempts,
        )
        return taken

    def close(self) -> None:
        """Release what is open."""
        self._inquirer.close()

    def abort(self) -> None:
        """Break a request that hangs."""
        self._inquirer.abort()


class _Promiser(_Worker):
    """Decides what can be promised, and hands the answers to reporters, one at a time for each peer."""

    def __init__(self, config: Config, ledger: Ledger, carry: Carry) -> None:
        super().__init__("promise")
        self._ledger = ledger
        self._judge = judge(config)
        self._due: queue.SimpleQueue[Due | None] = queue.SimpleQueue()
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        self._reporters = [
            threading.Thread(
                target=self._report, args=(_Reporter(config, ledger, carry),), name="report", daemon=True
            )
            for _ in range(REPORTERS)
        ]
        self._forget_at = 0.0

    def start(self) -> None:
        """Start the reporters too."""
        super().start()
        for reporter in self._reporters:
            reporter.start()

    def turn(self) -> float:
        """Decide, hand out, and now and then forget."""
        for report in self._ledger.decide_promises(self._judge, BATCH):
            log.event(
                _LOG,
                "commitment-decided",
                transaction=log.uid_hash(report.transaction_uid),
                committed=len(report.answers) - report.failures,
                failures=report.failures,
            )
        # who is free now stays free until we hand something out, so what the ledger says next is not stale
        with self._lock:
            busy = frozenset(self._busy)
        for due in self._ledger.due_reports(busy, BATCH):
            with self._lock:
                self._busy.add(due.peer)
            self._due.put(due)
        self._forget()
        return POLL_S

    def close(self) -> None:
        """Let the reporters finish what they have in hand."""
        for _ in self._reporters:
            self._due.put(None)
        for reporter in self._reporters:
            reporter.join()

    def _forget(self) -> None:
        if time.monotonic() < self._forget_at:
            return
        self._forget_at = time.monotonic() + _FORGET_EVERY_S
        before = time.time() - REMEMBER_S
        self._ledger.forget_promises(before)
        self._ledger.forget_asks(before)

    def _report(self, reporter: _Reporter) -> None:
        """The body of a reporter's thread."""
        while (due := self._due.get()) is not None:
            try:
                reporter.report(due)
            except Exception as error:
                log.event(_LOG, "committer-fault", level=logging.ERROR, error=error)
            finally:
                with self._lock:
                    self._busy.discard(due.peer)


class _Reporter:
    """Gives peers their answers, and records how that went."""

    def __init__(self, config: Config, ledger: Ledger, carry: Carry) -> None:
        self._config = config
        self._ledger = ledger
        self._carry = carry
        self._rng = random.Random()  # noqa: S311 - spreads retries, keeps no secret

    def report(self, due: Due) -> None:
        """One attempt."""
        answer = self._attempt(due)
        tried = retry.Tried(due.attempts, due.refusals)
        decision = retry.decide(self._config.commitment.retry, tried, answer, time.time(), self._rng)
        match decision:
            case retry.Done():
                self._ledger.reported(due)
            case retry.RetryAt(at=at, reason=reason, refused=refused):
                self._ledger.report_later(due, at, reason, refused=refused)
            case retry.GiveUp(reason=reason):
                self._ledger.give_report_up(due, reason)
        done = isinstance(decision, retry.Done)
        log.event(
            _LOG,
            "commitment-reported" if done else "commitment-not-reported",
            level=logging.INFO if done else logging.WARNING,
            error=answer if isinstance(answer, PeerError) else None,
            transaction=log.uid_hash(due.report.transaction_uid),
            calling_ae=due.peer,
            status=None if isinstance(answer, PeerError) else f"{answer:04x}",
            committed=len(due.report.answers) - due.report.failures,
            failures=due.report.failures,
            attempts=due.attempts,
            retry_in_s=decision.at - time.time() if isinstance(decision, retry.RetryAt) else None,
        )

    def _attempt(self, due: Due) -> int | PeerError:
        """The status that the peer answered, or what happened instead."""
        requester = self._config.requester(due.peer)
        failure = PeerError(f"no address to report to is configured for requester {due.peer}")
        if requester is not None:
            try:
                return commit.deliver(due, requester, self._config.tls)
            except PeerError as error:
                failure = error
        if not self._config.commitment.same_association:
            return failure
        try:
            carried = self._carry(due, requester.timeout_s if requester else 30.0)
        except PeerError as error:
            return error
        return failure if carried is None else carried
