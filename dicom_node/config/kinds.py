"""What a value may be: AE titles, ports, names, hours ...; and the base of every section."""

from __future__ import annotations

import ipaddress
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

from dicom_node.windows import parse as parse_window

RECORD_FIELDS: Mapping[str, int] = {
    "PatientName": 0x00100010,
    "PatientID": 0x00100020,
    "PatientBirthDate": 0x00100030,
    "PatientSex": 0x00100040,
    "StudyDate": 0x00080020,
    "StudyTime": 0x00080030,
    "AccessionNumber": 0x00080050,
    "Modality": 0x00080060,
    "InstitutionName": 0x00080080,
    "ReferringPhysicianName": 0x00080090,
    "StudyInstanceUID": 0x0020000D,
    "SeriesInstanceUID": 0x0020000E,
    "SOPInstanceUID": 0x00080018,
}


CREDENTIAL = "credential:"


def record_tag(keyword: str) -> int | None:
    """The tag of a DICOM keyword, or None; loads pydicom's dictionary only for an uncommon keyword."""
    if keyword in RECORD_FIELDS:
        return RECORD_FIELDS[keyword]
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(keyword)
    return None if tag is None else int(tag)


def _known_keyword(keyword: str) -> str:
    if record_tag(keyword) is None:
        raise ValueError("not a keyword of the DICOM data dictionary (PS3.6), for example PatientID")
    return keyword


def without_repeats(names: tuple[str, ...]) -> tuple[str, ...]:
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise ValueError(f"named twice: {', '.join(repeated)}")
    return names


def _anchored(path: Path, info: ValidationInfo) -> Path:
    """A relative path is relative to the file that names it, not to wherever the service was started.

    `credential:NAME` is what systemd hands to the service under that name (systemd.exec(5), LoadCredential=).
    """
    if str(path).startswith(CREDENTIAL):
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        return Path(folder, str(path).removeprefix(CREDENTIAL)) if folder else path
    return Path(info.context, path) if info.context else path


def _trimmed_ae(title: str) -> str:
    if title != title.strip(" "):
        raise ValueError("an AE title has no leading or trailing spaces (PS3.5 section 6.2)")
    return title


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(
            f"not an address or network ({error}); write 10.1.2.3, 10.1.2.0/24 or 2001:db8::/32"
        ) from error
    return text


def _certificate_name(text: str) -> str:
    if text.startswith("sha256:") and not re.fullmatch(r"sha256:[0-9a-f]{64}", text):
        raise ValueError("a fingerprint is sha256: and 64 hex digits, lower case, without colons")
    return text


def _window(text: str) -> str:
    parse_window(text)
    return text


AETitle = Annotated[
    str, Field(min_length=1, max_length=16, pattern=r"^[ -\[\]-~]+$"), AfterValidator(_trimmed_ae)
]
Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$")]
File = Annotated[Path, AfterValidator(_anchored)]
Keyword = Annotated[str, AfterValidator(_known_keyword)]
Pattern = Annotated[str, Field(min_length=1, max_length=64)]
SegmenterName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
SafePrivate = Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{3}[13579BDFbdf],xx[0-9A-Fa-f]{2},[^\\\\]{1,64}$")]
Names = Annotated[tuple[Name, ...], AfterValidator(without_repeats)]
#: a name in a certificate (DNS, address, URI; its common name if it has none of these), or `sha256:HEX` of it
CertificateName = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_certificate_name)]
Network = Annotated[str, AfterValidator(_network)]
Hours = Annotated[str, AfterValidator(_window)]


class Section(BaseModel):
    """A block of the file: unknown keys are errors, types are strict, values are frozen."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
