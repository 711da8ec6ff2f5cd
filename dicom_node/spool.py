"""The bytes of every object, in files that never change, named by what they hold.

Rules that bind here:
1. A file under its final name is complete, on disk, and its name is the SHA-256 of its bytes.
2. No file name comes from the wire: a peer may claim `../../x`.
3. A name that `put` returned stays valid for at least `keep_s`, referenced or not: time to write its row.
   Afterwards `remove` may take it away, for a caller who has seen that no row of the ledger needs it.

    <folder>/ab/ab12...   objects, spread over 256 folders by the first byte of their hash
    <folder>/tmp/         what is being written; left-overs are swept when the service starts
    <folder>/reserve      space set aside so that the ledger can still commit on a full disk
    <folder>/lock         held shared to publish a name, exclusively to remove one
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dicom_node.errors import SpoolError, SpoolFull

Chunk = bytes | bytearray | memoryview

_NAME = re.compile(r"[0-9a-f]{64}")
#: what the system says when there is no space, no quota or no inode
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_READ_BYTES = 1 << 20
#: SQLite needs a few pages of its write-ahead log for every commit; this holds thousands
_RESERVE_FILE_BYTES = 16_000_000
_SPARE_INODES = 256
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Blob:
    """A kept object: the SHA-256 of its bytes as 64 hex digits, and how many bytes there are."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Seen:
    """An object as its folder shows it: bytes, and when it was put, seconds since 1970-01-01 UTC."""

    size: int
    put_at: float


