"""Fixtures of the node's unit tests."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from dicom_node.ledger import Ledger
from dicom_node.ledger.dialects import Place
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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What holds for a ledger holds wherever it is kept: its tests run on both."""
    ours = metafunc.module.__name__.rpartition(".")[2].startswith("test_ledger")
    if ours and "place" in metafunc.fixturenames and not _is_about_sqlite(metafunc):
        server = pytest.param("postgresql", marks=[pytest.mark.interop, pytest.mark.slow])
        metafunc.parametrize("place", ["sqlite", server], indirect=True)


def _is_about_sqlite(metafunc: pytest.Metafunc) -> bool:
    return metafunc.definition.get_closest_marker("sqlite") is not None


@pytest.fixture
def place(request: pytest.FixtureRequest, scratch: Path) -> Place:
    """Where the ledger of a test is: a file, or a database if the test asks for one."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return scratch / "ledger.sqlite"
    url: sa.URL = request.getfixturevalue("server").database()
    return url


@pytest.fixture
def book(place: Place, clock: Clock) -> Iterator[Ledger]:
    opened = Ledger(place, clock=clock)
    yield opened
    opened.close()
