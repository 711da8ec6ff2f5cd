"""What the service manager hears, and when it hears nothing."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.systemd import Watchdog, notify, watchdog_s
from tests.waiting import wait_until


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A service manager that listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listener


def _is_silent(manager: socket.socket) -> bool:
    """Whether nothing more comes, once what was said before has been heard."""
    manager.settimeout(0.2)
    for _ in range(50):
        try:
            manager.recv(100)
        except TimeoutError:
            return True
    return False


def test_the_service_manager_is_told(manager: socket.socket) -> None:
    notify("READY=1")
    assert manager.recv(100) == b"READY=1"


def test_abstract_names_of_the_service_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"dicom-node-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        notify("STOPPING=1")
        assert manager.recv(100) == b"STOPPING=1"


def test_a_service_manager_that_is_gone_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify("WATCHDOG=1")


def test_without_a_service_manager_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [("60000000", "", 60.0), ("60000000", str(os.getpid()), 60.0), ("60000000", "1", None)]
    + [(wrong, "", None) for wrong in ("", "0", "soon")],
)
def test_how_often_the_watchdog_wants_to_hear(
    monkeypatch: pytest.MonkeyPatch, usec: str, pid: str, seconds: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid)
    assert watchdog_s() == seconds


def test_a_node_that_lives_says_so_until_it_stops(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    dog = Watchdog(list)
    dog.start()
    assert [manager.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    dog.stop()
    assert _is_silent(manager)


def test_a_node_with_a_dead_part_falls_silent_and_says_why_once(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    dead: list[str] = []
    dog = Watchdog(lambda: list(dead))
    with caplog.at_level(logging.INFO, "dicom_node.systemd"):
        dog.start()
        manager.recv(100)
        dead.append("forwarder")
        wait_until(lambda: caplog.records)
        assert _is_silent(manager)
        dog.stop()
    assert [record.msg for record in caplog.records] == ["parts-dead"]


def test_without_a_watchdog_nothing_runs(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    dog = Watchdog(lambda: pytest.fail("nobody asked"))
    dog.start()
    dog.stop()
