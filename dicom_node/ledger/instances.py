"""What arrived, and who works on it: from the first row of an instance to the outcome of its work."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from dicom_node.errors import IllegalTransition, LedgerError, StaleLease
from dicom_node.jobs import PASSED, Arrival, DeliveryState, InstanceState, Outcome, Work, check_instance_move
from dicom_node.ledger.database import NOTE, Loss, event_values, repeated
from dicom_node.ledger.deliveries import Deliveries
from dicom_node.ledger.schema import BYTES_LOST, RECEIVED, WORKING, deliveries, instances
from dicom_node.ledger.statements import Statement
from dicom_node.ledger.tallies import count
from dicom_node.ledger.trips import ARRIVE, FINISH, LEASE_WORK, as_rows
from dicom_node.metrics import CONFLICTS, LOST, PROCESSED, REPEATS, UNKNOWN, VERDICTS, Reading

#: an instance that loses its worker this often is quarantined
LOST_LIMIT = 2
#: an instance that was in work at this many restarts is quarantined: it may be what kills the node
INTERRUPTED_LIMIT = 10

_i = instances.c


_NEW = (
    *("sop_class_uid", "sop_instance_uid", "transfer_syntax_uid", "calling_ae", "called_ae", "route"),
    *("blob", "size", "received_at", "next_at", "conflict", "state"),
)
_OUT = (
    *("result", "out_blob", "out_sop_class_uid", "out_sop_instance_uid", "out_transfer_syntax_uid"),
    "out_size",
)


class _Waits(NamedTuple):
    """An instance that waits for a worker, as `_WAITING` gives it."""

    id: int
    token: int
    attempts: int
    lost: int
    interrupted: int
    blob: str
    received_at: float
    size: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae: str
    called_ae: str
    route: str


def _inserting(table: sa.Table, *columns: str) -> sa.Insert:
    return sa.insert(table).values({name: sa.bindparam(name) for name in columns})


_SAME_UID = Statement(
    sa.select(_i.id, _i.blob, _i.state, _i.reason)
    .where(_i.sop_instance_uid == sa.bindparam("uid"), _i.route == sa.bindparam("route"))
    # SQLite, where whoever writes is alone, leaves this out
    .with_for_update(key_share=True)
)
#: what waits, longest first; on a server, without what somebody else has in hand
_WAITING = Statement(
    sa.select(*(_i[name] for name in _Waits._fields))
    .where(RECEIVED, _i.next_at <= sa.bindparam("now"))
    .order_by(_i.next_at, _i.id)
    .limit(sa.bindparam("limit"))
    .with_for_update(key_share=True, skip_locked=True)
)
_OVERDUE = Statement(sa.select(sa.exists().where(WORKING, _i.lease_until <= sa.bindparam("now"))))
_LEASED = Statement(
    sa.update(instances)
    .where(_i.id == sa.bindparam("of_id"))
    .values(
        state=InstanceState.WORKING,
        worker=sa.bindparam("holder"),
        lease_until=sa.bindparam("until"),
        attempts=_i.attempts + 1,
        token=_i.token + 1,
    )
)
_ENDED = Statement(
    sa.update(instances)
    .where(_i.id == sa.bindparam("of_id"), _i.token == sa.bindparam("of_token"), WORKING)
    .values({name: sa.bindparam(f"new_{name}") for name in ("state", "reason", *_OUT)})
)
_ARRIVE = Statement(_inserting(instances, *_NEW).returning(_i.id))
_ARRIVE_READY = Statement(_inserting(instances, *_NEW, *_OUT).returning(_i.id))
_SEND = Statement(
    _inserting(deliveries, "instance_id", "destination", "priority", "queued_at", "state", "next_at")
)


class _Known(NamedTuple):
    """An instance with the UID of an arrival, as `_SAME_UID` gives it."""

    id: int
    blob: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Added:
    """An arrival's row: `duplicate` if it was there already, `conflict` if only its UID was.

    `queued_for` are the destinations that it waits for already.
    """

    id: int
    duplicate: bool
    conflict: bool = False
    queued_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """An instance with what became of it; deliveries of higher `priority` are sent first."""

    work: Work
    outcome: Outcome
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """What could be claimed now: instances, and deliveries, each with its destination."""

    instances: tuple[int, ...]
    sends: tuple[tuple[int, str], ...]


class Instances(Deliveries):
    """The life of an instance until its deliveries are queued."""

    def add(
        self,
        arrival: Arrival,
        blob: str,
        size: int,
        readings: Iterable[Reading] = (),
        *,
        straight_to: Sequence[str] = (),
        priority: int = 0,
    ) -> Added:
        """Record an arrival whose bytes are in the spool; on return it may be acknowledged.

        Threads that add at the same time share one sync. The same again starts nothing, unless the bytes had
        been lost: then it takes the place of what was lost. `readings` are counted with it.

        With `straight_to`, there is no work to do: it is ready as it is, and queued for these destinations in
        the same transaction, those of higher `priority` first. What takes the place of something lost waits
        for a worker all the same.
        """
        destinations, readings = tuple(dict.fromkeys(straight_to)), tuple(readings)
        if self._dialect.shared:
            added = self._add_at_once(arrival, blob, size, readings, destinations, priority)
            if added is not None:
                return added

        def record(connection: sa.Connection) -> Added:
            added = self._add(connection, arrival, blob, size, destinations, priority)
            what = [REPEATS] if added.duplicate else [CONFLICTS] if added.conflict else []
            count(connection, [*readings, *map(Reading, what)])
            return added

        return self._together(record)

    @repeated
    def _add_at_once(
        self,
        arrival: Arrival,
        blob: str,
        size: int,
        readings: Sequence[Reading],
        destinations: Sequence[str],
        priority: int,
    ) -> Added | None:
        """Record an arrival in one message to a server; None, and nothing done, if its UID is known."""
        whats: list[tuple[str, str]] = [("", InstanceState.RECEIVED)]
        values = _arrival_values(arrival) | {"state": InstanceState.RECEIVED.value, **_NO_OUTCOME}
        if destinations:
            values |= _same_as_it_came(arrival, blob, size)
            whats += [("", InstanceState.READY), *((name, DeliveryState.QUEUED) for name in destinations)]
            readings = [*readings, Reading(PROCESSED, (UNKNOWN, PASSED))]
        values |= {
            "blob": blob,
            "size": size,
            "priority": priority,
            "destinations": list(destinations),
            "notes": as_rows([{"destination": name, "what": what} for name, what in whats]),
        }
        rows = self._at_once(ARRIVE, values, readings)
        return Added(int(rows[0][1]), duplicate=False, queued_for=tuple(destinations)) if rows else None

    def _add(
        self,
        connection: sa.Connection,
        arrival: Arrival,
        blob: str,
        size: int,
        destinations: Sequence[str],
        priority: int,
    ) -> Added:
        # two that arrive at once know of each other
        self._dialect.one_at_a_time(connection, arrival.sop_instance_uid)
        named = {"uid": arrival.sop_instance_uid, "route": arrival.route}
        same_uid = [_Known(*row) for row in _SAME_UID.run(connection, named)]
        known = next((row for row in same_uid if row.blob == blob), None)
        if known is not None:
            values: dict[str, object] = {"repeats": _i.repeats + 1}
            if self._has_lost(connection, known):
                values |= {"state": InstanceState.RECEIVED, "next_at": self._now(connection), "reason": ""}
                self._note(connection, known.id, InstanceState.RECEIVED, reason="bytes-are-back")
            connection.execute(sa.update(instances).where(_i.id == known.id).values(values))
            return Added(known.id, duplicate=True)
        now = self._now(connection)
        values = _arrival_values(arrival) | {
            "blob": blob,
            "size": size,
            "received_at": now,
            "next_at": now,
            "conflict": int(bool(same_uid)),
        }
        if destinations:
            made = _ARRIVE_READY.run(connection, values | _same_as_it_came(arrival, blob, size))
        else:
            made = _ARRIVE.run(connection, values | {"state": InstanceState.RECEIVED})
        identity = int(made[0][0])
        whats: list[tuple[str, str]] = [("", InstanceState.RECEIVED)]
        if destinations:
            whats += self._queue_straight(connection, identity, destinations, now, priority)
        NOTE.run_many(connection, [event_values(now, identity, what, name, "") for name, what in whats])
        return Added(identity, duplicate=False, conflict=bool(same_uid), queued_for=tuple(destinations))

    def _queue_straight(
        self,
        connection: sa.Connection,
        identity: int,
        destinations: Sequence[str],
        now: float,
        priority: int,
    ) -> list[tuple[str, str]]:
        """What a worker does with an instance that goes on as it came, all but the row; what to note."""
        common = {"instance_id": identity, "priority": priority, "queued_at": now, "next_at": now}
        rows = [{**common, "destination": name, "state": DeliveryState.QUEUED} for name in destinations]
        _SEND.run_many(connection, rows)
        count(connection, [Reading(PROCESSED, (UNKNOWN, PASSED))])
        return [("", InstanceState.READY), *((name, DeliveryState.QUEUED) for name in destinations)]

    def _has_lost(self, connection: sa.Connection, row: _Known) -> bool:
        """Whether an instance waits for bytes that were found missing or wrong, its own or those to send."""
        if row.state == InstanceState.READY:
            return self._lost_letters(connection, row.id)
        return row.state == InstanceState.QUARANTINED and row.reason in BYTES_LOST

    @repeated
    def claim_work(self, worker: str, limit: int, lease_s: float) -> list[Work]:
        """Lease up to `limit` waiting instances to `worker`, the longest waiting first.

        Takes back expired leases first. An instance that lost a lease before comes alone; so claim again only
        when the batch is done.
        """
        if self._dialect.shared:
            asked = {"holder": self._named(worker), "limit": limit, "lease_s": lease_s}
            found = self._at_once(LEASE_WORK, asked)
            if found[0][0]:
                return [_leased(row[1:]) for row in found if row[1] is not None]
        with self._writing() as connection:
            return self._claim_work(connection, worker, limit, lease_s)

    def _claim_work(self, connection: sa.Connection, worker: str, limit: int, lease_s: float) -> list[Work]:
        now = self._now(connection)
        [(overdue,)] = _OVERDUE.run(connection, {"now": now})
        if overdue:
            self._take_back_work(connection, _i.lease_until <= now, Loss.LEASE)
            now = self._now(connection)  # what was taken back is due since a moment ago
        found = _WAITING.run(connection, {"now": now, "limit": limit})
        rows = _without_company([_Waits(*row) for row in found])
        lease = {"holder": self._named(worker), "until": now + lease_s}
        _LEASED.run_many(connection, [{"of_id": row.id, **lease} for row in rows])
        return [_work(row) for row in rows]

    @repeated
    def beat(self, work: Work, lease_s: float) -> None:
        """Prolong a lease to `lease_s` from now; StaleLease if it has gone to somebody else."""
        with self._writing() as connection:
            self._change_work(connection, work, {"lease_until": self._now(connection) + lease_s})

    def finish(self, work: Work, outcome: Outcome, *, priority: int = 0) -> None:
        """Record what became of an instance, count what was found, queue its deliveries; one transaction.

        Deliveries of higher `priority` are sent first.

        Raises
        ------
        StaleLease : the lease has gone to somebody else; drop the result
        IllegalTransition : the outcome is no end of work; use `release` to give an instance back
        LedgerError : something is to be delivered, but the outcome names no blob
        """
        for error in self.finish_all([Ended(work, outcome, priority)]).values():
            raise error

    @repeated
    def finish_all(self, ended: Sequence[Ended]) -> dict[int, StaleLease]:
        """The same of several instances in one transaction: all of them are recorded, or none.

        Those whose lease has gone to somebody else are left alone and told by their ids; their results are to
        be dropped.
        """
        for end in ended:
            _check_end(end)
        if self._dialect.shared and self._finish_at_once(ended):
            return {}
        with self._writing() as connection:
            return self._finish_each(connection, ended)

    def finish_and_claim(
        self, ended: Sequence[Ended], worker: str, limit: int, lease_s: float
    ) -> tuple[dict[int, StaleLease], list[Work]]:
        """As `finish_all`, then `claim_work`; in a file in one commit, which both would wait for.

        Nothing may have been claimed although something waits, and then all was recorded nonetheless.
        """
        if not self._dialect.shared:
            return self._finish_and_claim(ended, worker, limit, lease_s)
        stale, works = self.finish_all(ended), list[Work]()
        with contextlib.suppress(LedgerError):  # whoever claims next meets it
            works = self.claim_work(worker, limit, lease_s)
        return stale, works

    @repeated
    def _finish_and_claim(
        self, ended: Sequence[Ended], worker: str, limit: int, lease_s: float
    ) -> tuple[dict[int, StaleLease], list[Work]]:
        for end in ended:
            _check_end(end)
        with self._writing() as connection:
            stale = self._finish_each(connection, ended)
            return stale, self._claim_work(connection, worker, limit, lease_s)

    def _finish_each(self, connection: sa.Connection, ended: Sequence[Ended]) -> dict[int, StaleLease]:
        stale: dict[int, StaleLease] = {}
        for end in ended:
            try:
                self._finish(connection, end)
            except StaleLease as error:  # it is raised before anything of the instance is written
                stale[end.work.id] = error
        return stale

    def _finish_at_once(self, ended: Sequence[Ended]) -> bool:
        """The same in one message to a server; False, and nothing done, if one is no longer leased."""
        rows = [
            {
                "id": end.work.id,
                "token": end.work.token,
                "priority": end.priority,
                "destinations": list(dict.fromkeys(end.outcome.destinations)),
                **_outcome_values(end.outcome),
            }
            for end in sorted(ended, key=lambda end: end.work.id)
        ]
        found = self._at_once(
            FINISH, {"ended": as_rows(rows)}, [reading for end in ended for reading in _found(end)]
        )
        return bool(found[0][0])

    def _finish(self, connection: sa.Connection, end: Ended) -> None:
        work, outcome = end.work, end.outcome
        if _ENDED.run_many(connection, [_end_values(work, outcome)]) != 1:
            raise _stale(work)
        self._note(connection, work.id, outcome.state, reason=outcome.reason)
        count(connection, _found(end))
        self._queue(connection, work.id, outcome.destinations, end.priority)

    @repeated
    def release(self, work: Work, at: float, reason: str) -> None:
        """Give an instance back, to be leased again from `at` on; `reason` is a bounded word."""
        with self._writing() as connection:
            values = {
                "state": InstanceState.RECEIVED,
                "next_at": self._there(connection, at),
                "reason": reason,
            }
            self._change_work(connection, work, values)
            self._note(connection, work.id, "released", reason=reason)

    @repeated
    def worker_died(self, worker: str, *, stopped: bool = False) -> int:
        """Take back at once whatever a dead worker held; returns how many instances.

        `stopped`: the node ended it, which accuses its instances of no more than a restart does.
        """
        with self._writing() as connection:
            loss, name = Loss.RESTART if stopped else Loss.WORKER, self._named(worker)
            taken_back = self._take_back_work(connection, _i.worker == name, loss)
            self._take_back_sends(connection, deliveries.c.holder == name, loss)
            return taken_back

    def due(self, limit: int) -> Waiting:
        """What could be claimed now, at most `limit` instances and as many deliveries; leases nothing.

        For whoever tells workers of it: what is found was not taken up, or not yet. Paused destinations have
        nothing due.
        """
        with self._reading() as connection:
            now = self._now(connection)
            waiting = sa.select(_i.id).where(RECEIVED, _i.next_at <= now).order_by(_i.next_at, _i.id)
            lost = sa.select(_i.id).where(WORKING, _i.lease_until <= now).order_by(_i.lease_until)
            numbers = [
                number
                for query in (waiting, lost)
                for number in connection.execute(query.limit(limit)).scalars()
            ]
            return Waiting(tuple(numbers[:limit]), tuple(self._due_sends(connection, now, limit)))

    def _change_work(self, connection: sa.Connection, work: Work, values: Mapping[str, object]) -> None:
        mine = sa.and_(_i.id == work.id, _i.token == work.token, WORKING)
        if connection.execute(sa.update(instances).where(mine).values(values)).rowcount != 1:
            raise _stale(work)

    def _take_back_work(self, connection: sa.Connection, which: sa.ColumnElement[bool], loss: Loss) -> int:
        """End leases whose holder is gone; what has lost too many is quarantined, the rest waits again."""
        losses = _i.interrupted if loss is Loss.RESTART else _i.lost
        limit = INTERRUPTED_LIMIT if loss is Loss.RESTART else LOST_LIMIT
        lost = sa.select(_i.id, losses).where(WORKING, which)
        # whoever holds the row is about to end its lease
        rows = connection.execute(self._dialect.locked(lost, _i.id, skip=True)).all()
        if loss is not Loss.RESTART:
            count(connection, [Reading(LOST)] * len(rows))
        for identity, before in rows:
            values: dict[str, object] = {losses.name: before + 1, "next_at": self._now(connection)}
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
                count(connection, [Reading(PROCESSED, (UNKNOWN, "quarantined"))])
            connection.execute(sa.update(instances).where(_i.id == identity).values(values))
        return len(rows)


def _found(end: Ended) -> list[Reading]:
    """What is counted with the end of an instance's work."""
    finding = end.outcome.finding
    judged = [Reading(VERDICTS, (end.work.arrival.route, finding))] if finding else []
    return [*end.outcome.readings, *judged]


