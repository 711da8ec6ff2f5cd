"""What goes where: from a queued delivery to the answer of its destination, or to giving it up."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from dicom_node.errors import LedgerError, StaleLease
from dicom_node.jobs import DeliveryState, Receipt, Send, check_delivery_move
from dicom_node.ledger import dialects
from dicom_node.ledger.commitments import Commitments
from dicom_node.ledger.database import NOTE, Loss, event_values, repeated
from dicom_node.ledger.schema import (
    DEAD,
    MENDED_BY_ARRIVAL,
    QUEUED,
    SENDING,
    deliveries,
    instances,
    pauses,
)
from dicom_node.ledger.statements import Statement
from dicom_node.ledger.tallies import count
from dicom_node.ledger.trips import TAKE_AND_LEASE, as_rows
from dicom_node.ledger.view import destinations
from dicom_node.metrics import ATTEMPTS, DELIVERY_DELAY, RESULTS, Reading

_i, _d, _p = instances.c, deliveries.c, pauses.c


class Deliveries(Commitments):
    """The life of a delivery: one instance for one destination."""

    def claim_sends(
        self,
        destination: str,
        limit: int,
        lease_s: float,
        *,
        via: str = "",
        worker: str = "forwarder",
        receipts: Sequence[Receipt] = (),
        awaits_disk: bool = True,
    ) -> list[Send]:
        """Lease up to `limit` due deliveries of a destination: by priority, then next_at, then id.

        Takes back expired leases first. A paused destination gets nothing, nor does `via` in its stead if
        that is paused. `worker` is who sends them, for `worker_died`. `receipts` are recorded, too, in the
        same transaction: see `take_receipts`. Unless `awaits_disk`, a power cut may undo all of it; see
        `is_on_disk`.
        """

        if self._dialect.shared and not any(each.to_commit for each in receipts):
            return self._take_and_claim(destination, limit, lease_s, via, worker, receipts)

        def step(connection: sa.Connection) -> list[Send]:
            if receipts:
                self._take_receipts(connection, receipts)
            lease = {"holder": self._named(worker), "until": self._now(connection) + lease_s}
            return self._claim_sends(connection, destination, limit, lease, via, alone=not awaits_disk)

        return self._together(step) if awaits_disk else self._write_soon(step)

    @repeated
    def _write_soon(self, step: Callable[[sa.Connection], list[Send]]) -> list[Send]:
        """What does not wait for the disk has no sync to share, and so no reason to wait for others."""
        with self._writing(awaits_disk=False) as connection:
            return step(connection)

    def _take_and_claim(
        self, destination: str, limit: int, lease_s: float, via: str, worker: str, receipts: Sequence[Receipt]
    ) -> list[Send]:
        """The same in one message to a server, unless leases have run out."""
        found, expired = self._take_and_claim_at_once(destination, limit, lease_s, via, worker, receipts)
        if expired and limit:
            # what was leased and recorded stays so, whatever comes of this: whoever claims next tries again
            with contextlib.suppress(LedgerError):
                self._end_leases(destination)
                if not found:
                    found, _ = self._take_and_claim_at_once(destination, limit, lease_s, via, worker, ())
        return found

    @repeated
    def _take_and_claim_at_once(
        self, destination: str, limit: int, lease_s: float, via: str, worker: str, receipts: Sequence[Receipt]
    ) -> tuple[list[Send], bool]:
        """What was leased, and whether leases have run out; raises StaleLease as `take_receipts` does."""
        now = self._about_now()
        asked = {
            "destination": destination,
            "limit": limit,
            "lease_s": lease_s,
            "via": via,
            "holder": self._named(worker),
            "receipts": as_rows([_receipt_values(each) for each in _in_order(receipts)]),
            "notes": as_rows([_of_note(each) for receipt in receipts for each in _story(receipt, now)]),
        }
        counted = [reading for each in receipts for reading in _counted(each, now)]
        rows = self._at_once(TAKE_AND_LEASE, asked, counted)
        if not rows[0][0]:
            raise _stale(receipts)
        return [Send(*row[2:]) for row in rows if row[2] is not None], bool(rows[0][1])

    @repeated
    def _end_leases(self, destination: str) -> None:
        """Take back what is leased to somebody who is gone."""
        with self._writing() as connection:
            expired = sa.and_(_d.destination == destination, _d.lease_until <= self._now(connection))
            self._take_back_sends(connection, expired, Loss.LEASE)

    def _claim_sends(
        self,
        connection: sa.Connection,
        destination: str,
        limit: int,
        lease: Mapping[str, object],
        via: str,
        *,
        alone: bool,
    ) -> list[Send]:
        now = self._now(connection)
        asked = {"destination": destination, "now": now}
        found = _look(connection, asked, via)
        if found.expired:
            expired = sa.and_(_d.destination == destination, _d.lease_until <= now)
            self._take_back_sends(connection, expired, Loss.LEASE)
            asked["now"] = self._now(connection)  # what was taken back is due since a moment ago
            found = _look(connection, asked, via)
        if alone:  # else what is newest may be of this very transaction, and on no disk yet
            self._others_synced(found.newest or 0)
        if found.paused or found.level is None:
            return []
        rows = _due(connection, asked, (found.lowest, found.level), limit, _DUE)
        sends = [_send(_Due(*row)) for row in rows]
        _LEASED.run_many(connection, [{"of_id": send.id, **lease} for send in sends])
        return sends

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
        """Record that a destination, or `via` in its stead, took it; the arguments are those of `Receipt`."""
        self.take_receipts([Receipt(send, status, via, to_commit, tuple(readings))])

    def take_receipts(self, receipts: Sequence[Receipt]) -> None:
        """Record what destinations took, all of it or nothing.

        Raises StaleLease when one of the deliveries has gone to somebody else.
        """
        check_delivery_move(DeliveryState.SENDING, DeliveryState.DELIVERED)
        if self._dialect.shared and not any(each.to_commit for each in receipts):
            self._take_and_claim_at_once("", 0, 0.0, "", "", receipts)
            return
        self._together(lambda connection: self._take_receipts(connection, receipts))

    def _take_receipts(self, connection: sa.Connection, receipts: Sequence[Receipt]) -> None:
        """A few statements for all of them."""
        rows = [
            {"of_id": each.pop("id"), "of_token": each.pop("token"), **each}
            for each in map(_receipt_values, _in_order(receipts))
        ]
        if _TAKEN.run_many(connection, rows) != len(rows):
            raise _stale(receipts)
        now = self._now(connection)
        NOTE.run_many(connection, [note for each in receipts for note in _story(each, now)])
        for each in receipts:
            count(connection, _counted(each, now))
            if each.to_commit:
                self._want_commitment(connection, each.send.id, each.via or each.send.destination)
        # what was leased for the first time nobody has had before who could have been asked
        again = [each.send.id for each in receipts if not each.to_commit and each.send.token > 1]
        self._waive(connection, again)

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
        instance = connection.execute(sa.select(_d.instance_id).where(_d.id == send.id)).scalar_one()
        what = "retry" if state is DeliveryState.QUEUED else state
        if via:
            self._note(connection, instance, "failed-over", destination=send.destination, reason=via)
        self._note(connection, instance, what, destination=send.destination, reason=reason)
        # counted here, not when it is leased: what is put back was not tried
        asked = via or send.destination
        count(connection, (Reading(ATTEMPTS, (send.destination,)), Reading(RESULTS, (asked, result))))

    def _queue(
        self, connection: sa.Connection, instance_id: int, destinations: Iterable[str], priority: int
    ) -> None:
        now = self._now(connection)
        common = {"instance_id": instance_id, "priority": priority, "queued_at": now, "next_at": now}
        rows = [
            {**common, "destination": name, "state": DeliveryState.QUEUED}
            for name in dict.fromkeys(destinations)
        ]
        queue = _queueing(self._dialect)
        queued = [name for row in rows for (name,) in queue.run(connection, row)]
        NOTE.run_many(
            connection, [event_values(now, instance_id, DeliveryState.QUEUED, name, "") for name in queued]
        )

    def _due_sends(self, connection: sa.Connection, now: float, limit: int) -> list[tuple[int, str]]:
        """Deliveries that could be claimed, each with its destination; at most `limit`."""
        found: list[tuple[int, str]] = []
        paused = set(connection.execute(sa.select(_p.destination)).scalars())
        for name in destinations(connection):
            if name not in paused and len(found) < limit:
                left = limit - len(found)
                lost = sa.select(_d.id).where(SENDING, _d.destination == name, _d.lease_until <= now)
                asked = {"destination": name, "now": now}
                levels = connection.execute(_LEVELS, asked).one()
                rows = _due(connection, asked, (levels.lowest, levels.highest), left, _DUE_NUMBERS)
                numbers = [row[0] for row in rows] or connection.execute(lost.limit(left)).scalars()
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


_QUEUED_AS = ("instance_id", "destination", "priority", "queued_at", "state", "next_at")


@functools.lru_cache(maxsize=4)
def _queueing(dialect: dialects.Dialect) -> Statement:
    """Queue a delivery, or one again that had been lost; its destination if it is queued now."""
    queue = dialect.upsert(deliveries).values({name: sa.bindparam(name) for name in _QUEUED_AS})
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
    return Statement(queue.returning(_d.destination))


_NUMBERS: sa.Select[*tuple[Any, ...]] = sa.select(_d.id)


def _due(
    connection: sa.Connection,
    asked: Mapping[str, object],
    levels: tuple[int | None, int | None],
    limit: int,
    what: Statement,
) -> list[tuple[Any, ...]]:
    """What may be sent now, one priority after the other, from the lowest and the highest; `what` of each.

    In one query, the index would be walked through all that waits for a later time in a higher priority.
    """
    rows: list[tuple[Any, ...]] = []
    lowest, level = levels
    while level is not None:
        rows += what.run(connection, {**asked, "level": level, "limit": limit - len(rows)})
        if len(rows) == limit or level == lowest:
            break
        [(level,)] = _NEXT_LEVEL.run(connection, {"destination": asked["destination"], "level": level})
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


class _Due(NamedTuple):
    """A delivery and its instance, as `_SENDS` gives them."""

    id: int
    token: int
    attempts: int
    destination: str
    out_blob: str
    out_sop_class_uid: str
    out_sop_instance_uid: str
    out_transfer_syntax_uid: str
    refusals: int
    instance_id: int
    received_at: float
    queued_at: float
    out_size: int


class _Looked(NamedTuple):
    """What there is for a destination, as `_LOOK` gives it."""

    expired: bool
    paused: bool
    level: int | None
    lowest: int | None
    newest: int | None


def _look(connection: sa.Connection, asked: Mapping[str, object], via: str) -> _Looked:
    return _Looked(*_LOOK.run(connection, {**asked, "via": via})[0])


def _send(row: _Due) -> Send:
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


# what lanes run again and again is made once: SQLAlchemy then knows it, and does not compile it anew
_OF_DESTINATION = _d.destination == sa.bindparam("destination")
_HIGHEST = sa.select(sa.func.max(_d.priority)).where(QUEUED, _OF_DESTINATION)
_LOWEST = sa.select(sa.func.min(_d.priority)).where(QUEUED, _OF_DESTINATION)
_LEVELS = sa.select(_LOWEST.scalar_subquery().label("lowest"), _HIGHEST.scalar_subquery().label("highest"))
#: whether leases have run out, whether it is paused, the highest and the lowest priority of what waits, and
#: the delivery that was queued last of all
_LOOK = Statement(
    sa.select(
        sa.exists().where(SENDING, _OF_DESTINATION, _d.lease_until <= sa.bindparam("now")).label("expired"),
        sa.exists()
        .where(_p.destination.in_((sa.bindparam("destination"), sa.bindparam("via"))))
        .label("paused"),
        _HIGHEST.scalar_subquery().label("level"),
        _LOWEST.scalar_subquery().label("lowest"),
        sa.select(sa.func.max(_d.id)).scalar_subquery().label("newest"),
    )
)
_NEXT_LEVEL = Statement(_HIGHEST.where(_d.priority < sa.bindparam("level")))


def _ready(what: sa.Select[*tuple[Any, ...]]) -> sa.Select[*tuple[Any, ...]]:
    """Those of one priority that are due, in order."""
    of_level = (_OF_DESTINATION, _d.priority == sa.bindparam("level"), _d.next_at <= sa.bindparam("now"))
    return what.where(QUEUED, *of_level).order_by(_d.next_at, _d.id).limit(sa.bindparam("limit"))


#: to be leased: on a server, without those that somebody else holds; SQLite leaves the locks out
_DUE = Statement(_ready(_SENDS).with_for_update(key_share=True, skip_locked=True, of=deliveries))
_DUE_NUMBERS = Statement(_ready(_NUMBERS))
_LEASED = Statement(
    sa.update(deliveries)
    .where(_d.id == sa.bindparam("of_id"))
    .values(
        state=DeliveryState.SENDING,
        holder=sa.bindparam("holder"),
        lease_until=sa.bindparam("until"),
        attempts=_d.attempts + 1,
        token=_d.token + 1,
    )
)
_TAKEN = Statement(
    sa.update(deliveries)
    .where(_d.id == sa.bindparam("of_id"), _d.token == sa.bindparam("of_token"), SENDING)
    .values(
        state=DeliveryState.DELIVERED,
        status=sa.bindparam("status"),
        reason=sa.bindparam("reason"),
        via=sa.bindparam("via"),
    )
)


def _in_order(receipts: Sequence[Receipt]) -> list[Receipt]:
    """One order everywhere, so that no two wait for each other."""
    return sorted(receipts, key=lambda each: each.send.id)


def _receipt_values(receipt: Receipt) -> dict[str, object]:
    return {
        "id": receipt.send.id,
        "token": receipt.send.token,
        "status": receipt.status,
        "reason": f"status-{receipt.status:04x}",
        "via": receipt.via,
    }


def _of_note(note: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in note.items() if name != "at"}


def _stale(receipts: Sequence[Receipt]) -> StaleLease:
    said = f"one of the deliveries {', '.join(str(each.send.id) for each in receipts)}"
    return StaleLease(f"{said} is no longer leased under its token; record the others alone")


def _story(receipt: Receipt, now: float) -> Iterator[dict[str, object]]:
    """What is appended to the record of the instance."""
    send = receipt.send
    if receipt.via:
        yield event_values(now, send.job, "failed-over", send.destination, receipt.via)
    yield event_values(
        now, send.job, DeliveryState.DELIVERED, send.destination, f"status-{receipt.status:04x}"
    )


def _counted(receipt: Receipt, now: float) -> Iterator[Reading]:
    send, result = receipt.send, "warning" if receipt.status else "delivered"
    yield from receipt.readings
    # an attempt is counted here, not when it is leased: what is put back was not tried
    yield Reading(ATTEMPTS, (send.destination,))
    yield Reading(RESULTS, (receipt.via or send.destination, result))
    yield Reading(DELIVERY_DELAY, (send.destination,), max(0.0, now - send.queued_at))
