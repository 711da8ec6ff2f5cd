"""The database: opened, begun, committed, and how it refuses. Every part of the ledger stands on it."""

from __future__ import annotations

import contextlib
import enum
import functools
import random
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.errors import LedgerCollision, LedgerError, LedgerUnavailable
from dicom_node.ledger import tallies, trips
from dicom_node.ledger.dialects import READS, Lead, Place, dialect_of, scripts
from dicom_node.ledger.schema import events, homes, migrate, require_present
from dicom_node.ledger.statements import Statement
from dicom_node.ledger.trips import Trip
from dicom_node.metrics import Reading

#: in place of a name: rows of another ledger are on their way here, and nobody works before all have come
INCOMPLETE = "?"
#: how often a write that lost against another is tried, and how long it waits in between at most, seconds
_TRIES, _PAUSE_S = 8, 0.05

#: appends to the record of an instance; its values are `event_values`
NOTE = Statement(
    sa.insert(events).values(
        {name: sa.bindparam(name) for name in ("at", "instance_id", "destination", "what", "reason")}
    )
)

Asked = ParamSpec("Asked")
Made = TypeVar("Made")


class Loss(enum.StrEnum):
    """Why a lease was taken back; the word that the events keep."""

    LEASE = "lease-expired"
    WORKER = "worker-died"
    RESTART = "node-restarted"


