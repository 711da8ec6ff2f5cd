"""Storage commitment (PS3.4 annex J) as decisions; pure: what may be promised, and what an answer means.

A *promise* is what a peer asks of this node: are these instances safe? A *commitment* is what this node asks
of a destination, before it lets go of the bytes.

Rules that bind here:
1. A promise is made for what came, under the UID that it came with, and only if everything that came under
   this UID is safe: a false "no" costs a sender some disk, a false "yes" an image.
2. An answer waits for what the node will finish by itself, and for nothing else. What only a person can move
   (held, quarantined, given up) is refused at once; the peer may ask again.
3. A request gets one answer, decided once and kept: a repeated attempt to deliver it says the same.
4. A commitment moves only along `COMMITMENT_TRANSITIONS`; until it is committed the bytes stay here.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dicom_node.config import Promise
from dicom_node.errors import IllegalTransition
from dicom_node.jobs import DeliveryState, InstanceState


class Answer(enum.IntEnum):
    """What is said of one instance: committed, or why not (Failure Reason, PS3.3 section C.14.1.1)."""

    COMMITTED = 0x0000
    PROCESSING_FAILURE = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    CLASS_CONFLICT = 0x0119
    CLASS_NOT_SUPPORTED = 0x0122
    DUPLICATE_TRANSACTION = 0x0131
    RESOURCE_LIMITATION = 0x0213


@dataclass(frozen=True, slots=True)
class Reference:
    """An instance as peers name it."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a transaction came to: every instance with its Answer, or with a peer's own failure reason."""

    transaction_uid: str
    answers: Mapping[Reference, int]

    @property
    def failures(self) -> int:
        """How many instances are not committed."""
        return sum(answer != Answer.COMMITTED for answer in self.answers.values())


# ---- what peers ask of this node ----


@dataclass(frozen=True, slots=True)
class Request:
    """An N-ACTION: `peer` is the AE title to answer to, `called_ae` the one it knows this node by."""

    transaction_uid: str
    peer: str
    called_ae: str
    references: tuple[Reference, ...]


class PromiseState(enum.StrEnum):
    """Where the answer to a request stands."""

    WAITING = "waiting"  #: some of its instances are under way
    DECIDED = "decided"  #: the answer is kept, and to be delivered from `next_at` on
    REPORTED = "reported"  #: the peer took the answer
    UNREPORTED = "unreported"  #: the peer could not be given the answer; it will ask again


PROMISE_TRANSITIONS: Mapping[PromiseState, frozenset[PromiseState]] = {
    PromiseState.WAITING: frozenset({PromiseState.DECIDED}),
    PromiseState.DECIDED: frozenset({PromiseState.REPORTED, PromiseState.UNREPORTED}),
    PromiseState.REPORTED: frozenset(),
    PromiseState.UNREPORTED: frozenset(),
}


class Taken(enum.StrEnum):
    """What a request is to the node."""

    NEW = "new"
    REPEATED = "repeated"  #: the same request once more, while its answer is still to come
    DUPLICATE = "duplicate"  #: another request, or an answered one, under a Transaction UID that is used up


def taken(before: tuple[PromiseState, frozenset[Reference]] | None, request: Request) -> Taken:
    """What a request is, given what came from its peer under its Transaction UID before.

    A peer that lost our response sends its request again; it gets the same response and one answer. After the
    answer "the Transaction UID is no longer active and shall not be reused" (PS3.4 section J.3.3.1.2).
    """
    if before is None:
        return Taken.NEW
    state, references = before
    active = state in (PromiseState.WAITING, PromiseState.DECIDED)
    return Taken.REPEATED if active and references == set(request.references) else Taken.DUPLICATE


@dataclass(frozen=True, slots=True)
class Due:
    """An answer that is to be delivered: attempt number `attempts` (from 1), after so many refusals."""

    id: int
    peer: str
    called_ae: str
    attempts: int
    report: Report
    refusals: int = 0


