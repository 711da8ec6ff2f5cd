"""Who of several nodes leads: the one whose session holds a lock of the database, which ends with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from dicom_node.ledger.database import Database
from dicom_node.ledger.dialects import Holds


class Leading(Database):
    """The lock of the leader."""

    @contextlib.contextmanager
    def lead(self, name: str) -> Iterator[Holds | None]:
        """Lead for the block, if nobody else does: None if somebody does, else whether it still holds.

        The lock is let go of at the end of the block, and by the server when this process or its machine is
        gone. The only node of a file always leads.
        """
        with self._refusals(), self._dialect.lead(self._engine, name) as holds:
            yield holds
