"""The states of an instance and of its deliveries, as tables.

Rules that bind here:
1. An instance or delivery is in exactly one state and moves only along its table.
2. Whoever moves it out of a leased state proves by (id, token) that the lease is still its own.
3. Every step may run twice with the same result: delivery is at least once.

An instance is what arrived (one C-STORE); a delivery is one instance for one destination.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from dicom_node.config import OnError, OnFinding, Route
from dicom_node.errors import IllegalTransition
from dicom_node.metrics import Reading


class InstanceState(enum.StrEnum):
    RECEIVED = "received"  #: bytes and row are on disk; waiting for a worker
    WORKING = "working"  #: leased by a worker
    READY = "ready"  #: its output is in the spool and its deliveries are queued
    HELD = "held"  #: policy keeps it here until an operator decides
    REJECTED = "rejected"  #: policy drops it; kept for the record
    QUARANTINED = "quarantined"  #: it killed its worker twice, or its bytes are gone or changed


class DeliveryState(enum.StrEnum):
    QUEUED = "queued"  #: waiting for `next_at`
    SENDING = "sending"  #: leased by a forwarder
    DELIVERED = "delivered"  #: the destination answered success or a warning
    DEAD = "dead"  #: given up, with a reason; an operator may requeue it
    DROPPED = "dropped"  #: an operator decided that it is never sent; kept for the record


INSTANCE_TRANSITIONS: dict[InstanceState, frozenset[InstanceState]] = {
    InstanceState.RECEIVED: frozenset(
        {
            InstanceState.WORKING,
            InstanceState.QUARANTINED,  # a start finds its bytes gone
        }
    ),
    InstanceState.WORKING: frozenset(
        {
            InstanceState.READY,
            InstanceState.HELD,
            InstanceState.REJECTED,
            InstanceState.QUARANTINED,
            InstanceState.RECEIVED,  # lease expired or a retryable error
        }
    ),
    InstanceState.READY: frozenset({InstanceState.RECEIVED}),  # what it was to send was lost on the disk
    InstanceState.HELD: frozenset(
        {InstanceState.RECEIVED, InstanceState.REJECTED, InstanceState.QUARANTINED}
    ),
    InstanceState.REJECTED: frozenset(),
    InstanceState.QUARANTINED: frozenset({InstanceState.RECEIVED, InstanceState.REJECTED}),
}

DELIVERY_TRANSITIONS: dict[DeliveryState, frozenset[DeliveryState]] = {
    DeliveryState.QUEUED: frozenset({DeliveryState.SENDING, DeliveryState.DEAD, DeliveryState.DROPPED}),
    DeliveryState.SENDING: frozenset({DeliveryState.DELIVERED, DeliveryState.QUEUED, DeliveryState.DEAD}),
    # back only for a destination that is asked for storage commitment and does not have it after all
    DeliveryState.DELIVERED: frozenset({DeliveryState.QUEUED, DeliveryState.DEAD}),
    DeliveryState.DEAD: frozenset({DeliveryState.QUEUED, DeliveryState.DROPPED}),
    DeliveryState.DROPPED: frozenset(),
}


def check_instance_move(before: InstanceState, after: InstanceState) -> None:
    """Raise IllegalTransition unless the table leads from `before` to `after`."""
    if after not in INSTANCE_TRANSITIONS[before]:
        raise IllegalTransition(f"an instance cannot move from {before} to {after}")


def check_delivery_move(before: DeliveryState, after: DeliveryState) -> None:
    """Raise IllegalTransition unless the table leads from `before` to `after`."""
    if after not in DELIVERY_TRANSITIONS[before]:
        raise IllegalTransition(f"a delivery cannot move from {before} to {after}")


#: findings that decide here what an operator is told; the others are `blessmark.types.Finding`'s too
AUTHENTIC, UNMARKED = "authentic", "unmarked"
#: result of an instance that goes on as it came because its route says so
PASSED = "passed"
#: in place of a finding: the object is of a kind that holds no watermark
NOT_JUDGED = "not-judged"
#: reason of a delivery whose bytes cannot be sent as they are in the spool: gone, or not what the row says
NOT_SENDABLE = "not-sendable"
#: reason of what failed by an error that nobody had thought of
UNEXPECTED = "unexpected-error"


@dataclass(frozen=True, slots=True)
class Arrival:
    """What the receiver knows of an object without decoding it."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae: str
    called_ae: str
    route: str


