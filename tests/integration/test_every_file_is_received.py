"""Real files are taken off the wire, whatever wrote them; those that are not are known by name and reason."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pydicom.data
import pytest

from dicom_node.dimse.structure import StructureWalk
from dicom_node.errors import DataSetError
from tests import wire
from tests.data_sets import LONG
from tests.integration.test_hostile_peers import Site, running
from tests.wire import Wire, context

pytestmark = pytest.mark.slow

#: file -> status and why; DCMTK's storescu sends none of them but the last, whose UID it shortens
_REFUSED = {
    "MR_truncated.dcm": 0xC000,  # cut off in its pixels
    "rtplan_truncated.dcm": 0xC000,  # cut off in a sequence
    "SC_rgb_jpeg.dcm": 0xC000,  # implicit VR under an explicit transfer syntax
    "jpeg2000-multiframe-multifragments.dcm": 0x0117,  # an instance UID of 68 characters
}


@pytest.fixture
def site(tmp_path: Path):
    yield from running(tmp_path)


def test_the_image_folder(shared_data: Path, site: Site) -> None:
    refused, count = received(site, shared_data / "dicom")
    assert count > 200
    assert refused == expected(refused)


def test_the_files_that_pydicom_tests_itself_with(site: Site) -> None:
    refused, count = received(site, Path(pydicom.data.__path__[0]))
    assert count > 100
    assert refused == expected(refused)


def expected(refused: dict[str, int]) -> dict[str, int]:
    return {name: _REFUSED.get(name, 0) for name in refused}


def received(site: Site, folder: Path) -> tuple[dict[str, int], int]:
    """Send every instance in a folder; what was refused, by file name, and how many were sent."""
    refused, count = {}, 0
    for path in sorted(folder.rglob("*")):
        meta, data = parted(path.read_bytes()) if path.is_file() else ({}, b"")
        sop_class, sop_instance, syntax = (meta.get(number, "") for number in (0x02, 0x03, 0x10))
        sop_class, sop_instance = said(data, syntax) or (sop_class, sop_instance)
        # a file set is no instance, and what names no transfer syntax cannot be proposed
        if not (sop_class and sop_instance and syntax) or sop_class == "1.2.840.10008.1.3.10":
            continue
        count += 1
        with Wire(site.port) as one:
            assert one.associate(context(1, sop_class, syntax)) == wire.ACCEPTED, path.name
            status = one.store(sop_class, sop_instance, data, piece=100_000)
        if status:
            refused[path.name] = status
    return refused, count


def said(data: bytes, syntax: str) -> tuple[str, str] | None:
    """What the data set says it is, None if it is broken.

    storescu asks with these, not with those of the file meta information, and sends nothing without them.
    """
    with contextlib.suppress(DataSetError):
        walk = StructureWalk(syntax)
        walk.feed(data)
        found = walk.close()
        return found.sop_class_uid, found.sop_instance_uid
    return None


def parted(content: bytes) -> tuple[dict[int, str], bytes]:
    """File meta information, by element number, and data set; nothing for what is no Part 10 file."""
    if content[128:132] != b"DICM":
        return {}, b""
    at, meta = 132, {}
    while content[at : at + 2] == b"\2\0":
        long = content[at + 4 : at + 6].decode() in LONG
        length = int.from_bytes(content[at + 8 : at + 12] if long else content[at + 6 : at + 8], "little")
        start = at + (12 if long else 8)
        value = content[start : start + length]
        meta[int.from_bytes(content[at + 2 : at + 4], "little")] = value.decode("latin-1").strip("\0 ")
        at = start + length
    return meta, content[at:]
