"""What the threads of storage commitment do with what the ledger, the clock and the peers say."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dicom_node import committer, log
from dicom_node.commitment import Answer, Ask, Due, Holding, Reference, Report, Request, Taken
from dicom_node.committer import Committer
from dicom_node.config import Config
from dicom_node.errors import LedgerError, PeerError
from dicom_node.jobs import InstanceState
from dicom_node.ledger import Ledger, promises
from tests.ledgers import arrival, blob, outcome
from tests.waiting import wait_until

CT = "1.2.840.10008.5.1.4.1.1.2"
ONE = Reference(CT, "1.1")


def config(folder: Path, **commitment: Any) -> Config:
    def destination(name: str, **options: Any) -> dict[str, Any]:
        retry = {"first_s": 0.01, "cap_s": 0.01}
        return {"ae_title": name.upper(), "host": "127.0.0.1", "port": 104, "retry": retry, **options}

    return Config.model_validate(
        {
            "node": {"id": "n", "ae_title": "NODE"},
            "storage": {"folder": folder},
            "destinations": {
                "pacs": destination("pacs", commitment=True),
                "vna": destination("vna"),
                "spare": destination("spare", mandatory=False),
            },
            "routes": (
                {
                    "name": "all",
                    "role": "pass",
                    "destinations": ("pacs", "vna"),
                    "match": {"calling_ae": ("CT*",)},
                },
                {"name": "spare-only", "role": "pass", "destinations": ("spare",)},
            ),
            "commitment": {
                "requesters": tuple(
                    {"ae_title": title, "host": "127.0.0.1", "port": 104} for title in ("CT1", "CT2")
                ),
                "retry": {"first_s": 0.01, "cap_s": 0.01, "refusals": 2, "give_up_after": 5},
                "ask": {"collect_s": 0.0, "batch": 2, "refusals": 1},
            }
            | commitment,
        },
        strict=False,
    )


class FakeInquirer:
    """Stands in for `dimse.commit.Inquirer`: answers by `status`, which may raise."""

    made: ClassVar[FakeInquirer]
    status: ClassVar[Callable[[Ask], int]]

    def __init__(self, name: str, *_options: Any) -> None:
        self.name = name
        self.asked: list[Ask] = []
        self.closed = threading.Event()
        self.aborted = threading.Event()
        FakeInquirer.made = self

    def ask(self, ask: Ask) -> int:
        self.asked.append(ask)
        return FakeInquirer.status(ask)

    def tidy(self) -> None: ...

    def close(self) -> None:
        self.closed.set()

    def abort(self) -> None:
        self.aborted.set()


class Wire:
    """Stands in for the functions of `dimse.commit` that give peers their answers."""

    def __init__(self) -> None:
        self.delivered: list[Due] = []
        self.on_same: list[Due] = []
        self.status: Callable[[Due], int] = lambda _due: 0

    def deliver(self, due: Due, requester: Any, _tls: object) -> int:
        assert requester.ae_title == due.peer
        self.delivered.append(due)
        return self.status(due)

    def deliver_on(self, due: Due, association: object, _timeout_s: float) -> int:
        assert association == "the association"
        self.on_same.append(due)
        return 0


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    made = Wire()
    FakeInquirer.status = lambda _ask: 0
    monkeypatch.setattr(committer, "Inquirer", FakeInquirer)
    monkeypatch.setattr(committer.commit, "deliver", made.deliver)
    monkeypatch.setattr(committer.commit, "deliver_on", made.deliver_on)
    monkeypatch.setattr(committer, "POLL_S", 0.01)
    monkeypatch.setattr(committer, "_FAULT_PAUSE_S", 0.01)
    monkeypatch.setattr(promises, "_LOOK_S", (0.0, 0.01))
    return made


@pytest.fixture
def book(scratch: Path) -> Iterator[Ledger]:
    opened = Ledger(scratch / "ledger.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def start(wire: Wire, book: Ledger, scratch: Path) -> Iterator[Callable[..., Committer]]:
    running: list[Committer] = []

    def make(**commitment: Any) -> Committer:
        running.append(Committer(config(scratch, **commitment), book))
        running[-1].start()
        return running[-1]

    yield make
    for each in running:
        each.stop(60.0)
        assert not each.alive


def deliver(book: Ledger, uid: str = "1.1", *names: str) -> None:
    """An instance that is at `pacs`, asked for, and at whatever else is named."""
    book.add(arrival(uid, "all"), blob(uid), 10)
    (claimed,) = book.claim_work("w", 1, 10.0)
    book.finish(claimed, outcome("pacs", *names, uid=uid))
    for name in ("pacs", *names):
        (send,) = book.claim_sends(name, 1, 10.0)
        book.delivered(send, 0, to_commit=name == "pacs")


def states(book: Ledger) -> dict[str, int]:
    return {tally.state: tally.count for tally in book.snapshot().commitments}


def promised(book: Ledger) -> dict[str, int]:
    return {tally.state: tally.count for tally in book.snapshot().promises}


def request(*uids: str, peer: str = "CT1", transaction: str = "2.25.1") -> Request:
    return Request(transaction, peer, "NODE", tuple(Reference(CT, uid) for uid in uids))


def test_the_judge_goes_by_the_configuration(scratch: Path) -> None:
    judge = committer.judge(config(scratch, promise="spooled"))
    assert judge.is_mandatory("pacs")
    assert judge.is_mandatory("removed-from-the-file")
    assert not judge.is_mandatory("spare")
    arrived = Holding(CT, InstanceState.RECEIVED, "all")
    assert judge.answer(ONE, [arrived]) == Answer.COMMITTED
    for route in ("spare-only", "removed-from-the-file"):
        arrived = Holding(CT, InstanceState.RECEIVED, route)
        assert judge.answer(ONE, [arrived]) == Answer.PROCESSING_FAILURE


def test_transaction_uids_are_uids_and_new() -> None:
    made = {committer.new_transaction_uid() for _ in range(100)}
    assert len(made) == 100
    assert all(uid.startswith("2.25.") and len(uid) <= 64 and uid[5:].isdigit() for uid in made)


# ---- asking ----


def test_destinations_are_asked_in_batches_and_only_those_that_are_to_be(
    start: Callable[..., Committer], book: Ledger
) -> None:
    for uid in ("1.1", "1.2", "1.3"):
        deliver(book, uid, "vna")
    start()
    asked = FakeInquirer.made
    wait_until(lambda: states(book) == {"asked": 3} and len(asked.asked) == 2)
    assert asked.name == "pacs"
    assert [len(ask.references) for ask in asked.asked] == [2, 1]
    assert len({ask.transaction_uid for ask in asked.asked}) == 2


@pytest.mark.parametrize("failure", [0x0110, PeerError("destination pacs cannot be reached")])
def test_a_request_that_is_not_taken_is_made_again(
    start: Callable[..., Committer], book: Ledger, failure: int | PeerError
) -> None:
    fail = [True]

    def status(_ask: Ask) -> int:
        if not fail:
            return 0
        fail.pop()
        if isinstance(failure, PeerError):
            raise failure
        return failure

    deliver(book)
    FakeInquirer.status = status
    start()
    wait_until(lambda: len(FakeInquirer.made.asked) == 2 and states(book) == {"asked": 1})
    first, second = FakeInquirer.made.asked
    assert (first.attempts, second.attempts) == (1, 2)
    assert first.transaction_uid != second.transaction_uid


def test_an_overdue_request_is_made_again(start: Callable[..., Committer], book: Ledger) -> None:
    deliver(book)
    start(ask={"collect_s": 0.0, "answer_s": 1.0})
    wait_until(lambda: len(FakeInquirer.made.asked) >= 2)


def test_answers_settle_what_they_are_about(start: Callable[..., Committer], book: Ledger) -> None:
    deliver(book)
    made = start()
    wait_until(lambda: states(book) == {"asked": 1})
    asked = FakeInquirer.made.asked[0].transaction_uid
    assert not made.desk._take_report(Report("1.2.3.4", {ONE: 0}))
    assert made.desk._take_report(Report(asked, {ONE: 0}))
    assert states(book) == {"committed": 1}


def test_an_answer_from_a_destination_that_left_the_configuration(
    start: Callable[..., Committer], book: Ledger
) -> None:
    made = start()
    book.add(arrival("1.9", "all"), blob("9"), 1)
    (claimed,) = book.claim_work("w", 1, 10.0)
    book.finish(claimed, outcome("old", uid="1.9"))
    book.delivered(book.claim_sends("old", 1, 10.0)[0], 0, to_commit=True)
    ask = book.claim_ask("old", "2.25.77", 1, collect_s=0.0, answer_s=60.0)
    assert ask is not None
    assert made.desk._take_report(Report("2.25.77", {Reference(CT, "1.9"): 0x0110}))


def test_what_is_not_asked_for_any_more_is_let_go(
    start: Callable[..., Committer], book: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    book.add(arrival("1.9", "all"), blob("9"), 1)
    (claimed,) = book.claim_work("w", 1, 10.0)
    book.finish(claimed, outcome("vna", uid="1.9"))
    book.delivered(book.claim_sends("vna", 1, 10.0)[0], 0, to_commit=True)
    start()
    assert states(book) == {}
    assert any("commitments-waived" in str(log.line(record)) for record in caplog.records)


# ---- promising ----


def test_a_request_needs_an_address(start: Callable[..., Committer]) -> None:
    made = start()
    assert made.desk._take_request(request("1.1", peer="MR9")) is None
    assert made.desk._take_request(request("1.1", peer="CT1")) is Taken.NEW
    assert made.desk._take_request(request("1.1", peer="VNA")) is Taken.NEW, "a destination has an address"
    assert start(same_association=True).desk._take_request(request("1.1", peer="MR9")) is Taken.NEW


def test_an_answer_is_decided_and_given(start: Callable[..., Committer], book: Ledger, wire: Wire) -> None:
    made = start()
    made.desk._take_request(request("1.1"))
    wait_until(lambda: promised(book) == {"reported": 1})
    (due,) = wire.delivered
    assert dict(due.report.answers) == {ONE: 0x0112}


def test_an_answer_is_given_again_until_it_is_taken(
    start: Callable[..., Committer], book: Ledger, wire: Wire
) -> None:
    def status(due: Due) -> int:
        if due.attempts == 1:
            raise PeerError("requester CT1 cannot be reached")
        return 0x0110 if due.attempts == 2 else 0

    wire.status = status
    start().desk._take_request(request("1.1"))
    wait_until(lambda: promised(book) == {"reported": 1})
    assert [due.attempts for due in wire.delivered] == [1, 2, 3]
    assert len({str(due.report) for due in wire.delivered}) == 1


@pytest.mark.parametrize(("status", "attempts"), [(0x0115, 2), (0x0213, 5)])
def test_an_answer_that_is_never_taken_is_given_up(
    start: Callable[..., Committer], book: Ledger, wire: Wire, status: int, attempts: int
) -> None:
    wire.status = lambda _due: status
    start().desk._take_request(request("1.1"))
    wait_until(lambda: promised(book) == {"unreported": 1})
    assert len(wire.delivered) == attempts


def test_a_peer_that_hangs_holds_up_no_other_and_is_given_one_answer_at_a_time(
    start: Callable[..., Committer], book: Ledger, wire: Wire
) -> None:
    hanging = threading.Event()

    def status(due: Due) -> int:
        if due.peer == "CT1":
            hanging.wait(60)
        return 0

    wire.status = status
    made = start()
    try:
        for number in range(committer.REPORTERS + 2):
            made.desk._take_request(request("1.1", transaction=f"2.25.{number}"))
        wait_until(lambda: wire.delivered)
        made.desk._take_request(request("1.1", peer="CT2"))
        wait_until(lambda: promised(book).get("reported") == 1)
        assert [due.peer for due in wire.delivered] == ["CT1", "CT2"]
    finally:
        hanging.set()
    wait_until(lambda: promised(book) == {"reported": committer.REPORTERS + 3})
    assert len(wire.delivered) == committer.REPORTERS + 3


def test_the_association_of_the_request_is_the_last_resort(
    start: Callable[..., Committer], book: Ledger, wire: Wire
) -> None:
    def away(_due: Due) -> int:
        raise PeerError("requester CT1 cannot be reached")

    wire.status = away
    made = start(same_association=True)
    made.desk.origin = lambda _due: "the association"  # type: ignore[method-assign]
    made.desk._take_request(request("1.1"))
    made.desk._take_request(request("1.1", peer="MR9"))
    wait_until(lambda: promised(book) == {"reported": 2})
    assert [due.peer for due in wire.delivered] == ["CT1"]
    assert sorted(due.peer for due in wire.on_same) == ["CT1", "MR9"]


def test_the_association_of_the_request_is_left_alone_unless_it_is_allowed(
    start: Callable[..., Committer], book: Ledger, wire: Wire
) -> None:
    wire.status = lambda _due: 0x0115
    made = start()
    made.desk.origin = lambda _due: "the association"  # type: ignore[method-assign]
    made.desk._take_request(request("1.1"))
    wait_until(lambda: promised(book) == {"unreported": 1})
    assert wire.on_same == []


def test_a_ledger_that_refuses_costs_a_pause(
    start: Callable[..., Committer], book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = [1, 2, 3]
    decide = book.decide_promises

    def refuse(*arguments: Any) -> list[Report]:
        if refusals:
            refusals.pop()
            raise LedgerError("the disk is full")
        return decide(*arguments)

    monkeypatch.setattr(book, "decide_promises", refuse)
    made = start()
    made.desk._take_request(request("1.1"))
    wait_until(lambda: promised(book) == {"reported": 1})
    assert made.alive


def test_no_line_names_a_uid(
    start: Callable[..., Committer], book: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    deliver(book, "1.2.77")
    made = start()
    made.desk._take_request(request("1.2.77", transaction="1.2.88"))
    wait_until(lambda: states(book) == {"asked": 1})
    asked = FakeInquirer.made.asked[0].transaction_uid
    made.desk._take_report(Report(asked, {Reference(CT, "1.2.77"): 0}))
    wait_until(lambda: promised(book) == {"reported": 1})
    for word in ("commitment-asked", "commitment-answered", "commitment-decided", "commitment-reported"):
        # told once it is on record
        wait_until(lambda word=word: any(record.msg == word for record in caplog.records))  # type: ignore[misc]
    lines = [str(log.line(record)) for record in caplog.records]
    assert not any(uid in line for line in lines for uid in ("1.2.77", "1.2.88", asked))
    assert not any("refused" in line for line in lines)


def test_what_ended_long_ago_is_forgotten(
    start: Callable[..., Committer], book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "_FORGET_EVERY_S", 0.0)
    monkeypatch.setattr(committer, "REMEMBER_S", -60.0)
    start().desk._take_request(request("1.1"))
    wait_until(lambda: promised(book) == {})


def test_a_request_that_hangs_is_broken_off_at_the_end(start: Callable[..., Committer], book: Ledger) -> None:
    hanging = threading.Event()
    FakeInquirer.status = lambda _ask: int(hanging.wait(60))
    deliver(book)
    made = start()
    FakeInquirer.made.abort = hanging.set  # type: ignore[method-assign]
    wait_until(lambda: FakeInquirer.made.asked)
    made.stop(0.2)
    assert hanging.is_set()
    assert FakeInquirer.made.closed.wait(60)
