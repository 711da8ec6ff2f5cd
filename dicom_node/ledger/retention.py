"""What is kept, and until when: bytes that a row may still ask for, and the rows themselves.

A part of the ledger that has reasons of its own to keep an instance (a commitment that is still owed) says so
by `_bound`, which holds for bytes and rows alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from dicom_node.ledger.conversions import converted_for_waiting, forget_conversions, known_conversions
from dicom_node.ledger.database import Database, repeated
from dicom_node.ledger.schema import FINISHED, UNSETTLED, deliveries, events, instances

_i, _d, _e = instances.c, deliveries.c, events.c

#: rows that one step of a purge looks at, and so the most that it deletes
_WINDOW = 500


@dataclass(frozen=True, slots=True)
class Purged:
    """One step of a purge: how many rows went, and where the next step begins; None at the end."""

    instances: int
    deliveries: int
    after: int | None


class Retention(Database):
    """Tells what may go, and lets it go."""

    def needed(self, blobs: Iterable[str]) -> frozenset[str]:
        """Those of the blobs that may still be read: unprocessed, held, or not yet delivered everywhere."""
        names = list(blobs)
        inputs = sa.select(_i.blob).where(_i.blob.in_(names), sa.not_(FINISHED))
        leaving = sa.and_(_i.out_blob.in_(names), _i.out_blob != sa.literal_column("''"))
        outputs = (
            sa.select(_i.out_blob)
            .join_from(instances, deliveries, _d.instance_id == _i.id)
            .where(leaving, UNSETTLED)
        )
        bound = [sa.select(_i.out_blob).where(leaving, condition) for condition in self._bound()]
        with self._reading() as connection:
            return frozenset(
                connection.execute(sa.union(inputs, outputs, converted_for_waiting(names), *bound)).scalars()
            )

    def known(self, blobs: Iterable[str]) -> frozenset[str]:
        """Those of the blobs that any row names, needed or not."""
        names = list(blobs)
        leaving = sa.and_(_i.out_blob.in_(names), _i.out_blob != sa.literal_column("''"))
        query = sa.union(
            sa.select(_i.blob).where(_i.blob.in_(names)),
            sa.select(_i.out_blob).where(leaving),
            known_conversions(names),
        )
        with self._reading() as connection:
            return frozenset(connection.execute(query).scalars())

    @repeated
    def purge(self, before: float, after: int = 0) -> Purged:
        """Forget some of the instances that ended before a time, with all that is recorded of them.

        An instance has ended when it is ready or rejected, every delivery was made or dropped, nothing else
        is bound to it, and the last of its events is older than `before`. One step looks at a few hundred
        instances after `after`; take as many as it needs, and let others write in between.
        """
        with self._reading() as connection:
            before = self._there(connection, before)
            window = connection.execute(
                sa.select(_i.id, _i.received_at).where(_i.id > after).order_by(_i.id).limit(_WINDOW)
            ).all()
            numbers = [row.id for row in window if row.received_at < before]
            ripe = connection.execute(self._ripe(numbers, before)).scalars().all() if numbers else []
        end = window[-1].id if numbers and len(window) == _WINDOW else None
        if not ripe:
            return Purged(0, 0, end)
        with self._writing() as connection:
            # again, because somebody may have come to need one since
            still = self._dialect.locked(self._ripe(ripe, before), _i.id, of=instances)
            ripe = connection.execute(still).scalars().all()
            forget_conversions(connection, ripe)
            gone = connection.execute(sa.delete(deliveries).where(_d.instance_id.in_(ripe))).rowcount
            connection.execute(sa.delete(events).where(_e.instance_id.in_(ripe)))
            connection.execute(sa.delete(instances).where(_i.id.in_(ripe)))
        return Purged(len(ripe), gone, end)

    def _bound(self) -> Sequence[sa.ColumnElement[bool]]:
        """Conditions on a row of `instances`, any of which keeps what was sent of it, and the row."""
        return ()

    def _ripe(self, numbers: Sequence[int], before: float) -> sa.Select[int]:
        unsettled = sa.exists().where(_d.instance_id == _i.id, UNSETTLED)
        recent = sa.exists().where(_e.instance_id == _i.id, _e.at >= before)
        keeping = (unsettled, recent, *self._bound())
        return sa.select(_i.id).where(_i.id.in_(numbers), FINISHED, *(sa.not_(each) for each in keeping))
