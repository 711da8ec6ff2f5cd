"""What peers ask of this node: is what I sent you safe? One row per request, kept until nobody may ask again.

A request is on disk before it is acknowledged, and its answer before it is first sent; so whatever happens in
between, the peer gets one answer and every attempt to give it says the same.
"""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from dicom_node.commitment import (
    Answer,
    CommitmentState,
    Delivery,
    Due,
    Holding,
    Judge,
    PromiseState,
    Reference,
    Report,
    Request,
    Taken,
    result,
    taken,
)
from dicom_node.jobs import DeliveryState, InstanceState
from dicom_node.ledger.database import Database, repeated
from dicom_node.ledger.dialects import four_digits
from dicom_node.ledger.schema import (
    BYTES_LOST,
    MENDED_BY_ARRIVAL,
    Row,
    commitments,
    deliveries,
    events,
    in_state,
    instances,
    promise_items,
    promises,
)

_i, _d, _c, _p, _item = instances.c, deliveries.c, commitments.c, promises.c, promise_items.c

_WAITING = in_state(promises, PromiseState.WAITING)
_DECIDED = in_state(promises, PromiseState.DECIDED)
#: between two looks at a request pass a share of its age, but at least and at most so many seconds
_LOOK_SHARE, _LOOK_S = 0.1, (1.0, 60.0)

_NO_REASON: sa.ColumnElement[str] = sa.literal_column("''")
_DECISION = sa.case((_item.answer == int(Answer.COMMITTED), "promised"), else_="not-promised")
#: as `commitment.reason` spells it
_DECISION_REASON = sa.case(
    (_item.answer == int(Answer.COMMITTED), _NO_REASON),
    else_=sa.literal_column("'commitment-'") + four_digits(_item.answer),
)


class Promises(Database):
    """The life of a promise: asked for, decided, reported."""

    @repeated
    def take_request(self, request: Request, wait_s: float) -> Taken:
        """Record a request that is to be answered within `wait_s`; on return it may be acknowledged."""
        with self._writing() as connection:
            self._dialect.one_at_a_time(connection, request.transaction_uid)
            known = connection.execute(
                sa.select(_p.id, _p.state).where(
                    _p.peer == request.peer, _p.transaction_uid == request.transaction_uid
                )
            ).first()
            if known is not None:
                before = (PromiseState(known.state), frozenset(_references(connection, known.id)))
                return taken(before, request)
            self._insert(connection, request, wait_s)
            return Taken.NEW

    def _insert(self, connection: sa.Connection, request: Request, wait_s: float) -> None:
        now = self._now(connection)
        values = {
            "transaction_uid": request.transaction_uid,
            "peer": request.peer,
            "called_ae": request.called_ae,
            "asked_at": now,
            "due_at": now + wait_s,
            "state": PromiseState.WAITING,
            # its answer must not overtake the response to the request
            "next_at": now + _LOOK_S[0],
        }
        made = connection.execute(sa.insert(promises), values).inserted_primary_key
        assert made is not None
        items = [
            {
                "promise_id": made[0],
                "position": position,
                "sop_class_uid": reference.sop_class_uid,
                "sop_instance_uid": reference.sop_instance_uid,
            }
            for position, reference in enumerate(request.references)
        ]
        if items:
            connection.execute(sa.insert(promise_items), items)
        self._note_items(connection, made[0], sa.literal("promise-asked"))

    def decide_promises(self, judge: Judge, limit: int) -> list[Report]:
        """Look at up to `limit` requests that wait; the answers that are now decided, and on disk.

        A request is decided when nothing of it is under way any more, or when its time is up.
        """
        with self._reading() as connection:
            now = self._now(connection)
            due = connection.execute(
                sa.select(_p.id).where(_WAITING, _p.next_at <= now).order_by(_p.next_at, _p.id).limit(limit)
            ).scalars()
            waiting = list(due)
        # each in a transaction of its own: arrivals do not wait for a request of ten thousand instances
        decided = [self._decide_promise(promise_id, judge) for promise_id in waiting]
        return [report for report in decided if report is not None]

    @repeated
    def _decide_promise(self, promise_id: int, judge: Judge) -> Report | None:
        with self._writing() as connection:
            query = sa.select(promises).where(_p.id == promise_id, _WAITING)
            promise = connection.execute(self._dialect.locked(query)).first()
            if promise is None:
                return None
            references = _references(connection, promise_id)
            held = _holdings(connection, promise_id)
            answers = [
                judge.answer(reference, held.get(reference.sop_instance_uid, ())) for reference in references
            ]
            now = self._now(connection)
            if None in answers and now < promise.due_at:
                next_at = min(now + _look_again_s(now - promise.asked_at), promise.due_at)
                connection.execute(sa.update(promises).where(_p.id == promise_id).values(next_at=next_at))
                return None
            final = [Answer.PROCESSING_FAILURE if answer is None else answer for answer in answers]
            report = Report(promise.transaction_uid, dict(zip(references, final, strict=True)))
            self._keep_answers(connection, promise_id, final)
            values = {"state": PromiseState.DECIDED, "next_at": now, "result": result(report)}
            connection.execute(sa.update(promises).where(_p.id == promise_id).values(values))
            self._note_items(connection, promise_id, _DECISION, _DECISION_REASON)
            return report

    def _keep_answers(self, connection: sa.Connection, promise_id: int, answers: list[Answer]) -> None:
        """Answers are by position, as `_references` gives them."""
        one = sa.and_(_item.promise_id == promise_id, _item.position == sa.bindparam("at"))
        rows = [{"at": position, "says": int(answer)} for position, answer in enumerate(answers)]
        if rows:
            connection.execute(sa.update(promise_items).where(one).values(answer=sa.bindparam("says")), rows)

    def due_reports(self, busy: Collection[str], limit: int) -> list[Due]:
        """The first answer that is due to each peer that is not `busy`, at most `limit`."""
        with self._reading() as connection:
            firsts = (
                sa.select(sa.func.min(_p.id))
                .where(_DECIDED, _p.next_at <= self._now(connection), _p.peer.not_in(busy))
                .group_by(_p.peer)
                .limit(limit)
            )
            rows = connection.execute(sa.select(promises).where(_p.id.in_(firsts)).order_by(_p.id)).all()
            return [_due(connection, row) for row in rows]

    def reported(self, due: Due) -> None:
        """Record that the peer took the answer."""
        self._attempted(due, PromiseState.REPORTED, {"reason": ""})

    def report_later(self, due: Due, at: float, reason: str, *, refused: bool = False) -> None:
        """Try again at `at`; `reason` is a bounded word, `refused` whether the peer said no."""
        with self._reading() as connection:
            there = self._there(connection, at)
        values = {"next_at": there, "reason": reason, "refusals": due.refusals + refused}
        self._attempted(due, PromiseState.DECIDED, values)

    def give_report_up(self, due: Due, reason: str) -> None:
        """Record that the peer cannot be given the answer; `reason` is a bounded word."""
        self._attempted(due, PromiseState.UNREPORTED, {"reason": reason})

    @repeated
    def _attempted(self, due: Due, state: PromiseState, values: dict[str, object]) -> None:
        with self._writing() as connection:
            connection.execute(
                sa.update(promises)
                .where(_p.id == due.id, _DECIDED)
                .values({"state": state, "attempts": _p.attempts + 1} | values)
            )
            if state is not PromiseState.DECIDED:
                self._note_items(connection, due.id, sa.literal(f"promise-{state}"))

    @repeated
    def forget_promises(self, before: float) -> int:
        """Delete the requests that ended and were made before this time; returns how many."""
        ended = in_state(promises, PromiseState.REPORTED, PromiseState.UNREPORTED)
        with self._writing() as connection:
            before = self._there(connection, before)
            return connection.execute(sa.delete(promises).where(ended, _p.asked_at < before)).rowcount

    def _note_items(
        self,
        connection: sa.Connection,
        promise_id: int,
        what: sa.ColumnElement[str],
        reason: sa.ColumnElement[str] = _NO_REASON,
    ) -> None:
        """Note a step for every instance of a promise that is, or was, here."""
        steps = (
            sa.select(sa.literal(self._now(connection)), _i.id, _NO_REASON, what, reason)
            .join_from(promise_items, instances, _i.sop_instance_uid == _item.sop_instance_uid)
            .where(_item.promise_id == promise_id)
            .order_by(_item.position, _i.id)
        )
        columns = ("at", "instance_id", "destination", "what", "reason")
        connection.execute(sa.insert(events).from_select(columns, steps))


