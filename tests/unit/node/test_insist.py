"""A ledger that refuses for a while is asked again; nothing else is."""

from __future__ import annotations

import threading

import pytest

from dicom_node import insist
from dicom_node.errors import LedgerError, LedgerUnavailable, StaleLease


class Ledger:
    """Raises what it is given, one at each call, then takes what is written."""

    def __init__(self, *errors: LedgerError) -> None:
        self.errors = list(errors)
        self.taken = 0

    def write(self) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.taken += 1


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insist, "PAUSE_S", 0.0)


def test_what_is_refused_for_a_while_is_written_in_the_end_and_once() -> None:
    ledger = Ledger(LedgerUnavailable("full"), LedgerUnavailable("full"))
    insist.insist(ledger.write, threading.Event())
    assert ledger.taken == 1


@pytest.mark.parametrize("error", [StaleLease("gone"), LedgerError("no such thing")])
def test_what_would_be_refused_for_ever_passes_through(error: LedgerError) -> None:
    ledger = Ledger(error)
    with pytest.raises(type(error)):
        insist.insist(ledger.write, threading.Event())
    assert ledger.taken == 0


def test_stopping_ends_it() -> None:
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(LedgerUnavailable):
        insist.insist(Ledger(LedgerUnavailable("full")).write, stopping)
