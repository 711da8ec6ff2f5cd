"""What receiver processes share: it is seen by all, and nobody takes any of it to his grave."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from dicom_node.dimse import board
from dicom_node.dimse.board import PLACES, Board, SharedFailures, marked
from dicom_node.users import FAILURES, WITHIN_S


def hold_the_lock(shared: Board, line: Connection) -> None:
    """The body of a process that has places, and is killed with the lock in its hand."""
    row = shared.row(1)
    row.say(3, 4, 5.5)
    SharedFailures(shared).note("192.0.2.1")
    with row.held():
        row.take([7, 7, 8])
        line.send("held")
        time.sleep(600)


def test_a_process_that_is_killed_with_the_lock_in_its_hand() -> None:
    shared = Board(2)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=hold_the_lock, args=(shared, theirs), daemon=True)
    process.start()
    assert ours.poll(60)
    assert ours.recv() == "held"
    mine, others = shared.row(0), shared.row(1)
    assert (others.open_associations, others.connections, others.turned_at) == (3, 4, 5.5)
    assert mine.others() == [7, 7, 8]
    entered = threading.Event()
    threading.Thread(target=lambda: mine.held().__enter__() or entered.set(), daemon=True).start()
    assert not entered.wait(0.2), "somebody has it"
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert entered.wait(60)
    others.clear()
    assert (mine.others(), others.open_associations, others.turned_at) == ([], 0, 0.0)
    assert shared._words[0] == 1, "who failed before is remembered"


def test_a_row_shows_what_was_put_there_last() -> None:
    shared = Board(3)
    row = shared.row(2)
    row.take([1, 2, 3])
    row.take([9])
    assert row.marks() == [9]
    assert row.others() == []
    assert shared.row(0).others() == [9]
    row.take(list(range(1, PLACES + 10)))
    assert len(row.marks()) == PLACES
    shared.close()


def test_who_has_more_connections_than_the_one_with_fewest() -> None:
    shared = Board(3)
    one, two, three = (shared.row(number) for number in range(3))
    one.say(0, 5, 1.0)
    two.say(0, 2, 1.0)
    assert (one.ahead(), two.ahead()) == (3, 0), "the third does not run"
    three.say(0, 0, 1.0)
    two.connected()
    assert (one.ahead(), two.ahead(), three.ahead()) == (5, 3, 0)
    shared.close()


def test_an_address_that_fails_too_often_is_locked_out_everywhere() -> None:
    now = [1000.0]
    shared = Board(2)
    here, there = (SharedFailures(shared, lambda: now[0]) for _ in range(2))
    for _ in range(FAILURES - 1):
        here.note("192.0.2.1")
    here.note("192.0.2.2")
    assert not there.locked("192.0.2.1")
    there.note("192.0.2.1")
    assert here.locked("192.0.2.1")
    assert not here.locked("192.0.2.2")
    now[0] += WITHIN_S + 1
    assert not here.locked("192.0.2.1")
    shared.close()


def test_failures_go_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "_FAILURES", 8)
    shared = Board(1)
    failures = SharedFailures(shared)
    for number in range(20):
        failures.note(f"192.0.2.{number % 2}")
    assert not failures.locked("192.0.2.0"), "four of eight are left"
    for _ in range(2):
        failures.note("192.0.2.0")
    assert failures.locked("192.0.2.0")
    shared.close()


def test_a_sandbox_that_forbids_memory_without_a_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def forbidden(_name: str) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "memfd_create", forbidden)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    shared = Board(1)
    shared.row(0).take([5])
    assert shared.row(0).marks() == [5]
    assert list(tmp_path.iterdir()) == []
    shared.close()


def test_marks_tell_names_apart() -> None:
    assert len({marked("A", "B"), marked("AB", ""), marked("A", "C"), marked("A")}) == 4
    assert 0 < marked("CT\ud800", "::1") < 1 << 64
