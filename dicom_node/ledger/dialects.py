"""Where a ledger is kept, and all that differs by it: a file of one machine, or a server for several.

    SQLite      one writer at a time; the clock is the machine's
    PostgreSQL  writers lock rows, not tables; the clock is the server's, so no two machines disagree

What both understand alike stands where it is used.
"""

from __future__ import annotations

import abc
import contextlib
import errno
import os
import select
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, TypeVarTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from dicom_node.errors import LedgerCollision, LedgerError, LedgerUnavailable
from dicom_node.ledger import turns

#: what `Ledger` takes: the file, or how to reach the server
Place = Path | sa.URL
#: (metric, labels, bound, value)
Tallied = tuple[str, str, str, float]
Insert = sqlite.Insert | postgresql.Insert

Asked = TypeVarTuple("Asked")

_OPTION = "dicom_node_dialect"
#: execution option of an engine that only reads
READS = "dicom_node_reads"
#: execution option of a connection for which SQLAlchemy begins what is no transaction yet
_NOT_YET = "dicom_node_not_yet"


class Lead:
    """Whether what one at a time does is for this process to do; true until the connection is lost."""

    def __init__(self, look: Callable[[], bool]) -> None:
        self._look = look

    def __bool__(self) -> bool:
        return self._look()


class Dialect(abc.ABC):
    """One place; `str` tells it, without a secret."""

    #: whether several nodes work on it; if so a lease is taken back by its holder's name
    shared: ClassVar[bool]
    #: folder of the migrations, below `migrations/`
    folder: ClassVar[str]
    #: what is raised where SQLAlchemy is passed by
    driver_error: type[Exception]
    #: seconds that the clock of `now` is ahead of this machine's, when it was last asked
    ahead_s = 0.0

    @abc.abstractmethod
    def engine(self) -> sa.Engine:
        """An engine whose commits are on disk when they return."""

    @abc.abstractmethod
    def begin(self, engine: sa.Engine) -> contextlib.AbstractContextManager[sa.Connection]:
        """A transaction, committed at the end of the block."""

    def await_disk(self, connection: sa.Connection, wanted: bool) -> None:  # noqa: B027 - a server always does
        """Whether the next commits of a connection wait until they are on disk; not in a transaction."""

    def sync(self) -> None:  # noqa: B027 - a server always has
        """Have what was committed without waiting for the disk on it; raises OSError."""

    @abc.abstractmethod
    def writer(self, engine: sa.Engine) -> sa.Connection:
        """A connection for many writes, one after another, by `start` and `commit`; not where `shared`.

        Closed, it takes back what was not committed.
        """

    @abc.abstractmethod
    def start(self, writer: sa.Connection) -> None:
        """Begin a write, when it is its turn."""

    @abc.abstractmethod
    def commit(self, writer: sa.Connection) -> None:
        """Commit it; on return it is on disk, if `await_disk` said so."""

    @abc.abstractmethod
    def session(self, engine: sa.Engine) -> contextlib.AbstractContextManager[Any]:
        """A connection of the driver, alive and without a transaction; only where `shared`."""

    @abc.abstractmethod
    def now(self, connection: sa.Connection) -> float:
        """The time by which leases end, seconds since 1970-01-01 UTC."""

    @abc.abstractmethod
    def refusal(self, error: Exception) -> LedgerError:
        """What to raise for what the database said: neither a statement nor its parameters nor a password."""

    @abc.abstractmethod
    def is_full(self, error: Exception) -> bool:
        """Whether this disk, not one of another machine, is full."""

    @abc.abstractmethod
    def lock_migration(self, connection: sa.Connection) -> None:
        """Let one at a time bring the schema up to date."""

    @abc.abstractmethod
    def version(self, connection: sa.Connection) -> int:
        """The number of the last migration that was applied; 0 before the first."""

    @abc.abstractmethod
    def apply(self, connection: sa.Connection, number: int, statements: Sequence[str]) -> None:
        """Run a migration and note its number."""

    @abc.abstractmethod
    def upsert(self, table: sa.Table) -> Insert:
        """An insert that may say `on_conflict_do_...`."""

    @abc.abstractmethod
    def add_tallies(self, connection: sa.Connection, rows: Sequence[Tallied]) -> None:
        """Add to counters and histograms."""

    @abc.abstractmethod
    def one_at_a_time(self, connection: sa.Connection, what: str) -> None:
        """Let whoever else writes about `what` wait until this transaction has ended."""

    @abc.abstractmethod
    def locked(
        self,
        query: sa.Select[*Asked],
        *order: sa.ColumnElement[Any],
        of: sa.Table | None = None,
        skip: bool = False,
    ) -> sa.Select[*Asked]:
        """A query whose rows, those of the table `of`, stay as they are until this transaction has ended.

        They are locked in this order, the same everywhere, so that no two writes wait for each other; with
        `skip`, those that another has locked are left out.
        """

    @abc.abstractmethod
    def lead(self, engine: sa.Engine, name: str) -> contextlib.AbstractContextManager[Lead]:
        """Lead within the block, unless somebody else does; ends with the connection, however that ends."""

    @abc.abstractmethod
    def last_number(self, connection: sa.Connection, table: str) -> int:
        """The highest number that was ever given to a row of a table whose rows are numbered."""

    @abc.abstractmethod
    def number_from(self, connection: sa.Connection, table: str, number: int) -> None:
        """Never give this number, nor a lower one, to a row of the table."""

    @abc.abstractmethod
    def load(self, connection: sa.Connection, table: sa.Table, rows: Sequence[sa.Row[Any]]) -> None:
        """Insert very many rows as they are, in the order of the table's columns."""

    def take_time(self, connection: sa.Connection) -> None:  # noqa: B027 - most take what they need
        """Let the statements of this transaction take as long as they need."""

    @abc.abstractmethod
    def settled_events(self, connection: sa.Connection) -> int | None:
        """The number up to which no event can appear any more; None if that is so of all that can be seen."""

    @abc.abstractmethod
    def problems(self, connection: sa.Connection) -> str:
        """What is damaged, "" if nothing is."""

    @abc.abstractmethod
    def damaged(self, what: str) -> LedgerError:
        """What to say about a ledger that is not whole any more."""

    @abc.abstractmethod
    def compact(self, connection: sa.Connection) -> bool:
        """Give some space back to the file system; True if more is to be given."""

    def tidy(self, engine: sa.Engine) -> None:  # noqa: B027 - most have nothing to tidy
        """Finish what `compact` began, outside of a transaction."""


