"""The coded terms of audit messages: PS3.16 CID 400 (events), 401 (types), 402 (roles), 404 (identifiers)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Code:
    """A coded value: code, designator of its coding scheme, and what it means in words."""

    value: str
    scheme: str
    meaning: str


def _dcm(value: int, meaning: str) -> Code:
    return Code(str(value), "DCM", meaning)


APPLICATION_ACTIVITY = _dcm(110100, "Application Activity")
AUDIT_LOG_USED = _dcm(110101, "Audit Log Used")
BEGIN_TRANSFERRING = _dcm(110102, "Begin Transferring DICOM Instances")
INSTANCES_ACCESSED = _dcm(110103, "DICOM Instances Accessed")
INSTANCES_TRANSFERRED = _dcm(110104, "DICOM Instances Transferred")
STUDY_DELETED = _dcm(110105, "DICOM Study Deleted")
EXPORT = _dcm(110106, "Export")
IMPORT = _dcm(110107, "Import")
QUERY = _dcm(110112, "Query")
SECURITY_ALERT = _dcm(110113, "Security Alert")

APPLICATION_START = _dcm(110120, "Application Start")
APPLICATION_STOP = _dcm(110121, "Application Stop")
NODE_AUTHENTICATION = _dcm(110126, "Node Authentication")
SECURITY_CONFIGURATION = _dcm(110129, "Security Configuration")
SOFTWARE_CONFIGURATION = _dcm(110131, "Software Configuration")
USE_OF_RESTRICTED_FUNCTION = _dcm(110132, "Use of Restricted Function")
RECORDING_STOPPED = _dcm(110133, "Audit Recording Stopped")
RECORDING_STARTED = _dcm(110134, "Audit Recording Started")
OBJECT_SECURITY = _dcm(110135, "Object Security Attributes Changed")

APPLICATION = _dcm(110150, "Application")
DESTINATION = _dcm(110152, "Destination Role ID")
SOURCE = _dcm(110153, "Source Role ID")
DESTINATION_MEDIA = _dcm(110154, "Destination Media")
SOURCE_MEDIA = _dcm(110155, "Source Media")
URI_MEDIUM = _dcm(110037, "URI")

STUDY_UID = _dcm(110180, "Study Instance UID")
CLASS_UID = _dcm(110181, "SOP Class UID")
NODE_ID = _dcm(110182, "Node ID")
PATIENT_NUMBER = Code("2", "RFC-3881", "Patient Number")
URI = Code("12", "RFC-3881", "URI")
