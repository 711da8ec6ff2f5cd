"""What the readers of a node found, counted: what happened, not what is here, so no purge lowers it."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from dicom_node.ledger.database import Database
from dicom_node.ledger.schema import verdicts


class Verdicts(Database):
    """Tells the counts."""

    def verdicts(self) -> dict[tuple[str, str], int]:
        """(route, finding) -> judgements that ended so; an instance that is judged again counts again."""
        columns = (verdicts.c.route, verdicts.c.finding, verdicts.c.count)
        with self._reading() as connection:
            rows = connection.execute(sa.select(*columns).order_by(*columns[:2]))
            return {(route, finding): int(count) for route, finding, count in rows}


def count_verdict(connection: sa.Connection, route: str, finding: str) -> None:
    """Add one judgement; inside the transaction that records its instance's outcome."""
    made = sqlite.insert(verdicts).values(route=route, finding=finding, count=1)
    more = made.on_conflict_do_update(
        index_elements=[verdicts.c.route, verdicts.c.finding], set_={"count": verdicts.c.count + 1}
    )
    connection.execute(more)
