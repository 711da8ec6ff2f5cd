"""One worker's loop with a real ledger; and the processes around it, killed and all."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blessmark.errors import WatermarkError
from dicom_node import insist, log, private, signers, worker
from dicom_node.bells import Bells
from dicom_node.config import Config, Keys
from dicom_node.errors import (
    BlobsUnavailable,
    InputError,
    LedgerError,
    LedgerUnavailable,
    NodeError,
    SpoolError,
    SpoolFull,
    StaleLease,
)
from dicom_node.jobs import Arrival, InstanceState, Outcome, Work
from dicom_node.keys import FileKeyRing, generate
from dicom_node.ledger import Ended, Ledger
from dicom_node.measuring import Measured, stage, tell_modality
from dicom_node.metrics import LOST, PROCESSED, STAGE_SECONDS, UNPROTECTED, NetworkRun, Reading
from dicom_node.spool import Spool
from dicom_node.watchdog import Watchdog
from dicom_node.worker import (
    PATIENCE,
    Heart,
    Processor,
    Tell,
    Worker,
    Workers,
    _Keyed,
    build_processor,
    failed,
    passed,
    restart_delay_s,
    worker_count,
)
from tests.waiting import wait_until


def config(folder: Path, role: str = "pass", on_error: str = "hold", count: int = 1) -> Config:
    return Config.model_validate(
        {
            "node": {"id": "n", "ae_title": "NODE"},
            "storage": {"folder": folder, "reserve_mb": 16},
            "workers": {"count": count, "lease_s": 60.0},
            "destinations": {
                name: {"ae_title": "X", "host": "127.0.0.1", "port": 104} for name in ("a", "b")
            },
            "routes": ({"name": "all", "role": role, "destinations": ("a", "b"), "on_error": on_error},),
        },
        strict=False,
    )


def untold(run: NetworkRun) -> None:
    """Nobody asks what is run."""


class Site:
    """A spool, a ledger and a worker that lives in this process."""

    def __init__(self, folder: Path, process: Processor | None = None, on_error: str = "hold") -> None:
        self.config = config(folder, on_error=on_error)
        self.spool = Spool(self.config.storage.spool_dir, 1_000_000)
        self.ledger = Ledger(self.config.storage.ledger_path)
        self.bells = Bells(self.config.destinations)
        self.worker = Worker(
            "w", self.config, self.ledger, self.bells, process or build_processor(self.config, untold)
        )

    def arrive(self, count: int = 1, route: str = "all") -> None:
        for number in range(count):
            blob = self.spool.put([f"{time.monotonic_ns()}".encode()])
            arrival = Arrival("1.2", f"1.2.{number}.{time.monotonic_ns()}", "1.2.3", "A", "B", route)
            self.ledger.add(arrival, blob.name, blob.size)

    def states(self) -> dict[tuple[str, str, str], int]:
        """Instances by (state, result, reason)."""
        return {(row.state, row.result, row.reason): row.count for row in self.ledger.snapshot().instances}


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    sites: list[Site] = []

    def make(**options: Any) -> Site:
        sites.append(Site(tmp_path, **options))
        return sites[-1]

    yield make
    for site in sites:
        site.ledger.close()


def raises(error: Exception) -> Processor:
    def process(_work: Work) -> Outcome:
        raise error

    return process


def test_passing_on_queues_the_object_as_it_came_for_every_destination(made: Callable[..., Site]) -> None:
    site = made()
    site.arrive(3)
    assert site.worker.turn() == 3
    assert site.worker.turn() == 0
    assert site.states() == {("ready", "passed", ""): 3}
    for name in ("a", "b"):
        sends = site.ledger.claim_sends(name, 10, 60.0)
        assert len(sends) == 3
        assert all(site.spool.path(send.blob).is_file() for send in sends)
        assert {send.transfer_syntax_uid for send in sends} == {"1.2.3"}


@pytest.mark.parametrize(
    ("on_error", "state", "result"),
    [("hold", "held", "held"), ("pass", "ready", "passed-on-error"), ("reject", "rejected", "rejected")],
)
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InputError("truncated"), "InputError"),
        (WatermarkError("no"), "WatermarkError"),
        (ZeroDivisionError(), "unexpected-error"),
        (MemoryError(), "unexpected-error"),
    ],
)
def test_what_fails_ends_as_its_route_wants_it(
    made: Callable[..., Site], on_error: str, state: str, result: str, error: Exception, reason: str
) -> None:
    site = made(process=raises(error), on_error=on_error)
    site.arrive(2)
    site.worker.turn()
    assert site.states() == {(state, result, reason): 2}
    assert len(site.ledger.claim_sends("a", 10, 60.0)) == (2 if on_error == "pass" else 0)


def test_an_unexpected_error_quotes_nothing_in_the_log(
    made: Callable[..., Site], caplog: pytest.LogCaptureFixture
) -> None:
    site = made(process=raises(ValueError("Invalid value for VR PN: 'Doe^Jane'")))
    site.arrive()
    site.worker.turn()
    assert caplog.records
    assert not any("Doe" in str(log.line(record)) for record in caplog.records)


def test_what_was_finished_is_counted_once_with_its_modality_and_stages(made: Callable[..., Site]) -> None:
    def process(work: Work) -> Outcome:
        tell_modality("CT")
        with stage("decode"):
            pass
        return passed(work, site.config.routes[0], "passed", "no-pixel-data")

    site = made(process=process)
    site.arrive(3)
    site.worker.turn()
    figures = site.ledger.snapshot()
    assert figures.total(PROCESSED, "CT", "passed") == 3
    assert figures.total(STAGE_SECONDS, "decode") == 3
    assert figures.total(UNPROTECTED) == 0, "the route protects nothing"


@pytest.mark.parametrize(
    ("result", "reason", "counted"),
    [
        ("passed", "no-pixel-data", 1),
        ("passed-on-error", "PixelError", 1),
        ("held", "no-room", 1),
        ("rewritten", "no-pixel-data", 1),
        ("protected", "", 0),
        ("protected-header", "", 0),
        ("protected-whole-image", "", 0),
        ("passed", "already-protected", 0),
    ],
)
def test_what_a_protecting_route_leaves_unprotected_is_counted_by_its_reason(
    tmp_path: Path, result: str, reason: str, counted: int
) -> None:
    route = config(tmp_path, role="protect").routes[0]
    outcome = worker._counted(Outcome(InstanceState.READY, result, reason), route, Measured("CT"))
    assert [each for each in outcome.readings if each.metric is UNPROTECTED] == [
        Reading(UNPROTECTED, (reason,))
    ] * counted
    assert Reading(PROCESSED, ("CT", result)) in outcome.readings


def test_an_error_is_counted_as_what_became_of_it_and_a_second_try_not_at_all(
    made: Callable[..., Site],
) -> None:
    site = made(process=raises(SpoolFull("full")))
    site.arrive()
    site.worker.turn()
    assert site.ledger.snapshot().total(PROCESSED) == 0
    site.worker._process = raises(ValueError("unforeseen"))
    with site.ledger._writing() as connection:
        connection.exec_driver_sql("UPDATE instances SET next_at = 0")
    site.worker.turn()
    assert site.ledger.snapshot().total(PROCESSED, "unknown", "held") == 1


@pytest.mark.parametrize(("finding", "level"), [("authentic", "debug"), ("pixels-altered", "warning")])
def test_what_a_reader_found_is_told_and_counted(
    made: Callable[..., Site], caplog: pytest.LogCaptureFixture, finding: str, level: str
) -> None:
    def judge(work: Work) -> Outcome:
        return replace(passed(work, config(Path("x")).routes[0], "verified", finding), finding=finding)

    caplog.set_level("DEBUG")
    site = made(process=judge)
    site.arrive()
    site.worker.turn()
    (told,) = (line for line in map(log.line, caplog.records) if line["event"] == "processed")
    assert (told["level"], told["finding"]) == (level, finding)
    assert site.ledger.verdicts() == {("all", finding): 1}


def test_an_error_that_may_pass_is_tried_again(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    site = made(process=raises(SpoolFull("no room")))
    monkeypatch.setattr(site.ledger, "_clock", lambda: now)
    site.arrive()
    site.worker.turn()
    assert site.states() == {("received", "", "SpoolFull"): 1}
    assert site.worker.turn() == 0  # not at once


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (SpoolError("no answer"), "held"),
        (SpoolFull("no room"), "received"),
        (BlobsUnavailable("away"), "received"),
    ],
)
def test_but_not_for_ever_unless_the_disk_is_full(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, error: NodeError, ends: str
) -> None:
    """A full disk says nothing against an instance: held, it would not go on by itself when there is room."""
    now = [time.time()]
    site = made(process=raises(error))
    monkeypatch.setattr(site.ledger, "_clock", lambda: now[0])
    site.arrive()
    for _ in range(PATIENCE):
        assert site.worker.turn() == 1
        now[0] += 3600
    assert [state for state, *_ in site.states()] == [ends]


def test_it_is_not_put_off_longer_than_a_minute(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [time.time()]
    site = made(process=raises(SpoolFull("no room")))
    monkeypatch.setattr(site.ledger, "_clock", lambda: now[0])
    site.arrive()
    for _ in range(PATIENCE + 3):
        assert site.worker.turn() == 1
        now[0] += 61


def test_an_instance_of_a_route_that_is_gone_is_held(made: Callable[..., Site]) -> None:
    site = made()
    site.arrive(route="removed")
    site.worker.turn()
    assert site.states() == {("held", "held", "unexpected-error"): 1}


def test_a_lost_lease_drops_the_result(made: Callable[..., Site]) -> None:
    site = made()

    def slow(work: Work) -> Outcome:
        site.ledger.worker_died("w")
        return passed(work, site.config.routes[0], "passed")

    site.worker._process = slow
    site.arrive()
    site.worker.turn()
    assert list(site.states()) == [("received", "", "")]
    assert site.ledger.claim_sends("a", 10, 60.0) == []


def test_the_lease_is_kept_alive_while_working(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, beat, beats = made(), Ledger.beat, []
    site.worker._lease_s = 0.3

    def counted(ledger: Ledger, work: Work, lease_s: float) -> None:
        beat(ledger, work, lease_s)
        beats.append(lease_s)

    monkeypatch.setattr(Ledger, "beat", counted)

    def slow(work: Work) -> Outcome:
        wait_until(lambda: len(beats) >= 3)
        return passed(work, site.config.routes[0], "passed")

    site.worker._process = slow
    site.arrive()
    site.worker.turn()
    assert site.states() == {("ready", "passed", ""): 1}


def test_what_is_quickly_done_is_recorded_together(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_RECORDED_WITHIN_S", 3600.0)
    site = made()
    together: list[int] = []
    finish = site.ledger.finish_all
    monkeypatch.setattr(
        site.ledger, "finish_all", lambda ended: (together.append(len(ended)), finish(ended))[1]
    )
    site.arrive(3)
    assert site.worker.turn() == 3
    assert together == [3]
    assert site.states() == {("ready", "passed", ""): 3}


def test_behind_a_full_batch_the_next_is_claimed_with_its_record(made: Callable[..., Site]) -> None:
    site = made()
    site.arrive(6)
    assert site.worker.turn() == 4
    assert site.states() == {("ready", "passed", ""): 4, ("working", "", ""): 2}
    assert site.worker.turn() == 2
    assert site.worker.turn() == 0
    assert site.states() == {("ready", "passed", ""): 6}


def test_what_was_claimed_before_it_was_told_to_stop_is_given_back(made: Callable[..., Site]) -> None:
    site = made()
    site.arrive(6)
    assert site.worker.turn() == 4
    site.worker.stop()
    site.worker.run()
    assert site.states() == {("ready", "passed", ""): 4, ("received", "", "stopping"): 2}
    assert len(site.ledger.claim_work("another", 4, 60.0)) == 2


def test_nothing_is_claimed_by_one_that_was_told_to_stop(made: Callable[..., Site]) -> None:
    site = made()

    def last(work: Work) -> Outcome:
        site.worker.stop()
        return passed(work, site.config.routes[0], "passed")

    site.worker._process = last
    site.arrive(6)
    site.worker.run()
    assert site.states() == {
        ("ready", "passed", ""): 1,
        ("received", "", "stopping"): 3,
        ("received", "", ""): 2,
    }


def test_what_is_done_does_not_wait_for_what_takes_long(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = made()
    seen: list[int] = []

    def process(work: Work) -> Outcome:
        seen.append(site.states().get(("ready", "passed", ""), 0))
        return passed(work, site.config.routes[0], "passed")

    site.worker._process = process
    monkeypatch.setattr(worker, "_LARGE_BYTES", 1)  # every object is
    monkeypatch.setattr(worker, "_RECORDED_WITHIN_S", 3600.0)
    site.arrive(3)
    site.worker.turn()
    monkeypatch.setattr(worker, "_LARGE_BYTES", 1_000_000)
    monkeypatch.setattr(worker, "_RECORDED_WITHIN_S", -1.0)  # every one takes longer
    site.arrive(3)
    site.worker.turn()
    assert seen == [0, 1, 2, 3, 4, 5]


def test_one_that_cannot_be_recorded_costs_the_others_nothing(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = made()
    finish = site.ledger.finish_all

    def picky(ended: Sequence[Ended]) -> dict[int, StaleLease]:
        if any(end.work.id == 2 for end in ended):
            raise LedgerError("takes no such row")
        return finish(ended)

    monkeypatch.setattr(site.ledger, "finish_all", picky)
    site.arrive(3)
    site.worker.turn()
    assert site.states() == {("ready", "passed", ""): 2, ("working", "", ""): 1}


def test_of_a_batch_only_what_lost_its_lease_is_dropped(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_RECORDED_WITHIN_S", 3600.0)
    site = made()
    works: list[Work] = []

    def process(work: Work) -> Outcome:
        works.append(work)
        if len(works) == 3:
            site.ledger.release(works[0], time.time() + 60, "taken-away")
        return passed(work, site.config.routes[0], "passed")

    site.worker._process = process
    site.arrive(3)
    site.worker.turn()
    assert site.states() == {("ready", "passed", ""): 2, ("received", "", "taken-away"): 1}
    assert len(site.ledger.claim_sends("a", 10, 60.0)) == 2


def test_a_heart_beats_for_what_takes_long_and_stops_when_nothing_is_held() -> None:
    beaten: list[int] = []

    class Book:
        def beat(self, work: Work, _lease_s: float) -> None:
            beaten.append(work.id)

    heart = Heart(Book())  # type: ignore[arg-type]
    one, two = (Work(number, 1, 1, Arrival("1", "2", "3", "A", "B", "all"), "") for number in (1, 2))
    heart.take([one, two], 0.15)
    heart.let_go([two])
    wait_until(lambda: len(beaten) > 2)  # a beat that had begun by then may have been for both
    beaten.clear()
    wait_until(lambda: len(beaten) > 2)
    heart.let_go([one])
    assert set(beaten) == {1}
    wait_until(lambda: not heart._beats)
    heart.take([two], 0.15)
    wait_until(lambda: 2 in beaten)
    heart.let_go([two])


def test_stopping_gives_the_untouched_rest_of_a_batch_back(made: Callable[..., Site]) -> None:
    site = made()

    def stops(work: Work) -> Outcome:
        site.worker.stopping.set()
        return passed(work, site.config.routes[0], "passed")

    site.worker._process = stops
    site.arrive(3)
    site.worker.turn()
    assert site.states() == {("ready", "passed", ""): 1, ("received", "", "stopping"): 2}


def test_finished_work_rings_for_its_destinations(made: Callable[..., Site]) -> None:
    site = made()
    site.arrive()
    site.worker.turn()
    started = time.monotonic()
    site.bells.rest_sends("a", 60.0)
    assert time.monotonic() - started < 50.0


def test_without_a_route_what_failed_is_held() -> None:
    work = Work(1, 1, 1, Arrival("1", "1", "1", "A", "B", "gone"), "blob")
    assert failed(work, None, "x") == Outcome(InstanceState.HELD, "held", "x")


def test_restarts_slow_down() -> None:
    delays = [restart_delay_s(failures) for failures in range(1, 12)]
    assert delays[:4] == [0.0, 1.0, 2.0, 4.0]
    assert delays == sorted(delays)
    assert delays[-1] == 60.0


def test_worker_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = config(tmp_path, count=3)
    assert worker_count(made) == 3
    monkeypatch.setattr(worker, "usable_cores", lambda: 5)
    count = {"workers": made.workers.model_copy(update={"count": "auto"})}
    assert worker_count(config(tmp_path, "protect").model_copy(update=count)) == 5


def test_one_worker_is_enough_where_nothing_is_worked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "usable_cores", lambda: 5)
    made = config(tmp_path)
    count = {"workers": made.workers.model_copy(update={"count": "auto"})}
    assert worker_count(made.model_copy(update=count)) == 1


@pytest.mark.parametrize(("role", "rehearsals"), [("pass", 0), ("protect", 1)])
def test_a_worker_that_needs_the_engine_has_it_loaded_before_it_is_ready(
    role: str, rehearsals: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearsed: list[None] = []
    monkeypatch.setattr("blessmark.selftest.rehearse", lambda: rehearsed.append(None))
    build_processor(with_ring(config(tmp_path, role), tmp_path / "ring"), untold)
    assert len(rehearsed) == rehearsals


#: what becomes of them, the poison among three others
_ONLY_POISON_HELD = {("ready", "passed", ""): 3, ("quarantined", "quarantined", "killed-its-worker"): 1}


def arrive_with_poison(site: Site) -> None:
    """One instance from `POISON`, and three others."""
    blob = site.spool.put([b"poison"])
    site.ledger.add(Arrival("1.2", "1.2.3", "1.2.3", "POISON", "B", "all"), blob.name, blob.size)
    site.arrive(3)


def dies_of_poison(made: Config, tell: Tell) -> Processor:
    """A processor that is killed by every instance from `POISON`, and passes on the others."""
    process = build_processor(made, tell)

    def guarded(work: Work) -> Outcome:
        if work.arrival.calling_ae == "POISON":
            os.kill(os.getpid(), signal.SIGKILL)
        return process(work)

    return guarded


def test_a_killed_worker_is_replaced_and_its_killer_quarantined(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.worker.restart_delay_s", lambda _failures: 0.0)
    site = made()
    arrive_with_poison(site)
    workers = Workers(site.config, site.ledger, site.bells, factory=dies_of_poison)
    workers.start()
    try:
        wait_until(lambda: site.states() == _ONLY_POISON_HELD)
        wait_until(lambda: workers.alive == 1)
        (before,) = workers.pids
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: workers.pids and workers.pids[0] != before)
        site.arrive()
        wait_until(lambda: site.states().get(("ready", "passed", "")) == 4)
    finally:
        workers.stop()
    assert workers.alive == 0


def hangs_on_poison(made: Config, tell: Tell) -> Processor:
    """A processor that every instance from `POISON` hangs in."""
    # in the process of the worker only: half a second for the six bytes of poison, minutes for what is larger
    worker._LONGEST_WORK_S, worker._LONGEST_BYTE_S = 0.5 - 6 * 60.0, 60.0
    process = build_processor(made, tell)

    def guarded(work: Work) -> Outcome:
        if work.arrival.calling_ae == "POISON":
            time.sleep(600)
        return process(work)

    return guarded


def test_a_worker_that_hangs_is_replaced_and_what_it_hung_on_quarantined(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.worker.restart_delay_s", lambda _failures: 0.0)
    site = made()
    arrive_with_poison(site)
    workers = Workers(site.config, site.ledger, site.bells, factory=hangs_on_poison)
    workers.start()
    try:
        wait_until(lambda: site.states() == _ONLY_POISON_HELD)
    finally:
        workers.stop()


def test_what_is_large_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole-slide image of 4 GB takes days where everything is slow, and does not hang."""
    limits: list[float] = []

    def over(_dog: Watchdog, limit_s: float) -> contextlib.AbstractContextManager[None]:
        limits.append(limit_s)
        return contextlib.nullcontext()

    monkeypatch.setattr(Watchdog, "over", over)
    watched = worker._watched_by_a_dog()
    for size in (500_000, 4_000_000_000):
        arrival = Arrival("1.2", "1.2.3", "1.2.3", "A", "B", "all")
        with watched(Work(1, 1, 0, arrival, "blob", size=size)):
            pass
    assert limits == [3650.0, 403600.0]


