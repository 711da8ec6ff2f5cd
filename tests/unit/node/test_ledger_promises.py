"""A request is kept before it is acknowledged, decided once, and answered with what was decided."""

from __future__ import annotations

import itertools

from dicom_node.commitment import Judge, Reference, Request, Taken
from dicom_node.config import Promise
from dicom_node.jobs import InstanceState, Outcome
from dicom_node.ledger import Ledger
from dicom_node.ledger.dialects import Place
from dicom_node.metrics import PromiseTally
from tests.ledgers import Clock, arrival, blob, outcome, work

CT = "1.2.840.10008.5.1.4.1.1.2"
JUDGE = Judge(Promise.DELIVERED, lambda _name: True, lambda _route: True)


def request(*uids: str, transaction: str = "2.25.1", peer: str = "CT1") -> Request:
    return Request(transaction, peer, "NODE", tuple(Reference(CT, uid) for uid in uids))


def deliver(book: Ledger, uid: str, *, content: str = "") -> None:
    """An instance that came under `uid` and is at its only destination, under another UID."""
    book.add(arrival(uid), blob(content or uid), 10)
    (claimed,) = book.claim_work("w", 1, 10.0)
    book.finish(claimed, outcome("pacs", uid=f"2.25.{uid}"))
    book.delivered(book.claim_sends("pacs", 1, 10.0)[0], 0)


def decide(book: Ledger, clock: Clock, seconds: float = 2.0) -> list[dict[str, int]]:
    """What is decided after so many seconds, by UID."""
    clock.now += seconds
    return [
        {reference.sop_instance_uid: answer for reference, answer in report.answers.items()}
        for report in book.decide_promises(JUDGE, 10)
    ]


def test_a_request_is_decided_by_what_came_under_its_uids(book: Ledger, clock: Clock) -> None:
    deliver(book, "1.1")
    assert book.take_request(request("1.1", "1.9", "2.25.1.1"), 60.0) is Taken.NEW
    assert decide(book, clock) == [{"1.1": 0x0000, "1.9": 0x0112, "2.25.1.1": 0x0112}]
    assert decide(book, clock) == [], "once"


def test_not_before_its_response_is_out(book: Ledger, clock: Clock) -> None:
    book.take_request(request("1.9"), 60.0)
    assert decide(book, clock, 0.5) == []
    assert decide(book, clock, 0.5) == [{"1.9": 0x0112}]


def test_it_waits_until_everything_is_decided_or_its_time_is_up(book: Ledger, clock: Clock) -> None:
    deliver(book, "1.1")
    claimed = work(book, "1.2")
    book.take_request(request("1.1", "1.2"), 60.0)
    book.take_request(request("1.2", transaction="2.25.2"), 30.0)
    assert decide(book, clock) == []
    assert decide(book, clock, 30.0) == [{"1.2": 0x0110}]
    book.finish(claimed, outcome("pacs", uid="2.25.2"))
    assert decide(book, clock, 5.0) == []
    book.delivered(book.claim_sends("pacs", 1, 10.0)[0], 0)
    assert decide(book, clock, 5.0) == [{"1.1": 0, "1.2": 0}]


def test_a_look_at_a_request_is_the_rarer_the_older_it_is(book: Ledger, clock: Clock) -> None:
    looked: list[float] = []

    def note(_destination: str) -> bool:
        looked.append(clock.now)
        return True

    book.finish(work(book, "1.1"), outcome("pacs"))
    book.take_request(request("1.1"), 7200.0)
    began = clock.now
    for _ in range(7200):
        clock.now += 1.0
        book.decide_promises(Judge(Promise.DELIVERED, note, lambda _route: True), 10)
    pauses = [after - before for before, after in itertools.pairwise([began, *looked])]
    assert pauses[:3] == [1.0, 1.0, 1.0]
    assert max(pauses) == 60.0
    assert len(looked) < 200
    assert looked[-1] == began + 7200, "the last one is when its time is up"


def test_a_request_and_its_answer_survive_a_crash(book: Ledger, clock: Clock, place: Place) -> None:
    book.take_request(request("1.1", "1.2"), 60.0)
    book.close()
    again = Ledger(place, clock=clock)
    assert again.take_request(request("1.1", "1.2"), 60.0) is Taken.REPEATED
    assert len(decide(again, clock)) == 1
    again.close()
    last = Ledger(place, clock=clock)
    deliver(last, "1.1")
    (due,) = last.due_reports((), 10)
    assert dict(due.report.answers) == {Reference(CT, "1.1"): 0x0112, Reference(CT, "1.2"): 0x0112}
    assert (due.peer, due.called_ae, due.attempts) == ("CT1", "NODE", 1)
    last.close()


