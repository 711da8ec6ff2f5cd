"""What an auditor wants to know of the network: who was refused and why. One function for all of it.

Occurrences are told to the log and handed to whoever listens: metrics count them, the audit trail keeps them.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dicom_node import log

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Something that an auditor wants to know.

    Attributes
    ----------
    event : what happened: `association-rejected`, `handshake-failed`, `peer-not-secure`
    reason : why, a word from a closed list
    peer : address or host name of the peer
    calling_ae, called_ae : what it called itself and us, if it came that far
    """

    event: str
    reason: str
    peer: str = ""
    calling_ae: str | None = None
    called_ae: str | None = None


Listener = Callable[[Occurrence], object]

_lock = threading.Lock()
_listeners: list[Listener] = []


def tell(occurrence: Occurrence) -> None:
    """Log an occurrence and hand it to every listener; from any thread."""
    log.event(
        _LOG,
        occurrence.event,
        level=logging.WARNING,
        reason=occurrence.reason,
        peer=occurrence.peer or None,
        calling_ae=occurrence.calling_ae,
        called_ae=occurrence.called_ae,
    )
    with _lock:
        listeners = tuple(_listeners)
    for listener in listeners:
        try:
            listener(occurrence)
        except Exception as error:  # who listens must not open a door, or close one
            log.event(_LOG, "listener-failed", level=logging.ERROR, error=error)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have `listener` called for every occurrence, in the thread in which it occurs, until the block ends."""
    with _lock:
        _listeners.append(listener)
    try:
        yield
    finally:
        with _lock:
            _listeners.remove(listener)
