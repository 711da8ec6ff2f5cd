"""The signing keys of a node, in a file of their own, and the public keys that readers trust.

    signing 1 2026-01-31T09:00:00Z 7f3c...   (64 hex digits)
    signing 2 2027-01-31T09:00:00Z 91ab...
    revoked 1 2027-02-01T09:00:00Z
    current 2

A ring is copied to every reader; this file stays where images are signed, or every reader could sign. What
goes out is text: public keys as PEM (RFC 7468, RFC 8410), or as a line of hexadecimal digits.

Rules that bind here are those of `keys`; besides, an id is never used again, and nothing ends a revocation.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from blessmark.payload.signature import PublicKey, SigningKey
from dicom_node import keys
from dicom_node.errors import KeyFileError

_MADE_BY = "dicom-node keys new-signing"
_SEED_BYTES = 32
_ENTRY = re.compile(r"signing (?P<id>\d{1,5}) (?P<created>\S{1,40}) (?P<seed>[0-9a-f]{64})")
_REVOKED = re.compile(r"revoked (?P<id>\d{1,5}) (?P<when>\S{1,40})")
_CURRENT = re.compile(r"current (?P<id>\d{1,5})")
_HEADER = """\
# Signing keys of this node. Whoever reads this file can sign images in its name.
# Keep it at mode 0600 on the machine that signs; readers need the public halves only:
# dicom-node keys export-public
"""
_PEM = re.compile(r"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.S)
#: in front of a PEM block, or behind the digits of a raw key
_REVOKED_MARK = re.compile(r"^# revoked\b", re.M)
_RAW = re.compile(r"(?P<key>[0-9a-fA-F]{64})(?P<revoked> revoked\b.*)?")


@dataclass(frozen=True, slots=True)
class Signer:
    """A signing key without its secret; times are ISO 8601 UTC, `revoked` is "" for one that is trusted."""

    id: int
    created: str
    public: PublicKey
    current: bool
    revoked: str = ""

    @property
    def name(self) -> str:
        """The id by which readers know the key: 16 hex digits."""
        return self.public.id.hex()


def generate(path: Path) -> Signer:
    """Make a new current signing key, in a new file or beside those that are there.

    Raises
    ------
    KeyFileError : the file cannot be used or written, or another run is under way
    """
    with keys.exclusive_draft(path) as (handle, draft):
        old = _load(path) if path.exists() else _File((), {}, 0)
        number = max((entry.id for entry in old.entries), default=0) + 1
        new = _Entry(number, keys.now(), secrets.token_bytes(_SEED_BYTES))
        _write(path, handle, draft, _File((*old.entries, new), old.revoked, number))
    return describe(path)[-1]


def revoke(path: Path, number: int) -> Signer:
    """Note that key `number` is trusted no more; a node that has it as its current one stops signing.

    Raises
    ------
    KeyFileError : as for `generate`, or there is no such key
    """
    with keys.exclusive_draft(path) as (handle, draft):
        old = _load(path)
        if number not in (entry.id for entry in old.entries):
            raise KeyFileError(f"{path} holds no signing key {number}; see: dicom-node keys list")
        _write(path, handle, draft, _File(old.entries, {number: keys.now(), **old.revoked}, old.current))
    return next(signer for signer in describe(path) if signer.id == number)


def describe(path: Path) -> tuple[Signer, ...]:
    """What the file holds, oldest first and without secrets; raises KeyFileError."""
    held = _load(path)
    return tuple(
        Signer(
            entry.id,
            entry.created,
            PublicKey(SigningKey(entry.seed).public, entry.id in held.revoked),
            entry.id == held.current,
            held.revoked.get(entry.id, ""),
        )
        for entry in held.entries
    )


def load(path: Path) -> SigningKey:
    """The key that new images are signed with.

    Raises
    ------
    KeyFileError : absent, unreadable, readable by others, malformed, or the current key is revoked
    """
    held = _load(path)
    if held.current in held.revoked:
        raise KeyFileError(f"{path}: the current signing key {held.current} is revoked; run: {_MADE_BY}")
    return next(SigningKey(entry.seed) for entry in held.entries if entry.id == held.current)


def pem(signer: Signer) -> str:
    """The public half as PEM, with lines in front of it that say which key it is."""
    public = Ed25519PublicKey.from_public_bytes(signer.public.raw)
    text = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")
    said = f"# dicom-node signing key {signer.name}, number {signer.id}, made {signer.created}\n"
    return said + (f"# revoked {signer.revoked}\n" if signer.revoked else "") + text


def raw(signer: Signer) -> str:
    """The public half as one line of 64 hex digits."""
    return signer.public.raw.hex() + (f" revoked {signer.revoked}" if signer.revoked else "") + "\n"


def trusted(paths: Iterable[Path]) -> tuple[PublicKey, ...]:
    """The public keys of all these files; a key that any of them calls revoked is.

    Raises
    ------
    KeyFileError : a file cannot be read, or holds something else or nothing
    """
    found: dict[bytes, PublicKey] = {}
    for path in paths:
        for key in _public_keys(path):
            earlier = found.get(key.raw)
            found[key.raw] = PublicKey(key.raw, key.revoked or (earlier is not None and earlier.revoked))
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class _Entry:
    id: int
    created: str
    seed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _File:
    entries: tuple[_Entry, ...]
    revoked: dict[int, str]
    current: int


def _load(path: Path) -> _File:
    entries: list[_Entry] = []
    revoked: dict[int, str] = {}
    current = 0
    for number, line in enumerate(keys.read_private(path, _MADE_BY).splitlines(), start=1):
        words = line.split("#", 1)[0].strip()
        if match := _ENTRY.fullmatch(words):
            entries.append(_Entry(int(match["id"]), match["created"], bytes.fromhex(match["seed"])))
        elif match := _REVOKED.fullmatch(words):
            revoked[int(match["id"])] = match["when"]
        elif (match := _CURRENT.fullmatch(words)) and not current:
            current = int(match["id"])
        elif words:
            said = "neither `signing ID CREATED SECRET`, `revoked ID TIME` nor the one `current ID`"
            raise KeyFileError(f"{path}:{number}: {said}")
    ids = [entry.id for entry in entries]
    if len(set(ids)) < len(ids):
        raise KeyFileError(f"{path}: a signing key is there twice; ids are never used again")
    if current not in ids:
        raise KeyFileError(f"{path}: `current ID` must name one of the keys in the file")
    return _File(tuple(entries), revoked, current)


def _write(path: Path, handle: int, draft: Path, held: _File) -> None:
    lines = [f"signing {entry.id} {entry.created} {entry.seed.hex()}\n" for entry in held.entries]
    lines += [f"revoked {number} {when}\n" for number, when in sorted(held.revoked.items())]
    with os.fdopen(os.dup(handle), "w", encoding="ascii") as file:
        file.write("".join([_HEADER, *lines, f"current {held.current}\n"]))
    os.fsync(handle)
    draft.replace(path)
    keys.sync_folder(path.parent)


def _public_keys(path: Path) -> list[PublicKey]:
    try:
        text = path.read_text("ascii")
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise KeyFileError(f"{path} holds no public keys: it is not plain ASCII text") from error
    found = [*_from_pem(path, text), *_from_lines(text)]
    if not found:
        raise KeyFileError(
            f"{path} holds no Ed25519 public key; write one with: dicom-node keys export-public"
        )
    return found


def _from_pem(path: Path, text: str) -> list[PublicKey]:
    found, at = [], 0
    for match in _PEM.finditer(text):
        try:
            key = load_pem_public_key(match[0].encode("ascii"))
        except ValueError as error:
            raise KeyFileError(f"{path}: a block is no public key; export it again") from error
        if not isinstance(key, Ed25519PublicKey):
            raise KeyFileError(f"{path}: holds a public key of another kind; Ed25519 is needed")
        said = _REVOKED_MARK.search(text, at, match.start())
        found.append(PublicKey(key.public_bytes_raw(), said is not None))
        at = match.end()
    return found


def _from_lines(text: str) -> list[PublicKey]:
    matches = (_RAW.fullmatch(line.strip()) for line in text.splitlines())
    return [
        PublicKey(bytes.fromhex(match["key"]), match["revoked"] is not None)
        for match in matches
        if match is not None
    ]
