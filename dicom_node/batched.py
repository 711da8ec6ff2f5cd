"""A network that the batcher evaluates, and this worker itself where the batcher does not answer.

Whoever evaluates it, the logits are the same; a batcher that was killed costs time and nothing else.
"""

from __future__ import annotations

import logging
import socket
import threading
import time

import numpy as np

from blessmark.segment.integer import Images, Network, Runtime
from blessmark.types import IntArray
from dicom_node import log, measuring
from dicom_node.metrics import BATCH_FRAMES, BATCH_SELF, BATCH_WAIT, Reading
from dicom_node.shared_arrays import is_ours, receive, send

_LOG = logging.getLogger(__name__)

#: how long a batcher that was there, or may still come, is waited for, seconds; between two tries
_PATIENCE_S = 10.0
_PAUSE_S = 0.05
#: longest that an answer may take: the first one waits until the libraries are loaded. A batcher that hangs
#: is ended before that; one that even that does not end is asked nothing for a while
_ANSWER_S, _ASIDE_S = 300.0, 600.0


class Batched:
    """A `Runtime`: asks the batcher, else `own`.

    Parameters
    ----------
    network : what is evaluated
    address : where the batcher listens
    own : what evaluates it here; it should load nothing before it is asked
    """

    backend = "batcher"

    def __init__(self, network: Network, address: str, own: Runtime) -> None:
        self.network = network
        self._address, self._own = address, own
        self._lines = threading.local()
        self._patient = True
        #: when it is asked again
        self._asked_from = 0.0

    def logits(self, images: Images) -> IntArray:
        """uint8 [n, rows, cols, channels] -> int32 [n, result rows, result cols]."""
        for _ in range(2):  # a batcher that died on the way has soon a successor
            line = self._line()
            if line is None:
                break
            try:
                return self._asked(line, images)
            except (EOFError, OSError, ValueError, KeyError) as error:
                self._hang_up()
                log.event(_LOG, "batcher-silent", level=logging.WARNING, error=error)
                if isinstance(error, TimeoutError):
                    self._asked_from = time.monotonic() + _ASIDE_S
        measuring.tell(Reading(BATCH_SELF))
        return self._own.logits(images)

    def _asked(self, line: socket.socket, images: Images) -> IntArray:
        send(line, {"network": self.network.id}, np.ascontiguousarray(images))
        words, logits = receive(line)
        if logits is None or logits.ndim != 3 or len(logits) != len(images):
            raise ValueError("the batcher has no answer")
        measuring.tell(
            Reading(BATCH_FRAMES, (), float(words["frames"])),
            Reading(BATCH_WAIT, (), float(words["waited_s"])),
        )
        return np.asarray(logits, np.int32)

    def _line(self) -> socket.socket | None:
        """This thread's connection to the batcher; None if there is no batcher, or one that hangs."""
        if time.monotonic() < self._asked_from:
            return None
        line: socket.socket | None = getattr(self._lines, "line", None)
        if line is None:
            line = self._connected(time.monotonic() + (_PATIENCE_S if self._patient else 0.0))
            self._lines.line, self._patient = line, line is not None
        return line

    def _connected(self, until: float) -> socket.socket | None:
        while True:
            line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            line.settimeout(_ANSWER_S)
            try:
                line.connect(self._address)
                if is_ours(line):
                    return line
                line.close()
                return None
            except OSError:
                line.close()
            if time.monotonic() >= until:
                return None
            time.sleep(_PAUSE_S)

    def _hang_up(self) -> None:
        self._lines.line.close()
        self._lines.line = None
