"""Lanes, fed by a real ledger and answered by senders that do as they are told.

Where days pass, `Site.run` takes the place of the threads and the clock is moved whenever a lane rests.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dicom_node import forwarder, insist, log
from dicom_node.config import Config
from dicom_node.errors import (
    BlobsUnavailable,
    ConversionError,
    LedgerUnavailable,
    PeerError,
    SpoolError,
    SpoolFull,
)
from dicom_node.forwarder import Forwarder
from dicom_node.jobs import Arrival, DeliveryState, InstanceState, Outcome, Receipt, Send
from dicom_node.ledger import Ledger
from dicom_node.metrics import ATTEMPTS, DELIVERY_DELAY, STAGE_SECONDS
from dicom_node.reach import after_restart
from dicom_node.spool import Spool
from tests.ledgers import Clock
from tests.waiting import wait_until

Answer = Callable[[Send], int]


class FakeSender:
    """Stands in for `dimse.store.Sender`; what it answers is looked up by destination."""

    answers: ClassVar[dict[str, Answer]] = {}
    takes: ClassVar[dict[str, str]] = {}
    made: ClassVar[list[FakeSender]] = []

    def __init__(self, name: str, _destination: object, _calling_ae: str, _tls: object) -> None:
        self.name = name
        self.connected = False
        self.closed = threading.Event()
        self.aborted = threading.Event()
        self.sent: list[Send] = []
        self.prepared: list[int] = []
        self.quiet = True
        self.looks = 0
        self.forgotten = 0
        self.made.append(self)

    def agree(self, send: Send, _alternatives: object = ()) -> str:
        return self.takes.get(self.name, send.transfer_syntax_uid)

    def send(self, send: Send, path: Path, _syntax: str, meanwhile: Callable[[], object]) -> int:
        if not path.exists():
            raise SpoolError("it is gone")
        self.sent.append(send)
        self.connected = False
        status = self.answers[self.name](send)
        self.connected = True
        meanwhile()
        return status

    def prepare(self, send: Send, path: Path) -> None:
        self.prepared.append(send.id)

    def is_quiet(self) -> bool:
        self.looks += 1
        return self.quiet

    def close(self) -> None:
        self.connected = False
        self.closed.set()

    def forget(self) -> None:
        self.connected = False
        self.forgotten += 1

    def abort(self) -> None:
        self.aborted.set()


@pytest.fixture(autouse=True)
def _fake_senders(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeSender.answers, FakeSender.takes, FakeSender.made = {}, {}, []
    monkeypatch.setattr(forwarder, "Sender", FakeSender)


class Site:
    """Spool, ledger and a forwarder whose bells nobody rings; with a `clock`, one that `run` moves."""

    def __init__(
        self,
        folder: Path,
        destinations: Mapping[str, Mapping[str, Any]],
        clock: Clock | None = None,
        steady: Clock | None = None,
    ) -> None:
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
        self.clock: Callable[[], float] = clock or time.time
        self.spool = Spool(folder / "spool", 1_000_000)
        self.ledger = Ledger(folder / "ledger.sqlite", clock=self.clock)
        self.forwarder = Forwarder(
            self.config,
            self.spool,
            self.ledger,
            rest=lambda _name, _seconds: time.sleep(0.01),
            wake=lambda _name: None,
            clock=self.clock,
            steady=steady,
        )

    def run(self, until: Callable[[], object], limit_s: float, step_s: float = 30.0) -> None:
        """Let every lane take its turn, then move the clock on, until it is done or the time is over."""
        assert isinstance(self.clock, Clock)
        end = self.clock() + limit_s
        for lane in self.forwarder._lanes:
            lane._rest = lambda _name, _seconds: None
            lane.stopping.wait = lambda timeout=None: False  # type: ignore[method-assign]
        while not until():
            for lane in self.forwarder._lanes:
                lane._turn()
            self.clock.now += step_s
            if self.clock() > end:
                return

    def queue(self, count: int = 1, *destinations: str, priority: int = 0) -> None:
        """Make `count` instances ready for every destination, or for those that are named."""
        for number in range(count):
            blob = self.spool.put([f"object {number} {time.monotonic_ns()}".encode()])
            arrival = Arrival("1.2", f"1.2.{time.monotonic_ns()}", "1.2.840.10008.1.2", "A", "B", "all")
            self.ledger.add(arrival, blob.name, blob.size)
            (work,) = self.ledger.claim_work("test", 1, 60.0)
            names = destinations or tuple(self.config.destinations)
            outcome = Outcome(
                InstanceState.READY, "passed", "", blob.name, "1.2", "1.2.3", "1.2.840.10008.1.2", names
            )
            self.ledger.finish(work, outcome, priority=priority)

    def tally(self, destination: str) -> dict[str, int]:
        """Deliveries of a destination by state."""
        rows = self.ledger.snapshot().deliveries
        return {row.state: row.count for row in rows if row.destination == destination}


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    sites: list[Site] = []

    def make(
        *, clock: Clock | None = None, steady: Clock | None = None, **destinations: Mapping[str, Any]
    ) -> Site:
        sites.append(Site(tmp_path, destinations, clock, steady))
        return sites[-1]

    yield make
    for site in sites:
        if any(lane.ident is not None for lane in site.forwarder._lanes):
            site.forwarder.stop(60.0)
        site.ledger.close()


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
    FakeSender.answers.update(hung=lambda _send: int(not go.wait(60)), gone=away, fine=lambda _send: 0x0000)
    site.queue(5)
    site.forwarder.start()
    wait_until(lambda: site.tally("fine") == {DeliveryState.DELIVERED: 5})
    wait_until(lambda: site.tally("hung") == {DeliveryState.SENDING: 1, DeliveryState.QUEUED: 4})
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

    def flaky(*arguments: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return claim(*arguments, **options)

    monkeypatch.setattr(Ledger, "claim_sends", flaky)
    FakeSender.answers["a"] = lambda _send: 0x0000
    site.queue()
    site.forwarder.start()
    wait_until(lambda: site.tally("a") == {DeliveryState.DELIVERED: 1})


def refusing(write: Callable[..., Any], times: int = 2) -> Callable[..., Any]:
    """A method of a ledger that has no room the first `times` times."""
    left = [LedgerUnavailable("full") for _ in range(times)]

    def wrapper(*arguments: Any, **options: Any) -> Any:
        if left:
            raise left.pop()
        return write(*arguments, **options)

    return wrapper


def test_an_answer_is_kept_until_the_ledger_takes_it(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forgotten, the object would wait for its lease and be sent a second time."""
    site = made(a={})
    FakeSender.answers["a"] = lambda _send: 0x0000
    monkeypatch.setattr(insist, "PAUSE_S", 0.01)
    monkeypatch.setattr(site.ledger, "take_receipts", refusing(site.ledger.take_receipts))
    site.queue(3)
    site.forwarder.start()
    wait_until(lambda: site.tally("a") == {"delivered": 3})
    assert sum(len(sender.sent) for sender in FakeSender.made) == 3


