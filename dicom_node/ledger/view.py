"""What an operator sees: what waits, what was given up, one object with all its deliveries, and its story."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from dicom_node.jobs import DeliveryState, InstanceState
from dicom_node.ledger.database import Database
from dicom_node.ledger.schema import DEAD, KEPT, UNPROCESSED, Row, deliveries, events, in_state, instances

_i, _d, _e = instances.c, deliveries.c, events.c
_MOST_COUNTED = 1_000_000
#: so many instances are looked through for verdicts
_NEWEST = 2000


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
    """An instance in a list, most often one that waits for an operator: held or quarantined."""

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
class Parcel:
    """A delivery as an operator sees it; times in seconds since 1970-01-01 UTC."""

    id: int
    instance_id: int
    destination: str
    state: DeliveryState
    priority: int
    queued_at: float
    next_at: float
    attempts: int
    status: int | None
    reason: str
    #: spool file of what is sent
    blob: str


@dataclass(frozen=True, slots=True)
class Item:
    """An instance as an operator sees it, with all its deliveries."""

    id: int
    state: InstanceState
    result: str
    reason: str
    route: str
    calling_ae: str
    sop_class_uid: str
    sop_instance_uid: str
    blob: str
    size: int
    received_at: float
    attempts: int
    #: how often the same bytes came again
    repeats: int
    #: whether its UID had come before with other content
    conflict: bool
    deliveries: tuple[Parcel, ...]


@dataclass(frozen=True, slots=True)
class Backlog:
    """What one destination has before it: deliveries that wait or are under way, and dead letters."""

    destination: str
    waiting: int
    sending: int
    dead: int
    #: when the oldest that waits was queued, seconds since 1970-01-01 UTC
    oldest_at: float | None


@dataclass(frozen=True, slots=True)
class Judged:
    """What a route found about an instance that came in; the finding is one of `blessmark.types.Finding`."""

    id: int
    finding: str
    route: str
    sop_instance_uid: str
    received_at: float


class View(Database):
    """The questions behind an operator's decisions; no list is longer than was asked for."""

    def held(self, limit: int = 1000) -> list[Kept]:
        """The instances that wait for an operator, oldest first."""
        return self._kept(KEPT, limit)

    def instances_in(self, state: InstanceState, limit: int) -> list[Kept]:
        """The instances in one state, oldest first."""
        return self._kept(in_state(instances, state), limit)

    def _kept(self, condition: sa.ColumnElement[bool], limit: int) -> list[Kept]:
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
            rows = connection.execute(sa.select(*columns).where(condition).order_by(_i.id).limit(limit)).all()
        return [Kept(row.id, InstanceState(row.state), *row[2:]) for row in rows]

    def kept(self) -> int:
        """How many instances wait for an operator; a million at most."""
        # in the order of `id`, lest SQLite prefers an index that holds every instance
        each = sa.select(_i.id).where(KEPT).order_by(_i.id).limit(_MOST_COUNTED).subquery()
        with self._reading() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(each)).scalar_one())

    def unprocessed(self) -> tuple[int, float | None]:
        """How many instances are received and not worked on yet, and when the oldest of them came."""
        query = sa.select(sa.func.count(), sa.func.min(_i.received_at)).where(UNPROCESSED)
        with self._reading() as connection:
            count, oldest = connection.execute(query).one()
        return int(count), oldest

    def backlogs(self) -> list[Backlog]:
        """Every destination that a delivery names, in the order of their names.

        Costs what waits, not what was delivered: destination by destination, and state by state, from an
        index that holds both.
        """
        with self._reading() as connection:
            return [_backlog(connection, name) for name in destinations(connection)]

    def judged(self, limit: int) -> list[Judged]:
        """The instances that a verifying or recovering route judged last, latest first.

        Looked for among the newest that came, so that the question costs the same however many there are.
        """
        columns = (_i.id, _i.result, _i.reason, _i.route, _i.sop_instance_uid, _i.received_at)
        newest = sa.select(*columns).order_by(_i.id.desc()).limit(_NEWEST).subquery()
        outcomes = (
            sa.and_(newest.c.result == result, newest.c.reason.in_(reasons))
            for result, reasons in _JUDGED.items()
        )
        query = sa.select(newest).where(sa.or_(*outcomes)).order_by(newest.c.id.desc()).limit(limit)
        with self._reading() as connection:
            rows = connection.execute(query).all()
        found = {row.id: row.reason if row.reason in _FOUND else "authentic" for row in rows}
        return [Judged(row.id, found[row.id], *row[3:]) for row in rows]

    def dead_letters(self, destination: str | None = None, limit: int = 1000) -> list[DeadLetter]:
        """The deliveries that were given up, by destination, oldest first."""
        query = (
            sa.select(_d.id, _d.destination, _d.reason, _d.attempts, _i.out_sop_instance_uid)
            .join_from(deliveries, instances, _d.instance_id == _i.id)
            .where(DEAD)
            .order_by(_d.destination, _d.id)
            .limit(limit)
        )
        if destination is not None:
            query = query.where(_d.destination == destination)
        with self._reading() as connection:
            return [DeadLetter(*row) for row in connection.execute(query)]

    def parcels(self, destination: str, state: DeliveryState, limit: int) -> list[Parcel]:
        """The deliveries of one destination in one state, longest queued first."""
        query = (
            _PARCELS.where(_d.destination == destination, in_state(deliveries, state))
            .order_by(_d.queued_at)
            .limit(limit)
        )
        with self._reading() as connection:
            return [_parcel(row) for row in connection.execute(query)]

    def parcel(self, delivery_id: int) -> Parcel | None:
        """One delivery, or None if there is none of this number."""
        with self._reading() as connection:
            row = connection.execute(_PARCELS.where(_d.id == delivery_id)).first()
        return None if row is None else _parcel(row)

    def item(self, instance_id: int) -> Item | None:
        """One instance with all its deliveries, or None if there is none of this number."""
        with self._reading() as connection:
            row = connection.execute(sa.select(instances).where(_i.id == instance_id)).first()
            if row is None:
                return None
            parcels = connection.execute(_PARCELS.where(_d.instance_id == instance_id).order_by(_d.id))
            return _item(row, tuple(_parcel(parcel) for parcel in parcels))

    def trace(self, sop_instance_uid: str) -> list[Event]:
        """Everything that happened to the instances that came, or left, under this UID; oldest first."""
        came_or_left = sa.or_(
            _i.sop_instance_uid == sop_instance_uid,
            # the second condition is what lets the partial index serve
            sa.and_(
                _i.out_sop_instance_uid == sop_instance_uid,
                _i.out_sop_instance_uid != sa.literal_column("''"),
            ),
        )
        query = (
            sa.select(_e.at, _e.instance_id, _e.what, _e.destination, _e.reason)
            .where(_e.instance_id.in_(sa.select(_i.id).where(came_or_left)))
            .order_by(_e.id)
        )
        with self._reading() as connection:
            return [Event(*row) for row in connection.execute(query)]


