"""Lanes, fed by a real ledger and answered by senders that do as they are told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dicom_node import forwarder
from dicom_node.config import Config
from dicom_node.errors import PeerError
from dicom_node.forwarder import Forwarder
from dicom_node.jobs import Arrival, DeliveryState, InstanceState, Outcome, Send
from dicom_node.ledger import Ledger
from dicom_node.spool import Spool

Answer = Callable[[Send], int]


class FakeSender:
    """Stands in for `dimse.store.Sender`; what it answers is looked up by destination."""

    answers: ClassVar[dict[str, Answer]] = {}
    made: ClassVar[list[FakeSender]] = []

    def __init__(self, name: str, _destination: object, _calling_ae: str) -> None:
        self.name = name
        self.connected = False
        self.closed = threading.Event()
        self.aborted = threading.Event()
        self.sent: list[Send] = []
        self.made.append(self)

    def send(self, send: Send, path: Path) -> int:
        self.sent.append(send)
        status = self.answers[self.name](send)
        self.connected = True
        return status

    def close(self) -> None:
        self.connected = False
        self.closed.set()

    def abort(self) -> None:
        self.aborted.set()


@pytest.fixture(autouse=True)
def _fake_senders(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeSender.answers, FakeSender.made = {}, []
    monkeypatch.setattr(forwarder, "Sender", FakeSender)


class Site:
    """Spool, ledger and a forwarder whose bells nobody rings."""

    def __init__(self, folder: Path, destinations: Mapping[str, Mapping[str, Any]]) -> None:
        self.config = Config.model_validate(
            {
                "node": {"id": "n", "ae_title": "NODE"},
                "storage": {"folder": folder},
                "destinations": {
                    name: {
                        "ae_title": name.upper(),
                        "host": "127.0.0.1",
                        "port": 104,
                        "associations": 1,
                        **options,
                    }
                    for name, options in destinations.items()
                },
                "routes": ({"name": "all", "role": "pass", "destinations": tuple(destinations)},),
            },
            strict=False,
        )
        self.spool = Spool(folder / "spool", 1_000_000)
        self.ledger = Ledger(folder / "ledger.sqlite")
        self.forwarder = Forwarder(
            self.config,
            self.spool,
            self.ledger,
            rest=lambda _name, _seconds: time.sleep(0.01),
            wake=lambda _name: None,
        )

    def queue(self, count: int = 1) -> None:
        """Make `count` instances ready for every destination."""
        for number in range(count):
            blob = self.spool.put([f"object {number} {time.monotonic_ns()}".encode()])
            arrival = Arrival("1.2", f"1.2.{time.monotonic_ns()}", "1.2.840.10008.1.2", "A", "B", "all")
            self.ledger.add(arrival, blob.name, blob.size)
            (work,) = self.ledger.claim_work("test", 1, 60.0)
            names = tuple(self.config.destinations)
            outcome = Outcome(
                InstanceState.READY, "passed", "", blob.name, "1.2", "1.2.3", "1.2.840.10008.1.2", names
            )
            self.ledger.finish(work, outcome)

    def tally(self, destination: str) -> dict[str, int]:
        """Deliveries of a destination by state."""
        rows = self.ledger.snapshot().deliveries
        return {row.state: row.count for row in rows if row.destination == destination}


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    sites: list[Site] = []

    def make(**destinations: Mapping[str, Any]) -> Site:
        sites.append(Site(tmp_path, destinations))
        return sites[-1]

    yield make
    for site in sites:
        site.forwarder.stop(1.0)
        site.ledger.close()


def wait_until(done: Callable[[], object], limit_s: float = 5.0) -> None:
    deadline = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def away(_send: Send) -> int:
    raise PeerError("nobody there")


def test_everything_is_delivered_and_recorded(made: Callable[..., Site]) -> None:
    site = made(a={})
    FakeSender.answers["a"] = lambda _send: 0x0000
    site.queue(20)
    site.forwarder.start()
    assert site.forwarder.alive
    wait_until(lambda: site.tally("a") == {DeliveryState.DELIVERED: 20})


def test_a_warning_counts_as_delivered(made: Callable[..., Site]) -> None:
    site = made(a={})
    FakeSender.answers["a"] = lambda _send: 0xB000
    site.queue()
    site.forwarder.start()
    wait_until(lambda: site.tally("a") == {DeliveryState.DELIVERED: 1})


def test_only_a_destination_that_is_to_commit_is_asked_to(made: Callable[..., Site]) -> None:
    site = made(a={"commitment": True}, b={})
    FakeSender.answers.update(a=lambda _send: 0x0000, b=lambda _send: 0x0000)
    site.queue()
    site.forwarder.start()
    wait_until(lambda: site.ledger.counts().idle)
    assert [(tally.destination, tally.state) for tally in site.ledger.snapshot().commitments] == [
        ("a", "wanted")
    ]


def test_a_destination_that_hangs_holds_up_no_other(made: Callable[..., Site]) -> None:
    site, go = made(hung={}, gone={}, fine={}), threading.Event()
    FakeSender.answers.update(hung=lambda _send: int(not go.wait(10)), gone=away, fine=lambda _send: 0x0000)
    site.queue(5)
    site.forwarder.start()
    wait_until(lambda: site.tally("fine") == {DeliveryState.DELIVERED: 5})
    assert site.tally("hung") == {DeliveryState.SENDING: 1, DeliveryState.QUEUED: 4}
    go.set()


def test_whoever_is_away_is_probed_with_one_object_at_a_time(made: Callable[..., Site]) -> None:
    site = made(a={"retry": {"first_s": 600.0}})
    FakeSender.answers["a"] = away
    site.queue(10)
    site.forwarder.start()
    wait_until(lambda: site.tally("a") == {DeliveryState.QUEUED: 10} and FakeSender.made[0].sent)
    time.sleep(0.2)
    assert len(FakeSender.made[0].sent) == 1


def test_what_was_claimed_with_a_failure_goes_back_untried(made: Callable[..., Site]) -> None:
    site, calls = made(a={"retry": {"first_s": 0.2, "jitter": 0.0}}), []

    def fails_once_connected(send: Send) -> int:
        calls.append(send.attempts)
        return away(send) if len(calls) == 2 else 0x0000

    FakeSender.answers["a"] = fails_once_connected
    site.queue(6)
    site.forwarder.start()
    wait_until(lambda: site.tally("a") == {DeliveryState.DELIVERED: 6})
    assert len(calls) == 7
    assert sorted(calls) == [1, 1, 1, 1, 1, 1, 2]


def test_a_refused_object_becomes_a_dead_letter_and_the_next_is_sent(made: Callable[..., Site]) -> None:
    site, first = made(a={"retry": {"refusals": 2, "first_s": 0.05}}), []

    def refuse_the_first(send: Send) -> int:
        first.append(send.id)
        return 0xC000 if send.id == first[0] else 0x0000

    FakeSender.answers["a"] = refuse_the_first
    site.queue(3)
    site.forwarder.start()
    wait_until(lambda: site.tally("a") == {DeliveryState.DELIVERED: 2, DeliveryState.DEAD: 1})
    (dead,) = site.ledger.dead_letters()
    assert (dead.reason, dead.attempts) == ("status-c000", 2)


def test_an_object_that_vanished_from_the_spool_becomes_a_dead_letter(made: Callable[..., Site]) -> None:
    site = made(a={"retry": {"refusals": 1}})
    FakeSender.answers["a"] = lambda _send: 0x0000
    site.queue()
    for path in (site.spool.folder).glob("??/*"):
        path.unlink()
    site.forwarder.start()
    wait_until(lambda: site.tally("a") == {DeliveryState.DEAD: 1})


def test_a_fault_of_the_node_does_not_end_the_lane(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder, "_FAULT_PAUSE_S", 0.01)
    site, claim, failures = made(a={}), Ledger.claim_sends, [ZeroDivisionError(), KeyError("x")]

    def flaky(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return claim(*arguments)

    monkeypatch.setattr(Ledger, "claim_sends", flaky)
    FakeSender.answers["a"] = lambda _send: 0x0000
    site.queue()
    site.forwarder.start()
    wait_until(lambda: site.tally("a") == {DeliveryState.DELIVERED: 1})


def test_the_association_is_released_when_there_is_nothing_to_send(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder, "IDLE_CLOSE_S", 0.05)
    site = made(a={})
    FakeSender.answers["a"] = lambda _send: 0x0000
    site.queue()
    site.forwarder.start()
    assert FakeSender.made[0].closed.wait(5)
    assert site.tally("a") == {DeliveryState.DELIVERED: 1}


def test_a_long_send_prolongs_its_lease(made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch) -> None:
    beaten: list[float] = []
    monkeypatch.setattr(forwarder, "LEASE_S", 1.0)
    monkeypatch.setattr(Ledger, "beat_send", lambda _self, _send, lease_s: beaten.append(lease_s))
    site = made(a={"timeout_s": 100.0})
    FakeSender.answers["a"] = lambda _send: 0x0000
    site.queue()
    site.forwarder.start()
    wait_until(lambda: site.tally("a") == {DeliveryState.DELIVERED: 1})
    assert beaten
    assert beaten[0] > 100.0


def test_stop_finishes_the_object_in_hand_and_leaves_the_rest_queued(made: Callable[..., Site]) -> None:
    site, entered = made(a={}), threading.Event()

    def slow(_send: Send) -> int:
        entered.set()
        time.sleep(0.2)
        return 0x0000

    FakeSender.answers["a"] = slow
    site.queue(5)
    site.forwarder.start()
    assert entered.wait(5)
    site.forwarder.stop(5.0)
    assert not site.forwarder.alive
    assert site.tally("a") == {DeliveryState.DELIVERED: 1, DeliveryState.QUEUED: 4}
    assert FakeSender.made[0].closed.is_set()


def test_stop_breaks_what_hangs(made: Callable[..., Site]) -> None:
    site, entered = made(a={}), threading.Event()

    def hang(_send: Send) -> int:
        entered.set()
        FakeSender.made[0].aborted.wait(10)
        return away(_send)

    FakeSender.answers["a"] = hang
    site.queue()
    site.forwarder.start()
    assert entered.wait(5)
    started = time.monotonic()
    site.forwarder.stop(0.1)
    assert time.monotonic() - started < 2.0
    assert not site.forwarder.alive
    assert site.tally("a") == {DeliveryState.QUEUED: 1}
