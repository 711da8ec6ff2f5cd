"""Workers killed, the leader killed alone, stops that drain and drains that are killed."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from pathlib import Path

import pytest

from benchmarks.stand import Node, Peer, Setup, objects, wait_until
from benchmarks.witnesses import Archive, Modality, account
from dicom_node.forwarder import HELD_BACK
from tests.crash.conftest import Nodes

pytestmark = pytest.mark.slow

_LIMIT_S = 90.0


def _finish(node: Node, archive: Archive, modality: Modality, sent: int) -> None:
    """Everything acknowledged is delivered in one content, and nothing is held or quarantined."""
    wait_until(lambda: len(archive.digests()) >= sent, _LIMIT_S, "delivery")
    wait_until(lambda: node.metric("dicom_node_deliveries", state="delivered") == sent, 30, "the books")
    assert node.metric("dicom_node_instances", state="ready") == sent
    books = account(sent, modality.acknowledged, archive)
    assert (books.accepted, books.never, books.changed) == (sent, 0, 0)
    assert node.terminate() == 0


def test_workers_that_are_killed_under_load(tmp_path: Path, nodes: Nodes, archive: Archive) -> None:
    """What they had in hand is taken back at once, and done by others; the node goes on receiving."""
    paths = objects(tmp_path / "in", 80, edge=128)
    node = nodes(Setup({"archive": Peer(archive.port)}, "protect", workers=2)).start()
    modality = Modality(node.port, paths)
    modality.start()
    for delivered in (5, 20, 35):
        wait_until(lambda d=delivered: len(archive.delivered) >= d, _LIMIT_S, f"{delivered} deliveries")
        os.kill(node.workers()[0], signal.SIGKILL)
    modality.join(_LIMIT_S)
    _finish(node, archive, modality, len(paths))
    assert node.said().count("worker-died") == 3


def test_a_stop_in_the_middle_finishes_what_is_in_hand(
    tmp_path: Path, nodes: Nodes, archive: Archive
) -> None:
    """After SIGTERM nothing is sent twice: every answer that came is on record."""
    paths = objects(tmp_path / "in", 200)
    node = nodes(Setup({"archive": Peer(archive.port, associations=2)}, workers=2)).start()
    modality = Modality(node.port, paths)
    modality.start()
    for delivered in (20, 60, 100):
        wait_until(lambda d=delivered: len(archive.delivered) >= d, _LIMIT_S, f"{delivered} deliveries")
        assert node.terminate() == 0
        wait_until(lambda: not node.processes(), 10, "the end of every process")
        node.start()
    modality.join(_LIMIT_S)
    _finish(node, archive, modality, len(paths))
    assert account(len(paths), modality.acknowledged, archive).resent == 0


def _kill_all(node: Node, _rng: random.Random) -> None:
    node.kill()


def _kill_leader(node: Node, _rng: random.Random) -> None:
    """The workers find out by themselves, while the next node is starting already."""
    os.kill(node.pid, signal.SIGKILL)
    node.wait()


def _kill_while_draining(node: Node, rng: random.Random) -> None:
    os.kill(node.pid, signal.SIGTERM)
    time.sleep(rng.uniform(0.0, 0.3))
    node.kill()


def _stop(node: Node, _rng: random.Random) -> None:
    node.terminate()


def test_ten_restarts_in_a_row_under_load(tmp_path: Path, nodes: Nodes, archive: Archive) -> None:
    rng = random.Random(5)
    paths = objects(tmp_path / "in", 150)
    node = nodes(Setup({"archive": Peer(archive.port)}, "protect", workers=2)).start()
    modality = Modality(node.port, paths)
    modality.start()
    ways = itertools.cycle((_kill_all, _kill_leader, _kill_while_draining, _stop))
    for way in itertools.islice(ways, 10):
        time.sleep(rng.uniform(0.1, 0.5))
        way(node, rng)
        node.start()
    modality.join(_LIMIT_S)
    _finish(node, archive, modality, len(paths))
    # the object in hand and what was held back may come again; an ordinary stop leaves nothing off the record
    assert account(len(paths), modality.acknowledged, archive).resent <= 8 * (1 + HELD_BACK)
