"""Images of several workers go through a network together, and nothing of it shows in a logit."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from blessmark.segment.integer import Network, NumpyRuntime, Runtime, load
from blessmark.types import IntArray
from dicom_node import batched, batcher, log
from dicom_node.batched import Batched
from dicom_node.batcher import Batcher, listen
from dicom_node.batches import Bounds, address_of
from dicom_node.bells import Bells
from dicom_node.config import BatcherKind, Config, Engine, Keys, Networks, Watermark
from dicom_node.errors import NodeError
from dicom_node.jobs import Arrival, InstanceState
from dicom_node.keys import generate
from dicom_node.metrics import BATCH_FRAMES
from dicom_node.segmenters import Engines
from dicom_node.shared_arrays import is_ours, receive, send
from dicom_node.stores import open_ledger, open_spool
from dicom_node.worker import Order, Processor, Tell, Workers, build_processor, run_batcher
from tests import builders
from tests.unit.node.test_worker import config
from tests.waiting import wait_until

NETWORK = load("vessels")
REFERENCE = NumpyRuntime(NETWORK)


class Device:
    """The NumPy engine as a device that notes how many images it got each time."""

    network, backend = NETWORK, "numpy"

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.taken = 0
        self.batcher: Batcher | None = None
        self.free = threading.Event()
        self.free.set()

    def logits(self, images: np.ndarray) -> IntArray:
        self.taken += len(images)
        self.free.wait(60)
        self.batches.append(len(images))
        return REFERENCE.logits(images)

    @property
    def guests(self) -> int:
        """How many connections the batcher knows."""
        assert self.batcher is not None
        return self.batcher._guests

    @property
    def known(self) -> int:
        """How many images have come, those that wait among them."""
        assert self.batcher is not None
        with self.batcher._changed:
            return self.taken + sum(len(each.images) for each in self.batcher._asked)


class Refuses:
    network, backend = NETWORK, "numpy"

    def logits(self, images: np.ndarray) -> IntArray:
        raise AssertionError("nobody else is to be asked")


Serve = Callable[..., tuple[str, Device]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    ends: list[Callable[[], None]] = []

    def start(frames: int = 8, wait_s: float = 0.5) -> tuple[str, Device]:
        address, device = f"\0dicom-node-test-{secrets.token_hex(8)}", Device()
        device.batcher = batcher = Batcher({NETWORK.id: device}.__getitem__, Bounds(frames, wait_s))
        listener = listen(address)
        threading.Thread(target=batcher.admit, args=(listener,), daemon=True).start()
        working = threading.Thread(target=batcher.work, daemon=True)
        working.start()

        def end() -> None:
            device.free.set()
            batcher.stop()
            working.join(120)
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()

        ends.append(end)
        return address, device

    yield start
    for end in ends:
        end()


def images(count: int, seed: int, size: tuple[int, int] = (16, 24)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 1)).astype(np.uint8)


def test_a_machine_without_room_for_a_connection_is_asked_again(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.batcher._RECOVER_S", 0.01)
    refusals = [OSError(errno.EMFILE, "too many"), RuntimeError("can't start new thread")]

    def no_room(guest: socket.socket) -> bool:
        if refusals:
            raise refusals.pop()
        return is_ours(guest)

    monkeypatch.setattr("dicom_node.batcher.is_ours", no_room)
    address, device = serve()
    for _ in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as guest:
            guest.connect(address)
            guest.settimeout(60)
            assert guest.recv(1) == b""
    Batched(NETWORK, address, Refuses()).logits(images(1, 1))
    assert device.batches == [1]


def test_images_of_several_workers_go_together_and_the_logits_are_those_of_each_alone(serve: Serve) -> None:
    address, device = serve()
    device.free.clear()
    asked = [images(1 + seed % 3, seed) for seed in range(12)] + [images(2, 99, (8, 8))]
    with ThreadPoolExecutor(len(asked)) as pool:
        found = [pool.submit(Batched(NETWORK, address, Refuses()).logits, each) for each in asked]
        wait_until(lambda: device.known == sum(map(len, asked)))  # all of them wait, but the first
        device.free.set()
        for each, result in zip(asked, found, strict=True):
            assert np.array_equal(result.result(60), REFERENCE.logits(each))
    assert sum(device.batches) == sum(map(len, asked))
    assert max(device.batches) >= 6  # three at most are asked for at once, and eight go
    assert max(device.batches) <= 8


def test_one_alone_does_not_wait_for_others(serve: Serve) -> None:
    address, _ = serve(wait_s=150.0)
    began = time.monotonic()
    Batched(NETWORK, address, Refuses()).logits(images(1, 1))
    assert time.monotonic() - began < 120


def test_an_idle_guest_is_waited_for_no_longer_than_the_bound(serve: Serve) -> None:
    address, device = serve(wait_s=0.2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as idle:
        idle.connect(address)
        wait_until(lambda: device.guests == 1)
        began = time.monotonic()
        Batched(NETWORK, address, Refuses()).logits(images(1, 1))
        assert time.monotonic() - began >= 0.15


def test_a_network_that_is_not_here_is_an_answer(serve: Serve) -> None:
    address, _ = serve()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as guest:
        guest.connect(address)
        send(guest, {"network": "other/1"}, images(1, 1))
        assert receive(guest) == ({"error": "KeyError"}, None)


@pytest.mark.parametrize("packet", [b"{}", b"no json", b'{"network": "x"}'])
def test_nonsense_ends_its_connection_and_no_other(serve: Serve, packet: bytes) -> None:
    address, _ = serve()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as guest:
        guest.connect(address)
        guest.send(packet)
        with pytest.raises(EOFError):
            receive(guest)
    assert len(Batched(NETWORK, address, Refuses()).logits(images(1, 1))) == 1


def test_a_guest_that_leaves_takes_nothing_along(serve: Serve) -> None:
    address, device = serve()
    device.free.clear()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as guest:
        guest.connect(address)
        send(guest, {"network": NETWORK.id}, images(1, 1))
        wait_until(lambda: device.known == 1)
    device.free.set()
    assert len(Batched(NETWORK, address, Refuses()).logits(images(2, 1))) == 2


def test_one_storage_folder_has_one_batcher(tmp_path: Path) -> None:
    address = address_of(config(tmp_path))
    assert address != address_of(config(tmp_path / "other"))
    with listen(address), pytest.raises(NodeError, match="another one runs"):
        listen(address)


TIME_S = 1_790_000_000.0


def at_a_fixed_time(made: Config, tell: Tell) -> Processor:
    """Protect as ever, as if everything had arrived at the same moment."""
    # in the process of the worker only: it helps itself when a batcher dies, not when one takes long to start
    batched._PATIENCE_S = 120.0
    process = build_processor(made, tell)
    return lambda work: process(replace(work, received_at=TIME_S))


def protecting(folder: Path, batcher: BatcherKind) -> Config:
    """Two workers that protect by a network on NumPy; `batcher` says who evaluates it."""
    keys = folder / "keys.json"
    if not keys.exists():
        generate(keys)
    made = config(folder / batcher, "protect", count=2)
    return made.model_copy(
        update={
            "keys": Keys(ring=keys),
            "networks": Networks(engine=Engine.NUMPY, batcher=batcher, batch_wait_ms=20.0),
            "watermark": Watermark(segmenter="vessels", segmenter_rules=()),
        }
    )


def worked(
    made: Config,
    contents: list[bytes],
    meanwhile: Callable[[Workers, int], None],
    begin: Callable[[Workers], None] = Workers.start,
) -> list[str]:
    """The names of what two worker processes make of objects; `meanwhile` hears how many are made."""
    spool, ledger = open_spool(made), open_ledger(made)
    for number, content in enumerate(contents):
        blob = spool.put([content])
        ledger.add(Arrival("1.2", f"1.2.{number}", "1.2.3", "A", "B", "all"), blob.name, blob.size)
    with contextlib.closing(ledger):
        workers = Workers(made, ledger, Bells(made.destinations), factory=at_a_fixed_time)
        begin(workers)
        try:
            deadline = time.monotonic() + 180
            while (ready := ledger.counts().instances[InstanceState.READY]) < len(contents):
                assert time.monotonic() < deadline, ledger.counts()
                meanwhile(workers, ready)
                time.sleep(0.02)
        finally:
            workers.stop()
        seen = {reading.metric: reading.value for reading in ledger.snapshot().counted if not reading.bound}
        sends = ledger.claim_sends("a", 100, 60.0)
    if begin is Workers.start:  # else all may be done before its successor is there
        assert bool(seen.get(BATCH_FRAMES.name)) is (made.networks.batcher is BatcherKind.PROCESS)
    return sorted(send.blob for send in sends)


def test_a_batcher_that_is_killed_again_and_again_costs_nothing_but_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every object comes out as workers make it that evaluate the network by themselves, to the last byte."""
    monkeypatch.setattr("dicom_node.worker.restart_delay_s", lambda _failures: 0.0)
    contents = [builders.file_bytes(builders.ct(256, 256, seed=seed)) for seed in range(8)]
    killed: set[int] = set()

    def kill(workers: Workers, ready: int) -> None:
        """One as it begins, and another when it has answered: who is let down twice helps himself."""
        pid = workers.batcher_pid
        if pid is not None and pid not in killed and len(killed) < 2 and ready >= len(killed):
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)

    alone = worked(protecting(tmp_path, BatcherKind.NONE), contents, lambda _workers, _ready: None)
    together = worked(protecting(tmp_path, BatcherKind.PROCESS), contents, kill)
    assert killed
    assert together == alone
    assert len(set(together)) == len(contents)


