"""The figures: how much is where, for metrics, health and the operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from dicom_node.jobs import DeliveryState, InstanceState
from dicom_node.ledger import tallies
from dicom_node.ledger.database import Database
from dicom_node.ledger.schema import (
    KEPT,
    UNCOMMITTED,
    UNPROCESSED,
    UNREPORTED,
    Row,
    commitment_counts,
    commitments,
    deliveries,
    delivery_counts,
    in_state,
    instance_counts,
    instances,
    pauses,
    promises,
    runs,
)
from dicom_node.metrics import CommitmentTally, DeliveryTally, InstanceTally, PromiseTally, QueueAge, Snapshot

_i, _d, _c, _p = instances.c, deliveries.c, commitments.c, promises.c

_ic, _dc, _cc = instance_counts.c, delivery_counts.c, commitment_counts.c


def _counted(*keys: sa.ColumnElement[str], count: sa.ColumnElement[int]) -> sa.Select[*tuple[Any, ...]]:
    """What is not zero, in the order of the keys; a server keeps a row for each connection that counts."""
    number = sa.func.sum(count)
    return sa.select(*keys, number.label("number")).group_by(*keys).having(number > 0).order_by(*keys)


_INSTANCE_TALLY = _counted(_ic.state, _ic.result, _ic.reason, count=_ic.count)
#: counts, each with when the oldest was queued: one look into an index, however many there are
_DELIVERY_TALLY = _counted(_dc.destination, _dc.state, count=_dc.count).add_columns(
    sa.select(sa.func.min(_d.queued_at))
    .where(_d.destination == _dc.destination, _d.state == _dc.state)
    .scalar_subquery()
    .label("oldest")
)
_WAITING = (DeliveryState.QUEUED, DeliveryState.SENDING)

_COMMITMENT_TALLY = _counted(_cc.destination, _cc.state, count=_cc.count)
_OLDEST_COMMITMENT = (
    sa.select(sa.func.min(_c.wanted_at))
    .where(UNCOMMITTED, _c.destination == _cc.destination)
    .scalar_subquery()
)
_COMMITMENT_AGES = sa.select(_cc.destination, _OLDEST_COMMITMENT).where(_cc.count > 0).distinct()
_PROMISE_TALLY = sa.select(_p.state, _p.result, sa.func.count()).group_by(_p.result, _p.state)


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


@dataclass(frozen=True, slots=True)
class Queue:
    """What is in one state: deliveries to one destination, or instances if the destination is empty."""

    destination: str
    state: DeliveryState | InstanceState
    count: int
    #: when the oldest was queued or received, seconds since 1970-01-01 UTC; None if nobody waits for it
    oldest_at: float | None


class Figures(Database):
    """Everything that is counted."""

    def counts(self) -> Counts:
        """How many instances and deliveries are in each state."""
        kept, queued = dict.fromkeys(InstanceState, 0), dict.fromkeys(DeliveryState, 0)
        with self._reading() as connection:
            for state, _, _, count in connection.execute(_INSTANCE_TALLY):
                kept[InstanceState(state)] += count
            for row in connection.execute(_DELIVERY_TALLY):
                queued[DeliveryState(row.state)] += row.number
        return Counts(kept, queued)

    def queues(self) -> list[Queue]:
        """Everything that is not empty: instances by state, then deliveries by destination and state."""
        totals: dict[InstanceState, int] = {}
        with self._reading() as connection:
            for state, _, _, count in connection.execute(_INSTANCE_TALLY):
                totals[InstanceState(state)] = totals.get(InstanceState(state), 0) + count
            found = [
                Queue("", state, totals[state], _oldest(connection, state))
                for state in InstanceState
                if state in totals
            ]
            for row in connection.execute(_DELIVERY_TALLY):
                found.append(Queue(row.destination, DeliveryState(row.state), row.number, row.oldest))
        return found

    def answers(self) -> None:
        """Raise LedgerError unless the database can be read; costs next to nothing."""
        with self._reading() as connection:
            connection.execute(sa.select(runs.c.id)).first()

    def snapshot(self) -> Snapshot:
        """The figures behind the metrics, all of the same moment."""
        with self._reading() as connection:
            now = self._now(connection)
            oldest = connection.execute(sa.select(sa.func.min(_i.received_at)).where(UNPROCESSED)).scalar()
            rows = connection.execute(_DELIVERY_TALLY).all()
            return Snapshot(
                instances=tuple(InstanceTally(*row) for row in connection.execute(_INSTANCE_TALLY)),
                deliveries=tuple(DeliveryTally(row.destination, row.state, row.number) for row in rows),
                ages=_ages(rows, now),
                oldest_unprocessed_s=0.0 if oldest is None else max(0.0, now - oldest),
                counted=tallies.read(connection),
                paused=tuple(connection.execute(sa.select(pauses.c.destination)).scalars()),
                commitments=tuple(CommitmentTally(*row) for row in connection.execute(_COMMITMENT_TALLY)),
                commitment_ages=tuple(
                    QueueAge(name, max(0.0, now - at))
                    for name, at in connection.execute(_COMMITMENT_AGES)
                    if at is not None
                ),
                promises=tuple(PromiseTally(*row) for row in connection.execute(_PROMISE_TALLY)),
                oldest_promise_s=_oldest_promise_s(connection, now),
            )


def _oldest_promise_s(connection: sa.Connection, now: float) -> float:
    oldest = connection.execute(sa.select(sa.func.min(_p.asked_at)).where(UNREPORTED)).scalar()
    return 0.0 if oldest is None else max(0.0, now - oldest)


def _ages(rows: Sequence[Row], now: float) -> tuple[QueueAge, ...]:
    """How long the oldest that waits or is under way has been waiting, by destination."""
    oldest: dict[str, float] = {}
    for row in rows:
        if row.state in _WAITING:
            oldest[row.destination] = min(row.oldest, oldest.get(row.destination, row.oldest))
    return tuple(QueueAge(name, max(0.0, now - at)) for name, at in oldest.items())


def _oldest(connection: sa.Connection, state: InstanceState) -> float | None:
    """When the oldest instance of a state arrived, for the states in which somebody waits for it."""
    for waiting, order in ((UNPROCESSED, _i.received_at), (KEPT, _i.id)):
        query = sa.select(_i.received_at).where(waiting, in_state(instances, state)).order_by(order).limit(1)
        found = connection.execute(query).scalar()
        if found is not None:
            return float(found)
    return None
