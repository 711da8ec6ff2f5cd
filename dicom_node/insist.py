"""Writes to the ledger that must not be forgotten because it refuses for a while (full disk, lock).

What a worker has worked out, or a destination has answered, nobody else knows until it is written down.
Given up, it would be done or sent a second time, and not before its lease has run out.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from dicom_node import log
from dicom_node.errors import LedgerUnavailable

_LOG = logging.getLogger(__name__)
#: between two tries, seconds
PAUSE_S = 1.0


def insist(write: Callable[[], object], stopping: threading.Event) -> None:
    """Call `write` until the ledger takes it; whatever else it raises passes through.

    Raises LedgerUnavailable when told to stop before that; the next start does the step again.
    """
    while True:
        try:
            write()
            return
        except LedgerUnavailable as error:
            log.event(_LOG, "ledger-refuses", level=logging.ERROR, error=error)
            if stopping.wait(PAUSE_S):
                raise
