"""What a start does to a ledger whose last holder may have been killed."""

from __future__ import annotations

import sqlalchemy as sa

from dicom_node.ledger.database import Loss
from dicom_node.ledger.instances import Instances


class Recovery(Instances):
    """Takes up where the last run was ended."""

    def recover(self) -> int:
        """Take back every lease; call once at start, while nobody works. Returns how many.

        A restart accuses no instance of killing its worker, up to `INTERRUPTED_LIMIT` restarts.
        """
        with self._writing() as connection:
            self._abandon_asks(connection)
            return self._take_back_work(connection, sa.true(), Loss.RESTART) + self._take_back_sends(
                connection, sa.true(), Loss.RESTART
            )
