"""Statements that every object needs, spelled once for each kind of database.

SQLAlchemy looks at a statement anew whenever it is executed: which parameters it has, whether it has been
spelled before, what its result is made of. For a row of an arrival that took four times as long as SQLite.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

#: the text, its parameters by position if the driver wants that, and values that are always the same
Spelled = tuple[str, tuple[str, ...] | None, Mapping[str, object]]


class Statement:
    """A statement with named parameters, to be run as text.

    Parameters
    ----------
    made : from SQLAlchemy's constructs, `sa.bindparam` for each value that is given when it is run
    """

    def __init__(self, made: sa.Select[Any] | sa.Insert | sa.Update | sa.Delete) -> None:
        self._made = made
        self._spelled: dict[str, Spelled] = {}

    def run(self, connection: sa.Connection, values: Mapping[str, object]) -> list[tuple[Any, ...]]:
        """Execute it once; its rows, if it gives any."""
        text, order, fixed = self._for(connection.dialect)
        with _cursor(connection, text) as cursor:
            cursor.execute(text, _parameters({**fixed, **values}, order))
            return cursor.fetchall() if cursor.description else []

    def run_many(self, connection: sa.Connection, rows: Iterable[Mapping[str, object]]) -> int:
        """Execute it for each of some rows; how many rows of the table it changed in all."""
        text, order, fixed = self._for(connection.dialect)
        given = [_parameters({**fixed, **values}, order) for values in rows]
        if not given:
            return 0
        with _cursor(connection, text) as cursor:
            cursor.executemany(text, given)
            return int(cursor.rowcount)

    def _for(self, dialect: sa.Dialect) -> Spelled:
        spelled = self._spelled.get(dialect.name)
        if spelled is None:
            compiled = self._made.compile(dialect=dialect)
            order: Sequence[str] | None = getattr(compiled, "positiontup", None)
            fixed = {name: value for name, value in compiled.params.items() if value is not None}
            by_position = None if order is None else tuple(order)
            spelled = self._spelled[dialect.name] = (str(compiled), by_position, fixed)
        return spelled


@contextlib.contextmanager
def _cursor(connection: sa.Connection, text: str) -> Iterator[Any]:
    """A cursor of the driver, whose errors are told as SQLAlchemy tells them."""
    dialect = connection.dialect
    failure = dialect.loaded_dbapi.Error
    cursor = connection.connection.cursor()
    try:
        yield cursor
    except failure as error:
        raise sa.exc.DBAPIError.instance(text, None, error, failure, dialect=dialect) from error
    finally:
        cursor.close()


def _parameters(values: Mapping[str, object], order: tuple[str, ...] | None) -> Any:
    """By position where the driver wants that, else by name."""
    return dict(values) if order is None else tuple([values[name] for name in order])