def test_what_was_not_sent_because_the_ledger_refused_goes_back(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = made(a={})
    FakeSender.answers["a"] = lambda _send: 0x0000
    monkeypatch.setattr(insist, "PAUSE_S", 0.01)
    monkeypatch.setattr(forwarder, "LEASE_S", 1.0)
    monkeypatch.setattr(site.ledger, "beat_send", refusing(site.ledger.beat_send))
    site.queue(2)
    site.forwarder.start()
    wait_until(lambda: site.tally("a") == {"delivered": 2})
    assert sum(len(sender.sent) for sender in FakeSender.made) == 2
    assert site.ledger.snapshot().total(ATTEMPTS, "a") == 2


def test_the_association_is_released_when_there_is_nothing_to_send(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder, "IDLE_CLOSE_S", 0.05)
    site = made(a={})
    FakeSender.answers["a"] = lambda _send: 0x0000
    site.queue()
    site.forwarder.start()
    assert FakeSender.made[0].closed.wait(60)
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
        site.forwarder._lanes[0].stopping.wait(60)
        return 0x0000

    FakeSender.answers["a"] = slow
    site.queue(5)
    site.forwarder.start()
    assert entered.wait(60)
    site.forwarder.stop(60.0)
    assert not site.forwarder.alive
    assert site.tally("a") == {DeliveryState.DELIVERED: 1, DeliveryState.QUEUED: 4}
    assert FakeSender.made[0].closed.is_set()


def test_stop_breaks_what_hangs(made: Callable[..., Site]) -> None:
    site, entered = made(a={}), threading.Event()

    def hang(_send: Send) -> int:
        entered.set()
        FakeSender.made[0].aborted.wait(60)
        return away(_send)

    FakeSender.answers["a"] = hang
    site.queue()
    site.forwarder.start()
    assert entered.wait(60)
    site.forwarder.stop(0.1)
    wait_until(lambda: not site.forwarder.alive)
    assert site.tally("a") == {DeliveryState.QUEUED: 1}


DAY_S = 86400.0


def served(name: str) -> list[int]:
    """The deliveries that reached the peers of a destination, in order."""
    return [send.id for sender in FakeSender.made if sender.name == name for send in sender.sent]


class Peer:
    """Answers for a destination that comes and goes, and counts."""

    def __init__(self, name: str, clock: Clock) -> None:
        self.clock = clock
        self.there = True
        self.status: Callable[[Send], int] = lambda _send: 0x0000
        self.taken: list[int] = []
        self.asked_at: list[float] = []
        FakeSender.answers[name] = self._answer

    def _answer(self, send: Send) -> int:
        self.asked_at.append(self.clock())
        if not self.there:
            raise PeerError("nobody there", reason="unreachable")
        status = self.status(send)
        if status == 0x0000:
            self.taken.append(send.id)
        return status


def test_days_of_outage_cost_few_attempts_and_lose_nothing(made: Callable[..., Site]) -> None:
    clock = Clock()
    site, pacs = made(clock=clock, pacs={"associations": 2}), Peer("pacs", clock)
    pacs.there = False
    site.queue(30)
    site.run(lambda: False, 2 * DAY_S)
    assert site.tally("pacs") == {DeliveryState.QUEUED: 30}
    assert len(pacs.asked_at) <= 2 * DAY_S / (900 * 0.8) + 10
    assert site.ledger.down_s()["pacs"] > 1.9 * DAY_S
    waits = [later - earlier for earlier, later in itertools.pairwise(pacs.asked_at[20:])]
    assert len({round(wait / 30) for wait in waits}) > 5, "the waits are spread"

    pacs.there = True
    back_at = clock()
    site.run(lambda: site.tally("pacs") == {DeliveryState.DELIVERED: 30}, DAY_S)
    assert sorted(pacs.taken) == sorted(set(pacs.taken))
    assert len(pacs.taken) == 30
    assert clock() - back_at < 1.2 * 900 + 1.2 * 900 + 60
    assert site.ledger.outages() == {}


def test_a_wall_clock_that_is_set_back_keeps_nobody_waiting(made: Callable[..., Site]) -> None:
    """The machine was an hour ahead and is corrected while the destination is down."""
    wall, steady = Clock(), Clock()
    site = made(clock=wall, pacs={"retry": {"first_s": 10.0}}, steady=steady)
    pacs = Peer("pacs", wall)
    pacs.there = False
    site.queue(1)
    site.run(lambda: pacs.asked_at, 60.0)
    pacs.there = True
    wall.now -= 3600.0
    watch = site.forwarder._sites["pacs"].watch
    assert not watch.asks_next()
    steady.now += 15.0
    assert watch.asks_next()
    assert watch.admits(object())


def test_a_steady_clock_does_not_jump(monkeypatch: pytest.MonkeyPatch) -> None:
    wall, passed = [5000.0], [70.0]
    monkeypatch.setattr(forwarder.time, "time", lambda: wall[0])
    monkeypatch.setattr(forwarder.time, "monotonic", lambda: passed[0])
    steady = forwarder.steady_clock()
    assert steady() == 5000.0
    wall[0] = 1.0
    passed[0] += 10.0
    assert steady() == 5010.0


def test_a_delivery_is_timed(made: Callable[..., Site]) -> None:
    clock = Clock()
    site = made(clock=clock, pacs={})
    Peer("pacs", clock)
    site.queue(2)
    clock.now += 40.0
    site.run(lambda: site.tally("pacs") == {DeliveryState.DELIVERED: 2}, DAY_S)
    figures = site.ledger.snapshot()
    assert figures.total(STAGE_SECONDS, "send") == 2
    assert figures.total(DELIVERY_DELAY, "pacs") == 2
    (waited,) = [
        each.value for each in figures.counted if each.metric == DELIVERY_DELAY.name and not each.bound
    ]
    assert 80.0 <= waited < 300.0


def test_an_operator_ends_the_wait(made: Callable[..., Site]) -> None:
    clock = Clock()
    site, pacs = made(clock=clock, pacs={"associations": 2}), Peer("pacs", clock)
    pacs.there = False
    site.queue(5)
    site.run(lambda: False, DAY_S)
    pacs.there = True
    asked = clock()
    site.ledger.resume("pacs")
    site.run(lambda: pacs.taken, 3600.0, step_s=1.0)
    assert clock() - asked < 5.0


def test_only_one_lane_asks_whoever_is_down(made: Callable[..., Site]) -> None:
    site, together, most = made(a={"associations": 4, "retry": {"first_s": 0.05, "cap_s": 0.05}}), [0], [0]
    lock = threading.Lock()

    def gone(_send: Send) -> int:
        with lock:
            together[0] += 1
            most[0] = max(most[0], together[0]) if site.ledger.outages() else most[0]
        time.sleep(0.02)
        with lock:
            together[0] -= 1
        raise PeerError("nobody there")

    FakeSender.answers["a"] = gone
    site.queue(20)
    site.ledger.went_down("a", 1.0)
    site.forwarder._sites["a"].watch.reach = after_restart(1.0, 0.0)
    site.forwarder.start()
    wait_until(lambda: len(served("a")) >= 8)
    assert most[0] == 1


def test_a_busy_archive_is_left_in_peace_until_it_takes_again(made: Callable[..., Site]) -> None:
    clock = Clock()
    site, pacs = made(clock=clock, pacs={}), Peer("pacs", clock)
    pacs.status = lambda _send: 0xA700
    site.queue(20)
    site.run(lambda: False, DAY_S)
    assert len(pacs.asked_at) <= DAY_S / (900 * 0.8) + 15
    pacs.status = lambda _send: 0x0000
    site.run(lambda: site.tally("pacs") == {DeliveryState.DELIVERED: 20}, DAY_S)
    assert len(pacs.taken) == 20


@pytest.mark.parametrize("kind", ["refuses", "is busy", "hangs up"])
def test_one_object_that_never_goes_through_holds_up_nobody(made: Callable[..., Site], kind: str) -> None:
    clock = Clock()
    site, pacs = made(clock=clock, pacs={}), Peer("pacs", clock)

    def dislikes_the_first(send: Send) -> int:
        if send.id != 1:
            return 0x0000
        if kind == "hangs up":
            raise PeerError("closed the association", reason="closed")
        return 0xC000 if kind == "refuses" else 0xA700

    pacs.status = dislikes_the_first
    site.queue(30)
    started = clock()
    site.run(lambda: len(pacs.taken) == 29, DAY_S, step_s=1.0)
    assert sorted(pacs.taken) == list(range(2, 31))
    assert clock() - started < 60
    site.queue(5)
    site.run(lambda: len(pacs.taken) == 34, DAY_S, step_s=1.0)
    assert len(pacs.taken) == 34
    if kind == "refuses":
        site.run(lambda: False, 3600.0)
        assert site.tally("pacs") == {DeliveryState.DELIVERED: 34, DeliveryState.DEAD: 1}


def test_a_refusal_after_a_long_outage_still_has_its_chances(made: Callable[..., Site]) -> None:
    clock = Clock()
    site, pacs = made(clock=clock, pacs={}), Peer("pacs", clock)
    pacs.there = False
    site.queue(1)
    site.run(lambda: False, DAY_S)
    pacs.there, pacs.status = True, lambda send: 0xC000 if send.refusals < 2 else 0x0000
    site.run(lambda: site.tally("pacs") == {DeliveryState.DELIVERED: 1}, DAY_S)
    assert site.tally("pacs") == {DeliveryState.DELIVERED: 1}


def test_an_outage_that_cannot_be_noted_leaves_the_batch_to_the_next_turn(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    site, pacs = made(clock=clock, pacs={}), Peer("pacs", clock)
    site.queue(1)
    site.run(lambda: pacs.taken, 60.0)
    site.queue(5)

    full, went_down = [True], Ledger.went_down

    def refuse(book: Ledger, destination: str, since: float) -> None:
        if full:
            raise LedgerUnavailable("it cannot be written")
        went_down(book, destination, since)

    monkeypatch.setattr(Ledger, "went_down", refuse)
    pacs.there = False
    with pytest.raises(LedgerUnavailable):
        site.run(lambda: False, 60.0)
    assert site.tally("pacs") == {DeliveryState.DELIVERED: 1, DeliveryState.QUEUED: 5}
    full.clear()
    site.run(site.ledger.outages, 60.0)
    assert set(site.ledger.outages()) == {"pacs"}, "or it would be down, and nobody could see it"


def test_what_is_urgent_goes_first(made: Callable[..., Site]) -> None:
    clock = Clock()
    site, pacs = made(clock=clock, pacs={}), Peer("pacs", clock)
    site.queue(2, priority=-10)
    site.queue(2)
    site.queue(2, priority=10)
    site.run(lambda: len(pacs.taken) == 6, 3600.0)
    assert pacs.taken == [5, 6, 3, 4, 1, 2]


def local(hour: int, minute: int = 0) -> float:
    """A moment of a summer day on this machine's clock."""
    return datetime(2026, 7, 1, hour, minute).timestamp()


def test_outside_its_hours_a_queue_waits_and_says_so(made: Callable[..., Site]) -> None:
    clock = Clock()
    clock.now = local(12)
    site = made(clock=clock, night={"windows": ["22:00-06:00"]}, always={})
    night, always = Peer("night", clock), Peer("always", clock)
    site.queue(4)
    site.run(lambda: clock() >= local(21, 59), DAY_S, step_s=60.0)
    assert (night.asked_at, len(always.taken)) == ([], 4)
    assert site.forwarder.closed() == ["night"]
    site.run(lambda: len(night.taken) == 4, DAY_S, step_s=60.0)
    assert local(22) <= night.asked_at[0] < local(22, 5)
    assert site.forwarder.closed() == []


def test_when_the_window_closes_the_rest_goes_back_untried(made: Callable[..., Site]) -> None:
    clock = Clock()
    clock.now = local(5, 58)
    site = made(clock=clock, night={"windows": ["22:00-06:00"]})
    night = Peer("night", clock)

    def takes_a_minute(_send: Send) -> int:
        clock.now += 60.0
        return 0x0000

    night.status = takes_a_minute
    site.queue(10)
    site.run(lambda: False, 3600.0)
    assert len(night.taken) == 2
    assert site.tally("night") == {DeliveryState.DELIVERED: 2, DeliveryState.QUEUED: 8}
    assert {send.attempts for send in site.ledger.claim_sends("night", 20, 1.0)} == {1}


PAIR: dict[str, dict[str, Any]] = {"main": {"failover": "other", "failover_after_s": 600.0}, "other": {}}


def test_a_fail_over_takes_over_and_gives_back(made: Callable[..., Site]) -> None:
    clock = Clock()
    site = made(clock=clock, **PAIR)
    main, other = Peer("main", clock), Peer("other", clock)
    main.there = False
    site.queue(20, "main")
    site.run(lambda: False, 500.0)
    assert other.taken == []
    assert site.forwarder.failed_over() == []
    site.run(lambda: len(other.taken) >= 19, 3600.0)
    assert site.forwarder.failed_over() == ["main"]
    assert min(other.asked_at) - main.asked_at[0] >= 600.0
    site.run(lambda: site.tally("main") == {DeliveryState.DELIVERED: 20}, 7200.0)
    assert site.ledger.results()["other", "delivered"] == 20

    main.there = True
    for _ in range(12):
        site.queue(1, "main")
        site.run(lambda: False, 120.0)
    assert site.forwarder.failed_over() == []
    assert len(main.taken) >= 2, "it has its deliveries back"
    assert sorted(main.taken + other.taken) == list(range(1, 33)), "each arrived once"
    said = [(event.what, event.reason) for event in site.ledger.trace("1.2.3") if event.destination == "main"]
    assert said.count(("failed-over", "other")) == len(other.taken)


def test_an_outage_that_began_before_a_restart_still_counts(made: Callable[..., Site]) -> None:
    clock = Clock()
    first = made(clock=clock, **PAIR)
    main = Peer("main", clock)
    other = Peer("other", clock)
    main.there = False
    first.queue(5, "main")
    first.run(lambda: False, 400.0)
    again = made(clock=clock, **PAIR)
    began = clock()
    again.run(lambda: other.taken, 3600.0)
    assert clock() - began < 300.0
    assert again.forwarder.failed_over() == ["main"]


def test_what_the_stand_in_refuses_is_kept_for_its_own_destination(made: Callable[..., Site]) -> None:
    clock = Clock()
    site = made(clock=clock, **PAIR)
    main, other = Peer("main", clock), Peer("other", clock)
    main.there, other.status = False, lambda _send: 0xC000
    site.queue(3, "main")
    site.run(lambda: False, DAY_S)
    assert site.tally("main") == {DeliveryState.QUEUED: 3}
    assert len(other.asked_at) > 6
    main.there = True
    site.run(lambda: len(main.taken) == 3, DAY_S)
    assert site.tally("main") == {DeliveryState.DELIVERED: 3}


def test_a_lane_hears_no_bells_for_a_destination_that_is_paused(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder, "POLL_S", 0.05)
    site = made(a={})
    (lane,) = site.forwarder._lanes
    rests: list[float] = []
    monkeypatch.setattr(lane, "_rest", lambda _name, seconds: rests.append(seconds))
    lane._turn()
    assert rests == [0.05]
    time.sleep(0.06)
    site.ledger.pause("a")
    site.queue(3)
    started = time.monotonic()
    lane._turn()
    assert time.monotonic() - started >= 0.05
    assert rests == [0.05, 0.0], "what was rung meanwhile is forgotten"
    site.ledger.resume("a")
    FakeSender.answers["a"] = lambda _send: 0x0000
    lane._turn()
    assert site.tally("a") == {DeliveryState.DELIVERED: 3}


def test_a_paused_fail_over_takes_nothing(made: Callable[..., Site]) -> None:
    clock = Clock()
    site = made(clock=clock, **PAIR)
    main, other = Peer("main", clock), Peer("other", clock)
    main.there = False
    site.queue(3, "main")
    site.ledger.pause("other")
    site.run(lambda: False, 7200.0)
    assert other.asked_at == []
    site.ledger.resume("other")
    site.run(lambda: len(other.taken) == 3, 7200.0)
    assert len(other.taken) == 3


def test_a_fail_over_that_is_down_as_well_loses_nothing(made: Callable[..., Site]) -> None:
    clock = Clock()
    site = made(clock=clock, **PAIR)
    main, other = Peer("main", clock), Peer("other", clock)
    main.there = other.there = False
    site.queue(10, "main")
    site.run(lambda: False, DAY_S)
    assert site.tally("main") == {DeliveryState.QUEUED: 10}
    other.there = True
    site.run(lambda: len(other.taken) == 10, DAY_S)
    assert site.tally("main") == {DeliveryState.DELIVERED: 10}


def test_a_destination_outside_its_hours_does_not_fail_over(made: Callable[..., Site]) -> None:
    clock = Clock()
    clock.now = local(5, 55)
    site = made(clock=clock, main={**PAIR["main"], "windows": ["22:00-06:00"]}, other={})
    main, other = Peer("main", clock), Peer("other", clock)
    main.there = False
    site.queue(1, "main")
    site.run(lambda: clock() >= local(21), DAY_S)
    assert main.asked_at
    assert other.taken == []


EXPLICIT = "1.2.840.10008.1.2.1"


def converting(site: Site, monkeypatch: pytest.MonkeyPatch, *failures: Exception) -> list[str]:
    """Let conversions fail in turn, then succeed; the objects that were given to convert."""
    asked, waiting = [], list(failures)

    def convert(_self: object, blob: str, syntax: str, _limit_s: float) -> str:
        asked.append(blob)
        if waiting:
            raise waiting.pop(0)
        return site.spool.put([b"converted ", blob.encode(), syntax.encode()]).name

    monkeypatch.setattr(forwarder.Transcoder, "convert", convert)
    FakeSender.takes["a"] = EXPLICIT
    return asked


def test_what_is_not_taken_as_it_is_is_converted_once(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    site, peer = made(clock=clock, a={}), Peer("a", clock)
    asked = converting(site, monkeypatch)
    peer.status = lambda send: 0xA700 if send.attempts < 4 else 0x0000
    site.queue(1)
    site.run(lambda: peer.taken, DAY_S)
    assert site.tally("a") == {DeliveryState.DELIVERED: 1}
    assert len(asked) == 1
    made_name = site.ledger.conversion(asked[0], EXPLICIT)
    assert made_name is not None
    site.spool.path(made_name).unlink()
    site.queue(1)
    site.run(lambda: len(peer.taken) == 2, DAY_S)
    assert len(asked) == 2


def test_a_conversion_is_made_again_when_its_bytes_are_gone(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    site, peer = made(clock=clock, a={}), Peer("a", clock)
    asked = converting(site, monkeypatch)

    def lose_it(send: Send) -> int:
        if send.attempts > 1:
            return 0x0000
        name = site.ledger.conversion(send.blob, EXPLICIT)
        assert name is not None
        site.spool.path(name).unlink()
        return 0xA700

    peer.status = lose_it
    site.queue(1)
    site.run(lambda: peer.taken, DAY_S)
    assert len(asked) == 2


@pytest.mark.parametrize("reason", ["not-convertible", "conversion-crashed", "conversion-hung"])
def test_what_cannot_be_converted_is_a_dead_letter_and_the_next_goes_on(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    clock = Clock()
    site, peer = made(clock=clock, a={"retry": {"refusals": 2}}), Peer("a", clock)
    errors = [ConversionError("it is broken", reason=reason) for _ in range(2)]
    asked = converting(site, monkeypatch, *errors)
    site.queue(1)
    site.run(lambda: site.tally("a") == {DeliveryState.DEAD: 1}, DAY_S)
    (letter,) = site.ledger.dead_letters()
    assert (letter.reason, len(asked)) == (reason, 2)
    site.queue(1)
    site.run(lambda: peer.taken, DAY_S)
    assert site.ledger.outages() == {}
    assert site.ledger.results() == {("a", "delivered"): 1, ("a", reason): 2}


@pytest.mark.parametrize(
    ("error", "reason"),
    [(SpoolFull("no room left"), "spool-full"), (BlobsUnavailable("no answer"), "spool-unavailable")],
)
def test_what_is_wrong_with_the_spool_is_no_fault_of_the_object(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    clock = Clock()
    site, peer = made(clock=clock, a={"retry": {"refusals": 1}}), Peer("a", clock)
    converting(site, monkeypatch, *(error for _ in range(5)))
    site.queue(1)
    site.run(lambda: peer.taken, DAY_S)
    assert site.tally("a") == {DeliveryState.DELIVERED: 1}
    assert site.ledger.results() == {("a", "delivered"): 1, ("a", reason): 5}


def test_a_conversion_that_stop_ended_counts_for_nothing(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = made(a={"retry": {"refusals": 1}})
    entered, ended = threading.Event(), threading.Event()

    def hang(_self: object, *_order: object) -> str:
        entered.set()
        ended.wait(60)
        raise ConversionError("the process ended", reason="conversion-crashed")

    monkeypatch.setattr(forwarder.Transcoder, "convert", hang)
    monkeypatch.setattr(forwarder.Transcoder, "abort", lambda _self: ended.set())
    FakeSender.takes["a"] = EXPLICIT
    site.queue(1)
    site.forwarder.start()
    assert entered.wait(60)
    site.forwarder.stop(0.1)
    wait_until(lambda: not site.forwarder.alive)
    assert site.tally("a") == {DeliveryState.QUEUED: 1}


# ---- what nobody had thought of ----


def raising(error: Exception) -> Callable[..., Any]:
    def wrapper(*_arguments: object, **_options: object) -> Any:
        raise error

    return wrapper


@pytest.mark.parametrize(
    "error", [MemoryError(), ValueError("DOE^JOHN"), RecursionError(), AttributeError("x")]
)
def test_an_object_with_which_our_code_always_fails_backs_off_and_is_given_up(
    made: Callable[..., Site], error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing stays leased, those behind it are sent at once, and it is told without what the error says."""
    clock = Clock()
    retry = {"refusals": 3, "first_s": 60.0, "factor": 10.0, "jitter": 0.0}
    site, peer, failed_at = made(clock=clock, pacs={"retry": retry}), Peer("pacs", clock), list[float]()

    def fail(send: Send) -> int:
        if send.id == 1:
            failed_at.append(clock())
            raise error
        return 0x0000

    peer.status = fail
    site.queue(3)
    site.run(lambda: peer.taken == [2, 3], 60.0, step_s=1.0)
    assert clock() < 1_000_004.0, "those behind it were sent at once"
    assert site.tally("pacs") == {DeliveryState.DELIVERED: 2, DeliveryState.QUEUED: 1}
    site.run(lambda: site.ledger.dead_letters(), DAY_S, step_s=1.0)
    waits = [round(after - before) for before, after in itertools.pairwise(failed_at)]
    assert [60 <= waits[0] <= 61, 600 <= waits[1] <= 601] == [True, True]
    (letter,) = site.ledger.dead_letters()
    assert (letter.reason, letter.attempts) == ("unexpected-error", 3)
    assert site.ledger.results() == {("pacs", "delivered"): 2, ("pacs", "unexpected-error"): 3}
    assert site.ledger.snapshot().total(ATTEMPTS, "pacs") == 5
    assert site.ledger.outages() == {}, "it says nothing about the destination"
    assert FakeSender.made[0].forgotten == 3, "who knows what state its association is in"
    told = [log.line(record) for record in caplog.records if record.msg == "forwarder-fault"]
    assert [(line["exception"], line["delivery"]) for line in told] == [(type(error).__name__, 1)] * 3
    lines = " ".join(str(log.line(record)) for record in caplog.records)
    assert "DOE" not in lines


def test_what_fails_while_the_next_is_read_ahead_costs_the_object_under_way_nothing(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    site, peer = made(clock=clock, pacs={}), Peer("pacs", clock)
    monkeypatch.setattr(FakeSender, "prepare", raising(MemoryError()))
    FakeSender.made[0].connected = True
    site.queue(3)
    site.forwarder._lanes[0]._turn()
    assert peer.taken == [1, 2, 3]
    assert site.tally("pacs") == {DeliveryState.DELIVERED: 3}


def test_what_fails_beside_an_object_under_way_costs_it_nothing(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    site, peer = made(clock=clock, pacs={}), Peer("pacs", clock)
    site.queue(1)
    lane = site.forwarder._lanes[0]
    lane._claim(1)
    claimed = lane._claimed.popleft()
    monkeypatch.setattr(lane, "_is_overdue", raising(ZeroDivisionError()))
    lane._deliver(claimed.send, claimed.at)
    monkeypatch.undo()
    lane._settle()
    assert peer.taken == [1]
    assert site.tally("pacs") == {DeliveryState.DELIVERED: 1}


def test_what_stop_may_have_broken_counts_for_nothing(made: Callable[..., Site]) -> None:
    site, entered = made(a={"retry": {"refusals": 1}}), threading.Event()

    def hang(_send: Send) -> int:
        entered.set()
        FakeSender.made[0].aborted.wait(60)
        raise AttributeError("its socket is gone")

    FakeSender.answers["a"] = hang
    site.queue()
    site.forwarder.start()
    assert entered.wait(60)
    site.forwarder.stop(0.1)
    assert site.tally("a") == {DeliveryState.QUEUED: 1}


# ---- what was answered and is not recorded yet ----


def recordings(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many receipts each transaction took."""
    sizes: list[int] = []
    real = Ledger._take_receipts

    def count(book: Ledger, connection: Any, receipts: Sequence[Receipt]) -> None:
        sizes.append(len(receipts))
        real(book, connection, receipts)

    monkeypatch.setattr(Ledger, "_take_receipts", count)
    return sizes


def test_answers_are_recorded_together_and_never_more_than_a_few(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = made(a={})
    monkeypatch.setattr(forwarder, "HELD_BACK_S", 60.0)
    sizes, most, held = recordings(site, monkeypatch), [0], [0]

    def answer(_send: Send) -> int:
        most[0] = max(most[0], held[0] - sum(sizes))
        held[0] += 1
        return 0x0000

    FakeSender.answers["a"] = answer
    site.queue(20)
    site.forwarder.start()
    wait_until(lambda: site.tally("a") == {DeliveryState.DELIVERED: 20})
    assert sum(sizes) == 20
    assert len(sizes) < 20
    assert most[0] <= forwarder.HELD_BACK


def test_whoever_has_nothing_left_to_send_has_recorded_everything(made: Callable[..., Site]) -> None:
    clock = Clock()
    site, pacs = made(clock=clock, pacs={}), Peer("pacs", clock)
    for _ in range(3):
        site.queue(1)
        site.forwarder._lanes[0]._turn()
        assert site.ledger.counts().idle
    assert len(pacs.taken) == 3


def test_an_answer_is_recorded_with_the_claim_of_what_comes_soon(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder, "HELD_BACK_S", 60.0)
    clock = Clock()
    site, pacs = made(clock=clock, pacs={}), Peer("pacs", clock)
    lane, rested = site.forwarder._lanes[0], list[float]()
    lane.sender.connected = True
    recorded = recordings(site, monkeypatch)

    def rest(_name: str, seconds: float) -> None:
        rested.append(seconds)
        if len(rested) == 1:
            site.queue(1)

    lane._rest, lane._rung = rest, lambda _name: False
    site.queue(1)
    lane._turn()
    assert pacs.taken == [1, 2]
    assert recorded == [1, 1], "with the claim of the second, and with one that found nothing"
    assert [0 < seconds <= forwarder.HELD_BACK_S for seconds in rested] == [True, True]
    assert site.ledger.counts().idle


def test_while_the_destination_works_a_lane_claims_only_what_is_likely_to_be_there(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder, "HELD_BACK_S", 60.0)
    clock = Clock()
    site, pacs = made(clock=clock, pacs={}), Peer("pacs", clock)
    lane, claims = site.forwarder._lanes[0], list[int]()
    lane.sender.connected = True
    claim = site.ledger.claim_sends
    monkeypatch.setattr(
        site.ledger, "claim_sends", lambda *asked, **more: claims.append(1) or claim(*asked, **more)
    )
    lane._rest = lambda _name, _seconds: None
    for rung, expected in ((False, 2), (True, 3)):
        claims.clear()
        lane._rung = lambda _name, rung=rung: rung  # type: ignore[misc]
        site.queue(1)
        lane._turn()
        assert len(claims) == expected
    assert pacs.taken == [1, 2]


def test_while_its_bell_is_silent_a_lane_asks_the_ledger_for_nothing(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder, "POLL_S", 3600.0)
    clock = Clock()
    site, pacs = made(clock=clock, pacs={}), Peer("pacs", clock)
    lane, claims, rang = site.forwarder._lanes[0], list[int](), [False]
    claim = site.ledger.claim_sends
    monkeypatch.setattr(
        site.ledger, "claim_sends", lambda *asked, **more: claims.append(1) or claim(*asked, **more)
    )
    lane._rest, lane._rung = lambda _name, _seconds: rang[0], lambda _name: False
    for _ in range(5):
        lane._turn()
    assert len(claims) == 1, "nobody can have rung before it first looked"
    rang[0] = True
    lane._turn()
    lane._turn()
    assert len(claims) == 2
    rang[0] = False
    lane._turn()
    site.queue(1)
    claims.clear()
    lane._turn()
    assert claims == []
    lane._looked_at -= forwarder.POLL_S
    lane._turn()
    assert pacs.taken == [1], "what falls due by itself is found all the same"


def test_a_lane_that_gave_back_looks_again(made: Callable[..., Site]) -> None:
    site = made(a={})
    lane = site.forwarder._lanes[0]
    lane._rest, lane._rung = lambda _name, _seconds: False, lambda _name: False
    site.queue(1)
    lane._claim(16)
    assert not lane._expects_more()
    lane._end_turn()
    assert lane._expects_more()


def test_what_is_recorded_with_a_claim_is_held_back_until_it_is_on_disk(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder, "HELD_BACK_S", 60.0)
    site, synced = made(a={}), list[int]()
    lane = site.forwarder._lanes[0]
    sync = site.ledger.sync
    monkeypatch.setattr(site.ledger, "sync", lambda: synced.append(1) or sync())
    site.queue(6)
    lane._claim(6)
    sends = [claimed.send for claimed in lane._claimed]
    for number, send in enumerate(sends[:3]):
        lane._decide(send, 0x0000, 0.1)
        lane._claim(1)
        assert lane._held_back() == number + 1
    assert lane._is_overdue() is False
    lane._settle()
    assert (synced, lane._held_back()) == ([1], 0)
    lane._decide(sends[3], 0x0000, 0.1)
    lane._claim(1)
    assert lane._held_back() == 1
    site.queue(1)  # somebody else waits for the disk
    assert lane._held_back() == 0
    monkeypatch.setattr(forwarder, "HELD_BACK", 1)
    lane._decide(sends[4], 0x0000, 0.1)
    lane._claim(1)
    assert lane._held_back() == 0, "that many do not wait for others"
    assert synced == [1]


def test_a_lane_at_rest_has_what_it_recorded_on_disk_in_time(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder, "HELD_BACK_S", 60.0)
    monkeypatch.setattr(forwarder, "POLL_S", 100.0)
    site, rested = made(a={}), list[float]()
    lane = site.forwarder._lanes[0]
    lane._rest = lambda _name, seconds: rested.append(seconds)
    site.queue(2)
    lane._claim(1)
    lane._decide(lane._claimed.popleft().send, 0x0000, 0.1)
    lane._claim(0)
    lane._idle()
    assert 0.0 <= rested[0] <= forwarder.HELD_BACK_S
    assert lane._unsure is not None
    lane._unsure = replace(lane._unsure, since=time.monotonic() - forwarder.HELD_BACK_S)
    lane._idle()
    assert lane._unsure is None


def test_who_is_told_to_stop_while_it_waits_for_more_claims_nothing(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder, "HELD_BACK_S", 60.0)
    clock = Clock()
    site, pacs = made(clock=clock, pacs={}), Peer("pacs", clock)
    lane, given_back = site.forwarder._lanes[0], list[Send]()
    lane.sender.connected = True
    monkeypatch.setattr(site.ledger, "put_back", given_back.append)

    def rest(_name: str, _seconds: float) -> None:
        site.queue(3)
        lane.stopping.set()

    lane._rest, lane._rung = rest, lambda _name: False
    site.queue(1)
    lane._turn()
    assert pacs.taken == [1]
    assert given_back == []
    assert site.tally("pacs") == {DeliveryState.DELIVERED: 1, DeliveryState.QUEUED: 3}


def test_an_answer_is_not_held_back_for_long_beside_a_slow_object(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a destination keeps us waiting, what it said before is recorded after `HELD_BACK_S`."""
    site = made(a={})
    lane = site.forwarder._lanes[0]
    FakeSender.answers["a"] = lambda _send: 0x0000
    site.queue(2)
    lane._claim(2)
    first, second = (claimed.send for claimed in lane._claimed)
    lane._claimed.clear()
    monkeypatch.setattr(lane, "_goes_on", lambda: False)
    lane._decide(first, 0x0000, 0.1)
    lane._taken[0] = replace(lane._taken[0], at=time.monotonic() + 100)
    again_s = lane._meanwhile()
    assert again_s is not None
    assert site.tally("a") == {DeliveryState.SENDING: 2}
    lane._taken[0] = replace(lane._taken[0], at=time.monotonic() - forwarder.HELD_BACK_S)
    assert lane._meanwhile() is None
    assert site.tally("a") == {DeliveryState.SENDING: 1, DeliveryState.DELIVERED: 1}
    lane._decide(second, 0x0000, 0.1)
    lane._settle()
    assert site.ledger.counts().idle


def test_before_a_large_object_nothing_is_held_back(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = made(a={})
    monkeypatch.setattr(forwarder, "HELD_BACK_S", 60.0)
    monkeypatch.setattr(forwarder, "_QUICK_BYTES", -1)
    sizes = recordings(site, monkeypatch)
    FakeSender.answers["a"] = lambda _send: 0x0000
    site.queue(6)
    site.forwarder.start()
    wait_until(lambda: site.tally("a") == {DeliveryState.DELIVERED: 6})
    assert set(sizes) == {1}


def test_of_what_another_has_leased_since_the_answer_is_dropped_and_the_rest_recorded(
    made: Callable[..., Site],
) -> None:
    clock = Clock()
    site, _ = made(clock=clock, pacs={}), Peer("pacs", clock)
    lane = site.forwarder._lanes[0]
    site.queue(3)
    lane._claim(3)
    first, second, third = (claimed.send for claimed in lane._claimed)
    lane._claimed.clear()
    site.ledger.put_back(second)
    for send in (first, second, third):
        lane._decide(send, 0x0000, 0.1)
    lane._settle()
    assert lane._taken == []
    assert site.tally("pacs") == {DeliveryState.QUEUED: 1, DeliveryState.DELIVERED: 2}


def test_a_ledger_that_refuses_meanwhile_costs_neither_the_answer_nor_the_association(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = made(a={})
    FakeSender.answers["a"] = lambda _send: 0x0000
    monkeypatch.setattr(insist, "PAUSE_S", 0.01)
    monkeypatch.setattr(forwarder, "HELD_BACK", 2)
    monkeypatch.setattr(site.ledger, "take_receipts", refusing(site.ledger.take_receipts, 7))
    site.queue(12)
    site.forwarder.start()
    wait_until(lambda: site.tally("a") == {DeliveryState.DELIVERED: 12})
    assert sum(len(sender.sent) for sender in FakeSender.made) == 12
    assert site.ledger.results() == {("a", "delivered"): 12}


def test_what_comes_next_is_claimed_and_read_while_the_destination_works(made: Callable[..., Site]) -> None:
    clock = Clock()
    site, pacs = made(clock=clock, pacs={}), Peer("pacs", clock)
    site.queue(1)
    pacs.status = lambda send: site.queue(1) or 0x0000 if len(pacs.taken) < 4 else 0x0000  # type: ignore[func-returns-value]
    site.forwarder._lanes[0]._turn()
    assert pacs.taken == [1, 2, 3, 4, 5]
    assert FakeSender.made[0].prepared == [2, 3, 4, 5]


def test_who_rests_looks_whether_its_peer_has_said_something(made: Callable[..., Site]) -> None:
    site = made(a={})
    FakeSender.answers["a"] = lambda _send: 0x0000
    site.queue(1)
    site.forwarder.start()
    wait_until(lambda: FakeSender.made[0].looks > 1)
    assert site.tally("a") == {DeliveryState.DELIVERED: 1}
    assert FakeSender.made[0].connected
    FakeSender.made[0].quiet = False
    wait_until(FakeSender.made[0].closed.is_set)
