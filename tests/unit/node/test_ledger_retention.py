"""Bytes are needed until nobody can ask for them any more."""

from __future__ import annotations

import pytest

from dicom_node.commitment import Report
from dicom_node.jobs import InstanceState, Outcome
from dicom_node.ledger import Ledger
from tests.ledgers import Clock, blob, outcome, work


def test_blobs_are_needed_until_they_have_arrived_everywhere(book: Ledger, clock: Clock) -> None:
    both = [blob("1.2.3"), blob("out")]
    claimed = work(book)
    assert book.needed(both) == {blob("1.2.3")}
    book.finish(claimed, outcome("pacs", "vna"))
    assert book.needed(both) == {blob("out")}
    book.delivered(book.claim_sends("pacs", 1, 10.0)[0], 0)
    assert book.needed(both) == {blob("out")}
    (last,) = book.claim_sends("vna", 1, 10.0)
    book.dead(last, "refused")
    assert book.needed(both) == {blob("out")}, "a dead letter may be requeued"
    book.requeue(last.id)
    book.delivered(book.claim_sends("vna", 1, 10.0)[0], 0)
    assert book.needed(both) == frozenset()
    assert book.needed([]) == frozenset()


def test_blobs_are_needed_until_their_destination_commits_to_them(book: Ledger) -> None:
    book.finish(work(book), outcome("pacs"))
    book.delivered(book.claim_sends("pacs", 1, 10.0)[0], 0, to_commit=True)
    assert book.needed([blob("out")]) == {blob("out")}
    ask = book.claim_ask("pacs", "2.25.7", 10, collect_s=0.0, answer_s=60.0)
    assert ask is not None
    assert book.needed([blob("out")]) == {blob("out")}
    report = Report(ask.transaction_uid, dict.fromkeys(ask.references, 0))
    book.take_report(report, 3, lambda _name: lambda _silences: 0.0)
    assert book.needed([blob("out")]) == frozenset()


@pytest.mark.parametrize(
    ("end", "needed"),
    [(InstanceState.HELD, True), (InstanceState.QUARANTINED, True), (InstanceState.REJECTED, False)],
)
def test_a_blob_that_an_operator_may_decide_about_is_needed(
    book: Ledger, end: InstanceState, needed: bool
) -> None:
    book.finish(work(book), Outcome(end, "kept"))
    assert bool(book.needed([blob("1.2.3")])) is needed
