"""Memory that the receiver processes of one node share: what each has in hand, and who failed to log in.

A row belongs to one process and is written by it alone; the node's process clears it when its owner has
died. So a process may be killed at any moment and takes nothing with it: its places are free a moment later,
and the lock is the kernel's, which ends with its holder. The memory has no name, and nothing is left behind.

    head       where the next failure goes
    rows       how many associations, connections, places; when the owner last went round; whose places
    failures   a ring of (address, when), of all processes together

Peers and addresses are kept as 64 bits of a hash: the memory holds no name.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import reduction
from pathlib import Path
from typing import Any

from dicom_node.users import FAILURES, WITHIN_S

_WORD = 8
#: `node.max_associations` is no more than that
PLACES = 1000
#: places in a row, before those of its associations
_OPEN, _CONNECTIONS, _TURNED_AT, _TAKEN, _FIRST = range(5)
_ROW = _FIRST + PLACES
#: failures remembered: more than anybody can try within `WITHIN_S`, at 50 ms for each
_FAILURES = 16384


class Board:
    """The shared memory; handed to a spawned process with its arguments.

    Parameters
    ----------
    rows : how many processes write here
    handle : the memory of another board of as many rows; None makes a new one
    """

    def __init__(self, rows: int, handle: int | None = None) -> None:
        size = _WORD * (1 + rows * _ROW + 2 * _FAILURES)
        if handle is None:
            handle = _memory()
            os.ftruncate(handle, size)
        self.rows = rows
        self._handle = handle
        self._memory = mmap.mmap(handle, size)
        whole = memoryview(self._memory)
        self._words, self._reals = whole.cast("Q"), whole.cast("d")
        #: the kernel's lock is one of the process
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return _attached, (reduction.DupFd(self._handle), self.rows)

    def row(self, number: int) -> Row:
        """The row of one process."""
        return Row(self, number)

    def close(self) -> None:
        """Let go of the memory; the system takes it back when no process has it any more."""
        self._words.release()
        self._reals.release()
        self._memory.close()
        os.close(self._handle)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else looks for a place meanwhile, in any process."""
        with self._lock:
            fcntl.lockf(self._handle, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._handle, fcntl.LOCK_UN)

    def taken(self, *, without: int) -> list[int]:
        """The marks of the places of all rows but one."""
        return [mark for number in range(self.rows) if number != without for mark in self.row(number).marks()]


class Row:
    """What one process says of itself."""

    def __init__(self, board: Board, number: int) -> None:
        self._board = board
        self._number = number
        self._at = 1 + number * _ROW

    def held(self) -> contextlib.AbstractContextManager[None]:
        """As `Board.held`."""
        return self._board.held()

    def marks(self) -> list[int]:
        """The marks of its places."""
        words, first = self._board._words, self._at + _FIRST
        return list(words[first : first + min(words[self._at + _TAKEN], PLACES)])

    def others(self) -> list[int]:
        """The marks of the places that others have taken."""
        return self._board.taken(without=self._number)

    def take(self, marks: Sequence[int]) -> None:
        """Have these places, and no other."""
        words, first = self._board._words, self._at + _FIRST
        for number, mark in enumerate(marks[:PLACES]):
            words[first + number] = mark
        words[self._at + _TAKEN] = min(len(marks), PLACES)

    def say(self, open_associations: int, connections: int, turned_at: float) -> None:
        """Associations and connections now, and when the loops that take them last went round."""
        self._board._words[self._at + _OPEN] = open_associations
        self._board._words[self._at + _CONNECTIONS] = connections
        self._board._reals[self._at + _TURNED_AT] = turned_at

    def clear(self) -> None:
        """Its owner has died, or is yet to come; no lock is wanted, which somebody might hold who hangs."""
        self._board._words[self._at + _TAKEN] = 0
        self.say(0, 0, 0.0)

    @property
    def open_associations(self) -> int:
        """How many associations its owner has open."""
        return int(self._board._words[self._at + _OPEN])

    @property
    def connections(self) -> int:
        """How many connections its owner has."""
        return int(self._board._words[self._at + _CONNECTIONS])

    @property
    def turned_at(self) -> float:
        """When its owner last went round, on the monotonic clock of the machine; 0.0 before it ever did."""
        return float(self._board._reals[self._at + _TURNED_AT])

    def connected(self) -> None:
        """Its owner has taken one more connection."""
        self._board._words[self._at + _CONNECTIONS] += 1

    def ahead(self) -> int:
        """How many more connections its owner has than the process that has fewest."""
        living = [row.connections for row in map(self._board.row, range(self._board.rows)) if row.turned_at]
        return max(0, self.connections - min(living, default=0))


class SharedFailures:
    """Who failed to prove who it is, in any of the processes; as `users.Failures`."""

    def __init__(self, board: Board, clock: Callable[[], float] = time.monotonic) -> None:
        self._board = board
        self._clock = clock
        self._at = 1 + board.rows * _ROW

    def locked(self, address: str) -> bool:
        """Whether an address has failed too often of late."""
        mark, since = marked(address), self._clock() - WITHIN_S
        words, reals = self._board._words, self._board._reals
        end, found = int(words[0]), 0
        for number in range(end - 1, max(-1, end - 1 - _FAILURES), -1):
            at = self._at + 2 * (number % _FAILURES)
            if reals[at + 1] < since:
                break
            found += words[at] == mark
        return found >= FAILURES

    def note(self, address: str) -> None:
        """An address has failed."""
        with self._board.held():
            words, reals = self._board._words, self._board._reals
            at = self._at + 2 * (int(words[0]) % _FAILURES)
            words[at], reals[at + 1] = marked(address), self._clock()
            words[0] += 1


def marked(*names: str) -> int:
    """Names as one number that tells them apart from others, and never is 0."""
    digest = hashlib.blake2b("\0".join(names).encode("utf-8", "replace"), digest_size=_WORD).digest()
    return int.from_bytes(digest, "little") or 1


def _attached(handle: Any, rows: int) -> Board:
    return Board(rows, handle.detach())


def _memory() -> int:
    """A file without a name."""
    try:
        return os.memfd_create("dicom-node-receivers")
    except OSError:  # a sandbox may forbid it
        handle, name = tempfile.mkstemp()
        Path(name).unlink()
        return handle
