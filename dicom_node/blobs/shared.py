"""What holds for every store that several machines put into and one removes from.

Rules that bind here:
1. An object is laid under its name only if nothing is there (`_lay`), so whoever puts it knows whether it was
   there before. What was laid now is young, and what is young is never removed. What took long to lay may
   be old already: an object that goes in parts is dated by the first of them.
2. What is old is pinned in the ledger before `put` returns. Whoever removes dooms in the ledger first, asks
   then what is needed, and lets go of what is pinned. A name is one row there: pinned or doomed.
3. Nothing is taken to be missing, and nothing is removed, unless the store shows the id that the ledger
   knows: the empty folder below a mount that is not there, or another bucket, is no empty store.
"""

from __future__ import annotations

import abc
import itertools
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from dicom_node.blobs.bench import Bench
from dicom_node.blobs.port import Guard
from dicom_node.errors import BlobsUnavailable, SpoolError
from dicom_node.spool import Blob, Chunk, Seen, Writer

#: name of the object that holds the id of the store
MARKER = "store-id"
#: objects put less than this many seconds ago are not removed, whatever `keep_s` says
YOUNG_S = 600.0
#: a removal has ended after this many seconds, whatever became of it: more than any request can take
_DOOM_S = 900.0
#: of those, seconds in which each object's removal must have begun
_REMOVING_S = 60.0
#: how long one that puts waits for one that removes
_PIN_WAIT_S = 30.0
#: between two looks whether a removal has ended, seconds
_PATIENCE_S = 0.05
_BATCH = 256
_NAME = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{32}")


