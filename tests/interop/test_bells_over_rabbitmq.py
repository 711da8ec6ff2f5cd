"""Bells over a RabbitMQ that is away, killed, purged; a message that comes again; a slow destination."""

from __future__ import annotations

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


def test_a_ring_is_heard_and_its_message_leaves_the_queue_when_the_turn_ends(
    rabbit: Rabbit, makes: Makes
) -> None:
    ringer, hearer = makes(), makes()
    hearer.hear_work()
    _until(lambda: _hears(ringer, hearer))
    hearer.rest_work(0.5)
    ringer.ring_work(7)
    hearer.rest_work(_LIMIT_S)
    name = next(name for name in rabbit.depths() if name.endswith(".work"))
    assert rabbit.depths()[name] >= 1, "the turn goes on, so the message is not acknowledged"
    hearer.rest_work(0.0)
    _until(lambda: (hearer.rest_work(0.1), rabbit.depths()[name] == 0)[1])


def test_the_death_of_who_heard_gives_the_message_to_another(rabbit: Rabbit, makes: Makes) -> None:
    ringer, first = makes(), makes()
    first.hear_work()
    _until(lambda: _hears(ringer, first))
    first.rest_work(0.5)
    ringer.ring_work(7)
    first.rest_work(_LIMIT_S)
    rabbit.control("close_all_connections", "as if its machine had fallen")
    second = makes()
    second.hear_work()
    started = time.monotonic()
    second.rest_work(_LIMIT_S)
    assert time.monotonic() - started < _LIMIT_S - 1.0


def test_a_broker_that_is_killed_holds_nobody_up_and_is_heard_again(rabbit: Rabbit, makes: Makes) -> None:
    ringer, hearer = makes(), makes()
    lost: list[int] = []
    ringer.tell_lost(lost.append)
    hearer.hear_work()
    _until(lambda: _hears(ringer, hearer))
    rabbit.kill()
    started = time.monotonic()
    for row in range(1000):
        ringer.ring_work(row)
    assert time.monotonic() - started < 1.0
    _until(lambda: lost)
    assert not ringer.connected
    rabbit.start()
    _until(lambda: _hears(ringer, hearer))
    assert ringer.connected


def test_a_purge_costs_nothing_that_the_next_ring_does_not_mend(rabbit: Rabbit, makes: Makes) -> None:
    ringer, hearer = makes(), makes()
    for row in range(20):
        ringer.ring_work(row)
    _until(lambda: any(name.endswith(".work") and count for name, count in rabbit.depths().items()))
    rabbit.purge()
    assert not any(rabbit.depths().values())
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
            ringer.ring_sends("quick")
            started = time.monotonic()
            hearer.rest_sends("quick", _LIMIT_S)
            assert time.monotonic() - started < _LIMIT_S / 2
    finally:
        stop.set()
