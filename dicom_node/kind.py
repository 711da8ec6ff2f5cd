"""What a file is, by its first bytes: cheap enough to ask of every file, safe to ask of a stranger's."""

from __future__ import annotations

import enum
import struct

#: bytes that `kind` wants to see
HEAD_BYTES = 1024

_PREFIX_AT, _PREFIX = 128, b"DICM"
_ZIP = (b"PK\3\4", b"PK\5\6")
#: SOP class of a DICOMDIR (PS3.10 section 8.6)
_MEDIA_DIRECTORY = b"1.2.840.10008.1.3.10"
_LONG = (b"OB", b"OW", b"UN", b"UT", b"SQ")


class Kind(enum.Enum):
    """What can be done with a file."""

    INSTANCE = "instance"  #: Part 10, to be judged
    INDEX = "index"  #: a DICOMDIR
    ARCHIVE = "archive"  #: a zip
    OTHER = "other"


def kind(head: bytes) -> Kind:
    """The kind of a file that begins with `head`; whoever claims to be DICOM is, whatever else he may be."""
    if head[_PREFIX_AT : _PREFIX_AT + len(_PREFIX)] == _PREFIX:
        return Kind.INDEX if _sop_class(head) == _MEDIA_DIRECTORY else Kind.INSTANCE
    return Kind.ARCHIVE if head.startswith(_ZIP) else Kind.OTHER


def _sop_class(head: bytes) -> bytes:
    """Media Storage SOP Class UID of the file meta information (PS3.10 section 7.1), b"" if not in `head`."""
    at = _PREFIX_AT + len(_PREFIX)
    while at + 12 <= len(head):
        group, element, vr, short, long = struct.unpack_from("<HH2sHI", head, at)
        start, length = (at + 12, long) if vr in _LONG else (at + 8, short)
        if group != 2 or element > 2:
            break
        if element == 2:
            return head[start : start + length].strip(b" \0")
        at = start + length
    return b""