def address(url: str, password: str | None = None) -> sa.URL:
    """Where a server is, with the password that no configuration and no message holds."""
    try:
        parsed = sa.make_url(url)
    except SQLAlchemyError as error:
        raise LedgerError(
            "the address of the ledger is none; write postgresql://USER@HOST:5432/DATABASE"
        ) from error
    return parsed if password is None else parsed.set(password=password)


def dialect_of(place: Place, pool: int = 1) -> Dialect:
    """The dialect of a place; `pool` connections to a server are kept open."""
    return SQLite(place) if isinstance(place, Path) else PostgreSQL(place, pool)


def of(connection: sa.Connection) -> Dialect:
    """The dialect that a connection was opened by."""
    dialect = connection.get_execution_options()[_OPTION]
    assert isinstance(dialect, Dialect)
    return dialect


def scripts(dialect: type[Dialect]) -> list[tuple[int, str]]:
    """The migrations of a dialect as (number, SQL), in order."""
    folder = resources.files("dicom_node") / "migrations" / dialect.folder
    files = sorted(file.name for file in folder.iterdir() if file.name.endswith(".sql"))
    return [(int(name[:4]), (folder / name).read_text("utf-8")) for name in files]


def open_engine(place: Place) -> sa.Engine:
    """An engine of a place, for whoever needs no more than that."""
    return dialect_of(place).engine()


class four_digits(FunctionElement[str]):  # noqa: N801 - reads as the function that it is
    """A number in at least four hexadecimal digits."""

    name = "four_digits"
    inherit_cache = True
    type = sa.Text()


