"""What happens to a study is told once, not once for each of its objects; and so is what a peer repeats."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from dicom_node.audit.events import (
    Accessed,
    Deleted,
    Event,
    Exported,
    Imported,
    Objects,
    Party,
    SecurityAlert,
    Study,
    TransferBegun,
    Transferred,
)

OfStudy = TransferBegun | Transferred | Accessed | Deleted | Exported | Imported

#: refusals that differ (by AE title, address, reason) and are told one by one in a window; the rest are one
MOST_DIFFERENT = 100


def key_of(event: Event) -> Event:
    """The event without its time and its number of objects: two events with the same key are told as one."""
    if isinstance(event, OfStudy):
        return replace(event, at=0.0, objects=replace(event.objects, classes=()))
    if isinstance(event, SecurityAlert):
        objects = None if event.objects is None else replace(event.objects, classes=())
        return replace(event, at=0.0, objects=objects, count=0)
    return event


def together(events: Iterable[Event]) -> list[Event]:
    """Events with what is alike made one, each at the time and in the place of the first of its kind."""
    collected = Collected()
    collected.add(events)
    return collected.take()


class Collected:
    """What `together` makes of events that come one by one; each costs the same, however many there are."""

    def __init__(self) -> None:
        self._groups: dict[Event, Event] = {}

    def add(self, events: Iterable[Event]) -> None:
        """Take in more events."""
        for event in events:
            key = key_of(event)
            before = self._groups.get(key)
            self._groups[key] = event if before is None else _joined(before, event)

    def take(self) -> list[Event]:
        """What was collected; nothing is, from now on."""
        groups, self._groups = self._groups, {}
        return list(groups.values())


def _joined(first: Event, other: Event) -> Event:
    if isinstance(first, SecurityAlert) and isinstance(other, SecurityAlert):
        objects = _sum(first.objects, other.objects)
        return replace(first, objects=objects, count=first.count + other.count)
    if isinstance(first, OfStudy) and isinstance(other, OfStudy):
        return replace(first, objects=first.objects + other.objects)
    return first


def _sum(first: Objects | None, other: Objects | None) -> Objects | None:
    return first if first is None or other is None else first + other


class Repeats:
    """Tells the first of what a peer does again and again, and counts the rest until `window_s` is over.

    A peer that runs wild is told with two messages in each window; many that do, with `MOST_DIFFERENT` and
    one more.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._ends_at = 0.0
        self._seen: set[Event] = set()
        self._counted: list[Event] = []

    def is_first(self, event: Event) -> bool:
        """Whether to tell an event now; if not, it is counted."""
        if self._is_over(event.at) and not self._counted:
            self._seen, self._ends_at = set(), event.at + self._window_s
        key = key_of(event)
        if key not in self._seen and len(self._seen) < MOST_DIFFERENT:
            self._seen.add(key)
            return True
        self._counted = together([*self._counted, event if key in self._seen else _anonymous(event)])
        return False

    def due(self, now: float) -> list[Event]:
        """What was counted, once its window is over."""
        if not self._is_over(now):
            return []
        counted, self._counted, self._seen = self._counted, [], set()
        return counted

    def _is_over(self, now: float) -> bool:
        """Whether the window has ended, or has not begun: then the clock was put back, who knows how far."""
        return not self._ends_at - self._window_s <= now < self._ends_at


def _anonymous(event: Event) -> Event:
    """One of too many: only what kind of thing happened; every word that a peer can choose is left out."""
    if isinstance(event, SecurityAlert):
        return replace(
            event, who=None, what=f"{event.alert}, by too many different peers to name", objects=None
        )
    if isinstance(event, Transferred):
        objects = Objects(Study(), (("", sum(count for _, count in event.objects.classes)),))
        return replace(event, source=_ANYBODY, destination=_ANYBODY, objects=objects)
    return event


_ANYBODY = Party("")
