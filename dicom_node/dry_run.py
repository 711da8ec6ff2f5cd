"""What would keep a configuration from working on this machine, found before the node is started with it.

Each check looks at one thing that the file names, and says what it found; none changes anything. Peers are
asked, and sent nothing.
"""

from __future__ import annotations

import datetime
import enum
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from blessmark.errors import WatermarkError
from dicom_node.config import CREDENTIAL, Config, Destination, Tls, Transcode
from dicom_node.errors import NodeError, PeerError, TlsError

_PEERS_AT_ONCE = 16
_SUCCESS = 0x0000


class Grade(enum.StrEnum):
    """How much a finding matters."""

    GOOD = "good"
    WARNING = "warning"  #: works, though perhaps not as meant
    PROBLEM = "problem"  #: does not work


@dataclass(frozen=True, slots=True)
class Found:
    """What one check found: the thing it looked at, how that is, and what to do about it."""

    what: str
    grade: Grade
    said: str


def dry_run(config: Config) -> Iterator[Found]:
    """Check keys, disk, ledger, a cluster's servers, certificates, users, ports, networks, destinations."""
    yield _guarded("keys", lambda: _keys(config))
    yield _guarded("storage", lambda: _storage(config))
    yield _guarded("ledger", lambda: _ledger(config))
    if config.cluster is not None:
        yield _guarded("cluster.blobs", lambda: _blobs(config))
    if config.cluster is not None and config.cluster.broker is not None:
        yield _guarded("cluster.broker", lambda: _broker(config))
    if config.tls != Tls():
        yield _guarded("tls", lambda: _tls(config))
    if config.access.users is not None:
        yield _guarded("access.users", lambda: _users(config))
    for what, bind, port in _listening(config):
        yield _guarded(what, lambda bind=bind, port=port, what=what: _port(what, bind, port))  # type: ignore[misc]
    yield from _networks(config)
    yield from _destinations(config)


def _guarded(what: str, check: Callable[[], Found]) -> Found:
    """What a check found; an error of ours is a finding here, with its own words."""
    try:
        return check()
    except (NodeError, WatermarkError) as error:
        return Found(what, Grade.PROBLEM, str(error))
    except OSError as error:
        return Found(what, Grade.PROBLEM, f"{error.strerror or type(error).__name__}")


def _keys(config: Config) -> Found:
    from dicom_node import keys

    if str(config.keys.ring).startswith(CREDENTIAL):
        return Found(
            "keys", Grade.WARNING, f"{config.keys.ring} is handed over at the start; not seen from here"
        )
    ring = keys.describe(config.keys.ring)
    current = next(key for key in ring if key.current)
    said = f"{len(ring)} in the ring; {current.id} of {current.created} is current"
    if config.keys.signing is None or not any(config.signs(route) for route in config.routes):
        return Found("keys", Grade.GOOD, said)
    from dicom_node import signers

    signers.load(config.keys.signing)
    name = next(signer.name for signer in signers.describe(config.keys.signing) if signer.current)
    return Found("keys", Grade.GOOD, f"{said}; signs with {name}")


