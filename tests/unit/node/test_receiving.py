"""What a receiver process says to its node; the process itself is looked at in test_fleet.py."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from dicom_node import receiving, security
from dicom_node.audit.events import ApplicationStarted
from dicom_node.audit.message import Origin
from dicom_node.config import Config
from dicom_node.receiving import Heard, Messenger, Occurred, Rings, Rung, Told

ORIGIN = Origin("n", "NODE", "host", 1)


class Line:
    """Takes what is said, and answers after a moment, or never."""

    def __init__(self, *, silent: bool = False) -> None:
        self.said: list[Any] = []
        self.silent = silent
        self.messenger = Messenger(ORIGIN, self.send)

    def send(self, message: Any) -> None:
        self.said.append(message)
        if not self.silent and isinstance(message, Told | Occurred):
            threading.Timer(0.1, self.messenger.noted, (message.number,)).start()


def test_an_event_is_told_when_the_node_has_it_on_disk() -> None:
    line = Line()
    began = time.monotonic()
    event = ApplicationStarted(1.0)
    line.messenger.tell(event)
    occurrence = security.Occurrence("handshake-failed", "no-tls")
    line.messenger.occurred(occurrence)
    assert time.monotonic() - began >= 0.2
    assert line.said == [Told(0, event), Occurred(1, occurrence)]
    line.messenger.heard(7, "192.0.2.1")
    assert line.said[2] == Heard(7, "192.0.2.1")
    line.messenger.noted(99)


def test_a_node_that_does_not_answer_holds_nobody_up_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(receiving, "_NOTED_S", 0.05)
    Line(silent=True).messenger.tell(ApplicationStarted(1.0))
    assert [record.msg for record in caplog.records] == ["audit-held-up"]


def test_the_first_ring_is_said_at_once_and_those_of_a_stream_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(receiving, "_GATHER_S", 60.0)
    said: list[object] = []
    rings = Rings(said.append)
    rings.ring("a")
    assert said == [Rung((("a", 1),))]
    for destination in ("a", None, "b", "a"):
        rings.ring(destination)
    assert len(said) == 1
    rings.flush()
    assert said[1:] == [Rung((("a", 2), (None, 1), ("b", 1)))]
    rings.flush()
    assert len(said) == 2
    monkeypatch.setattr(receiving, "_GATHER_S", 0.0)
    rings.ring(None)
    assert said[2:] == [Rung(((None, 1),))]


def test_what_waits_is_said_soon() -> None:
    said: list[object] = []
    rings = Rings(said.append)
    rings.ring("a")
    rings.ring("a")
    rings.gather()
    assert said == [Rung((("a", 1),)), Rung((("a", 1),))]


def test_how_many_processes_may_be_asked_for() -> None:
    node = {"id": "n", "ae_title": "NODE"}
    base = {"storage": {"folder": "/nowhere"}, "routes": ({"name": "all", "role": "pass"},)}
    for asked in (1, 16, "auto"):
        made = Config.model_validate({"node": {**node, "receivers": asked}, **base}, strict=False)
        assert made.node.receivers == asked
    for wrong in (0, 17, "many"):
        with pytest.raises(ValueError, match="receivers"):
            Config.model_validate({"node": {**node, "receivers": wrong}, **base}, strict=False)
