"""The state of every instance and delivery, made durable; the only file that knows SQL.

Rules that bind here:
1. What a method has returned from is on disk: every write is one transaction, begun IMMEDIATE and committed
   with `synchronous=FULL`.
2. A row moves only along the tables of `jobs`; whoever moves it out of a lease proves by (id, token) that the
   lease is still its own, else StaleLease. A token is never given out twice for a row.
3. An arrival is known by (SOP Instance UID, SHA-256 of its bytes, route). The same again is acknowledged and
   starts nothing; the same UID with other content is kept, processed and counted as a conflict.
4. An instance that loses its worker twice is quarantined. One that lost its worker once is leased alone, so
   that whoever dies with it in hand accuses nobody else.

Every thread and process of the node may hold a ledger of the same file; a forked child must open its own.
Times are seconds since 1970-01-01 UTC.
"""

from __future__ import annotations

import contextlib
import enum
import itertools
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.errors import IllegalTransition, LedgerError, StaleLease
from dicom_node.jobs import (
    Arrival,
    DeliveryState,
    InstanceState,
    Outcome,
    Send,
    Work,
    check_delivery_move,
    check_instance_move,
)
from dicom_node.metrics import DeliveryTally, InstanceTally, QueueAge, Snapshot

#: an instance that loses its worker this often is quarantined
LOST_LIMIT = 2
#: an instance that was in work at this many restarts is quarantined: it may be what kills the node
INTERRUPTED_LIMIT = 10
#: how long a write waits for a writer in another process before the ledger refuses, seconds
_BUSY_TIMEOUT_S = 30.0

_Row = sa.Row[*tuple[Any, ...]]
_METADATA = sa.MetaData()