def test_whoever_watches_hears_of_every_step(made: Callable[..., Site]) -> None:
    """A slide of many frames has its time again at every frame."""
    heard: list[int] = []
    site = made()
    site.worker._watched = lambda work: contextlib.nullcontext(lambda: heard.append(work.id))
    site.worker._process = _in_two_stages
    site.arrive()
    site.worker.turn()
    assert heard == [1, 1, 1, 1]


def _in_two_stages(work: Work) -> Outcome:
    for name in ("decode", "extract"):
        with stage(name):
            pass
    return Outcome(InstanceState.HELD, "held", "")


def tells_of_networks(made: Config, tell: Tell) -> Processor:
    """A processor that tells what it runs with its first instance, as a worker does that starts an engine."""
    process = build_processor(made, tell)
    told: list[NetworkRun] = []

    def started(work: Work) -> Outcome:
        if not told:
            told.append(NetworkRun("vessels/1-0123456789ab", "numpy", "differs"))
            tell(told[0])
        return process(work)

    return started


def test_a_machine_without_room_for_a_process_is_asked_again(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site = made()
    workers = Workers(site.config, site.ledger, site.bells, factory=build_processor)
    stock, refusals = workers._start, iter((True, True))

    def start(slot: object) -> None:
        if next(refusals, False):
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        stock(slot)  # type: ignore[arg-type]

    monkeypatch.setattr("dicom_node.worker.POLL_S", 0.01)
    monkeypatch.setattr(workers, "_start", start)
    workers._watch.start()
    try:
        wait_until(lambda: workers.alive == 1)
        assert workers.supervised
    finally:
        workers.stop()
    assert caplog.text.count("supervisor-fault") == 2


def test_what_a_worker_evaluates_networks_on_is_known_as_long_as_it_lives(made: Callable[..., Site]) -> None:
    site = made()
    workers = Workers(site.config, site.ledger, site.bells, factory=tells_of_networks)
    workers.start()
    run = NetworkRun("vessels/1-0123456789ab", "numpy", "differs")
    try:
        assert workers.networks == ()
        site.arrive()
        wait_until(lambda: workers.networks == (run,))
        os.kill(workers.pids[0], signal.SIGKILL)
        wait_until(lambda: workers.networks == ())
        wait_until(lambda: workers.alive == 1)
        site.arrive()
        wait_until(lambda: workers.networks == (run,))
    finally:
        workers.stop()
    assert workers.networks == ()


class Forgotten:
    """The place of a process that has died, and is forgotten between two looks at it."""

    def __init__(self) -> None:
        self._looks = iter((SimpleNamespace(pid=7, is_alive=lambda: False),))

    @property
    def process(self) -> Any:
        return next(self._looks, None)


def test_who_counts_while_a_dead_worker_is_forgotten(made: Callable[..., Site]) -> None:
    site = made()
    workers = Workers(site.config, site.ledger, site.bells, factory=build_processor)
    workers._slots = [Forgotten()]  # type: ignore[list-item]
    assert workers.alive == 0
    workers._batcher = [Forgotten()]  # type: ignore[list-item]
    assert workers.batcher_pid == 7


def warns_of_a_value(made: Config, tell: Tell) -> Processor:
    """A processor below which a library warns, as pydicom does, and quotes what it read."""
    process = build_processor(made, tell)

    def warned(work: Work) -> Outcome:
        warnings.warn("Invalid value for VR DA: 'DOE^JANE'", UserWarning, stacklevel=1)
        return process(work)

    return warned


def test_a_warning_of_a_library_shows_nothing_of_a_patient(
    made: Callable[..., Site], capfd: pytest.CaptureFixture[str]
) -> None:
    """A spawned process has its own filters, and would print it."""
    site = made()
    workers = Workers(site.config, site.ledger, site.bells, factory=warns_of_a_value)
    workers.start()
    try:
        site.arrive()
        wait_until(lambda: site.states() == {("ready", "passed", ""): 1})
    finally:
        workers.stop()
    assert "DOE" not in capfd.readouterr().err


def counts_on_privacy(made: Config, tell: Tell) -> Processor:
    """A processor for processes whose memory nobody sees."""
    process = build_processor(made, tell)

    def guarded(work: Work) -> Outcome:
        if not private.is_out_of_dumps():
            raise NodeError("this process would leave its keys in a core file")
        return process(work)

    return guarded


def test_the_memory_of_a_worker_is_its_own(made: Callable[..., Site]) -> None:
    site = made()
    workers = Workers(site.config, site.ledger, site.bells, factory=counts_on_privacy)
    workers.start()
    try:
        site.arrive()
        wait_until(lambda: site.states() == {("ready", "passed", ""): 1})
    finally:
        workers.stop()


def test_a_changed_key_ring_counts_from_the_next_instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An instance is marked with one ring from its first frame to its last."""
    monkeypatch.setattr("dicom_node.keys._LOOK_S", 0.0)
    ring = tmp_path / "ring"
    generate(ring)
    made = config(tmp_path).model_copy(update={"keys": Keys(ring=ring)})
    seen: list[int] = []
    rings: list[FileKeyRing] = []

    def processor(present: FileKeyRing) -> Processor:
        rings.append(present)
        return lambda _work: seen.append(present.current.id)  # type: ignore[func-returns-value, return-value]

    keyed = _Keyed(made, processor)
    work = Work(1, 1, Arrival("1.2", "1.2.3", "1.2.3", "A", "B", "all"), "", 1)
    keyed(work)
    keyed(work)
    generate(ring)
    keyed(work)
    assert (seen, len(rings)) == ([1, 1, 2], 2)


def hangs(_config: Config, _tell: Tell) -> Processor:
    def process(_work: Work) -> Outcome:
        time.sleep(600)
        raise AssertionError

    return process


def test_what_a_stop_interrupts_is_accused_of_nothing(made: Callable[..., Site]) -> None:
    site = made()
    site.arrive()
    for _ in range(2):
        workers = Workers(site.config, site.ledger, site.bells, factory=hangs)
        workers.start()
        wait_until(lambda: site.states() == {("working", "", ""): 1})
        workers.stop(drain_s=0.1)
        assert site.states() == {("received", "", ""): 1}
    assert site.ledger.snapshot().total(LOST) == 0


LOADED = """
import sys
from dicom_node.config import Config
from dicom_node.worker import build_processor
build_processor(Config.model_validate_json(sys.argv[1], strict=False), print)
print(*sorted({"blessmark.segment", "keras", "tensorflow"} & set(sys.modules)))
"""


@pytest.mark.parametrize(("role", "loaded"), [("pass", []), ("protect", ["blessmark.segment"])])
def test_a_worker_loads_what_its_routes_need_and_no_engine(
    tmp_path: Path, role: str, loaded: list[str]
) -> None:
    made = with_ring(config(tmp_path, role=role), tmp_path / "ring")
    command = [sys.executable, "-c", LOADED, made.model_dump_json()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == loaded


def with_ring(made: Config, ring: Path) -> Config:
    """The same configuration with a fresh key ring."""
    generate(ring)
    return made.model_copy(update={"keys": made.keys.model_copy(update={"ring": ring})})


def test_protect_wants_a_key_ring(tmp_path: Path) -> None:
    made = config(tmp_path, role="protect")
    made = made.model_copy(update={"keys": made.keys.model_copy(update={"ring": tmp_path / "absent"})})
    with pytest.raises(Exception, match="absent"):
        build_processor(made, untold)


@pytest.mark.parametrize(
    ("whole", "route", "state"), [(True, None, "valid"), (True, False, "none"), (False, True, "valid")]
)
def test_a_route_signs_as_configured(tmp_path: Path, whole: bool, route: bool | None, state: str) -> None:
    from blessmark import pixels
    from blessmark.segment import segmenter
    from dicom_node.released import check_released
    from tests import builders

    made = with_ring(config(tmp_path, role="protect"), tmp_path / "ring")
    signer = signers.generate(tmp_path / "signing")
    made = made.model_copy(
        update={
            "keys": made.keys.model_copy(update={"signing": tmp_path / "signing"}),
            "watermark": made.watermark.model_copy(update={"sign": whole}),
            "routes": (made.routes[0].model_copy(update={"sign": route}),),
        }
    )
    spool = Spool(made.storage.spool_dir, 1_000_000)
    blob = spool.put([builders.file_bytes(builders.ct(256, 256))])
    arrival = Arrival("1.2", "2.25.1", "1.2.840.10008.1.2.1", "A", "B", "all")
    outcome = build_processor(made, untold)(Work(1, 1, 1, arrival, blob.name, 1_790_000_000.0, blob.size))
    sent = pixels.read(spool.path(outcome.blob))
    assert check_released(sent, "x", (segmenter("anatomy"),), (signer.public,)).signature.state == state


@pytest.mark.parametrize("role", ["protect", "recover", "verify"])
def test_every_role_that_reads_or_writes_watermarks_has_a_processor(tmp_path: Path, role: str) -> None:
    made = with_ring(config(tmp_path, role=role), tmp_path / "ring")
    assert callable(build_processor(made, untold))


def test_workers_are_stopped_even_when_the_ledger_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk a dead worker's leases cannot be taken back now; the next start does that."""
    ledger = Ledger(tmp_path / "ledger.sqlite")
    made = config(tmp_path, count=2)
    workers = Workers(made, ledger, Bells(made.destinations), factory=build_processor)
    workers.start()

    def refuse(_worker: str, **_options: object) -> int:
        raise LedgerError("no room")

    monkeypatch.setattr(ledger, "worker_died", refuse)
    workers.stop()
    assert workers.alive == 0


def test_what_was_worked_out_is_written_when_the_ledger_takes_it_again(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropped, it would wait for its lease, count as a lost worker, and be worked on twice."""
    site = made()
    refusals = [LedgerUnavailable("full"), LedgerUnavailable("full")]
    finish = site.ledger.finish_all

    def refuse(ended: Sequence[Ended]) -> dict[int, StaleLease]:
        if refusals:
            raise refusals.pop()
        return finish(ended)

    monkeypatch.setattr(insist, "PAUSE_S", 0.0)
    monkeypatch.setattr(site.ledger, "finish_all", refuse)
    site.arrive()
    site.worker.turn()
    assert site.states() == {("ready", "passed", ""): 1}
