"""What may be promised, and what an answer means: every row of the tables."""

from __future__ import annotations

import itertools

import pytest

from dicom_node import commitment
from dicom_node.commitment import (
    COMMITMENT_TRANSITIONS,
    DELIVERY_STANDING,
    INSTANCE_STANDING,
    PROMISE_TRANSITIONS,
    Answer,
    CommitmentState,
    Delivery,
    Holding,
    Judge,
    PromiseState,
    Reference,
    Report,
    Request,
    Step,
    Taken,
    result,
    step,
    taken,
)
from dicom_node.config import Promise
from dicom_node.errors import IllegalTransition
from dicom_node.jobs import DeliveryState, InstanceState

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
ASKED_ABOUT = Reference(CT, "1.2.3")
UNDER_WAY = None


def judge(promise: Promise = Promise.DELIVERED) -> Judge:
    """ "spare" is an optional destination, "nowhere" a route that leads to none that counts."""
    return Judge(promise, lambda name: name != "spare", lambda route: route != "nowhere")


def holding(
    *deliveries: Delivery, state: InstanceState = InstanceState.READY, route: str = "all", of: str = CT
) -> Holding:
    return Holding(of, state, route, deliveries)


def sent(
    state: DeliveryState = DeliveryState.DELIVERED,
    commitment: CommitmentState | None = None,
    to: str = "pacs",
) -> Delivery:
    return Delivery(to, state, commitment)


# ---- promises ----


def test_every_state_has_its_standing() -> None:
    assert set(INSTANCE_STANDING) == set(InstanceState)
    assert set(DELIVERY_STANDING) == set(DeliveryState)
    assert set(commitment.COMMITMENT_STANDING) == set(CommitmentState)


@pytest.mark.parametrize(
    ("state", "delivered", "spooled"),
    [
        (InstanceState.RECEIVED, UNDER_WAY, Answer.COMMITTED),
        (InstanceState.WORKING, UNDER_WAY, Answer.COMMITTED),
        (InstanceState.HELD, Answer.PROCESSING_FAILURE, Answer.COMMITTED),
        (InstanceState.QUARANTINED, Answer.PROCESSING_FAILURE, Answer.COMMITTED),
        (InstanceState.REJECTED, Answer.PROCESSING_FAILURE, Answer.PROCESSING_FAILURE),
    ],
)
def test_an_instance_that_is_not_ready(
    state: InstanceState, delivered: Answer | None, spooled: Answer | None
) -> None:
    held = [holding(state=state)]
    assert judge().answer(ASKED_ABOUT, held) == delivered
    assert judge(Promise.SPOOLED).answer(ASKED_ABOUT, held) == spooled


@pytest.mark.parametrize(
    ("state", "commitment", "answer"),
    [
        (DeliveryState.QUEUED, None, UNDER_WAY),
        (DeliveryState.SENDING, None, UNDER_WAY),
        (DeliveryState.DEAD, None, Answer.PROCESSING_FAILURE),
        (DeliveryState.DELIVERED, None, Answer.COMMITTED),
        (DeliveryState.DELIVERED, CommitmentState.WANTED, UNDER_WAY),
        (DeliveryState.DELIVERED, CommitmentState.ASKED, UNDER_WAY),
        (DeliveryState.DELIVERED, CommitmentState.COMMITTED, Answer.COMMITTED),
        (DeliveryState.QUEUED, CommitmentState.RESENDING, UNDER_WAY),
        (DeliveryState.DEAD, CommitmentState.REFUSED, Answer.PROCESSING_FAILURE),
    ],
)
def test_a_ready_instance_is_as_safe_as_its_delivery(
    state: DeliveryState, commitment: CommitmentState | None, answer: Answer | None
) -> None:
    held = [holding(sent(state, commitment))]
    assert judge().answer(ASKED_ABOUT, held) == answer
    assert judge(Promise.SPOOLED).answer(ASKED_ABOUT, held) == Answer.COMMITTED


def test_every_mandatory_destination_counts_and_no_optional_one() -> None:
    pending = sent(DeliveryState.QUEUED, to="vna")
    assert judge().answer(ASKED_ABOUT, [holding(sent(), pending)]) is UNDER_WAY
    assert judge().answer(ASKED_ABOUT, [holding(sent(), sent(DeliveryState.DEAD, to="spare"))]) == 0
    assert judge().answer(ASKED_ABOUT, [holding(sent(), sent(DeliveryState.DEAD, to="vna"))]) == 0x0110


def test_what_goes_nowhere_is_never_promised() -> None:
    """Its bytes go when `storage.keep_s` has passed."""
    for promise in Promise:
        assert judge(promise).answer(ASKED_ABOUT, [holding()]) == Answer.PROCESSING_FAILURE
        assert judge(promise).answer(ASKED_ABOUT, [holding(sent(to="spare"))]) == Answer.PROCESSING_FAILURE
    arrived = holding(state=InstanceState.RECEIVED, route="nowhere")
    assert judge(Promise.SPOOLED).answer(ASKED_ABOUT, [arrived]) == Answer.PROCESSING_FAILURE


