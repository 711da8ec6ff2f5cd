"""The rows of one ledger into another: a node of one machine becomes part of a cluster, or goes back.

Everything is copied in one transaction, under the numbers that it had, and counted before that is committed;
so a copy is whole, or was never made. Nobody may work on either ledger meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from dicom_node.errors import LedgerError
from dicom_node.ledger.database import Database
from dicom_node.ledger.schema import (
    ask_items,
    asks,
    commitments,
    conversions,
    deliveries,
    events,
    instances,
    outages,
    pauses,
    promise_items,
    promises,
    runs,
    set_backs,
    tallies,
)

#: rows that are in memory at a time
_PAGE = 5000
#: those that others refer to come first
_TABLES = (
    *(instances, deliveries, conversions, outages, events, pauses),
    *(asks, commitments, ask_items, promises, promise_items, set_backs),
)
#: their rows are numbered, and no number is given out twice
_NUMBERED = (instances, deliveries, events, asks, promises)


class Moving(Database):
    """Hands everything over to another ledger."""

    def copy_to(self, other: Database) -> Mapping[str, int]:
        """Copy all rows to an empty ledger; returns how many of each table.

        Take back the leases first (`recover`). What is written here afterwards is not there:
        `note_moved` keeps everybody from it.

        Raises
        ------
        LedgerError : the other has rows already, or does not say that it has all of these
        """
        with self._writing() as here, other._writing() as there:
            _require_empty(other, there)
            other._dialect.take_time(there)
            copied = {table.name: _copy(here, other, there, table) for table in _TABLES}
            copied[tallies.name] = _copy_tallies(here, other, there)
            for table in _NUMBERED:
                other._dialect.number_from(there, table.name, self._dialect.last_number(here, table.name))
            born_at = here.execute(sa.select(sa.func.min(runs.c.born_at))).scalar_one()
            there.execute(sa.update(runs).where(runs.c.born_at > born_at).values(born_at=born_at))
            _require_all(other, there, copied)
        return copied


def _require_empty(other: Database, there: sa.Connection) -> None:
    for table in _TABLES:
        if there.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first():
            raise LedgerError(
                f"the ledger {other.place} is not empty, it has {table.name}; copy into a new database"
            )


def _copy(here: sa.Connection, other: Database, there: sa.Connection, table: sa.Table) -> int:
    rows = here.execution_options(yield_per=_PAGE).execute(sa.select(table))
    copied = 0
    for page in rows.partitions():
        other._dialect.load(there, table, page)
        copied += len(page)
    return copied


def _copy_tallies(here: sa.Connection, other: Database, there: sa.Connection) -> int:
    t = tallies.c
    totals = sa.select(t.metric, t.labels, t.bound, sa.func.sum(t.value)).group_by(
        t.metric, t.labels, t.bound
    )
    rows = [
        (str(metric), str(labels), str(bound), float(value))
        for metric, labels, bound, value in here.execute(totals)
    ]
    if rows:
        other._dialect.add_tallies(there, rows)
    return len(rows)


def _require_all(other: Database, there: sa.Connection, copied: Mapping[str, int]) -> None:
    for table in _TABLES:
        found = there.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
        if found != copied[table.name]:
            raise LedgerError(
                f"the ledger {other.place} has {found} {table.name} of {copied[table.name]}; nothing was "
                "copied, try again while nobody works on either"
            )