class Database:
    """A SQLite file that the processes of one machine share, or a PostgreSQL database that nodes share.

    Parameters
    ----------
    place : the file, made if absent, or the database; its schema is brought up to date
    clock : now, in seconds since 1970-01-01 UTC; left out, the machine's clock for a file, and the server's
        for a database, so that machines whose clocks differ agree when a lease ends
    existing : neither make nor change it, for whoever looks in from outside
    on_full : called when this machine's disk is full; returns whether that made room
    holder : the name under which a node of several leases, the same after a restart; else the machine's
    pool : connections to a database that are kept open
    even_moved : also a ledger that was moved to another place, for whoever takes that back

    Raises
    ------
    LedgerError : it cannot be opened, is no ledger, or was written by a newer version; every method
        raises it when the database refuses (disk full, locked for too long, damaged)
    """

    def __init__(
        self,
        place: Place,
        *,
        clock: Callable[[], float] | None = None,
        existing: bool = False,
        on_full: Callable[[], bool] = lambda: False,
        holder: str = "",
        pool: int = 8,
        even_moved: bool = False,
    ) -> None:
        self._dialect = dialect_of(place, pool)
        self._holder = (holder or socket.gethostname()) if self._dialect.shared else ""
        self._clock = clock
        self._on_full = on_full
        self._made_room = False
        # SQLite lets one writer in at a time and makes the others poll; threads queue up here instead
        self._turn = threading.Lock()
        self._together: Alone | Grouped = Alone(self) if self._dialect.shared else Grouped(self)
        #: the connection of whoever has the turn
        self._writer: sa.Connection | None = None
        #: how often what had been committed was then on disk; the newest delivery when last looked at
        self._syncs = self._newest = 0
        self._soon = tallies.Soon()
        self._scripts = scripts(type(self._dialect))
        self._engine = self._dialect.engine()
        self._reader = self._engine.execution_options(**{READS: True})
        try:
            self._insist(self._require_present if existing else self._migrate)
            if not even_moved:
                self._require_not_moved()
        except BaseException:
            self.close()
            raise

    @property
    def place(self) -> str:
        """Where it is, for whoever is told; without a secret."""
        return str(self._dialect)

    def close(self) -> None:
        """Close every connection."""
        with self._turn:
            self._forget_writer()
        self._engine.dispose()

    def compact(self) -> bool:
        """Give some space back to the file system, if much of the file is free; True if more is to be given.

        At the end the write-ahead log is emptied too. A server does both by itself.
        """
        with self._writing() as connection:
            if self._dialect.compact(connection):
                return True
        with self._refusals():
            self._dialect.tidy(self._engine)
        return False

    @contextlib.contextmanager
    def lead(self, name: str) -> Iterator[Lead]:
        """Do within the block what one node at a time does, if the value is true; never waits.

        It stays true until the connection to the server is lost: ask again before what must not be done
        twice. A ledger that is a file has one node, which always leads.
        """
        with self._refusals(), self._dialect.lead(self._engine, name) as lead:
            yield lead

    def count_soon(self, *readings: Reading) -> None:
        """Count what no row stands for; it is written with the next step that is, or by `settle`."""
        self._soon.add(readings)

    def settle(self) -> None:
        """Write what was counted without a row, if anything was."""
        if self._soon:
            with self._writing():
                pass

    def mark(self) -> int:
        """A moment, for `is_on_disk`."""
        return self._syncs

    def is_on_disk(self, mark: int) -> bool:
        """Whether what was committed before `mark` would outlast a power cut.

        It would as soon as anything has been committed that waits for the disk, since a file takes what comes
        in its order. Not every such write is known here: it may be on disk although this says that it is not.
        """
        return self._dialect.shared or self._syncs > mark

    def sync(self) -> None:
        """Have everything that was committed on disk; raises LedgerUnavailable."""
        with self._turn:
            try:
                self._dialect.sync()
            except OSError as error:
                raise LedgerUnavailable(
                    f"the ledger {self._dialect} refuses: {error.strerror}; check its disk"
                ) from error
            self._syncs += 1

    def _others_synced(self, newest: int) -> None:
        """Within a write: the newest delivery. Who queued it waited for the disk before it could be seen."""
        self._syncs += newest > self._newest
        self._newest = newest

    def _migrate(self) -> None:
        with self._refusals(), self._dialect.begin(self._engine) as connection:
            migrate(connection, self._scripts)

    def _require_present(self) -> None:
        with self._reading() as connection:
            require_present(connection, self._scripts)

    def _require_not_moved(self) -> None:
        with self._reading() as connection:
            place = connection.execute(sa.select(homes.c.moved_to)).scalar_one()
        if place == INCOMPLETE:
            raise LedgerError(
                f"the move of a node into the ledger {self._dialect} has not come to its end; give the same "
                "`dicom-node cluster move` again, then start"
            )
        if place:
            raise LedgerError(
                f"the ledger {self._dialect} was moved to {place}, and what came since is only there; start "
                "the node with that cluster, or take the move back if it was never started there"
            )

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
        values = event_values(self._now(connection), instance_id, what, destination, reason)
        NOTE.run(connection, values)

    def _now(self, connection: sa.Connection) -> float:
        """The time by which leases end."""
        return self._dialect.now(connection) if self._clock is None else self._clock()

    def _about_now(self) -> float:
        """The same without a question, as far as the last answer told how this machine's clock goes."""
        return time.time() + self._dialect.ahead_s if self._clock is None else self._clock()

    def _there(self, connection: sa.Connection, at: float) -> float:
        """A moment that this machine's clock was asked about, by the clock of `_now`."""
        if self._clock is not None or not self._dialect.shared:
            return at
        return at + self._dialect.now(connection) - time.time()

    def _named(self, worker: str) -> str:
        """The name of a worker among those of every node."""
        return f"{self._holder}/{worker}" if self._dialect.shared else worker

    @contextlib.contextmanager
    def _writing(self, *, awaits_disk: bool = True) -> Iterator[sa.Connection]:
        """A write of several statements; who uses it is `repeated`.

        One that does not wait for the disk outlasts the end of every process, but not that of the machine. It
        is on disk when `sync` or any write that waits has returned; see `is_on_disk`. A server always waits.
        """
        turn = contextlib.nullcontext() if self._dialect.shared else self._turn
        with turn, self._transaction(awaits_disk=awaits_disk) as connection:
            yield connection

    @contextlib.contextmanager
    def _transaction(self, *, awaits_disk: bool = True) -> Iterator[sa.Connection]:
        """A write of whoever has the turn, and of what was counted since the last."""
        soon = self._soon.take()
        try:
            with self._refusals(), self._begun(awaits_disk) as connection:
                tallies.begin(connection)
                yield connection
                tallies.write(connection, soon)
        except BaseException:
            self._soon.give_back(soon)
            raise

    def _at_once(
        self, trip: Trip, values: Mapping[str, object], readings: Iterable[Reading] = ()
    ) -> trips.Rows:
        """One message to a server, committed on return, and `readings` counted with it; see `trips`.

        Rows that do not begin with true were not written, nor was anything else.
        """
        soon = self._soon.take()
        tally: tallies.Tally = defaultdict(float)
        tallies.add(tally, readings)
        tallies.merge(tally, soon)
        counted = [dict(zip("mlbv", row, strict=True)) for row in tallies.as_rows(tally)]
        now = None if self._clock is None else self._clock()
        done = False
        try:
            with self._refusals(), self._dialect.session(self._engine) as session:
                rows = trip.run(session, {**values, "now": now, "tally": trips.as_rows(counted)})
            done = bool(rows and rows[0][0])
        finally:
            if not done:
                self._soon.give_back(soon)
        return rows

    @contextlib.contextmanager
    def _begun(self, awaits_disk: bool) -> Iterator[sa.Connection]:
        """A transaction; in a file on a connection that is kept: one from the pool takes longer than this."""
        if self._dialect.shared:
            with self._dialect.begin(self._engine) as connection:
                yield connection
            return
        if self._writer is None:
            self._writer = self._dialect.writer(self._engine)
        try:
            self._dialect.await_disk(self._writer, awaits_disk)
            raw: Any = self._writer.connection.dbapi_connection
            changes = raw.total_changes
            self._dialect.start(self._writer)
            yield self._writer
            self._dialect.commit(self._writer)
            # a commit of nothing leaves the disk alone
            self._syncs += awaits_disk and raw.total_changes != changes
        except BaseException:
            self._forget_writer()
            raise

    def _forget_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with self._refusals(), self._dialect.begin(self._reader) as connection:
            yield connection

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        """Say what the database said, without the statement and its parameters; make room on a full disk."""
        try:
            yield
        except (SQLAlchemyError, self._dialect.driver_error) as error:
            if self._dialect.is_full(error):
                self._made_room = self._on_full()
            # what a server says may hold values of the row: no chain
            raise self._dialect.refusal(error) from (None if self._dialect.shared else error)