def boottime() -> float:
    """Seconds that have passed, those in which the machine slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SharedStore(abc.ABC):
    """A store for several machines; what it is made of is in the classes below it.

    Parameters
    ----------
    guard : what remembers pins and removals, as a rule the ledger; asked for when it is needed
    keep_s : seconds for which an object stays at least after it was put
    young_s : an object that is younger than half of this needs no pin; with 0 each is pinned
    """

    def __init__(self, guard: Callable[[], Guard], keep_s: float, *, young_s: float = YOUNG_S) -> None:
        self._guard = guard
        self._keep_s = keep_s
        self._young_s = young_s

    # what a kind of store brings

    @property
    @abc.abstractmethod
    def bench(self) -> Bench:
        """Where objects are written first."""

    @abc.abstractmethod
    def path(self, name: str) -> Path:
        """A file of this machine that holds the object."""

    @abc.abstractmethod
    def look(self, name: str) -> Seen | None:
        """Size and age of an object; None if it is absent for certain."""

    @abc.abstractmethod
    def verify(self, name: str) -> None:
        """Raise SpoolError unless the bytes in the store still have the hash that is their name."""

    @abc.abstractmethod
    def used_bytes(self) -> int:
        """Bytes of all objects, or about as many."""

    @abc.abstractmethod
    def _lay(self, part: Path, name: str) -> bool:
        """Put the file under a name that is free; False if the name is taken.

        What is laid is dated by the beginning of this call or later.
        """

    @abc.abstractmethod
    def _replace(self, part: Path, name: str) -> None:
        """Put the file under its name, whatever is there."""

    @abc.abstractmethod
    def holds(self, name: str, size: int) -> bool:
        """Whether the store has this object whole: what it has under the name is what the name says."""

    @abc.abstractmethod
    def _laid(self, part: Path, name: str) -> None:
        """The store has the object; what becomes of the file."""

    @abc.abstractmethod
    def _walk(self) -> Iterator[Mapping[str, Seen]]:
        """All objects, or the next part of a large store, in steps of bounded size."""

    @abc.abstractmethod
    def _drop(self, names: Iterable[str], limit_s: float, until: float) -> int:
        """Remove those that are still older than that; returns how many.

        No removal begins when `boottime` is past `until`: by then others may put what is removed.
        """

    @abc.abstractmethod
    def _now(self) -> float:
        """What time it is on the clock that the ages of objects are on."""

    @abc.abstractmethod
    def _read_marker(self) -> str | None:
        """The id that the store shows; None if it shows none."""

    @abc.abstractmethod
    def _write_marker(self, identity: str) -> None:
        """Have the store show an id, unless it shows one."""

    # whose store it is

    def claim(self, known: str) -> str:
        """The id of this store, which must be `known` if the ledger knows one; a new store gets one.

        Raises
        ------
        SpoolError : this is not the store that the ledger knows
        BlobsUnavailable : it does not answer
        """
        found = self._read_marker()
        if found is None and not known:
            self._write_marker(secrets.token_hex(16))
            found = self._read_marker()
        if found is None or not _ID.fullmatch(found) or known not in ("", found):
            state = "no store of a node" if found is None else "another store"
            raise SpoolError(
                f"the ledger knows a store of objects, and {self} is {state}; mount its file system, or name "
                "the right one in cluster.blobs"
            )
        return found

    def is_claimed(self) -> bool:
        """Whether some cluster keeps its objects here; asks the store, and changes nothing."""
        return self._read_marker() is not None

    def require_marker(self) -> None:
        """Raise BlobsUnavailable unless this is a store at all."""
        if self._read_marker() is None:
            raise BlobsUnavailable(
                f"{self} shows no {MARKER}; is its file system mounted, or the bucket right?"
            )

    # what the node asks for

    def adopt(self, reserve_bytes: int, keep_s: float) -> None:
        """Keep another reserve from now on, and objects for another time."""
        self.bench.adopt(reserve_bytes, keep_s)
        self._keep_s = keep_s

    def put(self, chunks: Iterable[Chunk]) -> Blob:
        """Keep the concatenation of `chunks`; on return the store has it. As `Spool.put`."""
        return self.bench.put(chunks)

    def put_output(self, chunks: Iterable[Chunk]) -> Blob:
        """As `put`, for what was made of an object here; it leaves half of the reserve free."""
        return self.bench.put_output(chunks)

    def writer(self) -> Writer:
        """A new object, to be written piece by piece; raises as `put` does."""
        return self.bench.writer()

    def open(self, name: str) -> BinaryIO:
        """The object for reading."""
        path = self.path(name)
        try:
            return path.open("rb")
        except OSError as error:
            raise SpoolError(f"object {name} cannot be read from {self}: {error.strerror}") from error

    def remove(self, name: str, *, keep_s: float | None = None) -> bool:
        """Remove an object that no row needs; False if it is absent, pinned, or was put too recently."""
        return bool(self._remove([checked(name)], lambda _: frozenset(), self._limit_s(keep_s)))

    def discard(self, needed: Callable[[list[str]], frozenset[str]], *, keep_s: float | None = None) -> int:
        """Remove objects older than `keep_s` that `needed` does not claim; returns how many."""
        self.require_marker()
        removed, limit_s = 0, self._limit_s(keep_s)
        for seen in self._walk():
            now = self._now()
            aged = iter([name for name, each in seen.items() if now - each.put_at >= limit_s])
            while batch := list(itertools.islice(aged, _BATCH)):
                removed += self._remove(batch, needed, limit_s)
        return removed

    def sweep(self) -> int:
        """Remove what crashed writers of this node left; returns how many files. Call once, at start."""
        return self.bench.sweep()

    def check_room(self) -> None:
        """Raise SpoolFull if arrivals are to stop."""
        self.bench.check_room()

    def is_short(self) -> bool:
        """Whether less than twice the reserve is free where objects are written."""
        return self.bench.is_short()

    def check_room_to_work(self, name: str) -> None:
        """Raise SpoolFull unless an output as large as this object leaves half of the reserve free."""
        seen = self.look(name)
        self.bench.check_room_for(0 if seen is None else seen.size)

    def free_bytes(self) -> int:
        """Bytes that may still be written where objects are written first."""
        return self.bench.free_bytes()

    def release_reserve(self) -> bool:
        """Give the space of the reserve file back; whether there was one."""
        return self.bench.release_reserve()

    # how

    def _limit_s(self, keep_s: float | None) -> float:
        return max(self._young_s, self._keep_s if keep_s is None else keep_s)

    def _publish(self, part: Path, name: str) -> None:
        """Have the store hold the file under its name for at least `keep_s`, and whole."""
        began = boottime()
        laid = self._lay(part, name)
        young = boottime() - began < self._young_s / 2 if laid else self._is_young(name)
        if not young:
            self._pin(name)
            # it may have been removed before, if it was laid now as well
            laid = self._lay(part, name) or laid
        if not laid and not self.holds(name, part.stat().st_size):
            self._replace(part, name)
        self._laid(part, name)

    def _is_young(self, name: str) -> bool:
        seen = self.look(name)
        return seen is not None and self._now() - seen.put_at < self._young_s / 2

    def _pin(self, name: str) -> None:
        """Wait for whoever removes the object, then keep everybody from it."""
        guard, until = self._guard(), time.monotonic() + _PIN_WAIT_S
        while not guard.pin(name, self._keep_s):
            if time.monotonic() >= until:
                raise BlobsUnavailable(
                    f"the removal of object {name} from {self} does not end; look at the leader"
                )
            time.sleep(_PATIENCE_S)

    def _remove(self, names: list[str], needed: Callable[[list[str]], frozenset[str]], limit_s: float) -> int:
        """Remove those of a batch that nobody needs; nobody can pin them meanwhile.

        After a removal that failed they stay doomed for a while: the request may still be on its way.
        """
        free = set(names) - needed(names)
        if not free:
            return 0
        guard, until = self._guard(), boottime() + _REMOVING_S
        doomed = guard.doom(sorted(free), _DOOM_S)
        spared = doomed
        try:
            # asked again: a row that was written before the announcement is seen now, and a later one pins
            gone = doomed - needed(sorted(doomed))
            if not gone:
                return 0
            spared = doomed - gone
            removed = self._drop(sorted(gone), limit_s, until)
            spared = doomed
            return removed
        finally:
            guard.spare(sorted(spared))


def checked(name: str) -> str:
    """A name of an object; SpoolError for anything else, which might lead anywhere."""
    if not _NAME.fullmatch(name):
        raise SpoolError("a spool name is 64 hex digits; the ledger holds something else")
    return name
