"""What an operator decides: what is held, what was given up, what waits, and which destination rests."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from dicom_node.errors import IllegalTransition, LedgerError
from dicom_node.jobs import DeliveryState, InstanceState, check_delivery_move, check_instance_move
from dicom_node.ledger import dialects
from dicom_node.ledger.database import Database, event_values, repeated
from dicom_node.ledger.outages import hurry
from dicom_node.ledger.schema import DEAD, HELD, QUEUED, Row, deliveries, events, instances, pauses

#: rows that one transaction of a command for many changes; others write in between
_BATCH = 500
#: why something was done that only a person decides; in the record of an instance with the login behind it
OPERATOR = "operator"
_ON_HAND = (InstanceState.HELD, InstanceState.QUARANTINED)

_i, _d, _p = instances.c, deliveries.c, pauses.c


class Operator(Database):
    """The decisions that only a person takes. Each is noted in the record of the instance.

    `by` is the login of who decides, "" if that is not known.
    """

    @repeated
    def pause(self, destination: str) -> bool:
        """Lease nothing more for a destination, until `resume`; False if it was paused already.

        What is under way is finished. It holds across restarts, and whether or not the name is configured.
        """
        with self._writing() as connection:
            self._dialect.one_at_a_time(connection, f"pause {destination}")
            if connection.execute(sa.select(_p.since).where(_p.destination == destination)).first():
                return False
            values = {"destination": destination, "since": self._now(connection)}
            connection.execute(sa.insert(pauses), values)
            return True

    @repeated
    def resume(self, destination: str) -> bool:
        """End a pause; False if there was none. Either way a destination that is down is asked at once."""
        with self._writing() as connection:
            hurry(connection, [destination])
            ended = connection.execute(sa.delete(pauses).where(_p.destination == destination))
            return ended.rowcount == 1

    def paused(self) -> Mapping[str, float]:
        """The paused destinations, each with when its pause began."""
        with self._reading() as connection:
            return {row.destination: row.since for row in connection.execute(sa.select(pauses))}

    @repeated
    def requeue(self, delivery_id: int) -> None:
        """Queue a dead letter again with its attempts counted from zero, or let a waiting one wait no more.

        Raises IllegalTransition if it is neither, LedgerError if there is none of this number.
        """
        with self._writing() as connection:
            row = self._delivery(connection, delivery_id)
            if row.state not in (DeliveryState.DEAD, DeliveryState.QUEUED):
                raise IllegalTransition(
                    f"delivery {delivery_id} is {row.state}; only dead and waiting ones are queued again"
                )
            self._requeue(connection, [row])

    @repeated
    def requeue_dead(self, destination: str | None = None) -> int:
        """Queue some dead letters again, to one destination or to any; how many. Call until it is 0."""
        with self._writing() as connection:
            return self._requeue(connection, _some(connection, DEAD, destination))

    @repeated
    def drop(self, delivery_id: int, by: str = "") -> None:
        """Never send a waiting or dead delivery; raises as `requeue` does."""
        with self._writing() as connection:
            row = self._delivery(connection, delivery_id)
            check_delivery_move(DeliveryState(row.state), DeliveryState.DROPPED)
            self._drop(connection, [row], by)

    @repeated
    def drop_waiting(self, destination: str, by: str = "") -> int:
        """Drop some of what waits for a destination or is dead; how many. Call until it is 0."""
        with self._writing() as connection:
            rows = _some(connection, QUEUED, destination) or _some(connection, DEAD, destination)
            return self._drop(connection, rows, by)

    @repeated
    def rework(self, instance_id: int) -> None:
        """Let a held or quarantined instance be worked on again; IllegalTransition if it is neither."""
        with self._writing() as connection:
            self._check_on_hand(connection, instance_id)
            self._rework(connection, [instance_id])

    @repeated
    def rework_held(self) -> int:
        """Let some held instances be worked on again; how many. Call until it is 0.

        What is quarantined stays: it is let out one by one, by who has looked at it.
        """
        with self._writing() as connection:
            held = sa.select(_i.id).where(HELD).order_by(_i.id).limit(_BATCH)
            locked = self._dialect.locked(held)
            return self._rework(connection, list(connection.execute(locked).scalars()))

    @repeated
    def reject(self, instance_id: int, by: str = "") -> None:
        """Drop a held or quarantined instance; IllegalTransition if it is neither."""
        with self._writing() as connection:
            self._check_on_hand(connection, instance_id)
            values = {"state": InstanceState.REJECTED, "result": "rejected", "reason": OPERATOR}
            connection.execute(sa.update(instances).where(_i.id == instance_id).values(values))
            self._note(connection, instance_id, InstanceState.REJECTED, reason=_decided(by))

    @repeated
    def note_export(self, instance_id: int, by: str = "") -> None:
        """Record that an operator took a copy of an instance out of the node."""
        with self._writing() as connection:
            self._note(connection, instance_id, "exported", reason=_decided(by))

    def _delivery(self, connection: sa.Connection, delivery_id: int) -> Row:
        query = self._dialect.locked(_ROWS.where(_d.id == delivery_id))
        row = connection.execute(query).first()
        if row is None:
            raise LedgerError(f"there is no delivery {delivery_id}")
        return row

    def _requeue(self, connection: sa.Connection, rows: list[Row]) -> int:
        values = {
            "state": DeliveryState.QUEUED,
            "next_at": self._now(connection),
            "attempts": 0,
            "refusals": 0,
            "reason": "",
        }
        hurry(connection, {row.destination for row in rows})
        return self._change_all(connection, rows, values, "requeued", OPERATOR)

    def _drop(self, connection: sa.Connection, rows: list[Row], by: str) -> int:
        values = {"state": DeliveryState.DROPPED, "reason": OPERATOR}
        return self._change_all(connection, rows, values, DeliveryState.DROPPED, _decided(by))

    def _change_all(
        self,
        connection: sa.Connection,
        rows: list[Row],
        values: Mapping[str, object],
        what: str,
        reason: str,
    ) -> int:
        """Change deliveries alike, and note it; how many."""
        now = self._now(connection)
        if rows:
            change = sa.update(deliveries).where(_d.id.in_([row.id for row in rows])).values(values)
            notes = [event_values(now, row.instance_id, what, row.destination, reason) for row in rows]
            connection.execute(change)
            connection.execute(sa.insert(events), notes)
        return len(rows)

    def _check_on_hand(self, connection: sa.Connection, instance_id: int) -> None:
        query = self._dialect.locked(sa.select(_i.state).where(_i.id == instance_id))
        state = connection.execute(query).scalar()
        if state is None:
            raise LedgerError(f"there is no instance {instance_id}")
        if state not in _ON_HAND:
            raise IllegalTransition(f"instance {instance_id} is {state}, neither held nor quarantined")

    def _rework(self, connection: sa.Connection, numbers: list[int]) -> int:
        now = self._now(connection)
        check_instance_move(InstanceState.HELD, InstanceState.RECEIVED)
        values = {"state": InstanceState.RECEIVED, "next_at": now, "result": "", "reason": ""}
        if numbers:
            connection.execute(sa.update(instances).where(_i.id.in_(numbers)).values(values))
            notes = [event_values(now, number, "resumed", "", OPERATOR) for number in numbers]
            connection.execute(sa.insert(events), notes)
        return len(numbers)


def _decided(by: str) -> str:
    return f"{OPERATOR} {by}".strip()


_ROWS = sa.select(_d.id, _d.instance_id, _d.destination, _d.state)


def _some(connection: sa.Connection, condition: sa.ColumnElement[bool], destination: str | None) -> list[Row]:
    """Some deliveries of one state, to one destination or to any."""
    query = _ROWS.where(condition).limit(_BATCH)
    if destination is not None:
        query = query.where(_d.destination == destination)
    return list(connection.execute(dialects.of(connection).locked(query, _d.id)).all())