def result(report: Report) -> str:
    """A bounded word for what a transaction came to."""
    if not report.failures:
        return "committed"
    return "refused" if report.failures == len(report.answers) else "partly"


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where one delivery of an instance stands; `commitment` is None where the destination is not asked."""

    destination: str
    state: DeliveryState
    commitment: CommitmentState | None = None
    #: given up because its bytes are gone or changed
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Holding:
    """An instance that is, or was, here under a UID that a peer asks about."""

    sop_class_uid: str
    state: InstanceState
    route: str
    deliveries: tuple[Delivery, ...] = ()
    #: quarantined because its bytes are gone or changed
    lost: bool = False


class Standing(enum.IntEnum):
    """How safe something is; the least safe part decides for the whole."""

    LOST = 0  #: it goes nowhere, or not without a person
    UNDER_WAY = 1  #: the node will finish it by itself
    SAFE = 2


#: None: its deliveries decide
INSTANCE_STANDING: Mapping[InstanceState, Standing | None] = {
    InstanceState.RECEIVED: Standing.UNDER_WAY,
    InstanceState.WORKING: Standing.UNDER_WAY,
    InstanceState.READY: None,
    InstanceState.HELD: Standing.LOST,
    InstanceState.QUARANTINED: Standing.LOST,
    InstanceState.REJECTED: Standing.LOST,
}

#: None: the commitment of the destination decides, where it is asked for one
DELIVERY_STANDING: Mapping[DeliveryState, Standing | None] = {
    DeliveryState.QUEUED: Standing.UNDER_WAY,
    DeliveryState.SENDING: Standing.UNDER_WAY,
    DeliveryState.DELIVERED: None,
    DeliveryState.DEAD: Standing.LOST,
    DeliveryState.DROPPED: Standing.LOST,
}


class CommitmentState(enum.StrEnum):
    """Where the commitment of a destination to one delivery stands."""

    WANTED = "wanted"  #: delivered; to be asked for from `next_at` on
    ASKED = "asked"  #: part of a request whose answer is awaited
    COMMITTED = "committed"  #: the destination answers for it
    RESENDING = "resending"  #: it does not have it; the delivery is queued again
    REFUSED = "refused"  #: given up: the delivery is a dead letter


COMMITMENT_TRANSITIONS: Mapping[CommitmentState, frozenset[CommitmentState]] = {
    CommitmentState.WANTED: frozenset(
        {CommitmentState.ASKED, CommitmentState.COMMITTED}  # committed: a late answer to an earlier request
    ),
    CommitmentState.ASKED: frozenset(
        {
            CommitmentState.COMMITTED,
            CommitmentState.WANTED,  # no answer, or one that may change
            CommitmentState.RESENDING,
            CommitmentState.REFUSED,
        }
    ),
    CommitmentState.COMMITTED: frozenset({CommitmentState.WANTED}),  # delivered once more, by a person
    CommitmentState.RESENDING: frozenset({CommitmentState.WANTED}),
    CommitmentState.REFUSED: frozenset({CommitmentState.WANTED}),  # requeued by a person, and delivered
}

COMMITMENT_STANDING: Mapping[CommitmentState, Standing] = {
    CommitmentState.WANTED: Standing.UNDER_WAY,
    CommitmentState.ASKED: Standing.UNDER_WAY,
    CommitmentState.COMMITTED: Standing.SAFE,
    CommitmentState.RESENDING: Standing.UNDER_WAY,
    CommitmentState.REFUSED: Standing.LOST,
}


def check_commitment_move(before: CommitmentState, after: CommitmentState) -> None:
    """Raise IllegalTransition unless the table leads from `before` to `after`."""
    if after not in COMMITMENT_TRANSITIONS[before]:
        raise IllegalTransition(f"a commitment cannot move from {before} to {after}")


@dataclass(frozen=True, slots=True)
class Judge:
    """Answers for single instances, by the policy of this node.

    Parameters
    ----------
    promise : what counts as safe
    is_mandatory : whether an instance is not safe before a destination has it
    goes_somewhere : whether a route sends its instances to any mandatory destination
    """

    promise: Promise
    is_mandatory: Callable[[str], bool]
    goes_somewhere: Callable[[str], bool]

    def answer(self, reference: Reference, holdings: Sequence[Holding]) -> Answer | None:
        """What can be said of an instance, given all that came under its UID; None while it is under way."""
        if not holdings:
            return Answer.NO_SUCH_INSTANCE
        same_class = [held for held in holdings if held.sop_class_uid == reference.sop_class_uid]
        if not same_class:
            return Answer.CLASS_CONFLICT
        standing = min(self.standing(held) for held in same_class)
        if standing is Standing.UNDER_WAY:
            return None
        return Answer.COMMITTED if standing is Standing.SAFE else Answer.PROCESSING_FAILURE

    def standing(self, holding: Holding) -> Standing:
        """How safe one instance is."""
        if self.promise is Promise.SPOOLED:
            return self._standing_here(holding)
        standing = INSTANCE_STANDING[holding.state]
        return self._standing_there(holding) if standing is None else standing

    def _standing_here(self, holding: Holding) -> Standing:
        """Its bytes are here until they are everywhere else; unless a disk lost them, or not all get them."""
        if holding.state is InstanceState.READY:
            mandatory = self._mandatory(holding)
            kept = bool(mandatory) and not any(
                one.lost or one.state is DeliveryState.DROPPED for one in mandatory
            )
        else:
            kept = holding.state is not InstanceState.REJECTED and self.goes_somewhere(holding.route)
        return Standing.SAFE if kept and not holding.lost else Standing.LOST

    def _standing_there(self, holding: Holding) -> Standing:
        return min(map(_delivered, self._mandatory(holding)), default=Standing.LOST)

    def _mandatory(self, holding: Holding) -> list[Delivery]:
        return [found for found in holding.deliveries if self.is_mandatory(found.destination)]


def _delivered(delivery: Delivery) -> Standing:
    standing = DELIVERY_STANDING[delivery.state]
    if standing is not None:
        return standing
    return Standing.SAFE if delivery.commitment is None else COMMITMENT_STANDING[delivery.commitment]


# ---- what this node asks of destinations ----


class AskState(enum.StrEnum):
    """Where a request to a destination stands."""

    ASKING = "asking"  #: on its way; the destination has not said that it took it
    ASKED = "asked"  #: taken; the answer is awaited
    ANSWERED = "answered"
    FAILED = "failed"  #: not taken, or the node stopped before it knew
    OVERDUE = "overdue"  #: taken, and not answered in time


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to a destination: attempt number `attempts` (from 1) for the instance that has most."""

    id: int
    destination: str
    transaction_uid: str
    references: tuple[Reference, ...]
    attempts: int


