"""A conversion is found again, and its bytes are kept as long as somebody waits for them."""

from __future__ import annotations

from dicom_node.ledger import Ledger
from tests.ledgers import blob, send

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
    assert book.forget_conversions() == 0
    book.delivered(claimed, 0)
    assert book.needed([blob("made")]) == frozenset()
    assert book.forget_conversions() == 1
    assert book.conversion(claimed.blob, IMPLICIT) is None
