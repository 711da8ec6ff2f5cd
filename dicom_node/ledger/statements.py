"""Statements that every object needs, spelled once for each kind of database.

SQLAlchemy looks at a statement anew whenever it is executed: which parameters it has, whether it has been
spelled before, what its result is made of. For a row of an arrival that took four times as long as SQLite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa

Result = TypeVar("Result")


class _Spelled(NamedTuple):
    """The text, what makes its parameters of their values by name, and values that are always the same."""

    text: str
    parameters: Callable[[Mapping[str, object]], Any]
    fixed: Mapping[str, object]

    def given(self, values: Mapping[str, object]) -> Any:
        """What the driver takes for one execution."""
        return self.parameters({**self.fixed, **values} if self.fixed else values)


class Statement:
    """A statement with named parameters, to be run as text.

    Parameters
    ----------
    made : from SQLAlchemy's constructs, `sa.bindparam` for each value that is given when it is run
    """

    def __init__(self, made: sa.Select[Any] | sa.Insert | sa.Update | sa.Delete) -> None:
        self._made = made
        self._spelled: dict[str, _Spelled] = {}

    def run(self, connection: sa.Connection, values: Mapping[str, object]) -> list[tuple[Any, ...]]:
        """Execute it once; its rows, if it gives any."""
        spelled = self._for(connection.dialect)
        given = spelled.given(values)

        def execute(cursor: Any) -> list[tuple[Any, ...]]:
            cursor.execute(spelled.text, given)
            return cursor.fetchall() if cursor.description else []

        return _on_cursor(connection, spelled.text, execute)

    def run_many(self, connection: sa.Connection, rows: Iterable[Mapping[str, object]]) -> int:
        """Execute it for each of some rows; how many rows of the table it changed in all."""
        spelled = self._for(connection.dialect)
        given = [spelled.given(values) for values in rows]
        if not given:
            return 0

        def execute(cursor: Any) -> int:
            cursor.executemany(spelled.text, given)
            return int(cursor.rowcount)

        return _on_cursor(connection, spelled.text, execute)

    def _for(self, dialect: sa.Dialect) -> _Spelled:
        spelled = self._spelled.get(dialect.name)
        if spelled is None:
            compiled = self._made.compile(dialect=dialect)
            fixed = {name: value for name, value in compiled.params.items() if value is not None}
            parameters = _parameters(getattr(compiled, "positiontup", None))
            spelled = self._spelled[dialect.name] = _Spelled(str(compiled), parameters, fixed)
        return spelled


def _on_cursor(connection: sa.Connection, text: str, execute: Callable[[Any], Result]) -> Result:
    """What is done with a cursor of the driver, whose errors are told as SQLAlchemy tells them."""
    failure = connection.dialect.loaded_dbapi.Error
    cursor = connection.connection.cursor()
    try:
        return execute(cursor)
    except failure as error:
        raise sa.exc.DBAPIError.instance(text, None, error, failure, dialect=connection.dialect) from error
    finally:
        cursor.close()


def _parameters(order: list[str] | None) -> Callable[[Mapping[str, object]], Any]:
    """Values by position where the driver wants that, else by name."""
    if order is None:
        return dict
    if len(order) > 1:
        return itemgetter(*order)
    return lambda values: tuple([values[name] for name in order])
