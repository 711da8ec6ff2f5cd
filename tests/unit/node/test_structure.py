"""What the structure walk lets through, what it does not, and why."""

from __future__ import annotations

import struct
from pathlib import Path

import pydicom.data
import pytest

from dicom_node.dimse import structure
from dicom_node.dimse.structure import Found, StructureWalk
from dicom_node.errors import DataSetError
from tests.data_sets import (
    BIG,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    JPEG,
    LONG,
    UNDEFINED,
    Writer,
    deflated,
    parts,
    simple,
)

CT, ONE = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4"
W = Writer(EXPLICIT)
HEAD = W.identity(CT, ONE)


def walked(data: bytes, syntax: str = EXPLICIT, size: int = 1 << 17) -> Found:
    walk = StructureWalk(syntax)
    for at in range(0, len(data), size):
        walk.feed(memoryview(data)[at : at + size])
    return walk.close()


def reason(data: bytes, syntax: str = EXPLICIT, size: int = 1 << 17) -> str:
    with pytest.raises(DataSetError) as caught:
        walked(data, syntax, size)
    assert caught.value.dimse_status == 0xC000
    return caught.value.reason


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG, DEFLATED, JPEG])
@pytest.mark.parametrize("size", [1, 7, 100, 1 << 17])
def test_a_whole_object_in_every_encoding_and_in_any_pieces(syntax: str, size: int) -> None:
    assert walked(simple(CT, ONE, syntax), syntax, size) == Found(CT, ONE)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG, DEFLATED, JPEG])
def test_a_cut_is_seen_wherever_it_is_but_between_two_elements(syntax: str) -> None:
    whole = simple(CT, ONE, syntax, pixels=64)
    whole = whole.rstrip(b"\0") if syntax == DEFLATED else whole
    elements = parts(CT, ONE, syntax, 64)
    between = {len(b"".join(elements[:count])) for count in range(1, len(elements))}
    for cut in range(1, len(whole)):
        if cut in between and syntax != DEFLATED:
            walked(whole[:cut], syntax)
        else:
            reason(whole[:cut], syntax)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no-elements"),
        (HEAD + W.element(0x7FE00010, "OW", b"12", 4), "value-cut-off"),
        (HEAD + W.element(0x7FE00010, "OW", b"12", 4)[:9], "element-cut-off"),
        (HEAD + W.fragments(0x7FE00010, [b"", b"1234"])[:-8], "no-delimiter"),
        (HEAD + W.sequence(0x00081140, [], delimited=True)[:-8], "no-delimiter"),
        (HEAD + W.mark(0xE0DD, 0), "unexpected-item-or-delimiter"),
        (HEAD + W.mark(0xE000, 0), "unexpected-item-or-delimiter"),
        (HEAD + W.element(0x00081140, "SQ", HEAD), "no-item-where-one-is-due"),
        (HEAD + W.element(0x00081140, "SQ", W.mark(0xE000, 100)), "item-crosses-the-end-of-its-sequence"),
        (
            HEAD + W.sequence(0x00081140, [W.item(HEAD + HEAD[:5], delimited=False)], delimited=False) + HEAD,
            "header-crosses-the-end-of-its-item",
        ),
        (
            HEAD + W.sequence(0x00081140, [W.item(HEAD[:-1], delimited=False)], delimited=False) + HEAD,
            "value-crosses-the-end-of-its-item",
        ),
        (
            HEAD + W.element(0x7FE00010, "OB", W.mark(0xE000, UNDEFINED), UNDEFINED),
            "unexpected-item-or-delimiter",
        ),
        (HEAD + W.element(0x00081140, "UT", b"", UNDEFINED), "value-without-length"),
        (HEAD + W.identity(CT, "1.2.5"), "two-values-of-one-uid"),
        (HEAD + bytes(20) + b"x", "bytes-after-the-end"),
        (HEAD + b"\0", "element-cut-off"),
        (bytes(128) + b"DICM" + HEAD, "bytes-after-the-end"),
    ],
)
def test_what_is_broken(data: bytes, why: str) -> None:
    assert reason(data) == why
    assert reason(data, size=1) == why


