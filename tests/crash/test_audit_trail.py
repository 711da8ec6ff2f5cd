"""A node killed again and again, a repository that comes and goes: what was acknowledged is told."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.stand import Peer, Setup, objects, wait_until
from benchmarks.witnesses import Archive, Modality
from tests.audit_trails import Sink, Told
from tests.crash.conftest import Nodes

pytestmark = pytest.mark.slow

_STUDIES, _IMAGES, _KILLS = 12, 10, 5


def test_what_was_acknowledged_is_told_though_the_node_is_killed(
    tmp_path: Path, nodes: Nodes, archive: Archive
) -> None:
    sink, moments = Sink(), random.Random(7)
    audit = {"host": "127.0.0.1", "port": sink.port, "transport": "tcp", "aggregate_s": 0.3}
    node = nodes(Setup({"one": Peer(archive.port)}, sections={"audit": audit})).start()
    paths = [
        path
        for study in range(_STUDIES)
        # of one patient, or those recorded together would be messages with the same text: counted as one here
        for path in objects(tmp_path / f"in-{study}", _IMAGES, edge=256, seed=study, patient=f"{study:06d}")
    ]
    sender = Modality(node.port, paths)
    sender.start()
    try:
        for number in range(_KILLS):
            time.sleep(moments.uniform(0.2, 1.5))
            (sink.start if number % 2 else sink.stop)()
            node.kill()
            node.start()
        wait_until(lambda: len(sender.acknowledged) == len(paths), 120.0, "everything acknowledged")
        wait_until(lambda: len(archive.digests()) == len(paths), 120.0, "everything delivered")
        wait_until(lambda: node.metric("dicom_node_deliveries", state="delivered") == len(paths), 60, "books")
    finally:
        sender.giving_up.set()
        sink.stop()
        sink.start()
        assert node.terminate() == 0
    assert node.start().terminate() == 0  # whatever had not settled is told now
    told = sink.told
    sink.stop()
    starts = [each for each in told if each.type == "Application Start"]
    assert len({each.root.find("EventIdentification").get("EventDateTime") for each in starts}) == _KILLS + 2
    for who in ("MODALITY", "NODE"):
        counted = _instances(told, who)
        assert len(counted) == _STUDIES
        assert all(count >= _IMAGES for count in counted.values()), counted


def _instances(told: list[Told], source: str) -> Counter[str]:
    """Study -> instances that were told to have come from a source, in messages that are all different."""
    different = {each.text: each for each in told}.values()
    counted: Counter[str] = Counter()
    for each in different:
        if each.short == ("DICOM Instances Transferred", "C", 0) and each.users[0] == (source, True):
            counted[each.things["Study Instance UID"]] += each.instances
    return counted
