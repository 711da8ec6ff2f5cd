"""No value that de-identification takes out of a public file stands anywhere in what leaves."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from benchmarks.images import RING, dicom_files
from benchmarks.journeys import public_files
from benchmarks.run import spread
from blessmark import pixels
from blessmark.errors import WatermarkError
from blessmark.payload.record import FULL_FIELDS
from blessmark.pixels import layout
from blessmark.segment import segmenter
from dicom_node import header
from dicom_node.config import Deidentify, Profile
from dicom_node.errors import NodeError
from dicom_node.protect import Site, protect, written
from tests.secret_values import found, kept_values, removed_values

pytestmark = pytest.mark.slow

BASIC = Deidentify(profile=Profile.BASIC)
#: a shorter value stands by chance in a header
_LEAST_BYTES = 6
#: what stands in the place of values, and what the standard calls its palettes
_PUBLIC = (b"REMOVED", b"Removed", b"Anonymous", b"19000101", b"000000", b"1.2.840.10008.")
#: UIDs and names of programs, which the file meta information keeps
_PROGRAMS = (0x00020012, 0x00020013)


def leaks(path: Path) -> tuple[str, int, list[bytes]]:
    """Name, how many values were searched for, and those that were found."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ds = pixels.read(path)
            secrets = {value for value in removed_values(ds, BASIC) if len(value) >= _LEAST_BYTES}
            programs = (header.value_bytes(ds.file_meta, tag) or b"" for tag in _PROGRAMS)
            public = b"\0".join([*kept_values(ds, BASIC), *programs])
            site = Site("test", RING, segmenter("anatomy"), FULL_FIELDS, deidentify=BASIC)
            if not protect(ds, site, 1_790_000_000).changed:
                return path.name, 0, []
            sent = pixels.read(written(ds))
        except (WatermarkError, NodeError):
            return path.name, 0, []
    secrets = {value for value in secrets if value not in public and not value.startswith(_PUBLIC)}
    told = b"".join(piece.raw for piece in layout.layout_of(sent).pieces)
    meta = b"".join(header.value_bytes(sent.file_meta, int(tag)) or b"" for tag in sent.file_meta.keys())  # noqa: SIM118
    return path.name, len(secrets), found(told + meta, sorted(secrets))


def judged(files: list[Path]) -> None:
    results = spread(leaks, files)
    assert sum(count for _, count, _ in results) > 300
    assert [(name, len(values)) for name, _, values in results if values] == []


def test_the_image_folder(shared_data):
    judged(dicom_files(shared_data))


def test_the_files_that_pydicom_tests_itself_with():
    judged(public_files())
