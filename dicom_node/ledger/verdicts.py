"""What the readers of a node found, counted: what happened, not what is here, so no purge lowers it."""

from __future__ import annotations

from dicom_node.ledger import tallies
from dicom_node.ledger.database import Database
from dicom_node.metrics import VERDICTS


class Verdicts(Database):
    """Tells the counts."""

    def verdicts(self) -> dict[tuple[str, str], int]:
        """(route, finding) -> judgements that ended so; an instance that is judged again counts again."""
        with self._reading() as connection:
            counted = tallies.read(connection)
        ended = (each for each in counted if each.metric == VERDICTS.name)
        return {(each.labels[0], each.labels[1]): int(each.value) for each in ended}
