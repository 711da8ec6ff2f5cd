"""What each step of the ledger is told as."""

from __future__ import annotations

from dataclasses import replace

import pytest

from blessmark.types import Finding
from dicom_node.audit.events import (
    ALARMING,
    Accessed,
    Action,
    Alert,
    Deleted,
    Event,
    Exported,
    Outcome,
    Party,
    SecurityAlert,
    Study,
    TransferBegun,
    Transferred,
)
from dicom_node.audit.history import RouteFacts, Site, told
from dicom_node.config import Role
from dicom_node.ledger import Step

SITE = Site(
    Party("NODE", "host"),
    {"pacs": Party("PACS", "10.0.0.9"), "vna": Party("VNA", "10.0.0.8")},
    {
        "protect": RouteFacts(Role.PROTECT, deidentifies=False, renames=False),
        "clean": RouteFacts(Role.PROTECT, deidentifies=True, renames=True),
        "recover": RouteFacts(Role.RECOVER, deidentifies=False, renames=False),
        "verify": RouteFacts(Role.VERIFY, deidentifies=False, renames=False),
        "pass": RouteFacts(Role.PASS, deidentifies=False, renames=False),
    },
)
STEP = Step(7, 1.5, "received", "", "", "", 3, "CT1", "NODE", "protect", "", False, "ct", "in", "out")


def events(**changes: object) -> list[Event]:
    step = replace(STEP, **changes)  # type: ignore[arg-type]
    return list(told(step, SITE, lambda blob: Study(f"study of {blob}"), "10.0.0.7"))


def test_what_comes_is_a_transfer_from_the_peer_at_its_address() -> None:
    (event,) = events()
    assert isinstance(event, Transferred)
    assert (event.source, event.destination) == (Party("CT1", "10.0.0.7"), Party("NODE", "host"))
    assert (event.action, event.objects.study.uid) == (Action.CREATE, "study of in")


def test_another_content_under_a_known_uid_is_an_update() -> None:
    (event,) = events(conflict=True)
    assert isinstance(event, Transferred)
    assert event.action is Action.UPDATE


@pytest.mark.parametrize("reason", ["bytes-are-back", "to-be-made-again"])
def test_what_had_come_before_is_not_told_again(reason: str) -> None:
    assert events(reason=reason) == []


@pytest.mark.parametrize(
    ("route", "result", "action"),
    [
        ("protect", "protected", Action.UPDATE),
        ("protect", "protected-header", Action.UPDATE),
        ("protect", "rewritten", Action.UPDATE),
        ("clean", "protected", Action.CREATE),
        ("verify", "verified", Action.READ),
    ],
)
def test_work_is_an_access(route: str, result: str, action: Action) -> None:
    (event,) = events(what="ready", route=route, result=result, reason="authentic")
    assert isinstance(event, Accessed)
    assert (event.action, event.outcome, event.why) == (action, Outcome.SUCCESS, "")


def test_what_is_passed_on_was_not_looked_into() -> None:
    assert events(what="ready", route="pass", result="passed") == []


def test_what_recovers_uses_a_restricted_function() -> None:
    access, alert = events(what="ready", route="recover", result="recovered")
    assert isinstance(access, Accessed)
    assert isinstance(alert, SecurityAlert)
    assert (alert.alert, alert.outcome) == (Alert.RE_IDENTIFIED, Outcome.SUCCESS)


@pytest.mark.parametrize("finding", ["pixels-altered", "header-altered", "damaged", "wrong-key"])
@pytest.mark.parametrize(
    ("route", "what", "result"), [("verify", "ready", "verified"), ("recover", "held", "held")]
)
def test_what_is_not_authentic_is_an_alert(route: str, what: str, result: str, finding: str) -> None:
    access, alert = events(what=what, route=route, result=result, reason=finding)
    assert isinstance(access, Accessed)
    assert isinstance(alert, SecurityAlert)
    assert (alert.alert, finding in alert.what) == (Alert.NOT_AUTHENTIC, True)


@pytest.mark.parametrize("finding", ["authentic", "unmarked", "unknown-segmenter", "no-pixel-data"])
def test_other_findings_are_none(finding: str) -> None:
    (event,) = events(what="ready", route="verify", result="verified", reason=finding)
    assert isinstance(event, Accessed)


@pytest.mark.parametrize(
    ("what", "result", "outcome"),
    [
        ("held", "held", Outcome.MINOR),
        ("quarantined", "quarantined", Outcome.MINOR),
        ("rejected", "rejected", Outcome.SERIOUS),
        ("ready", "passed-on-error", Outcome.SERIOUS),
    ],
)
def test_work_that_failed_says_so(what: str, result: str, outcome: Outcome) -> None:
    (event,) = events(what=what, result=result, reason="PixelError")
    assert isinstance(event, Accessed)
    assert (event.outcome, event.why) == (outcome, "PixelError")


@pytest.mark.parametrize(
    ("what", "outcome"),
    [("delivered", Outcome.SUCCESS), ("retry", Outcome.MINOR), ("dead", Outcome.SERIOUS)],
)
def test_what_is_sent_begins_and_ends(what: str, outcome: Outcome) -> None:
    begun, ended = events(what=what, destination="pacs", reason="status-a700")
    assert isinstance(begun, TransferBegun)
    assert isinstance(ended, Transferred)
    assert (ended.destination, ended.outcome) == (Party("PACS", "10.0.0.9"), outcome)
    assert ended.why == ("" if what == "delivered" else "status-a700")
    assert ended.objects.study.uid == "study of out"


def test_the_destination_is_who_took_it() -> None:
    _, ended = events(what="delivered", destination="pacs", via="vna")
    assert isinstance(ended, Transferred)
    assert ended.destination.name == "VNA"


def test_what_leaves_a_deidentifying_route_says_so() -> None:
    _, ended = events(what="delivered", destination="pacs", route="clean")
    assert isinstance(ended, Transferred)
    assert ended.objects.deidentified


def test_what_an_operator_drops_or_exports_names_him() -> None:
    (dropped,) = events(what="dropped", destination="pacs", reason="operator anna")
    (rejected,) = events(what="rejected", result="rejected", reason="operator anna")
    (exported,) = events(what="exported", reason="operator")
    assert isinstance(dropped, Deleted)
    assert isinstance(rejected, Deleted)
    assert isinstance(exported, Exported)
    assert [event.by.name for event in (dropped, rejected, exported)] == ["anna", "anna", "operator"]


@pytest.mark.parametrize("what", ["queued", "failed-over", "lost", "requeued", "committed", "not-committed"])
def test_steps_between_queues_are_not_told(what: str) -> None:
    assert events(what=what, destination="pacs") == []


@pytest.mark.parametrize("what", ["released", "lost", "resumed"])
def test_nor_are_those_of_waiting_work(what: str) -> None:
    assert events(what=what) == []


def test_alarming_findings_are_findings() -> None:
    assert set(Finding) > ALARMING
