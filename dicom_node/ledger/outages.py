"""What destinations said: which of them are down, and how attempts ended."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from dicom_node.ledger import tallies
from dicom_node.ledger.database import Database, repeated
from dicom_node.ledger.schema import outages
from dicom_node.metrics import RESULTS


class Outages(Database):
    """The memory of the forwarder that outlives a restart."""

    def outages(self) -> dict[str, float]:
        """Destination -> since when it is down, seconds since 1970; the others are there."""
        with self._reading() as connection:
            rows = connection.execute(sa.select(outages.c.destination, outages.c.since))
            return {name: float(since) for name, since in rows}

    def down_s(self) -> dict[str, float]:
        """Destination -> seconds for which it has been down."""
        with self._reading() as connection:
            now = self._now(connection)
            rows = connection.execute(sa.select(outages.c.destination, outages.c.since))
            return {name: max(0.0, now - since) for name, since in rows}

    def results(self) -> dict[tuple[str, str], int]:
        """(destination that was asked, bounded word for how it ended) -> attempts, all that ever were."""
        with self._reading() as connection:
            counted = tallies.read(connection)
        ended = (each for each in counted if each.metric == RESULTS.name)
        return {(each.labels[0], each.labels[1]): int(each.value) for each in ended}

    @repeated
    def went_down(self, destination: str, since: float) -> None:
        """Record that a destination is down; if it was already, since the earlier moment."""
        with self._writing() as connection:
            values = {"destination": destination, "since": self._there(connection, since)}
            connection.execute(self._dialect.upsert(outages).values(values).on_conflict_do_nothing())

    @repeated
    def take_hurry(self, destination: str) -> bool:
        """Whether an operator wants a destination that is down asked at once; True only once."""
        wanted = sa.and_(outages.c.destination == destination, outages.c.hurry == 1)
        with self._reading() as connection:
            if connection.execute(sa.select(outages.c.since).where(wanted)).first() is None:
                return False
        with self._writing() as connection:
            return connection.execute(sa.update(outages).where(wanted).values(hurry=0)).rowcount == 1

    @repeated
    def came_back(self, destination: str) -> None:
        """Record that a destination is there again."""
        with self._writing() as connection:
            connection.execute(sa.delete(outages).where(outages.c.destination == destination))


def hurry(connection: sa.Connection, destinations: Iterable[str]) -> None:
    """Have those of the destinations that are down asked at once."""
    names = list(destinations)
    connection.execute(sa.update(outages).where(outages.c.destination.in_(names)).values(hurry=1))
