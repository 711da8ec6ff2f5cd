"""What is told is on disk; what cannot be told is counted, and confessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.audit.auditor import Auditor
from dicom_node.audit.events import Alert, ApplicationStarted, Party, SecurityAlert
from dicom_node.audit.message import Origin
from dicom_node.audit.store import Store
from dicom_node.audit.syslog import Label
from dicom_node.errors import AuditFull
from tests.audit_trails import Told, received
from tests.ledgers import Clock


def auditor(folder: Path, clock: Clock, most: int = 100) -> Auditor:
    origin, label = Origin("n", "NODE", "host", 1), Label(10, 5, "DICOM+RFC3881", "host", 1)
    return Auditor(Store(folder / "audit", most), origin, label, repeats_s=60.0, clock=clock)


def waiting(made: Auditor) -> list[Told]:
    messages = [made.store.read(number) for number in made.store.waiting()]
    return [received(message) for message in messages if message is not None]


def types(made: Auditor) -> list[str]:
    return [told.type for told in waiting(made)]


def refused(clock: Clock, who: str = "X") -> SecurityAlert:
    return SecurityAlert(clock(), Alert.ASSOCIATION_REFUSED, "unknown-calling-ae", who=Party(who))


def test_what_is_told_is_on_disk(scratch: Path, clock: Clock) -> None:
    made = auditor(scratch, clock)
    made.tell(ApplicationStarted(clock()))
    assert types(made) == ["Application Start"]


def test_a_peer_that_runs_wild_is_two_messages_in_a_window(scratch: Path, clock: Clock) -> None:
    made = auditor(scratch, clock)
    for _ in range(500):
        made.tell(refused(clock))
    made.tell_repeats()
    assert types(made) == ["Node Authentication"]
    clock.now += 61.0
    made.tell_repeats()
    assert types(made) == ["Node Authentication"] * 2


def test_a_stop_does_not_wait_for_the_window(scratch: Path, clock: Clock) -> None:
    made = auditor(scratch, clock)
    for _ in range(3):
        made.tell(refused(clock))
    made.tell_repeats(last=True)
    assert len(waiting(made)) == 2


def test_a_full_trail_says_so_once_and_confesses_when_there_is_room(
    scratch: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    made = auditor(scratch, clock, most=100)
    for number in range(103):
        made.tell(refused(clock, f"X{number}") if number < 99 else ApplicationStarted(clock()))
    assert types(made)[-1] == "Audit Recording Stopped"
    assert len(waiting(made)) == 101
    assert made.store.state().lost == 3
    assert "audit-lost" in caplog.text

    made.store.remove(made.store.waiting()[:50])
    made.tell(ApplicationStarted(clock()))
    assert types(made)[-2:] == ["Audit Recording Started", "Application Start"]
    assert "3 events" in waiting(made)[-2].described
    assert made.store.state().lost == 0


def test_what_was_lost_is_known_after_a_restart(scratch: Path, clock: Clock) -> None:
    made = auditor(scratch, clock, most=0)
    made.tell(ApplicationStarted(clock()))
    again = auditor(scratch, clock)
    again.tell(ApplicationStarted(clock()))
    assert types(again) == ["Audit Recording Stopped", "Audit Recording Started", "Application Start"]


def test_a_disk_that_refuses_everything_is_counted_in_memory(scratch: Path, clock: Clock) -> None:
    made = auditor(scratch, clock)
    (scratch / "audit").rename(scratch / "away")
    for _ in range(4):
        made.tell(ApplicationStarted(clock()))
    (scratch / "away").rename(scratch / "audit")
    made.tell(ApplicationStarted(clock()))
    assert types(made) == ["Audit Recording Started", "Application Start"]


def test_what_must_not_be_done_without_a_trail_is_told_that_there_is_none(
    scratch: Path, clock: Clock
) -> None:
    with pytest.raises(AuditFull):
        auditor(scratch, clock, most=0).require([ApplicationStarted(clock())])


def test_an_address_is_remembered_until_it_is_told(scratch: Path, clock: Clock) -> None:
    made = auditor(scratch, clock)
    made.heard(1, "10.0.0.1")
    assert [made.address_of(1), made.address_of(1), made.address_of(2)] == ["10.0.0.1", "", ""]