class Hangs(Engines):
    """What evaluates networks; the first process that is asked hangs, and holds the interpreter."""

    def runtime(self, network: Network) -> Runtime:
        try:
            Path(os.environ["HUNG"]).touch(exist_ok=False)
        except FileExistsError:
            return super().runtime(network)
        re.match("(a+)+$", "a" * 64 + "b")
        raise AssertionError("years have passed")


def run_a_batcher_that_hangs(order: Order, lifeline: Connection) -> None:
    if not Path(os.environ["HUNG"]).exists():
        batcher.LONGEST_BATCH_S = 1.0
    batcher.Engines = Hangs  # type: ignore[misc]
    run_batcher(order, lifeline)


def test_a_batcher_that_hangs_is_ended_and_replaced_and_every_instance_worked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HUNG", str(tmp_path / "hung"))
    contents = [builders.file_bytes(builders.ct(256, 256, seed=seed)) for seed in range(2)]

    def begin(workers: Workers) -> None:
        workers._batcher[0].body = run_a_batcher_that_hangs
        workers.start()

    made = worked(protecting(tmp_path, BatcherKind.PROCESS), contents, lambda _workers, _ready: None, begin)
    assert len(set(made)) == len(contents)
    (died,) = [log.line(record) for record in caplog.records if record.msg == "worker-died"]
    assert {name: died[name] for name in ("worker", "exit_code", "reason", "count")} == {
        "worker": "batcher",
        "exit_code": -signal.SIGALRM,
        "reason": "hung",
        "count": 0,
    }
