"""The file: how it is opened, begun, committed, and how it refuses. Every part of the ledger stands on it."""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from dicom_node.errors import LedgerError, LedgerUnavailable
from dicom_node.ledger import tallies, turns
from dicom_node.ledger.schema import events, migrate, require_present, scripts
from dicom_node.ledger.statements import Statement
from dicom_node.metrics import Reading

#: how long a write waits for a writer in another process before the ledger refuses, seconds
_BUSY_TIMEOUT_S = 30.0
#: pages are given back once this share of the file is free; fewer are soon used again
_FREE_SHARE = 0.25
#: most pages (4 KiB) given back at a time; others write in between
_COMPACTED_PAGES = 1000
#: how long the write-ahead log waits for readers to be emptied, milliseconds
_COMPACTING_MS = 200
#: the size to which the write-ahead log shrinks whenever it begins anew, bytes
_LOG_BYTES = 64_000_000
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)


#: appends to the record of an instance; its values are `event_values`
NOTE = Statement(
    sa.insert(events).values(
        {name: sa.bindparam(name) for name in ("at", "instance_id", "destination", "what", "reason")}
    )
)

Made = TypeVar("Made")


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
    existing : neither make nor change it, for whoever looks in from outside
    on_full : called when the disk is full; returns whether that made room

    Raises
    ------
    LedgerError : the file cannot be opened, is no ledger, or was written by a newer version; every method
        raises it when the database refuses (disk full, locked for too long, damaged)
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        existing: bool = False,
        on_full: Callable[[], bool] = lambda: False,
    ) -> None:
        self._path = path
        self._clock = clock
        self._on_full = on_full
        self._made_room = False
        # SQLite lets one writer in at a time and makes the others poll; threads queue up here instead
        self._turn = threading.Lock()
        self._together = Grouped(self)
        #: the connection of whoever has the turn
        self._writer: sa.Connection | None = None
        self._soon = tallies.Soon()
        self._engine = open_engine(path)
        self._reader = self._engine.execution_options(dicom_node_reads=True)
        self._insist(self._require_present if existing else self._migrate)

    def close(self) -> None:
        """Close every connection."""
        with self._turn:
            self._forget_writer()
        self._engine.dispose()

    def compact(self) -> bool:
        """Give some space back to the file system, if much of the file is free; True if more is to be given.

        At the end the write-ahead log is emptied too.
        """
        with self._writing() as connection:
            free = int(connection.exec_driver_sql("PRAGMA freelist_count").scalar_one())
            pages = int(connection.exec_driver_sql("PRAGMA page_count").scalar_one())
            if free > _FREE_SHARE * pages:
                # a page for every row that is fetched, though the rows are empty: nothing for SQLAlchemy
                raw = connection.connection.cursor()
                raw.execute(f"PRAGMA incremental_vacuum({_COMPACTED_PAGES})")
                raw.fetchall()
                return int(connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()) < free
        with self._refusals(), contextlib.closing(self._engine.raw_connection()) as raw:
            # a reader may be in the way for long; the next time is soon enough
            raw.execute(f"PRAGMA busy_timeout = {_COMPACTING_MS}")
            try:
                raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                raw.execute(f"PRAGMA busy_timeout = {int(_BUSY_TIMEOUT_S * 1000)}")
        return False

    def count_soon(self, *readings: Reading) -> None:
        """Count what no row stands for; it is written with the next step that is, or by `settle`."""
        self._soon.add(readings)

    def settle(self) -> None:
        """Write what was counted without a row, if anything was."""
        if self._soon:
            with self._writing():
                pass

    def _migrate(self) -> None:
        with self._refusals(), self._engine.begin() as connection:
            migrate(connection, scripts())

    def _require_present(self) -> None:
        with self._reading() as connection:
            require_present(connection, scripts())

    def _insist(self, step: Callable[[], Made]) -> Made:
        """Run a step that a start cannot do without; once more if the disk was full and room was made."""
        try:
            return step()
        except LedgerError:
            if not self._made_room:
                raise
            return step()

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
        NOTE.run(connection, values)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._turn, self._transaction() as connection:
            yield connection

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        """A write of whoever has the turn, and of what was counted since the last."""
        soon = self._soon.take()
        try:
            with self._refusals(), self._begun() as connection:
                tallies.begin(connection)
                yield connection
                tallies.write(connection, soon)
        except BaseException:
            self._soon.give_back(soon)
            raise

    @contextlib.contextmanager
    def _begun(self) -> Iterator[sa.Connection]:
        """A transaction on a connection that is kept: another one from the pool takes longer than this."""
        if self._writer is None:
            self._writer = self._engine.connect()
        try:
            with self._writer.begin():
                yield self._writer
        except BaseException:
            self._forget_writer()
            raise

    def _forget_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with self._refusals(), self._reader.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        """Say what the database said, without the statement and its parameters; make room on a full disk."""
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:  # the second where SQLAlchemy is passed by
            said = error if isinstance(error, sqlite3.Error) else getattr(error, "orig", None)
            said = said or type(error).__name__
            code = getattr(said, "sqlite_errorcode", None)
            if code in _DAMAGE:
                raise damaged(self._path, str(said)) from error
            if code in _FULL:
                self._made_room = self._on_full()
            if isinstance(error, IntegrityError | sqlite3.IntegrityError):  # the same again is refused again
                raise LedgerError(
                    f"the ledger {self._path} takes no such row: {said}; report this as a fault of the node"
                ) from error
            raise LedgerUnavailable(f"the ledger {self._path} refuses: {said}; check its disk") from error


