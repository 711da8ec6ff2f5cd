"""Counters and histograms: what is counted within a transaction is written at its end, in one statement.

    count    adds to the tally of the transaction that is open
    Soon     keeps what no row stands for until some transaction takes it along

So a counter says no less and no more than the rows that were committed with it, whatever is killed when.
"""

from __future__ import annotations

import functools
import json
import threading
from collections import defaultdict
from collections.abc import Iterable

import sqlalchemy as sa

from dicom_node.ledger import dialects
from dicom_node.ledger.schema import tallies
from dicom_node.metrics import Counted, Kind, Reading

_OPEN = "dicom_node_tally"
#: (metric, labels, bound) -> what is added
Tally = defaultdict[tuple[str, tuple[str, ...], str], float]


def begin(connection: sa.Connection) -> None:
    """Begin to count anew; what a transaction before this one counted and could not commit is forgotten."""
    connection.info[_OPEN] = defaultdict(float)


def count(connection: sa.Connection, readings: Iterable[Reading]) -> None:
    """Count with the transaction that is open."""
    add(connection.info[_OPEN], readings)


def add(tally: Tally, readings: Iterable[Reading]) -> None:
    """Add readings to a tally in memory."""
    for reading in readings:
        name, labels = reading.metric.name, reading.labels
        if reading.metric.kind is Kind.HISTOGRAM:
            tally[name, labels, reading.bound] += 1
        tally[name, labels, ""] += reading.value


def merge(tally: Tally, other: Tally) -> None:
    """Add one tally in memory to another."""
    for key, value in other.items():
        tally[key] += value


def write(connection: sa.Connection, soon: Tally) -> None:
    """Write what was counted in this transaction, and what waited for one."""
    tally: Tally = connection.info[_OPEN]
    merge(tally, soon)
    if tally:
        dialects.of(connection).add_tallies(connection, as_rows(tally))


def as_rows(tally: Tally) -> list[dialects.Tallied]:
    """What was counted, as rows of the table, in the order of their keys."""
    return sorted((metric, _text(labels), bound, value) for (metric, labels, bound), value in tally.items())


@functools.lru_cache(maxsize=4096)
def _text(labels: tuple[str, ...]) -> str:
    return json.dumps(labels, separators=(",", ":"))


def read(connection: sa.Connection) -> tuple[Counted, ...]:
    """Everything that was ever counted."""
    rows = connection.execute(_TOTALS).all()
    return tuple(Counted(row.metric, tuple(json.loads(row.labels)), row.bound, row.value) for row in rows)


_t = tallies.c
#: a server keeps one row for each connection that counts
_TOTALS = (
    sa.select(_t.metric, _t.labels, _t.bound, sa.func.sum(_t.value).label("value"))
    .group_by(_t.metric, _t.labels, _t.bound)
    .order_by(_t.metric, _t.labels, _t.bound)
)


class Soon:
    """What was counted without a transaction of its own; dies with the process if none comes in time."""

    def __init__(self) -> None:
        self._tally: Tally = defaultdict(float)
        self._lock = threading.Lock()

    def add(self, readings: Iterable[Reading]) -> None:
        """Keep until some transaction is committed."""
        with self._lock:
            add(self._tally, readings)

    def take(self) -> Tally:
        """Everything that waits; whoever cannot commit it gives it back."""
        with self._lock:
            taken, self._tally = self._tally, defaultdict(float)
            return taken

    def give_back(self, tally: Tally) -> None:
        """Let it wait for another transaction."""
        with self._lock:
            merge(self._tally, tally)

    def __bool__(self) -> bool:
        return bool(self._tally)
