"""Tasks over processes: in order, bounded, and one that dies costs its own task only."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import psutil
import pytest

from dicom_node import pool as pool_module
from dicom_node.errors import NodeError
from dicom_node.pool import Pool, cores
from tests import pool_tasks
from tests.pool_tasks import Task, limit_s, lost, prepared
from tests.waiting import wait_until


def said(tasks: list[Task], processes: int = 2) -> list[str]:
    with Pool(prepared, lost, processes) as pool:
        return [answer for _, answer in pool.answers(tasks)]


def test_answers_come_in_the_order_of_their_tasks_and_one_that_dies_costs_itself_only(tmp_path: Path) -> None:
    tasks = [("sleep", "0.3"), *(("say", str(n)) for n in range(5)), ("die", "x"), ("say", "last")]
    tasks.insert(3, ("die-once", str(tmp_path / "mark")))
    once = str(tmp_path / "mark")
    assert said(tasks) == ["0.3", "0", "1", once, "2", "3", "4", f"lost x {-signal.SIGKILL}", "last"]


def test_a_suspect_is_tried_again_alone(tmp_path: Path) -> None:
    """What was killed for want of memory has the machine to itself the second time."""
    places = tmp_path / "at-work"
    places.mkdir()
    tasks: list[Task] = [("die-once", str(tmp_path / "mark")), *[("alone", str(places))] * 6]
    answers = said(tasks)
    assert len(answers) == 7
    assert set(answers[1:]) <= {"1", "2"}


def test_a_task_that_hangs_is_given_up_and_those_behind_it_are_done() -> None:
    """It is not tried again: what hangs hangs again."""
    tasks: list[Task] = [("say", "a"), ("hang", "x"), ("say", "b"), ("hang", "y"), ("sleep", "0.3")]
    with Pool(prepared, lost, 1, limit_s) as pool:
        assert [answer for _, answer in pool.answers(tasks)] == [
            "a",
            "lost x None",
            "b",
            "lost y None",
            "0.3",
        ]


def test_a_task_that_goes_on_is_not_given_up_however_long_it_takes() -> None:
    """A slide of many frames takes hours, each of them a second; one that then hangs is given up."""
    tasks: list[Task] = [("steps", "a"), ("steps-and-hang", "b"), ("say", "c")]
    with Pool(prepared, lost, 1, lambda _task: 1.0) as pool:
        assert [answer for _, answer in pool.answers(tasks)] == ["a", "lost b None", "c"]


def test_a_command_that_was_stopped_for_hours_gives_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all of its processes, by Ctrl-Z: the clock went on, and nobody worked."""
    clock, listen, stopped_s = time.monotonic, pool_module.wait, 0.0

    def wait(pipes: list[Any], _timeout_s: float) -> list[Any]:
        nonlocal stopped_s
        spoke = listen(pipes, 0.05)
        stopped_s += 0.0 if spoke else 3600.0
        return spoke

    monkeypatch.setattr(pool_module, "wait", wait)
    monkeypatch.setattr(time, "monotonic", lambda: clock() + stopped_s)
    with Pool(prepared, lost, 1, lambda _task: 600.0) as pool:
        assert [answer for _, answer in pool.answers([("sleep", "0.3")])] == ["0.3"]


def test_tasks_are_pulled_as_they_are_wanted() -> None:
    pulled = 0

    def tasks() -> Iterator[Task]:
        nonlocal pulled
        for pulled in range(1, 1001):
            yield "say", str(pulled)

    with Pool(prepared, lost, 1) as pool:
        answers = pool.answers(tasks())
        assert [next(answers)[1] for _ in range(10)] == [str(n) for n in range(1, 11)]
        assert pulled < 40


def test_only_as_many_processes_start_as_there_are_tasks() -> None:
    with Pool(prepared, lost, 8) as pool:
        assert list(pool.answers([("say", "a")])) == [(("say", "a"), "a")]
        assert len(pool._workers) == 1
    assert not pool._workers


def test_a_pool_that_is_left_leaves_no_process() -> None:
    with Pool(prepared, lost, 2) as pool:
        next(pool.answers([("say", "a"), ("sleep", "600"), ("sleep", "600")]))
        ends = [worker.process.pid for worker in pool._workers]
    assert ends
    assert not any(pid is not None and psutil.pid_exists(pid) for pid in ends)