@dataclass(frozen=True, slots=True)
class Work:
    """An instance leased to a worker until `lease_until` under `token`."""

    id: int
    token: int
    attempts: int
    arrival: Arrival
    #: name of the spool file: SHA-256 of its bytes, hex
    blob: str
    #: when it arrived, seconds since 1970-01-01 UTC; doing the work again gives the same bytes
    received_at: float = 0.0
    #: bytes in that file
    size: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a worker made of an instance.

    `result` is a bounded word for counters (`protected`, `passed`, `held`, ...), `reason` a reason code
    (`no-pixel-data`, `palette-colour`, ...) and never free text; `blob` is the spool file to deliver.
    """

    state: InstanceState
    result: str
    reason: str = ""
    blob: str = ""
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    transfer_syntax_uid: str = ""
    destinations: tuple[str, ...] = ()
    #: bytes of `blob`, so that a start can tell whether they are all there; 0 is not known
    size: int = 0
    #: what a reader found, a bounded word that is counted by route; "" where nobody read
    finding: str = ""
    #: what is counted with it
    readings: tuple[Reading, ...] = ()

    @property
    def alarms(self) -> bool:
        """Whether a reader found what an operator should know of.

        An object without a watermark, where such are let through, is no news; nor one that can have none.
        """
        if self.finding in ("", AUTHENTIC):
            return False
        return self.finding not in (UNMARKED, NOT_JUDGED) or self.state is not InstanceState.READY


@dataclass(frozen=True, slots=True)
class Send:
    """A delivery leased to a forwarder until its lease ends under `token`."""

    id: int
    token: int
    attempts: int
    destination: str
    blob: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    #: how often its destination refused this very object
    refusals: int = 0
    #: the instance, when it arrived and was ready to be sent (seconds since 1970-01-01 UTC), and its bytes
    job: int = 0
    received_at: float = 0.0
    queued_at: float = 0.0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Receipt:
    """That a destination, or `via` in its stead, answered a delivery with success or a warning.

    `to_commit`: who took it is to be asked for storage commitment, and the bytes stay until it gives it.
    `readings` are counted with it.
    """

    send: Send
    status: int
    via: str = ""
    to_commit: bool = False
    readings: tuple[Reading, ...] = ()


def passed(work: Work, route: Route, result: str, reason: str = "") -> Outcome:
    """The outcome that hands an instance on exactly as it came."""
    return Outcome(
        InstanceState.READY,
        result,
        reason,
        work.blob,
        work.arrival.sop_class_uid,
        work.arrival.sop_instance_uid,
        work.arrival.transfer_syntax_uid,
        route.destinations,
        work.size,
    )


def failed(work: Work, route: Route | None, reason: str) -> Outcome:
    """The outcome of an instance that could not be processed, as its route wants it; hold without a route."""
    policy = OnError.HOLD if route is None else route.on_error
    if route is not None and policy is OnError.PASS:
        return passed(work, route, "passed-on-error", reason)
    if policy is OnError.REJECT:
        return Outcome(InstanceState.REJECTED, "rejected", reason)
    return Outcome(InstanceState.HELD, "held", reason)


def judged(work: Work, route: Route, finding: str) -> Outcome:
    """The outcome of an instance that a reader did not find authentic, as its route wants it."""
    policy = route.on(finding)
    if policy is OnFinding.PASS:
        outcome = passed(work, route, "passed-on-finding", finding)
    elif policy is OnFinding.REJECT:
        outcome = Outcome(InstanceState.REJECTED, "rejected", finding)
    else:
        outcome = Outcome(InstanceState.HELD, "held", finding)
    return replace(outcome, finding=finding)