class Spool:
    """A folder of immutable objects, shared by every thread and process of the node.

    Parameters
    ----------
    folder : made if absent, readable by this user only
    reserve_bytes : free space below which `check_room` refuses
    keep_s : seconds for which `remove` leaves a file alone after it was put

    Raises
    ------
    SpoolError : the folder cannot be made or written
    """

    def __init__(self, folder: Path, reserve_bytes: int, *, keep_s: float = 3600.0) -> None:
        self.folder = folder
        self._reserve = folder / "reserve"
        # as text: every object needs some, and a Path takes longer to make than the call that it is for
        self._home = str(folder)
        self._tmp, self._lock_file = str(folder / "tmp"), str(folder / "lock")
        self.reserve_bytes = reserve_bytes
        self._keep_s = keep_s
        self._started = time.time()
        self._counter = itertools.count()
        # process ids repeat (in a container the first is always 1), so they alone do not make a name unique
        self._run = secrets.token_hex(4)
        with self._failures():
            self._make_folders()
        self._take_reserve()

    def adopt(self, reserve_bytes: int, keep_s: float) -> None:
        """Keep another reserve from now on, and objects for another time."""
        self.reserve_bytes, self._keep_s = reserve_bytes, keep_s

    def put(self, chunks: Iterable[Chunk]) -> Blob:
        """Keep the concatenation of `chunks`; on return it survives a power cut.

        The same content again gives the same blob. Nothing half-written remains, whatever happens; an error
        of the iterator itself passes through as it is.

        Raises
        ------
        SpoolFull : no space, no quota or no inode is left
        SpoolError : the disk failed
        """
        writer = self.writer()
        try:
            for chunk in chunks:
                writer.write(chunk)
            return writer.keep()
        finally:
            writer.discard()

    def put_output(self, chunks: Iterable[Chunk]) -> Blob:
        """As `put`, for what was made of an object here; it leaves half of the reserve free, or is SpoolFull.

        What an output takes is known only while it is made: decompressed, it may be many times its source.
        """
        return self.put(self._within_room(chunks))

    def writer(self) -> Writer:
        """A new object, to be written piece by piece; raises as `put` does."""
        part = f"{self._tmp}/{self._part_name()}"
        try:
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise self._failed(error, "the spool") from error
        fcntl.flock(handle, fcntl.LOCK_EX)  # tells the sweep that somebody is alive behind this file
        return Writer(part, handle, self._failures, self._publish)

    def path(self, name: str) -> Path:
        """Where the object of this name is, or would be."""
        return Path(self._named(name))

    def _named(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise SpoolError("a spool name is 64 hex digits; the ledger holds something else")
        return f"{self._home}/{name[:2]}/{name}"

    def open(self, name: str) -> BinaryIO:
        """The object for reading; its bytes are not checked, see `verify`."""
        path = self.path(name)
        with self._failures(f"object {name}"):
            return path.open("rb")

    def look(self, name: str) -> Seen | None:
        """Size and age of an object without opening it; None if it is absent."""
        path = self.path(name)
        with self._failures(f"object {name}"):
            try:
                stat = path.stat()
            except FileNotFoundError:
                return None
        return Seen(stat.st_size, stat.st_mtime)

    def verify(self, name: str) -> None:
        """Raise SpoolError unless the bytes still have the hash that is their name."""
        digest = hashlib.sha256()
        with self.open(name) as file, self._failures(f"object {name}"):
            while chunk := file.read(_READ_BYTES):
                digest.update(chunk)
        if digest.hexdigest() != name:
            raise SpoolError(f"object {name} has changed on disk; check the disk, send the object again")

    def remove(self, name: str, *, keep_s: float | None = None) -> bool:
        """Remove an object that no row needs; False if it is absent or was put too recently to be sure.

        `keep_s` takes the place of the spool's own.
        """
        limit_s = self._keep_s if keep_s is None else keep_s
        path = self.path(name)
        with self._failures(f"object {name}"), self._alone():
            try:
                age_s = time.time() - path.stat().st_mtime
            except FileNotFoundError:
                return False
            if age_s < limit_s:
                return False
            path.unlink()
            return True

    def discard(self, needed: Callable[[list[str]], frozenset[str]], *, keep_s: float | None = None) -> int:
        """Remove every object older than `keep_s` that `needed` does not claim; returns how many.

        `needed` is the ledger's: of the names it is given, those that must stay. `keep_s` takes the place of
        the spool's own.
        """
        removed = 0
        limit_s = self._keep_s if keep_s is None else keep_s
        aged = iter(self._aged(limit_s))
        while batch := list(itertools.islice(aged, _BATCH)):
            removed += sum(self.remove(name, keep_s=limit_s) for name in set(batch) - needed(batch))
        return removed

    def names(self) -> Iterator[str]:
        """Every object that is here now, in no order that means anything."""
        with self._failures():
            yield from (name for name, _ in self._objects())

    def sweep(self) -> int:
        """Remove what crashed writers left in `tmp`; returns how many files. Call once, at start."""
        removed = 0
        with self._failures():
            for part in (self.folder / "tmp").iterdir():
                if self._orphaned(part):
                    part.unlink(missing_ok=True)
                    removed += 1
        return removed

    def check_room(self) -> None:
        """Raise SpoolFull if less than the reserve is free, so that arrivals stop before work does."""
        try:
            stat = os.statvfs(self._tmp)
        except OSError as error:
            raise self._failed(error, "the spool") from error
        free = stat.f_bavail * stat.f_frsize
        if free < self.reserve_bytes:
            raise SpoolFull(
                f"{free} bytes free in {self.folder}, the reserve is {self.reserve_bytes}; make room"
            )
        if stat.f_files and stat.f_favail < _SPARE_INODES:
            raise SpoolFull(f"no inodes free in {self.folder}; make room")
        if free > 2 * self.reserve_bytes and not self._reserve.exists():
            self._take_reserve()

    def is_short(self) -> bool:
        """Whether less than twice the reserve is free: objects will soon be refused."""
        return self.free_bytes() < 2 * self.reserve_bytes

    def check_room_to_work(self, name: str) -> None:
        """Raise SpoolFull unless an output as large as this object leaves half of the reserve free.

        Work stops there, so that the ledger can still record what is delivered; else a destination that stays
        away for long would leave a disk on which nothing can ever be recorded again.
        """
        try:
            size = os.stat(self._named(name)).st_size  # noqa: PTH116
        except OSError as error:
            raise self._failed(error, f"object {name}") from error
        self._check_half(size)

    def _check_half(self, size: int) -> None:
        free = self.free_bytes()
        if free - size < self.reserve_bytes // 2:
            raise SpoolFull(f"{free} bytes free in {self.folder}, too few to work on {size}; make room")

    def _within_room(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        unchecked = 0
        for chunk in chunks:
            unchecked += memoryview(chunk).nbytes
            if unchecked >= _READ_BYTES:
                self._check_half(unchecked)
                unchecked = 0
            yield chunk

    def free_bytes(self) -> int:
        """Bytes that this user may still write on the spool's file system."""
        try:
            stat = os.statvfs(self._home)
        except OSError as error:
            raise self._failed(error, "the spool") from error
        return stat.f_bavail * stat.f_frsize

    def used_bytes(self) -> int:
        """Bytes of all objects; looks at every file, about 3 microseconds each."""
        with self._failures():
            return sum(stat.st_size for _, stat in self._objects())

    def release_reserve(self) -> bool:
        """Give the space of the reserve file back, so that the ledger can commit on a full disk."""
        return release_reserve(self.folder)

    def _make_folders(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.folder / "lock").touch(mode=0o600)
        missing = [name for name in _folder_names() if not (self.folder / name).is_dir()]
        for name in missing:
            (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        if missing:
            sync_folder(self.folder)
            sync_folder(self.folder.parent)

    def _take_reserve(self) -> None:
        """Best effort: without room for the reserve, `check_room` refuses anyway."""
        size = min(_RESERVE_FILE_BYTES, self.reserve_bytes // 4)
        if not size:
            return
        try:
            handle = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError:
            return  # it exists already
        try:
            os.posix_fallocate(handle, 0, size)
        except OSError:
            self.release_reserve()
        finally:
            os.close(handle)

    def _part_name(self) -> str:
        return f"{os.getpid()}-{threading.get_ident()}-{next(self._counter)}-{self._run}"

    def _publish(self, part: str | Path, name: str) -> None:
        home = f"{self._home}/{name[:2]}"
        # a lock belongs to the open file, so every use opens its own
        lock = os.open(self._lock_file, os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            os.rename(part, f"{home}/{name}")  # noqa: PTH104
        finally:
            os.close(lock)
        sync_folder(home)

    def _orphaned(self, part: Path) -> bool:
        try:
            if part.stat().st_mtime >= self._started:
                return False
            handle = os.open(part, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(handle)
        return True

    def _aged(self, keep_s: float) -> Iterator[str]:
        limit = time.time() - keep_s
        with self._failures():
            yield from (name for name, stat in self._objects() if stat.st_mtime <= limit)

    def _objects(self) -> Iterator[tuple[str, os.stat_result]]:
        for folder in _folder_names()[1:]:
            with os.scandir(self.folder / folder) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        yield entry.name, entry.stat()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """While nobody gives a file its name."""
        handle = os.open(self._lock_file, os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _failures(self, what: str = "the spool") -> Iterator[None]:
        """Turn what the operating system says into what the operator and the sender can act on."""
        try:
            yield
        except OSError as error:
            raise self._failed(error, what) from error

    def _failed(self, error: OSError, what: str) -> SpoolError | SpoolFull:
        if error.errno in NO_ROOM:
            self.release_reserve()
            return SpoolFull(f"no room left in {self.folder}: {error.strerror}; make room")
        return SpoolError(f"{what} failed in {self.folder}: {error.strerror}; check the disk")


class Writer:
    """An object on its way into the spool; whoever has one ends it by `keep` or `discard`, from any thread.

    Made by `Spool.writer`; without `durable`, by whoever needs no file after a power cut.
    """

    def __init__(
        self,
        part: str | Path,
        handle: int,
        failures: Callable[[], contextlib.AbstractContextManager[None]],
        publish: Callable[[Any, str], None],
        *,
        durable: bool = True,
    ) -> None:
        self._durable = durable
        self._part = part
        self._handle: int | None = handle
        self._failures = failures
        self._publish = publish
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, chunk: Chunk) -> None:
        """Append bytes; after SpoolFull or SpoolError only `discard` makes sense."""
        assert self._handle is not None
        data = memoryview(chunk).cast("B")
        try:
            _write_all(self._handle, data)
        except OSError:
            with self._failures():
                raise
        self._digest.update(data)
        self.size += len(data)

    def keep(self) -> Blob:
        """Give the object its name; on return it survives a power cut. Raises as `Spool.put` does."""
        assert self._handle is not None
        blob = Blob(self._digest.hexdigest(), self.size)
        try:
            if self._durable:
                os.fdatasync(self._handle)
            self._publish(self._part, blob.name)
        except OSError:
            with self._failures():
                raise
        self._close()
        return blob

    def discard(self) -> None:
        """Leave nothing of an object that was not kept; harmless after `keep`, and twice."""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._part)  # noqa: PTH108
            self._close()

    def _close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)


def release_reserve(folder: Path) -> bool:
    """Give the space of a spool's reserve file back; whether there was one."""
    try:
        (folder / "reserve").unlink()
    except OSError:
        return False
    return True


def sweep_of(folder: Path, pid: int) -> int:
    """Remove what a process that has died was writing into a spool; returns how many files."""
    removed = 0
    for part in (folder / "tmp").glob(f"{pid}-*"):
        with contextlib.suppress(OSError):  # the next start sweeps again
            handle = os.open(part, os.O_RDONLY)
            try:
                # should its number have been given to another process already, that one holds the lock
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink()
                removed += 1
            finally:
                os.close(handle)
    return removed


def _folder_names() -> list[str]:
    return ["tmp", *(f"{number:02x}" for number in range(256))]


def sync_folder(folder: str | Path) -> None:
    """Have the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_all(handle: int, data: memoryview) -> None:
    while data:
        data = data[os.write(handle, data) :]
