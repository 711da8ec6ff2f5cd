"""What one machine of a cluster does for all: taken up with the lock of the leader, laid down without it."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

from dicom_node import log
from dicom_node.ledger import Ledger

_LOG = logging.getLogger(__name__)
#: seconds between two tries to lead, and between two looks whether the lock is still held
_TRY_S, _LOOK_S = 2.0, 1.0


class Leadership(threading.Thread):
    """Leads whenever nobody else does.

    Parameters
    ----------
    ledger : whose lock decides
    name : of the cluster
    take_up : starts what a leader does, and says how each part is stopped
    """

    def __init__(self, ledger: Ledger, name: str, take_up: Callable[[contextlib.ExitStack], None]) -> None:
        super().__init__(name="leadership", daemon=True)
        self._ledger, self._cluster, self._take_up = ledger, name, take_up
        self._stopping = threading.Event()
        #: whether this node leads now
        self.leads = False

    def run(self) -> None:
        """Try to lead, lead, try again; until told to stop."""
        while not self._stopping.is_set():
            try:
                self._turn()
            except Exception as error:  # the database is away, or a part does not start: somebody else may
                log.event(_LOG, "not-leading", level=logging.ERROR, error=error)
            self._stopping.wait(_TRY_S)

    def _turn(self) -> None:
        with self._ledger.lead(self._cluster) as lead:
            if not lead:
                return
            with contextlib.ExitStack() as undo:
                self._take_up(undo)
                self.leads = True
                log.event(_LOG, "leading")
                try:
                    while lead and not self._stopping.wait(_LOOK_S):
                        pass
                finally:
                    self.leads = False  # before the parts end, which are dead to nobody then
                    log.event(_LOG, "leading-no-more")

    def stop(self) -> None:
        """Lay everything down, and let somebody else lead."""
        self._stopping.set()
        self.join()
