"""Objects of a remote store that are on this machine too, so that a worker and a sender need not fetch twice.

Rules that bind here:
1. A file under its final name was whole when it got it: written here, or fetched and hashed. It is on no disk
   for certain, so after the machine fell all of them go.
2. Whoever was told of a file has it for `_IN_USE_S`; only what nobody asked for since may be evicted, the
   longest unused first.
3. One object is fetched once, whoever asks for it at the same time, thread or process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dicom_node.errors import SpoolError

#: an object that was asked for is in somebody's hands for so long; on a disk that is full, for less
_IN_USE_S, _PRESSED_S = 600.0, 60.0
#: after an eviction so much of the limit is free
_SLACK = 0.1
#: bytes after which one process looks again at how full the cache is, as a share of the limit
_LOOK_SHARE = 1 / 16


class Cache:
    """A folder of at most about so many bytes; for every thread and process of this machine.

    Parameters
    ----------
    folder : made if absent
    limit_bytes : what is evicted down to; what is in use may exceed it
    boot : which boot of the machine this is
    """

    def __init__(self, folder: Path, limit_bytes: int, boot: str) -> None:
        self.folder = folder
        self._limit = limit_bytes
        self._boot = boot
        self._since_look = 0
        with _failures(folder):
            for name in ("locks", *(f"{number:02x}" for number in range(256))):
                (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    def find(self, name: str) -> Path | None:
        """The file of an object, in the caller's hands from now on; None if it is not here."""
        path = self.folder / name[:2] / name
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SpoolError(f"object {name} failed in {self.folder}: {error.strerror}") from error
        return path

    def get(self, name: str, fetch: Callable[[], Path]) -> Path:
        """The file of an object; `fetch` brings a whole one if it is not here, one at a time."""
        found = self.find(name)
        if found is not None:
            return found
        with self._alone(name):
            return self.find(name) or self.admit(fetch(), name)

    def admit(self, part: Path, name: str) -> Path:
        """Take a whole file in; it has its final name then."""
        path = self.folder / name[:2] / name
        with _failures(self.folder):
            self._since_look += part.stat().st_size
            os.utime(part)
            part.rename(path)
        if self._since_look > self._limit * _LOOK_SHARE:
            self._since_look = 0
            self.evict()
        return path

    def forget(self, name: str) -> None:
        """The object is no longer in the store, or not as it was."""
        with contextlib.suppress(OSError):
            (self.folder / name[:2] / name).unlink(missing_ok=True)

    def evict(self, *, pressed: bool = False) -> int:
        """Remove what has been unused for longest, until the rest is within the limit; returns bytes.

        `pressed`: the disk is full; everything goes that is not in use.
        """
        files = sorted((stat.st_mtime, stat.st_size, path) for path, stat in self._files())
        total = sum(size for _, size, _ in files)
        target = 0.0 if pressed else self._limit * (1 - _SLACK)
        if not pressed and total <= self._limit:
            return 0
        idle_before = time.time() - (_PRESSED_S if pressed else _IN_USE_S)
        freed = 0
        for used_at, size, path in files:
            if used_at > idle_before or total - freed <= target:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                freed += size
        return freed

    def used_bytes(self) -> int:
        """Bytes of all files."""
        return sum(stat.st_size for _, stat in self._files())

    def begin(self) -> None:
        """At a start, before anybody asks: after a fall of the machine nothing here can be relied on."""
        noted = self.folder / "boot"
        with _failures(self.folder):
            before = noted.read_text("utf-8") if noted.exists() else ""
            if before != self._boot or not self._boot:
                for path, _ in self._files():
                    path.unlink(missing_ok=True)
                noted.write_text(self._boot, "utf-8")

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for number in range(256):
            with os.scandir(self.folder / f"{number:02x}") as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        yield Path(entry.path), entry.stat()

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        # a lock belongs to the open file, so it holds between threads as well
        with _failures(self.folder):
            handle = os.open(self.folder / "locks" / name[:2], os.O_RDWR | os.O_CREAT, 0o600)
        try:
            with _failures(self.folder):
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


@contextlib.contextmanager
def _failures(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SpoolError(f"the cache failed in {folder}: {error.strerror}; check the disk") from error