_instances = sa.Table(
    "instances",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("sop_class_uid", sa.Text),
    sa.Column("sop_instance_uid", sa.Text),
    sa.Column("transfer_syntax_uid", sa.Text),
    sa.Column("calling_ae", sa.Text),
    sa.Column("called_ae", sa.Text),
    sa.Column("route", sa.Text),
    sa.Column("blob", sa.Text),
    sa.Column("size", sa.Integer),
    sa.Column("received_at", sa.Float),
    sa.Column("repeats", sa.Integer),
    sa.Column("conflict", sa.Integer),
    sa.Column("state", sa.Text),
    sa.Column("next_at", sa.Float),
    sa.Column("attempts", sa.Integer),
    sa.Column("lost", sa.Integer),
    sa.Column("interrupted", sa.Integer),
    sa.Column("worker", sa.Text),
    sa.Column("lease_until", sa.Float),
    sa.Column("token", sa.Integer),
    sa.Column("result", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("out_blob", sa.Text),
    sa.Column("out_sop_class_uid", sa.Text),
    sa.Column("out_sop_instance_uid", sa.Text),
    sa.Column("out_transfer_syntax_uid", sa.Text),
)

_deliveries = sa.Table(
    "deliveries",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("instance_id", sa.Integer),
    sa.Column("destination", sa.Text),
    sa.Column("priority", sa.Integer),
    sa.Column("queued_at", sa.Float),
    sa.Column("state", sa.Text),
    sa.Column("next_at", sa.Float),
    sa.Column("attempts", sa.Integer),
    sa.Column("tries", sa.Integer),
    sa.Column("lease_until", sa.Float),
    sa.Column("token", sa.Integer),
    sa.Column("status", sa.Integer),
    sa.Column("reason", sa.Text),
)

_events = sa.Table(
    "events",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", sa.Float),
    sa.Column("instance_id", sa.Integer),
    sa.Column("destination", sa.Text),
    sa.Column("what", sa.Text),
    sa.Column("reason", sa.Text),
)

_i, _d = _instances.c, _deliveries.c


def _in_state(table: sa.Table, *states: InstanceState | DeliveryState) -> sa.ColumnElement[bool]:
    """`state = 'x'` with literals: a bound parameter would keep a partial index from serving."""
    words: list[sa.ColumnElement[str]] = [sa.literal_column(f"'{state}'") for state in states]
    return table.c.state == words[0] if len(words) == 1 else table.c.state.in_(words)


_WORKING = _in_state(_instances, InstanceState.WORKING)
_RECEIVED = _in_state(_instances, InstanceState.RECEIVED)
_SENDING = _in_state(_deliveries, DeliveryState.SENDING)
_QUEUED = _in_state(_deliveries, DeliveryState.QUEUED)
_UNPROCESSED = _in_state(_instances, InstanceState.RECEIVED, InstanceState.WORKING)
_UNDELIVERED = _in_state(_deliveries, DeliveryState.QUEUED, DeliveryState.SENDING)


@dataclass(frozen=True, slots=True)
class Added:
    """An arrival's row: `duplicate` if it was there already, `conflict` if only its UID was."""

    id: int
    duplicate: bool
    conflict: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """One step in the life of an instance; `destination` is empty unless it is about a delivery."""

    at: float
    instance_id: int
    what: str
    destination: str
    reason: str


@dataclass(frozen=True, slots=True)
class Kept:
    """An instance that waits for an operator: held or quarantined."""

    id: int
    state: InstanceState
    result: str
    reason: str
    route: str
    sop_instance_uid: str
    blob: str
    received_at: float


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A delivery that was given up."""

    id: int
    destination: str
    reason: str
    attempts: int
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Counts:
    """How many instances and deliveries are in each state; every state is present."""

    instances: Mapping[InstanceState, int]
    deliveries: Mapping[DeliveryState, int]

    @property
    def idle(self) -> bool:
        """Whether nothing is waiting or under way."""
        return not (
            self.instances[InstanceState.RECEIVED]
            or self.instances[InstanceState.WORKING]
            or self.deliveries[DeliveryState.QUEUED]
            or self.deliveries[DeliveryState.SENDING]
        )


class Ledger:
    """The jobs of one node, in one SQLite file.

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
        self._engine = _engine(path)
        self._reader = self._engine.execution_options(dicom_node_reads=True)
        with self._writing() as connection:
            _migrate(connection, _scripts())

    # ---- arrivals ----

    def add(self, arrival: Arrival, blob: str, size: int) -> Added:
        """Record an arrival whose bytes are in the spool; on return it may be acknowledged."""
        with self._writing() as connection:
            same_uid = connection.execute(
                sa.select(_i.id, _i.blob).where(
                    _i.sop_instance_uid == arrival.sop_instance_uid, _i.route == arrival.route
                )
            ).all()
            known = next((row.id for row in same_uid if row.blob == blob), None)
            if known is not None:
                connection.execute(sa.update(_instances).where(_i.id == known).values(repeats=_i.repeats + 1))
                return Added(known, duplicate=True)
            now = self._clock()
            values = _arrival_values(arrival) | {
                "blob": blob,
                "size": size,
                "received_at": now,
                "next_at": now,
                "conflict": int(bool(same_uid)),
                "state": InstanceState.RECEIVED,
            }
            made = connection.execute(sa.insert(_instances), values).inserted_primary_key
            assert made is not None
            self._note(connection, made[0], InstanceState.RECEIVED)
            return Added(made[0], duplicate=False, conflict=bool(same_uid))

    # ---- work ----

    def claim_work(self, worker: str, limit: int, lease_s: float) -> list[Work]:
        """Lease up to `limit` waiting instances to `worker`, the longest waiting first.

        Takes back expired leases first. An instance that lost a lease before comes alone; so claim again only
        when the batch is done.
        """
        with self._writing() as connection:
            self._take_back_work(connection, _i.lease_until <= self._clock(), _Loss.LEASE)
            now = self._clock()
            rows = connection.execute(
                sa.select(_instances)
                .where(_RECEIVED, _i.next_at <= now)
                .order_by(_i.next_at, _i.id)
                .limit(limit)
            ).all()
            rows = _without_company(rows)
            connection.execute(
                sa.update(_instances)
                .where(_i.id.in_([row.id for row in rows]))
                .values(
                    state=InstanceState.WORKING,
                    worker=worker,
                    lease_until=now + lease_s,
                    attempts=_i.attempts + 1,
                    token=_i.token + 1,
                )
            )
            return [_work(row) for row in rows]

    def beat(self, work: Work, lease_s: float) -> None:
        """Prolong a lease to `lease_s` from now; StaleLease if it has gone to somebody else."""
        with self._writing() as connection:
            self._change_work(connection, work, {"lease_until": self._clock() + lease_s})

    def finish(self, work: Work, outcome: Outcome, *, priority: int = 0) -> None:
        """Record what became of an instance and queue its deliveries, in one transaction.

        Deliveries of higher `priority` are sent first.

        Raises
        ------
        StaleLease : the lease has gone to somebody else; drop the result
        IllegalTransition : the outcome is no end of work; use `release` to give an instance back
        LedgerError : something is to be delivered, but the outcome names no blob
        """
        if outcome.state is InstanceState.RECEIVED:
            raise IllegalTransition(
                f"instance {work.id}: finished work cannot be {outcome.state}; release it"
            )
        check_instance_move(InstanceState.WORKING, outcome.state)
        if outcome.destinations and not (outcome.state is InstanceState.READY and outcome.blob):
            raise LedgerError(
                f"instance {work.id} is {outcome.state} with nothing to deliver; deliver nothing"
            )
        with self._writing() as connection:
            self._change_work(connection, work, _outcome_values(outcome))
            self._note(connection, work.id, outcome.state, reason=outcome.reason)
            self._queue(connection, work.id, outcome.destinations, priority)

    def release(self, work: Work, at: float, reason: str) -> None:
        """Give an instance back, to be leased again from `at` on; `reason` is a bounded word."""
        with self._writing() as connection:
            self._change_work(
                connection, work, {"state": InstanceState.RECEIVED, "next_at": at, "reason": reason}
            )
            self._note(connection, work.id, "released", reason=reason)

    def worker_died(self, worker: str) -> int:
        """Take back at once whatever a dead worker held; returns how many instances."""
        with self._writing() as connection:
            return self._take_back_work(connection, _i.worker == worker, _Loss.WORKER)

    # ---- deliveries ----

    def claim_sends(self, destination: str, limit: int, lease_s: float) -> list[Send]:
        """Lease up to `limit` due deliveries of a destination: by priority, then next_at, then id.

        Takes back expired leases first.
        """
        with self._writing() as connection:
            expired = sa.and_(_d.destination == destination, _d.lease_until <= self._clock())
            self._take_back_sends(connection, expired, _Loss.LEASE)
            now = self._clock()
            rows = connection.execute(
                sa.select(
                    _d.id,
                    _d.token,
                    _d.attempts,
                    _d.destination,
                    _i.out_blob,
                    _i.out_sop_class_uid,
                    _i.out_sop_instance_uid,
                    _i.out_transfer_syntax_uid,
                )
                .join_from(_deliveries, _instances, _d.instance_id == _i.id)
                .where(_QUEUED, _d.destination == destination, _d.next_at <= now)
                .order_by(_d.priority.desc(), _d.next_at, _d.id)
                .limit(limit)
            ).all()
            connection.execute(
                sa.update(_deliveries)
                .where(_d.id.in_([row.id for row in rows]))
                .values(
                    state=DeliveryState.SENDING,
                    lease_until=now + lease_s,
                    attempts=_d.attempts + 1,
                    tries=_d.tries + 1,
                    token=_d.token + 1,
                )
            )
            return [_send(row) for row in rows]

    def beat_send(self, send: Send, lease_s: float) -> None:
        """Prolong a delivery's lease to `lease_s` from now; StaleLease if it has gone to somebody else."""
        with self._writing() as connection:
            self._change_send(connection, send, {"lease_until": self._clock() + lease_s})

    def delivered(self, send: Send, status: int) -> None:
        """Record that the destination answered success or a warning."""
        self._leave_send(send, DeliveryState.DELIVERED, f"status-{status:04x}", {"status": status})

    def retry(self, send: Send, at: float, reason: str) -> None:
        """Queue a delivery again, for `at`; `reason` is a bounded word."""
        self._leave_send(send, DeliveryState.QUEUED, reason, {"next_at": at})

    def dead(self, send: Send, reason: str) -> None:
        """Give a delivery up; `reason` is a bounded word."""
        self._leave_send(send, DeliveryState.DEAD, reason, {})

    def put_back(self, send: Send) -> None:
        """Queue a delivery again as if it had never been leased: it was claimed but not tried."""
        values = {"state": DeliveryState.QUEUED, "attempts": _d.attempts - 1, "tries": _d.tries - 1}
        with self._writing() as connection:
            self._change_send(connection, send, values)

    # ---- the operator ----

    def requeue(self, delivery_id: int) -> None:
        """Queue a dead letter again, at once and with its attempts counted from zero.

        Raises IllegalTransition if it is not dead, LedgerError if there is none of this number.
        """
        with self._writing() as connection:
            row = connection.execute(
                sa.select(_d.state, _d.instance_id, _d.destination).where(_d.id == delivery_id)
            ).first()
            if row is None:
                raise LedgerError(f"there is no delivery {delivery_id}")
            if row.state != DeliveryState.DEAD:
                raise IllegalTransition(
                    f"delivery {delivery_id} is {row.state}; only dead letters are requeued"
                )
            values = {"state": DeliveryState.QUEUED, "next_at": self._clock(), "attempts": 0, "reason": ""}
            connection.execute(sa.update(_deliveries).where(_d.id == delivery_id).values(values))
            self._note(connection, row.instance_id, "requeued", destination=row.destination)

    def resume(self, instance_id: int) -> None:
        """Let a held or quarantined instance be worked on again; IllegalTransition if it is neither."""
        values = {"state": InstanceState.RECEIVED, "next_at": self._clock(), "result": "", "reason": ""}
        self._decide(instance_id, values, "resumed", "")

    def reject(self, instance_id: int, reason: str) -> None:
        """Drop a held or quarantined instance; IllegalTransition if it is neither."""
        values = {"state": InstanceState.REJECTED, "result": "rejected", "reason": reason}
        self._decide(instance_id, values, InstanceState.REJECTED, reason)

    def recover(self) -> int:
        """Take back every lease; call once at start, while nobody works. Returns how many.

        A restart accuses no instance of killing its worker, up to `INTERRUPTED_LIMIT` restarts.
        """
        with self._writing() as connection:
            return self._take_back_work(connection, sa.true(), _Loss.RESTART) + self._take_back_sends(
                connection, sa.true(), _Loss.RESTART
            )

    # ---- questions ----

    def held(self) -> list[Kept]:
        """The instances that wait for an operator, oldest first."""
        waiting = _in_state(_instances, InstanceState.HELD, InstanceState.QUARANTINED)
        columns = (
            _i.id,
            _i.state,
            _i.result,
            _i.reason,
            _i.route,
            _i.sop_instance_uid,
            _i.blob,
            _i.received_at,
        )
        with self._reading() as connection:
            rows = connection.execute(sa.select(*columns).where(waiting).order_by(_i.id)).all()
        return [Kept(row.id, InstanceState(row.state), *row[2:]) for row in rows]

    def dead_letters(self, destination: str | None = None) -> list[DeadLetter]:
        """The deliveries that were given up, to one destination or to any, oldest first."""
        query = (
            sa.select(_d.id, _d.destination, _d.reason, _d.attempts, _i.out_sop_instance_uid)
            .join_from(_deliveries, _instances, _d.instance_id == _i.id)
            .where(_in_state(_deliveries, DeliveryState.DEAD))
            .order_by(_d.id)
        )
        if destination is not None:
            query = query.where(_d.destination == destination)
        with self._reading() as connection:
            return [DeadLetter(*row) for row in connection.execute(query)]

    def trace(self, sop_instance_uid: str) -> list[Event]:
        """Everything that happened to the instances that came, or left, under this UID; oldest first."""
        e = _events.c
        came_or_left = sa.or_(
            _i.sop_instance_uid == sop_instance_uid,
            # the second condition is what lets the partial index serve
            sa.and_(
                _i.out_sop_instance_uid == sop_instance_uid,
                _i.out_sop_instance_uid != sa.literal_column("''"),
            ),
        )
        query = (
            sa.select(e.at, e.instance_id, e.what, e.destination, e.reason)
            .where(e.instance_id.in_(sa.select(_i.id).where(came_or_left)))
            .order_by(e.id)
        )
        with self._reading() as connection:
            return [Event(*row) for row in connection.execute(query)]

    def needed(self, blobs: Iterable[str]) -> frozenset[str]:
        """Those of the blobs that may still be read: unprocessed, held, or not yet delivered everywhere."""
        names = list(blobs)
        finished = _in_state(_instances, InstanceState.READY, InstanceState.REJECTED)
        undelivered = sa.not_(_in_state(_deliveries, DeliveryState.DELIVERED))
        inputs = sa.select(_i.blob).where(_i.blob.in_(names), sa.not_(finished))
        outputs = (
            sa.select(_i.out_blob)
            .join_from(_instances, _deliveries, _d.instance_id == _i.id)
            .where(_i.out_blob.in_(names), _i.out_blob != sa.literal_column("''"), undelivered)
        )
        with self._reading() as connection:
            return frozenset(connection.execute(sa.union(inputs, outputs)).scalars())

    def counts(self) -> Counts:
        """How many instances and deliveries are in each state."""
        instances, deliveries = dict.fromkeys(InstanceState, 0), dict.fromkeys(DeliveryState, 0)
        with self._reading() as connection:
            for state, _, _, count in connection.execute(_INSTANCE_TALLY):
                instances[InstanceState(state)] += count
            for _, state, count, _ in connection.execute(_DELIVERY_TALLY):
                deliveries[DeliveryState(state)] += count
        return Counts(instances, deliveries)

    def snapshot(self) -> Snapshot:
        """The figures behind the metrics, all of the same moment."""
        now = self._clock()
        with self._reading() as connection:
            oldest = connection.execute(sa.select(sa.func.min(_i.received_at)).where(_UNPROCESSED)).scalar()
            return Snapshot(
                instances=tuple(InstanceTally(*row) for row in connection.execute(_INSTANCE_TALLY)),
                deliveries=tuple(DeliveryTally(*row) for row in connection.execute(_DELIVERY_TALLY)),
                ages=tuple(
                    QueueAge(name, max(0.0, now - at)) for name, at in connection.execute(_QUEUE_AGES)
                ),
                oldest_unprocessed_s=0.0 if oldest is None else max(0.0, now - oldest),
                repeats=_total(connection, _i.repeats),
                conflicts=_total(connection, _i.conflict),
                lost=_total(connection, _i.lost),
            )

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    # ---- one place for each kind of change ----

    def _change_work(self, connection: sa.Connection, work: Work, values: Mapping[str, object]) -> None:
        mine = sa.and_(_i.id == work.id, _i.token == work.token, _WORKING)
        if connection.execute(sa.update(_instances).where(mine).values(values)).rowcount != 1:
            raise StaleLease(
                f"instance {work.id} is no longer leased under token {work.token}; drop its result"
            )

    def _change_send(self, connection: sa.Connection, send: Send, values: Mapping[str, object]) -> None:
        mine = sa.and_(_d.id == send.id, _d.token == send.token, _SENDING)
        if connection.execute(sa.update(_deliveries).where(mine).values(values)).rowcount != 1:
            raise StaleLease(
                f"delivery {send.id} is no longer leased under token {send.token}; drop its result"
            )

    def _leave_send(
        self, send: Send, state: DeliveryState, reason: str, values: Mapping[str, object]
    ) -> None:
        check_delivery_move(DeliveryState.SENDING, state)
        what = "retry" if state is DeliveryState.QUEUED else state
        with self._writing() as connection:
            self._change_send(connection, send, {"state": state, "reason": reason, **values})
            instance = connection.execute(sa.select(_d.instance_id).where(_d.id == send.id)).scalar_one()
            self._note(connection, instance, what, destination=send.destination, reason=reason)

    def _decide(self, instance_id: int, values: Mapping[str, object], what: str, reason: str) -> None:
        """Carry out what an operator decided about a held or quarantined instance."""
        with self._writing() as connection:
            state = connection.execute(sa.select(_i.state).where(_i.id == instance_id)).scalar()
            if state is None:
                raise LedgerError(f"there is no instance {instance_id}")
            if state not in (InstanceState.HELD, InstanceState.QUARANTINED):
                raise IllegalTransition(f"instance {instance_id} is {state}, neither held nor quarantined")
            connection.execute(sa.update(_instances).where(_i.id == instance_id).values(values))
            self._note(connection, instance_id, what, reason=reason)

    def _queue(
        self, connection: sa.Connection, instance_id: int, destinations: Iterable[str], priority: int
    ) -> None:
        now = self._clock()
        common = {"instance_id": instance_id, "priority": priority, "queued_at": now, "next_at": now}
        rows = [
            {**common, "destination": name, "state": DeliveryState.QUEUED}
            for name in dict.fromkeys(destinations)
        ]
        notes = [_event(now, instance_id, DeliveryState.QUEUED, row["destination"], "") for row in rows]
        if rows:
            connection.execute(sa.insert(_deliveries), rows)
            connection.execute(sa.insert(_events), notes)

    def _take_back_work(self, connection: sa.Connection, which: sa.ColumnElement[bool], loss: _Loss) -> int:
        """End leases whose holder is gone; what has lost too many is quarantined, the rest waits again."""
        count = _i.interrupted if loss is _Loss.RESTART else _i.lost
        limit = INTERRUPTED_LIMIT if loss is _Loss.RESTART else LOST_LIMIT
        rows = connection.execute(sa.select(_i.id, count).where(_WORKING, which)).all()
        for identity, before in rows:
            values: dict[str, object] = {count.name: before + 1, "next_at": self._clock()}
            if before + 1 < limit:
                values |= {"state": InstanceState.RECEIVED}
                self._note(connection, identity, "lost", reason=loss)
            else:
                values |= {
                    "state": InstanceState.QUARANTINED,
                    "result": "quarantined",
                    "reason": "killed-its-worker",
                }
                self._note(connection, identity, InstanceState.QUARANTINED, reason="killed-its-worker")
            connection.execute(sa.update(_instances).where(_i.id == identity).values(values))
        return len(rows)

    def _take_back_sends(self, connection: sa.Connection, which: sa.ColumnElement[bool], loss: _Loss) -> int:
        rows = connection.execute(
            sa.select(_d.id, _d.instance_id, _d.destination).where(_SENDING, which)
        ).all()
        for row in rows:
            values = {"state": DeliveryState.QUEUED, "next_at": self._clock(), "reason": loss}
            connection.execute(sa.update(_deliveries).where(_d.id == row.id).values(values))
            self._note(connection, row.instance_id, "lost", destination=row.destination, reason=loss)
        return len(rows)

    def _note(
        self,
        connection: sa.Connection,
        instance_id: int,
        what: str,
        *,
        destination: str = "",
        reason: str = "",
    ) -> None:
        connection.execute(sa.insert(_events), _event(self._clock(), instance_id, what, destination, reason))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._turn, _refusals(self._path), self._engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with _refusals(self._path), self._reader.begin() as connection:
            yield connection


class _Loss(enum.StrEnum):
    """Why a lease was taken back; the word that the events keep."""

    LEASE = "lease-expired"
    WORKER = "worker-died"
    RESTART = "node-restarted"


_INSTANCE_TALLY = sa.select(_i.state, _i.result, _i.reason, sa.func.count()).group_by(
    _i.result, _i.reason, _i.state
)
_DELIVERY_TALLY = sa.select(_d.destination, _d.state, sa.func.count(), sa.func.sum(_d.tries)).group_by(
    _d.destination, _d.state
)
_QUEUE_AGES = (
    sa.select(_d.destination, sa.func.min(_d.queued_at)).where(_UNDELIVERED).group_by(_d.destination)
)


def _total(connection: sa.Connection, column: sa.Column[int]) -> int:
    """The sum of a column that is 0 almost everywhere; the literal 0 lets its partial index serve."""
    query = sa.select(sa.func.coalesce(sa.func.sum(column), 0)).where(column > sa.literal_column("0"))
    return int(connection.execute(query).scalar_one())


def _without_company(rows: Sequence[_Row]) -> list[_Row]:
    """The longest beginning of `rows` that holds no suspect, or the suspect alone if it comes first."""
    innocent = list(itertools.takewhile(lambda row: not (row.lost or row.interrupted), rows))
    return innocent or list(rows[:1])


def _arrival_values(arrival: Arrival) -> dict[str, object]:
    return {
        "sop_class_uid": arrival.sop_class_uid,
        "sop_instance_uid": arrival.sop_instance_uid,
        "transfer_syntax_uid": arrival.transfer_syntax_uid,
        "calling_ae": arrival.calling_ae,
        "called_ae": arrival.called_ae,
        "route": arrival.route,
    }


def _outcome_values(outcome: Outcome) -> dict[str, object]:
    return {
        "state": outcome.state,
        "result": outcome.result,
        "reason": outcome.reason,
        "out_blob": outcome.blob,
        "out_sop_class_uid": outcome.sop_class_uid,
        "out_sop_instance_uid": outcome.sop_instance_uid,
        "out_transfer_syntax_uid": outcome.transfer_syntax_uid,
    }


def _event(at: float, instance_id: int, what: str, destination: object, reason: str) -> dict[str, object]:
    return {"at": at, "instance_id": instance_id, "what": what, "destination": destination, "reason": reason}


def _work(row: _Row) -> Work:
    arrival = Arrival(
        row.sop_class_uid,
        row.sop_instance_uid,
        row.transfer_syntax_uid,
        row.calling_ae,
        row.called_ae,
        row.route,
    )
    return Work(row.id, row.token + 1, row.attempts + 1, arrival, row.blob, row.received_at)


def _send(row: _Row) -> Send:
    return Send(
        row.id,
        row.token + 1,
        row.attempts + 1,
        row.destination,
        row.out_blob,
        row.out_sop_class_uid,
        row.out_sop_instance_uid,
        row.out_transfer_syntax_uid,
    )


def _engine(path: Path) -> sa.Engine:
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
        raise LedgerError(f"the ledger {path} refuses: {said}; check its disk") from error


def _scripts() -> list[tuple[int, str]]:
    """The migrations as (number, SQL), in order."""
    folder = resources.files("dicom_node") / "migrations"
    files = sorted(file.name for file in folder.iterdir() if file.name.endswith(".sql"))
    return [(int(name[:4]), (folder / name).read_text("utf-8")) for name in files]


def _migrate(connection: sa.Connection, scripts: list[tuple[int, str]]) -> None:
    """Apply what the file has not seen yet, inside the caller's transaction."""
    version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    newest = scripts[-1][0]
    if version > newest:
        raise LedgerError(
            f"the ledger has schema {version}, this version knows {newest}; install the newer one"
        )
    for number, script in scripts:
        if number > version:
            for statement in _statements(script):
                connection.exec_driver_sql(statement)
            connection.exec_driver_sql(f"PRAGMA user_version = {number}")


def _statements(script: str) -> list[str]:
    code = "\n".join(line for line in script.splitlines() if not line.lstrip().startswith("--"))
    return [statement for part in re.split(r";\s*$", code, flags=re.MULTILINE) if (statement := part.strip())]
