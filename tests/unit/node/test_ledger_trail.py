"""The ledger tells its story step by step, each once, in the order in which it was written."""

from __future__ import annotations

from dicom_node.ledger import Ledger
from tests.ledgers import blob, outcome, send, story, work


def test_steps_come_in_order_and_can_be_gone_on_with(book: Ledger) -> None:
    book.delivered(send(book), 0)
    steps = story(book)
    assert [(step.what, step.destination, step.reason) for step in steps] == [
        ("received", "", ""),
        ("ready", "", ""),
        ("queued", "pacs", ""),
        ("delivered", "pacs", "status-0000"),
    ]
    assert book.steps(steps[1].id, 1) == [steps[2]]
    assert book.steps(steps[-1].id, 100) == []
    assert book.last_step() == steps[-1].id


def test_a_step_knows_its_object(book: Ledger) -> None:
    book.finish(work(book), outcome("pacs"))
    (first, *_) = story(book)
    assert (first.job, first.calling_ae, first.called_ae, first.route) == (1, "CT1", "NODE", "protect")
    assert (first.blob, first.out_blob, first.result) == (blob("1.2.3"), blob("out"), "protected")


def test_who_stood_in_is_known_with_the_delivery(book: Ledger) -> None:
    book.delivered(send(book), 0, via="vna")
    assert [(step.what, step.via) for step in story(book)][-2:] == [
        ("failed-over", ""),
        ("delivered", "vna"),
    ]


def test_before_the_first_step_there_is_none(book: Ledger) -> None:
    assert book.last_step() == 0
    assert book.steps(0, 10) == []
