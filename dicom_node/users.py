"""User names and passcodes that peers prove who they are with (PS3.7 section D.3.3.7).

One line for each, in a file that only its owner may read:

    user ct1 scrypt:SALT:HASH       (hex digits)

Rules that bind here:
1. A passcode is kept as a salted hash that takes time and memory to try (scrypt, RFC 7914), never itself.
2. An unknown name costs as much as a wrong passcode, so that names cannot be told apart by the clock.
3. Whoever fails too often is not listened to for a while, so that guessing has no end, and costs us nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from dicom_node import private
from dicom_node.errors import KeyFileError

#: of scrypt: 16 MB and some 50 ms for each try
_COST, _BLOCK, _LANES, _SALT_BYTES, _HASH_BYTES = 1 << 14, 8, 1, 16, 32
#: passcodes that are tried at the same time
_AT_ONCE = 2
NAME = re.compile(r"[!-~]{1,64}")
_LINE = re.compile(r"user (?P<name>[!-~]{1,64}) scrypt:(?P<salt>[0-9a-f]{32}):(?P<hash>[0-9a-f]{64})")
#: failures of one address within so many seconds, after which it is not listened to
FAILURES, WITHIN_S = 5, 60.0
#: addresses remembered at most
_MOST_ADDRESSES = 10_000


def entry(name: str, passcode: str) -> str:
    """The line of a user. Raises KeyFileError for a name that would not be found again."""
    if not NAME.fullmatch(name):
        raise KeyFileError("a user name is 1 to 64 characters of ASCII without spaces")
    salt = secrets.token_bytes(_SALT_BYTES)
    return f"user {name} scrypt:{salt.hex()}:{_hashed(passcode.encode(), salt).hex()}"


class Users:
    """The file of users, read anew at every check: it is short, and changes at once count."""

    def __init__(self, path: Path) -> None:
        self._path = path
        #: each try takes 16 MB, and there may be as many peers as there are places
        self._turn = threading.BoundedSemaphore(_AT_ONCE)
        self._decoy = (secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_HASH_BYTES))

    def load(self) -> dict[str, tuple[bytes, bytes]]:
        """Name -> salt and hash. Raises KeyFileError: unreadable, open to others, malformed."""
        text = private.read_text(self._path, "make entries with: dicom-node access user NAME")
        found: dict[str, tuple[bytes, bytes]] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            words = line.split("#", 1)[0].strip()
            if match := _LINE.fullmatch(words):
                found[match["name"]] = (bytes.fromhex(match["salt"]), bytes.fromhex(match["hash"]))
            elif words:
                raise KeyFileError(f"{self._path}:{number}: is no `user NAME scrypt:SALT:HASH`")
        return found

    def knows(self, name: str, passcode: bytes) -> bool:
        """Whether this is the passcode of that name. Raises KeyFileError, as `load`."""
        salt, wanted = self.load().get(name, self._decoy)
        with self._turn:
            return hmac.compare_digest(_hashed(passcode, salt), wanted)


def _hashed(passcode: bytes, salt: bytes) -> bytes:
    return hashlib.scrypt(
        passcode, salt=salt, n=_COST, r=_BLOCK, p=_LANES, dklen=_HASH_BYTES, maxmem=64 << 20
    )


class Failures:
    """Who failed to prove who it is, and when; from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    def locked(self, address: str) -> bool:
        """Whether an address has failed too often of late."""
        with self._lock:
            return len(self._recent(address)) >= FAILURES

    def note(self, address: str) -> None:
        """An address has failed."""
        with self._lock:
            if len(self._times) >= _MOST_ADDRESSES:  # the one that has been quiet for longest
                del self._times[next(iter(self._times))]
            times = self._recent(address)
            times.append(self._clock())
            self._times.pop(address, None)
            self._times[address] = times

    def _recent(self, address: str) -> deque[float]:
        times = self._times.get(address, deque(maxlen=FAILURES))
        while times and times[0] < self._clock() - WITHIN_S:
            times.popleft()
        return times
