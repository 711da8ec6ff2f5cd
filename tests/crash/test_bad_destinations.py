"""Six destinations, five of them bad: everything arrives, or becomes a dead letter with its reason."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.stand import Peer, Setup, objects, wait_until
from benchmarks.wire import head_of
from benchmarks.witnesses import OUT_OF_RESOURCES, SUCCESS, Archive, Modality, account, always
from dicom_node.ledger import Ledger
from tests.crash.conftest import Nodes

pytestmark = pytest.mark.slow

_OBJECTS, _DOWN_S, _BAD_S = 60, 60.0, 8.0
_CANNOT = 0xC000


def test_each_destination_on_its_own(
    tmp_path: Path,
    nodes: Nodes,
    archives: Callable[[], Archive],
    record_property: Callable[[str, object], None],
) -> None:
    paths = objects(tmp_path / "in", _OBJECTS)
    uids = [head_of(path).sop_instance_uid for path in paths]
    disliked = set(uids[::5])
    up, down, refusing, silent, busy, picky = (archives() for _ in range(6))
    down.stop()
    refusing.refusing = silent.silent = True
    busy.answer = lambda _uid, _times: OUT_OF_RESOURCES
    picky.answer = lambda uid, _times: _CANNOT if uid in disliked else SUCCESS
    named = {"up": up, "down": down, "refusing": refusing, "silent": silent, "busy": busy, "picky": picky}
    peers = {name: Peer(archive.port, 2, timeout_s=2.0, refusals=2) for name, archive in named.items()}
    node = nodes(Setup(peers, workers=2)).start()
    started = time.monotonic()
    modality = Modality(node.port, paths)
    modality.start()
    modality.join(60)
    assert len(modality.acknowledged) == _OBJECTS

    wait_until(lambda: len(up.digests()) == _OBJECTS, 60, "everything at the good one")
    waits = sorted(one.at - modality.acknowledged[one.sop_instance_uid] for one in up.delivered)
    record_property("good_destination_p95_s", round(waits[int(0.95 * len(waits))], 3))
    assert not down.delivered
    assert not refusing.delivered
    assert not silent.delivered

    time.sleep(max(0.0, started + _BAD_S - time.monotonic()))
    assert not busy.delivered
    refusing.refusing = silent.silent = False
    busy.answer = always
    for name in ("refusing", "silent", "busy"):
        wait_until(lambda n=name: len(named[n].digests()) == _OBJECTS, 60, f"everything at {name}")
    wait_until(
        lambda: node.metric("dicom_node_deliveries", destination="picky", state="dead") == len(disliked),
        60,
        "the dead letters",
    )
    assert set(picky.digests()) == set(uids) - disliked

    time.sleep(max(0.0, started + _DOWN_S - time.monotonic()))
    assert not down.delivered
    down.start()
    wait_until(lambda: len(down.digests()) == _OBJECTS, 60, "everything at the one that was down")
    wait_until(lambda: node.metric("dicom_node_deliveries", state="sending") == 0, 30, "the books")
    assert node.terminate() == 0
    for name, archive in named.items():
        books = account(_OBJECTS, modality.acknowledged, archive)
        missing = len(disliked) if name == "picky" else 0
        assert (books.once, books.never, books.changed) == (_OBJECTS - missing, missing, 0), name
    ledger = Ledger(node.state / "ledger.sqlite")
    letters = ledger.dead_letters()
    ledger.close()
    assert {(letter.destination, letter.reason, letter.attempts) for letter in letters} == {
        ("picky", "status-c000", 2)
    }
    assert {letter.sop_instance_uid for letter in letters} == disliked
