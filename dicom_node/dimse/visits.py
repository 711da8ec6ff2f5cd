"""What each association came to: one line in the log when it ends."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from dicom_node import log
from dicom_node.dimse.admission import Peer

_LOG = logging.getLogger(__name__)


class Visit:
    """An association that was let in, from then until it ends.

    Parameters
    ----------
    association : pynetdicom's
    peer, called_ae : who came, and whom it called
    """

    def __init__(self, association: Any, peer: Peer, called_ae: str) -> None:
        self._association = association
        self._peer = peer
        self._called_ae = called_ae
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._kept = self._refused = self._bytes = 0

    def kept(self, size: int) -> None:
        """An object of so many bytes was kept and acknowledged."""
        with self._lock:
            self._kept += 1
            self._bytes += size

    def refused(self) -> None:
        """An object was refused."""
        with self._lock:
            self._refused += 1

    def ended(self) -> None:
        """Write the line."""
        log.event(
            _LOG,
            "association",
            peer=self._peer.address,
            calling_ae=self._peer.calling_ae,
            called_ae=self._called_ae,
            result=self._result(),
            count=self._kept,
            refusals=self._refused,
            bytes=self._bytes,
            total_s=time.monotonic() - self._began,
        )

    def _result(self) -> str:
        if self._association.is_released:
            return "released"
        return "aborted" if self._association.is_aborted else "broken-off"
