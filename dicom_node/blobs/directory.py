"""Objects in a folder of a network file system (NFS 4.1 or later, CephFS) that every machine has mounted.

    <folder>/store-id             what tells this folder from the empty one below a mount that is not there
    <folder>/ab/ab12...           objects, as in a spool
    <folder>/writers/<machine>/   what a machine is writing; it sweeps its own, the one that removes the rest

The file system must know hard links, and its server must be one that keeps what it has acknowledged. Locks
across machines are not needed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from dicom_node.blobs.bench import Bench
from dicom_node.blobs.port import Guard
from dicom_node.blobs.shared import MARKER, YOUNG_S, SharedStore, boottime, checked
from dicom_node.errors import BlobsUnavailable, SpoolError, SpoolFull
from dicom_node.spool import NO_ROOM, Seen, sync_folder

_READ_BYTES = 1 << 20
_FOLDERS = [f"{number:02x}" for number in range(256)]
_WRITERS = "writers"
#: what another machine began so long ago it has forgotten, seconds
_FORGOTTEN_S = 86400.0
#: folders that stand for all of them in `used_bytes`, and how many objects in them are too few for that
_SAMPLE, _TOO_FEW = 8, 2000


class DirectoryStore(SharedStore):
    """A store in a shared folder.

    Parameters
    ----------
    folder : of the mounted file system; `claim` makes what is in it
    reserve_bytes : free space below which `check_room` refuses
    guard, keep_s, young_s : as for `SharedStore`
    machine : name of this machine among those that share the folder
    """

    def __init__(
        self,
        folder: Path,
        reserve_bytes: int,
        guard: Callable[[], Guard],
        keep_s: float,
        *,
        young_s: float = YOUNG_S,
        machine: str = "",
    ) -> None:
        super().__init__(guard, keep_s, young_s=young_s)
        self.folder = folder
        self._reserve_bytes = reserve_bytes
        self._machine = re.sub(r"[^A-Za-z0-9._-]", "_", machine or socket.gethostname()) or "_"

    def __str__(self) -> str:
        return str(self.folder)

    @cached_property
    def bench(self) -> Bench:
        """The folder of this machine, in the shared one, so that a name is given without a copy."""
        self.require_marker()
        mine = self.folder / _WRITERS / self._machine
        return Bench(mine, self._reserve_bytes, self._publish, shared=True)

    def path(self, name: str) -> Path:
        """The file itself."""
        path = self._final(name)
        with self._failures(f"object {name}"):
            if not path.exists():
                self.require_marker()
        return path

    def look(self, name: str) -> Seen | None:
        """Size and age of an object; None if it is absent for certain."""
        path = self._final(name)
        with self._failures(f"object {name}"):
            try:
                # opened, because only that asks the server: a name may be remembered from before its removal
                with path.open("rb") as file:
                    stat = os.fstat(file.fileno())
            except FileNotFoundError:
                self.require_marker()
                return None
        return Seen(stat.st_size, stat.st_mtime)

    def verify(self, name: str) -> None:
        """Raise SpoolError unless the bytes still have the hash that is their name."""
        if self._digest(name) != name:
            raise SpoolError(
                f"object {name} has changed in {self.folder}; check its disk, send the object again"
            )

    def used_bytes(self) -> int:
        """Bytes of all objects; with very many, 32 times those of 8 folders: names are spread evenly."""
        chosen = random.sample(_FOLDERS, _SAMPLE)
        with self._failures():
            sizes = [seen.size for folder in chosen for seen in self._in(folder).values()]
            if len(sizes) < _TOO_FEW:
                return sum(seen.size for folder in _FOLDERS for seen in self._in(folder).values())
        return sum(sizes) * len(_FOLDERS) // _SAMPLE

    def _final(self, name: str) -> Path:
        return self.folder / checked(name)[:2] / name

    def _lay(self, part: Path, name: str) -> bool:
        final = self._final(name)
        with self._failures(f"object {name}"):
            try:
                # the last write, by which it was dated, is long ago where a mount did not answer for long
                os.utime(part)
                os.link(part, final)
            except FileExistsError:
                return False
            sync_folder(final.parent)
        return True

    def _replace(self, part: Path, name: str) -> None:
        final, again = self._final(name), self.bench.part()
        with self._failures(f"object {name}"):
            os.link(part, again)
            again.rename(final)
            sync_folder(final.parent)

    def holds(self, name: str, size: int) -> bool:
        seen = self.look(name)
        return seen is not None and seen.size == size and self._digest(name) == name

    def _laid(self, part: Path, name: str) -> None:
        with self._failures(f"object {name}"):
            part.unlink()

    def _walk(self) -> Iterator[Mapping[str, Seen]]:
        self._sweep_forgotten()
        for folder in _FOLDERS:
            with self._failures():
                yield self._in(folder)

    def _drop(self, names: Iterable[str], limit_s: float, until: float) -> int:
        removed, now = 0, self._now()
        for name in names:
            seen = self.look(name)
            if seen is None or now - seen.put_at < limit_s or boottime() > until:
                continue
            with self._failures(f"object {name}"), contextlib.suppress(FileNotFoundError):
                self._final(name).unlink()
                removed += 1
        return removed

    def _now(self) -> float:
        """The clock of the server, by which it dates files."""
        beat = self.bench.folder / "beat"
        with self._failures():
            beat.touch()
            os.utime(beat)
            return beat.stat().st_mtime

    def _read_marker(self) -> str | None:
        with self._failures():
            try:
                return (self.folder / MARKER).read_text("ascii").strip()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def _write_marker(self, identity: str) -> None:
        part = self.folder / f"{MARKER}.{identity}"
        with self._failures():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in (_WRITERS, *_FOLDERS):
                (self.folder / name).mkdir(mode=0o700, exist_ok=True)
            try:
                part.write_text(identity, "ascii")
                with part.open("rb") as file:
                    os.fsync(file.fileno())
                with contextlib.suppress(FileExistsError):
                    os.link(part, self.folder / MARKER)
            finally:
                part.unlink(missing_ok=True)
            sync_folder(self.folder)

    def _in(self, folder: str) -> dict[str, Seen]:
        found: dict[str, Seen] = {}
        with os.scandir(self.folder / folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    stat = entry.stat()
                    found[entry.name] = Seen(stat.st_size, stat.st_mtime)
        return found

    def _digest(self, name: str) -> str:
        digest = hashlib.sha256()
        with self._failures(f"object {name}"), self._final(name).open("rb") as file:
            while chunk := file.read(_READ_BYTES):
                digest.update(chunk)
        return digest.hexdigest()

    def _sweep_forgotten(self) -> None:
        """What machines left that never came back; one that lives writes nothing for a day."""
        with self._failures():
            now = self._now()
            for part in self.folder.glob(f"{_WRITERS}/*/tmp/*"):
                with contextlib.suppress(FileNotFoundError):
                    if now - part.stat().st_mtime > _FORGOTTEN_S:
                        part.unlink()

    @contextlib.contextmanager
    def _failures(self, what: str = "the store of objects") -> Iterator[None]:
        """A file system of a network that refuses may take the same later; only a full one is told apart."""
        try:
            yield
        except OSError as error:
            if error.errno in NO_ROOM:
                raise SpoolFull(f"no room left in {self.folder}: {error.strerror}; make room") from error
            if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
                raise SpoolError(f"{what} failed in {self.folder}: it knows no hard links") from error
            raise BlobsUnavailable(
                f"{what} failed in {self.folder}: {error.strerror}; check the mount"
            ) from error
