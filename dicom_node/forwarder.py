"""Delivers what is ready: per destination its own threads, its own associations, its own patience.

Rules that bind here:
1. Destinations share nothing but the ledger: one that is slow, silent or gone never holds up another.
2. A destination that does not answer is probed with one object at a time; what was claimed with it goes back.
3. Every attempt ends in the ledger: delivered, to be tried again at a time, or given up with a reason.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable

from dicom_node import log
from dicom_node.config import Config, Destination
from dicom_node.dimse.store import Sender, patience_s
from dicom_node.errors import LedgerError, NodeError, PeerError
from dicom_node.jobs import Send
from dicom_node.ledger import Ledger
from dicom_node.retry import Decision, Done, GiveUp, RetryAt, decide
from dicom_node.spool import Spool

_LOG = logging.getLogger(__name__)

BATCH = 16
LEASE_S = 300.0
#: an association without work is released after this many seconds; many a peer serves one at a time
IDLE_CLOSE_S = 2.0
#: nobody rings when a retry falls due, so lanes also look by themselves this often, seconds
POLL_S = 1.0
#: pause after a fault of the node itself, seconds
_FAULT_PAUSE_S = 5.0

Rest = Callable[[str, float], object]


class Forwarder:
    """All lanes to all destinations.

    Parameters
    ----------
    config : the destinations
    spool, ledger : what to deliver
    rest : waits until somebody rings for a destination, at most so many seconds
    wake : ends every `rest` for a destination at once
    """

    def __init__(
        self, config: Config, spool: Spool, ledger: Ledger, *, rest: Rest, wake: Callable[[str], object]
    ) -> None:
        self._wake = wake
        self._lanes = [
            _Lane(name, destination, config.node.ae_title, spool, ledger, rest)
            for name, destination in config.destinations.items()
            for _ in range(destination.associations)
        ]

    @property
    def alive(self) -> bool:
        """Whether every lane is running."""
        return all(lane.is_alive() for lane in self._lanes)

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
        for lane in self._lanes:
            if lane.is_alive():
                lane.sender.abort()
                lane.join(1.0)


class _Lane(threading.Thread):
    """One association to one destination, and the thread that keeps it busy."""

    def __init__(
        self, name: str, destination: Destination, calling_ae: str, spool: Spool, ledger: Ledger, rest: Rest
    ) -> None:
        super().__init__(name=f"forward-{name}", daemon=True)
        self.destination_name = name
        self.sender = Sender(name, destination, calling_ae)
        self.stopping = threading.Event()
        self._destination = destination
        self._spool = spool
        self._ledger = ledger
        self._rest = rest
        self._rng = random.Random()  # noqa: S311 - spreads retries, keeps no secret
        self._pause_s = 0.0
        self._last_used = time.monotonic()

    def run(self) -> None:
        """Claim, send, record, rest; until told to stop."""
        while not self.stopping.is_set():
            try:
                self._turn()
            except Exception as error:
                log.event(_LOG, "forwarder-fault", level=logging.ERROR, error=error, destination=self.name)
                self._pause_s = _FAULT_PAUSE_S
            self.stopping.wait(self._pause_s)
            self._pause_s = 0.0
        self.sender.close()

    def _turn(self) -> None:
        claimed_at = time.monotonic()
        limit = BATCH if self.sender.connected else 1  # whoever does not answer holds up one object, not many
        sends = deque(self._ledger.claim_sends(self.destination_name, limit, LEASE_S))
        if not sends:
            self._idle()
        while sends and not self.stopping.is_set():
            if not self._deliver(sends.popleft(), claimed_at):
                break
        for untried in sends:
            self._ledger.put_back(untried)

    def _idle(self) -> None:
        if self.sender.connected and time.monotonic() - self._last_used > IDLE_CLOSE_S:
            self.sender.close()
        self._rest(self.destination_name, POLL_S)

    def _deliver(self, send: Send, claimed_at: float) -> bool:
        """Send one object and record what came of it; False when the destination itself does not answer."""
        started = time.monotonic()
        answer = self._attempt(send, claimed_at)
        self._last_used = time.monotonic()
        decision = decide(self._destination.retry, send.attempts, answer, time.time(), self._rng)
        self._record(send, decision)
        self._report(send, decision, answer, self._last_used - started)
        if isinstance(answer, PeerError) and answer.retryable and answer.status is None:
            self._pause_s = max(0.0, decision.at - time.time()) if isinstance(decision, RetryAt) else POLL_S
            return False
        return True

    def _attempt(self, send: Send, claimed_at: float) -> int | PeerError:
        """The status that the peer answered, or what happened instead."""
        try:
            path = self._spool.path(send.blob)
            needed_s = patience_s(self._destination, path)
            if time.monotonic() + 2 * needed_s > claimed_at + LEASE_S:
                self._ledger.beat_send(send, LEASE_S + 2 * needed_s)
            return self.sender.send(send, path)
        except PeerError as error:
            return error
        except LedgerError:
            raise
        except NodeError as error:
            # not the peer's fault, but for the object it means the same: it cannot be delivered as it is
            log.event(_LOG, "not-sendable", level=logging.ERROR, error=error, delivery=send.id)
            return PeerError(str(error), retryable=False)

    def _record(self, send: Send, decision: Decision) -> None:
        match decision:
            case Done(status=status):
                self._ledger.delivered(send, status, to_commit=self._destination.commitment)
            case RetryAt(at=at, reason=reason):
                self._ledger.retry(send, at, reason)
            case GiveUp(reason=reason):
                self._ledger.dead(send, reason)

    def _report(self, send: Send, decision: Decision, answer: int | PeerError, send_s: float) -> None:
        done = isinstance(decision, Done)
        log.event(
            _LOG,
            "delivered" if done else "dead-letter" if isinstance(decision, GiveUp) else "delivery-failed",
            level=logging.INFO if done else logging.WARNING,
            error=answer if isinstance(answer, PeerError) else None,
            delivery=send.id,
            uid=log.uid_hash(send.sop_instance_uid),
            destination=self.destination_name,
            status=None if isinstance(answer, PeerError) else f"{answer:04x}",
            attempts=send.attempts,
            retry_in_s=decision.at - time.time() if isinstance(decision, RetryAt) else None,
            send_s=send_s,
        )
