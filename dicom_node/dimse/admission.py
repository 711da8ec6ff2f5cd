"""Who may open an association, and how many at once.

Rules that bind here:
1. A peer is its calling AE title at its address: one that runs wild takes its own share and no more.
2. Too many is a transient rejection ("local limit exceeded"), which senders answer by trying again; who will
   never be let in is told so for good.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

from dicom_node.config import CalledAE, Config, Match


@dataclass(frozen=True, slots=True)
class Rejection:
    """An A-ASSOCIATE-RJ: result, source and reason of PS3.8 table 9-21, and a word for the log."""

    result: int
    source: int
    reason: int
    word: str


UNKNOWN_CALLER = Rejection(1, 1, 3, "unknown-calling-ae")
UNKNOWN_CALLED = Rejection(1, 1, 7, "unknown-called-ae")
TOO_MANY = Rejection(2, 3, 2, "too-many-associations")
TOO_MANY_OF_PEER = Rejection(2, 3, 2, "too-many-associations-of-this-peer")
REJECTIONS = (UNKNOWN_CALLER, UNKNOWN_CALLED, TOO_MANY, TOO_MANY_OF_PEER)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks for an association."""

    calling_ae: str
    address: str


class Living(Hashable, Protocol):
    """An association, as far as it is counted here: as long as its thread runs."""

    def is_alive(self) -> bool:
        """Whether it still takes a place."""


def rejection(config: Config, calling_ae: str, called_ae: str) -> Rejection | None:
    """Why an association is not for us, or None when it is."""
    if config.node.accept_called_ae is CalledAE.OWN and called_ae != config.node.ae_title:
        return UNKNOWN_CALLED
    if config.route_for(calling_ae, called_ae) is not None or config.answers_commitment(calling_ae):
        return None
    known = any(Match(calling_ae=route.match.calling_ae).takes(calling_ae, "") for route in config.routes)
    return UNKNOWN_CALLED if known else UNKNOWN_CALLER


class Admission:
    """The places of a receiver.

    Parameters
    ----------
    total : associations at once
    per_peer : of them, those of one peer
    """

    def __init__(self, total: int, per_peer: int) -> None:
        self._total = total
        self._per_peer = per_peer
        self._admitted: dict[Living, Peer] = {}
        self._lock = threading.Lock()

    def admit(self, association: Living, peer: Peer) -> Rejection | None:
        """Give an association a place until it ends, or say why there is none."""
        with self._lock:
            self._admitted = {other: whose for other, whose in self._admitted.items() if other.is_alive()}
            if len(self._admitted) >= self._total:
                return TOO_MANY
            if Counter(self._admitted.values())[peer] >= self._per_peer:
                return TOO_MANY_OF_PEER
            self._admitted[association] = peer
        return None
