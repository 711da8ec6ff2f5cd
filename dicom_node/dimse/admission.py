"""Who may open an association, and how many at once.

    route  ->  the entry of `access.callers`: address, certificate  ->  a place  ->  user identity

Rules that bind here:
1. A peer is its calling AE title at its address: one that runs wild takes its own share and no more.
2. Too many is a transient rejection ("local limit exceeded"), which senders answer by trying again; who will
   never be let in is told so for good.
3. Whoever is known but comes from elsewhere, or proves to be somebody else, is told what a stranger is told.
"""

from __future__ import annotations

import contextlib
import fnmatch
import ipaddress
import logging
import threading
import time
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dicom_node import log
from dicom_node.config import Access, CalledAE, Caller, Config, Match
from dicom_node.dimse.board import marked
from dicom_node.dimse.secure import Proof
from dicom_node.errors import KeyFileError
from dicom_node.users import Failures, Users

_LOG = logging.getLogger(__name__)
#: how often, and after how many seconds, a place is looked for again where other processes give them out too:
#: one that is free may be said to be so a moment later
_LOOKS, _LOOK_S = 6, 0.05


@dataclass(frozen=True, slots=True)
class Rejection:
    """An A-ASSOCIATE-RJ: result, source and reason of PS3.8 table 9-21, and a word for the log."""

    result: int
    source: int
    reason: int
    word: str


