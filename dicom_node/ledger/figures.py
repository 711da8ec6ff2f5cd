"""The figures: how much is where, for metrics, health and the operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from dicom_node.jobs import DeliveryState, InstanceState
from dicom_node.ledger.database import Database
from dicom_node.ledger.schema import (
    UNCOMMITTED,
    UNDELIVERED,
    UNPROCESSED,
    UNREPORTED,
    commitments,
    deliveries,
    instances,
    promises,
)
from dicom_node.metrics import CommitmentTally, DeliveryTally, InstanceTally, PromiseTally, QueueAge, Snapshot

_i, _d, _c, _p = instances.c, deliveries.c, commitments.c, promises.c

_INSTANCE_TALLY = sa.select(_i.state, _i.result, _i.reason, sa.func.count()).group_by(
    _i.result, _i.reason, _i.state
)
_DELIVERY_TALLY = sa.select(_d.destination, _d.state, sa.func.count(), sa.func.sum(_d.tries)).group_by(
    _d.destination, _d.state
)
_QUEUE_AGES = sa.select(_d.destination, sa.func.min(_d.queued_at)).where(UNDELIVERED).group_by(_d.destination)

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


class Figures(Database):
    """Everything that is counted."""

    def counts(self) -> Counts:
        """How many instances and deliveries are in each state."""
        kept, queued = dict.fromkeys(InstanceState, 0), dict.fromkeys(DeliveryState, 0)
        with self._reading() as connection:
            for state, _, _, count in connection.execute(_INSTANCE_TALLY):
                kept[InstanceState(state)] += count
            for _, state, count, _ in connection.execute(_DELIVERY_TALLY):
                queued[DeliveryState(state)] += count
        return Counts(kept, queued)

    def snapshot(self) -> Snapshot:
        """The figures behind the metrics, all of the same moment."""
        now = self._clock()
        with self._reading() as connection:
            oldest = connection.execute(sa.select(sa.func.min(_i.received_at)).where(UNPROCESSED)).scalar()
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


def _total(connection: sa.Connection, column: sa.Column[int]) -> int:
    """The sum of a column that is 0 almost everywhere; the literal 0 lets its partial index serve."""
    query = sa.select(sa.func.coalesce(sa.func.sum(column), 0)).where(column > sa.literal_column("0"))
    return int(connection.execute(query).scalar_one())
