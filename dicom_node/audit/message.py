"""An event as an audit message: XML of PS3.15 section A.5.1, filled as section A.5.3 says for each event."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from xml.etree import ElementTree

from dicom_node.audit import codes
from dicom_node.audit.codes import Code
from dicom_node.audit.events import (
    Accessed,
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
from dicom_node.config import AuditPatient

#: in the place of a patient's number that is not told, and of a study that an object does not name
WITHHELD, UNKNOWN = "withheld", "unknown"
_EXECUTE, _READ, _CREATE, _DELETE = "E", "R", "C", "D"
_PERSON, _SYSTEM_OBJECT = "1", "2"
_PATIENT, _REPORT, _SECURITY_RESOURCE, _STORE = "1", "3", "13", "17"
_MACHINE_NAME, _IP_ADDRESS = "1", "2"
#: what XML 1.0 cannot carry, and what would break a line
_UNSPEAKABLE = re.compile("[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NUMERIC_ADDRESS = re.compile(r"[0-9.]+|[0-9A-Fa-f:.%]*:[0-9A-Za-z:.%]*")
_DIGEST_DIGITS = 32

ALERT_TYPES: dict[Alert, Code] = {
    Alert.ASSOCIATION_REFUSED: codes.NODE_AUTHENTICATION,
    Alert.NOT_AUTHENTIC: codes.OBJECT_SECURITY,
    Alert.RE_IDENTIFIED: codes.USE_OF_RESTRICTED_FUNCTION,
    Alert.KEYS_CHANGED: codes.SECURITY_CONFIGURATION,
    Alert.CONFIGURATION_CHANGED: codes.SOFTWARE_CONFIGURATION,
    Alert.RECORDING_STOPPED: codes.RECORDING_STOPPED,
    Alert.RECORDING_STARTED: codes.RECORDING_STARTED,
}


@dataclass(frozen=True, slots=True)
class Origin:
    """Who tells: what is the same in every message of a node.

    Parameters
    ----------
    node : id of the node, the Audit Source ID
    ae_title, host, pid : what names its process
    site, source_type : Audit Enterprise Site ID ("" is left out) and Audit Source Type Code
    patient : how a patient is named
    salt : secret of this site, behind the hashes of `AuditPatient.HASH`
    """

    node: str
    ae_title: str
    host: str
    pid: int
    site: str = ""
    source_type: int = 4
    patient: AuditPatient = AuditPatient.NONE
    salt: bytes = field(default=b"", repr=False)

    @property
    def party(self) -> Party:
        """The node as it takes part in what it does itself."""
        return Party(self.ae_title, self.host)


@dataclass(frozen=True, slots=True)
class _Participant:
    """An Active Participant."""

    party: Party
    requestor: bool
    role: Code | None = None
    #: process id or the like beside the name
    alternative: str = ""
    medium: Code | None = None


@dataclass(frozen=True, slots=True)
class _Thing:
    """A Participant Object; `query` takes the place of its name."""

    id: str
    id_type: Code
    kind: str
    role: str
    name: str = ""
    query: bytes | None = None
    details: tuple[tuple[str, bytes], ...] = ()
    objects: Objects | None = None


@dataclass(frozen=True, slots=True)
class _Draft:
    """A message before it is written out."""

    event: Code
    action: str
    participants: Sequence[_Participant]
    things: Sequence[_Thing] = ()
    types: Sequence[Code] = ()
    outcome: Outcome = Outcome.SUCCESS
    why: str = ""


def message(event: Event, origin: Origin) -> bytes:
    """The event as an XML document in UTF-8 on one line, valid by the schema of PS3.15 A.5.1.1."""
    draft = _drafted(event, origin)
    root = ElementTree.Element("AuditMessage")
    root.append(_identification(event.at, draft))
    for participant in draft.participants:
        root.append(_participant(participant))
    source = ElementTree.SubElement(root, "AuditSourceIdentification", AuditSourceID=origin.node)
    if origin.site:
        source.set("AuditEnterpriseSiteID", speakable(origin.site))
    ElementTree.SubElement(source, "AuditSourceTypeCode", {"csd-code": str(origin.source_type)})
    for thing in draft.things:
        root.append(_thing(thing))
    whole: bytes = ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True)
    return whole.replace(b"\n", b"")


def speakable(text: str) -> str:
    """The text without what XML or a line of syslog cannot carry; AE titles come off the wire."""
    return _UNSPEAKABLE.sub("?", text)


def _drafted(event: Event, origin: Origin) -> _Draft:
    match event:
        case ApplicationStarted():
            return _activity(codes.APPLICATION_START, origin)
        case ApplicationStopped():
            return _activity(codes.APPLICATION_STOP, origin)
        case TransferBegun(source=source, destination=destination, objects=objects):
            ends = _ends(source, destination)
            return _Draft(codes.BEGIN_TRANSFERRING, _EXECUTE, ends, _studies(objects, origin))
        case Transferred():
            return _Draft(
                codes.INSTANCES_TRANSFERRED,
                event.action,
                _ends(event.source, event.destination),
                _studies(event.objects, origin),
                outcome=event.outcome,
                why=event.why,
            )
        case Accessed():
            return _accessed(event, origin)
        case Deleted(by=by, objects=objects):
            who = (_Participant(by, requestor=True), _itself(origin))
            return _Draft(codes.STUDY_DELETED, _DELETE, who, _studies(objects, origin))
        case Exported() | Imported():
            return _media(event, origin)
        case Queried():
            return _query(event, origin)
        case SecurityAlert():
            return _alert(event, origin)
        case TrailUsed(by=by):
            who = (_Participant(by, requestor=True), _itself(origin))
            return _Draft(codes.AUDIT_LOG_USED, _READ, who, (_TRAIL,))


#: the trail itself (PS3.15 A.5.3.2)
_TRAIL = _Thing("file:audit", codes.URI, _SYSTEM_OBJECT, _SECURITY_RESOURCE, name="Security Audit Log")


def _activity(kind: Code, origin: Origin) -> _Draft:
    who = _Participant(
        origin.party, requestor=False, role=codes.APPLICATION, alternative=f"AETITLES={origin.ae_title}"
    )
    return _Draft(codes.APPLICATION_ACTIVITY, _EXECUTE, (who,), types=(kind,))


def _itself(origin: Origin, *, requestor: bool = False) -> _Participant:
    return _Participant(origin.party, requestor, alternative=str(origin.pid))


def _ends(source: Party, destination: Party) -> tuple[_Participant, _Participant]:
    return (
        _Participant(source, requestor=True, role=codes.SOURCE),
        _Participant(destination, requestor=False, role=codes.DESTINATION),
    )


def _accessed(event: Accessed, origin: Origin) -> _Draft:
    who = [_itself(origin, requestor=event.by is None)]
    if event.by is not None:
        who.insert(0, _Participant(event.by, requestor=True))
    things = _studies(event.objects, origin)
    return _Draft(codes.INSTANCES_ACCESSED, event.action, who, things, outcome=event.outcome, why=event.why)


def _media(event: Exported | Imported, origin: Origin) -> _Draft:
    """Export to, or import from, files: the medium is a participant of its own (PS3.15 A.5.3.4, A.5.3.5)."""
    out = isinstance(event, Exported)
    person = _Participant(event.by, requestor=True, role=codes.SOURCE if out else codes.DESTINATION)
    medium = _Participant(
        Party("files") if isinstance(event, Exported) else event.source,
        requestor=False,
        role=codes.DESTINATION_MEDIA if out else codes.SOURCE_MEDIA,
        medium=codes.URI_MEDIUM,
    )
    things = _studies(event.objects, origin)
    if isinstance(event, Exported):
        who = (person, medium)
        return _Draft(codes.EXPORT, _READ, who, things, outcome=event.outcome, why=event.why)
    return _Draft(codes.IMPORT, _CREATE, (person, medium), things)


def _query(event: Queried, origin: Origin) -> _Draft:
    """The keys may name a patient, and nobody can tell which: they are told only where patients are."""
    told = event.keys if origin.patient is AuditPatient.ID else WITHHELD.encode()
    asked = _Thing(
        event.sop_class,
        codes.CLASS_UID,
        _SYSTEM_OBJECT,
        _REPORT,
        query=told,
        details=(("TransferSyntax", event.transfer_syntax.encode()),),
    )
    ends = _ends(event.source, event.destination)
    return _Draft(codes.QUERY, _EXECUTE, ends, (asked,), outcome=event.outcome, why=event.why)


def _alert(event: SecurityAlert, origin: Origin) -> _Draft:
    who = [_itself(origin, requestor=True)]
    if event.who is not None:
        who.append(_Participant(event.who, requestor=False))
    said = event.what if event.count == 1 else f"{event.what} ({event.count} times)"
    subject = _Thing(
        origin.node if event.who is None else event.who.name or UNKNOWN,
        codes.NODE_ID,
        _SYSTEM_OBJECT,
        _SECURITY_RESOURCE,
        name=str(event.alert),
        details=(("Alert Description", speakable(said).encode()),),
    )
    things = [subject, *(_studies(event.objects, origin) if event.objects is not None else ())]
    types = (ALERT_TYPES[event.alert],)
    return _Draft(
        codes.SECURITY_ALERT, _EXECUTE, who, things, types=types, outcome=event.outcome, why=event.what
    )


def _studies(objects: Objects, origin: Origin) -> tuple[_Thing, ...]:
    """The study and its patient (PS3.15 tables A.5.3.6-1 and following)."""
    study = _Thing(
        objects.study.uid or UNKNOWN,
        codes.STUDY_UID,
        _SYSTEM_OBJECT,
        _REPORT,
        name="study",
        objects=objects,
    )
    patient = _Thing(
        patient_number(objects.study, origin), codes.PATIENT_NUMBER, _PERSON, _PATIENT, name=WITHHELD
    )
    return study, patient


def patient_number(study: Study, origin: Origin) -> str:
    """How the patient of a study is named: not at all, by a hash that only this site can check, or by ID."""
    if origin.patient is AuditPatient.NONE:
        return WITHHELD
    if not study.patient_id:
        return UNKNOWN
    if origin.patient is AuditPatient.ID:
        return study.patient_id
    digest = hmac.new(origin.salt, b"patient\0" + study.patient_id.encode("utf-8", "replace"), hashlib.sha256)
    return digest.hexdigest()[:_DIGEST_DIGITS]


def _identification(at: float, draft: _Draft) -> ElementTree.Element:
    element = ElementTree.Element(
        "EventIdentification",
        EventActionCode=str(draft.action),
        EventDateTime=datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds"),
        EventOutcomeIndicator=str(int(draft.outcome)),
    )
    element.append(_coded("EventID", draft.event))
    element.extend(_coded("EventTypeCode", kind) for kind in draft.types)
    if draft.outcome is not Outcome.SUCCESS and draft.why:
        ElementTree.SubElement(element, "EventOutcomeDescription").text = speakable(draft.why)
    return element


def _participant(one: _Participant) -> ElementTree.Element:
    element = ElementTree.Element(
        "ActiveParticipant",
        UserID=speakable(one.party.name) or UNKNOWN,
        UserIsRequestor="true" if one.requestor else "false",
    )
    if one.alternative:
        element.set("AlternativeUserID", speakable(one.alternative))
    if one.party.address:
        numeric = _NUMERIC_ADDRESS.fullmatch(one.party.address) is not None
        element.set("NetworkAccessPointID", speakable(one.party.address))
        element.set("NetworkAccessPointTypeCode", _IP_ADDRESS if numeric else _MACHINE_NAME)
    if one.role is not None:
        element.append(_coded("RoleIDCode", one.role))
    if one.medium is not None:
        ElementTree.SubElement(element, "MediaIdentifier").append(_coded("MediaType", one.medium))
    return element


def _thing(one: _Thing) -> ElementTree.Element:
    element = ElementTree.Element(
        "ParticipantObjectIdentification",
        ParticipantObjectID=speakable(one.id),
        ParticipantObjectTypeCode=one.kind,
        ParticipantObjectTypeCodeRole=one.role,
    )
    element.append(_coded("ParticipantObjectIDTypeCode", one.id_type))
    if one.query is None:
        ElementTree.SubElement(element, "ParticipantObjectName").text = speakable(one.name)
    else:
        ElementTree.SubElement(element, "ParticipantObjectQuery").text = _base64(one.query)
    for kind, value in one.details:
        ElementTree.SubElement(element, "ParticipantObjectDetail", type=kind, value=_base64(value))
    if one.objects is not None:
        description = ElementTree.SubElement(element, "ParticipantObjectDescription")
        description.extend(_described(one.objects))
    return element


def _described(objects: Objects) -> Iterator[ElementTree.Element]:
    for uid, count in objects.classes:
        of_class = {"UID": speakable(uid)} if uid else {}
        yield ElementTree.Element("SOPClass", {**of_class, "NumberOfInstances": str(count)})
    if objects.deidentified:
        anonymized = ElementTree.Element("Anonymized")
        anonymized.text = "true"
        yield anonymized


def _coded(name: str, code: Code) -> ElementTree.Element:
    return ElementTree.Element(
        name, {"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning}
    )


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")
