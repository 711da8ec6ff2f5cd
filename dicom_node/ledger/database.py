"""The file: how it is opened, begun, committed, and how it refuses. Every part of the ledger stands on it."""

from __future__ import annotations

import contextlib
import enum
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.errors import LedgerError, LedgerUnavailable
from dicom_node.ledger.schema import events, migrate, scripts

#: how long a write waits for a writer in another process before the ledger refuses, seconds
_BUSY_TIMEOUT_S = 30.0


class Loss(enum.StrEnum):
    """Why a lease was taken back; the word that the events keep."""

    LEASE = "lease-expired"
    WORKER = "worker-died"
    RESTART = "node-restarted"


class Database:
    """One SQLite file, shared by every thread of this process and with other processes.

    Parameters
    ----------
    path : the database; made if absent, brought up to the present schema if older
    clock : now, in seconds since 1970-01-01 UTC

    Raises
    ------
    LedgerError : the file cannot be opened, is no ledger, or was written by a newer version; every method
        raises it when the database refuses (disk full, locked for too long, damaged)
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        # SQLite lets one writer in at a time and makes the others poll; threads queue up here instead
        self._turn = threading.Lock()
        self._engine = open_engine(path)
        self._reader = self._engine.execution_options(dicom_node_reads=True)
        with self._writing() as connection:
            migrate(connection, scripts())

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _note(
        self,
        connection: sa.Connection,
        instance_id: int,
        what: str,
        *,
        destination: str = "",
        reason: str = "",
    ) -> None:
        """Append to the record of an instance; `destination` is empty unless it is about a delivery."""
        values = event_values(self._clock(), instance_id, what, destination, reason)
        connection.execute(sa.insert(events), values)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._turn, _refusals(self._path), self._engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with _refusals(self._path), self._reader.begin() as connection:
            yield connection


def event_values(
    at: float, instance_id: int, what: str, destination: object, reason: str
) -> dict[str, object]:
    return {"at": at, "instance_id": instance_id, "what": what, "destination": destination, "reason": reason}


def open_engine(path: Path) -> sa.Engine:
    """An engine whose writers begin IMMEDIATE and whose commits are on disk when they return."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise LedgerError(
            f"the ledger {path} cannot be opened: {error.strerror}; check its folder"
        ) from error
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": _BUSY_TIMEOUT_S})
    sa.event.listen(engine, "connect", _prepare)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: Any, _record: object) -> None:
    """Settings of one new connection; the driver itself must not begin or commit anything."""
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    reads = connection.get_execution_options().get("dicom_node_reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Say what the database said, without the statement and its parameters."""
    try:
        yield
    except SQLAlchemyError as error:
        said = getattr(error, "orig", None) or type(error).__name__
        raise LedgerUnavailable(f"the ledger {path} refuses: {said}; check its disk") from error
