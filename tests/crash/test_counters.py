"""Counters say what happened, through kills: no more, no less, and never fewer than before."""

from __future__ import annotations

import math
import threading
from http.client import HTTPException
from pathlib import Path

import pytest

from benchmarks.stand import Node, Peer, Setup, objects, wait_until
from benchmarks.witnesses import Archive, Modality
from tests.crash.conftest import Nodes

pytestmark = pytest.mark.slow

_LIMIT_S = 90.0


class Prometheus(threading.Thread):
    """Scrapes like Prometheus, only oftener, and notes every counter that was seen to fall."""

    def __init__(self, node: Node) -> None:
        super().__init__(daemon=True)
        self.done = threading.Event()
        self.scrapes = 0
        self.fell: list[str] = []
        self._node = node

    def run(self) -> None:
        seen: dict[str, float] = {}
        while not self.done.wait(0.05):
            try:
                status, page = self._node.page("/metrics")
            except HTTPException:  # the node was killed in the middle of the page
                continue
            if status != 200:
                continue
            self.scrapes += 1
            for name, value in _counters(page).items():
                if value < seen.get(name, -math.inf):
                    self.fell.append(name)
                seen[name] = value


def _counters(page: str) -> dict[str, float]:
    """Everything of ours that only goes up; the CPU time of a worker begins anew with each."""
    samples = [line.rsplit(" ", 1) for line in page.splitlines() if line.startswith("dicom_node_")]
    ends = ("_total", "_count", "_sum", "_bucket")
    return {
        name: float(value)
        for name, value in samples
        if name.partition("{")[0].endswith(ends) and "worker_cpu" not in name
    }


def test_counters_equal_what_was_sent_through_four_kills(
    tmp_path: Path, nodes: Nodes, archive: Archive
) -> None:
    paths = objects(tmp_path / "in", 120)
    node = nodes(Setup({"archive": Peer(archive.port)}, workers=2)).start()
    modality, prometheus = Modality(node.port, paths), Prometheus(node)
    modality.start()
    prometheus.start()
    for delivered in (15, 40, 65, 90):
        wait_until(lambda d=delivered: len(archive.delivered) >= d, _LIMIT_S, f"{delivered} deliveries")
        node.kill()
        node.start()
    modality.join(_LIMIT_S)
    wait_until(lambda: node.metric("dicom_node_deliveries", state="delivered") == 120, _LIMIT_S, "delivery")
    _check(node, len(paths), modality)
    before = _shown(node)
    assert node.terminate() == 0
    node.start()
    after = _shown(node)
    prometheus.done.set()
    prometheus.join()
    assert prometheus.fell == []
    assert prometheus.scrapes > 4
    assert {name: after[name] for name in before if after[name] < before[name]} == {}
    _check(node, len(paths), modality)


def _shown(node: Node) -> dict[str, float]:
    """What the page counts, once a busy machine has answered."""
    found: list[dict[str, float]] = []
    wait_until(lambda: bool(found.append(_counters(node.page("/metrics")[1])) or found[-1]), 60, "the page")
    return found[-1]


def _check(node: Node, sent: int, modality: Modality) -> None:
    """The books balance: what was kept, worked on and delivered is what was sent, each once."""
    stored = node.metric("dicom_node_store_requests_total", status="0000")
    repeated = node.metric("dicom_node_repeated_arrivals_total")
    assert stored - repeated == sent
    assert stored >= len(modality.acknowledged) == sent
    assert repeated <= 4, "a kill between the row and its answer makes one object come twice"
    assert node.metric("dicom_node_processed_instances_total", result="passed") == sent
    assert node.metric("dicom_node_delivery_results_total", destination="archive", result="delivered") == sent
    assert node.metric("dicom_node_stage_seconds_count", stage="spool") == stored
    assert node.metric("dicom_node_stage_seconds_count", stage="send") == sent
    assert node.metric("dicom_node_delivery_delay_seconds_count", destination="archive") == sent