#: what is found about an instance, as the reason of its outcome; see `review.Verifier` and `review.Recoverer`
_FOUND = (
    *("authentic", "header-altered", "pixels-altered", "damaged"),
    *("unknown-segmenter", "wrong-key", "unmarked"),
)
_JUDGED = {
    "verified": (*_FOUND, "revoked-key"),
    "recovered": ("", "approximate", "header-altered", "revoked-key"),
    "passed-on-error": _FOUND,
    "passed-on-finding": _FOUND,
    "held": _FOUND,
    "rejected": _FOUND,
}


def destinations(connection: sa.Connection) -> Iterator[str]:
    """Each destination once, by leaps through the index instead of a look at every row."""
    name: str | None = ""
    while True:
        query = sa.select(sa.func.min(_d.destination)).where(_d.destination > name)
        name = connection.execute(query).scalar()
        if name is None:
            return
        yield name


def _backlog(connection: sa.Connection, destination: str) -> Backlog:
    def of(state: DeliveryState) -> tuple[int, float | None]:
        query = sa.select(sa.func.count(), sa.func.min(_d.queued_at)).where(
            _d.destination == destination, _d.state == str(state)
        )
        count, oldest = connection.execute(query).one()
        return int(count), oldest

    waiting, oldest = of(DeliveryState.QUEUED)
    sending, dead = of(DeliveryState.SENDING)[0], of(DeliveryState.DEAD)[0]
    return Backlog(destination, waiting, sending, dead, oldest)


_PARCELS = sa.select(
    _d.id,
    _d.instance_id,
    _d.destination,
    _d.state,
    _d.priority,
    _d.queued_at,
    _d.next_at,
    _d.attempts,
    _d.status,
    _d.reason,
    _i.out_blob,
).join_from(deliveries, instances, _d.instance_id == _i.id)


def _parcel(row: Row) -> Parcel:
    return Parcel(row.id, row.instance_id, row.destination, DeliveryState(row.state), *row[4:])


def _item(row: Row, parcels: tuple[Parcel, ...]) -> Item:
    return Item(
        row.id,
        InstanceState(row.state),
        row.result,
        row.reason,
        row.route,
        row.calling_ae,
        row.sop_class_uid,
        row.sop_instance_uid,
        row.blob,
        row.size,
        row.received_at,
        row.attempts,
        row.repeats,
        bool(row.conflict),
        parcels,
    )
