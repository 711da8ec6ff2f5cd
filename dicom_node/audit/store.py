"""Audit messages on disk, in the order in which they were written, until the repository has them.

    <folder>/messages/00000000000000000042  one message of syslog, complete and synced
    <folder>/lock                           held while a number is given out; holds the last one
    <folder>/state.json                     how far the ledger was told, what was lost, what a start saw

Rules that bind here:
1. What `put` has returned from survives a power cut.
2. Numbers go up, whichever process writes.
3. Files are for the service's user only (0700, 0600): they may hold Patient IDs. What root writes beside a
   running node is given to the owner of the folder.
4. Root writes into a folder that is not its own: it follows no link in there, writes only files that it made
   itself, and gives away nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
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
    of the key ring when they were last looked at.
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
            folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for made in (folder, self._messages):
                _make_folder(made)
            self._settle_number()

    def put(self, messages: Sequence[bytes], *, beyond: bool = False) -> None:
        """Keep messages behind all others; on return they are on disk. None of them is, if it raises.

        `beyond`: the bound may be passed, a little.

        Raises
        ------
        AuditFull : too many wait, or the disk is short
        AuditError : the disk refuses
        """
        with self._failures(), self._locked() as lock, _opened(self._messages) as folder:
            self._check_room(len(messages), _SPARE if beyond else 0)
            number = _number_in(lock)
            for place, each in enumerate(messages, start=1):
                _write(folder, f"{number + place}.part", each)
            for place in range(1, len(messages) + 1):
                os.rename(
                    f"{number + place}.part", _name(number + place), src_dir_fd=folder, dst_dir_fd=folder
                )
            os.fsync(folder)
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
        with self._failures(), self._locked(), _opened(self.folder) as folder:
            state = replace(self.state(), **changes)  # type: ignore[arg-type]
            _write(folder, "state.part", json.dumps(asdict(state)).encode())
            os.rename("state.part", "state.json", src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        return state

    def _path(self, number: int) -> Path:
        return self._messages / _name(number)

    def _check_room(self, count: int, spare: int) -> None:
        waiting = len(os.listdir(self._messages))  # noqa: PTH208
        if waiting + count > self._most + spare:
            raise AuditFull(
                f"{waiting} audit messages wait in {self.folder}; let the audit repository take them, or "
                "raise audit.keep_messages"
            )
        disk = os.statvfs(self._messages)
        if disk.f_bavail * disk.f_frsize < self._spare_bytes:
            raise AuditFull(f"the disk of {self.folder} is short; make room")

    def _settle_number(self) -> None:
        """After a power cut the number in the lock may be older than the last message."""
        with self._locked() as lock, _opened(self._messages) as folder:
            for part in self._messages.glob("*.part"):
                os.unlink(part.name, dir_fd=folder)
            last = max([_number_in(lock), *self.waiting()])
            os.pwrite(lock, b"%0*d" % (_DIGITS, last), 0)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        with self._turn, _opened(self.folder) as folder:
            handle = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=folder)
            try:
                _give_away(handle, folder)
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


def _make_folder(path: Path) -> None:
    """Make a folder, if it is not there, for whom the one around it belongs to."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
        with _opened(path) as made, _opened(path.parent, follow=True) as around:
            _give_away(made, around)


@contextlib.contextmanager
def _opened(path: Path, *, follow: bool = False) -> Iterator[int]:
    """A handle of a folder: what is done by it is done there; no link is followed unless `follow`."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | (0 if follow else os.O_NOFOLLOW))
    try:
        yield handle
    finally:
        os.close(handle)


def _name(number: int) -> str:
    return f"{number:0{_DIGITS}d}"


def _write(folder: int, name: str, content: bytes) -> None:
    """Make a file with this content, in the place of what an earlier run left, and have it on disk."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
    try:
        _give_away(handle, folder)
        written = 0
        while written < len(content):
            written += os.write(handle, content[written:])
        os.fsync(handle)
    finally:
        os.close(handle)


def _give_away(handle: int, folder: int) -> None:
    """What root has made belongs to whom the folder belongs, or the service could not send it."""
    if os.geteuid() != 0:
        return
    owner, own = os.fstat(folder), os.fstat(handle)
    if stat.S_ISREG(own.st_mode) and own.st_nlink != 1:
        raise OSError(errno.EMLINK, "a file in there has another name elsewhere")
    if own.st_uid == 0:
        os.fchown(handle, owner.st_uid, owner.st_gid)


def _number_in(lock: int) -> int:
    text = os.pread(lock, _DIGITS, 0)
    return int(text) if text.isdigit() else 0
