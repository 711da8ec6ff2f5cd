"""Moves a node that ran alone into a cluster: its objects, then its ledger.

    1. copy    every object that a row needs goes into the shared store; the node may run meanwhile
    2. close   no node may run on the folder from here on; leases are taken back, what changed since is copied
    3. hand    both ledgers say that the rows are on their way; then all rows go, in one transaction
    4. check   every claim of the new ledger is held against the store, and the counts of both are compared
    5. open    the new ledger lets the machines of the cluster start; the old one lets no node start again

Rules that bind here:
1. Whatever is cut off, wherever, the same command goes on from there: objects that are there already are not
   copied again, rows are there all or not at all.
2. At no moment can both start: from step 3 on the old one refuses, and the new one refuses until step 5.
3. What the old node had lost, its start would have said: the rows say so before they go.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from dicom_node import housekeeping
from dicom_node.audit.trail import store_of
from dicom_node.blobs.shared import SharedStore
from dicom_node.config import Config
from dicom_node.errors import LedgerError, SpoolError, UsageError
from dicom_node.ledger import Claim, Counts, Ledger
from dicom_node.ledger.database import INCOMPLETE
from dicom_node.processes import boot_id
from dicom_node.spool import Spool
from dicom_node.stores import claim_spool, open_ledger, open_spool, stopped

_BATCH = 256
_CHUNK_BYTES = 1 << 20
#: objects on their way, or looked at, at the same time
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move came to: objects copied by it, claims checked, rows by state."""

    copied: int
    claims: int
    counts: Counts


@dataclass(slots=True)
class Copied:
    """How far the copying of objects is: looked at, copied, and how many bytes that was."""

    seen: int = 0
    objects: int = 0
    bytes: int = 0


class Move:
    """The move of one node.

    Parameters
    ----------
    old, new : configurations of the node alone, and of the cluster
    tell : called with how far it is, now and then

    Raises UsageError unless one has a section `cluster` and the other has none.
    """

    def __init__(self, old: Config, new: Config, tell: Callable[[Copied], object] = lambda _: None) -> None:
        if old.cluster is not None:
            raise UsageError("--from names a configuration with a section cluster; it is there already")
        if new.cluster is None:
            raise UsageError("--config names a configuration without a section cluster")
        if not old.storage.ledger_path.exists():
            raise LedgerError(f"there is no ledger in {old.storage.folder}; there is nothing to move")
        self._old, self._new, self._name = old, new, new.cluster.name
        self._tell = tell
        self._progress = Copied()

    def run(self) -> Moved:
        """Do all of it; raises LedgerError after step 1 while the old node runs."""
        with self._opened() as (old, new, spool, store):
            if old.moved_to() and new.moved_to() != INCOMPLETE and not _is_empty(new):
                raise LedgerError(f"the node was moved to the cluster {old.moved_to()} already")
            if not old.moved_to() and not _is_empty(new):
                raise LedgerError("the ledger of the cluster holds rows of its own; move into an empty one")
            claim_spool(store, new)
            self._copy(old, spool, store)
            with stopped(self._old):
                return self._hand_over(old, new, spool, store)

    def back_out(self) -> None:
        """Let the old node start again; raises LedgerError if the cluster has done anything since.

        The ledger of the cluster stays closed, for its rows are the old node's again; before another move
        somebody has to make it anew.
        """
        with self._opened() as (old, new, _, _), stopped(self._old):
            if not old.moved_to():
                raise LedgerError("the node was not moved; there is nothing to take back")
            if new.last_event_at() > old.last_event_at():
                raise LedgerError(
                    "the cluster has received, worked on or sent objects since the move; taken back, they "
                    "would be lost or sent twice; let it finish, and start the old node with an empty folder"
                )
            new.note_moved(INCOMPLETE)
            old.note_moved("")

    def _hand_over(self, old: Ledger, new: Ledger, spool: Spool, store: SharedStore) -> Moved:
        if _is_empty(new):
            old.recover()
            housekeeping.reconcile(spool, old, boot_id())
            self._give_up_changed(old, spool, self._copy(old, spool, store))
            new.note_moved(INCOMPLETE)
            old.note_moved(self._name)
            if self._old.audit.host is not None:  # whoever leads goes on with the trail where the node ended
                new.note_told(store_of(self._old).state().told_to)
            old.copy_to(new)
        claims = _check(new, store)
        before, after = old.counts(), new.counts()
        if before != after:
            raise LedgerError(
                "the ledger of the cluster holds other rows than that of the node; take the move back with "
                "--back-out, make the database anew, and begin again"
            )
        new.note_moved("")
        return Moved(self._progress.objects, claims, after)

    def _copy(self, old: Ledger, spool: Spool, store: SharedStore) -> list[str]:
        """Bring what rows need into the store; returns what has other bytes than it should."""
        self._progress.seen = 0
        changed: list[str] = []
        names = spool.names()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while batch := list(itertools.islice(names, _BATCH)):
                needed = sorted(old.needed(batch))
                for name, size in zip(
                    needed, pool.map(lambda each: _bring(spool, store, each), needed), strict=True
                ):
                    if size is None:
                        changed.append(name)
                    elif size:
                        self._progress.objects += 1
                        self._progress.bytes += size
                self._progress.seen += len(batch)
                self._tell(self._progress)
        return changed

    def _give_up_changed(self, old: Ledger, spool: Spool, changed: list[str]) -> None:
        """Have the rows say that their bytes are not what they were, as a start would."""
        names = frozenset(changed)
        for claim in [claim for claim in old.claims() if names and claim.blob in names]:
            old.lose(claim, "bytes-changed", remake=_can_be_made_again(claim, spool))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[Ledger, Ledger, Spool, SharedStore]]:
        spool, store = open_spool(self._old), open_spool(self._new)
        assert isinstance(spool, Spool)
        assert isinstance(store, SharedStore)
        with contextlib.ExitStack() as undo:
            old = open_ledger(self._old, existing=True, even_moved=True)
            undo.callback(old.close)
            new = open_ledger(self._new, even_moved=True)
            undo.callback(new.close)
            yield old, new, spool, store


