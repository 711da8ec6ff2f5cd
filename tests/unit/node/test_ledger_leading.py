"""A file has one node, which leads; of those that share a database one does."""

from __future__ import annotations

from pathlib import Path

from dicom_node.ledger import Ledger


def test_the_node_of_a_file_always_leads(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    try:
        with ledger.lead("site") as holds, ledger.lead("site") as again:
            assert holds is not None
            assert holds()
            assert again is not None
    finally:
        ledger.close()
