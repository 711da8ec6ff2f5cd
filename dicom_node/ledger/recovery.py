"""What a start puts right in a ledger whose last holder may have been killed.

Row and bytes can part only by what the promises exclude: a disk that lied, a file that somebody removed. Then
the row says so and waits for an operator; nothing disappears without a word.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from dicom_node.jobs import DeliveryState, InstanceState, check_delivery_move, check_instance_move
from dicom_node.ledger.database import Loss, repeated
from dicom_node.ledger.instances import Instances
from dicom_node.ledger.schema import (
    BYTES_LOST,
    DEAD,
    KEPT,
    QUEUED,
    SENDING,
    UNPROCESSED,
    UNSETTLED,
    deliveries,
    events,
    instances,
    runs,
)

_PAGE = 1000
_i, _d = instances.c, deliveries.c


class Part(enum.StrEnum):
    """Which of an instance's two objects is meant."""

    CAME = "came"  #: what arrived
    LEAVES = "leaves"  #: what is to be delivered


@dataclass(frozen=True, slots=True)
class Claim:
    """Bytes that a row still needs, and those that they were made from; a size of 0 is not known."""

    instance_id: int
    part: Part
    blob: str
    size: int
    source: str
    source_size: int


class Recovery(Instances):
    """Takes up where the last run was ended."""

    def check(self) -> None:
        """Raise LedgerError with a remedy if the file is damaged; reads all of it, once, at start."""
        with self._reading() as connection:
            found = self._dialect.problems(connection)
        if found:
            raise self._dialect.damaged(found)

    def begin_run(self, boot: str) -> bool:
        """Note that a node runs, in this boot of the machine; True if the machine fell during the last."""
        return self._insist(lambda: self._begin_run(boot))

    @repeated
    def _begin_run(self, boot: str) -> bool:
        with self._writing() as connection:
            before = connection.execute(sa.select(runs.c.boot).where(self._own_run)).scalar()
            if before is None:
                values = {"born_at": self._now(connection), "boot": boot, "holder": self._holder}
                connection.execute(sa.insert(runs), values)
            else:
                connection.execute(sa.update(runs).where(self._own_run).values(boot=boot))
        return before not in ("", boot, None)

    @repeated
    def end_run(self) -> None:
        """Note that the node was stopped in good order."""
        with self._writing() as connection:
            connection.execute(sa.update(runs).where(self._own_run).values(boot=""))

    @property
    def _own_run(self) -> sa.ColumnElement[bool]:
        return runs.c.holder == self._holder

    def born_at(self) -> float:
        """When this ledger was made; 0 if that is not known."""
        with self._reading() as connection:
            return float(connection.execute(sa.select(sa.func.min(runs.c.born_at))).scalar_one())

    def last_event_at(self) -> float:
        """When anything happened last; 0 in a ledger in which nothing ever did."""
        with self._reading() as connection:
            last = sa.select(events.c.at).order_by(events.c.id.desc()).limit(1)
            return float(connection.execute(last).scalar() or 0.0)

    def recover(self) -> int:
        """Take back every lease of this node; call once at start, while none of it works. Returns how many.

        A file has one node only, so there it is every lease. Where nodes share a ledger, it is those under
        the name of this one (`holder`); those of a node that never comes back end by themselves.
        A restart accuses no instance of killing its worker, up to `INTERRUPTED_LIMIT` restarts.
        """
        return self._insist(self._recover)

    @repeated
    def _recover(self) -> int:
        with self._writing() as connection:
            self._abandon_asks(connection)
            work, sends = self._own(_i.worker), self._own(_d.holder)
            return self._take_back_work(connection, work, Loss.RESTART) + self._take_back_sends(
                connection, sends, Loss.RESTART
            )

    def _own(self, name: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
        return name.startswith(self._named(""), autoescape=True) if self._dialect.shared else sa.true()

    def claims(self) -> Iterator[Claim]:
        """Every claim on the spool, a page at a time; what is known to be lost is claimed no more."""
        columns = (_i.id, _i.blob, _i.size, _i.out_blob, _i.out_size)
        came = [
            (Part.CAME, sa.select(*columns).where(state, _i.reason.not_in(BYTES_LOST)))
            for state in (UNPROCESSED, KEPT)
        ]
        leaves = [
            (
                Part.LEAVES,
                sa.select(*columns)
                .join_from(deliveries, instances, _d.instance_id == _i.id)
                .where(state, _d.reason.not_in(BYTES_LOST)),
            )
            for state in (QUEUED, SENDING, DEAD)
        ]
        with self._reading() as connection:
            for part, query in came + leaves:
                rows = connection.execution_options(yield_per=_PAGE).execute(query)
                for number, blob, size, out_blob, out_size in rows:
                    wanted = (blob, size) if part is Part.CAME else (out_blob, out_size)
                    yield Claim(number, part, *wanted, blob, size)

    @repeated
    def lose(self, claim: Claim, reason: str, *, remake: bool = False) -> None:
        """Record that bytes are gone or changed; `reason` is one of `BYTES_LOST`.

        What arrived is quarantined; what was to leave is a dead letter. Either comes to life again when the
        same object arrives again; with `remake` what was to leave is made once more from what arrived.
        """
        with self._writing() as connection:
            if claim.part is Part.CAME:
                self._lose_what_came(connection, claim.instance_id, reason)
            elif self._lose_what_leaves(connection, claim.instance_id, reason) and remake:
                check_instance_move(InstanceState.READY, InstanceState.RECEIVED)
                values = {"state": InstanceState.RECEIVED, "next_at": self._now(connection)}
                connection.execute(sa.update(instances).where(_i.id == claim.instance_id).values(values))
                self._note(connection, claim.instance_id, InstanceState.RECEIVED, reason="to-be-made-again")

    def _lose_what_came(self, connection: sa.Connection, instance_id: int, reason: str) -> None:
        query = self._dialect.locked(sa.select(_i.state).where(_i.id == instance_id))
        state = connection.execute(query).scalar_one()
        if state != InstanceState.QUARANTINED:
            check_instance_move(InstanceState(state), InstanceState.QUARANTINED)
        values = {"state": InstanceState.QUARANTINED, "result": "quarantined", "reason": reason}
        connection.execute(sa.update(instances).where(_i.id == instance_id).values(values))
        self._note(connection, instance_id, InstanceState.QUARANTINED, reason=reason)

    def _lose_what_leaves(self, connection: sa.Connection, instance_id: int, reason: str) -> bool:
        """Give up what is not delivered yet of an instance; False if that was done already."""
        waiting = sa.select(_d.id, _d.destination, _d.state).where(
            _d.instance_id == instance_id, UNSETTLED, _d.reason.not_in(BYTES_LOST)
        )
        rows = connection.execute(self._dialect.locked(waiting, _d.id)).all()
        for row in rows:
            if row.state != DeliveryState.DEAD:
                check_delivery_move(DeliveryState(row.state), DeliveryState.DEAD)
            values = {"state": DeliveryState.DEAD, "reason": reason}
            connection.execute(sa.update(deliveries).where(_d.id == row.id).values(values))
            self._note(
                connection, instance_id, DeliveryState.DEAD, destination=row.destination, reason=reason
            )
        return bool(rows)
