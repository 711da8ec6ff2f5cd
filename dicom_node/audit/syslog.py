"""An audit message as a message of syslog (RFC 5424), and as it goes over TLS or TCP (RFC 5425, RFC 6587)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

_VERSION, _APP = 1, "dicom-node"
#: says that the text after it is UTF-8 (RFC 5424 section 6.4)
_BOM = b"\xef\xbb\xbf"
_NIL = "-"
_PRINTABLE = re.compile(r"[^\x21-\x7e]")
_HOST_LENGTH, _ID_LENGTH = 255, 32


@dataclass(frozen=True, slots=True)
class Label:
    """What the header of every message says.

    `facility` 0..23 and `severity` 0..7 make the PRI; `message_id` is the MSGID, by which a repository knows
    the format of what follows.
    """

    facility: int
    severity: int
    message_id: str
    host: str
    pid: int


def syslog(xml: bytes, label: Label, at: float) -> bytes:
    """The message of RFC 5424 that carries an XML document; `at` is seconds since 1970-01-01 UTC."""
    time = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    host = _PRINTABLE.sub("", label.host)[:_HOST_LENGTH] or _NIL
    head = (
        f"<{label.facility * 8 + label.severity}>{_VERSION} {time} {host} {_APP} {label.pid}"
        f" {label.message_id[:_ID_LENGTH]} {_NIL} "
    )
    return head.encode("ascii") + _BOM + xml


def framed(message: bytes) -> bytes:
    """The message with its length in bytes before it (octet counting, RFC 5425 section 4.3)."""
    return b"%d %b" % (len(message), message)


def document(message: bytes) -> bytes:
    """The XML document that a message carries."""
    return message[message.index(_BOM) + len(_BOM) :]
