"""A disk without a byte, or an inode: refused with A700, alive, and nothing that was acknowledged is lost."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.stand import Node, Peer, Setup, fill, free_port, objects, resize, small_disk, wait_until
from benchmarks.witnesses import OUT_OF_RESOURCES, SUCCESS, Archive, Modality, account
from tests.crash.conftest import Nodes

pytestmark = pytest.mark.slow

_FOREIGN = "foreign"


@pytest.fixture
def archive() -> Iterator[Archive]:
    """A destination that is away until its `start`."""
    made = Archive(free_port())
    yield made
    made.stop()


@contextlib.contextmanager
def _on_a_small_disk(node: Node, *, megabytes: int, inodes: int = 0) -> Iterator[Path]:
    """Everything that a node keeps on a disk of its own; killed before that is taken away."""
    with small_disk(node.state, megabytes=megabytes, inodes=inodes) as mounted:
        if not mounted:
            pytest.skip("a file system can be mounted by root only")
        try:
            yield node.state
        finally:
            if node.running:
                node.kill()


def _send(node: Node, paths: list[Path]) -> Modality:
    modality = Modality(node.port, paths, persistent=False)
    modality.start()
    modality.join(120)
    return modality


def _is_alive_and_refuses(node: Node, paths: list[Path], word: str) -> None:
    """C-ECHO, health and metrics answer; objects are refused with A700; /readyz names what is wrong."""
    assert node.echo()
    assert node.page("/healthz")[0] == 200
    assert "dicom_node_spool_free_bytes" in node.page("/metrics")[1]
    # workers may still be loading their models
    wait_until(lambda: node.page("/readyz") == (503, f"{word}\n"), 60, f"no more than {word} in the way")
    refused = _send(node, paths)
    assert not refused.acknowledged
    assert set(refused.refused) == {OUT_OF_RESOURCES}


def _delivers(node: Node, archive: Archive, acknowledged: dict[str, float], limit_s: float = 60) -> None:
    wait_until(
        lambda: set(archive.digests()) >= set(acknowledged), limit_s, "everything acknowledged arrives"
    )
    wait_until(
        lambda: node.metric("dicom_node_deliveries", state="delivered") >= len(acknowledged), 30, "the books"
    )
    books = account(len(acknowledged), acknowledged, archive)
    assert (books.once, books.changed) == (len(acknowledged), 0)


@pytest.mark.parametrize("role", ["pass", "protect"])
def test_a_spool_that_fills_up_while_the_destination_is_away(
    tmp_path: Path, nodes: Nodes, archive: Archive, role: str
) -> None:
    """Arrivals fill it to the reserve, the output of work to half of it; then the destination comes back.

    With the role `protect` every object needs room twice. What finds none waits, and goes on by itself when
    there is room again.
    """
    paths = objects(tmp_path / "in", 200, edge=256)
    node = nodes(Setup({"archive": Peer(archive.port)}, role))
    with _on_a_small_disk(node, megabytes=44) as disk:
        node.start()
        sent = _send(node, paths)
        assert sent.refused == Counter({OUT_OF_RESOURCES: len(paths) - len(sent.acknowledged)})
        assert 0 < len(sent.acknowledged) < len(paths)
        _is_alive_and_refuses(node, paths[-5:], "spool")
        archive.start()
        if role == "protect":
            wait_until(lambda: node.metric("dicom_node_deliveries", state="delivered") > 0, 60, "some")
            resize(disk, megabytes=88)
        _delivers(node, archive, sent.acknowledged, 120)
        assert node.terminate() == 0


def test_a_disk_that_others_fill_to_the_last_byte(tmp_path: Path, nodes: Nodes, archive: Archive) -> None:
    """What is here still goes out, on the room that the reserve file gives back; so does it after a kill."""
    paths = objects(tmp_path / "in", 60)
    node = nodes(Setup({"archive": Peer(archive.port)}))
    with _on_a_small_disk(node, megabytes=64) as disk:
        node.start()
        acknowledged = dict(_send(node, paths[:50]).acknowledged)
        assert len(acknowledged) == 50
        fill(disk / _FOREIGN)
        _is_alive_and_refuses(node, paths[50:], "spool")
        node.kill()
        node.start()
        archive.start()
        _delivers(node, archive, acknowledged)
        (disk / _FOREIGN).unlink()
        acknowledged |= _send(node, paths[50:]).acknowledged
        assert len(acknowledged) == 60
        _delivers(node, archive, acknowledged)
        assert node.terminate() == 0


def test_a_disk_without_inodes(tmp_path: Path, nodes: Nodes, archive: Archive) -> None:
    paths = objects(tmp_path / "in", 100)
    node = nodes(Setup({"archive": Peer(archive.port)}))
    with _on_a_small_disk(node, megabytes=128, inodes=256 + 256 + 64) as disk:
        node.start()
        sent = _send(node, paths)
        assert 0 < len(sent.acknowledged) < len(paths)
        (disk / _FOREIGN).mkdir()
        with contextlib.suppress(OSError):
            for number in range(1000):
                (disk / _FOREIGN / str(number)).touch()
        _is_alive_and_refuses(node, paths[-5:], "spool")
        archive.start()
        _delivers(node, archive, sent.acknowledged)
        for path in (disk / _FOREIGN).iterdir():
            path.unlink()
        assert node.terminate() == 0


def test_a_ledger_without_room(tmp_path: Path, nodes: Nodes, archive: Archive) -> None:
    """The spool is on another disk, so nothing but the ledger itself can say that there is no room."""
    paths = objects(tmp_path / "in", 60)
    node = nodes(Setup({"archive": Peer(archive.port)}))
    with _on_a_small_disk(node, megabytes=16) as disk:
        (tmp_path / "elsewhere").mkdir()
        (disk / "spool").symlink_to(tmp_path / "elsewhere")
        node.start()
        acknowledged = dict(_send(node, paths[:30]).acknowledged)
        assert len(acknowledged) == 30
        fill(disk / _FOREIGN)
        refused: list[int] = []

        def is_full() -> bool:
            """The room that the write-ahead log already has is used up first."""
            trial = _send(node, paths[30:])
            acknowledged.update(trial.acknowledged)
            refused.extend(trial.refused)
            return bool(trial.refused)

        wait_until(is_full, 60, "a refusal")
        assert set(refused) == {OUT_OF_RESOURCES}
        assert node.echo()
        assert node.page("/healthz")[0] == 200
        assert node.page("/metrics")[0] == 200
        archive.start()
        (disk / _FOREIGN).unlink()
        acknowledged |= _send(node, paths).acknowledged
        assert len(acknowledged) == 60
        _delivers(node, archive, acknowledged)
        assert node.terminate() == 0


def test_a_ledger_that_fills_up_while_it_sends(tmp_path: Path, nodes: Nodes, archive: Archive) -> None:
    """Answers that cannot be recorded are not forgotten: nothing is sent again, nothing waits for a lease."""
    paths = objects(tmp_path / "in", 400)
    archive.answer = _at_leisure
    node = nodes(Setup({"archive": Peer(archive.port, associations=2)}))
    with _on_a_small_disk(node, megabytes=16) as disk:
        (tmp_path / "elsewhere").mkdir()
        (disk / "spool").symlink_to(tmp_path / "elsewhere")
        node.start()
        acknowledged = _send(node, paths).acknowledged
        assert len(acknowledged) == len(paths)
        archive.start()
        wait_until(lambda: len(archive.delivered) > 10, 30, "the first deliveries")
        fill(disk / _FOREIGN)
        wait_until(lambda: "disk is full" in node.said(), 60, "a refusal of the ledger")
        time.sleep(2)
        (disk / _FOREIGN).unlink()
        _delivers(node, archive, acknowledged)
        assert node.terminate() == 0


def _at_leisure(_uid: str, _times: int) -> int:
    time.sleep(0.02)
    return SUCCESS