def test_an_answer_is_given_until_it_is_taken(book: Ledger, clock: Clock) -> None:
    book.take_request(request("1.1"), 60.0)
    decide(book, clock)
    (due,) = book.due_reports((), 10)
    book.report_later(due, clock.now + 10, "no-answer")
    assert book.due_reports((), 10) == []
    clock.now += 10
    (second,) = book.due_reports((), 10)
    assert (second.id, second.attempts, second.report) == (due.id, 2, due.report)
    book.reported(second)
    clock.now += 10000
    assert book.due_reports((), 10) == []
    book.reported(due)
    assert book.snapshot().promises == (PromiseTally("reported", "refused", 1),)


def test_one_answer_at_a_time_for_each_peer(book: Ledger, clock: Clock) -> None:
    for number, peer in enumerate(("CT1", "CT1", "MR1")):
        book.take_request(request("1.1", transaction=f"2.25.{number}", peer=peer), 60.0)
    decide(book, clock)
    first, other = book.due_reports((), 10)
    assert (first.peer, first.report.transaction_uid, other.peer) == ("CT1", "2.25.0", "MR1")
    assert [due.peer for due in book.due_reports({"CT1"}, 10)] == ["MR1"]
    assert len(book.due_reports((), 1)) == 1
    book.give_report_up(first, "refused")
    assert [due.report.transaction_uid for due in book.due_reports((), 10)] == ["2.25.1", "2.25.2"]


def test_two_peers_may_use_the_same_transaction_uid(book: Ledger) -> None:
    assert book.take_request(request("1.1", peer="CT1"), 60.0) is Taken.NEW
    assert book.take_request(request("1.1", peer="CT2"), 60.0) is Taken.NEW
    assert book.take_request(request("1.2", peer="CT2"), 60.0) is Taken.DUPLICATE


def test_an_answered_transaction_uid_is_used_up_until_it_is_forgotten(book: Ledger, clock: Clock) -> None:
    book.take_request(request("1.1"), 60.0)
    assert book.forget_promises(clock.now + 1) == 0, "it has not ended"
    decide(book, clock)
    book.reported(book.due_reports((), 1)[0])
    assert book.take_request(request("1.1"), 60.0) is Taken.DUPLICATE
    assert book.forget_promises(clock.now - 10) == 0
    assert book.forget_promises(clock.now + 1) == 1
    assert book.take_request(request("1.1"), 60.0) is Taken.NEW


def test_what_was_asked_and_answered_is_told_of_each_instance(book: Ledger, clock: Clock) -> None:
    deliver(book, "1.1")
    book.finish(work(book, "1.2"), Outcome(InstanceState.HELD, "held", "no-room"))
    book.take_request(request("1.1", "1.2"), 60.0)
    decide(book, clock)
    book.reported(book.due_reports((), 1)[0])

    def told(uid: str) -> list[tuple[str, str]]:
        return [(step.what, step.reason) for step in book.trace(uid)][-3:]

    assert told("1.1") == [
        ("promise-asked", ""),
        ("promised", ""),
        ("promise-reported", ""),
    ]
    assert told("1.2")[1] == ("not-promised", "commitment-0110")


def test_figures(book: Ledger, clock: Clock) -> None:
    assert book.snapshot().oldest_promise_s == 0.0
    book.take_request(request("1.1"), 60.0)
    clock.now += 5
    snapshot = book.snapshot()
    assert snapshot.promises == (PromiseTally("waiting", "", 1),)
    assert snapshot.oldest_promise_s == 5.0


def test_a_large_request(book: Ledger, clock: Clock) -> None:
    """More instances than a statement takes parameters."""
    uids = [f"1.{number}" for number in range(40_000)]
    book.take_request(request(*uids), 60.0)
    (answers,) = decide(book, clock)
    assert list(answers) == uids
    (due,) = book.due_reports((), 1)
    assert [reference.sop_instance_uid for reference in due.report.answers] == uids


def test_what_a_disk_lost_is_promised_by_nobody(book: Ledger, clock: Clock) -> None:
    """A node that promises what it has keeps no promise about bytes that are gone."""
    spooled = Judge(Promise.SPOOLED, lambda _name: True, lambda _route: True)
    book.finish(work(book, "1.4"), outcome("pacs"))
    for uid in ("1.2", "1.3"):
        book.add(arrival(uid), blob(uid), 10)
    (claim,) = [claim for claim in book.claims() if claim.blob == blob("out")]
    book.lose(claim, "bytes-missing")
    (claim,) = [claim for claim in book.claims() if claim.blob == blob("1.2")]
    book.lose(claim, "bytes-changed")
    book.take_request(request("1.2", "1.3", "1.4"), 60.0)
    clock.now += 2
    (report,) = book.decide_promises(spooled, 10)
    assert list(report.answers.values()) == [0x0110, 0x0000, 0x0110]
