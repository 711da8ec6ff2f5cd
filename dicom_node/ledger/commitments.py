"""What destinations are asked to commit to: from a delivery to the yes that lets its bytes go.

A request is on disk, with its Transaction UID, before it is made; so an answer is known whenever it comes, on
whatever association, after whatever crash. A yes counts for ever, a no only while its request is open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from dicom_node.commitment import (
    COMMITMENT_TRANSITIONS,
    Answer,
    Ask,
    AskState,
    CommitmentState,
    Reference,
    Report,
    Settled,
    Step,
    check_commitment_move,
    reason,
    step,
)
from dicom_node.jobs import DeliveryState, check_delivery_move
from dicom_node.ledger.database import event_values, repeated
from dicom_node.ledger.retention import Retention
from dicom_node.ledger.schema import (
    UNCOMMITTED,
    Row,
    ask_items,
    asks,
    commitments,
    deliveries,
    events,
    in_state,
    instances,
)
from dicom_node.ledger.statements import Statement

_i, _d, _c, _a, _item = instances.c, deliveries.c, commitments.c, asks.c, ask_items.c

_WANTED = in_state(commitments, CommitmentState.WANTED)
_OPEN = in_state(asks, AskState.ASKING, AskState.ASKED)

#: no request is still being made after so many seconds: its association has long timed out
_MAKING_S = 900.0
#: rows that one step of letting go changes; others write in between
_BATCH = 500
#: seconds to wait after so many requests in a row that came to nothing
Delay = Callable[[int], float]


class Commitments(Retention):
    """The life of a commitment: wanted, asked for, given or refused."""

    @repeated
    def claim_ask(
        self, destination: str, transaction_uid: str, limit: int, *, collect_s: float, answer_s: float
    ) -> Ask | None:
        """Open a request for up to `limit` instances, whose answer is overdue after `answer_s`.

        None while there are fewer and the first has not waited for `collect_s`.
        """
        with self._writing() as connection:
            now = self._now(connection)
            ready = _ready_to_ask(destination, now).limit(limit)
            rows = connection.execute(self._dialect.locked(ready, of=commitments, skip=True)).all()
            if not rows or (len(rows) < limit and rows[0].next_at + collect_s > now):
                return None
            values = {
                "transaction_uid": transaction_uid,
                "destination": destination,
                "asked_at": now,
                "due_at": now + answer_s,
                "state": AskState.ASKING,
                "holder": self._holder,
            }
            made = connection.execute(sa.insert(asks), values).inserted_primary_key
            assert made is not None
            ids = [row.delivery_id for row in rows]
            items = [{"ask_id": made[0], "delivery_id": delivery_id} for delivery_id in ids]
            connection.execute(sa.insert(ask_items), items)
            self._move(connection, ids, {"state": CommitmentState.ASKED, "ask_id": made[0]})
            references = tuple(
                dict.fromkeys(Reference(row.sop_class_uid, row.sop_instance_uid) for row in rows)
            )
            attempts = max(row.silences for row in rows) + 1
            return Ask(made[0], destination, transaction_uid, references, attempts)

    @repeated
    def ask_taken(self, ask: Ask) -> None:
        """Record that the destination took a request."""
        with self._writing() as connection:
            # its answer may have been here first
            still = sa.and_(_a.id == ask.id, _a.state == AskState.ASKING)
            if connection.execute(sa.update(asks).where(still).values(state=AskState.ASKED)).rowcount:
                rows = connection.execute(_items_of(ask.id)).all()
                self._note_rows(connection, rows, "commitment-asked", "")

    @repeated
    def ask_failed(self, ask: Ask, delay: Delay) -> None:
        """Record that the destination did not take a request; its instances are asked for again, later."""
        with self._writing() as connection:
            self._reopen(connection, _a.id == ask.id, AskState.FAILED, delay)

    @repeated
    def expire_asks(self, destination: str, delay: Delay) -> int:
        """End the requests whose answer is overdue; returns how many there were."""
        with self._writing() as connection:
            overdue = sa.and_(_a.destination == destination, _a.due_at <= self._now(connection))
            ended = self._reopen(connection, overdue, AskState.OVERDUE, delay)
            if self._dialect.shared:  # the start of one node does not say that another is gone
                given_up = sa.and_(_a.destination == destination, self._long_in_making(connection))
                ended += self._reopen(connection, given_up, AskState.FAILED, delay)
            return ended

    @repeated
    def take_report(self, report: Report, refusals: int, delay: Callable[[str], Delay]) -> Settled | None:
        """Settle what an answer settles; None when there was no such request.

        `refusals` is how many answers other than yes an instance is put up with, `delay` the waiting times of
        a destination. The same answer again changes nothing.
        """
        with self._writing() as connection:
            asked = sa.select(_a.id, _a.destination).where(_a.transaction_uid == report.transaction_uid)
            ask = connection.execute(self._dialect.locked(asked)).first()
            if ask is None:
                return None
            counts = self._settle(connection, ask.id, report, refusals, delay(ask.destination))
            connection.execute(sa.update(asks).where(_a.id == ask.id).values(state=AskState.ANSWERED))
            return Settled(
                ask.destination,
                committed=counts[Step.DONE],
                asked_again=counts[Step.ASK_AGAIN],
                sent_again=counts[Step.SEND_AGAIN],
                given_up=counts[Step.GIVE_UP],
            )

    def waive_commitments(self, asked: Collection[str]) -> int:
        """Let go of what destinations other than these were to commit to; they are not asked any more.

        Returns how many deliveries that sets free. It takes some at a time, and others write in between.
        """
        waived = 0
        while True:
            looked_at, set_free = self._waive_some(asked)
            waived += set_free
            if looked_at < _BATCH:
                return waived

    @repeated
    def _waive_some(self, asked: Collection[str]) -> tuple[int, int]:
        """How many were let go of, and how many of these were still owed."""
        others = _with_instances().where(_c.destination.not_in(asked)).limit(_BATCH)
        with self._writing() as connection:
            locked = self._dialect.locked(others, _c.delivery_id, of=commitments)
            rows = connection.execute(locked).all()
            owed = [row for row in rows if row.state in (CommitmentState.WANTED, CommitmentState.ASKED)]
            self._note_rows(connection, owed, "commitment-waived", "")
            gone = [row.delivery_id for row in rows]
            connection.execute(sa.delete(commitments).where(_c.delivery_id.in_(gone)))
        return len(rows), len(owed)

    @repeated
    def forget_asks(self, before: float) -> int:
        """Delete the requests that ended and were made before this time; returns how many."""
        ended = in_state(asks, AskState.ANSWERED, AskState.FAILED, AskState.OVERDUE)
        with self._writing() as connection:
            before = self._there(connection, before)
            return connection.execute(sa.delete(asks).where(ended, _a.asked_at < before)).rowcount

    def _bound(self) -> Sequence[sa.ColumnElement[bool]]:
        """What a destination has not committed to stays, bytes and row: it may have to be sent again."""
        owed = (
            sa.select(_d.id)
            .join_from(deliveries, commitments, _c.delivery_id == _d.id)
            .where(_d.instance_id == _i.id, UNCOMMITTED)
        )
        return (*super()._bound(), owed.exists())

    def _want_commitment(self, connection: sa.Connection, delivery_id: int, destination: str) -> None:
        """Record with a delivery that its destination is to be asked for it."""
        before = connection.execute(
            sa.select(_c.state, _c.refusals).where(_c.delivery_id == delivery_id)
        ).first()
        now = self._now(connection)
        values: dict[str, object] = {
            "destination": destination,
            "state": CommitmentState.WANTED,
            "wanted_at": now,
            "next_at": now,
            "silences": 0,
        }
        if before is None:
            connection.execute(sa.insert(commitments), values | {"delivery_id": delivery_id})
            return
        state = CommitmentState(before.state)
        # a dead letter that a person queued again starts with a clean record, as its attempts do
        values["refusals"] = 0 if state is CommitmentState.REFUSED else before.refusals
        self._move(connection, [delivery_id], values)

    def _waive(self, connection: sa.Connection, delivery_ids: Sequence[int]) -> None:
        """Who took these deliveries is not asked, so what another was to commit to is owed no more."""
        if delivery_ids:
            _WAIVED.run_many(connection, [{"of_delivery": delivery_id} for delivery_id in delivery_ids])

    def _abandon_asks(self, connection: sa.Connection) -> int:
        """End the requests that the last run was making when it ended; their instances are due at once."""
        own = sa.and_(_a.state == AskState.ASKING, _a.holder == self._holder)
        return self._reopen(connection, own, AskState.FAILED, lambda _silences: 0.0)

    def _long_in_making(self, connection: sa.Connection) -> sa.ColumnElement[bool]:
        """Requests whose maker must be gone, so long have they been neither taken nor refused."""
        return sa.and_(_a.state == AskState.ASKING, _a.asked_at <= self._now(connection) - _MAKING_S)

    # ---- one place for each kind of change ----

    def _move(self, connection: sa.Connection, ids: Iterable[int], values: dict[str, object]) -> None:
        one = sa.update(commitments).where(_c.delivery_id == sa.bindparam("of_delivery"))
        rows = [{"of_delivery": delivery_id} for delivery_id in ids]
        if rows:
            connection.execute(one.values(values), rows)

    def _reopen(
        self, connection: sa.Connection, which: sa.ColumnElement[bool], state: AskState, delay: Delay
    ) -> int:
        """End open requests without an answer, and let their instances be asked for again."""
        query = sa.select(_a.id).where(_OPEN, which)
        ended = connection.execute(self._dialect.locked(query, _a.id)).scalars().all()
        now = self._now(connection)
        for ask_id in ended:
            asked = _with_instances().where(_c.ask_id == ask_id)
            locked = self._dialect.locked(asked, _c.delivery_id, of=commitments)
            rows = connection.execute(locked).all()
            for silences, ids in _grouped(rows):
                values = {
                    "state": CommitmentState.WANTED,
                    "silences": silences + 1,
                    "next_at": now + delay(silences + 1),
                    "ask_id": None,
                }
                self._move(connection, ids, values)
            self._note_rows(connection, rows, "commitment-unanswered", state)
            connection.execute(sa.update(asks).where(_a.id == ask_id).values(state=state))
        return len(ended)

    def _settle(
        self, connection: sa.Connection, ask_id: int, report: Report, refusals: int, delay: Delay
    ) -> Counter[Step]:
        """Do what each instance's answer asks for."""
        said = {reference.sop_instance_uid: answer for reference, answer in report.answers.items()}
        counts: Counter[Step] = Counter()
        items = self._dialect.locked(_items_of(ask_id), _c.delivery_id, of=commitments)
        for row in connection.execute(items).all():
            answer = said.get(row.sop_instance_uid)
            state = CommitmentState(row.state)
            if answer == Answer.COMMITTED and CommitmentState.COMMITTED in COMMITMENT_TRANSITIONS[state]:
                counts[Step.DONE] += 1
                self._commit(connection, row)
            elif answer != Answer.COMMITTED and state is CommitmentState.ASKED and row.ask_id == ask_id:
                # what an answer leaves out is as good as one that may change
                counted = Answer.PROCESSING_FAILURE if answer is None else answer
                following = step(counted, row.refusals + 1, refusals)
                counts[following] += 1
                self._refuse(connection, row, following, answer, delay)
        return counts

    def _commit(self, connection: sa.Connection, row: Row) -> None:
        self._move(connection, [row.delivery_id], {"state": CommitmentState.COMMITTED, "ask_id": None})
        self._note(connection, row.instance_id, "committed", destination=row.destination)

    def _refuse(
        self, connection: sa.Connection, row: Row, following: Step, answer: int | None, delay: Delay
    ) -> None:
        """Carry out an answer other than yes; `answer` None is an instance that the answer leaves out."""
        state = _AFTER[following]
        check_commitment_move(CommitmentState.ASKED, state)
        refused = row.refusals + 1
        values = {
            "state": state,
            "refusals": refused,
            "next_at": self._now(connection) + delay(refused),
            "ask_id": None,
        }
        self._move(connection, [row.delivery_id], values)
        word = "commitment-left-out" if answer is None else reason(answer)
        self._note(connection, row.instance_id, "not-committed", destination=row.destination, reason=word)
        if following is Step.SEND_AGAIN:
            self._send_again(connection, row, word)
        elif following is Step.GIVE_UP:
            self._give_up(connection, row, word)

    def _send_again(self, connection: sa.Connection, row: Row, word: str) -> None:
        check_delivery_move(DeliveryState.DELIVERED, DeliveryState.QUEUED)
        now = self._now(connection)
        values = {
            "state": DeliveryState.QUEUED,
            "queued_at": now,
            "next_at": now,
            "attempts": 0,
            "reason": word,
        }
        connection.execute(sa.update(deliveries).where(_d.id == row.delivery_id).values(values))
        self._note(
            connection, row.instance_id, DeliveryState.QUEUED, destination=row.destination, reason=word
        )

    def _give_up(self, connection: sa.Connection, row: Row, word: str) -> None:
        check_delivery_move(DeliveryState.DELIVERED, DeliveryState.DEAD)
        values = {"state": DeliveryState.DEAD, "reason": word}
        connection.execute(sa.update(deliveries).where(_d.id == row.delivery_id).values(values))
        self._note(connection, row.instance_id, DeliveryState.DEAD, destination=row.destination, reason=word)

    def _note_rows(self, connection: sa.Connection, rows: Iterable[Row], what: str, word: str) -> None:
        now = self._now(connection)
        notes = [event_values(now, row.instance_id, what, row.destination, word) for row in rows]
        if notes:
            connection.execute(sa.insert(events), notes)


