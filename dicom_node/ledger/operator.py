"""What an operator sees and decides: what is held, what was given up, what happened to an object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from dicom_node.errors import IllegalTransition, LedgerError
from dicom_node.jobs import DeliveryState, InstanceState
from dicom_node.ledger.database import Database
from dicom_node.ledger.schema import deliveries, events, in_state, instances

_i, _d = instances.c, deliveries.c


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


class Operator(Database):
    """The decisions that only a person takes, and the questions behind them."""

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
            connection.execute(sa.update(deliveries).where(_d.id == delivery_id).values(values))
            self._note(connection, row.instance_id, "requeued", destination=row.destination)

    def resume(self, instance_id: int) -> None:
        """Let a held or quarantined instance be worked on again; IllegalTransition if it is neither."""
        values = {"state": InstanceState.RECEIVED, "next_at": self._clock(), "result": "", "reason": ""}
        self._decide(instance_id, values, "resumed", "")

    def reject(self, instance_id: int, reason: str) -> None:
        """Drop a held or quarantined instance; IllegalTransition if it is neither."""
        values = {"state": InstanceState.REJECTED, "result": "rejected", "reason": reason}
        self._decide(instance_id, values, InstanceState.REJECTED, reason)

    def held(self) -> list[Kept]:
        """The instances that wait for an operator, oldest first."""
        waiting = in_state(instances, InstanceState.HELD, InstanceState.QUARANTINED)
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
            .join_from(deliveries, instances, _d.instance_id == _i.id)
            .where(in_state(deliveries, DeliveryState.DEAD))
            .order_by(_d.id)
        )
        if destination is not None:
            query = query.where(_d.destination == destination)
        with self._reading() as connection:
            return [DeadLetter(*row) for row in connection.execute(query)]

    def trace(self, sop_instance_uid: str) -> list[Event]:
        """Everything that happened to the instances that came, or left, under this UID; oldest first."""
        e = events.c
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

    def _decide(self, instance_id: int, values: Mapping[str, object], what: str, reason: str) -> None:
        """Carry out what an operator decided about a held or quarantined instance."""
        with self._writing() as connection:
            state = connection.execute(sa.select(_i.state).where(_i.id == instance_id)).scalar()
            if state is None:
                raise LedgerError(f"there is no instance {instance_id}")
            if state not in (InstanceState.HELD, InstanceState.QUARANTINED):
                raise IllegalTransition(f"instance {instance_id} is {state}, neither held nor quarantined")
            connection.execute(sa.update(instances).where(_i.id == instance_id).values(values))
            self._note(connection, instance_id, what, reason=reason)
