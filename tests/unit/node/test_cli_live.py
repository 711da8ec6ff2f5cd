"""Times and tables that a person reads, and a ledger that is looked into without being changed."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from dicom_node.cli.live import age, moment, opened, table
from dicom_node.errors import ConfigError, LedgerError
from dicom_node.ledger import Ledger


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(3, "3 s"), (119, "119 s"), (180, "3 min"), (10_000, "3 h"), (200_000, "2 d"), (-5, "0 s")],
)
def test_an_age_is_told_in_one_unit(monkeypatch: pytest.MonkeyPatch, seconds: float, said: str) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    assert age(1_000_000.0 - seconds) == said


def test_a_moment_is_utc_to_the_millisecond() -> None:
    assert moment(0.0625) == "1970-01-01T00:00:00.062Z"


def test_numbers_stand_to_the_right_and_nothing_is_a_dash() -> None:
    assert table(("what", "n"), [("a", 5), (None, 1000)]) == ["what     n", "a        5", "-     1000"]
    assert table(("what", "n"), []) == ["what  n"]


def config(folder: Path) -> Path:
    path = folder / "node.yaml"
    path.write_text(
        f"node: {{id: n, ae_title: NODE}}\nstorage: {{folder: {folder}}}\n"
        "routes:\n  - {name: all, role: verify}\n"
    )
    return path


def test_a_ledger_of_another_version_is_neither_read_nor_changed(scratch: Path) -> None:
    Ledger(scratch / "ledger.sqlite").close()
    with sqlite3.connect(scratch / "ledger.sqlite") as raw:
        raw.execute("PRAGMA user_version = 1")
    raw.close()
    with pytest.raises(LedgerError, match="start the node of this version"), opened(config(scratch)):
        pass
    with sqlite3.connect(scratch / "ledger.sqlite") as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (1,)
    raw.close()


def test_without_ledger_or_configuration_it_says_what_to_do(scratch: Path) -> None:
    with pytest.raises(LedgerError, match="has the node been started"), opened(config(scratch)):
        pass
    with pytest.raises(ConfigError), opened(scratch / "none.yaml"):
        pass
