"""Follows the ledger and tells what happened there: one message for each study, peer and outcome in a window.

A window ends `audit.aggregate_s` after its first step. Only then is its last step noted as told, so a kill at
any moment repeats at most one window. A machine that leads a cluster goes on where the one before had noted;
what that one had told and not noted is told again. While the trail is full the ledger is not read on; what
happened waits there, as long as the ledger remembers it (`storage.history_days`).
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable

from dicom_node import log
from dicom_node.audit.auditor import Auditor
from dicom_node.audit.events import Event, TransferBegun
from dicom_node.audit.grouping import key_of, together
from dicom_node.audit.history import Site, StudyOf, told
from dicom_node.errors import AuditError, NodeError
from dicom_node.ledger import Ledger, Step

_LOG = logging.getLogger(__name__)
#: between two looks into the ledger, seconds
POLL_S = 1.0
_BATCH = 500
#: events of a window; a storm ends it early
_MOST_EVENTS = 20_000
#: between two alarms about a trail that cannot be written, seconds
_ALARM_S = 60.0
#: a study that goes on after a pause of so many seconds is told to begin once more
_PAUSE_S = 900.0
#: a row is committed a moment before the receiver can say where its object came from, seconds
_SETTLED_S = 0.3
#: a stop waits so many seconds for what is left; the rest is told after the next start
_LAST_S = 5.0


class Clerk(threading.Thread):
    """Tells the ledger's story to an auditor.

    Parameters
    ----------
    ledger : what is followed
    auditor : who is told
    site : how node, destinations and routes are named
    study_of : of a spool file, the study that it belongs to
    window_s : seconds for which what is alike is collected
    shared : whether the ledger remembers how far it was told, for whoever leads next; else the folder does
    clock : now, in seconds since 1970-01-01 UTC
    """

    def __init__(
        self,
        ledger: Ledger,
        auditor: Auditor,
        site: Site,
        study_of: StudyOf,
        window_s: float,
        *,
        shared: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(name="audit-clerk", daemon=True)
        self._ledger = ledger
        self._auditor = auditor
        self._site = site
        self._clock = clock
        self._study_of = study_of
        self._window_s = window_s
        self._shared = shared
        self._stopping = threading.Event()
        self._window: list[Event] = []
        self._read_to = self._told_to = -1
        self._ends_at = 0.0
        self._begun: dict[Event, float] = {}
        self._alarm_at = 0.0

    def start(self) -> None:
        """Begin where the last run ended, or here and now; then follow from a thread of its own."""
        self._contained(self._begin)
        super().start()

    def run(self) -> None:
        """Follow until told to stop; what the ledger or the trail refuse is tried again."""
        while not self._stopping.wait(min(POLL_S, self._window_s)):
            self._contained(self.turn)
        self._contained(lambda: self.turn(last=True))

    def stop(self) -> None:
        """Tell what is left, and end."""
        self._stopping.set()
        self.join()

    def adopt(self, site: Site) -> None:
        """Name peers and routes as `site` does; those that it does not have any more as before."""
        before = self._site
        self._site = Site(
            site.node, {**before.destinations, **site.destinations}, {**before.routes, **site.routes}
        )

    def turn(self, *, last: bool = False) -> None:
        """Take in what has happened since; tell it when the window is over, or there is no other turn."""
        self._begin()
        self._auditor.tell_repeats(last=last)
        if self._is_over():  # what could not be told before comes first, or the window would grow for ever
            self._tell()
        ends_at = time.monotonic() + (_LAST_S if last else float("inf"))
        while time.monotonic() < ends_at and (steps := self._ledger.steps(self._read_to, _BATCH)):
            settled = steps if last else self._settled(steps)
            if not settled:
                break
            self._take_in(settled)
            if len(self._window) > _MOST_EVENTS:
                self._tell()
        if last or self._is_over():
            self._tell()

    def _is_over(self) -> bool:
        """Whether what was taken in is to be told now."""
        return self._read_to > self._told_to and time.monotonic() >= self._ends_at

    def _begin(self) -> None:
        """Where the last run ended; a trail that is new begins now, and so does one of another ledger."""
        if self._told_to >= 0:
            return
        told_to, last_step = self._noted(), self._ledger.last_step()
        if told_to > last_step:
            log.event(_LOG, "audit-begins-anew", level=logging.WARNING, count=told_to - last_step)
        if not 0 <= told_to <= last_step:
            told_to = last_step
            self._note(told_to)
        self._read_to = self._told_to = told_to

    def _noted(self) -> int:
        return self._ledger.told_to() if self._shared else self._auditor.store.state().told_to

    def _note(self, told_to: int) -> None:
        if self._shared:
            self._ledger.note_told(told_to)
        else:
            self._auditor.store.note(told_to=told_to)

    def _settled(self, steps: list[Step]) -> list[Step]:
        """Those that are old enough for the receiver to have said where their objects came from.

        A step of the future is old too: the clock was put back since.
        """
        now = self._clock()
        return list(itertools.takewhile(lambda step: not now - _SETTLED_S < step.at <= now, steps))

    def _take_in(self, steps: list[Step]) -> None:
        if self._read_to == self._told_to:
            self._ends_at = time.monotonic() + self._window_s
        events = [
            event
            for step in steps
            for event in told(step, self._site, self._study_of, self._auditor.address_of(step.job))
        ]
        self._window = together([*self._window, *events])
        self._read_to = steps[-1].id

    def _tell(self) -> None:
        """Write the window, then note it; a kill between the two tells it again.

        A power cut must undo no step that is told: others would get their numbers, and never be told.
        """
        if self._read_to > self._told_to:
            self._ledger.sync()
        self._begun = {key: at for key, at in self._begun.items() if time.monotonic() - at < _PAUSE_S}
        fresh = [event for event in self._window if _beginning(event) not in self._begun]
        if fresh:
            self._auditor.require(fresh)
        self._begun |= {
            key: time.monotonic() for event in self._window if (key := _beginning(event)) is not None
        }
        self._window = []
        if self._read_to > self._told_to:
            self._note(self._read_to)
            self._told_to = self._read_to

    def _contained(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as error:  # who follows no more lets the trail end without a word
            if time.monotonic() >= self._alarm_at:
                self._alarm_at = time.monotonic() + _ALARM_S
                what = "audit-held-up" if isinstance(error, AuditError) else "audit-fault"
                level = logging.ERROR if isinstance(error, NodeError) else logging.CRITICAL
                log.event(_LOG, what, level=level, error=error)


def _beginning(event: Event) -> Event | None:
    """The key of a beginning, None for anything else."""
    return key_of(event) if isinstance(event, TransferBegun) else None
