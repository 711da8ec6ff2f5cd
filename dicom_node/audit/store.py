"""Audit messages on disk, in the order in which they were written, until the repository has them.

    <folder>/messages/00000000000000000042  one message of syslog, complete and synced
    <folder>/lock                           held while a number is given out; holds the last one
    <folder>/state.json                     how far the ledger was told, what was lost, what a start saw

Rules that bind here:
1. What `put` has returned from survives a power cut.
2. Numbers go up, whichever process writes.
3. Files are for the service's user only (0700, 0600): they may hold Patient IDs. What root writes beside a
   running node is given to the owner of the folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dicom_node.errors import AuditError, AuditFull

_DIGITS = 20
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: messages that may be written beyond the bound: those that say that it was reached
_SPARE = 16


@dataclass(frozen=True, slots=True)
class State:
    """What has to be known after a restart.

    `told_to` is the last step of the ledger that was told, -1 before the first start; `lost` how many events
    were not told since `lost_since` (seconds since 1970-01-01 UTC); `seen` digests of the configuration and
    of the key ring at the last start.
    """

    told_to: int = -1
    lost: int = 0
    lost_since: float = 0.0
    seen: Mapping[str, str] | None = None


class Store:
    """The messages of one node; for use by several threads and processes.

    Parameters
    ----------
    folder : made if absent
    most : messages that may wait
    spare_bytes : free space that is left to images
    """

    def __init__(self, folder: Path, most: int, spare_bytes: int = 0) -> None:
        self.folder = folder
        self._messages = folder / "messages"
        self._most = most
        self._spare_bytes = spare_bytes
        self._turn = threading.Lock()
        with self._failures():
            for made in (folder, self._messages):
                if not made.exists():
                    made.mkdir(mode=0o700, parents=True, exist_ok=True)
                    _give_away(made, made.parent)
            self._settle_number()

    def put(self, messages: Sequence[bytes], *, beyond: bool = False) -> None:
        """Keep messages behind all others; on return they are on disk. None of them is, if it raises.

        `beyond`: the bound may be passed, a little.

        Raises
        ------
        AuditFull : too many wait, or the disk is short
        AuditError : the disk refuses
        """
        with self._failures(), self._locked() as lock:
            self._check_room(len(messages), _SPARE if beyond else 0)
            number = _number_in(lock)
            parts = [self._part(number + place, each) for place, each in enumerate(messages, start=1)]
            for place, part in enumerate(parts, start=1):
                part.rename(self._path(number + place))
            _sync_folder(self._messages)
            os.pwrite(lock, b"%0*d" % (_DIGITS, number + len(messages)), 0)

    def waiting(self) -> list[int]:
        """The numbers of the messages that wait, oldest first."""
        with self._failures():
            return sorted(int(name) for name in os.listdir(self._messages) if name.isdigit())  # noqa: PTH208

    def read(self, number: int) -> bytes | None:
        """A message; None if it is gone."""
        with self._failures():
            try:
                return self._path(number).read_bytes()
            except FileNotFoundError:
                return None

    def remove(self, numbers: Sequence[int]) -> None:
        """Forget messages that the repository has."""
        with self._failures():
            for number in numbers:
                self._path(number).unlink(missing_ok=True)

    def written_at(self, number: int) -> float | None:
        """When a message was written, seconds since 1970-01-01 UTC; None if it is gone."""
        with self._failures():
            try:
                return self._path(number).stat().st_mtime
            except FileNotFoundError:
                return None

    def state(self) -> State:
        """What was last noted; the beginning of everything if there is nothing, or nothing readable."""
        with self._failures():
            try:
                return State(**json.loads((self.folder / "state.json").read_text("utf-8")))
            except (FileNotFoundError, ValueError, TypeError):
                return State()

    def note(self, **changes: object) -> State:
        """Change what is known after a restart; on return it is on disk."""
        with self._failures(), self._locked():
            state = replace(self.state(), **changes)  # type: ignore[arg-type]
            part = self._written(self.folder / "state.part", json.dumps(asdict(state)).encode())
            part.rename(self.folder / "state.json")
            _sync_folder(self.folder)
        return state

    def _path(self, number: int) -> Path:
        return self._messages / f"{number:0{_DIGITS}d}"

    def _part(self, number: int, message: bytes) -> Path:
        return self._written(self._messages / f"{number}.part", message)

    def _written(self, path: Path, content: bytes) -> Path:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            _give_away(handle, self.folder)
            written = 0
            while written < len(content):
                written += os.write(handle, content[written:])
            os.fsync(handle)
        finally:
            os.close(handle)
        return path

    def _check_room(self, count: int, spare: int) -> None:
        waiting = len(os.listdir(self._messages))  # noqa: PTH208
        if waiting + count > self._most + spare:
            raise AuditFull(
                f"{waiting} audit messages wait in {self.folder}; let the audit repository take them, or "
                "raise audit.keep_messages"
            )
        stat = os.statvfs(self._messages)
        if stat.f_bavail * stat.f_frsize < self._spare_bytes:
            raise AuditFull(f"the disk of {self.folder} is short; make room")

    def _settle_number(self) -> None:
        """After a power cut the number in the lock may be older than the last message."""
        with self._locked() as lock:
            for part in self._messages.glob("*.part"):
                part.unlink()
            last = max([_number_in(lock), *self.waiting()])
            os.pwrite(lock, b"%0*d" % (_DIGITS, last), 0)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        with self._turn:
            handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                _give_away(handle, self.folder)
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield handle
            finally:
                os.close(handle)

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise AuditFull(f"no room left in {self.folder}: {error.strerror}; make room") from error
            raise AuditError(
                f"the audit trail in {self.folder} cannot be used: {error.strerror}; check folder and disk"
            ) from error


def _give_away(what: int | Path, like: Path) -> None:
    """What root makes belongs to whom the folder belongs, or the service could not send it."""
    if os.geteuid() == 0:
        owner = like.stat()
        os.chown(what, owner.st_uid, owner.st_gid)


def _number_in(lock: int) -> int:
    text = os.pread(lock, _DIGITS, 0)
    return int(text) if text.isdigit() else 0


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
