"""Outages outlive a restart, and every attempt is counted where it went."""

from __future__ import annotations

from dicom_node.ledger import Ledger
from dicom_node.ledger.dialects import Place
from tests.ledgers import Clock, outcome, send, work


def test_an_outage_is_known_from_its_first_moment_until_it_ends(book: Ledger, clock: Clock) -> None:
    assert book.outages() == {}
    book.went_down("pacs", 100.0)
    book.went_down("pacs", 200.0)
    book.went_down("vna", clock() - 5.0)
    assert book.outages() == {"pacs": 100.0, "vna": clock() - 5.0}
    assert book.down_s() == {"pacs": clock() - 100.0, "vna": 5.0}
    book.came_back("pacs")
    book.came_back("pacs")
    assert set(book.outages()) == {"vna"}


def test_it_outlives_the_process(place: Place, clock: Clock) -> None:
    first = Ledger(place, clock=clock)
    first.went_down("pacs", 100.0)
    first.close()
    second = Ledger(place, clock=clock)
    assert second.outages() == {"pacs": 100.0}
    second.close()


def test_attempts_are_counted_by_who_was_asked_and_how_they_ended(book: Ledger, clock: Clock) -> None:
    first = send(book)
    book.retry(first, clock(), "status-a700", result="transient")
    (again,) = book.claim_sends("pacs", 1, 10.0)
    book.retry(again, clock(), "unreachable")
    (again,) = book.claim_sends("pacs", 1, 10.0)
    book.delivered(again, 0xB000, via="vna")
    book.finish(work(book, "1.2.4"), outcome("pacs"))
    (other,) = book.claim_sends("pacs", 1, 10.0)
    book.dead(other, "status-c000", result="refused")
    assert book.results() == {
        ("pacs", "refused"): 1,
        ("pacs", "transient"): 1,
        ("pacs", "unreachable"): 1,
        ("vna", "warning"): 1,
    }


def test_what_another_took_is_told_by_the_trace(book: Ledger) -> None:
    book.delivered(send(book), 0, via="vna")
    story = [(event.what, event.destination, event.reason) for event in book.trace("2.25.1")]
    assert story[-2:] == [("failed-over", "pacs", "vna"), ("delivered", "pacs", "status-0000")]


def test_only_refusals_of_the_object_count_against_it(book: Ledger, clock: Clock) -> None:
    claimed = send(book)
    for refused, expected in ((False, 0), (True, 1), (False, 1), (True, 2)):
        book.retry(claimed, clock(), "any", refused=refused)
        (claimed,) = book.claim_sends("pacs", 1, 10.0)
        assert claimed.refusals == expected
    book.dead(claimed, "refused")
    book.requeue(claimed.id)
    assert book.claim_sends("pacs", 1, 10.0)[0].refusals == 0
