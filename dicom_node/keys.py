"""The key ring of a site: one text file that only its owner may read.

    # comments and blank lines are ignored
    key 1 2026-01-31T09:00:00Z 7f3c...   (64 hex digits)
    key 2 2027-01-31T09:00:00Z 91ab...
    current 2

Rules that bind here:
1. Every key ever written with stays in the file: it is needed to read what it wrote.
2. No secret appears in a message, a repr or a log line.
3. The file is replaced whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.errors import KeyFileError

if TYPE_CHECKING:
    from blessmark.types import KeyRing, SiteKey

_SECRET_BYTES = 32
_IDS = range(1, 256)
_KEY = re.compile(r"key (?P<id>\d{1,3}) (?P<created>\S{1,40}) (?P<secret>[0-9a-f]{64})")
_CURRENT = re.compile(r"current (?P<id>\d{1,3})")
_HEADER = """\
# Keys of this site's watermarks. Whoever reads this file can read, and forge, every protected record.
# Keep it at mode 0600 and keep a copy in a safe: without it no record can be recovered.
# Keys are only ever added (dicom-node keys new), never removed.
"""


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key without its secret; `created` is ISO 8601 UTC."""

    id: int
    created: str
    current: bool


@dataclass(frozen=True, slots=True)
class FileKeyRing:
    """The engine's KeyRing, read from a file; the current key comes first."""

    keys: tuple[SiteKey, ...] = field(repr=False)

    @property
    def current(self) -> SiteKey:
        """The key that new watermarks are written with."""
        return self.keys[0]

    @classmethod
    def load(cls, path: Path) -> KeyRing:
        """Read a key ring.

        Raises
        ------
        KeyFileError : absent, unreadable, readable by others, owned by somebody else, or malformed
        """
        from blessmark.types import SiteKey  # loads the engine, which the other functions do without

        ring = _parse(path, read_private(path))
        return cls(tuple(SiteKey(key.id, key.secret) for key in ring.in_order()))


def generate(path: Path) -> int:
    """Make a new current key, in a new file or beside the keys that are there; returns its id, 1..255.

    Raises
    ------
    KeyFileError : the file cannot be used or written, all ids are taken, or another run is under way
    """
    with exclusive_draft(path) as (handle, draft):
        old = _parse(path, read_private(path)) if path.exists() else _Ring((), 0)
        new = _Entry(_next_id(path, old), now(), secrets.token_bytes(_SECRET_BYTES))
        _write(handle, _Ring((*old.entries, new), new.id))
        draft.replace(path)
        sync_folder(path.parent)
    return new.id


def describe(path: Path) -> tuple[KeyInfo, ...]:
    """What the file holds, in its order and without secrets; raises KeyFileError as `FileKeyRing.load`."""
    ring = _parse(path, read_private(path))
    return tuple(KeyInfo(entry.id, entry.created, entry.id == ring.current) for entry in ring.entries)


@dataclass(frozen=True, slots=True)
class _Entry:
    id: int
    created: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Ring:
    entries: tuple[_Entry, ...]
    current: int

    def in_order(self) -> list[_Entry]:
        """The current key, then the others, the newest first."""
        newest_first = list(reversed(self.entries))
        return sorted(newest_first, key=lambda entry: entry.id != self.current)


def read_private(path: Path, made_by: str = "dicom-node keys new") -> str:
    """The text of a file of secrets, if nobody else can read or write it; raises KeyFileError otherwise.

    `made_by` is the command that makes such a file.
    """
    try:
        with path.open("r", encoding="ascii") as file:
            _check_private(path, os.fstat(file.fileno()))
            return file.read()
    except FileNotFoundError as error:
        raise KeyFileError(f"{path} does not exist; make it with: {made_by}") from error
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise KeyFileError(f"{path} is not a key ring: it is not plain ASCII text") from error


def _check_private(path: Path, facts: os.stat_result) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise KeyFileError(f"{path} is not a regular file")
    if facts.st_mode & 0o077:
        mode = stat.S_IMODE(facts.st_mode)
        raise KeyFileError(f"{path} is open to other users (mode {mode:04o}); run: chmod 600 {path}")
    if facts.st_uid not in (0, os.geteuid()):
        raise KeyFileError(
            f"{path} belongs to another user ({facts.st_uid}); run: chown {os.geteuid()} {path}"
        )


def _parse(path: Path, text: str) -> _Ring:
    entries: list[_Entry] = []
    current: int | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#", 1)[0].strip()
        if match := _KEY.fullmatch(words):
            entries.append(_entry(path, number, match, entries))
        elif (match := _CURRENT.fullmatch(words)) and current is None:
            current = int(match["id"])
        elif words:
            raise KeyFileError(f"{path}:{number}: neither `key ID CREATED SECRET` nor the one `current ID`")
    if current is None or current not in (entry.id for entry in entries):
        raise KeyFileError(f"{path}: `current ID` must name one of the keys in the file")
    return _Ring(tuple(entries), current)


def _entry(path: Path, line: int, match: re.Match[str], before: list[_Entry]) -> _Entry:
    identity = int(match["id"])
    if identity not in _IDS:
        raise KeyFileError(f"{path}:{line}: a key id is 1 to 255")
    if identity in (entry.id for entry in before):
        raise KeyFileError(f"{path}:{line}: key {identity} is there twice; ids are never used again")
    return _Entry(identity, match["created"], bytes.fromhex(match["secret"]))


def _next_id(path: Path, ring: _Ring) -> int:
    """One above the highest, so that ids tell their age; a free one below once 255 is taken."""
    taken = {entry.id for entry in ring.entries}
    newer: list[int] = [*range(max(taken, default=0) + 1, _IDS.stop), *_IDS]
    free = next((identity for identity in newer if identity not in taken), None)
    if free is None:
        raise KeyFileError(f"{path} holds 255 keys, as many as there are ids; start a new site key ring")
    return free


@contextlib.contextmanager
def exclusive_draft(path: Path) -> Iterator[tuple[int, Path]]:
    """A new private file beside `path` that only one run can hold; gone afterwards, one way or the other."""
    draft = path.with_name(f".{path.name}.new")
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise KeyFileError(
            f"{draft} exists: another run is under way, or one was cut off; then remove it"
        ) from error
    except OSError as error:
        raise KeyFileError(f"{path} cannot be written: {error.strerror}") from error
    try:
        yield handle, draft
    except OSError as error:
        raise KeyFileError(f"{path} cannot be written: {error.strerror}; it is unchanged") from error
    finally:
        os.close(handle)
        draft.unlink(missing_ok=True)


def _write(handle: int, ring: _Ring) -> None:
    lines = [f"key {entry.id} {entry.created} {entry.secret.hex()}\n" for entry in ring.entries]
    text = "".join([_HEADER, *lines, f"current {ring.current}\n"])
    with os.fdopen(os.dup(handle), "w", encoding="ascii") as file:
        file.write(text)
    os.fsync(handle)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk; raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def now() -> str:
    """The time as ISO 8601 UTC, as these files write it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
