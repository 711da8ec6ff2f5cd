"""Delivers what is ready: per destination its own threads, its own associations, its own patience.

Rules that bind here:
1. Destinations share nothing but the ledger: one that is slow, silent or gone never holds up another.
2. A destination that is down is probed with one object at a time, by one of its lanes; what was claimed with
   it goes back. `reach` decides.
3. Every attempt ends in the ledger: delivered, to be tried again at a time, or given up with a reason.
   `retry` decides. A ledger that refuses for a while is asked until it takes what the destination answered.
4. Outside its windows nothing is claimed for a destination; the object in hand is finished.
5. While a destination with a fail-over is down for long, the lanes of the other take its deliveries too. A
   delivery is leased by one lane at a time, so the change-over sends nothing twice that one alone would not.
6. What the destination answered is recorded while it works on the next object, or with the next claim,
   several answers in one commit. A lane holds back at most `HELD_BACK` of them, as a rule for at most
   `HELD_BACK_S`: so many, and the one in hand, a crash may repeat. An answer is held back until its record
   is on disk, which is as a rule an arrival's doing: a claim itself does not wait for the disk.
7. Whatever an attempt raises ends that attempt, as a refusal would: an object with which our own code fails
   backs off and becomes a dead letter, and nobody waits behind it. What fails beside an attempt costs it
   nothing.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dicom_node import log
from dicom_node.blobs.port import BlobStore
from dicom_node.config import Config, Destination, Tls
from dicom_node.dimse.store import Sender, patience_s
from dicom_node.errors import (
    BlobsUnavailable,
    ConversionError,
    LedgerError,
    LedgerUnavailable,
    NodeError,
    PeerError,
    SpoolError,
    SpoolFull,
    StaleLease,
)
from dicom_node.insist import insist
from dicom_node.jobs import NOT_SENDABLE, UNEXPECTED, Receipt, Send
from dicom_node.ledger import Ledger
from dicom_node.metrics import STAGE_SECONDS, Reading
from dicom_node.reach import Contact, Reach, after_restart, contact_of, observed, stands_aside
from dicom_node.retry import Decision, Done, GiveUp, RetryAt, Tried, decide
from dicom_node.transcode import Transcoder, alternatives
from dicom_node.transcode import patience_s as conversion_patience_s
from dicom_node.windows import is_open

_LOG = logging.getLogger(__name__)

BATCH = 16
LEASE_S = 300.0
#: answers that a lane holds back at most, recorded but perhaps not on disk included, and for how long as a
#: rule, seconds
HELD_BACK, HELD_BACK_S = 4, 0.05
#: before an object of more bytes goes out, nothing is held back: it may take minutes
_QUICK_BYTES = 1 << 20
#: a lane without work looks this often whether its peer has said something, seconds
_LISTEN_S = 0.05
#: an association without work is released after this many seconds; many a peer serves one at a time
IDLE_CLOSE_S = 2.0
#: nobody rings when a retry falls due or a window opens, so lanes also look by themselves this often, seconds
POLL_S = 1.0
#: pause after a fault of the node itself, seconds
_FAULT_PAUSE_S = 5.0

#: what `stop` may be the cause of, which ends processes and breaks connections
_ENDED_BY_STOP = frozenset({"conversion-crashed", UNEXPECTED})

_SEND = "send"

Rest = Callable[[str, float], bool | None]
Rung = Callable[[str], bool]
Clock = Callable[[], float]


def steady_clock() -> Clock:
    """The time at this moment, in seconds since 1970-01-01 UTC, and from now on what has passed since.

    Nobody sets it: where the wall clock jumps, it does not.
    """
    ahead_s = time.time() - time.monotonic()
    return lambda: time.monotonic() + ahead_s


class Forwarder:
    """All lanes to all destinations.

    Parameters
    ----------
    config : the destinations
    spool, ledger : what to deliver
    rest : waits until somebody rings for a destination, at most so many seconds; false if nobody did
    rung : whether somebody has, since a lane of it last rested
    wake : ends every `rest` for a destination at once
    clock : now, in seconds since 1970-01-01 UTC
    steady : the same, but as `steady_clock` gives it, for waits and outages; without it `clock`
    """

    def __init__(
        self,
        config: Config,
        spool: BlobStore,
        ledger: Ledger,
        *,
        rest: Rest,
        rung: Rung = lambda _name: True,
        wake: Callable[[str], object],
        clock: Clock = time.time,
        steady: Clock | None = None,
    ) -> None:
        self._wake = wake
        self._clock = clock
        self._sites = _sites(config, ledger, steady or clock)
        self._lanes = [
            _Lane(site, self._sites, config.node.ae_title, spool, ledger, rest, rung, clock)
            for site in self._sites.values()
            for _ in range(site.destination.associations)
        ]

    @property
    def alive(self) -> bool:
        """Whether every lane is running."""
        return all(lane.is_alive() for lane in self._lanes)

    def closed(self) -> list[str]:
        """Destinations outside their windows at this moment."""
        now = self._clock()
        return [name for name, site in self._sites.items() if not is_open(site.destination.open_hours, now)]

    def failed_over(self) -> list[str]:
        """Destinations whose deliveries go to their fail-over at this moment."""
        now = self._clock()
        return [name for name, site in self._sites.items() if site.stands_aside(now)]

    def start(self) -> None:
        """Start every lane; returns at once."""
        for lane in self._lanes:
            lane.start()

    def stop(self, drain_s: float = 10.0) -> None:
        """Let every lane finish the object in hand; after `drain_s` seconds break what still hangs."""
        for lane in self._lanes:
            lane.stopping.set()
        for lane in self._lanes:
            self._wake(lane.destination_name)
        deadline = time.monotonic() + drain_s
        for lane in self._lanes:
            lane.join(max(0.0, deadline - time.monotonic()))
        for site in self._sites.values():
            site.transcoder.abort()
        for lane in self._lanes:
            if lane.is_alive():
                lane.sender.abort()
                lane.join(1.0)
        for site in self._sites.values():
            site.transcoder.close()


@dataclass(frozen=True, slots=True)
class _Site:
    """One destination and what its lanes share."""

    name: str
    destination: Destination
    watch: _Watch
    transcoder: Transcoder
    tls: Tls

    def stands_aside(self, now: float) -> bool:
        """Whether its deliveries go to its fail-over now; outside its windows they would wait anyway."""
        if self.destination.failover is None or not is_open(self.destination.open_hours, now):
            return False
        return self.watch.stands_aside(self.destination.failover_after_s)


def _sites(config: Config, ledger: Ledger, clock: Clock) -> dict[str, _Site]:
    down = ledger.outages()
    return {
        name: _Site(
            name,
            destination,
            _Watch(name, destination, ledger, clock, down.get(name)),
            Transcoder(config),
            config.tls,
        )
        for name, destination in config.destinations.items()
    }


class _Watch:
    """What the lanes of one destination know about it together; the ledger keeps whether it is down.

    Its clock is steady: a wall clock that is set back must not keep a destination waiting for hours.
    """

    def __init__(
        self, name: str, destination: Destination, ledger: Ledger, clock: Clock, since: float | None
    ) -> None:
        self.reach = Reach() if since is None else after_restart(since, clock())
        self._name = name
        self._policy = destination.retry
        self._ledger = ledger
        self._clock = clock
        self._rng = random.Random()  # noqa: S311 - spreads retries, keeps no secret
        self._paused, self._paused_at = False, -math.inf
        self._turn = threading.Lock()
        self._probe: object | None = None
        self._looked_at = 0.0

    def is_paused(self) -> bool:
        """Whether an operator had paused the destination when a lane last looked, at most `POLL_S` ago."""
        now = time.monotonic()
        if now - self._paused_at >= POLL_S:
            self._paused, self._paused_at = self._name in self._ledger.paused(), now
        return self._paused

    def admits(self, lane: object) -> bool:
        """Whether a lane may send now; if the destination is down, only as its one probe: see `released`."""
        with self._turn:
            if not self.reach.down:
                return True
            if self._probe is None and self._is_due(self._clock()):
                self._probe = lane
            return self._probe is lane

    def _is_due(self, now: float) -> bool:
        """Whether the wait is over, or an operator has ended it."""
        if now < self.reach.retry_at and now >= self._looked_at + POLL_S:
            self._looked_at = now
            if self._ledger.take_hurry(self._name):
                self.reach = replace(self.reach, retry_at=now)
        return now >= self.reach.retry_at

    def asks_next(self) -> bool:
        """Whether a probe is due and has not gone out."""
        with self._turn:
            return self._probe is None and self._clock() >= self.reach.retry_at

    def stands_aside(self, after_s: float) -> bool:
        """Whether it has been down for so long that another takes its deliveries."""
        return stands_aside(self.reach, after_s, self._clock())

    def released(self, lane: object) -> None:
        """The lane has ended its turn."""
        with self._turn:
            if self._probe is lane:
                self._probe = None

    def note(self, contact: Contact, delivery: int, lane: object) -> None:
        """Learn from an attempt, and keep a change in the ledger."""
        with self._turn:
            before, now = self.reach, self._clock()
            after = observed(
                before,
                contact,
                delivery,
                probe=self._probe is lane,
                now=now,
                policy=self._policy,
                rng=self._rng,
            )
            # the ledger first: if it refuses, the next attempt learns the same and notes it then
            if after.since is not None and before.since is None:
                self._ledger.went_down(self._name, after.since)
                log.event(_LOG, "destination-down", level=logging.WARNING, destination=self._name)
            elif after.since is None and before.since is not None:
                self._ledger.came_back(self._name)
                log.event(_LOG, "destination-back", destination=self._name, total_s=now - before.since)
            self.reach = after


@dataclass(frozen=True, slots=True)
class _Claimed:
    """A delivery that a lane has leased, and when by the steady clock."""

    send: Send
    at: float


@dataclass(frozen=True, slots=True)
class _Taken:
    """What a destination took, to be recorded; `at` by the steady clock, the rest for the log."""

    receipt: Receipt
    decision: Done
    at: float
    send_s: float
    total_s: float


@dataclass(frozen=True, slots=True)
class _Unsure:
    """Answers whose records a power cut may undo: how many, and since when by the steady clock."""

    count: int
    since: float
    #: the ledger's: see `Ledger.is_on_disk`
    mark: int


class _Lane(threading.Thread):
    """One association to one destination, and the thread that keeps it busy."""

    def __init__(
        self,
        site: _Site,
        sites: Mapping[str, _Site],
        calling_ae: str,
        spool: BlobStore,
        ledger: Ledger,
        rest: Rest,
        rung: Rung,
        clock: Clock,
    ) -> None:
        super().__init__(name=f"forward-{site.name}", daemon=True)
        self.destination_name = site.name
        self.sender = Sender(site.name, site.destination, calling_ae, site.tls)
        self.stopping = threading.Event()
        self._site = site
        self._destination = site.destination
        self._watch = site.watch
        self._hours = site.destination.open_hours
        self._stands_in_for = [other for other in sites.values() if other.destination.failover == site.name]
        self._spool = spool
        self._ledger = ledger
        self._rest = rest
        self._rung = rung
        self._clock = clock
        self._rng = random.Random()  # noqa: S311 - spreads retries, keeps no secret
        self._turns = 0
        self._last_used = time.monotonic()
        #: leased and still to be sent, in order
        self._claimed: deque[_Claimed] = deque()
        #: whether something may be due: the last claim left some, or somebody has rung since
        self._more, self._looked_at = True, -math.inf
        #: answered and still to be recorded, in order
        self._taken: list[_Taken] = []
        #: answered, recorded, and perhaps not on disk
        self._unsure: _Unsure | None = None
        #: the delivery whose object was read ahead
        self._prepared: int | None = None

    def run(self) -> None:
        """Claim, send, record, rest; until told to stop."""
        while not self.stopping.is_set():
            try:
                self._turn()
            except Exception as error:
                self._tell(error)
                self.stopping.wait(_FAULT_PAUSE_S)
        with contextlib.suppress(LedgerError):
            self._settle()
        self.sender.close()

    def _tell(self, error: Exception, send: Send | None = None) -> None:
        """Say that something unforeseen happened, with the delivery that it cost an attempt."""
        log.event(
            _LOG,
            "forwarder-fault",
            level=logging.ERROR,
            error=error,
            destination=self.destination_name,
            job=None if send is None else send.job,
            delivery=None if send is None else send.id,
        )

    def _turn(self) -> None:
        if not (self._is_open() and self._watch.admits(self)):
            self._idle()
            return
        try:
            self._work()
        finally:
            self._watch.released(self)

    def _is_open(self) -> bool:
        return is_open(self._hours, self._clock())

    def _work(self) -> None:
        # whoever does not answer holds up one object, not many
        probing = self._watch.reach.down
        if not (probing or self._expects_more() or time.monotonic() >= self._looked_at + POLL_S):
            self._idle()
            return
        self._claim(BATCH if self.sender.connected and not probing else 1)
        if not self._claimed:
            self._idle()
        try:
            while (
                self._claimed and not self.stopping.is_set() and self._is_open() and self._watch.admits(self)
            ):
                claimed = self._claimed.popleft()
                self._deliver(claimed.send, claimed.at)
                if not self._claimed:
                    self._linger()
        finally:
            self._end_turn()

    def _end_turn(self) -> None:
        """Leave nothing in hand: left leased, it would wait for the lease to run out."""
        try:
            if self._taken:
                insist(self._settle, self.stopping)
        finally:
            while self._claimed:
                self._give_back(self._claimed.popleft().send)

    def _give_back(self, send: Send) -> None:
        self._more = True
        insist(lambda: self._ledger.put_back(send), self.stopping)

    def _claim(self, limit: int) -> None:
        """Due deliveries of this destination or of one that it stands in for, each first in its turn.

        What was answered is recorded in the same commit.
        """
        now = self._clock()
        names = [self.destination_name] + [
            other.name
            for other in self._stands_in_for
            # what is due to be asked itself gets the next delivery, or it would never be seen to be back
            if other.stands_aside(now) and not other.watch.asks_next()
        ]
        self._turns += 1
        self._more, self._looked_at = True, time.monotonic()
        first = self._turns % len(names)
        for name in names[first:] + names[:first]:
            at, taken, on_disk = time.monotonic(), tuple(self._taken), self._is_overdue()
            receipts = [each.receipt for each in taken]
            sends = self._ledger.claim_sends(
                name, limit, LEASE_S, via=self.destination_name, receipts=receipts, awaits_disk=on_disk
            )
            if taken:
                self._recorded(len(taken), on_disk=on_disk)
            self._claimed.extend(_Claimed(send, at) for send in sends)
            self._more = len(sends) == limit
            if sends:
                return

    def _idle(self) -> None:
        idle_s = time.monotonic() - self._last_used
        self._site.transcoder.rest()
        rest_s = _LISTEN_S
        # the connection stays in hand: the library would look at it a thousand times a second
        if not (self.sender.connected and idle_s < IDLE_CLOSE_S and self.sender.is_quiet()):
            self.sender.close()
            rest_s = POLL_S
        if self._is_overdue():
            insist(self._settle, self.stopping)
        # if anything is held back, it may be on disk by the end of its time
        seconds = max(min(rest_s, self._left_s()), 0.0)
        if self._watch.is_paused():
            # every arrival rings, and none of that is for a destination that is paused
            self.stopping.wait(seconds)
            seconds = 0.0
        self._listen(seconds)

    def _listen(self, seconds: float) -> None:
        """Wait until somebody rings."""
        if self._rest(self.destination_name, seconds) is not False:
            self._more = True

    def _deliver(self, send: Send, claimed_at: float) -> None:
        """Send one object; what came of it is recorded now or, if it was taken, together with others."""
        started = time.monotonic()
        try:
            if send.size > _QUICK_BYTES or not self.sender.connected:
                insist(self._settle, self.stopping)
            answer = self._attempt(send, claimed_at)
        except LedgerUnavailable:  # it refused before anything was sent
            self._give_back(send)
            return
        self._last_used = time.monotonic()
        if self.stopping.is_set() and isinstance(answer, PeerError) and answer.reason in _ENDED_BY_STOP:
            self._give_back(send)
            return
        self._decide(send, answer, self._last_used - started)
        self._watch.note(contact_of(answer), send.id, self)

    def _decide(self, send: Send, answer: int | PeerError, send_s: float) -> None:
        tried = Tried(send.attempts, send.refusals)
        stand_in = send.destination != self.destination_name
        decision = decide(self._destination.retry, tried, answer, self._clock(), self._rng, stand_in=stand_in)
        via = self.destination_name if stand_in else ""
        if isinstance(decision, Done):
            self._keep(send, decision, send_s, via)
            return
        insist(self._settle, self.stopping)
        insist(lambda: self._record(send, decision, via), self.stopping)
        self._report(send, decision, answer, send_s, self._clock() - send.received_at)

    # ---- what was taken, until it is recorded ----

    def _keep(self, send: Send, decision: Done, send_s: float, via: str) -> None:
        took = (Reading(STAGE_SECONDS, (_SEND,), send_s),)
        # what stands in has it, and so is who can answer for it
        receipt = Receipt(send, decision.status, via, self._destination.commitment, took)
        total_s = self._clock() - send.received_at
        self._taken.append(_Taken(receipt, decision, self._last_used, send_s, total_s))
        if self._held_back() > HELD_BACK:  # the ledger refuses, or they would have been recorded meanwhile
            insist(self._settle, self.stopping)

    def _meanwhile(self) -> float | None:
        """What there is to do while the destination works on an object; nothing here may fail.

        Returns after how many seconds there is something to do again.
        """
        try:
            if not self._claimed and self._goes_on() and self._expects_more():
                self._claim(BATCH)
            if self._is_overdue():
                self._settle()
        except LedgerError as error:  # whoever insists, or claims, hears it again
            log.event(_LOG, "ledger-refuses", level=logging.ERROR, error=error)
            return None
        except Exception as error:  # the object under way has been sent, and is to be heard of
            self._tell(error)
            return None
        self._read_ahead()
        left_s = self._left_s()
        return None if left_s == math.inf else max(left_s, 0.0)

    def _linger(self) -> None:
        """Record what was taken together with the next claim, if there is something to send soon."""
        if not (self._taken and self._goes_on()):
            return
        left_s = self._left_s()
        if left_s > 0 and not self._more:
            self._listen(left_s)
            if not self._goes_on():  # what is claimed now would only be given back, one by one
                return
        if not self._expects_more():  # the end of the turn records it
            return
        try:
            self._claim(BATCH)
        except LedgerError as error:  # the end of the turn insists
            log.event(_LOG, "ledger-refuses", level=logging.ERROR, error=error)

    def _expects_more(self) -> bool:
        """Whether a claim is likely to find something; what falls due by itself is looked for by the way."""
        return self._more or bool(self._stands_in_for) or self._rung(self.destination_name)

    def _goes_on(self) -> bool:
        return not (self.stopping.is_set() or self._watch.reach.down) and self._is_open()

    def _read_ahead(self) -> None:
        if self._claimed and self._prepared != self._claimed[0].send.id:
            following = self._claimed[0].send
            self._prepared = following.id
            # told when it is sent; else it would cost the object before it an attempt
            with contextlib.suppress(Exception):
                self.sender.prepare(following, self._spool.path(following.blob))

    def _held_back(self) -> int:
        """How many answers a crash of the machine would have us forget."""
        if self._unsure is not None and self._ledger.is_on_disk(self._unsure.mark):
            self._unsure = None
        return len(self._taken) + (0 if self._unsure is None else self._unsure.count)

    def _left_s(self) -> float:
        """How long the first of them may still wait, for its record or the disk; infinite if none does."""
        if not self._held_back():
            return math.inf
        since = [each.at for each in self._taken[:1]] + ([] if self._unsure is None else [self._unsure.since])
        return min(since) + HELD_BACK_S - time.monotonic()

    def _is_overdue(self) -> bool:
        """Whether what is held back is to be on disk now."""
        return self._held_back() >= HELD_BACK or self._left_s() <= 0.0

    def _settle(self) -> None:
        """Record what was taken, and have all of it on disk."""
        if not self._taken:
            if self._held_back():
                self._ledger.sync()
                self._unsure = None
            return
        count = len(self._taken)
        try:
            self._ledger.take_receipts([each.receipt for each in self._taken])
        except StaleLease:
            self._settle_one_by_one()
        else:
            self._recorded(count)

    def _settle_one_by_one(self) -> None:
        """Of what was taken, record what this lane still has the lease of; the rest is another's by now."""
        while self._taken:
            try:
                self._ledger.take_receipts([self._taken[0].receipt])
            except StaleLease as error:
                lost = self._taken.pop(0).receipt.send
                log.event(_LOG, "lease-lost", level=logging.WARNING, error=error, delivery=lost.id)
            else:
                self._recorded(1)

    def _recorded(self, count: int, *, on_disk: bool = True) -> None:
        """The first `count` are recorded; say so."""
        done, self._taken = self._taken[:count], self._taken[count:]
        if on_disk:
            self._unsure = None
        else:
            before = self._unsure
            since = time.monotonic() if before is None else before.since
            more = 0 if before is None else before.count
            self._unsure = _Unsure(more + count, since, self._ledger.mark())
        for each in done:
            self._report(each.receipt.send, each.decision, each.receipt.status, each.send_s, each.total_s)

    def _attempt(self, send: Send, claimed_at: float) -> int | PeerError:
        """The status that the peer answered, or what happened instead."""
        try:
            path = self._spool.path(send.blob)
            self._prolong(send, claimed_at, send.size or _size(path))
            syntax = self.sender.agree(send, alternatives(self._destination, send.transfer_syntax_uid))
            if syntax != send.transfer_syntax_uid:
                path = self._converted(send, path, syntax)
                self._prolong(send, claimed_at, _size(path))
            return self.sender.send(send, path, syntax, self._meanwhile)
        except PeerError as error:
            return error
        except LedgerError:
            raise
        except SpoolFull as error:
            return PeerError(str(error), reason="spool-full")
        except BlobsUnavailable as error:
            return PeerError(str(error), reason="spool-unavailable")
        except ConversionError as error:
            return PeerError(str(error), retryable=False, reason=error.reason)
        except NodeError as error:
            # not the peer's fault, but for the object it means the same: it cannot be delivered as it is
            return PeerError(str(error), retryable=False, reason=NOT_SENDABLE)
        except Exception as error:
            return self._failed(send, error)

    def _failed(self, send: Send, error: Exception) -> PeerError:
        """What our own code makes of an object may be the object's doing, and may leave a broken association.

        What it says may quote the object: only its type is passed on.
        """
        self._tell(error, send)
        with contextlib.suppress(Exception):
            self.sender.forget()
        return PeerError(
            f"an unexpected {type(error).__name__}; see the line forwarder-fault",
            retryable=False,
            reason=UNEXPECTED,
        )

    def _prolong(self, send: Send, claimed_at: float, size: int) -> None:
        """Keep the lease for as long as it may take to send so many bytes."""
        needed_s = patience_s(self._destination, size)
        if time.monotonic() + 2 * needed_s > claimed_at + LEASE_S:
            self._ledger.beat_send(send, LEASE_S + 2 * needed_s)

    def _converted(self, send: Send, path: Path, syntax: str) -> Path:
        """The object in another transfer syntax, made now or at an earlier attempt."""
        known = self._ledger.conversion(send.blob, syntax)
        if known is not None and self._spool.look(known) is not None:
            return self._spool.path(known)
        insist(self._settle, self.stopping)
        limit_s = conversion_patience_s(path)
        self._ledger.beat_send(send, LEASE_S + 2 * limit_s)
        made = self._site.transcoder.convert(send.blob, syntax, limit_s)
        self._ledger.converted(send.blob, syntax, made)
        return self._spool.path(made)

    def _record(self, send: Send, decision: RetryAt | GiveUp, via: str) -> None:
        match decision:
            case RetryAt(at=at, reason=reason, result=result, refused=refused):
                self._ledger.retry(send, at, reason, result=result, refused=refused, via=via)
            case GiveUp(reason=reason, result=result):
                self._ledger.dead(send, reason, result=result)

    def _report(
        self, send: Send, decision: Decision, answer: int | PeerError, send_s: float, total_s: float
    ) -> None:
        done = isinstance(decision, Done)
        level = logging.INFO if done else logging.WARNING
        if not _LOG.isEnabledFor(level):  # to hash a UID takes longer than to ask
            return
        log.event(
            _LOG,
            "delivered" if done else "dead-letter" if isinstance(decision, GiveUp) else "delivery-failed",
            level=level,
            error=answer if isinstance(answer, PeerError) else None,
            job=send.job,
            delivery=send.id,
            uid=log.uid_hash(send.sop_instance_uid),
            destination=send.destination,
            via=self.destination_name if send.destination != self.destination_name else None,
            status=None if isinstance(answer, PeerError) else f"{answer:04x}",
            attempts=send.attempts,
            retry_in_s=decision.at - self._clock() if isinstance(decision, RetryAt) else None,
            bytes=send.size,
            work_s=send.queued_at - send.received_at,
            send_s=send_s,
            total_s=total_s,
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise SpoolError(f"{path.name} is gone from the spool; send the object again") from error