@dataclass(frozen=True, slots=True)
class Settled:
    """What an answer of a destination changed: how many instances went which way."""

    destination: str
    committed: int = 0
    asked_again: int = 0
    sent_again: int = 0
    given_up: int = 0


class Step(enum.StrEnum):
    """What follows the answer to one instance."""

    DONE = "done"
    ASK_AGAIN = "ask-again"  #: it may change
    SEND_AGAIN = "send-again"  #: the destination does not have it
    GIVE_UP = "give-up"  #: neither would help


#: by failure reason; what is not here is taken for "does not have it", which costs least to be wrong about
STEPS: Mapping[int, Step] = {
    Answer.COMMITTED: Step.DONE,
    Answer.PROCESSING_FAILURE: Step.ASK_AGAIN,
    Answer.RESOURCE_LIMITATION: Step.ASK_AGAIN,
    Answer.DUPLICATE_TRANSACTION: Step.ASK_AGAIN,
    Answer.NO_SUCH_INSTANCE: Step.SEND_AGAIN,
    Answer.CLASS_CONFLICT: Step.GIVE_UP,
    Answer.CLASS_NOT_SUPPORTED: Step.GIVE_UP,
}


def step(answer: int, refusals: int, limit: int) -> Step:
    """What follows an answer, the `refusals`-th that is not yes (from 1); `limit` of them are put up with."""
    following = STEPS.get(answer, Step.SEND_AGAIN)
    if following in (Step.ASK_AGAIN, Step.SEND_AGAIN) and refusals > limit:
        return Step.GIVE_UP
    return following


def reason(answer: int) -> str:
    """The bounded word for the ledger: failure reasons are 16 bits, and few of them are in use."""
    return f"commitment-{answer:04x}"
