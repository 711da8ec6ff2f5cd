"""A worker asks the batcher, and helps itself where that does not answer."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from blessmark.segment.integer import NumpyRuntime, load
from blessmark.types import IntArray
from dicom_node import batched
from dicom_node.batched import Batched
from dicom_node.batcher import LONGEST_BATCH_S, Batcher, listen
from dicom_node.batches import Bounds
from dicom_node.measuring import measured
from dicom_node.metrics import BATCH_FRAMES, BATCH_SELF, BATCH_WAIT

NETWORK = load("vessels")
PATIENCE_S = batched._ANSWER_S
IMAGES = np.random.default_rng(3).integers(0, 256, (2, 16, 24, 1)).astype(np.uint8)
EXPECTED = NumpyRuntime(NETWORK).logits(IMAGES)


class Own:
    """The worker's own engine, which tells whether it was asked."""

    network, backend = NETWORK, "numpy"

    def __init__(self) -> None:
        self.asked = 0

    def logits(self, images: np.ndarray) -> IntArray:
        self.asked += 1
        return NumpyRuntime(NETWORK).logits(images)


@pytest.fixture
def address() -> str:
    return f"\0dicom-node-test-{secrets.token_hex(8)}"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batched, "_PATIENCE_S", 0.2)
    monkeypatch.setattr(batched, "_ANSWER_S", 60.0)


@pytest.fixture
def serving(address: str) -> Iterator[Batcher]:
    served = Batcher(lambda _: NumpyRuntime(NETWORK), Bounds(8, 0.0))
    with listen(address) as listener:
        threading.Thread(target=served.admit, args=(listener,), daemon=True).start()
        working = threading.Thread(target=served.work, daemon=True)
        working.start()
        yield served
        served.stop()
        working.join(120)


@pytest.mark.usefixtures("serving")
def test_the_batcher_is_asked_and_what_it_did_is_counted(address: str) -> None:
    own = Own()
    with measured() as seen:
        found = Batched(NETWORK, address, own).logits(IMAGES)
    assert np.array_equal(found, EXPECTED)
    assert own.asked == 0
    assert [(each.metric, each.value >= 0) for each in seen.told] == [
        (BATCH_FRAMES, True),
        (BATCH_WAIT, True),
    ]
    assert seen.told[0].value == 2


def test_without_a_batcher_a_worker_helps_itself_and_waits_for_none_again(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    naps: list[float] = []
    monkeypatch.setattr(batched, "time", SimpleNamespace(sleep=naps.append, monotonic=time.monotonic))
    own = Own()
    asks = Batched(NETWORK, address, own)
    with measured() as seen:
        assert np.array_equal(asks.logits(IMAGES), EXPECTED)
        waited = len(naps)
        assert np.array_equal(asks.logits(IMAGES), EXPECTED)
    assert own.asked == 2
    assert waited > 0
    assert len(naps) == waited
    assert [each.metric for each in seen.told] == [BATCH_SELF, BATCH_SELF]


@pytest.fixture
def broken(address: str) -> Iterator[Callable[[bytes], list[int]]]:
    """A batcher that answers every packet with the same bytes, or by hanging up."""
    with listen(address) as listener:

        def answer(content: bytes) -> list[int]:
            calls: list[int] = []

            def serve() -> None:
                while True:
                    try:
                        guest, _ = listener.accept()
                    except OSError:
                        return
                    with guest:
                        guest.recv(1 << 16)
                        calls.append(1)
                        if content:
                            guest.send(content)
                            guest.recv(1)

            threading.Thread(target=serve, daemon=True).start()
            return calls

        yield answer
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"error": "MemoryError"}', b"no json"])
def test_one_that_fails_is_asked_twice_and_then_not(
    address: str, broken: Callable[[bytes], list[int]], content: bytes
) -> None:
    own = Own()
    calls = broken(content)
    assert np.array_equal(Batched(NETWORK, address, own).logits(IMAGES), EXPECTED)
    assert (own.asked, len(calls)) == (1, 2)


def test_one_that_hangs_is_waited_for_once_and_not_asked_again_for_a_while(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batched, "_ANSWER_S", 0.2)
    own, hung = Own(), threading.Event()
    served = Batcher(lambda _: hung.wait(60) and NumpyRuntime(NETWORK), Bounds(8, 0.0))
    with listen(address) as listener:
        threading.Thread(target=served.admit, args=(listener,), daemon=True).start()
        working = threading.Thread(target=served.work, daemon=True)
        working.start()
        asks = Batched(NETWORK, address, own)
        assert np.array_equal(asks.logits(IMAGES), EXPECTED)
        asked = []
        monkeypatch.setattr(asks, "_connected", lambda _until: asked.append(1))
        for _ in range(3):
            assert np.array_equal(asks.logits(IMAGES), EXPECTED)
        assert (own.asked, asked) == (4, [])
        asks._asked_from = 0.0
        asks.logits(IMAGES)
        assert asked == [1]
        hung.set()
        served.stop()
        working.join(120)


def test_a_batcher_that_hangs_is_ended_before_workers_lose_patience() -> None:
    assert LONGEST_BATCH_S < PATIENCE_S
