"""What a shared store of objects has remembered: which objects nobody may remove, or put, at this moment.

A name is one row, pinned or doomed, so that of one who puts and one who removes only the first gets his way.
Besides, which store this ledger is of, and where its rows went when they were moved to another ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from dicom_node.ledger.database import Database, repeated
from dicom_node.ledger.schema import blob_guards, floor, homes, lowest

#: a schema that no program knows
NOBODY = 1_000_000

_g, _h = blob_guards.c, homes.c
#: both databases know this form; one name at a time, so that a row that is another's is told
_PIN = sa.text(
    "INSERT INTO blob_guards (blob, doomed, until) VALUES (:blob, 0, :until)"
    " ON CONFLICT (blob) DO UPDATE SET doomed = 0, until = excluded.until"
    " WHERE blob_guards.doomed = 0 OR blob_guards.until < :now RETURNING blob"
)
_DOOM = sa.text(
    "INSERT INTO blob_guards (blob, doomed, until) VALUES (:blob, 1, :until)"
    " ON CONFLICT (blob) DO NOTHING RETURNING blob"
)
_SET_STORE = sa.text("UPDATE homes SET store = :store WHERE store = ''")


class Guards(Database):
    """Keeps those apart who put objects into a shared store and who remove them."""

    @repeated
    def pin(self, blob: str, until: float) -> bool:
        """Keep everybody from removing an object until then; False while somebody is removing it."""
        with self._writing() as connection:
            until = self._there(connection, until)
            values = {"blob": blob, "until": until, "now": self._now(connection)}
            return connection.execute(_PIN, values).scalar() is not None

    @repeated
    def doom(self, blobs: Iterable[str], until: float) -> frozenset[str]:
        """Announce that these are being removed; returns those that nobody has pinned or doomed."""
        with self._writing() as connection:
            until = self._there(connection, until)
            connection.execute(sa.delete(blob_guards).where(_g.until < self._now(connection)))
            # in one order everywhere, so that two who doom never wait for each other
            done = [
                connection.execute(_DOOM, {"blob": blob, "until": until}).scalar() for blob in sorted(blobs)
            ]
        return frozenset(str(blob) for blob in done if blob is not None)

    @repeated
    def spare(self, blobs: Iterable[str]) -> None:
        """End the announcement: they are gone, or stay."""
        names: Sequence[str] = list(blobs)
        if names:
            with self._writing() as connection:
                connection.execute(sa.delete(blob_guards).where(_g.blob.in_(names), _g.doomed == 1))

    def store_id(self) -> str:
        """The id of the shared store that this ledger's objects are in; empty if there is none yet."""
        with self._reading() as connection:
            return str(connection.execute(sa.select(_h.store)).scalar_one())

    @repeated
    def note_store(self, identity: str) -> str:
        """Remember the store, unless another is remembered; returns the one that is."""
        with self._writing() as connection:
            connection.execute(_SET_STORE, {"store": identity})
            return str(connection.execute(sa.select(_h.store)).scalar_one())

    def moved_to(self) -> str:
        """The cluster that the rows of this ledger were moved to; empty if they were not."""
        with self._reading() as connection:
            return str(connection.execute(sa.select(_h.moved_to)).scalar_one())

    @repeated
    def note_moved(self, cluster: str) -> None:
        """Remember that the rows are another ledger's now; an empty name takes it back."""
        with self._writing() as connection:
            connection.execute(sa.update(homes).values(moved_to=cluster))
            # programs that know nothing of moves look at the floor before they go on with this file
            lowest_schema = NOBODY if cluster else lowest(self._scripts)
            connection.execute(sa.update(floor).values(schema=lowest_schema))