def test_what_a_person_dropped_is_not_promised() -> None:
    """Nobody will get it, and so its bytes will go."""
    for promise in Promise:
        dropped = holding(sent(), sent(DeliveryState.DROPPED, to="vna"))
        assert judge(promise).answer(ASKED_ABOUT, [dropped]) == Answer.PROCESSING_FAILURE


def test_unknown_and_mistaken_instances() -> None:
    assert judge().answer(ASKED_ABOUT, []) == Answer.NO_SUCH_INSTANCE
    assert judge().answer(ASKED_ABOUT, [holding(sent(), of=MR)]) == Answer.CLASS_CONFLICT
    assert judge().answer(ASKED_ABOUT, [holding(sent(DeliveryState.DEAD), of=MR), holding(sent())]) == 0


def test_everything_that_came_under_the_uid_must_be_safe() -> None:
    """The same UID with other content: nobody can tell which of the two the peer means."""
    safe, lost = holding(sent()), holding(sent(DeliveryState.DEAD))
    pending = holding(state=InstanceState.RECEIVED)
    assert judge().answer(ASKED_ABOUT, [safe, safe]) == Answer.COMMITTED
    assert judge().answer(ASKED_ABOUT, [safe, pending]) is UNDER_WAY
    assert judge().answer(ASKED_ABOUT, [pending, lost]) == Answer.PROCESSING_FAILURE


def request(*uids: str, transaction: str = "2.25.1") -> Request:
    return Request(transaction, "CT1", "NODE", tuple(Reference(CT, uid) for uid in uids))


@pytest.mark.parametrize(
    ("state", "same", "other"),
    [
        (PromiseState.WAITING, Taken.REPEATED, Taken.DUPLICATE),
        (PromiseState.DECIDED, Taken.REPEATED, Taken.DUPLICATE),
        (PromiseState.REPORTED, Taken.DUPLICATE, Taken.DUPLICATE),
        (PromiseState.UNREPORTED, Taken.DUPLICATE, Taken.DUPLICATE),
    ],
)
def test_a_transaction_uid_is_used_once(state: PromiseState, same: Taken, other: Taken) -> None:
    before = (state, frozenset(request("1.1", "1.2").references))
    assert taken(None, request("1.1")) is Taken.NEW
    assert taken(before, request("1.2", "1.1")) is same
    assert taken(before, request("1.1")) is other


def test_the_word_for_a_result() -> None:
    yes, no = Reference(CT, "1.1"), Reference(CT, "1.2")
    assert result(Report("2.25.1", {yes: 0})) == "committed"
    assert result(Report("2.25.1", {yes: 0, no: 0x0112})) == "partly"
    assert result(Report("2.25.1", {no: 0x0112})) == "refused"


# ---- commitments ----


@pytest.mark.parametrize(
    ("answer", "following"),
    [
        (0x0000, Step.DONE),
        (0x0110, Step.ASK_AGAIN),
        (0x0112, Step.SEND_AGAIN),
        (0x0119, Step.GIVE_UP),
        (0x0122, Step.GIVE_UP),
        (0x0131, Step.ASK_AGAIN),
        (0x0213, Step.ASK_AGAIN),
        (0xC123, Step.SEND_AGAIN),
    ],
)
def test_what_follows_an_answer(answer: int, following: Step) -> None:
    assert step(answer, 1, 3) is following
    assert step(answer, 3, 3) is following
    assert step(answer, 4, 3) is (Step.DONE if answer == 0 else Step.GIVE_UP)


def test_every_answer_has_its_step() -> None:
    assert set(commitment.STEPS) == {int(answer) for answer in Answer}


def test_reasons_are_bounded_words() -> None:
    assert commitment.reason(0x0112) == "commitment-0112"


@pytest.mark.parametrize(("before", "after"), list(itertools.product(CommitmentState, repeat=2)))
def test_a_commitment_moves_along_its_table_only(before: CommitmentState, after: CommitmentState) -> None:
    if after in COMMITMENT_TRANSITIONS[before]:
        commitment.check_commitment_move(before, after)
    else:
        with pytest.raises(IllegalTransition, match=f"from {before} to {after}"):
            commitment.check_commitment_move(before, after)


def test_every_state_is_reached_and_an_answer_is_final() -> None:
    assert set(COMMITMENT_TRANSITIONS) == set(CommitmentState)
    assert set().union(*COMMITMENT_TRANSITIONS.values()) == set(CommitmentState)
    assert set(PROMISE_TRANSITIONS) == set(PromiseState)
    assert not PROMISE_TRANSITIONS[PromiseState.REPORTED]
    assert PromiseState.WAITING not in set().union(*PROMISE_TRANSITIONS.values())