class Grouped:
    """What several threads want to write at once shares one transaction, and so one sync of the disk.

    The first that comes leads: when it gets the turn it writes for everybody who waits, wakes them, and
    leaves the lead to the first who came since. Should a write fail, each is repeated alone, so that one
    that cannot be written costs the others nothing. So a step may run twice; it may change only the database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._waiting: list[_Ticket[Any]] = []
        self._led = False

    def __call__(self, step: Callable[[sa.Connection], Made]) -> Made:
        """What `step` returns, once what it wrote is committed; raises what it raises."""
        ticket = _Ticket(step)
        with self._lock:
            self._waiting.append(ticket)
            leads, self._led = not self._led, True
        if not leads:
            ticket.called.wait()
        if not ticket.done:
            self._lead()
        return ticket.collect()

    def _lead(self) -> None:
        """Write for everybody who waits, the caller among them."""
        tickets: list[_Ticket[Any]] = []
        try:
            with self._database._turn:
                with self._lock:
                    tickets, self._waiting = self._waiting, []
                self._write_all(tickets)
        finally:
            with self._lock:
                heirs = self._waiting[:1]
                self._led = bool(heirs)
            for ticket in heirs + tickets:
                ticket.called.set()

    def _write_all(self, tickets: list[_Ticket[Any]]) -> None:
        try:
            self._together(tickets)
        except Exception as error:
            for ticket in tickets:
                self._alone(ticket, error if len(tickets) == 1 else None)

    def _together(self, tickets: list[_Ticket[Any]]) -> None:
        with self._database._transaction() as connection:
            made = [ticket.step(connection) for ticket in tickets]
        for ticket, result in zip(tickets, made, strict=True):
            ticket.made = [result]

    def _alone(self, ticket: _Ticket[Any], error: Exception | None) -> None:
        try:
            if error is not None:
                raise error
            self._together([ticket])
        except Exception as own:
            ticket.error = own


class _Ticket(Generic[Made]):
    """What a thread wants written, and what came of it; `called` when it is done or is to lead."""

    __slots__ = ("called", "error", "made", "step")

    def __init__(self, step: Callable[[sa.Connection], Made]) -> None:
        self.step = step
        self.called = threading.Event()
        self.made: list[Made] = []
        self.error: Exception | None = None

    @property
    def done(self) -> bool:
        return bool(self.made) or self.error is not None

    def collect(self) -> Made:
        if self.error is not None:
            raise self.error
        return self.made[0]


def event_values(
    at: float, instance_id: int, what: str, destination: object, reason: str
) -> dict[str, object]:
    return {"at": at, "instance_id": instance_id, "what": what, "destination": destination, "reason": reason}


def open_engine(path: Path) -> sa.Engine:
    """An engine whose writers begin IMMEDIATE and whose commits are on disk when they return."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # one that is there is not opened: to close it takes the locks that this process has on it, and
        # another would then take itself for the last and remove the write-ahead log
        if not path.is_file():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        elif not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise LedgerError(
            f"the ledger {path} cannot be opened: {error.strerror}; check its folder"
        ) from error
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": _BUSY_TIMEOUT_S})
    sa.event.listen(engine, "connect", _prepare)
    sa.event.listen(engine, "begin", _begin)
    return engine


_PRAGMAS = (
    "auto_vacuum = INCREMENTAL",  # of effect in a new file only, and before anything else
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    f"journal_size_limit = {_LOG_BYTES}",
)


def _prepare(connection: Any, _record: object) -> None:
    """Settings of one new connection; the driver itself must not begin or commit anything."""
    connection.isolation_level = None
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    reads = connection.get_execution_options().get("dicom_node_reads", False)
    if reads:
        connection.exec_driver_sql("BEGIN")
    else:
        raw: Any = connection.connection.dbapi_connection
        turns.begin(raw, _BUSY_TIMEOUT_S)


def damaged(path: Path, what: str) -> LedgerError:
    """What to say about a file that is no database any more."""
    return LedgerError(
        f"the ledger {path} is damaged: {what}; stop the node, keep the file aside, and repair a copy "
        "of it (sqlite3 COPY .recover) or put a back-up in its place; the objects in the spool are whole"
    )