def check(config: Config, *, lose: bool) -> tuple[int, int]:
    """Hold every claim of a cluster's ledger against its store; how many there are, and how many are lost.

    `lose`: the rows say so from now on, as they do after a start of a node that runs alone.
    """
    store = open_spool(config)
    assert isinstance(store, SharedStore)
    ledger = open_ledger(config, existing=True)
    try:
        claim_spool(store, ledger)
        claims = lost = 0
        for claim, whole in _held(ledger, store):
            claims, lost = claims + 1, lost + (not whole)
            if lose and not whole:
                ledger.lose(claim, "bytes-missing")
        return claims, lost
    finally:
        ledger.close()


def _check(new: Ledger, store: SharedStore) -> int:
    """Raise SpoolError unless the store has all that the ledger claims; returns how many claims there are."""
    claims = lost = 0
    for _, whole in _held(new, store):
        claims, lost = claims + 1, lost + (not whole)
    if lost:
        raise SpoolError(f"{lost} of {claims} objects are not in {store}; give the same command again")
    return claims


def _held(ledger: Ledger, store: SharedStore) -> Iterator[tuple[Claim, bool]]:
    claims = ledger.claims()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while batch := list(itertools.islice(claims, _BATCH)):
            yield from zip(batch, pool.map(lambda claim: _is_held(store, claim), batch), strict=True)


def _is_held(store: SharedStore, claim: Claim) -> bool:
    seen = store.look(claim.blob)
    return seen is not None and claim.size in (0, seen.size) and store.holds(claim.blob, seen.size)


def _bring(spool: Spool, store: SharedStore, name: str) -> int | None:
    """Put an object into the store; its size, 0 if it was there or is gone, None if it has changed."""
    seen = spool.look(name)
    if seen is None or store.holds(name, seen.size):
        return 0
    try:
        spool.verify(name)
    except SpoolError:
        return None if spool.look(name) is not None else 0
    with spool.open(name) as file:
        store.put(iter(lambda: file.read(_CHUNK_BYTES), b""))
    return seen.size


def _can_be_made_again(claim: Claim, spool: Spool) -> bool:
    """Whether what arrived is still whole, so that the cluster can make from it what was lost."""
    if claim.source == claim.blob:
        return False
    try:
        spool.verify(claim.source)
    except SpoolError:
        return False
    return True


def _is_empty(ledger: Ledger) -> bool:
    counts = ledger.counts()
    return not any(counts.instances.values())
