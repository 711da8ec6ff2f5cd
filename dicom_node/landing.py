"""Where objects land that an archive sends: whole or not at all, under names of our own.

    <folder>/<hash of the SOP Instance UID>.dcm    an object as the archive sent it
    <folder>/manifest.jsonl                        one line for each: UIDs, bytes, SHA-256
    <folder>/.dicom-node-*                         what is on its way

Rules that bind here:
1. A file under its final name is whole, on disk where that is wanted, and the instance that was asked for.
2. No file name comes from the wire. The name follows from the UID, so that a second run knows what is there.
3. What was not asked for is not kept, nor is the same instance again with other content.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from dicom_node.errors import InputError, OutputError, SpoolError, SpoolFull
from dicom_node.inquiry import Order
from dicom_node.spool import Writer, sync_folder

MANIFEST = "manifest.jsonl"
#: free space, bytes, below which nothing more is taken
RESERVE_BYTES = 64_000_000

_PART = ".dicom-node-"
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Landed:
    """An object that is here: whose it is, and what it holds."""

    file: str
    study: str
    series: str
    uid: str
    sop_class: str
    size: int
    sha256: str


def name_of(uid: str) -> str:
    """The name of the file of an instance."""
    return f"{hashlib.sha256(uid.encode()).hexdigest()[:32]}.dcm"


class Landing:
    """A folder that takes what was ordered; for use by any number of threads.

    Parameters
    ----------
    folder : made if absent
    on_landed : called with every object that is here, from the thread that received it
    durable : whether a file must survive a power cut before it is named

    Raises
    ------
    OutputError : the folder cannot be made or written
    """

    def __init__(
        self, folder: Path, on_landed: Callable[[Landed], object] = lambda _: None, *, durable: bool = True
    ) -> None:
        self.folder = folder
        #: on the clock of `time.monotonic`, when a piece of something last came
        self.moved_at = time.monotonic()
        self._on_landed = on_landed
        self._durable = durable
        self._counter = itertools.count()
        self._orders: dict[str, Order] = {}
        self._landed: dict[str, str] = {}
        self._lock = threading.Lock()
        #: objects that were sent and not kept, by reason
        self.refused: dict[str, int] = {}
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be made ({error.strerror}); choose another") from error

    def expect(self, order: Order) -> None:
        """From now on the instances of `order` are wanted."""
        with self._lock:
            self._orders.update(dict.fromkeys(order.expected, order))

    def forget(self, order: Order) -> None:
        """Whatever becomes of the instances of `order`, nobody will ask again."""
        with self._lock:
            for uid in order.expected:
                self._orders.pop(uid, None)
                self._landed.pop(uid, None)

    def missing(self, order: Order) -> tuple[str, ...]:
        """The instances of `order` that are not here."""
        with self._lock:
            return tuple(uid for uid in order.expected if uid not in self._landed)

    def room(self, uid_of: Callable[[Path], str], uid: str | None = None) -> Room:
        """Room for one object; `uid_of` tells, of the file once it is written, which instance it is.

        With `uid`, one that is not wanted is refused before its first byte is written.
        """
        return Room(self, uid_of, uid)

    def path(self, landed: Landed) -> Path:
        """Where an object is."""
        return self.folder / landed.file

    def check_wanted(self, uid: str) -> None:
        """Raise InputError for an instance that nobody ordered."""
        with self._lock:
            if uid not in self._orders:
                raise self._refusal("not asked for")

    def touch(self) -> None:
        """Something came."""
        self.moved_at = time.monotonic()

    def check_room(self) -> None:
        """Raise SpoolFull when there is next to no space."""
        with self.failures():
            stat = os.statvfs(self.folder)
        if stat.f_bavail * stat.f_frsize < RESERVE_BYTES:
            raise SpoolFull(f"no room left in {self.folder}; make room, then run the same command again")

    def part(self) -> Path:
        """A new name for what is on its way."""
        return self.folder / f"{_PART}{os.getpid()}-{next(self._counter)}"

    @property
    def durable(self) -> bool:
        """Whether files survive a power cut."""
        return self._durable

    def publish(self, part: Path, sha256: str, uid: str) -> None:
        """Give a whole file its name, or refuse it with InputError."""
        size = part.stat().st_size
        with self._lock:
            order, before = self._orders.get(uid), self._landed.get(uid, sha256)
            if order is None:
                raise self._refusal("not asked for")
            if before != sha256:
                raise self._refusal("sent twice with different content")
            if uid in self._landed:
                part.unlink()
                return
            part.rename(self.folder / name_of(uid))
            self._landed[uid] = sha256
        if self._durable:
            sync_folder(self.folder)
        sop_class = order.expected[uid]
        self._on_landed(Landed(name_of(uid), order.study, order.series, uid, sop_class, size, sha256))
        self.touch()  # whoever took it may have kept the archive waiting

    @contextlib.contextmanager
    def failures(self) -> Iterator[None]:
        """Turn what the operating system says into what to do about it."""
        try:
            yield
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise SpoolFull(f"no room left in {self.folder}: {error.strerror}; make room") from error
            raise SpoolError(f"{self.folder} cannot be written: {error.strerror}; check the disk") from error

    def _refusal(self, why: str) -> InputError:
        self.refused[why] = self.refused.get(why, 0) + 1
        return InputError(f"an instance was {why}; it is not kept")


class Room:
    """What `dimse.reception` and the web source write an object into."""

    def __init__(self, landing: Landing, uid_of: Callable[[Path], str], uid: str | None) -> None:
        self._landing = landing
        self._uid_of = uid_of
        self._uid = uid

    def check_room(self) -> None:
        """Raise SpoolFull without space, InputError for what is not wanted; called as the object grows."""
        if self._uid is not None:
            self._landing.check_wanted(self._uid)
        self._landing.check_room()

    def writer(self) -> Writer:
        """The file on its way."""
        part = self._landing.part()
        with self._landing.failures():
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        return Writer(part, handle, self._landing.failures, self._publish, durable=self._landing.durable)

    def _publish(self, part: Path, sha256: str) -> None:
        self._landing.publish(part, sha256, self._uid_of(part))


# ---- the manifest ----


class Manifest:
    """What a folder holds, one line an object; held by one process at a time.

    Raises OutputError when another holds it, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file: TextIO = (folder / MANIFEST).open("a+", encoding="utf-8")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise OutputError(
                f"another command is fetching into {folder}; wait for it, or choose another"
            ) from error
        except OSError as error:
            raise OutputError(f"{folder} cannot be written ({error.strerror}); choose another") from error
        for part in folder.glob(f"{_PART}*"):
            part.unlink(missing_ok=True)
        self._known = dict(self._lines())

    def here(self, uid: str) -> bool:
        """Whether an instance is here with the bytes that it came with; reads the file."""
        known = self._known.get(uid)
        path = self.folder / name_of(uid)
        return known is not None and path.is_file() and _sha256(path) == known

    def add(self, landed: Landed) -> None:
        """Note an object; it is on disk when `sync` returns."""
        with self._lock:
            self._file.write(json.dumps(asdict(landed)) + "\n")
            self._file.flush()
            self._known[landed.uid] = landed.sha256

    def sync(self) -> None:
        """Have every line on disk."""
        with self._lock:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let others fetch into this folder."""
        self.sync()
        self._file.close()

    def _lines(self) -> Iterator[tuple[str, str]]:
        """UID and hash of every line that is whole; a crash may have cut the last one."""
        self._file.seek(0)
        torn = False
        for text in self._file:
            torn = not text.endswith("\n")
            try:
                line = json.loads(text)
                yield str(line["uid"]), str(line["sha256"])
            except (ValueError, KeyError, TypeError):
                continue
        if torn:
            self._file.write("\n")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