def test_what_a_process_has_begun_to_write_it_takes_back_when_it_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_LAST_WORDS_S", 60.0)
    draft = tmp_path / "draft"
    with Pool(prepared, lost, 1) as pool:
        answers = pool.answers([("say", "a"), ("tidy", str(draft))])
        next(answers)
        pool._feed(answers.gi_frame.f_locals["run"])  # type: ignore[attr-defined]
        wait_until(draft.exists)
    assert not draft.exists()


def test_a_process_that_is_ended_as_it_begins_is_not_interrupted_in_its_imports(tmp_path: Path) -> None:
    """Libraries make errors of their own of an interrupt, and print them."""
    with Pool(partial(pool_tasks.beginning, str(tmp_path)), lost, 1) as pool:
        pool._start_to(1)
        wait_until((tmp_path / "begun").exists)
    assert [path.name for path in tmp_path.iterdir()] == ["begun"]


def test_a_task_that_takes_long_gets_company(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_node.pool._LONG_S", 0.05)
    with Pool(prepared, lost, 2) as pool:
        meeting = str(tmp_path / "meeting")
        assert len(list(pool.answers([("meet", meeting), ("touch", meeting)]))) == 2
        assert len(pool._workers) == 2


def test_a_few_that_are_short_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_node.pool._LONG_S", 600)
    with Pool(prepared, lost, 4) as pool:
        assert len(list(pool.answers([("say", str(n)) for n in range(4)]))) == 4
        assert len(pool._workers) == 1


def test_a_process_that_is_killed_from_outside_is_replaced(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with Pool(prepared, lost, 1) as pool:
        answers = pool.answers([("say", "a"), ("hang-once", str(mark)), ("say", "b")])
        assert next(answers)[1] == "a"
        victim = pool._workers[0].process.pid
        assert victim is not None

        def kill() -> None:
            wait_until(mark.exists)  # it is at work
            os.kill(victim, signal.SIGKILL)

        threading.Thread(target=kill).start()
        assert [answer for _, answer in answers] == [str(mark), "b"]
        assert pool._workers[0].process.pid != victim


def test_ctrl_c_is_answered_by_the_first_process_alone() -> None:
    with Pool(prepared, lost, 1) as pool:
        answers = pool.answers([("say", "a"), ("sleep", "0.3"), ("say", "b")])
        next(answers)
        pid = pool._workers[0].process.pid
        assert pid is not None
        os.kill(pid, signal.SIGINT)
        time.sleep(0.05)
        assert [answer for _, answer in answers] == ["0.3", "b"]


def test_an_interrupt_while_a_process_starts_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    start = SpawnProcess.start

    def interrupted(process: SpawnProcess) -> None:
        start(process)
        os.kill(os.getpid(), signal.SIGINT)

    others = set(multiprocessing.active_children())
    monkeypatch.setattr(SpawnProcess, "start", interrupted)
    # another thread, which has blocked no signal, as in a command that fetches in the background
    idle = threading.Event()
    threading.Thread(target=idle.wait, daemon=True).start()
    with pytest.raises(KeyboardInterrupt), Pool(prepared, lost, 2) as pool:
        list(pool.answers([("sleep", "600")]))
    idle.set()
    assert set(multiprocessing.active_children()) <= others


def test_what_cannot_begin_says_why() -> None:
    with pytest.raises(NodeError, match="the ring is gone"), Pool(pool_tasks.refusing, lost, 1) as pool:
        list(pool.answers([("say", "a")]))
    with pytest.raises(NodeError, match="exit code 7"), Pool(pool_tasks.dying, lost, 1) as pool:
        list(pool.answers([("say", "a")]))


def test_a_process_is_one_cores_and_the_parent_keeps_its_environment() -> None:
    before = dict(os.environ)
    assert said([("environment", "NUMBA_NUM_THREADS"), ("environment", "MALLOC_ARENA_MAX")]) == ["1", "1"]
    assert dict(os.environ) == before
    assert cores() >= 1


def test_nothing_to_do_is_done_at_once() -> None:
    assert said([]) == []
