"""What goes where: from a queued delivery to the answer of its destination, or to giving it up."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.dml import ReturningInsert

from dicom_node.errors import StaleLease
from dicom_node.jobs import DeliveryState, Send, check_delivery_move
from dicom_node.ledger import dialects
from dicom_node.ledger.commitments import Commitments
from dicom_node.ledger.database import Loss, event_values, repeated
from dicom_node.ledger.schema import (
    DEAD,
    MENDED_BY_ARRIVAL,
    QUEUED,
    SENDING,
    Row,
    deliveries,
    events,
    instances,
    pauses,
)
from dicom_node.ledger.tallies import count
from dicom_node.ledger.view import destinations
from dicom_node.metrics import ATTEMPTS, DELIVERY_DELAY, RESULTS, Reading

_i, _d, _p = instances.c, deliveries.c, pauses.c


class Deliveries(Commitments):
    """The life of a delivery: one instance for one destination."""

    @repeated
    def claim_sends(
        self, destination: str, limit: int, lease_s: float, *, via: str = "", worker: str = "forwarder"
    ) -> list[Send]:
        """Lease up to `limit` due deliveries of a destination: by priority, then next_at, then id.

        Takes back expired leases first. A paused destination gets nothing, nor does `via` in its stead if
        that is paused. `worker` is who sends them, for `worker_died`.
        """
        with self._writing() as connection:
            expired = sa.and_(_d.destination == destination, _d.lease_until <= self._now(connection))
            self._take_back_sends(connection, expired, Loss.LEASE)
            if connection.execute(sa.select(_p.since).where(_p.destination.in_((destination, via)))).first():
                return []
            now = self._now(connection)
            rows = _due(connection, destination, now, limit, lease=True)
            connection.execute(
                sa.update(deliveries)
                .where(_d.id.in_([row.id for row in rows]))
                .values(
                    state=DeliveryState.SENDING,
                    holder=self._named(worker),
                    lease_until=now + lease_s,
                    attempts=_d.attempts + 1,
                    token=_d.token + 1,
                )
            )
            return [_send(row) for row in rows]

    @repeated
    def beat_send(self, send: Send, lease_s: float) -> None:
        """Prolong a delivery's lease to `lease_s` from now; StaleLease if it has gone to somebody else."""
        with self._writing() as connection:
            self._change_send(connection, send, {"lease_until": self._now(connection) + lease_s})

    def delivered(
        self,
        send: Send,
        status: int,
        *,
        via: str = "",
        to_commit: bool = False,
        readings: Iterable[Reading] = (),
    ) -> None:
        """Record that the destination, or `via` in its stead, answered success or a warning.

        `to_commit`: who took it is to be asked for storage commitment, and the bytes stay until it gives it.
        `readings` are counted with it.
        """
        values = {"status": status, "via": via}
        result = "warning" if status else "delivered"
        word = f"status-{status:04x}"

        def record(connection: sa.Connection) -> None:
            self._leave_send(connection, send, DeliveryState.DELIVERED, word, values, result=result, via=via)
            count(connection, readings)
            if to_commit:
                self._want_commitment(connection, send.id, via or send.destination)
            else:
                self._waive_commitment(connection, send.id)

        self._together(record)

    def retry(
        self, send: Send, at: float, reason: str, *, result: str = "", refused: bool = False, via: str = ""
    ) -> None:
        """Queue a delivery again, for `at`.

        `reason` and `result` are bounded words, for the row (`status-a700`) and for counters (`transient`; if
        empty, the reason). `refused` says that it was this very object that its destination did not take;
        `via` names the destination that was asked in its stead.
        """

        def record(connection: sa.Connection) -> None:
            values = {"next_at": self._there(connection, at), "refusals": send.refusals + refused}
            self._leave_send(
                connection, send, DeliveryState.QUEUED, reason, values, result=result or reason, via=via
            )

        self._together(record)

    def dead(self, send: Send, reason: str, *, result: str = "") -> None:
        """Give a delivery up; `reason` and `result` are bounded words, as in `retry`."""
        self._together(
            lambda connection: self._leave_send(
                connection, send, DeliveryState.DEAD, reason, {}, result=result or reason
            )
        )

    @repeated
    def put_back(self, send: Send) -> None:
        """Queue a delivery again as if it had never been leased: it was claimed but not tried."""
        values = {"state": DeliveryState.QUEUED, "attempts": _d.attempts - 1}
        with self._writing() as connection:
            self._change_send(connection, send, values)

    def _change_send(self, connection: sa.Connection, send: Send, values: Mapping[str, object]) -> None:
        mine = sa.and_(_d.id == send.id, _d.token == send.token, SENDING)
        if connection.execute(sa.update(deliveries).where(mine).values(values)).rowcount != 1:
            raise StaleLease(
                f"delivery {send.id} is no longer leased under token {send.token}; drop its result"
            )

    def _leave_send(
        self,
        connection: sa.Connection,
        send: Send,
        state: DeliveryState,
        reason: str,
        values: Mapping[str, object],
        *,
        result: str,
        via: str = "",
    ) -> None:
        check_delivery_move(DeliveryState.SENDING, state)
        self._change_send(connection, send, {"state": state, "reason": reason, **values})
        row = connection.execute(sa.select(_d.instance_id, _d.queued_at).where(_d.id == send.id)).one()
        instance = row.instance_id
        what = "retry" if state is DeliveryState.QUEUED else state
        if via:
            self._note(connection, instance, "failed-over", destination=send.destination, reason=via)
        self._note(connection, instance, what, destination=send.destination, reason=reason)
        # counted here, not when it is leased: what is put back was not tried
        counted = [
            Reading(ATTEMPTS, (send.destination,)),
            Reading(RESULTS, (via or send.destination, result)),
        ]
        if state is DeliveryState.DELIVERED:
            waited_s = max(0.0, self._now(connection) - row.queued_at)
            counted.append(Reading(DELIVERY_DELAY, (send.destination,), waited_s))
        count(connection, counted)

    def _queue(
        self, connection: sa.Connection, instance_id: int, destinations: Iterable[str], priority: int
    ) -> None:
        now = self._now(connection)
        common = {"instance_id": instance_id, "priority": priority, "queued_at": now, "next_at": now}
        rows = [
            {**common, "destination": name, "state": DeliveryState.QUEUED}
            for name in dict.fromkeys(destinations)
        ]
        if not rows:
            return
        queued = connection.execute(_queueing(self._dialect), rows).scalars().all()
        notes = [event_values(now, instance_id, DeliveryState.QUEUED, name, "") for name in queued]
        if notes:
            connection.execute(sa.insert(events), notes)

    def _due_sends(self, connection: sa.Connection, now: float, limit: int) -> list[tuple[int, str]]:
        """Deliveries that could be claimed, each with its destination; at most `limit`."""
        found: list[tuple[int, str]] = []
        paused = set(connection.execute(sa.select(_p.destination)).scalars())
        for name in destinations(connection):
            if name not in paused and len(found) < limit:
                left = limit - len(found)
                lost = sa.select(_d.id).where(SENDING, _d.destination == name, _d.lease_until <= now)
                rows = _due(connection, name, now, left, lease=False)
                numbers = [row.id for row in rows] or connection.execute(lost.limit(left)).scalars()
                found += [(number, name) for number in numbers]
        return found

    def _lost_letters(self, connection: sa.Connection, instance_id: int) -> bool:
        """Whether deliveries of an instance are dead because there were no bytes for them, or wrong ones."""
        lost = sa.select(_d.id).where(_d.instance_id == instance_id, DEAD, _d.reason.in_(MENDED_BY_ARRIVAL))
        return connection.execute(lost.limit(1)).first() is not None

    def _take_back_sends(self, connection: sa.Connection, which: sa.ColumnElement[bool], loss: Loss) -> int:
        lost = sa.select(_d.id, _d.instance_id, _d.destination).where(SENDING, which)
        # whoever holds the row is about to end its lease
        rows = connection.execute(self._dialect.locked(lost, _d.id, skip=True)).all()
        for row in rows:
            values = {
                "state": DeliveryState.QUEUED,
                "next_at": self._now(connection),
                "reason": loss,
            }
            connection.execute(sa.update(deliveries).where(_d.id == row.id).values(values))
            self._note(connection, row.instance_id, "lost", destination=row.destination, reason=loss)
        count(connection, (Reading(ATTEMPTS, (row.destination,)) for row in rows))
        return len(rows)


