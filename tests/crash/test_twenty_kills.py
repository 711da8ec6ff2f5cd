"""Two thousand objects, four senders, two destinations, and every process killed twenty times on the way."""

from __future__ import annotations

import os
import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.stand import Node, Peer, Setup, free_port, objects, wait_until
from benchmarks.wire import head_of
from benchmarks.witnesses import Account, Archive, DcmtkModality, Modality, account, data_set_digest
from dicom_node.forwarder import HELD_BACK
from tests.crash.conftest import Nodes

pytestmark = [pytest.mark.slow, pytest.mark.interop]

_SENDERS = 4
_LIMIT_S = 180.0


@dataclass(frozen=True)
class Run:
    """What the node does, who sends how much to it, how often it is killed, its associations to each side."""

    role: str
    sender: type[Modality | DcmtkModality]
    objects: int
    kills: int
    associations: int


@pytest.mark.parametrize(
    "run",
    [Run("pass", DcmtkModality, 2000, 20, 2), Run("protect", Modality, 500, 10, 1)],
    ids=lambda run: run.role,
)
def test_what_was_acknowledged_arrives_at_both(
    tmp_path: Path,
    nodes: Nodes,
    run: Run,
    record_property: Callable[[str, object], None],
) -> None:
    """Every object is acknowledged at last, and then: none is missing, none differs, few came twice.

    The senders never give up, as a modality does. A kill leaves, for each association to a destination, one
    object in hand and at most `HELD_BACK` answers off the record; those are sent again, byte for byte.
    """
    seed = int(os.environ.get("DICOM_NODE_SEED") or secrets.randbelow(1 << 32))
    print(f"seed {seed}: DICOM_NODE_SEED={seed} repeats the moments")
    started = time.monotonic()
    paths = objects(tmp_path / "in", run.objects)
    archives = {name: Archive(free_port()).start() for name in ("one", "two")}
    peers = {name: Peer(archive.port, run.associations) for name, archive in archives.items()}
    node = nodes(Setup(peers, run.role, workers=2)).start()
    senders = [run.sender(node.port, paths[number::_SENDERS]) for number in range(_SENDERS)]
    for one in senders:
        one.start()
    try:
        _kill_at(_moments(run, random.Random(seed)), node, senders, archives)
        _await_everything(run, node, senders, archives)
        instances = node.metric("dicom_node_instances", state="ready"), node.metric("dicom_node_instances")
    finally:
        for one in senders:
            one.giving_up.set()
        stopped = node.terminate()
    for name, archive in archives.items():
        books = account(run.objects, _acknowledged(senders), archive)
        print(f"{name}: {books}")
        record_property(name, str(books))
        _assert_complete(run, books)
    print(f"{time.monotonic() - started:.0f} s")
    assert instances == (run.objects, run.objects)
    assert stopped == 0
    one, two = (_firsts(archive.digests()) for archive in archives.values())
    assert one == two
    if run.role == "pass":
        assert one == {head_of(path).sop_instance_uid: data_set_digest(path) for path in paths}


def _await_everything(
    run: Run,
    node: Node,
    senders: Sequence[Modality | DcmtkModality],
    archives: Mapping[str, Archive],
) -> None:
    """Until everything is acknowledged, has arrived, and is on record."""
    wait_until(lambda: len(_acknowledged(senders)) == run.objects, _LIMIT_S, "everything acknowledged")
    for name, archive in archives.items():
        wait_until(lambda a=archive: len(a.digests()) == run.objects, _LIMIT_S, f"everything at {name}")
    wait_until(
        lambda: node.metric("dicom_node_deliveries", state="delivered") == 2 * run.objects, 60, "the books"
    )


def _assert_complete(run: Run, books: Account) -> None:
    """Nothing is missing or changed, and no more came twice than kills explain."""
    assert (books.accepted, books.never, books.changed) == (run.objects, 0, 0)
    assert books.resent <= run.kills * run.associations * (1 + HELD_BACK)


def _moments(run: Run, rng: random.Random) -> list[int]:
    """When to kill, in steps of progress: so many acknowledgements and arrivals at either destination."""
    return sorted(rng.sample(range(1, int(0.97 * 3 * run.objects)), run.kills))


def _kill_at(
    moments: list[int],
    node: Node,
    senders: Sequence[Modality | DcmtkModality],
    archives: Mapping[str, Archive],
) -> None:
    for moment in moments:
        wait_until(lambda m=moment: _progress(senders, archives) >= m, _LIMIT_S, f"step {moment}")
        node.kill()
        node.start()


def _progress(senders: Sequence[Modality | DcmtkModality], archives: Mapping[str, Archive]) -> int:
    arrived = sum(len(archive.attempts) for archive in archives.values())
    return sum(len(one.acknowledged) for one in senders) + arrived


def _acknowledged(senders: Sequence[Modality | DcmtkModality]) -> dict[str, float]:
    return {uid: at for one in senders for uid, at in one.acknowledged.items()}


def _firsts(digests: Mapping[str, list[str]]) -> dict[str, str]:
    return {uid: found[0] for uid, found in digests.items()}