UNKNOWN_CALLER = Rejection(1, 1, 3, "unknown-calling-ae")
UNKNOWN_CALLED = Rejection(1, 1, 7, "unknown-called-ae")
NOT_LISTED = Rejection(1, 1, 3, "caller-not-listed")
OTHER_ADDRESS = Rejection(1, 1, 3, "address-not-allowed")
OTHER_CERTIFICATE = Rejection(1, 1, 3, "certificate-not-allowed")
NO_IDENTITY = Rejection(1, 2, 1, "user-identity-missing")
OTHER_IDENTITY = Rejection(1, 2, 1, "user-identity-refused")
LOCKED = Rejection(2, 3, 1, "user-identity-locked")
TOO_MANY = Rejection(2, 3, 2, "too-many-associations")
TOO_MANY_OF_PEER = Rejection(2, 3, 2, "too-many-associations-of-this-peer")
REJECTIONS = (
    UNKNOWN_CALLER,
    UNKNOWN_CALLED,
    NOT_LISTED,
    OTHER_ADDRESS,
    OTHER_CERTIFICATE,
    NO_IDENTITY,
    OTHER_IDENTITY,
    LOCKED,
    TOO_MANY,
    TOO_MANY_OF_PEER,
)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks for an association."""

    calling_ae: str
    address: str


@dataclass(frozen=True, slots=True)
class Identity:
    """A user name and passcode that a peer offers (PS3.7 table D.3-14); neither is ever shown."""

    name: str
    passcode: bytes

    def __repr__(self) -> str:
        return "Identity()"


class Living(Hashable, Protocol):
    """An association, as far as it is counted here: as long as its thread runs."""

    def is_alive(self) -> bool:
        """Whether it still takes a place."""


class Beside(Protocol):
    """The places that other processes give out, as far as they are asked for here."""

    def held(self) -> contextlib.AbstractContextManager[None]:
        """Nobody else gives out a place meanwhile."""

    def others(self) -> Sequence[int]:
        """The marks of the peers that have a place elsewhere, once for each."""

    def take(self, marks: Sequence[int]) -> None:
        """Let the others know those that have a place here."""


class Failing(Protocol):
    """Who failed to prove who it is, and is not listened to for a while; as `users.Failures`."""

    def locked(self, address: str) -> bool:
        """Whether an address has failed too often of late."""

    def note(self, address: str) -> None:
        """An address has failed."""


def rejection(config: Config, calling_ae: str, called_ae: str) -> Rejection | None:
    """Why an association is not for us, or None when it is."""
    if config.node.accept_called_ae is CalledAE.OWN and called_ae != config.node.ae_title:
        return UNKNOWN_CALLED
    if config.route_for(calling_ae, called_ae) is not None or config.answers_commitment(calling_ae):
        return None
    known = any(Match(calling_ae=route.match.calling_ae).takes(calling_ae, "") for route in config.routes)
    return UNKNOWN_CALLED if known else UNKNOWN_CALLER


def stranger(access: Access, peer: Peer, proof: Proof | None) -> Rejection | None:
    """Why a peer may not come in by its address and certificate, or None when it may.

    `proof` is what it has proven over TLS, None in the clear.
    """
    if not access.callers:
        return None
    caller = access.caller(peer.calling_ae)
    if caller is None:
        return NOT_LISTED
    if caller.addresses and not any(_within(peer.address, network) for network in caller.addresses):
        return OTHER_ADDRESS
    if caller.certificates and not any(proof is not None and proof.has(name) for name in caller.certificates):
        return OTHER_CERTIFICATE
    return None


def _within(address: str, network: str) -> bool:
    try:
        given = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(given, ipaddress.IPv6Address) and given.ipv4_mapped is not None:
        given = given.ipv4_mapped
    return given in ipaddress.ip_network(network)


class Identities:
    """Who must prove a user name, and whether it did; `failures` are shared with other processes, if any."""

    def __init__(self, access: Access, failures: Failing | None = None) -> None:
        self._access = access
        self._users = None if access.users is None else Users(access.users)
        self._failures = failures or Failures()
        if self._users is not None:
            self._users.load()  # a node whose file is no good does not start

    def required(self, peer: Peer) -> bool:
        """Whether a peer comes in only with a user name."""
        return bool(self._caller(peer).users)

    def rejection(self, peer: Peer, offered: Identity | None) -> Rejection | None:
        """Why a peer may not come in by the identity that it offers, or None when it may. Takes its time."""
        wanted = self._caller(peer).users
        if not wanted:
            return None
        if self._failures.locked(peer.address):
            return LOCKED
        if offered is None:
            return NO_IDENTITY
        if self._proven(offered) and any(fnmatch.fnmatchcase(offered.name, name) for name in wanted):
            return None
        self._failures.note(peer.address)
        return OTHER_IDENTITY

    def _caller(self, peer: Peer) -> Caller:
        return self._access.caller(peer.calling_ae) or _ANYBODY

    def _proven(self, offered: Identity) -> bool:
        try:
            return self._users is not None and self._users.knows(offered.name, offered.passcode)
        except KeyFileError as error:
            log.event(_LOG, "users-not-read", level=logging.ERROR, error=error)
            return False


_ANYBODY = Caller(ae_title="*")


class Admission:
    """The places of a receiver, and of those beside it.

    Parameters
    ----------
    total : associations at once
    per_peer : of them, those of one peer
    beside : what other processes give out of the same places; None for a receiver that is alone
    """

    def __init__(self, total: int, per_peer: int, beside: Beside | None = None) -> None:
        self._total = total
        self._per_peer = per_peer
        self._beside = beside
        self._admitted: dict[Living, Peer] = {}
        self._lock = threading.Lock()

    def resize(self, total: int, per_peer: int) -> None:
        """Have more or fewer places from now on; nobody loses one that is taken."""
        with self._lock:
            self._total, self._per_peer = total, per_peer

    def admit(self, association: Living, peer: Peer) -> Rejection | None:
        """Give an association a place until it ends, or say why there is none."""
        verdict = self._admit(association, peer)
        for _ in range(_LOOKS if self._beside is not None else 0):
            if verdict is None:
                break
            time.sleep(_LOOK_S)
            verdict = self._admit(association, peer)
        return verdict

    def tidy(self) -> None:
        """Let those beside know of places that have become free."""
        with self._lock:
            if self._beside is not None and not all(other.is_alive() for other in self._admitted):
                with self._beside.held():
                    self._forget_the_dead()
                    self._beside.take(self._marks())

    def _admit(self, association: Living, peer: Peer) -> Rejection | None:
        beside = self._beside
        with self._lock, contextlib.nullcontext() if beside is None else beside.held():
            self._forget_the_dead()
            taken = self._marks() + ([] if beside is None else list(beside.others()))
            if len(taken) >= self._total:
                return TOO_MANY
            if Counter(taken)[_mark(peer)] >= self._per_peer:
                return TOO_MANY_OF_PEER
            self._admitted[association] = peer
            if beside is not None:
                beside.take(self._marks())
        return None

    def _forget_the_dead(self) -> None:
        self._admitted = {other: whose for other, whose in self._admitted.items() if other.is_alive()}

    def _marks(self) -> list[int]:
        return [_mark(peer) for peer in self._admitted.values()]


def _mark(peer: Peer) -> int:
    return marked(peer.calling_ae, peer.address)
