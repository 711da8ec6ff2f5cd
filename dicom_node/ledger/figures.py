"""The figures: how much is where, for metrics, health and the operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from dicom_node.jobs import DeliveryState, InstanceState
from dicom_node.ledger.database import Database
from dicom_node.ledger.schema import (
    KEPT,
    UNCOMMITTED,
    UNPROCESSED,
    UNREPORTED,
    Row,
    carried,
    commitments,
    deliveries,
    in_state,
    instances,
    pauses,
    promises,
    runs,
)
from dicom_node.metrics import CommitmentTally, DeliveryTally, InstanceTally, PromiseTally, QueueAge, Snapshot

_i, _d, _c, _p = instances.c, deliveries.c, commitments.c, promises.c

_INSTANCE_TALLY = sa.select(_i.state, _i.result, _i.reason, sa.func.count()).group_by(
    _i.result, _i.reason, _i.state
)
_DELIVERY_TALLY = sa.select(
    _d.destination,
    _d.state,
    sa.func.count().label("number"),
    sa.func.sum(_d.tries).label("tries"),
    sa.func.min(_d.queued_at).label("oldest"),
).group_by(_d.destination, _d.state)
_WAITING = (DeliveryState.QUEUED, DeliveryState.SENDING)

_COMMITMENT_TALLY = sa.select(_c.destination, _c.state, sa.func.count()).group_by(_c.destination, _c.state)
_COMMITMENT_AGES = (
    sa.select(_c.destination, sa.func.min(_c.wanted_at)).where(UNCOMMITTED).group_by(_c.destination)
)
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
        now = self._clock()
        with self._reading() as connection:
            oldest = connection.execute(sa.select(sa.func.min(_i.received_at)).where(UNPROCESSED)).scalar()
            rows = connection.execute(_DELIVERY_TALLY).all()
            owed = {(row.name, row.destination): row.value for row in connection.execute(sa.select(carried))}
            return Snapshot(
                instances=tuple(InstanceTally(*row) for row in connection.execute(_INSTANCE_TALLY)),
                deliveries=tuple(
                    DeliveryTally(row.destination, row.state, row.number, row.tries) for row in rows
                ),
                ages=_ages(rows, now),
                oldest_unprocessed_s=0.0 if oldest is None else max(0.0, now - oldest),
                repeats=_total(connection, _i.repeats) + owed.get(("repeats", ""), 0),
                conflicts=_total(connection, _i.conflict) + owed.get(("conflicts", ""), 0),
                lost=_total(connection, _i.lost) + owed.get(("lost", ""), 0),
                purged_attempts=tuple((to, count) for (name, to), count in owed.items() if name == "tries"),
                paused=tuple(connection.execute(sa.select(pauses.c.destination)).scalars()),
                commitments=tuple(CommitmentTally(*row) for row in connection.execute(_COMMITMENT_TALLY)),
                commitment_ages=tuple(
                    QueueAge(name, max(0.0, now - at)) for name, at in connection.execute(_COMMITMENT_AGES)
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


def _total(connection: sa.Connection, column: sa.Column[int]) -> int:
    """The sum of a column that is 0 almost everywhere; the literal 0 lets its partial index serve."""
    query = sa.select(sa.func.coalesce(sa.func.sum(column), 0)).where(column > sa.literal_column("0"))
    return int(connection.execute(query).scalar_one())
