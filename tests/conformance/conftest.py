"""Fixtures of the suites that every adapter of a port passes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.buckets import S3Server
from dicom_node.ledger import Ledger

_MEMORY = Path("/dev/shm")


@pytest.fixture
def scratch() -> Iterator[Path]:
    """In memory where possible: these tests are about what survives a process, not about the disk's speed."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def book(scratch: Path) -> Iterator[Ledger]:
    opened = Ledger(scratch / "ledger.sqlite")
    yield opened
    opened.close()
