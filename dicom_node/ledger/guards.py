"""What a shared store of objects has remembered: which objects nobody may remove, or put, at this moment.

A name is one row, pinned or doomed, so that of one who puts and one who removes only the first gets his way.
Besides, what all machines are to know: which store the objects of this ledger are in, whether its rows are on
their way between ledgers, how far the audit trail was told, and the salt of their logs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from dicom_node.ledger.database import Database, repeated
from dicom_node.ledger.schema import blob_guards, floor, homes, lowest

#: a schema that no program knows
NOBODY = 1_000_000

_g, _h = blob_guards.c, homes.c
#: both databases know these forms; a name at a time, so that one that is somebody else's is told
_PIN = sa.text(
    "INSERT INTO blob_guards (blob, doomed, until) VALUES (:blob, 0, :until)"
    " ON CONFLICT (blob) DO UPDATE SET doomed = 0, until = excluded.until"
    " WHERE blob_guards.doomed = 0 OR blob_guards.until < :now RETURNING blob"
)
_DOOM = sa.text(
    "INSERT INTO blob_guards (blob, doomed, until) VALUES (:blob, 1, :until)"
    " ON CONFLICT (blob) DO NOTHING RETURNING blob"
)


class Guards(Database):
    """Keeps those apart who put objects into a shared store and who remove them."""

    @repeated
    def pin(self, blob: str, for_s: float) -> bool:
        """Keep everybody from removing an object for so long; False while somebody is removing it."""
        with self._writing() as connection:
            now = self._now(connection)
            values = {"blob": blob, "until": now + for_s, "now": now}
            return connection.execute(_PIN, values).scalar() is not None

    @repeated
    def doom(self, blobs: Iterable[str], for_s: float) -> frozenset[str]:
        """Announce that these are being removed; returns those that nobody has pinned or doomed."""
        done: list[str | None] = []
        with self._writing() as connection:
            now = self._now(connection)
            connection.execute(sa.delete(blob_guards).where(_g.until < now))
            for blob in sorted(blobs):  # in one order everywhere, so that no two wait for each other
                done.append(connection.execute(_DOOM, {"blob": blob, "until": now + for_s}).scalar())
        return frozenset(blob for blob in done if blob is not None)

    @repeated
    def spare(self, blobs: Iterable[str]) -> None:
        """End the announcement: they are gone, or stay."""
        names: Sequence[str] = sorted(blobs)
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
            connection.execute(sa.update(homes).where(_h.store == "").values(store=identity))
            return str(connection.execute(sa.select(_h.store)).scalar_one())

    def moved_to(self) -> str:
        """The cluster that its rows were moved to, or are on their way to; empty if they stay."""
        with self._reading() as connection:
            return str(connection.execute(sa.select(_h.moved_to)).scalar_one())

    @repeated
    def note_moved(self, cluster: str) -> None:
        """Remember that the rows are another ledger's, or have not all come; an empty name takes it back."""
        with self._writing() as connection:
            connection.execute(sa.update(homes).values(moved_to=cluster))
            # programs that know nothing of moves look at the floor before they go on with this file
            lowest_schema = NOBODY if cluster else lowest(self._scripts)
            connection.execute(sa.update(floor).values(schema=lowest_schema))

    def told_to(self) -> int:
        """The last step that a machine of the cluster has told to its audit trail; -1 before the first."""
        with self._reading() as connection:
            return int(connection.execute(sa.select(_h.told_to)).scalar_one())

    @repeated
    def note_told(self, step: int) -> None:
        """Remember how far the audit trail was told; of two who tell at once the further place is kept."""
        with self._writing() as connection:
            connection.execute(sa.update(homes).where(_h.told_to < step).values(told_to=step))

    @repeated
    def note_log_salt(self, digits: str) -> str:
        """Remember the salt of all logs, unless another is remembered; returns the one that is."""
        with self._writing() as connection:
            connection.execute(sa.update(homes).where(_h.log_salt == "").values(log_salt=digits))
            return str(connection.execute(sa.select(_h.log_salt)).scalar_one())
