"""What happened to instances, step by step, for whoever follows it: the audit trail."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from dicom_node.ledger.database import Database
from dicom_node.ledger.schema import Row, events, instances

_i, _e = instances.c, events.c
#: what happened last to a delivery before an event: who took it in the stead of its destination, if anybody
_before, _earlier = events.alias("before"), events.alias("earlier")


@dataclass(frozen=True, slots=True)
class Step:
    """One event of an instance, with what the instance is now; `via` took a delivery for `destination`."""

    id: int
    at: float
    what: str
    destination: str
    via: str
    reason: str
    job: int
    calling_ae: str
    called_ae: str
    route: str
    result: str
    conflict: bool
    sop_class_uid: str
    blob: str
    out_blob: str


class Trail(Database):
    """The story of all instances, in the order in which it was written."""

    def steps(self, after: int, limit: int) -> list[Step]:
        """At most `limit` steps behind the step `after`."""
        last = sa.select(sa.func.max(_earlier.c.id)).where(
            _earlier.c.instance_id == _e.instance_id,
            _earlier.c.destination == _e.destination,
            _earlier.c.id < _e.id,
        )
        same_move = sa.and_(_before.c.id == last.scalar_subquery(), _before.c.what == "failed-over")
        with self._reading() as connection:
            settled = self._dialect.settled_events(connection)
        known = sa.true() if settled is None else _e.id <= settled
        query = (
            sa.select(
                *(_e.id, _e.at, _e.what, _e.destination, _e.reason),
                *(_i.id.label("job"), _i.calling_ae, _i.called_ae, _i.route, _i.result, _i.conflict),
                *(_i.sop_class_uid, _i.blob, _i.out_blob),
                sa.func.coalesce(_before.c.reason, "").label("via"),
            )
            .select_from(
                events.join(instances, _i.id == _e.instance_id).join(_before, same_move, isouter=True)
            )
            .where(_e.id > after, known)
            .order_by(_e.id)
            .limit(limit)
        )
        with self._reading() as connection:
            return [_step(row) for row in connection.execute(query)]

    def last_step(self) -> int:
        """The number of the latest step, be it forgotten since; 0 before the first."""
        with self._reading() as connection:
            kept = connection.execute(sa.select(sa.func.max(_e.id))).scalar() or 0
            return max(int(kept), self._dialect.last_number(connection, "events"))


def _step(row: Row) -> Step:
    return Step(
        id=row.id,
        at=row.at,
        what=row.what,
        destination=row.destination,
        via=row.via,
        reason=row.reason,
        job=row.job,
        calling_ae=row.calling_ae,
        called_ae=row.called_ae,
        route=row.route,
        result=row.result,
        conflict=bool(row.conflict),
        sop_class_uid=row.sop_class_uid,
        blob=row.blob,
        out_blob=row.out_blob,
    )
