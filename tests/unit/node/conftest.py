"""Fixtures of the node's unit tests."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.ledger import Ledger
from tests.ledgers import Clock

_MEMORY = Path("/dev/shm")


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """Whoever sets the log up binds it to the standard error of one test; the next has another."""
    ours = logging.getLogger("dicom_node")
    root = logging.getLogger()
    for each in (root, ours):
        each.handlers[:] = [found for found in each.handlers if not _is_closed(found)]
    before = [(each, each.handlers[:], each.level, each.propagate) for each in (root, ours)]
    yield
    for each, handlers, level, propagate in before:
        each.handlers[:], each.propagate = handlers, propagate
        each.setLevel(level)


def _is_closed(handler: logging.Handler) -> bool:
    return bool(getattr(getattr(handler, "stream", None), "closed", False))


@pytest.fixture
def scratch() -> Iterator[Path]:
    """In memory where possible, for tests about what survives a process, not about the disk's speed."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(scratch: Path, clock: Clock) -> Iterator[Ledger]:
    opened = Ledger(scratch / "ledger.sqlite", clock=clock)
    yield opened
    opened.close()