_WAIVED = Statement(sa.delete(commitments).where(_c.delivery_id == sa.bindparam("of_delivery")))
_AFTER: Mapping[Step, CommitmentState] = {
    Step.ASK_AGAIN: CommitmentState.WANTED,
    Step.SEND_AGAIN: CommitmentState.RESENDING,
    Step.GIVE_UP: CommitmentState.REFUSED,
}


def _with_instances() -> sa.Select[*tuple[Any, ...]]:
    """Commitments, each with its instance."""
    return sa.select(commitments, _d.instance_id).join_from(commitments, deliveries, _c.delivery_id == _d.id)


def _ready_to_ask(destination: str, now: float) -> sa.Select[*tuple[Any, ...]]:
    """What a destination is to be asked for, the longest waiting first, under the UIDs that it was sent."""
    return (
        sa.select(
            _c.delivery_id,
            _c.next_at,
            _c.silences,
            _i.out_sop_class_uid.label("sop_class_uid"),
            _i.out_sop_instance_uid.label("sop_instance_uid"),
        )
        .join_from(commitments, deliveries, _c.delivery_id == _d.id)
        .join(instances, _d.instance_id == _i.id)
        .where(_WANTED, _c.destination == destination, _c.next_at <= now)
        .order_by(_c.next_at, _c.delivery_id)
    )


def _items_of(ask_id: int) -> sa.Select[*tuple[Any, ...]]:
    """The commitments that a request was about, each with its instance as the destination knows it."""
    return (
        sa.select(commitments, _d.instance_id, _i.out_sop_instance_uid.label("sop_instance_uid"))
        .join_from(ask_items, commitments, _item.delivery_id == _c.delivery_id)
        .join(deliveries, _c.delivery_id == _d.id)
        .join(instances, _d.instance_id == _i.id)
        .where(_item.ask_id == ask_id)
    )


def _grouped(rows: Iterable[Row]) -> list[tuple[int, list[int]]]:
    """Deliveries by how many requests for them came to nothing."""
    groups: dict[int, list[int]] = {}
    for row in rows:
        groups.setdefault(row.silences, []).append(row.delivery_id)
    return list(groups.items())
