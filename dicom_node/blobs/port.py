"""What the node asks of whatever keeps its objects, and what a shared store asks of the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, Protocol

from dicom_node.spool import Blob, Chunk, Seen, Writer


class BlobStore(Protocol):
    """Immutable objects under the SHA-256 of their bytes; for every thread and process of the node.

    Every method may raise SpoolError; its kind BlobsUnavailable says that the same may work later.
    """

    def adopt(self, reserve_bytes: int, keep_s: float) -> None:
        """Keep another reserve from now on, and objects for another time."""

    def put(self, chunks: Iterable[Chunk]) -> Blob:
        """Keep the concatenation of `chunks`; on return no crash of any machine takes it away."""

    def put_output(self, chunks: Iterable[Chunk]) -> Blob:
        """As `put`, for what was made of an object here; SpoolFull if it would take the room of arrivals."""

    def writer(self) -> Writer:
        """A new object, to be written piece by piece; `keep` puts it."""

    def path(self, name: str) -> Path:
        """A file of this machine that holds the object; of a remote store it is fetched and checked first."""

    def open(self, name: str) -> BinaryIO:
        """The object for reading."""

    def look(self, name: str) -> Seen | None:
        """Size and age of an object without reading it; None if it is absent for certain."""

    def verify(self, name: str) -> None:
        """Raise SpoolError unless the bytes in the store still have the hash that is their name."""

    def remove(self, name: str, *, keep_s: float | None = None) -> bool:
        """Remove an object that no row needs; False if it is absent or was put too recently to be sure."""

    def discard(self, needed: Callable[[list[str]], frozenset[str]], *, keep_s: float | None = None) -> int:
        """Remove objects older than `keep_s` that `needed` does not claim; returns how many.

        One call may look at a part of a large store; the next goes on from there.
        """

    def sweep(self) -> int:
        """Remove what crashed writers of this node left; returns how many files. Call once, at start."""

    def check_room(self) -> None:
        """Raise SpoolFull if arrivals are to stop."""

    def is_short(self) -> bool:
        """Whether objects will soon be refused, and `discard` would help."""

    def check_room_to_work(self, name: str) -> None:
        """Raise SpoolFull unless there is room for an output as large as this object."""

    def free_bytes(self) -> int:
        """Bytes that may still be written where objects are written first."""

    def used_bytes(self) -> int:
        """Bytes of all objects; of a large shared store an estimate."""

    def release_reserve(self) -> bool:
        """Give the space of the reserve file back; whether there was one."""


class Guard(Protocol):
    """What a shared store has the ledger remember, so that nothing is removed while it arrives again.

    A name is pinned or doomed, never both; whoever comes second is turned away.
    """

    def pin(self, blob: str, for_s: float) -> bool:
        """Keep everybody from removing an object for so long; False while somebody is removing it."""

    def doom(self, blobs: Iterable[str], for_s: float) -> frozenset[str]:
        """Announce that these are being removed; returns those that nobody has pinned or doomed."""

    def spare(self, blobs: Iterable[str]) -> None:
        """End the announcement: they are gone, or stay."""
