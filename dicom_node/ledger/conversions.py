"""The same object in another transfer syntax: made once, found again at the next attempt."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from dicom_node.ledger.database import Database, repeated
from dicom_node.ledger.schema import UNSETTLED, conversions, deliveries, instances

_c, _d, _i = conversions.c, deliveries.c, instances.c


class Conversions(Database):
    """What was made of which object, by the names of their bytes in the spool."""

    def conversion(self, blob: str, transfer_syntax_uid: str) -> str | None:
        """The object in this transfer syntax, None if it was never made; its bytes may be gone by now."""
        query = sa.select(_c.out_blob).where(_c.blob == blob, _c.transfer_syntax_uid == transfer_syntax_uid)
        with self._reading() as connection:
            found: str | None = connection.execute(query).scalar()
            return found

    @repeated
    def converted(self, blob: str, transfer_syntax_uid: str, out_blob: str) -> None:
        """Record what was made."""
        made = self._dialect.upsert(conversions).values(
            blob=blob, transfer_syntax_uid=transfer_syntax_uid, out_blob=out_blob
        )
        known = made.on_conflict_do_update(
            index_elements=[_c.blob, _c.transfer_syntax_uid], set_={"out_blob": out_blob}
        )
        with self._writing() as connection:
            connection.execute(known)


def converted_for_waiting(blobs: Iterable[str]) -> sa.Select[tuple[str]]:
    """Those of `blobs` that were made of an object which some delivery still waits for."""
    return (
        sa.select(_c.out_blob)
        .join_from(conversions, instances, _i.out_blob == _c.blob)
        .join(deliveries, _d.instance_id == _i.id)
        .where(_c.out_blob.in_(list(blobs)), _i.out_blob != sa.literal_column("''"), UNSETTLED)
    )


def known_conversions(blobs: Iterable[str]) -> sa.Select[tuple[str]]:
    """Those of `blobs` that were made of any object."""
    return sa.select(_c.out_blob).where(_c.out_blob.in_(list(blobs)))


def forget_conversions(connection: sa.Connection, numbers: Iterable[int]) -> None:
    """Drop what was made of instances that are about to go; made again if somebody else still sends them."""
    going = sa.select(_i.out_blob).where(_i.id.in_(list(numbers)))
    connection.execute(sa.delete(conversions).where(_c.blob.in_(going)))