def repeated(
    method: Callable[Concatenate[Any, Asked], Made],
) -> Callable[Concatenate[Any, Asked], Made]:
    """A method whose transaction is tried again when another write was in its way, as in a deadlock."""

    @functools.wraps(method)
    def call(self: Any, /, *args: Asked.args, **kwargs: Asked.kwargs) -> Made:
        for attempt in range(1, _TRIES):
            try:
                return method(self, *args, **kwargs)
            except LedgerCollision:
                time.sleep(random.uniform(0.0, _PAUSE_S * attempt / _TRIES))  # noqa: S311 - no secret
        return method(self, *args, **kwargs)

    return call


class Alone:
    """Each write in a transaction of its own: on a server threads commit at once, and share its syncs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @repeated
    def __call__(self, step: Callable[[sa.Connection], Made]) -> Made:
        """What `step` returns, once what it wrote is committed; raises what it raises."""
        with self._database._transaction() as connection:
            return step(connection)


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
            called = ticket.called = None if leads else threading.Event()
        if called is not None:
            called.wait()
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
                if ticket.called is not None:
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
    """What a thread wants written, and what came of it; `called` when it is done or is to lead.

    Who leads from the start is never called.
    """

    __slots__ = ("called", "error", "made", "step")

    def __init__(self, step: Callable[[sa.Connection], Made]) -> None:
        self.step = step
        self.called: threading.Event | None = None
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
