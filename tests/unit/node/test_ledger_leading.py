"""One leads at a time; of a file there is one node, which always does."""

from __future__ import annotations

from dicom_node.ledger import Ledger
from dicom_node.ledger.dialects import Place, SQLite


def test_who_leads_leads_until_it_lets_go(book: Ledger, place: Place) -> None:
    with book.lead("house") as holds:
        assert holds is not None
        assert holds()
    with book.lead("house") as holds:
        assert holds is not None


def test_only_nodes_that_share_a_ledger_are_in_each_others_way(book: Ledger, place: Place) -> None:
    with book.lead("house") as first, book.lead("house") as second, book.lead("garden") as third:
        assert first is not None
        assert (second is None) == book._dialect.shared
        assert third is not None
    assert book._dialect.shared == (not isinstance(book._dialect, SQLite))