def _stale(work: Work) -> StaleLease:
    return StaleLease(f"instance {work.id} is no longer leased under token {work.token}; drop its result")


def _check_end(end: Ended) -> None:
    """Raise IllegalTransition or LedgerError for what is no end of work."""
    work, outcome = end.work, end.outcome
    if outcome.state is InstanceState.RECEIVED:
        raise IllegalTransition(f"instance {work.id}: finished work cannot be {outcome.state}; release it")
    check_instance_move(InstanceState.WORKING, outcome.state)
    if outcome.destinations and not (outcome.state is InstanceState.READY and outcome.blob):
        raise LedgerError(f"instance {work.id} is {outcome.state} with nothing to deliver; deliver nothing")


def _without_company(rows: Sequence[_Waits]) -> list[_Waits]:
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
        "out_size": outcome.size,
    }


def _end_values(work: Work, outcome: Outcome) -> dict[str, object]:
    """The parameters of `_ENDED`."""
    new = {f"new_{name}": value for name, value in _outcome_values(outcome).items()}
    return {"of_id": work.id, "of_token": work.token, **new}


#: of an instance that is still to be worked on
_NO_OUTCOME: Mapping[str, object] = {
    **dict.fromkeys(("result", "out_blob", "out_sop_class_uid", "out_sop_instance_uid"), ""),
    "out_transfer_syntax_uid": "",
    "out_size": 0,
}


def _same_as_it_came(arrival: Arrival, blob: str, size: int) -> dict[str, object]:
    """The outcome of an instance that is sent on as it is; `jobs.passed` is what a worker makes of it."""
    return {
        "state": InstanceState.READY,
        "result": PASSED,
        "out_blob": blob,
        "out_sop_class_uid": arrival.sop_class_uid,
        "out_sop_instance_uid": arrival.sop_instance_uid,
        "out_transfer_syntax_uid": arrival.transfer_syntax_uid,
        "out_size": size,
    }


def _work(row: _Waits) -> Work:
    arrival = Arrival(
        row.sop_class_uid,
        row.sop_instance_uid,
        row.transfer_syntax_uid,
        row.calling_ae,
        row.called_ae,
        row.route,
    )
    return Work(row.id, row.token + 1, row.attempts + 1, arrival, row.blob, row.received_at, row.size)


def _leased(row: Sequence[Any]) -> Work:
    """As `LEASE_WORK` gives it."""
    identity, token, attempts, *arrival, blob, received_at, size = row
    return Work(identity, token, attempts, Arrival(*arrival), blob, received_at, size)
