"""Memory is bounded by the node, not by what it is sent or by what waits in it."""

from __future__ import annotations

import contextlib
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.stand import Node, Peer, Setup, free_port, objects, wait_until
from benchmarks.witnesses import Archive, Modality, data_set_digest
from tests.crash.conftest import Nodes

pytestmark = pytest.mark.slow

_MEGABYTE = 1_000_000
#: what one object of any size may add to the resident memory of all processes together
_LIMIT = 400 * _MEGABYTE


class Watch(threading.Thread):
    """Samples the resident memory of all processes of a node, in bytes."""

    def __init__(self, node: Node) -> None:
        super().__init__(daemon=True)
        self._node = node
        self._done = threading.Event()
        self.baseline = self._resident()
        self.peak = self.baseline

    def run(self) -> None:
        """Until `stop`."""
        while not self._done.wait(0.05):
            self.peak = max(self.peak, self._resident())

    def stop(self) -> int:
        """Bytes that the peak lay above the baseline."""
        self._done.set()
        self.join()
        return self.peak - self.baseline

    def _resident(self) -> int:
        total = 0
        for pid in self._node.processes():
            with contextlib.suppress(psutil.Error):
                total += psutil.Process(pid).memory_info().rss
        return total


@contextlib.contextmanager
def _watched(node: Node) -> Iterator[Watch]:
    watch = Watch(node)
    watch.start()
    try:
        yield watch
    finally:
        watch.stop()


def _large(folder: Path, size: int) -> Path:
    """One instance with `size` bytes of pixels, all zero; on most file systems they take no room."""
    (path,) = objects(folder, 1, edge=2)
    content = path.read_bytes()
    pixels = content.index(struct.pack("<HH", 0x7FE0, 0x0010) + b"OW")
    with path.open("r+b") as file:
        file.seek(pixels + 8)
        file.write(struct.pack("<I", size))
        file.truncate(pixels + 12 + size)
    return path


def test_a_gigabyte_passes_through(
    tmp_path: Path, nodes: Nodes, archive: Archive, record_property: Callable[[str, object], None]
) -> None:
    path = _large(tmp_path / "in", 1_000 * _MEGABYTE)
    node = nodes(Setup({"archive": Peer(archive.port, timeout_s=60.0)})).start()
    small = objects(tmp_path / "warm", 5, seed=1)
    warm = Modality(node.port, small)
    warm.start()
    warm.join(120)
    wait_until(lambda: len(archive.delivered) == len(small), 30, "the first objects")
    with _watched(node) as watch:
        modality = Modality(node.port, [path])
        modality.start()
        modality.join(120)
        received = watch.peak - watch.baseline
        wait_until(lambda: len(archive.delivered) == len(small) + 1, 120, "the large one")
    beyond = watch.peak - watch.baseline
    print(
        f"beyond the baseline: {received / _MEGABYTE:.0f} MB received, {beyond / _MEGABYTE:.0f} MB delivered"
    )
    record_property("beyond_baseline_mb", beyond // _MEGABYTE)
    assert archive.delivered[-1].digest == data_set_digest(path)
    assert beyond < _LIMIT
    assert node.terminate() == 0


def _multiply(database: Path, table: str, count: int, changes: dict[str, str]) -> None:
    """Copy the only row of a table `count` times; `changes` are SQL over `n`, by column."""
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[1] != "id"]
        values = ", ".join(changes.get(column, column) for column in columns)
        connection.execute(
            f"WITH RECURSIVE numbers(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM numbers WHERE n <= {count})"
            f" INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table}, numbers"
            f" WHERE {table}.id = 1"
        )


def test_a_hundred_thousand_that_wait(
    tmp_path: Path, nodes: Nodes, record_property: Callable[[str, object], None]
) -> None:
    """Queued to a destination that is away and then comes back, while others arrive and metrics are read."""
    count = 100_000
    archive = Archive(free_port())
    node = nodes(Setup({"archive": Peer(archive.port)})).start()
    first, *others = objects(tmp_path / "in", 50)
    _send(node, [first])
    wait_until(
        lambda: node.metric("dicom_node_deliveries", state="queued") == 1, 30, "the first in the queue"
    )
    with _watched(node) as watch:
        pass
    empty = watch.peak
    assert node.terminate() == 0

    ledger = node.state / "ledger.sqlite"
    _multiply(
        ledger,
        "instances",
        count,
        {"sop_instance_uid": "'1.2.3.' || n", "out_sop_instance_uid": "'1.2.3.' || n"},
    )
    _multiply(ledger, "deliveries", count, {"instance_id": "n"})
    node.start()
    with _watched(node) as watch:
        assert node.metric("dicom_node_deliveries", state="queued") >= count
        _send(node, others)
        archive.start()
        wait_until(lambda: len(archive.delivered) > 300, 60, "some deliveries")
        began, before = time.monotonic(), len(archive.delivered)
        time.sleep(5)
        rate = (len(archive.delivered) - before) / (time.monotonic() - began)
    beyond = watch.peak - empty
    print(f"{beyond / _MEGABYTE:.0f} MB beyond an empty queue, {rate:.0f} deliveries a second")
    record_property("beyond_empty_mb", beyond // _MEGABYTE)
    record_property("deliveries_per_s", round(rate))
    assert beyond < 100 * _MEGABYTE
    archive.stop()
    assert node.terminate() == 0


def _send(node: Node, paths: list[Path]) -> None:
    modality = Modality(node.port, paths)
    modality.start()
    modality.join(60)
    assert len(modality.acknowledged) == len(paths)