@functools.lru_cache(maxsize=4)
def _queueing(dialect: dialects.Dialect) -> ReturningInsert[tuple[str]]:
    """Queue deliveries, or those again that had been lost; the destinations that it queued.

    Made once, and without the rows in it: SQLAlchemy would compile it anew for every instance.
    """
    queue = dialect.upsert(deliveries)
    # an instance is worked on twice only if what it was to send had been lost
    revive = {
        "state": DeliveryState.QUEUED,
        "next_at": queue.excluded.next_at,
        "attempts": 0,
        "refusals": 0,
        "reason": "",
    }
    queue = queue.on_conflict_do_update(
        index_elements=[_d.instance_id, _d.destination],
        set_=revive,
        where=sa.and_(DEAD, sa.or_(*(_d.reason == reason for reason in MENDED_BY_ARRIVAL))),
    )
    return queue.returning(_d.destination)


_NUMBERS: sa.Select[*tuple[Any, ...]] = sa.select(_d.id)


def _due(connection: sa.Connection, destination: str, now: float, limit: int, *, lease: bool) -> list[Row]:
    """What may be sent now, one priority after the other.

    In one query, the index would be walked through all that waits for a later time in a higher priority.
    """
    rows: list[Row] = []
    level: int | None = None
    while len(rows) < limit:
        lower = sa.true() if level is None else _d.priority < level
        highest = sa.select(sa.func.max(_d.priority)).where(QUEUED, _d.destination == destination, lower)
        level = connection.execute(highest).scalar()
        if level is None:
            break
        ready = (_SENDS if lease else _NUMBERS).where(
            QUEUED, _d.destination == destination, _d.priority == level, _d.next_at <= now
        )
        first = ready.order_by(_d.next_at, _d.id).limit(limit - len(rows))
        if lease:
            first = dialects.of(connection).locked(first, of=deliveries, skip=True)
        rows += connection.execute(first).all()
    return rows


_SENDS = sa.select(
    _d.id,
    _d.token,
    _d.attempts,
    _d.destination,
    _i.out_blob,
    _i.out_sop_class_uid,
    _i.out_sop_instance_uid,
    _i.out_transfer_syntax_uid,
    _d.refusals,
    _d.instance_id,
    _i.received_at,
    _d.queued_at,
    _i.out_size,
).join_from(deliveries, instances, _d.instance_id == _i.id)


def _send(row: Row) -> Send:
    return Send(
        row.id,
        row.token + 1,
        row.attempts + 1,
        row.destination,
        row.out_blob,
        row.out_sop_class_uid,
        row.out_sop_instance_uid,
        row.out_transfer_syntax_uid,
        row.refusals,
        row.instance_id,
        row.received_at,
        row.queued_at,
        row.out_size,
    )
