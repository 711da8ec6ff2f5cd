"""What an auditor wants to know goes through one function: to the log, and to who listens."""

from __future__ import annotations

import pytest

from dicom_node import log, security
from dicom_node.security import Occurrence

REFUSED = Occurrence("association-rejected", "caller-not-listed", "10.0.0.1", "CT1", "NODE")


def test_it_is_logged_and_handed_on(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Occurrence] = []
    with security.listening(heard.append):
        security.tell(REFUSED)
    security.tell(REFUSED)
    assert heard == [REFUSED]
    line = log.line(caplog.records[0])
    assert (line["event"], line["level"]) == ("association-rejected", "warning")
    assert (line["reason"], line["peer"], line["calling_ae"], line["called_ae"]) == (
        "caller-not-listed",
        "10.0.0.1",
        "CT1",
        "NODE",
    )


def test_a_listener_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Occurrence] = []

    def fail(_occurrence: Occurrence) -> None:
        raise ValueError("Doe^Jane")

    with security.listening(fail), security.listening(heard.append):
        security.tell(REFUSED)
    assert heard == [REFUSED]
    assert [record.message for record in caplog.records] == ["association-rejected", "listener-failed"]
    assert "Doe" not in str([log.line(record) for record in caplog.records])
