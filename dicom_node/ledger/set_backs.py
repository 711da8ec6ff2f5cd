"""A clock that was set back, and what waits by it.

What was due, or was to be, by the clock as it was, is so by the clock as it is: else everything that waits
would wait so much longer. Rules that bind here:
1. That the clock was set back is noted in one transaction, and followed in many small ones: whoever else
   wants to write waits for one of them, not for a million rows.
2. How far that has come is written with what it moved. Ended anywhere, it goes on from there, and moves no
   row twice; of two that follow at once, each moves what the other has not.
3. Rows that came after it was noted have times of the clock as it is, and stay. So do those that others
   change meanwhile, but for a delivery or an instance that is put off just then: it is tried sooner.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from dicom_node.ledger.database import repeated
from dicom_node.ledger.recovery import Recovery
from dicom_node.ledger.schema import (
    QUEUED,
    RECEIVED,
    SENDING,
    UNCOMMITTED,
    UNREPORTED,
    WORKING,
    asks,
    commitments,
    deliveries,
    events,
    instances,
    promises,
    set_backs,
)
from dicom_node.ledger.statements import Statement

#: rows that are moved in one transaction: some ten milliseconds
_BATCH = 1000
#: longer than a lease lasts, seconds
_LONGEST_LEASE_S = 3600.0
#: what the story of an instance says where the times of what follows are another clock's
_SET_BACK = "clock-set-back"
_i, _d, _s = instances.c, deliveries.c, set_backs.c


@dataclass(frozen=True, slots=True)
class _Part:
    """Times that something waits for, and of which rows; whether one within the time set back may be new."""

    column: sa.Column[float]
    which: sa.ColumnElement[bool]
    may_be_new: bool = False

    @property
    def name(self) -> str:
        return f"{self.column.table.name}.{self.column.name}"

    @property
    def key(self) -> sa.Column[int]:
        (key,) = self.column.table.primary_key.columns
        return key


#: leases come first: what is renewed later than this is not to be taken for an old one
_PARTS = (
    _Part(_i.lease_until, WORKING, may_be_new=True),
    _Part(_d.lease_until, SENDING, may_be_new=True),
    _Part(asks.c.due_at, sa.true(), may_be_new=True),
    _Part(promises.c.due_at, UNREPORTED, may_be_new=True),
    _Part(promises.c.next_at, UNREPORTED),
    _Part(_i.next_at, RECEIVED),
    _Part(_d.next_at, QUEUED),
    _Part(commitments.c.next_at, UNCOMMITTED),
)


@dataclass(frozen=True, slots=True)
class _Noted:
    """What is still to be moved of a part: times after `later_than`, of rows behind `done` up to `last`."""

    by_s: float
    later_than: float
    done: int
    last: int


class SetBacks(Recovery):
    """Follows a clock that was set back."""

    @property
    def by_this_clock(self) -> bool:
        """Whether the clock of this machine says when something is due, not that of a server."""
        return not self._dialect.shared

    def behind_s(self) -> float:
        """By how much this machine's clock was set back while no node ran, as far as the last event tells.

        0.0 where a server's clock counts, which is nobody's business here.
        """
        if not self.by_this_clock:
            return 0.0
        last = self.last_event_at()
        with self._reading() as connection:
            return max(0.0, last - self._now(connection))

    def set_back(self, by_s: float) -> None:
        """Note that the clock was set back by so many seconds; `follow_the_clock` does the rest.

        Leases, which whoever holds them renews, follow only from an hour on: one that was taken since then
        looks like an old one else, and would end under its holder.
        """
        for _ in self.follow_the_clock():  # of an earlier one, which was cut off
            pass
        self._note_set_back(by_s)

    def follow_the_clock(self) -> Iterator[int]:
        """Move what is still to be moved, and say of each transaction how many rows it moved.

        Let others write in between. Yields nothing if there is nothing to follow; may be ended at any time.
        """
        with self._reading() as connection:  # as a rule there is none, and this is asked every few seconds
            open_parts = set(connection.execute(sa.select(_s.part)).scalars())
        for part in _PARTS:
            noted = self._set_back_of(part) if part.name in open_parts else None
            if noted is not None:
                yield from self._follow_part(part, noted)

    @repeated
    def _note_set_back(self, by_s: float) -> None:
        with self._writing() as connection:
            now = self._now(connection)
            for part in _PARTS:
                if part.column.name == "lease_until" and by_s < _LONGEST_LEASE_S:
                    continue
                last = connection.execute(sa.select(sa.func.max(part.key))).scalar()
                values = {
                    "part": part.name,
                    "by_s": by_s,
                    "later_than": now + (by_s if part.may_be_new else 0.0),
                    "done": -1,
                    "last": last or 0,
                }
                connection.execute(sa.insert(set_backs).values(values))
            self._tell_set_back(connection, now)

    def _tell_set_back(self, connection: sa.Connection, now: float) -> None:
        """Have the last event one of the clock as it is, or the next start would find it set back again."""
        query = sa.select(events.c.instance_id, events.c.at).order_by(events.c.id.desc()).limit(1)
        last = connection.execute(query).one_or_none()
        if last is not None and last.at > now:
            self._note(connection, last.instance_id, _SET_BACK)

    def _set_back_of(self, part: _Part) -> _Noted | None:
        query = sa.select(_s.by_s, _s.later_than, _s.done, _s.last).where(_s.part == part.name)
        with self._reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _Noted(*row)

    def _follow_part(self, part: _Part, noted: _Noted) -> Iterator[int]:
        numbers, done = self._to_move_back(part, noted), noted.done
        for start in range(0, max(len(numbers), 1), _BATCH):
            batch = numbers[start : start + _BATCH]
            moved = self._move_back(part, noted, done, batch, ends=start + _BATCH >= len(numbers))
            if moved is None:
                return
            yield moved
            done = batch[-1] if batch else done

    def _to_move_back(self, part: _Part, noted: _Noted) -> array[int]:
        """The rows that are still to be moved, in order; from the index of those that wait."""
        within = sa.and_(part.key > noted.done, part.key <= noted.last)
        query = sa.select(part.key).where(part.which, part.column > noted.later_than, within)
        with self._reading() as connection:
            found = connection.execution_options(yield_per=_BATCH).execute(query)
            return array("q", sorted(array("q", found.scalars())))

    @repeated
    def _move_back(
        self, part: _Part, noted: _Noted, done: int, batch: array[int], *, ends: bool
    ) -> int | None:
        """Move some rows, behind `done`; None if somebody else has."""
        mine = sa.and_(_s.part == part.name, _s.done == done)
        step = sa.delete(set_backs) if ends else sa.update(set_backs).values(done=batch[-1])
        # what a power cut undoes, it undoes wholly
        with self._writing(awaits_disk=False) as connection:
            if connection.execute(step.where(mine)).rowcount != 1:
                return None
            values = {"later_than": noted.later_than, "by_s": noted.by_s}
            return _MOVES[part.name].run_many(connection, [{"number": each, **values} for each in batch])


#: each row by its number: the index of those that wait changes while it is walked through
_MOVES = {
    part.name: Statement(
        sa.update(part.column.table)
        .where(part.key == sa.bindparam("number"), part.which, part.column > sa.bindparam("later_than"))
        .values({part.column.name: part.column - sa.bindparam("by_s")})
    )
    for part in _PARTS
}
