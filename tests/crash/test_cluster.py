"""Several nodes as one, and every process of them killed on the way, those of the servers too."""

from __future__ import annotations

import os
import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from benchmarks.buckets import S3Server
from benchmarks.several import SPREAD, Cluster, installed
from benchmarks.stand import Peer, free_port, objects, wait_until
from benchmarks.wire import head_of
from benchmarks.witnesses import Account, Archive, Modality, account, data_set_digest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.interop,
    pytest.mark.skipif(not installed(), reason="sh tools/install_peers.sh postgresql rabbitmq-server"),
]

_OBJECTS, _KILLS, _ASSOCIATIONS = 2000, 20, 2
_LIMIT_S = 240.0


@pytest.fixture(params=["directory", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mapping[str, object] | None]:
    """The section of that name; None is a directory."""
    if request.param == "directory":
        yield None
        return
    server = S3Server()
    try:
        bucket = server.bucket("objects", tmp_path)
        yield {
            "kind": "s3",
            "bucket": bucket.name,
            "endpoint_url": bucket.endpoint_url,
            "region": bucket.region,
            "credentials_file": str(bucket.credentials_file),
        }
    finally:
        server.stop()


def test_what_was_acknowledged_arrives_whoever_is_killed(
    tmp_path: Path,
    blobs: Mapping[str, object] | None,
    record_property: Callable[[str, object], None],
) -> None:
    """Two receivers, two workers, two forwarders, two who may lead, twenty kills; the servers once each.

    A kill leaves at most one object per association of a forwarder whose answer is not on record; so does the
    death of the database, for every association there is.
    """
    seed = int(os.environ.get("DICOM_NODE_SEED") or secrets.randbelow(1 << 32))
    print(f"seed {seed}: DICOM_NODE_SEED={seed} repeats the victims")
    count = int(os.environ.get("DICOM_NODE_OBJECTS") or _OBJECTS)
    paths = objects(tmp_path / "in", count)
    archives = {name: Archive(free_port()).start() for name in ("one", "two")}
    peers = {name: Peer(archive.port, _ASSOCIATIONS) for name, archive in archives.items()}
    cluster = Cluster(tmp_path, peers, blobs=blobs)
    started = time.monotonic()
    with cluster.running():
        ports = [member.port for member in cluster.of("receive")]
        senders = [Modality(ports[number % 2], paths[number::4]) for number in range(4)]
        for one in senders:
            one.start()
        try:
            killed = _kill_at_random(cluster, senders, archives, count, random.Random(seed))
            _await_everything(cluster, senders, archives, count)
            ready = cluster.metric("dicom_node_instances", state="ready")
        finally:
            for one in senders:
                one.giving_up.set()
        _all_well(cluster)
        stopped = [member.terminate() for member in cluster.members.values()]
    print("killed:", *killed)
    bound = _ASSOCIATIONS * (2 * killed.count("database") + sum("forward" in name for name in killed))
    for name, archive in archives.items():
        books = _complete(paths, senders, archive, bound)
        print(f"{name}: {books}")
        record_property(name, str(books))
    print(f"{time.monotonic() - started:.0f} s")
    assert ready == count
    assert stopped == [0] * len(cluster.members)


def _all_well(cluster: Cluster) -> None:
    """Wait for the last who were killed, which may still be starting.

    Who met the death of the database at its start has ended, and systemd would have started it again.
    """
    for member in cluster.members.values():
        if not member.running:
            member.begin()
        member.await_health()


def _await_everything(
    cluster: Cluster, senders: Sequence[Modality], archives: Mapping[str, Archive], count: int
) -> None:
    """Until everything is acknowledged, has arrived, and is on record."""
    wait_until(lambda: len(_acknowledged(senders)) == count, _LIMIT_S, "everything acknowledged")
    for name, archive in archives.items():
        wait_until(lambda a=archive: len(a.digests()) == count, _LIMIT_S, f"everything at {name}")
    wait_until(
        lambda: cluster.metric("dicom_node_deliveries", state="delivered") == 2 * count, 60, "the books"
    )


def _complete(paths: Sequence[Path], senders: Sequence[Modality], archive: Archive, bound: int) -> Account:
    """The books of an archive that has everything as it was sent, and at most `bound` of it once more."""
    books = account(len(paths), _acknowledged(senders), archive)
    assert (books.accepted, books.never, books.changed) == (len(paths), 0, 0), books
    assert books.resent <= bound, books
    contents = {uid: found[0] for uid, found in archive.digests().items()}
    assert contents == {head_of(path).sop_instance_uid: data_set_digest(path) for path in paths}
    return books


def _kill_at_random(
    cluster: Cluster,
    senders: Sequence[Modality],
    archives: Mapping[str, Archive],
    count: int,
    rng: random.Random,
) -> list[str]:
    """Kill whoever it may be at twenty moments of progress; returns who died."""
    victims = [rng.choice(list(SPREAD)) for _ in range(_KILLS - 2)]
    for server in ("database", "broker"):
        victims.insert(rng.randrange(len(victims)), server)
    for moment, victim in zip(
        sorted(rng.sample(range(1, int(0.95 * 3 * count)), _KILLS)), victims, strict=True
    ):
        wait_until(lambda m=moment: _progress(senders, archives) >= m, _LIMIT_S, f"step {moment}")
        cluster.kill(victim)
    return victims


def _progress(senders: Sequence[Modality], archives: Mapping[str, Archive]) -> int:
    arrived = sum(len(archive.attempts) for archive in archives.values())
    return sum(len(one.acknowledged) for one in senders) + arrived


def _acknowledged(senders: Sequence[Modality]) -> dict[str, float]:
    return {uid: at for one in senders for uid, at in one.acknowledged.items()}
