"""Bytes stay until their destination commits to them; every request ends and has its own Transaction UID."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
import sqlalchemy as sa

from dicom_node.commitment import Ask, Reference, Report, Settled
from dicom_node.jobs import DeliveryState
from dicom_node.ledger import Ledger, commitments
from dicom_node.ledger.dialects import Place
from dicom_node.metrics import CommitmentTally, QueueAge
from tests.ledgers import Clock, arrival, blob, delivery_state, outcome

CT = "1.2.840.10008.5.1.4.1.1.2"
_numbers = itertools.count(1)


def deliver(book: Ledger, uid: str = "1.1", *, content: str = "") -> None:
    """An instance that came as `uid`, delivered as `2.25.<uid>` to a destination that is to commit to it."""
    book.add(arrival(uid), blob(content or uid), 10)
    (claimed,) = book.claim_work("w", 1, 10.0)
    book.finish(claimed, outcome("pacs", uid=f"2.25.{uid}", content=f"out {content or uid}"))
    deliver_again(book)


def deliver_again(book: Ledger) -> None:
    (send,) = book.claim_sends("pacs", 1, 10.0)
    book.delivered(send, 0, to_commit=True)


def claim(book: Ledger, limit: int = 100, collect_s: float = 0.0) -> Ask | None:
    uid = f"2.25.999.{next(_numbers)}"
    return book.claim_ask("pacs", uid, limit, collect_s=collect_s, answer_s=60.0)


def ask(book: Ledger, limit: int = 100) -> Ask:
    """A request that the destination took."""
    made = claim(book, limit)
    assert made is not None
    book.ask_taken(made)
    return made


def report(book: Ledger, asked: Ask, answers: Mapping[str, int], refusals: int = 3) -> Settled | None:
    """The answer to a request, by the UIDs under which the instances came."""
    said = {Reference(CT, f"2.25.{uid}"): answer for uid, answer in answers.items()}
    return book.take_report(Report(asked.transaction_uid, said), refusals, lambda _name: lambda _n: 5.0)


def states(book: Ledger) -> dict[str, int]:
    return {tally.state: tally.count for tally in book.snapshot().commitments}


def needed(book: Ledger, content: str = "1.1") -> bool:
    return bool(book.needed([blob(f"out {content}")]))


def told(book: Ledger, uid: str = "1.1") -> list[str]:
    steps = [step for step in book.trace(uid) if "commit" in f"{step.what} {step.reason}"]
    return [f"{step.what} {step.reason}".strip() for step in steps]


def test_the_bytes_are_needed_until_the_destination_commits(book: Ledger) -> None:
    deliver(book)
    assert delivery_state(book) is DeliveryState.DELIVERED
    assert needed(book)
    asked = ask(book)
    assert asked.references == (Reference(CT, "2.25.1.1"),), "under the UID that it was sent with"
    assert needed(book)
    assert report(book, asked, {"1.1": 0}) == Settled("pacs", committed=1)
    assert not needed(book)
    assert states(book) == {"committed": 1}
    assert told(book) == ["commitment-asked", "committed"]


def test_a_delivery_that_nobody_is_to_commit_to_is_just_delivered(book: Ledger) -> None:
    book.add(arrival("1.1"), blob("1.1"), 10)
    (claimed,) = book.claim_work("w", 1, 10.0)
    book.finish(claimed, outcome("pacs", content="out 1.1"))
    book.delivered(book.claim_sends("pacs", 1, 10.0)[0], 0)
    assert claim(book) is None
    assert not needed(book)


def test_a_request_waits_for_more_until_it_is_full_or_old_enough(book: Ledger, clock: Clock) -> None:
    deliver(book, "1.1")
    assert claim(book, 2, collect_s=10.0) is None
    deliver(book, "1.2")
    full = claim(book, 2, collect_s=10.0)
    assert full is not None
    assert len(full.references) == 2
    deliver(book, "1.3")
    clock.now += 10.0
    old = claim(book, 2, collect_s=10.0)
    assert old is not None
    assert old.references == (Reference(CT, "2.25.1.3"),)
    assert claim(book, 2) is None


def test_a_destination_is_asked_for_its_own_deliveries_only(book: Ledger) -> None:
    deliver(book)
    assert book.claim_ask("vna", "2.25.5", 10, collect_s=0.0, answer_s=60.0) is None


def test_no_answer_in_time_makes_another_request(book: Ledger, clock: Clock) -> None:
    deliver(book)
    first = ask(book)
    assert book.expire_asks("pacs", lambda _n: 5.0) == 0
    clock.now += 60
    assert book.expire_asks("vna", lambda _n: 5.0) == 0
    assert book.expire_asks("pacs", lambda silences: 5.0 * silences) == 1
    assert claim(book) is None
    clock.now += 5
    second = ask(book)
    assert (first.attempts, second.attempts) == (1, 2)
    assert first.transaction_uid != second.transaction_uid
    assert delivery_state(book) is DeliveryState.DELIVERED
    assert told(book) == ["commitment-asked", "commitment-unanswered overdue", "commitment-asked"]


def test_a_late_yes_counts_and_a_late_no_does_not(book: Ledger, clock: Clock) -> None:
    deliver(book, "1.1")
    deliver(book, "1.2")
    late = ask(book)
    clock.now += 60
    book.expire_asks("pacs", lambda _n: 0.0)
    open_one = ask(book)
    assert report(book, late, {"1.1": 0, "1.2": 0x0112}) == Settled("pacs", committed=1)
    assert states(book) == {"asked": 1, "committed": 1}
    assert report(book, open_one, {"1.1": 0x0112, "1.2": 0}) == Settled("pacs", committed=1)
    assert states(book) == {"committed": 2}
    assert delivery_state(book) is DeliveryState.DELIVERED


def test_a_request_that_is_not_taken_is_made_again(book: Ledger, clock: Clock) -> None:
    deliver(book)
    failed = claim(book)
    assert failed is not None
    book.ask_failed(failed, lambda silences: 7.0 * silences)
    assert claim(book) is None
    clock.now += 7
    again = claim(book)
    assert again is not None
    assert again.attempts == 2


def test_the_answer_may_be_here_before_the_response(book: Ledger) -> None:
    deliver(book)
    quick = claim(book)
    assert quick is not None
    report(book, quick, {"1.1": 0})
    book.ask_taken(quick)
    book.ask_failed(quick, lambda _n: 0.0)
    assert states(book) == {"committed": 1}
    assert book.expire_asks("pacs", lambda _n: 0.0) == 0


def test_the_same_answer_again_changes_nothing(book: Ledger) -> None:
    deliver(book, "1.1")
    deliver(book, "1.2")
    asked = ask(book)
    report(book, asked, {"1.1": 0, "1.2": 0x0112})
    before = book.trace("1.1") + book.trace("1.2")
    assert report(book, asked, {"1.1": 0, "1.2": 0x0112}) == Settled("pacs")
    assert book.trace("1.1") + book.trace("1.2") == before


def test_an_answer_to_nothing(book: Ledger) -> None:
    assert book.take_report(Report("1.2.3", {}), 3, lambda _name: lambda _n: 0.0) is None


def test_what_the_destination_does_not_have_is_sent_again_then_given_up(book: Ledger, clock: Clock) -> None:
    deliver(book)
    for _ in range(2):
        assert report(book, ask(book), {"1.1": 0x0112}, refusals=2) == Settled("pacs", sent_again=1)
        assert delivery_state(book) is DeliveryState.QUEUED
        assert claim(book) is None, "it is asked for when it is there"
        deliver_again(book)
    assert report(book, ask(book), {"1.1": 0x0112}, refusals=2) == Settled("pacs", given_up=1)
    (letter,) = book.dead_letters()
    assert (letter.reason, states(book)) == ("commitment-0112", {"refused": 1})
    assert needed(book)
    book.requeue(letter.id)
    deliver_again(book)
    assert report(book, ask(book), {"1.1": 0x0112}, refusals=2) == Settled("pacs", sent_again=1)


def test_what_may_change_is_asked_for_again_and_not_sent(book: Ledger, clock: Clock) -> None:
    deliver(book)
    assert report(book, ask(book), {"1.1": 0x0213}) == Settled("pacs", asked_again=1)
    assert claim(book) is None
    clock.now += 5
    assert report(book, ask(book), {"1.1": 0}) == Settled("pacs", committed=1)
    assert told(book)[1] == "not-committed commitment-0213"


def test_what_is_left_out_of_an_answer_is_asked_for_again(book: Ledger) -> None:
    deliver(book)
    assert report(book, ask(book), {}) == Settled("pacs", asked_again=1)
    assert told(book)[-1] == "not-committed commitment-left-out"


def test_left_out_for_ever_is_given_up_as_every_other_refusal(book: Ledger, clock: Clock) -> None:
    deliver(book)
    for _ in range(2):
        report(book, ask(book), {}, refusals=2)
        clock.now += 5
    assert report(book, ask(book), {}, refusals=2) == Settled("pacs", given_up=1)
    assert delivery_state(book) is DeliveryState.DEAD


def test_two_contents_of_one_uid_are_one_question(book: Ledger) -> None:
    deliver(book, content="a")
    deliver(book, content="b")
    asked = ask(book)
    assert asked.references == (Reference(CT, "2.25.1.1"),)
    assert report(book, asked, {"1.1": 0}) == Settled("pacs", committed=2)


def test_a_crash_while_asking_asks_again_at_once_and_one_while_waiting_waits(
    book: Ledger, clock: Clock, place: Place
) -> None:
    deliver(book, "1.1")
    waiting = ask(book)
    deliver(book, "1.2")
    asking = claim(book)
    assert asking is not None
    book.close()
    again = Ledger(place, clock=clock)
    again.recover()
    fresh = claim(again)
    assert fresh is not None
    assert fresh.references == asking.references
    assert fresh.transaction_uid != asking.transaction_uid
    assert report(again, waiting, {"1.1": 0}) == Settled("pacs", committed=1)
    assert report(again, asking, {"1.2": 0}) == Settled("pacs", committed=1), "it had been taken after all"
    again.close()


def test_a_destination_that_is_not_asked_any_more(book: Ledger) -> None:
    deliver(book)
    asked = ask(book)
    assert book.waive_commitments({"pacs"}) == 0
    assert needed(book)
    assert book.waive_commitments(set()) == 1
    assert not needed(book)
    assert told(book)[-1] == "commitment-waived"
    assert report(book, asked, {"1.1": 0}) == Settled("pacs")


def test_very_many_are_let_go_some_at_a_time(book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commitments, "_BATCH", 2)
    for number in range(5):
        deliver(book, f"1.{number}")
    report(book, ask(book), dict.fromkeys(("1.0", "1.1"), 0))
    commits: list[object] = []
    sa.event.listen(book._engine, "commit", commits.append)
    assert book.waive_commitments(set()) == 3, "two are committed to, and owed no more"
    assert len(commits) == 3
    assert states(book) == {}


def test_ended_requests_are_forgotten_and_open_ones_are_not(book: Ledger, clock: Clock) -> None:
    deliver(book, "1.1")
    report(book, ask(book), {"1.1": 0})
    deliver(book, "1.2")
    open_one = ask(book)
    assert book.forget_asks(clock.now) == 0
    assert book.forget_asks(clock.now + 1) == 1
    assert report(book, open_one, {"1.2": 0}) == Settled("pacs", committed=1)
    assert states(book) == {"committed": 2}


def test_figures(book: Ledger, clock: Clock) -> None:
    deliver(book, "1.1")
    clock.now += 5
    deliver(book, "1.2")
    snapshot = book.snapshot()
    assert snapshot.commitments == (CommitmentTally("pacs", "wanted", 2),)
    assert snapshot.commitment_ages == (QueueAge("pacs", 5.0),)
    report(book, ask(book), {"1.1": 0, "1.2": 0})
    assert book.snapshot().commitment_ages == ()


def test_rows_are_purged_when_they_are_committed_and_not_before(book: Ledger, clock: Clock) -> None:
    deliver(book)
    asked = ask(book)
    clock.now += 100
    assert book.purge(clock.now).instances == 0
    report(book, asked, {"1.1": 0})
    clock.now += 1
    assert book.purge(clock.now).instances == 1
    assert states(book) == {}
    assert report(book, asked, {"1.1": 0}) == Settled("pacs")


def test_who_took_it_in_anothers_stead_is_asked(book: Ledger) -> None:
    book.add(arrival("1.1"), blob("1.1"), 10)
    (claimed,) = book.claim_work("w", 1, 10.0)
    book.finish(claimed, outcome("pacs", uid="2.25.1.1", content="out 1.1"))
    (send,) = book.claim_sends("pacs", 1, 10.0, via="vna")
    book.delivered(send, 0, via="vna", to_commit=True)
    assert claim(book) is None
    asked = book.claim_ask("vna", "2.25.998", 10, collect_s=0.0, answer_s=60.0)
    assert asked is not None
    assert report(book, asked, {"1.1": 0x0112}) == Settled("vna", sent_again=1)
    assert [again.destination for again in book.claim_sends("pacs", 1, 10.0)] == ["pacs"]


def test_what_another_takes_that_is_not_asked_is_owed_no_commitment(book: Ledger) -> None:
    """Else it would count as being under way for ever."""
    deliver(book)
    assert report(book, ask(book), {"1.1": 0x0112}) == Settled("pacs", sent_again=1)
    (send,) = book.claim_sends("pacs", 1, 10.0)
    book.delivered(send, 0, via="spare")
    assert states(book) == {}
    assert not needed(book)
