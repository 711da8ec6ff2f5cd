"""Bells over a RabbitMQ that is away, killed, purged; a slow destination; queues of another kind."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.rabbit import Rabbit, installed
from dicom_node.config import Config
from dicom_node.dispatch.application import application, work_queue
from dicom_node.dispatch.carillon import Carillon
from dicom_node.dispatch.inspection import inspect
from dicom_node.errors import BrokerError
from tests.hearing import hear

pytestmark = [
    pytest.mark.slow,
    pytest.mark.interop,
    pytest.mark.skipif(not installed(), reason="sh tools/install_peers.sh rabbitmq-server"),
]

_LIMIT_S = 60.0
Makes = Callable[[], Carillon]


@pytest.fixture(scope="module")
def rabbit() -> Iterator[Rabbit]:
    made = Rabbit()
    try:
        yield made.start()
    finally:
        made.close()


@pytest.fixture
def makes(rabbit: Rabbit, tmp_path: Path) -> Iterator[Makes]:
    """Makes bells of one cluster, each as a process of its own would have them."""
    secret = tmp_path / "secret"
    secret.write_text(rabbit.password, "ascii")
    secret.chmod(0o600)
    peer = {"ae_title": "A", "host": "h", "port": 1, "associations": 2}
    config = Config.model_validate(
        {
            "node": {"id": "n", "ae_title": "NODE"},
            "storage": {"folder": tmp_path},
            "destinations": {"slow": peer, "quick": peer},
            "routes": ({"name": "r", "role": "pass", "destinations": ("slow", "quick")},),
            "cluster": {
                "name": f"t{time.monotonic_ns() % 1_000_000_000}",
                "database": {"url": "postgresql://u@h/d"},
                "broker": {"url": rabbit.url, "password_file": str(secret)},
                "blobs": {"kind": "directory", "directory": tmp_path},
            },
        },
        strict=False,
    )
    made: list[Carillon] = []

    def make() -> Carillon:
        made.append(Carillon(config))
        return made[-1]

    yield make
    for each in made:
        each.close()


def _until(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + _LIMIT_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _hears(ringer: Carillon, hearer: Carillon) -> bool:
    """Whether a ring is heard well before anybody would have looked by himself."""
    ringer.ring_work(1)
    started = time.monotonic()
    hearer.rest_work(2.0)
    return time.monotonic() - started < 1.5


class _Elsewhere:
    """A process that hears, and what it says of it."""

    def __init__(self, bells: Carillon) -> None:
        context = multiprocessing.get_context("spawn")
        self._line, far_end = context.Pipe()
        self.process = context.Process(target=hear, args=(bells, far_end), daemon=True)
        self.process.start()
        far_end.close()

    def hears(self, limit_s: float = _LIMIT_S) -> bool:
        """Whether it is rung for in time; the turn goes on until it is ended."""
        if not self._line.poll(limit_s):
            return False
        self._line.recv()
        return True

    def end_turn(self) -> None:
        self._line.send("end")

    def end(self) -> None:
        self.process.kill()
        self.process.join()


def test_a_message_comes_again_when_who_heard_it_is_killed(makes: Makes) -> None:
    """One message only, and it is not acknowledged before the turn has ended."""
    bells = makes()
    first, second, third = _Elsewhere(bells), None, None
    try:
        bells.ring_work(1)
        assert first.hears()
        second = _Elsewhere(bells)
        assert not second.hears(5.0), "it is with the first"
        first.process.kill()
        assert second.hears()
        second.end_turn()
        assert not second.hears(3.0)
        second.process.kill()
        third = _Elsewhere(bells)
        assert not third.hears(8.0), "it was acknowledged when the turn had ended"
    finally:
        for each in (first, second, third):
            if each is not None:
                each.end()


def test_a_message_comes_again_when_the_connection_of_who_heard_it_is_cut(
    rabbit: Rabbit, makes: Makes
) -> None:
    bells = makes()
    hearer = _Elsewhere(bells)
    try:
        bells.ring_work(1)
        assert hearer.hears()
        assert rabbit.control("close_all_connections", "--global", "cut by a test")
        hearer.end_turn()
        assert hearer.hears(), "over a new connection"
        hearer.end_turn()
        assert not hearer.hears(5.0), "and then it is gone"
        bells.ring_work(2)
        assert hearer.hears()
    finally:
        hearer.end()


def test_a_broker_that_is_killed_holds_nobody_up_and_is_heard_again(rabbit: Rabbit, makes: Makes) -> None:
    ringer, hearer = makes(), makes()
    lost: list[int] = []
    ringer.tell_lost(lost.append)
    hearer.hear_work()
    _until(lambda: _hears(ringer, hearer))
    # RabbitMQ 3.10 writes the names of quorum queues every half second; one that it has not written has no
    # leader after a kill, and never gets one while the broker is alone
    time.sleep(5.0)
    rabbit.kill()
    started = time.monotonic()
    for row in range(1000):
        ringer.ring_work(row)
    assert time.monotonic() - started < 1.0
    _until(lambda: lost)
    assert not ringer.connected
    rabbit.start()
    # heard may be a message from before
    _until(lambda: _hears(ringer, hearer) and ringer.connected)


def test_a_purge_costs_nothing_that_the_next_ring_does_not_mend(rabbit: Rabbit, makes: Makes) -> None:
    ringer, hearer = makes(), makes()
    for row in range(20):
        ringer.ring_work(row)
    _until(lambda: any(name.endswith(".work") and count for name, count in rabbit.depths().items()))
    rabbit.purge()
    _until(lambda: not any(rabbit.depths().values()))
    hearer.hear_work()
    _until(lambda: _hears(ringer, hearer))


def test_an_inspection_tells_queues_that_are_there_from_those_of_another_kind(
    rabbit: Rabbit, makes: Makes
) -> None:
    bells = makes()
    cluster = bells.config.cluster
    assert cluster is not None
    assert cluster.broker is not None
    name = work_queue(cluster.name)
    assert inspect(cluster.broker, [name]) == 0
    bells.ring_work(1)
    _until(lambda: rabbit.depths().get(name))
    assert inspect(cluster.broker, [name]) == 1
    with application(cluster.broker).connection_for_write() as connection:
        connection.SimpleQueue("another-kind").close()
    with pytest.raises(BrokerError, match="of another kind"):
        inspect(cluster.broker, ["another-kind"])


def test_a_slow_destination_holds_up_no_other(makes: Makes) -> None:
    """Its lanes stay in one turn; however often it is rung for, the lanes of the other are woken."""
    ringer, hearer = makes(), makes()
    hearer.hear_sends()
    stop = threading.Event()

    def stuck() -> None:
        hearer.rest_sends("slow", _LIMIT_S)
        stop.wait(_LIMIT_S)

    lanes = [threading.Thread(target=stuck, daemon=True) for _ in range(2)]
    for lane in lanes:
        lane.start()
    try:
        for row in range(500):
            ringer.ring_sends("slow", row)
            time.sleep(0.001)
        for _ in range(5):
            _until(lambda: _wakes(ringer, hearer, "quick"))
    finally:
        stop.set()


def _wakes(ringer: Carillon, hearer: Carillon, name: str) -> bool:
    """Whether a ring is heard; one alone may be dropped, where the disk makes the broker wait for 3 s."""
    ringer.ring_sends(name)
    started = time.monotonic()
    hearer.rest_sends(name, 5.0)
    return time.monotonic() - started < 4.5