@compiles(four_digits, "sqlite")
def _four_digits_in_sqlite(element: Any, compiler: Any, **kw: Any) -> str:
    return f"printf('%04x', {compiler.process(element.clauses, **kw)})"


@compiles(four_digits, "postgresql")
def _four_digits_in_postgresql(element: Any, compiler: Any, **kw: Any) -> str:
    return f"lpad(to_hex({compiler.process(element.clauses, **kw)}), 4, '0')"


# ---- SQLite ----

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
#: where a pooled connection notes how long SQLite waits, milliseconds, and whether for the disk
_WAITS, _SYNCS = "dicom_node_waits", "dicom_node_syncs"
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)

_PRAGMAS = (
    "auto_vacuum = INCREMENTAL",  # of effect in a new file only, and before anything else
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    f"journal_size_limit = {_LOG_BYTES}",
)
#: as text, because every commit runs it, and SQLAlchemy would take longer over its parameters than SQLite
_ADD_IN_SQLITE = (
    "INSERT INTO tallies (metric, labels, bound, value) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (metric, labels, bound) DO UPDATE SET value = value + excluded.value"
)


class SQLite(Dialect):
    """One file, shared by every thread and process of one machine."""

    shared = False
    folder = ""
    driver_error = sqlite3.Error

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def engine(self) -> sa.Engine:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # one that is there is not opened: to close it takes the locks that this process has on it, and
            # another would then take itself for the last and remove the write-ahead log
            if not self._path.is_file():
                os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            elif not os.access(self._path, os.R_OK | os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise LedgerError(
                f"the ledger {self} cannot be opened: {error.strerror}; check its folder"
            ) from error
        engine = sa.create_engine(
            f"sqlite:///{self._path}",
            connect_args={"timeout": _BUSY_TIMEOUT_S},
            execution_options={_OPTION: self},
        )
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine

    def begin(self, engine: sa.Engine) -> contextlib.AbstractContextManager[sa.Connection]:
        return engine.begin()

    def writer(self, engine: sa.Engine) -> sa.Connection:
        # for SQLAlchemy all of them are one transaction: its own way to begin and end one takes longer
        # than most statements
        writer = engine.connect().execution_options(**{_NOT_YET: True})
        writer.begin()
        return writer.execution_options(**{_NOT_YET: False})

    def start(self, writer: sa.Connection) -> None:
        writer.dispatch.begin(writer)

    def commit(self, writer: sa.Connection) -> None:
        writer.dispatch.commit(writer)
        writer.connection.commit()

    def await_disk(self, connection: sa.Connection, wanted: bool) -> None:
        pooled: Any = connection.connection
        if pooled.info.get(_SYNCS, True) != wanted:
            pooled.dbapi_connection.execute(f"PRAGMA synchronous = {'FULL' if wanted else 'NORMAL'}")
            pooled.info[_SYNCS] = wanted

    def sync(self) -> None:
        try:
            # where the file is a link, SQLite has the log beside what that leads to
            log = os.open(f"{os.path.realpath(self._path)}-wal", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # whoever took it away has put what it held into the file
            return
        try:
            os.fdatasync(log)
        finally:
            os.close(log)

    def session(self, _engine: sa.Engine) -> contextlib.AbstractContextManager[Any]:
        raise NotImplementedError("a file is written in turns")

    def now(self, _connection: sa.Connection) -> float:
        return time.time()

    def refusal(self, error: Exception) -> LedgerError:
        said = _said_by_sqlite(error)
        if getattr(said, "sqlite_errorcode", None) in _DAMAGE:
            return self.damaged(str(said))
        if isinstance(error, IntegrityError | sqlite3.IntegrityError):  # the same again is refused again
            return LedgerError(
                f"the ledger {self} takes no such row: {said}; report this as a fault of the node"
            )
        return LedgerUnavailable(f"the ledger {self} refuses: {said}; check its disk")

    def damaged(self, what: str) -> LedgerError:
        """What to say about a file that is no database any more."""
        return LedgerError(
            f"the ledger {self} is damaged: {what}; stop the node, keep the file aside, and repair a copy "
            "of it (sqlite3 COPY .recover) or put a back-up in its place; the objects in the spool are whole"
        )

    def is_full(self, error: Exception) -> bool:
        return getattr(_said_by_sqlite(error), "sqlite_errorcode", None) in _FULL

    def lock_migration(self, _connection: sa.Connection) -> None:
        """Whoever writes is alone already."""

    def version(self, connection: sa.Connection) -> int:
        return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())

    def apply(self, connection: sa.Connection, number: int, statements: Sequence[str]) -> None:
        for statement in statements:
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql(f"PRAGMA user_version = {number}")

    def upsert(self, table: sa.Table) -> Insert:
        return sqlite.insert(table)

    def add_tallies(self, connection: sa.Connection, rows: Sequence[Tallied]) -> None:
        connection.connection.cursor().executemany(_ADD_IN_SQLITE, rows)

    def one_at_a_time(self, _connection: sa.Connection, _what: str) -> None:
        """Whoever writes is alone already."""

    def locked(
        self, query: sa.Select[*Asked], *_order: sa.ColumnElement[Any], **_how: Any
    ) -> sa.Select[*Asked]:
        """Whoever writes is alone already."""
        return query

    @contextlib.contextmanager
    def lead(self, _engine: sa.Engine, _name: str) -> Iterator[Lead]:
        """A file has one node, which leads."""
        yield Lead(lambda: True)

    def last_number(self, connection: sa.Connection, table: str) -> int:
        query = "SELECT seq FROM sqlite_sequence WHERE name = ?"
        return int(connection.exec_driver_sql(query, (table,)).scalar() or 0)

    def number_from(self, connection: sa.Connection, table: str, number: int) -> None:
        connection.exec_driver_sql("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
        connection.exec_driver_sql("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, number))

    def load(self, connection: sa.Connection, table: sa.Table, rows: Sequence[sa.Row[Any]]) -> None:
        connection.execute(sa.insert(table), [dict(row._mapping) for row in rows])

    def settled_events(self, _connection: sa.Connection) -> int | None:
        return None

    def problems(self, connection: sa.Connection) -> str:
        found = connection.exec_driver_sql("PRAGMA quick_check(3)").scalars().all()
        return "" if found == ["ok"] else f"{len(found)} problems or more"

    def compact(self, connection: sa.Connection) -> bool:
        free = int(connection.exec_driver_sql("PRAGMA freelist_count").scalar_one())
        pages = int(connection.exec_driver_sql("PRAGMA page_count").scalar_one())
        if free <= _FREE_SHARE * pages:
            return False
        # a page for every row that is fetched, though the rows are empty: nothing for SQLAlchemy
        raw = connection.connection.cursor()
        raw.execute(f"PRAGMA incremental_vacuum({_COMPACTED_PAGES})")
        raw.fetchall()
        return int(connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()) < free

    def tidy(self, engine: sa.Engine) -> None:
        """Empty the write-ahead log."""
        with contextlib.closing(engine.raw_connection()) as raw:
            # a reader may be in the way for long; the next time is soon enough
            _wait_in_sqlite(raw, _COMPACTING_MS)
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _said_by_sqlite(error: Exception) -> object:
    """The database's own word; the error itself where SQLAlchemy is passed by."""
    said = error if isinstance(error, sqlite3.Error) else getattr(error, "orig", None)
    return said or type(error).__name__


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """Settings of one new connection; the driver itself must not begin or commit anything."""
    connection.isolation_level = None
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    options, pooled = connection.get_execution_options(), connection.connection
    if options.get(READS, False):
        _wait_in_sqlite(pooled, int(_BUSY_TIMEOUT_S * 1000))
        connection.exec_driver_sql("BEGIN")
    elif not options.get(_NOT_YET, False):
        _wait_in_sqlite(pooled, 0)
        raw: Any = pooled.dbapi_connection
        turns.begin(raw, _BUSY_TIMEOUT_S)


def _wait_in_sqlite(pooled: Any, longest_ms: int) -> None:
    """How long SQLite itself waits for another connection; asked for again only when it changes."""
    if pooled.info.get(_WAITS) != longest_ms:
        pooled.dbapi_connection.execute(f"PRAGMA busy_timeout = {longest_ms}")
        pooled.info[_WAITS] = longest_ms


# ---- PostgreSQL ----

#: connections that a peak may add to those that are kept
_PEAK = 4
#: how long a server may take to answer at all, seconds; the driver tries every host of the address in turn
_CONNECT_S = 5
#: the advisory lock of whoever brings the schema up to date
_MIGRATING = 7_305_814_420_116_001
#: a statement that takes longer is ended, and one that waits so long for another's lock; milliseconds
_STATEMENT_MS, _LOCK_MS = 60_000, 20_000
_NOW, _USED = "dicom_node_now", "dicom_node_used"

#: settings that a session begins with, whatever server, database and role say
_SESSION = {
    # of what is one message, as `trips` are: it has no BEGIN that could say so
    "default_transaction_isolation": r"read\ committed",
    "statement_timeout": _STATEMENT_MS,
    "lock_timeout": _LOCK_MS,
    "idle_session_timeout": 0,
    # a process that stands still in the midst of a write does not hold its locks for ever
    "idle_in_transaction_session_timeout": 60_000,
    # what is written is found by an index, also by a statement that was planned when the tables were small
    "enable_seqscan": "off",
    "jit": "off",
    # for the server: a node that is gone without a word would keep the lock of the leader for two hours
    "tcp_keepalives_idle": 10,
    "tcp_keepalives_interval": 5,
    "tcp_keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "dicom-node",
}
#: a peer that is gone without a word is noticed after half a minute
_SOCKET = {
    "connect_timeout": _CONNECT_S,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
#: a commit is on disk, and on that of a synchronous standby; only a setting that asks for more is left alone
_PREPARE = (
    "SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit')"
    " WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false),"
    " current_setting('fsync'), current_setting('full_page_writes')"
)
#: each connection counts in a shard that no other connection holds, so no two ever wait for a counter
_TAKE_SHARD = (
    "SELECT set_config('dicom_node.shard', number::text, false) FROM generate_series(0, 100000) AS number"
    " WHERE pg_try_advisory_lock(730581442, number) LIMIT 1"
)
#: one message: begin, and the time. A number for the transaction at once, so that `settled_events` sees it
_WRITE = (
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;"
    " SELECT extract(epoch FROM clock_timestamp())::float8, pg_current_xact_id()"
)
#: a report is planned as usual, and may be read slowly
_READ = (
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"
    " SELECT extract(epoch FROM clock_timestamp())::float8, set_config('enable_seqscan', 'on', true),"
    " set_config('idle_in_transaction_session_timeout', '0', true)"
)
_LEAD = "SELECT pg_try_advisory_lock(hashtextextended('lead ' || %s, 0))"
_RESIGN = "SELECT pg_advisory_unlock(hashtextextended('lead ' || %s, 0))"
#: in the order of their keys, as all that is counted
_ADD_IN_POSTGRESQL = (
    "INSERT INTO tallies AS t (metric, labels, bound, shard, value)"
    " SELECT m, l, b, current_setting('dicom_node.shard')::int, v"
    " FROM unnest(%s::text[], %s::text[], %s::text[], %s::float8[]) AS new (m, l, b, v)"
    " ON CONFLICT (metric, labels, bound, shard) DO UPDATE SET value = t.value + excluded.value"
)

#: classes of what a server says (SQLSTATE), each with what that means to whoever reads it
_COLLISIONS = ("40001", "40P01")
_ONLY_READS = "25006"
_UNAVAILABLE = {
    "08": "the connection was lost; it is tried again",
    "25": "it only reads, as a standby does; wait for the fail-over, or name the primary too",
    "53": "it is short of something; check its disk, memory and max_connections",
    "55": "somebody else holds a lock; it is tried again",
    "57": "it was stopped, starts or took too long; it is tried again",
    "58": "its disk or system fails; check the server's log",
}
_TO_BE_MENDED = {
    "22": "it takes no such value; report this as a fault of the node",
    "23": "it takes no such row; report this as a fault of the node",
    "28": "it does not let this role in; check role, password file and pg_hba.conf",
    "3D": "there is no such database; make it (CREATE DATABASE)",
    "42": "the role may not do this, or a table is missing; the role must own the tables",
    "XX": "it is damaged; stop the nodes, and see its log and a back-up",
}
#: what the driver says before a server has given a class, as servers say it in English
_AT_THE_DOOR = {
    "authentication failed": "28",
    "no password supplied": "28",
    "pg_hba.conf": "28",
    "role": "28",
    "does not exist": "3D",
}


class PostgreSQL(Dialect):
    """One database of a PostgreSQL server, or of several of which one at a time takes writes.

    Parameters
    ----------
    url : where it is, and as whom; several hosts as `?host=one:5432&host=two:5432`
    pool : connections that are kept open
    """

    shared = True
    folder = "postgresql"

    def __init__(self, url: sa.URL, pool: int) -> None:
        self._url = url.set(drivername="postgresql+psycopg")
        self._pool = pool
        self._seen: list[tuple[int, int]] = []
        self._settled = 0

    def __str__(self) -> str:
        hosts = self._url.query.get("host", self._url.host or "localhost")
        told = hosts if isinstance(hosts, str) else ",".join(hosts)
        return f"{self._url.database} on {told}"

    def engine(self) -> sa.Engine:
        options = " ".join(f"-c {name}={value}" for name, value in _SESSION.items())
        # of several hosts, and of one that may be a standby, the one that takes writes
        asked = {**_SOCKET, "target_session_attrs": "read-write", "options": options}
        try:
            engine = sa.create_engine(
                self._url,
                pool_size=self._pool,
                max_overflow=_PEAK,
                hide_parameters=True,
                connect_args={name: value for name, value in asked.items() if name not in self._url.query},
                execution_options={_OPTION: self},
            )
        except ImportError as error:
            raise LedgerError(
                "a ledger on PostgreSQL needs the driver psycopg; install dicom-node[cluster]"
            ) from error
        sa.event.listen(engine, "connect", self._prepare)
        sa.event.listen(engine, "begin", _begin_postgresql)
        assert engine.dialect.loaded_dbapi is not None
        self.driver_error = engine.dialect.loaded_dbapi.Error
        return engine

    def _prepare(self, connection: Any, _record: object) -> None:
        """Settings of one new session; the driver itself must not begin or commit anything."""
        connection.autocommit = True
        with connection.cursor() as cursor:
            _, fsync, whole_pages = cursor.execute(_PREPARE).fetchone()
            if "off" in (fsync, whole_pages):
                raise LedgerError(
                    f"the ledger {self} is on a server with fsync or full_page_writes off, which forgets "
                    "what it has committed; turn both on"
                )
            cursor.execute(_TAKE_SHARD)

    @contextlib.contextmanager
    def begin(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        with contextlib.ExitStack() as stack:
            connection = self._begun(engine, stack)
            try:
                yield connection
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) == _ONLY_READS:
                    connection.invalidate(error)  # the next one looks for the primary among the hosts
                raise

    def writer(self, _engine: sa.Engine) -> sa.Connection:
        raise NotImplementedError("a server takes many writes at once")

    def start(self, writer: sa.Connection) -> None:
        raise NotImplementedError("a server takes many writes at once")

    def commit(self, writer: sa.Connection) -> None:
        raise NotImplementedError("a server takes many writes at once")

    @contextlib.contextmanager
    def session(self, engine: sa.Engine) -> Iterator[Any]:
        session = _fresh(engine)
        driver: Any = session.driver_connection
        try:
            yield driver
        except self.driver_error as error:
            if driver.closed or getattr(error, "sqlstate", None) == _ONLY_READS:
                session.invalidate(error)
            told = DBAPIError.instance("", None, error, self.driver_error, dialect=engine.dialect)
            raise told from error
        finally:
            session.close()

    def _begun(self, engine: sa.Engine, stack: contextlib.ExitStack) -> sa.Connection:
        """A transaction on a session that is alive, none from before a restart of the server."""
        while True:
            try:
                return stack.enter_context(engine.begin())
            except _GoneError as error:
                if error.fresh:
                    raise

    def now(self, connection: sa.Connection) -> float:
        return float(connection.info[_NOW])

    def refusal(self, error: Exception) -> LedgerError:
        said = getattr(error, "orig", None) or error
        state = getattr(said, "sqlstate", None) or _state_at_the_door(error, said)
        if state in _COLLISIONS:
            return LedgerCollision(f"the ledger {self}: another write was in the way; try again")
        if (remedy := _TO_BE_MENDED.get(state[:2])) is not None:
            return LedgerError(f"the ledger {self} refuses ({_told(said)}): {remedy}")
        remedy = _UNAVAILABLE.get(state[:2], "it cannot be reached; check server and network")
        return LedgerUnavailable(f"the ledger {self} is not available ({_told(said)}): {remedy}")

    def is_full(self, _error: Exception) -> bool:
        return False

    def lock_migration(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATING})")

    def version(self, connection: sa.Connection) -> int:
        known = connection.exec_driver_sql("SELECT to_regclass('schema_version')").scalar()
        if known is None:
            return 0
        return int(connection.exec_driver_sql("SELECT version FROM schema_version").scalar_one())

    def apply(self, connection: sa.Connection, number: int, statements: Sequence[str]) -> None:
        for statement in statements:
            connection.connection.cursor().execute(statement)
        connection.exec_driver_sql("UPDATE schema_version SET version = %s", (number,))

    def upsert(self, table: sa.Table) -> Insert:
        return postgresql.insert(table)

    def add_tallies(self, connection: sa.Connection, rows: Sequence[Tallied]) -> None:
        columns = tuple(list(column) for column in zip(*sorted(rows), strict=True))
        connection.exec_driver_sql(_ADD_IN_POSTGRESQL, columns)

    def one_at_a_time(self, connection: sa.Connection, what: str) -> None:
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (what,))

    def locked(
        self,
        query: sa.Select[*Asked],
        *order: sa.ColumnElement[Any],
        of: sa.Table | None = None,
        skip: bool = False,
    ) -> sa.Select[*Asked]:
        # not FOR UPDATE: whoever only refers to a row, as an event does to its instance, need not wait
        return query.order_by(*order).with_for_update(key_share=True, skip_locked=skip, of=of)

    @contextlib.contextmanager
    def lead(self, engine: sa.Engine, name: str) -> Iterator[Lead]:
        session = _fresh(engine)
        leads = bool(_ask(session, _LEAD, name))
        try:
            yield Lead(lambda: leads and _is_there(session))
        finally:
            if leads:
                try:
                    _ask(session, _RESIGN, name)
                except self.driver_error:
                    session.invalidate()  # and with it goes the lock
            session.close()

    def last_number(self, connection: sa.Connection, table: str) -> int:
        # a sequence begins at 1; what it gives next is not what it gave
        query = "SELECT coalesce(pg_sequence_last_value(%s::regclass), 0)"
        return int(connection.exec_driver_sql(query, (f"{table}_id_seq",)).scalar_one())

    def number_from(self, connection: sa.Connection, table: str, number: int) -> None:
        if number:
            connection.exec_driver_sql("SELECT setval(%s::regclass, %s)", (f"{table}_id_seq", number))

    def load(self, connection: sa.Connection, table: sa.Table, rows: Sequence[sa.Row[Any]]) -> None:
        columns = ", ".join(column.name for column in table.columns)
        cursor: Any = connection.connection.cursor()
        with cursor, cursor.copy(f"COPY {table.name} ({columns}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)

    def take_time(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql(
            "SELECT set_config('statement_timeout', '0', true),"
            " set_config('idle_in_transaction_session_timeout', '0', true)"
        )

    def settled_events(self, connection: sa.Connection) -> int | None:
        """Numbers are given out in one order and committed in another.

        An event that is numbered lower than one that can be seen may still be in an open transaction. Each
        transaction has its own number before it gives one to an event; so once all that are older than this
        one have ended, no event up to the number that was given last can appear any more.
        """
        last = self.last_number(connection, "events")
        query = "SELECT pg_current_xact_id()::text, pg_snapshot_xmin(pg_current_snapshot())::text"
        mine, oldest = map(int, connection.exec_driver_sql(query).one())
        self._seen.append((last, mine))
        ended = [number for number, transaction in self._seen if transaction <= oldest]
        self._settled = max([self._settled, *ended])
        waiting = [pair for pair in self._seen if pair[1] > oldest]
        # the oldest is settled first, the newest tells most
        self._seen = waiting[:1] + waiting[1:][-1:]
        return self._settled

    def problems(self, connection: sa.Connection) -> str:
        query = (
            "SELECT coalesce(max(checksum_failures), 0) FROM pg_stat_database"
            " WHERE (datname = current_database())"
        )
        failed = int(connection.exec_driver_sql(query).scalar_one())
        return f"{failed} pages with a wrong checksum" if failed else ""

    def compact(self, _connection: sa.Connection) -> bool:
        """The server gives space back by itself."""
        return False

    def damaged(self, what: str) -> LedgerError:
        """What to say about a database that is not whole any more."""
        return LedgerError(
            f"the ledger {self} is damaged: {what}; stop the nodes, and put a back-up or a standby in its "
            "place; the objects in the spool are whole"
        )


class _GoneError(SQLAlchemyError):
    """A session had ended before the transaction was begun; `fresh` if it never had one."""

    def __init__(self, orig: Exception, *, fresh: bool) -> None:
        super().__init__(type(orig).__name__)
        self.orig, self.fresh = orig, fresh


def _begin_postgresql(connection: sa.Connection) -> None:
    reads = connection.get_execution_options().get(READS, False)
    fresh = _USED not in connection.info
    try:
        cursor: Any = connection.connection.cursor()
        with cursor:
            cursor.execute(_READ if reads else _WRITE)
            while cursor.nextset():
                pass
            now = connection.info[_NOW] = cursor.fetchone()[0]
        connection.info[_USED] = True
        of(connection).ahead_s = now - time.time()
    except connection.dialect.loaded_dbapi.Error as error:
        connection.invalidate(error)
        raise _GoneError(error, fresh=fresh) from None


def _fresh(engine: sa.Engine) -> sa.PoolProxiedConnection:
    """A session without a transaction, which is sure to be alive."""
    while True:
        session = engine.raw_connection()
        # an idle session hears nothing but its end
        if not _speaks(session) or _is_there(session) or _USED not in session.info:
            session.info[_USED] = True
            return session
        session.invalidate()  # the pool had kept it over a restart of the server


def _speaks(session: sa.PoolProxiedConnection) -> bool:
    """Whether the server has said something unasked, or has closed the connection."""
    driver: Any = session.driver_connection
    if driver.closed:
        return True
    listening = select.poll()
    listening.register(driver.fileno(), select.POLLIN)
    return bool(listening.poll(0))


def _ask(session: sa.PoolProxiedConnection, query: str, *values: str) -> object:
    cursor: Any = session.cursor()
    with cursor:
        return cursor.execute(query, values).fetchone()[0]


def _is_there(session: sa.PoolProxiedConnection) -> bool:
    try:
        return _ask(session, "SELECT 1") == 1
    except Exception:  # however it ended, it has
        return False


def _state_at_the_door(error: Exception, said: Exception) -> str:
    """The class of what was refused before the server saw it, or let anybody in."""
    if isinstance(error, DataError):
        return "22000"
    return next((state for words, state in _AT_THE_DOOR.items() if words in str(said)), "")


def _told(said: object) -> str:
    """What the server said, without what it quotes: its details hold values of rows."""
    diagnosis = getattr(said, "diag", None)
    place = [getattr(diagnosis, name, None) for name in ("table_name", "column_name", "constraint_name")]
    return " ".join([type(said).__name__, *(word for word in place if word)])
