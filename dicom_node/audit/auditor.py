"""Takes an event and has it on disk: what the rest of the node knows of the audit trail."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

from dicom_node import log
from dicom_node.audit.events import Alert, Event, Outcome, SecurityAlert, Transferred
from dicom_node.audit.grouping import Repeats
from dicom_node.audit.message import Origin, message
from dicom_node.audit.store import Store
from dicom_node.audit.syslog import Label, syslog
from dicom_node.errors import AuditError

_LOG = logging.getLogger(__name__)
#: objects whose sender's address is remembered until they are told
_ADDRESSES = 100_000


class Witness(Protocol):
    """Who is told what happens on the network: an auditor, or who passes it on to one in another process."""

    @property
    def origin(self) -> Origin:
        """Where messages come from."""

    def tell(self, event: Event) -> None:
        """Have an event on disk; never raises."""

    def heard(self, job: int, address: str) -> None:
        """Remember where an object came from."""


class Auditor:
    """Tells events to the audit trail.

    Parameters
    ----------
    store : where messages are kept
    origin, label : what every message says
    repeats_s : seconds within which what a peer repeats is told twice at most
    clock : now, in seconds since 1970-01-01 UTC
    """

    def __init__(
        self,
        store: Store,
        origin: Origin,
        label: Label,
        *,
        repeats_s: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self.origin = origin
        self._label = label
        self._clock = clock
        self._repeats = Repeats(repeats_s)
        self._lock = threading.Lock()
        #: held from reading what was lost to noting what is
        self._telling = threading.Lock()
        #: events that could not even be counted on disk
        self._unwritten = 0
        self._addresses: OrderedDict[int, str] = OrderedDict()

    def tell(self, event: Event) -> None:
        """Have an event on disk; never raises. What cannot be written is counted, and an error in the log.

        Refusals that a peer provokes again and again are counted in memory and told once in a while.
        """
        if not isinstance(event, SecurityAlert | Transferred) or self._is_first(event):
            self._tell_or_count([event])

    def require(self, events: Sequence[Event]) -> None:
        """Have events on disk, or raise AuditError: for what is not to be done without a trail."""
        self.store.put([self._written(event) for event in events])

    def heard(self, job: int, address: str) -> None:
        """Remember where an object came from, until it is told that it came."""
        with self._lock:
            self._addresses[job] = address
            if len(self._addresses) > _ADDRESSES:
                self._addresses.popitem(last=False)

    def address_of(self, job: int) -> str:
        """Where an object came from, once; "" if that is not known any more."""
        with self._lock:
            return self._addresses.pop(job, "")

    def tell_repeats(self, *, last: bool = False) -> None:
        """Tell what was counted, where it is time to, or in any case."""
        with self._lock:
            due = self._repeats.due(float("inf") if last else self._clock())
        if due:
            self._tell_or_count(due)

    def _is_first(self, event: Event) -> bool:
        with self._lock:
            return self._repeats.is_first(event)

    def _written(self, event: Event) -> bytes:
        return syslog(message(event, self.origin), self._label, self._clock())

    def _tell_or_count(self, events: Sequence[Event]) -> None:
        with self._telling:
            try:
                self._confess()
                self.require(events)
            except AuditError as error:
                log.event(_LOG, "audit-lost", level=logging.ERROR, error=error, count=len(events))
                self._count_lost(len(events))

    def _confess(self) -> None:
        """Say what was lost, now that there is room again."""
        state = self.store.state()
        lost = state.lost + self._unwritten
        if lost:
            what = f"{lost} events could not be told: the audit trail was full or could not be written"
            self.require([self._alert(Alert.RECORDING_STARTED, what, Outcome.SUCCESS)])
            self._unwritten = 0
            self.store.note(lost=0, lost_since=0.0)

    def _count_lost(self, count: int) -> None:
        try:
            state = self.store.state()
            if not state.lost:
                what = "the audit trail is full or cannot be written; what follows is counted, not told"
                alert = self._alert(Alert.RECORDING_STOPPED, what, Outcome.SERIOUS)
                self.store.put([self._written(alert)], beyond=True)
            self.store.note(
                lost=state.lost + self._unwritten + count, lost_since=state.lost_since or self._clock()
            )
            self._unwritten = 0
        except AuditError:  # the error is in the log already
            self._unwritten += count

    def _alert(self, alert: Alert, what: str, outcome: Outcome) -> SecurityAlert:
        return SecurityAlert(self._clock(), alert, what, outcome)
