"""The key ring of a site: one text file that only its owner may read.

    # comments and blank lines are ignored
    key 1 2026-01-31T09:00:00Z 7f3c...   (64 hex digits)
    key 2 2027-01-31T09:00:00Z 91ab...
    current 1
    current 2 from 2027-02-15T00:00:00Z
    revoked 1 2027-03-01T12:00:00Z

Rules that bind here:
1. Every key ever written with stays in the file: it is needed to read what it wrote, revoked or not.
2. No secret appears in a message, a repr or a log line.
3. The file is replaced whole or not at all, by one run at a time.
4. A key that is revoked is never written with.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node import log, private
from dicom_node.errors import KeyFileError

if TYPE_CHECKING:
    from blessmark.types import SiteKey

_LOG = logging.getLogger(__name__)

_SECRET_BYTES = 32
_IDS = range(1, 256)
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
_KEY = re.compile(r"key (?P<id>\d{1,3}) (?P<created>\S{1,40}) (?P<secret>[0-9a-f]{64})")
_CURRENT = re.compile(rf"current (?P<id>\d{{1,3}})( from (?P<since>{_TIME}))?")
_REVOKED = re.compile(rf"revoked (?P<id>\d{{1,3}}) (?P<at>{_TIME})")
_HEADER = """\
# Keys of this site's watermarks. Whoever reads this file can read, and forge, every protected record.
# Keep it at mode 0600 and keep a copy in a safe: without it no record can be recovered.
# Keys are only ever added (dicom-node keys new), never removed; one that leaked: dicom-node keys revoke.
"""
#: seconds between two looks at the file of a ring in use
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key without its secret; times are ISO 8601 UTC.

    `current` is whether it is written with now, `current_from` when it will be, `revoked` since when it must
    not be; "" is never.
    """

    id: int
    created: str
    current: bool
    current_from: str = ""
    revoked: str = ""


@dataclass(frozen=True, slots=True)
class FileKeyRing:
    """The engine's KeyRing, as its file was at one moment; the current key comes first.

    `revoked` names the keys that are revoked, and since when (ISO 8601 UTC).
    """

    keys: tuple[SiteKey, ...] = field(repr=False)
    revoked: Mapping[int, str] = field(default_factory=dict)

    @property
    def current(self) -> SiteKey:
        """The key that new watermarks are written with."""
        return self.keys[0]

    @classmethod
    def load(cls, path: Path) -> FileKeyRing:
        """Read a key ring.

        Raises
        ------
        KeyFileError : absent, unreadable, readable by others, owned by somebody else, or malformed
        """
        from blessmark.types import SiteKey  # loads the engine, which the other functions do without

        ring = _load(path)
        keys = tuple(SiteKey(key.id, key.secret) for key in ring.in_order(now()))
        return cls(keys, dict(ring.revoked))


