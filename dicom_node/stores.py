"""Opens what the configuration keeps things in: the ledger, the spool, and the bells between them.

Everybody who needs one of them asks here, so that nobody else knows on how many machines the node runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from dicom_node import private
from dicom_node.bells import Bells
from dicom_node.blobs.asking import Bucket
from dicom_node.blobs.directory import DirectoryStore
from dicom_node.blobs.port import BlobStore, Guard
from dicom_node.blobs.s3 import S3Store
from dicom_node.blobs.shared import SharedStore
from dicom_node.config import BlobKind, Blobs, Config, Storage
from dicom_node.errors import ConfigError, LedgerError, SpoolError
from dicom_node.ledger import Ledger, address
from dicom_node.processes import boot_id
from dicom_node.spool import Spool, release_reserve

#: how long a start waits for its name, and how long between two tries, seconds
_NAME_S, _TRY_S = 45.0, 0.5


def open_ledger(
    config: Config,
    *,
    existing: bool = False,
    on_full: Callable[[], bool] | None = None,
    even_moved: bool = False,
) -> Ledger:
    """The state of every job.

    Parameters
    ----------
    existing : neither make nor change it, for whoever looks in from outside
    on_full : called when its disk is full; returns whether that made room. None gives the reserve back
    even_moved : also one whose rows were moved, or have not all come

    Raises LedgerError; KeyFileError if there is no password to be had from the file that is to hold it.
    """
    storage = config.storage
    make_room = on_full or (lambda: release_reserve(storage.spool_dir))
    if config.cluster is None:
        if existing:
            return Ledger(storage.ledger_path, existing=True, even_moved=even_moved)
        return Ledger(storage.ledger_path, on_full=make_room, even_moved=even_moved)
    database = config.cluster.database
    place = address(database.url, _password(database.password_file))
    return Ledger(
        place,
        existing=existing,
        on_full=make_room,
        holder=holder(config),
        pool=database.pool,
        even_moved=even_moved,
    )


def holder(config: Config) -> str:
    """The name under which this node leases, the same after a restart and nobody else's.

    Two nodes on one machine have different folders.
    """
    folder = hashlib.sha256(str(config.storage.folder.absolute()).encode()).hexdigest()[:8]
    return f"{socket.gethostname()}-{folder}"


@contextlib.contextmanager
def under_its_name(config: Config, ledger: Ledger) -> Iterator[None]:
    """For as long as a node runs: nobody else of its cluster does under the same name.

    A start takes back the leases under its own name, and would take those of a node that works.

    Raises LedgerError while another one does; a name whose machine fell is free after half a minute.
    """
    if config.cluster is None:
        yield
        return
    name, ends_at = holder(config), time.monotonic() + _NAME_S
    while True:
        with ledger.lead(f"node {name}") as alone:
            if alone:
                yield
                return
        if time.monotonic() >= ends_at:
            raise LedgerError(
                f"another node of the cluster runs as {name}, which is made of host name and storage.folder; "
                "give each machine a host name of its own, or each node on this machine its own folder"
            )
        time.sleep(_TRY_S)


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
        # few objects need it, and few processes ever meet one; those of a move need it before its end
        return open_ledger(config, existing=True, even_moved=True)

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


@contextlib.contextmanager
def runs(config: Config) -> Iterator[None]:
    """For as long as a node runs on this folder; raises LedgerError while it is being moved."""
    with _locked(
        config, fcntl.LOCK_SH, "the node is being moved to a cluster; wait for the end of the command"
    ):
        yield


@contextlib.contextmanager
def stopped(config: Config) -> Iterator[None]:
    """For as long as no node may run on this folder; raises LedgerError while one does."""
    with _locked(config, fcntl.LOCK_EX, "the node runs; stop it, then give the same command again"):
        yield


@contextlib.contextmanager
def _locked(config: Config, kind: int, otherwise: str) -> Iterator[None]:
    path = config.storage.folder / "running"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise SpoolError(f"{path} cannot be written: {error.strerror}; check storage.folder") from error
    try:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LedgerError(f"{config.storage.folder}: {otherwise}") from error
        yield
    finally:
        os.close(handle)


def open_bells(config: Config) -> Bells:
    """What wakes who rests; everybody who is to hear it is given the same."""
    if config.cluster is None or config.cluster.broker is None:
        return Bells(config.destinations)
    try:
        from dicom_node.dispatch.carillon import Carillon
    except ImportError as error:
        raise ConfigError(("cluster.broker needs Celery; pip install 'dicom-node[cluster]'",)) from error
    return Carillon(config)
