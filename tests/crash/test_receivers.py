"""Receiver processes that die under load; a node reloaded, stopped or killed while several receive."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.stand import Node, Peer, Setup, objects, wait_until
from benchmarks.witnesses import Archive, Modality, account
from tests.crash.conftest import Nodes

pytestmark = pytest.mark.slow

_LIMIT_S = 180.0
_SENDERS = 8


def _setup(archive: Archive, receivers: int) -> Setup:
    return Setup({"archive": Peer(archive.port, associations=2)}, receivers=receivers)


def _receivers(node: Node) -> list[int]:
    """The receiver processes that live, as the log names them."""
    told = re.findall(r" receiver-ready receiver=\S+ pid=(\d+)", node.said())
    return sorted(set(map(int, told)) & set(node.processes()))


def _start(node: Node, receivers: int) -> None:
    node.start()
    wait_until(lambda: len(_receivers(node)) == receivers, 60, "receiver processes")


def _senders(node: Node, paths: list[Path]) -> list[Modality]:
    senders = [Modality(node.port, paths[number::_SENDERS]) for number in range(_SENDERS)]
    for sender in senders:
        sender.start()
    return senders


def _sent(senders: list[Modality]) -> int:
    return sum(len(sender.acknowledged) for sender in senders)


def _finish(node: Node, archive: Archive, senders: list[Modality], sent: int) -> None:
    """Everything acknowledged is delivered in one content; no half-written file, nothing held."""
    for sender in senders:
        sender.join(_LIMIT_S)
    assert _sent(senders) == sent
    wait_until(lambda: len(archive.digests()) >= sent, _LIMIT_S, "delivery")
    wait_until(lambda: node.metric("dicom_node_deliveries", state="delivered") == sent, 60, "the books")
    acknowledged = {uid: at for sender in senders for uid, at in sender.acknowledged.items()}
    books = account(sent, acknowledged, archive)
    assert (books.accepted, books.never, books.changed) == (sent, 0, 0)
    assert list((node.state / "spool" / "tmp").iterdir()) == []
    assert node.terminate() == 0


@pytest.mark.parametrize("receivers", [2, 4])
def test_receiver_processes_that_are_killed_under_load(
    tmp_path: Path, nodes: Nodes, archive: Archive, receivers: int
) -> None:
    """Eight senders; what broke is sent again, and the node itself goes on."""
    paths = objects(tmp_path / "in", 400, edge=128)
    node = nodes(_setup(archive, receivers))
    _start(node, receivers)
    senders = _senders(node, paths)
    rng = random.Random(receivers)
    for sent in (40, 120, 200):
        wait_until(lambda s=sent: _sent(senders) >= s, _LIMIT_S, f"{sent} objects")
        os.kill(rng.choice(_receivers(node)), signal.SIGKILL)
        wait_until(lambda: len(_receivers(node)) == receivers, 60, "another process")
    _finish(node, archive, senders, len(paths))
    assert node.said().count(" receiver-died ") == 3
    assert node.said().count(" ready ") == 1


def test_reloads_while_several_receive(tmp_path: Path, nodes: Nodes, archive: Archive) -> None:
    """No association comes to an end by it: every sender needs one only."""
    paths = objects(tmp_path / "in", 400)
    node = nodes(_setup(archive, 2))
    _start(node, 2)
    senders = _senders(node, paths)
    for reloads, sent in enumerate((50, 150, 250), 1):
        wait_until(lambda s=sent: _sent(senders) >= s, _LIMIT_S, f"{sent} objects")
        os.kill(node.pid, signal.SIGHUP)
        wait_until(lambda r=reloads: node.said().count(" reloaded ") == r, 60, "the reload")
    for sender in senders:
        sender.join(_LIMIT_S)
    assert node.metric("dicom_node_associations_total", result="accepted") == _SENDERS
    assert node.metric("dicom_node_associations_total", result="aborted") == 0
    _finish(node, archive, senders, len(paths))


def _stop(node: Node) -> None:
    assert node.terminate() == 0


def _kill_all(node: Node) -> None:
    node.kill()


def _kill_leader(node: Node) -> None:
    """The receivers find out by themselves, while the next node is starting already."""
    os.kill(node.pid, signal.SIGKILL)
    node.wait()


@pytest.mark.parametrize("end", [_stop, _kill_all, _kill_leader])
def test_a_node_that_ends_under_load(
    tmp_path: Path, nodes: Nodes, archive: Archive, end: Callable[[Node], None]
) -> None:
    paths = objects(tmp_path / "in", 300)
    node = nodes(_setup(archive, 2))
    _start(node, 2)
    senders = _senders(node, paths)
    for sent in (60, 150):
        wait_until(lambda s=sent: _sent(senders) >= s, _LIMIT_S, f"{sent} objects")
        end(node)
        _start(node, 2)
        time.sleep(0.2)
    _finish(node, archive, senders, len(paths))