class PresentRing:
    """The key ring of a file as it is now: read again when it has changed, or another key's time has come.

    Whoever works on an instance asks once and keeps what it got until the instance is done, so that no
    instance is marked with two keys. For any thread.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._seen = self._state()
        self._ring = FileKeyRing.load(path)
        self._looked_at = clock()

    def now(self) -> FileKeyRing:
        """The ring; while its file is no good, as it was last."""
        with self._lock:
            if self._clock() >= self._looked_at + _LOOK_S:
                self._looked_at = self._clock()
                self._look()
            return self._ring

    def _look(self) -> None:
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            self._ring = FileKeyRing.load(self._path)
        except KeyFileError as error:
            log.event(_LOG, "keys-not-reloaded", level=logging.ERROR, error=error)
        else:
            log.event(_LOG, "keys-reloaded", key_id=self._ring.current.id, count=len(self._ring.keys))

    def _state(self) -> object:
        """What is other when the ring is: the file, or how many of its times have come."""
        with contextlib.suppress(OSError, KeyFileError):
            facts = self._path.stat()
            ring = _load(self._path)
            return facts.st_ino, facts.st_mtime_ns, facts.st_size, ring.current(now())
        return None


def fingerprint(key: SiteKey) -> str:
    """The 8 hex digits that name a key in public, in the header of every image that it marked."""
    from blessmark.payload import crypto

    return crypto.fingerprint(key).hex()


# ---- what an operator does with a ring ----


def generate(path: Path, since: str = "") -> int:
    """Make a new key, in a new file or beside the keys that are there; returns its id, 1..255.

    It is current at once, or from `since` on (ISO 8601 UTC); the first of a ring always at once.

    Raises
    ------
    KeyFileError : the file cannot be used or written, all ids are taken, or another run is under way
    """
    if since and not re.fullmatch(_TIME, since):
        raise KeyFileError(f"{since} is no time; write it as 2027-02-15T00:00:00Z (UTC)")
    with _edited(path, new=True) as edit:
        made = _Entry(_next_id(path, edit.ring.ids), now(), secrets.token_bytes(_SECRET_BYTES))
        since = since if edit.ring.entries else ""
        edit.ring = edit.ring.with_current(made.id, since, now(), entries=(*edit.ring.entries, made))
    return made.id


def revoke(path: Path, identity: int) -> None:
    """Never write with a key again, and have everything that it marked say so.

    Raises
    ------
    KeyFileError : there is no such key, it is (or will be) current, or as `generate`
    """
    with _edited(path) as edit:
        ring = edit.ring
        if identity not in ring.ids:
            raise KeyFileError(f"{path} holds no key {identity}; dicom-node keys list shows what it holds")
        # a planned end is no reason to go on with a key that leaked
        if identity in {ring.current(now()), *(planned.id for planned in ring.planned(now()))}:
            raise KeyFileError(
                f"key {identity} is what {path} is written with, now or from a time to come;"
                " make another current first: dicom-node keys new"
            )
        if identity not in ring.revoked:
            edit.ring = replace(ring.settled(now()), revoked={**ring.revoked, identity: now()})


def describe(path: Path) -> tuple[KeyInfo, ...]:
    """What the file holds, in its order and without secrets; raises KeyFileError as `FileKeyRing.load`."""
    ring, moment = _load(path), now()
    planned = {each.id: each.since for each in ring.planned(moment)}
    return tuple(
        KeyInfo(
            entry.id,
            entry.created,
            entry.id == ring.current(moment),
            planned.get(entry.id, ""),
            ring.revoked.get(entry.id, ""),
        )
        for entry in ring.entries
    )


def text_of(path: Path) -> str:
    """The whole ring as text, secrets and all; for nothing but encrypting it (`escrow`)."""
    return _text(_load(path))


def merge(path: Path, text: str, source: str, *, renumber: bool = False) -> tuple[int, ...]:
    """Add the keys of another ring's text, and what is revoked there; the ids here of those that are new.

    A ring that does not exist becomes the other. In one that does the new keys are for reading. A key is
    known by its secret: images name it by its fingerprint, and its id is this ring's own. With `renumber` a
    key whose id stands for another one here gets a new id, as in the ring of a reader of two sites.

    Raises
    ------
    KeyFileError : the text is no ring, an id stands for another key here, or as `generate`
    """
    other = _parse(Path(source), text)
    with _edited(path, new=True) as edit:
        own = edit.ring
        ids = _ids_here(path, own, other, source, renumber=renumber)
        added = tuple(
            replace(entry, id=ids[entry.id]) for entry in other.entries if ids[entry.id] not in own.ids
        )
        revoked = {**{ids[identity]: at for identity, at in other.revoked.items()}, **own.revoked}
        base = own if own.entries else other
        edit.ring = _checked(path, _Ring((*own.entries, *added), base.currents, revoked))
    return tuple(entry.id for entry in added)


def _ids_here(path: Path, own: _Ring, other: _Ring, source: str, *, renumber: bool) -> dict[int, int]:
    """The id of each key of `other` -> its id in `own`, where it is or will be."""
    held = {entry.secret: entry.id for entry in own.entries}
    ids = {entry.id: held.get(entry.secret, entry.id) for entry in other.entries}
    clashing = [e.id for e in other.entries if e.secret not in held and e.id in own.ids]
    if clashing and not renumber:
        raise KeyFileError(
            f"key {clashing[0]} of {source} is another key than key {clashing[0]} of {path};"
            " keep them in two rings (--keys), or have it called otherwise here (--renumber)"
        )
    taken = own.ids | set(ids.values())
    for identity in clashing:
        ids[identity] = _next_id(path, taken)
        taken.add(ids[identity])
    return ids


# ---- what a ring is ----


@dataclass(frozen=True, slots=True)
class _Entry:
    id: int
    created: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Current:
    id: int
    #: "" is since ever
    since: str = ""


@dataclass(frozen=True, slots=True)
class _Ring:
    entries: tuple[_Entry, ...] = ()
    #: the earliest first; exactly one is since ever
    currents: tuple[_Current, ...] = ()
    revoked: Mapping[int, str] = field(default_factory=dict)

    @property
    def ids(self) -> set[int]:
        return {entry.id for entry in self.entries}

    def current(self, moment: str) -> int:
        """The id of the key that is written with at a moment."""
        return [each.id for each in self.currents if each.since <= moment][-1]

    def planned(self, moment: str) -> list[_Current]:
        """What becomes current after a moment."""
        return [each for each in self.currents if each.since > moment]

    def settled(self, moment: str) -> _Ring:
        """The ring without what is past: a clock that is put back must not make an old key current again."""
        return replace(self, currents=(_Current(self.current(moment)), *self.planned(moment)))

    def in_order(self, moment: str) -> list[_Entry]:
        """The current key, then the others, the newest first."""
        newest_first = list(reversed(self.entries))
        return sorted(newest_first, key=lambda entry: entry.id != self.current(moment))

    def with_current(self, identity: int, since: str, moment: str, entries: tuple[_Entry, ...]) -> _Ring:
        """The ring in which a key is current from `since` on, or at once; what was planned for later goes."""
        if not since or since <= moment:
            return replace(self, entries=entries, currents=(_Current(identity),))
        earlier = [each for each in self.planned(moment) if each.since < since]
        present = _Current(self.current(moment))
        return replace(self, entries=entries, currents=(present, *earlier, _Current(identity, since)))


def _load(path: Path) -> _Ring:
    return _parse(path, read_private(path))


def read_private(path: Path, made_by: str = "dicom-node keys new") -> str:
    """The text of a file of secrets, which the command `made_by` makes; raises as `private.read_text`."""
    return private.read_text(path, f"make it with: {made_by}")


def _parse(path: Path, text: str) -> _Ring:
    ring = _Ring()
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#", 1)[0].strip()
        if words:
            ring = _with_line(path, number, words, ring)
    return _checked(path, ring)


def _with_line(path: Path, number: int, words: str, ring: _Ring) -> _Ring:
    if match := _KEY.fullmatch(words):
        entry = _entry(path, number, match, ring.entries)
        return replace(ring, entries=(*ring.entries, entry))
    if match := _CURRENT.fullmatch(words):
        return _with_current_line(path, number, _Current(int(match["id"]), match["since"] or ""), ring)
    if match := _REVOKED.fullmatch(words):
        return replace(ring, revoked={**ring.revoked, int(match["id"]): match["at"]})
    raise KeyFileError(
        f"{path}:{number}: is none of `key ID CREATED SECRET`, `current ID`, `current ID from TIME`,"
        " `revoked ID TIME`"
    )


def _with_current_line(path: Path, number: int, current: _Current, ring: _Ring) -> _Ring:
    if any(each.since == current.since for each in ring.currents):
        raise KeyFileError(f"{path}:{number}: two keys cannot be current from the same time on")
    currents = sorted((*ring.currents, current), key=lambda each: each.since)
    return replace(ring, currents=tuple(currents))


def _entry(path: Path, line: int, match: re.Match[str], before: tuple[_Entry, ...]) -> _Entry:
    identity = int(match["id"])
    if identity not in _IDS:
        raise KeyFileError(f"{path}:{line}: a key id is 1 to 255")
    if identity in (entry.id for entry in before):
        raise KeyFileError(f"{path}:{line}: key {identity} is there twice; ids are never used again")
    return _Entry(identity, match["created"], bytes.fromhex(match["secret"]))


def _checked(path: Path, ring: _Ring) -> _Ring:
    """The ring, if everything in it fits together."""
    named = {each.id for each in ring.currents}
    if not ring.currents or ring.currents[0].since or not named <= ring.ids:
        raise KeyFileError(f"{path}: one line `current ID` must name one of the keys in the file")
    if not set(ring.revoked) <= ring.ids:
        raise KeyFileError(f"{path}: a line `revoked` names a key that is not in the file")
    moment = now()
    in_use = {ring.current(moment), *(each.id for each in ring.planned(moment))}
    if in_use & set(ring.revoked):
        raise KeyFileError(f"{path}: a key that is revoked cannot be current; name another one there")
    return ring


def _next_id(path: Path, taken: Collection[int]) -> int:
    """One above the highest, so that ids tell their age; a free one below once 255 is taken."""
    newer: list[int] = [*range(max(taken, default=0) + 1, _IDS.stop), *_IDS]
    free = next((identity for identity in newer if identity not in taken), None)
    if free is None:
        raise KeyFileError(f"{path} holds 255 keys, as many as there are ids; start a new site key ring")
    return free


# ---- writing ----


@dataclass(slots=True)
class _Edit:
    ring: _Ring


@contextlib.contextmanager
def _edited(path: Path, *, new: bool = False) -> Iterator[_Edit]:
    """What is in the file, to be changed; written whole at the end of the block, by one run at a time.

    With `new` the file need not exist.
    """
    if private.is_credential(path):
        raise KeyFileError(
            f"{path} is what the service manager hands over, and read-only;"
            " change the file that LoadCredential= names, and restart the node"
        )
    with exclusive_draft(path) as (handle, draft):
        edit = _Edit(_Ring() if new and not path.exists() else _load(path))
        before = edit.ring
        yield edit
        if edit.ring is not before:
            _write(handle, edit.ring)
            draft.replace(path)
            sync_folder(path.parent)


@contextlib.contextmanager
def exclusive_draft(path: Path) -> Iterator[tuple[int, Path]]:
    """A new private file beside `path` that only one run can hold; gone afterwards, one way or the other.

    The block may rename it to `path`.
    """
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
        _remove_own(handle, draft)
        os.close(handle)


def _remove_own(handle: int, draft: Path) -> None:
    """Remove a draft that was not renamed; what has its name since then is the draft of another run."""
    with contextlib.suppress(FileNotFoundError):
        if draft.stat().st_ino == os.fstat(handle).st_ino:
            draft.unlink()


def _write(handle: int, ring: _Ring) -> None:
    os.fchmod(handle, 0o600)
    with os.fdopen(os.dup(handle), "w", encoding="ascii") as file:
        file.write(_text(ring))
    os.fsync(handle)


def _text(ring: _Ring) -> str:
    keys = [f"key {entry.id} {entry.created} {entry.secret.hex()}\n" for entry in ring.entries]
    currents = [f"current {each.id}{f' from {each.since}' if each.since else ''}\n" for each in ring.currents]
    revoked = [f"revoked {identity} {at}\n" for identity, at in sorted(ring.revoked.items())]
    return "".join([_HEADER, *keys, *currents, *revoked])


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk; raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def now() -> str:
    """This moment, ISO 8601 UTC to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
