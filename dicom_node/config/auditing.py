"""To whom the audit trail is told, and what it says."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dicom_node.config.kinds import CertificateName, Port, Section
from dicom_node.config.words import AuditPatient, AuditTransport

MessageId = Annotated[str, Field(pattern=r"^[!-~]{1,32}$")]


class Audit(Section):
    """The audit trail (IHE ATNA); off while `host` is null."""

    #: the audit record repository
    host: Annotated[str, Field(min_length=1)] | None = None
    port: Port = 6514
    transport: AuditTransport = AuditTransport.TLS
    #: the name that its certificate must have, if not `host`
    tls_name: CertificateName | None = None
    #: seconds that the repository may take to answer or to take a message
    timeout_s: float = Field(default=10.0, gt=0.0, le=600.0)
    patient: AuditPatient = AuditPatient.NONE
    enterprise_site: str = Field(default="", max_length=64)
    #: Audit Source Type Code, PS3.15 A.5.1.2.1
    source_type: int = Field(default=4, ge=1, le=9)
    #: of syslog: 10 is security, 5 is notice
    facility: int = Field(default=10, ge=0, le=23)
    severity: int = Field(default=5, ge=0, le=7)
    message_id: MessageId = "DICOM+RFC3881"
    #: seconds for which what happens to a study is told as one message
    aggregate_s: float = Field(default=60.0, ge=0.1, le=3600.0)
    #: messages that wait for the repository at most
    keep_messages: int = Field(default=100000, ge=100, le=10000000)
