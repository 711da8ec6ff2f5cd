"""What may go: which bytes are still needed by a row."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from dicom_node.commitment import CommitmentState
from dicom_node.jobs import DeliveryState, InstanceState
from dicom_node.ledger.database import Database
from dicom_node.ledger.schema import commitments, deliveries, in_state, instances

_i, _d, _c = instances.c, deliveries.c, commitments.c


class Retention(Database):
    """What is kept, and until when."""

    def needed(self, blobs: Iterable[str]) -> frozenset[str]:
        """Those of the blobs that may still be read: unprocessed, held, not yet delivered
        everywhere, or not yet committed to by a destination that is to."""
        names = list(blobs)
        finished = in_state(instances, InstanceState.READY, InstanceState.REJECTED)
        undelivered = sa.not_(in_state(deliveries, DeliveryState.DELIVERED))
        inputs = sa.select(_i.blob).where(_i.blob.in_(names), sa.not_(finished))
        outputs = (
            sa.select(_i.out_blob)
            .join_from(instances, deliveries, _d.instance_id == _i.id)
            .where(_i.out_blob.in_(names), _i.out_blob != sa.literal_column("''"), undelivered)
        )
        uncommitted = (
            sa.select(_i.out_blob)
            .join_from(instances, deliveries, _d.instance_id == _i.id)
            .join(commitments, _c.delivery_id == _d.id)
            .where(
                _i.out_blob.in_(names),
                _i.out_blob != sa.literal_column("''"),
                in_state(commitments, CommitmentState.WANTED, CommitmentState.ASKED),
            )
        )
        with self._reading() as connection:
            return frozenset(connection.execute(sa.union(inputs, outputs, uncommitted)).scalars())
