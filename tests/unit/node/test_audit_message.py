"""Every event is a message that the schema of PS3.15 A.5.1 takes, and names nobody whom it may not."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.sr._concepts_dict import concepts

from dicom_node.audit import codes
from dicom_node.audit.events import (
    Accessed,
    Action,
    Alert,
    ApplicationStarted,
    ApplicationStopped,
    Deleted,
    Event,
    Exported,
    Imported,
    Objects,
    Outcome,
    Party,
    Queried,
    SecurityAlert,
    Study,
    TrailUsed,
    TransferBegun,
    Transferred,
)
from dicom_node.audit.message import ALERT_TYPES, Origin, message, patient_number
from dicom_node.config import AuditPatient
from tests.audit_trails import Told, parsed

ORIGIN = Origin("n1", "NODE", "host.example", 42, site="north", salt=b"salt")
STUDY = Study("1.2.3", "P-4711")
OBJECTS = Objects(STUDY, (("1.2.840.10008.5.1.4.1.1.2", 3), ("1.2.840.10008.5.1.4.1.1.4", 1)))
A, B, PERSON = Party("CT1", "10.0.0.7"), Party("PACS", "pacs.example"), Party("anna", "console")
AT = 1_790_000_000.25
CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
EVENTS: dict[str, Event] = {
    "start": ApplicationStarted(AT),
    "stop": ApplicationStopped(AT),
    "begin": TransferBegun(AT, A, B, OBJECTS),
    "transfer": Transferred(AT, A, B, OBJECTS),
    "failed": Transferred(AT, A, B, OBJECTS, Action.CREATE, Outcome.SERIOUS, "status-a900"),
    "access": Accessed(AT, Action.UPDATE, OBJECTS),
    "read": Accessed(AT, Action.READ, OBJECTS, by=PERSON),
    "deidentified": Accessed(AT, Action.CREATE, replace(OBJECTS, deidentified=True)),
    "delete": Deleted(AT, PERSON, OBJECTS),
    "export": Exported(AT, PERSON, OBJECTS),
    "import": Imported(AT, PERSON, B, OBJECTS),
    "query": Queried(AT, A, B, "1.2.840.10008.5.1.4.1.2.2.1", EXPLICIT, b"\0\1Doe^Jane"),
    "used": TrailUsed(AT, PERSON),
    **{alert: SecurityAlert(AT, alert, "why", who=A, objects=OBJECTS) for alert in Alert},
}


def told(event: Event, origin: Origin = ORIGIN) -> Told:
    return parsed(message(event, origin))


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_is_valid_and_says_when_who_and_from_where(name: str) -> None:
    found = told(EVENTS[name])
    source = found.root.find("AuditSourceIdentification")
    assert found.root.find("EventIdentification").get("EventDateTime") == "2026-09-21T14:13:20.250+00:00"
    assert (source.get("AuditSourceID"), source.get("AuditEnterpriseSiteID")) == ("n1", "north")
    assert sum(requestor for _, requestor in found.users) <= 1
    assert b"\n" not in message(EVENTS[name], ORIGIN)


def test_a_transfer_names_both_ends_the_study_and_how_many_of_which_class() -> None:
    found = told(EVENTS["transfer"])
    assert found.short == ("DICOM Instances Transferred", "C", 0)
    assert found.users == [("CT1", True), ("PACS", False)]
    assert found.addresses == ["10.0.0.7", "pacs.example"]
    kinds = [each.get("NetworkAccessPointTypeCode") for each in found.root.findall("ActiveParticipant")]
    assert kinds == ["2", "1"]
    assert found.things == {"Study Instance UID": "1.2.3", "Patient Number": "withheld"}
    assert [(each.get("UID"), each.get("NumberOfInstances")) for each in found.root.iter("SOPClass")] == [
        (uid, str(count)) for uid, count in OBJECTS.classes
    ]


def test_a_failure_says_why_and_a_success_says_nothing() -> None:
    assert (told(EVENTS["failed"]).outcome, told(EVENTS["failed"]).why) == (8, "status-a900")
    assert told(EVENTS["transfer"]).why == ""


def test_what_was_deidentified_says_so() -> None:
    assert told(EVENTS["deidentified"]).root.findtext(".//Anonymized") == "true"


@pytest.mark.parametrize("name", EVENTS)
def test_without_leave_no_patient_is_named(name: str) -> None:
    for policy in (AuditPatient.NONE, AuditPatient.HASH):
        whole = message(EVENTS[name], replace(ORIGIN, patient=policy))
        assert b"4711" not in whole
        assert base64.b64encode(b"\0\1Doe^Jane") not in whole


def test_a_patient_is_named_by_a_hash_or_an_id_where_that_is_wanted() -> None:
    by_hash, by_id = (replace(ORIGIN, patient=policy) for policy in (AuditPatient.HASH, AuditPatient.ID))
    assert patient_number(STUDY, by_id) == "P-4711"
    assert patient_number(Study("1.2.3"), by_id) == "unknown"
    found = patient_number(STUDY, by_hash)
    assert found == patient_number(Study("4.5.6", "P-4711"), by_hash)
    assert found not in {patient_number(Study("", "P-4712"), by_hash)}
    assert found != patient_number(STUDY, replace(by_hash, salt=b"other"))
    asked = told(EVENTS["query"], by_id).root.findtext(".//ParticipantObjectQuery")
    assert base64.b64decode(asked) == b"\0\1Doe^Jane"


@pytest.mark.parametrize("alert", Alert)
def test_alerts_have_a_type_and_a_description(alert: Alert) -> None:
    found = told(SecurityAlert(AT, alert, "why it is", count=3))
    assert (found.event, found.type) == ("Security Alert", ALERT_TYPES[alert].meaning)
    detail = found.root.find(".//ParticipantObjectDetail")
    assert base64.b64decode(detail.get("value")) == b"why it is (3 times)"


@given(name=st.text(max_size=20), address=st.text(max_size=20), patient=st.text(max_size=20))
def test_whatever_comes_off_the_wire_stays_a_valid_message(name: str, address: str, patient: str) -> None:
    objects = Objects(Study(patient, patient), ((name, 1),))
    event = Transferred(AT, Party(name, address), B, objects, outcome=Outcome.MINOR, why=name)
    whole = message(event, replace(ORIGIN, patient=AuditPatient.ID))
    assert parsed(whole).users[1] == ("PACS", False)
    assert b"\n" not in whole


def test_codes_mean_what_the_standard_says() -> None:
    known = {code: meaning for terms in concepts["DCM"].values() for code, (meaning, _) in terms.items()}
    ours = [each for each in vars(codes).values() if isinstance(each, codes.Code) and each.scheme == "DCM"]
    assert len(ours) > 20
    assert {each.value: each.meaning for each in ours} == {each.value: known[each.value] for each in ours}