def _look_again_s(age_s: float) -> float:
    """Seconds until a request of this age is looked at again."""
    shortest, longest = _LOOK_S
    return min(max(age_s * _LOOK_SHARE, shortest), longest)


def _references(connection: sa.Connection, promise_id: int) -> list[Reference]:
    query = (
        sa.select(_item.sop_class_uid, _item.sop_instance_uid)
        .where(_item.promise_id == promise_id)
        .order_by(_item.position)
    )
    return [Reference(*row) for row in connection.execute(query)]


def _holdings(connection: sa.Connection, promise_id: int) -> dict[str, list[Holding]]:
    """What is, or was, here under each UID of a promise: one holding per instance row."""
    query = (
        sa.select(
            _i.id,
            _i.sop_instance_uid,
            _i.sop_class_uid,
            _i.state,
            _i.reason,
            _i.route,
            _d.destination,
            _d.state.label("delivery_state"),
            _d.reason.label("delivery_reason"),
            _c.state.label("commitment"),
        )
        .select_from(instances)
        .outerjoin(deliveries, _d.instance_id == _i.id)
        .outerjoin(commitments, _c.delivery_id == _d.id)
        .where(
            _i.sop_instance_uid.in_(sa.select(_item.sop_instance_uid).where(_item.promise_id == promise_id))
        )
    )
    parts: dict[int, list[Row]] = {}
    for row in connection.execute(query):
        parts.setdefault(row.id, []).append(row)
    held: dict[str, list[Holding]] = {}
    for rows in parts.values():
        held.setdefault(rows[0].sop_instance_uid, []).append(_holding(rows))
    return held


def _holding(rows: list[Row]) -> Holding:
    """One instance from its rows, one for each delivery, or a single one without any."""
    made = tuple(
        Delivery(
            row.destination,
            DeliveryState(row.delivery_state),
            row.commitment and CommitmentState(row.commitment),
            lost=row.delivery_state == DeliveryState.DEAD and row.delivery_reason in MENDED_BY_ARRIVAL,
        )
        for row in rows
        if row.destination is not None
    )
    first, state = rows[0], InstanceState(rows[0].state)
    lost = state is InstanceState.QUARANTINED and first.reason in BYTES_LOST
    return Holding(first.sop_class_uid, state, first.route, made, lost=lost)


def _due(connection: sa.Connection, row: Row) -> Due:
    query = sa.select(_item.sop_class_uid, _item.sop_instance_uid, _item.answer).where(
        _item.promise_id == row.id
    )
    answers = {
        Reference(found.sop_class_uid, found.sop_instance_uid): int(found.answer)
        for found in connection.execute(query.order_by(_item.position))
    }
    report = Report(row.transaction_uid, answers)
    return Due(row.id, row.peer, row.called_ae, row.attempts + 1, report, row.refusals)
