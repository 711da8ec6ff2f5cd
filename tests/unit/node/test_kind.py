"""What a file is, by its first bytes."""

from __future__ import annotations

import pytest

from dicom_node.kind import HEAD_BYTES, Kind, kind
from tests import builders, media

INSTANCE = builders.file_bytes(builders.ct(16, 16))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (INSTANCE, Kind.INSTANCE),
        (media.dicomdir(["A"]), Kind.INDEX),
        (media.zipped({"a": INSTANCE}), Kind.ARCHIVE),
        (media.zipped({}), Kind.ARCHIVE),
        (b"PK\3\4" + INSTANCE[4:], Kind.INSTANCE),
        (INSTANCE[128:], Kind.OTHER),
        (b"", Kind.OTHER),
        (bytes(128) + b"DICM", Kind.INSTANCE),
        (bytes(128) + b"DICM" + b"\2\0\1\0OB\0\0\xff\xff\xff\xff" + bytes(900), Kind.INSTANCE),
    ],
)
def test_whoever_claims_to_be_dicom_is(content: bytes, expected: Kind) -> None:
    assert kind(content[:HEAD_BYTES]) is expected
