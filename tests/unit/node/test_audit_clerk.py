"""The clerk tells the ledger's story, a study at a time, and goes on where it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.audit.auditor import Auditor
from dicom_node.audit.clerk import Clerk
from dicom_node.audit.events import Party, Study
from dicom_node.audit.history import RouteFacts, Site
from dicom_node.audit.message import Origin
from dicom_node.audit.store import Store
from dicom_node.audit.syslog import Label
from dicom_node.config import Role
from dicom_node.errors import LedgerUnavailable
from dicom_node.jobs import Receipt
from dicom_node.ledger import Ledger
from tests.audit_trails import Told, received
from tests.ledgers import Clock, arrival, blob, outcome, send

SITE = Site(
    Party("NODE", "host"),
    {"pacs": Party("PACS", "pacs.example")},
    {"protect": RouteFacts(Role.PROTECT, deidentifies=False, renames=False)},
)


def clerk(
    book: Ledger, folder: Path, clock: Clock, *, most: int = 1000, window_s: float = 0.0, shared: bool = False
) -> Clerk:
    origin, label = Origin("n", "NODE", "host", 1), Label(10, 5, "DICOM+RFC3881", "host", 1)
    auditor = Auditor(Store(folder / "audit", most), origin, label, clock=clock)
    return Clerk(book, auditor, SITE, lambda _: Study("1.2"), window_s, shared=shared, clock=clock)


def told(made: Clerk) -> list[Told]:
    store = made._auditor.store
    messages = [store.read(number) for number in store.waiting()]
    return [received(message) for message in messages if message is not None]


def arrive(book: Ledger, clock: Clock, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        book.add(arrival(f"1.2.{number}"), blob(str(number)), 10)
    clock.now += 1.0


def test_a_study_is_one_message_in_a_window(book: Ledger, scratch: Path, clock: Clock) -> None:
    made = clerk(book, scratch, clock)
    made.turn()
    arrive(book, clock, 5)
    made.turn()
    (message,) = told(made)
    assert (message.short, message.instances) == (("DICOM Instances Transferred", "C", 0), 5)


def test_nothing_is_told_before_the_window_is_over_but_at_the_end(
    book: Ledger, scratch: Path, clock: Clock
) -> None:
    made = clerk(book, scratch, clock, window_s=3600.0)
    made.turn()
    arrive(book, clock, 2)
    made.turn()
    arrive(book, clock, 2, start=2)
    made.turn()
    assert told(made) == []
    made.turn(last=True)
    assert [message.instances for message in told(made)] == [4]


def test_a_clerk_that_was_killed_in_a_window_loses_none_of_it(
    book: Ledger, scratch: Path, clock: Clock
) -> None:
    made = clerk(book, scratch, clock, window_s=3600.0)
    made.turn()
    arrive(book, clock, 3)
    made.turn()
    again = clerk(book, scratch, clock)
    again.turn()
    assert [message.instances for message in told(again)] == [3]


def test_what_was_told_is_not_told_again_after_a_restart(book: Ledger, scratch: Path, clock: Clock) -> None:
    made = clerk(book, scratch, clock)
    made.turn()
    arrive(book, clock, 3)
    made.turn()
    again = clerk(book, scratch, clock)
    again.turn()
    assert len(told(again)) == 1


def test_a_trail_that_is_switched_on_late_does_not_tell_of_old_times(
    book: Ledger, scratch: Path, clock: Clock
) -> None:
    arrive(book, clock, 3)
    made = clerk(book, scratch, clock)
    made.turn(last=True)
    assert told(made) == []


def test_a_transfer_begins_once_though_it_is_told_in_pieces(
    book: Ledger, scratch: Path, clock: Clock
) -> None:
    made = clerk(book, scratch, clock)
    made.turn()
    first = send(book)
    book.retry(first, clock.now, "status-a700")
    clock.now += 1.0
    made.turn()
    (again,) = book.claim_sends("pacs", 1, 10.0)
    book.delivered(again, 0)
    clock.now += 1.0
    made.turn()
    assert [message.short for message in told(made)][-3:] == [
        ("Begin Transferring DICOM Instances", "E", 0),
        ("DICOM Instances Transferred", "C", 4),
        ("DICOM Instances Transferred", "C", 0),
    ]


def test_what_just_came_waits_until_its_sender_can_be_known(
    book: Ledger, scratch: Path, clock: Clock
) -> None:
    made = clerk(book, scratch, clock)
    made.turn()
    added = book.add(arrival("1.2.9"), blob("x"), 10)
    made.turn()
    assert told(made) == []
    made._auditor.heard(added.id, "10.0.0.7")
    clock.now += 1.0
    made.turn()
    assert told(made)[0].addresses[0] == "10.0.0.7"


def test_a_full_trail_holds_the_ledger_up_and_loses_nothing(
    book: Ledger, scratch: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    made = clerk(book, scratch, clock, most=0)
    made.turn()
    arrive(book, clock, 3)
    for _ in range(3):
        made._contained(made.turn)
    assert caplog.text.count("audit-held-up") == 1
    made._auditor.store._most = 100
    made.turn()
    assert [message.instances for message in told(made)] == [3]


def test_while_the_trail_is_full_the_ledger_is_not_read_on(book: Ledger, scratch: Path, clock: Clock) -> None:
    made = clerk(book, scratch, clock, most=0)
    made.turn()
    for number in range(5):
        arrive(book, clock, 3, start=3 * number)
        made._contained(made.turn)
    assert made._read_to == 3
    made._auditor.store._most = 100
    made.turn()
    assert sum(message.instances for message in told(made)) == 15


def test_a_clock_that_is_put_back_holds_nothing_back(book: Ledger, scratch: Path, clock: Clock) -> None:
    made = clerk(book, scratch, clock)
    made.turn()
    arrive(book, clock, 2)
    clock.now -= 3600.0
    made.turn()
    assert [message.instances for message in told(made)] == [2]


def test_a_ledger_from_a_back_up_is_followed_at_once(
    book: Ledger, scratch: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    arrive(book, clock, 3)
    clerk(book, scratch, clock)._auditor.store.note(told_to=1000)  # by the ledger that was lost
    made = clerk(book, scratch, clock)
    made.turn()
    assert "audit-begins-anew" in caplog.text
    arrive(book, clock, 2, start=3)
    made.turn()
    assert [message.instances for message in told(made)] == [2]


def test_work_and_delivery_are_told_in_the_order_in_which_they_happened(
    book: Ledger, scratch: Path, clock: Clock
) -> None:
    made = clerk(book, scratch, clock)
    made.turn()
    book.add(arrival("1.2.3"), blob("1.2.3"), 10)
    (work,) = book.claim_work("w", 1, 10.0)
    book.finish(work, outcome("pacs"))
    (sent,) = book.claim_sends("pacs", 1, 10.0)
    book.delivered(sent, 0)
    made.turn(last=True)
    assert [message.short[0] for message in told(made)] == [
        "DICOM Instances Transferred",
        "DICOM Instances Accessed",
        "Begin Transferring DICOM Instances",
        "DICOM Instances Transferred",
    ]


def test_a_thread_follows_until_it_is_stopped(book: Ledger, scratch: Path, clock: Clock) -> None:
    made = clerk(book, scratch, clock, window_s=0.1)
    made.start()
    arrive(book, clock, 2)
    made.stop()
    assert [message.instances for message in told(made)] == [2]


def test_another_machine_goes_on_where_the_one_before_had_noted(
    book: Ledger, scratch: Path, clock: Clock
) -> None:
    first = clerk(book, scratch / "first", clock, shared=True)
    first.turn()
    arrive(book, clock, 2)
    first.turn(last=True)
    arrive(book, clock, 3, start=2)  # while nobody leads
    second = clerk(book, scratch / "second", clock, shared=True)
    second.turn(last=True)
    assert [message.instances for message in told(first)] == [2]
    assert [message.instances for message in told(second)] == [3]
    first.turn(last=True)
    arrive(book, clock, 1, start=5)
    third = clerk(book, scratch / "first", clock, shared=True)
    third.turn(last=True)
    assert [message.instances for message in told(third)][-1] == 1, "not from when it led last"


def test_a_window_that_a_killed_leader_had_not_noted_is_told_by_the_next(
    book: Ledger, scratch: Path, clock: Clock
) -> None:
    first = clerk(book, scratch / "first", clock, window_s=3600.0, shared=True)
    first.turn()
    arrive(book, clock, 4)
    first.turn()  # read, and not told: now it dies
    second = clerk(book, scratch / "second", clock, shared=True)
    second.turn(last=True)
    assert [message.instances for message in told(second)] == [4]
    assert book.told_to() == book.last_step()


def test_a_node_alone_leaves_the_ledger_out_of_it(book: Ledger, scratch: Path, clock: Clock) -> None:
    made = clerk(book, scratch, clock)
    made.turn()
    arrive(book, clock, 1)
    made.turn(last=True)
    assert book.told_to() == -1
    assert made._auditor.store.state().told_to == book.last_step()


def test_what_is_told_no_power_cut_undoes(
    book: Ledger, scratch: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next steps would have numbers that count as told."""
    made = clerk(book, scratch, clock)
    made.turn()
    arrive(book, clock, 1)
    taken = Receipt(send(book), 0)
    book.claim_sends("pacs", 1, 10.0, receipts=[taken], awaits_disk=False)
    clock.now += 1.0
    mark = book.mark()

    def refuses() -> None:
        raise LedgerUnavailable("the ledger refuses")

    with monkeypatch.context() as patch:
        patch.setattr(book, "sync", refuses)
        with pytest.raises(LedgerUnavailable):
            made.turn()
    assert told(made) == []
    made.turn()
    assert book.is_on_disk(mark)
    assert told(made)
