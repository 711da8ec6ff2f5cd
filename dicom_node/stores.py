"""Opens what the configuration keeps things in: the ledger, the spool, and the bells between them.

Everybody who needs one of them asks here, so that nobody else knows on how many machines the node runs.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import cache
from pathlib import Path

from dicom_node import private
from dicom_node.bells import Bells
from dicom_node.blobs.asking import Bucket
from dicom_node.blobs.directory import DirectoryStore
from dicom_node.blobs.port import BlobStore, Guard
from dicom_node.blobs.s3 import S3Store
from dicom_node.blobs.shared import SharedStore
from dicom_node.config import BlobKind, Blobs, Cluster, Config, Storage
from dicom_node.ledger import Ledger, address
from dicom_node.processes import boot_id
from dicom_node.spool import Spool, release_reserve


def open_ledger(
    config: Config, *, existing: bool = False, on_full: Callable[[], bool] | None = None
) -> Ledger:
    """The state of every job.

    Parameters
    ----------
    existing : neither make nor change it, for whoever looks in from outside
    on_full : called when its disk is full; returns whether that made room. None gives the reserve back

    Raises LedgerError; KeyFileError if there is no password to be had from the file that is to hold it.
    """
    storage = config.storage
    make_room = on_full or (lambda: release_reserve(storage.spool_dir))
    if config.cluster is None:
        return Ledger(storage.ledger_path, existing=existing, on_full=make_room)
    database = config.cluster.database
    return Ledger(
        address(database.url, _password(database.password_file)),
        existing=existing,
        holder=holder(config.cluster),
        pool=database.pool,
    )


def holder(cluster: Cluster) -> str:
    """Under which name this machine leases: its own, with what it does, for two may share a host."""
    return f"{socket.gethostname()}:{'+'.join(cluster.parts)}"


def _password(path: Path | None) -> str | None:
    remedy = "write the password into it, alone, and run chmod 600 on it"
    return None if path is None else private.read_text(path, remedy).strip()


def ledger_exists(config: Config) -> bool:
    """Whether a node was ever started with this configuration, so that there is a ledger to look into."""
    # only the server knows of its own
    return config.cluster is not None or config.storage.ledger_path.exists()


def open_spool(config: Config, *, reserve_bytes: int | None = None) -> BlobStore:
    """The bytes of every object; `reserve_bytes` takes the place of the configured. Raises SpoolError."""
    storage = config.storage
    reserve = storage.reserve_bytes if reserve_bytes is None else reserve_bytes
    if config.cluster is None:
        return Spool(storage.spool_dir, reserve, keep_s=storage.keep_s)

    @cache
    def guard() -> Guard:
        # few objects need it, and few processes ever meet one
        return open_ledger(config, existing=True)

    return _shared(config.cluster.blobs, storage, reserve, guard)


def _shared(blobs: Blobs, storage: Storage, reserve_bytes: int, guard: Callable[[], Guard]) -> SharedStore:
    if blobs.kind is BlobKind.DIRECTORY:
        assert blobs.directory is not None
        return DirectoryStore(blobs.directory, reserve_bytes, guard, storage.keep_s)
    assert blobs.bucket is not None
    bucket = Bucket(blobs.bucket, blobs.prefix, blobs.endpoint_url, blobs.region, blobs.credentials_file)
    return S3Store(
        bucket,
        storage.folder / "blobs",
        reserve_bytes,
        guard,
        storage.keep_s,
        cache_bytes=blobs.cache_mb * 1_000_000,
        boot=boot_id(),
    )


def claim_spool(spool: BlobStore, ledger: Ledger) -> None:
    """See that a shared store is the one that the ledger knows; a new one becomes it. Call once, at start.

    Raises SpoolError if it is another, or none at all: the empty folder below a mount that is not there.
    """
    if isinstance(spool, SharedStore):
        spool.claim(ledger.note_store(spool.claim(ledger.store_id())))


def open_bells(config: Config) -> Bells:
    """What wakes who rests; everybody who is to hear it is given the same."""
    return Bells(config.destinations)