def _storage(config: Config) -> Found:
    folder = _nearest(config.storage.folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        said = f"{folder} cannot be written by this user; run the check as the service's user"
        return Found("storage", Grade.PROBLEM, said)
    free, reserve = shutil.disk_usage(folder).free, config.storage.reserve_bytes
    amount = f"{free / 1e9:.1f} GB free at {folder}"
    if free <= reserve:
        return Found("storage", Grade.PROBLEM, f"{amount}, less than storage.reserve_mb: objects are refused")
    if free <= 2 * reserve:
        return Found("storage", Grade.WARNING, f"{amount}, less than twice storage.reserve_mb")
    return Found("storage", Grade.GOOD, amount)


def _nearest(folder: Path) -> Path:
    """The folder itself, or what is there of the way to it."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _ledger(config: Config) -> Found:
    from dicom_node.stores import ledger_exists, open_ledger

    if not ledger_exists(config):
        return Found("ledger", Grade.GOOD, "none yet; the first start makes it")
    ledger = open_ledger(config, existing=True)
    try:
        ledger.answers()
    finally:
        ledger.close()
    place = "the database" if config.cluster is not None else str(config.storage.ledger_path)
    return Found("ledger", Grade.GOOD, f"{place} answers")


def _blobs(config: Config) -> Found:
    """Whether the store of the cluster answers, and is one; a node's start makes what is not there."""
    from dicom_node.blobs.shared import SharedStore
    from dicom_node.stores import open_spool

    store = open_spool(config)
    assert isinstance(store, SharedStore)
    if store.is_claimed():
        return Found("cluster.blobs", Grade.GOOD, f"{store} answers, and is a cluster's")
    said = f"{store} is no cluster's yet; right before the first start, else its file system is not mounted"
    return Found("cluster.blobs", Grade.WARNING, said)


def _broker(config: Config) -> Found:
    cluster = config.cluster
    assert cluster is not None
    assert cluster.broker is not None
    from dicom_node.dispatch.application import send_queue, work_queue
    from dicom_node.dispatch.inspection import inspect

    names = [work_queue(cluster.name), *(send_queue(cluster.name, name) for name in config.destinations)]
    there = inspect(cluster.broker, names)
    made = "" if there == len(names) else "; the first node makes the others"
    return Found("cluster.broker", Grade.GOOD, f"answers, and has {there} of {len(names)} queues{made}")


def _tls(config: Config) -> Found:
    from dicom_node.dimse import secure

    if config.node.tls_port is not None:
        secure.server_context(config.tls, config.node.tls_clients)
    if config.tls.ca is not None:
        secure.client_context(config.tls)
    now = datetime.datetime.now(datetime.UTC)
    left = {name: (end - now).days for name, end in secure.ends(config.tls).items()}
    said = ", ".join(f"{name} ends in {days} days" for name, days in left.items())
    worst = min(left.values(), default=secure.SOON_DAYS)
    grade = Grade.PROBLEM if worst < 0 else Grade.WARNING if worst < secure.SOON_DAYS else Grade.GOOD
    return Found("tls", grade, said)


def _users(config: Config) -> Found:
    from dicom_node.users import Users

    assert config.access.users is not None
    return Found("access.users", Grade.GOOD, f"{len(Users(config.access.users).load())} users")


def _listening(config: Config) -> Iterator[tuple[str, str, int]]:
    if config.node.port is not None:
        yield "node.port", config.node.bind, config.node.port
    if config.node.tls_port is not None:
        yield "node.tls_port", config.node.bind, config.node.tls_port
    if config.http.port is not None:
        yield "http.port", config.http.bind, config.http.port


def _port(what: str, bind: str, port: int) -> Found:
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((bind, port))
        except PermissionError:
            said = f"{bind}:{port} needs the right to open ports below 1024 (docs/install.md)"
            return Found(what, Grade.PROBLEM, said)
        except OSError as error:
            said = f"{bind}:{port} is not free ({error.strerror}); if the node runs already, all is well"
            return Found(what, Grade.WARNING, said)
    return Found(what, Grade.GOOD, f"{bind}:{port} is free")


def _networks(config: Config) -> Iterator[Found]:
    """The segmenters of the file with what identifies their weights, which is part of every watermark."""
    rules = config.watermark.segmenter_rules
    for name in dict.fromkeys((config.watermark.segmenter, *(rule.use for rule in rules))):
        yield _guarded(f"segmenter {name}", lambda name=name: _segmenter(name))  # type: ignore[misc]


def _segmenter(name: str) -> Found:
    from blessmark.segment import segmenter

    return Found(f"segmenter {name}", Grade.GOOD, f"is {segmenter(name).id}")


def _destinations(config: Config) -> Iterator[Found]:
    names = list(config.destinations)
    with ThreadPoolExecutor(_PEERS_AT_ONCE) as pool:
        yield from pool.map(lambda name: _destination(name, config), names)


def _destination(name: str, config: Config) -> Found:
    from dicom_node.dimse.probe import probe

    what, destination = f"destination {name}", config.destinations[name]
    try:
        answer = probe(name, destination, config.node.ae_title, config.tls)
    except (PeerError, TlsError) as error:
        said = str(error).removeprefix(f"{what} ({destination.ae_title}) ")
        return Found(what, Grade.PROBLEM, f"{destination.ae_title} {said}")
    doubts = list(_doubts(answer.echo, answer.refused, destination, uncompressed=answer.uncompressed_only))
    if doubts:
        return Found(what, Grade.WARNING, "; ".join(doubts))
    return Found(what, Grade.GOOD, "answers C-ECHO and takes every common kind of object")


def _doubts(
    echo: int | None, refused: tuple[str, ...], destination: Destination, *, uncompressed: bool
) -> Iterator[str]:
    if echo is None:
        yield "does not answer C-ECHO"
    elif echo != _SUCCESS:
        yield f"answers C-ECHO with {echo:04X}"
    if refused:
        yield f"does not take {', '.join(refused)}"
    if uncompressed:
        converted = destination.transcode is Transcode.LOSSLESS
        fate = "are sent uncompressed" if converted else "become dead letters (transcode: never)"
        yield f"takes nothing compressed: such objects {fate}"
