"""Keeps spool and ledger in step: what a start finds, and what may go as time passes.

Rules that bind here:
1. A row whose bytes are missing or changed says so and waits for an operator; it is never dropped.
2. Bytes go only when no row needs them and they were here for `storage.keep_s`; on a disk that runs short,
   what is finished everywhere goes after `_PRESSED_KEEP_S`. Bytes that no row knows and that are older
   than the ledger itself are left alone: whoever replaced the ledger may still want them.
3. Rows go `storage.history_days` after the last thing that happened to them, never before everything is sent.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from dicom_node import log
from dicom_node.blobs.port import BlobStore
from dicom_node.config import Config
from dicom_node.errors import LedgerError, SpoolError
from dicom_node.jobs import DeliveryState
from dicom_node.ledger import Claim, Ledger, Part

_LOG = logging.getLogger(__name__)
#: seconds between two looks for what may go
_EVERY_S = 300.0
#: seconds between two looks at the free space
_LOOK_S = 5.0
#: seconds between two clearances of a disk that is short: at least, and at most, when nothing is found
_PRESSED_S = (30.0, 960.0)
#: seconds between two sums of all sizes, at least; and how much longer than a look takes the next one waits
_WEIGH_S, _REST_SHARE = 30.0, 20.0
#: on a disk that runs short, finished objects stay for so many seconds: more than any row takes to be written
_PRESSED_KEEP_S = 600.0
#: seconds between two steps of a purge, or behind a clock, in which receivers and senders write
_BREATH_S = 0.02
_DAY_S = 86400.0
#: after a fall of the machine, objects put this many seconds before the last event are hashed again
_SUSPECT_S = 600.0
#: so much a clock may be set back without anybody minding, seconds
_SET_BACK_S = 1.0
#: claims looked at between two signs of life of a start
_PROGRESS = 5000


@dataclass(frozen=True, slots=True)
class Found:
    """What a start found: claims looked at, claims whose bytes are lost, and those of them made again."""

    checked: int
    lost: int
    remade: int


def require_spool(folder: Path, ledger: Ledger) -> None:
    """Raise SpoolError if the ledger needs objects and there is no spool: a disk that is not mounted."""
    if not (folder / "lock").exists() and next(ledger.claims(), None) is not None:
        raise SpoolError(
            f"the ledger waits for objects, but there is no spool in {folder}; mount its disk, or, if it is "
            "lost for good, make the folder with an empty file `lock` in it"
        )


def reconcile(
    spool: BlobStore, ledger: Ledger, boot: str, *, progress: Callable[[], object] = lambda: None
) -> Found:
    """Hold every row that still needs bytes against the spool; call once at start, while nobody works.

    A million rows take about a minute, so `progress` is called every few thousand.

    Sizes are compared always. Contents are compared if the machine fell during the last run, for the objects
    that were written shortly before: a disk that had promised too much loses those.
    """
    last_at = ledger.last_event_at()  # by the clock as it was, as the ages of objects are
    _note_set_back(ledger, ledger.behind_s())
    _follow(ledger, progress)
    suspect_after = last_at - _SUSPECT_S if ledger.begin_run(boot) else float("inf")
    checked = lost = remade = 0
    for claim in ledger.claims():
        checked += 1
        if checked % _PROGRESS == 0:
            progress()
        reason = _loss(spool, claim.blob, claim.size, suspect_after)
        if reason is None:
            continue
        remake = claim.part is Part.LEAVES and _can_be_made_again(spool, claim)
        ledger.lose(claim, reason, remake=remake)
        log.event(
            _LOG,
            "made-again" if remake else "bytes-lost",
            level=logging.WARNING if remake else logging.ERROR,
            job=claim.instance_id,
            reason=reason,
        )
        lost, remade = lost + 1, remade + remake
    return Found(checked, lost, remade)


def _note_set_back(ledger: Ledger, by_s: float) -> None:
    """Have the ledger note that the clock was set back; a little is what clocks do."""
    if by_s > _SET_BACK_S:
        ledger.set_back(by_s)


def _follow(ledger: Ledger, breathe: Callable[[], object], stopping: threading.Event | None = None) -> bool:
    """Have what waits follow the clock, as far as that is still to be done, and whether anything was.

    Calls `breathe` between two steps. May be ended by `stopping`; whoever calls next goes on.
    """
    steps = count = 0
    for moved in ledger.follow_the_clock():
        steps, count = steps + 1, count + moved
        if stopping is not None and stopping.is_set():
            break
        breathe()
    if steps:
        log.event(_LOG, "clock-set-back", level=logging.WARNING, count=count)
    return steps > 0


def _ahead_s() -> float:
    """How far the clock that can be set is ahead of the one that cannot."""
    return time.time() - time.monotonic()


def _loss(spool: BlobStore, blob: str, size: int, suspect_after: float) -> str | None:
    """What is wrong with an object: missing, changed, or nothing."""
    seen = spool.look(blob)
    if seen is None:
        return "bytes-missing"
    if size and seen.size != size:
        return "bytes-changed"
    if seen.put_at >= suspect_after:
        try:
            spool.verify(blob)
        except SpoolError:
            return "bytes-changed"
    return None


def _can_be_made_again(spool: BlobStore, claim: Claim) -> bool:
    """Whether what arrived is still whole, so that what was lost can be made from it."""
    return claim.source != claim.blob and _loss(spool, claim.source, claim.source_size, 0.0) is None


def warn_of_strangers(ledger: Ledger, config: Config) -> None:
    """Say at start what waits although nobody will come for it: unknown destinations, pauses."""
    waiting = (DeliveryState.QUEUED, DeliveryState.SENDING, DeliveryState.DEAD)
    for queue in ledger.queues():
        if queue.state in waiting and queue.destination not in config.destinations:
            log.event(
                _LOG,
                "unknown-destination",
                level=logging.WARNING,
                destination=queue.destination,
                state=queue.state,
                count=queue.count,
                reason="not-in-the-configuration",
            )
    for destination in ledger.paused():
        log.event(_LOG, "paused", level=logging.WARNING, destination=destination)


class Housekeeper(threading.Thread):
    """Lets go, now and then, what nobody needs any more.

    Parameters
    ----------
    spool, ledger : what is kept
    history_s : seconds for which an instance is remembered after the last thing that happened to it
    rouse : called when the clock was set back; ends the rests that are reckoned by it
    """

    def __init__(
        self,
        spool: BlobStore,
        ledger: Ledger,
        history_s: float,
        *,
        rouse: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(name="housekeeper", daemon=True)
        self._rouse = rouse
        self._spool = spool
        self._ledger = ledger
        self._history_s = history_s
        self._stopping = threading.Event()
        self._ahead_s = _ahead_s()
        #: bytes of all objects when they were last looked at; None before that
        self.spool_bytes: int | None = None
        self._weigh_at = self._relieve_at = 0.0
        self._relief_s = _PRESSED_S[0]

    def run(self) -> None:
        """Clean at once and then every few minutes, on a short disk more often; until told to stop."""
        while not self._stopping.is_set():
            self._contained(self.clean)
            next_at = time.monotonic() + _EVERY_S
            while time.monotonic() < next_at and not self._stopping.wait(min(_LOOK_S, _EVERY_S)):
                self._contained(self.look)

    def look(self) -> None:
        """Every few seconds: follow the clock, write counts, weigh the spool, relieve a short disk."""
        self._contained(self._follow_the_clock)
        with contextlib.suppress(LedgerError):  # it waits, and whoever must write says what is wrong
            self._ledger.settle()
        if time.monotonic() >= self._weigh_at:
            self._contained(self.weigh)
        if not self._spool.is_short():
            self._relief_s, self._relieve_at = _PRESSED_S[0], 0.0
        elif time.monotonic() >= self._relieve_at:
            self._relieve_in_turn()

    def _follow_the_clock(self) -> None:
        """Notice that the clock was set back since the last look; forward nothing need be done."""
        ahead_s = _ahead_s()
        if self._ledger.by_this_clock:
            _note_set_back(self._ledger, self._ahead_s - ahead_s)
        self._ahead_s = ahead_s
        if _follow(self._ledger, lambda: self._stopping.wait(_BREATH_S), self._stopping):
            self._rouse()

    def weigh(self) -> None:
        """Add up the sizes of all objects, for the metrics; with very many the less often."""
        started = time.monotonic()
        self.spool_bytes = self._spool.used_bytes()
        ended = time.monotonic()
        self._weigh_at = ended + max(_WEIGH_S, _REST_SHARE * (ended - started))

    def _relieve_in_turn(self) -> None:
        """Look through a spool that is short; the longer it takes and the less it helps, the later again."""
        started, removed = time.monotonic(), 0
        try:
            removed = self.relieve()
        finally:
            ended = time.monotonic()
            self._relief_s = relief_wait_s(self._relief_s, removed, ended - started)
            self._relieve_at = ended + self._relief_s

    def _contained(self, step: Callable[[], object]) -> object:
        try:
            return step()
        except Exception as error:  # who cleans no more fills the disk
            log.event(_LOG, "cleaning-failed", level=logging.ERROR, error=error)
            return None

    def stop(self) -> None:
        """End after the step in hand."""
        self._stopping.set()
        self.join()

    def clean(self) -> None:
        """Purge rows, then bytes, then give free space back."""
        purged = self._purge(time.time() - self._history_s)
        if purged:
            log.event(_LOG, "purged", count=purged, reason="history-ended")
        strangers = _Strangers(self._spool, self._ledger)
        removed = self._spool.discard(lambda blobs: self._must_stay(strangers, blobs))
        log.event(_LOG, "cleaned", level=logging.DEBUG, count=removed)
        if strangers.count:
            log.event(
                _LOG,
                "unknown-objects",
                level=logging.WARNING,
                count=strangers.count,
                reason="older-than-the-ledger",
            )
        while self._ledger.compact() and not self._stopping.wait(_BREATH_S):
            pass

    def relieve(self) -> int:
        """Remove what is finished everywhere before its time, so that a short disk takes objects again.

        Returns how many objects. Bytes that no row names are left: a worker's output has none while a full
        ledger keeps it waiting.
        """
        removed = self._spool.discard(self._unfinished, keep_s=_PRESSED_KEEP_S)
        if removed:
            log.event(_LOG, "relieved", level=logging.WARNING, count=removed, reason="disk-is-short")
        return removed

    def _unfinished(self, blobs: Iterable[str]) -> frozenset[str]:
        names = frozenset(blobs)
        if self._stopping.is_set():  # a million objects take minutes, and a stop waits for this thread
            return names
        return self._surely(names, names - self._ledger.known(names) | self._ledger.needed(names))

    def _must_stay(self, strangers: _Strangers, blobs: Iterable[str]) -> frozenset[str]:
        names = frozenset(blobs)
        return names if self._stopping.is_set() else self._surely(names, strangers.must_stay(names))

    def _surely(self, names: frozenset[str], staying: frozenset[str]) -> frozenset[str]:
        """Those that stay; that the others may go is on disk, or a power cut would have them needed again."""
        if names - staying:
            self._ledger.sync()
        return staying

    def _purge(self, before: float) -> int:
        purged, after = 0, 0
        while not self._stopping.is_set():
            step = self._ledger.purge(before, after)
            purged += step.instances
            if step.after is None:
                break
            after = step.after
            if step.instances:
                self._stopping.wait(_BREATH_S)
        return purged


class _Strangers:
    """Which objects must stay, and how many of them the ledger does not know."""

    def __init__(self, spool: BlobStore, ledger: Ledger) -> None:
        self._spool = spool
        self._ledger = ledger
        self._born_at = ledger.born_at()
        self.count = 0

    def must_stay(self, blobs: Iterable[str]) -> frozenset[str]:
        """Those of the blobs that a row needs, or that are older than a ledger that does not know them."""
        names = frozenset(blobs)
        needed = self._ledger.needed(names)
        free = names - needed
        # a look at an object is a request where it is in a bucket, so the ledger is asked first
        strangers = frozenset(name for name in free - self._ledger.known(free) if self._older(name))
        self.count += len(strangers)
        return needed | strangers

    def _older(self, name: str) -> bool:
        seen = self._spool.look(name)
        return seen is not None and seen.put_at < self._born_at


def relief_wait_s(before_s: float, removed: int, took_s: float) -> float:
    """Seconds until a disk that stays short is looked through again, when the last wait was `before_s`."""
    shortest, longest = _PRESSED_S
    wait_s = shortest if removed else min(longest, 2.0 * before_s)
    return max(wait_s, _REST_SHARE * took_s)


def history_s(config: Config) -> float:
    """`storage.history_days` in seconds."""
    return config.storage.history_days * _DAY_S
