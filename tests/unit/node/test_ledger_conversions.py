"""A conversion is found again, and its bytes are kept as long as somebody waits for them."""

from __future__ import annotations

from dicom_node.ledger import Ledger
from tests.ledgers import Clock, blob, send

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"


def test_it_is_found_by_object_and_syntax(book: Ledger) -> None:
    assert book.conversion(blob("a"), EXPLICIT) is None
    book.converted(blob("a"), EXPLICIT, blob("b"))
    book.converted(blob("a"), IMPLICIT, blob("c"))
    assert book.conversion(blob("a"), EXPLICIT) == blob("b")
    book.converted(blob("a"), EXPLICIT, blob("d"))
    assert book.conversion(blob("a"), EXPLICIT) == blob("d")
    assert book.conversion(blob("a"), IMPLICIT) == blob("c")


def test_its_bytes_are_needed_until_the_object_is_delivered(book: Ledger) -> None:
    claimed = send(book)
    book.converted(claimed.blob, IMPLICIT, blob("made"))
    assert book.needed([blob("made"), blob("other")]) == {blob("made")}
    assert book.known([blob("made"), blob("other")]) == {blob("made")}
    book.delivered(claimed, 0)
    assert book.needed([blob("made")]) == frozenset()
    assert book.known([blob("made")]) == {blob("made")}, "it belongs to nobody else"


def test_it_is_forgotten_with_its_object(book: Ledger, clock: Clock) -> None:
    claimed = send(book)
    book.converted(claimed.blob, IMPLICIT, blob("made"))
    book.delivered(claimed, 0)
    clock.now += 100.0
    assert book.purge(clock()).instances == 1
    assert book.conversion(claimed.blob, IMPLICIT) is None
    assert book.known([blob("made")]) == frozenset()
