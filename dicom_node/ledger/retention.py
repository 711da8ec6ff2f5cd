"""What may go: which bytes are still needed by a row."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from dicom_node.jobs import DeliveryState, InstanceState
from dicom_node.ledger.database import Database
from dicom_node.ledger.schema import deliveries, in_state, instances

_i, _d = instances.c, deliveries.c


class Retention(Database):
    """What is kept, and until when."""

    def needed(self, blobs: Iterable[str]) -> frozenset[str]:
        """Those of the blobs that may still be read: unprocessed, held, or not yet delivered everywhere."""
        names = list(blobs)
        finished = in_state(instances, InstanceState.READY, InstanceState.REJECTED)
        undelivered = sa.not_(in_state(deliveries, DeliveryState.DELIVERED))
        inputs = sa.select(_i.blob).where(_i.blob.in_(names), sa.not_(finished))
        outputs = (
            sa.select(_i.out_blob)
            .join_from(instances, deliveries, _d.instance_id == _i.id)
            .where(_i.out_blob.in_(names), _i.out_blob != sa.literal_column("''"), undelivered)
        )
        with self._reading() as connection:
            return frozenset(connection.execute(sa.union(inputs, outputs)).scalars())
