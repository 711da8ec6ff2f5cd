"""Messages become calls, a busy one holds up no other, and it ends when it is told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("celery")

from celery import Celery

from dicom_node.dispatch import hearer as made
from dicom_node.dispatch.application import SEND, WORK, queue
from dicom_node.dispatch.hearer import Hearer
from tests.waiting import wait_until


def _app(*names: str) -> Celery:
    app = Celery("t", broker="memory://hearer", set_as_current=False, fixups=[])
    app.conf.update(
        task_queues=[queue(name) for name in names],
        task_ignore_result=True,
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        broker_connection_retry_on_startup=True,
        worker_consumer="dicom_node.dispatch.hearer:Consumer",
    )
    return app


def _send(task: str, name: str) -> None:
    _app(name).send_task(task, args=(1,), queue=queue(name))


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery's worker takes seconds to end, on a busy machine more than a stop waits for."""
    monkeypatch.setattr(made, "_STOP_S", 120.0)


@pytest.fixture
def heard() -> Iterator[list[str]]:
    calls: list[str] = []
    release = threading.Event()

    def call(name: str) -> None:
        calls.append(name)
        if name == "h.slow":
            release.wait(60.0)

    hearer = Hearer(lambda: _app("h.slow", "h.quick"), call, 2)
    hearer.start()
    yield calls
    release.set()
    hearer.stop()
    assert not hearer._thread.is_alive()


def test_one_that_takes_long_holds_up_no_other_queue(heard: list[str]) -> None:
    _send(WORK, "h.slow")
    wait_until(lambda: heard == ["h.slow"])
    for _ in range(3):
        _send(SEND, "h.quick")
    wait_until(lambda: heard.count("h.quick") == 3)


def test_there_is_nothing_for_tasks_with_a_time_of_their_own() -> None:
    steps = made.Consumer.Blueprint.default_steps
    assert any("tasks" in step for step in steps)
    assert not any("delayed" in step for step in steps)


def test_a_worker_that_ends_by_itself_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made, "_PAUSE_S", 0.01)
    tries: list[int] = []

    def broken() -> Celery:
        tries.append(1)
        raise OSError("no")

    hearer = Hearer(broken, lambda _name: None, 1)
    hearer.start()
    wait_until(lambda: len(tries) > 2)
    hearer.stop()
    assert not hearer._thread.is_alive()


def test_the_next_one_hears_once_the_one_before_has_ended_however_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after a reload while a message is under way that does not end when it is told to."""
    release, calls = threading.Event(), []

    def call(name: str) -> None:
        calls.append(name)
        release.wait(60.0)

    before = Hearer(lambda: _app("h.before"), call, 1)
    before.start()
    _send(WORK, "h.before")
    wait_until(lambda: calls == ["h.before"])
    with monkeypatch.context() as impatient:
        impatient.setattr(made, "_STOP_S", 0.05)
        before.stop()
    assert before._thread.is_alive()
    after = Hearer(lambda: _app("h.after"), calls.append, 1)
    after.start()
    try:
        _send(WORK, "h.after")
        time.sleep(2 * made._TURN_S)
        assert calls == ["h.before"], "one worker at a time"
        release.set()
        wait_until(lambda: calls == ["h.before", "h.after"])
        assert not before._thread.is_alive()
    finally:
        release.set()
        after.stop()
    assert not after._thread.is_alive()
