"""Rings again for what is due and lies with nobody: the message was lost, or whoever heard it died.

The ledger alone says what is due; where the broker has lost everything, this brings it all back in a while.
"""

from __future__ import annotations

import logging
import threading

from dicom_node import log
from dicom_node.bells import Bells
from dicom_node.ledger import Ledger

_LOG = logging.getLogger(__name__)
#: rows rung for in one look; a bell that so many wait behind is heard anyway
_ROWS = 64


class Reconciler(threading.Thread):
    """Looks into the ledger every few seconds.

    Parameters
    ----------
    ledger : says what is due
    bells : rung for it
    every_s : seconds between two looks
    """

    def __init__(self, ledger: Ledger, bells: Bells, every_s: float) -> None:
        super().__init__(name="reconciler", daemon=True)
        self._ledger, self._bells, self._every_s = ledger, bells, every_s
        self._stopping = threading.Event()

    def run(self) -> None:
        """Look until told to stop; a fault costs one look."""
        while not self._stopping.wait(self._every_s):
            try:
                self.look()
            except Exception as error:  # whatever is wrong now, the next look may be better
                log.event(_LOG, "reconciler-fault", level=logging.ERROR, error=error)

    def look(self) -> int:
        """Ring for everything that is due; returns for how many rows."""
        due = self._ledger.due(_ROWS)
        for instance in due.instances:
            self._bells.ring_work(instance)
        for delivery, destination in due.sends:
            self._bells.ring_sends(destination, delivery)
        return len(due.instances) + len(due.sends)

    def stop(self) -> None:
        """End after the look in hand."""
        self._stopping.set()
        self.join()