@pytest.mark.parametrize(
    "data",
    [
        HEAD + W.element(0xFFFCFFFC, "OB", bytes(100)),
        HEAD + bytes(2),
        HEAD + bytes(9),
        HEAD + bytes(1000),
        HEAD + W.element(0x00990001, "UN", b"odd") + b"\0",
        HEAD + W.element(0x00990001, "UN", b"odd"),
        W.element(0x00020010, "UI", b"1.2.840.10008.1.2.1\0") + HEAD,
        W.element(0x7FE00010, "OW", b"12") + HEAD,
        HEAD + HEAD,
        HEAD + W.element(0x00080060, "??", b"CT"),
        HEAD + W.element(0x00080060, "ZZ", b"")[:8] + struct.pack("<I", 2) + b"CT",
        HEAD + W.sequence(0x00081140, [Writer(IMPLICIT).item(b"", delimited=True)], delimited=True, vr="UN"),
        HEAD + W.element(0x00081140, "SQ", W.item(W.mark(0xE00D, 0), delimited=False) + W.mark(0xE0DD, 0)),
        HEAD + W.fragments(0x7FE00010, []),
    ],
    ids=[
        "padding element",
        "two zeros",
        "nine zeros",
        "many zeros",
        "odd value and its padding",
        "odd value without",
        "file meta inside",
        "out of order",
        "the same twice",
        "illegal VR",
        "future VR",
        "UN sequence is implicit",
        "delimiters where lengths are given",
        "no fragments",
    ],
)
def test_what_is_odd_but_clear(data: bytes) -> None:
    assert walked(data) == Found(CT, ONE)
    assert walked(data, size=1) == Found(CT, ONE)


def test_uids_are_read_at_the_outermost_level_only() -> None:
    other = W.identity("1.2.9", "1.2.8")
    data = HEAD + W.sequence(0x00081140, [W.item(other, delimited=True)], delimited=True)
    assert walked(data) == Found(CT, ONE)
    assert walked(W.element(0x00080060, "CS", b"CT")) == Found("", "")


def test_a_uid_that_is_endless_equals_none() -> None:
    found = walked(W.element(0x00080018, "UI", b"1" * 60000) + W.element(0x00080060, "CS", b"CT"), size=1000)
    assert found.sop_instance_uid not in ("", "1" * 60000)


def test_what_follows_a_deflated_stream() -> None:
    assert walked(deflated(HEAD) + bytes(5), DEFLATED) == Found(CT, ONE)
    assert walked(deflated(HEAD) + b"checksum", DEFLATED) == Found(CT, ONE)
    assert reason(deflated(HEAD) + b"another file", DEFLATED) == "bytes-after-deflated-stream"
    assert reason(deflated(HEAD) + b"another file", DEFLATED, 1) == "bytes-after-deflated-stream"
    assert reason(HEAD, DEFLATED) == "not-deflated"


def test_nesting_and_number_of_elements_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    def nested(depth: int) -> bytes:
        opening = W.element(0x00081140, "SQ", b"", UNDEFINED) + W.mark(0xE000, UNDEFINED)
        return HEAD + opening * depth + (W.mark(0xE00D, 0) + W.mark(0xE0DD, 0)) * depth

    walked(nested(structure.DEEPEST))
    assert reason(nested(structure.DEEPEST + 1)) == "too-deep"
    monkeypatch.setattr(structure, "MOST_ELEMENTS", 20)
    assert reason(HEAD + W.element(0x00990001, "UN", b"") * 30 + W.mark(0xE0DD, 0)) == "too-many-elements"


def test_a_deflated_stream_does_not_unfold_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structure, "MOST_INFLATED", 10_000_000)
    bomb = deflated(HEAD + W.element(0x7FE00010, "OW", bytes(50_000_000)))
    assert len(bomb) < 100_000
    assert reason(bomb, DEFLATED) == "too-large-inflated"


#: files of pydicom that are broken on purpose, or no data set of their transfer syntax
BROKEN = {
    "MR_truncated.dcm": "cut off in its pixels",
    "rtplan_truncated.dcm": "cut off in a sequence",
    "SC_rgb_jpeg.dcm": "implicit VR under an explicit transfer syntax; DCMTK cannot read it either",
    "DICOMDIR-nooffset": "a sequence shorter than its items",
}


def test_every_file_that_comes_with_pydicom() -> None:
    folder = pydicom.data.__path__[0]
    seen, broken = 0, set()
    for path in sorted(_files(folder)):
        split = _split(path.read_bytes())
        if split is not None:
            seen += 1
            try:
                walked(split[1], split[0])
            except DataSetError:
                broken.add(path.name)
    assert seen > 100
    assert broken == set(BROKEN)


def test_every_public_image(shared_data: Path) -> None:
    for path in (shared_data / "dicom").rglob("*.dcm"):
        split = _split(path.read_bytes())
        assert split is not None
        assert walked(split[1], split[0]).sop_class_uid


def _files(folder: str) -> list[Path]:
    return [path for path in Path(folder).rglob("*") if path.is_file() and path.suffix in ("", ".dcm")]


def _split(content: bytes) -> tuple[str, bytes] | None:
    """Transfer syntax and data set of a Part 10 file, None for anything else."""
    if content[128:132] != b"DICM":
        return None
    at, syntax = 132, ""
    while content[at : at + 2] == b"\2\0":
        long = content[at + 4 : at + 6].decode() in LONG
        length = int.from_bytes(content[at + 8 : at + 12] if long else content[at + 6 : at + 8], "little")
        start = at + (12 if long else 8)
        if content[at + 2 : at + 4] == b"\x10\0":
            syntax = content[start : start + length].strip(b"\0 ").decode()
        at = start + length
    return (syntax, content[at:]) if syntax else None
