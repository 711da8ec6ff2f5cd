"""An index of files, read record by record."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from dicom_node.dicomdir import listed
from dicom_node.errors import InputError
from tests import builders, media


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"])
def test_names_come_in_their_order_without_those_of_deleted_records(syntax: str) -> None:
    content = media.dicomdir(["A\\B ", "C", "..\\x"], syntax=syntax, unused=["GONE"])
    assert list(listed(io.BytesIO(content))) == [("A", "B"), ("C",), ("..", "x")]


def test_an_index_of_nothing_lists_nothing() -> None:
    assert list(listed(io.BytesIO(media.dicomdir([])))) == []


def test_what_another_program_writes_is_read(tmp_path: Path) -> None:
    ds = builders.ct(16, 16, PatientID="1", StudyDate="20260101", StudyTime="000000", StudyID="1")
    ds.SeriesNumber, ds.InstanceNumber = 1, 1
    media.disc(tmp_path, [ds])
    with (tmp_path / "DICOMDIR").open("rb") as file:
        (name,) = listed(file)
    assert tmp_path.joinpath(*name).is_file()


@pytest.mark.parametrize("length", [0, 131, 200, -10])
def test_a_broken_one_is_an_error_that_names_nobody(length: int) -> None:
    content = media.dicomdir(["A\\B", "C"])[:length]
    with pytest.raises(InputError, match="index of files is") as caught:
        list(listed(io.BytesIO(content)))
    assert "Synthetic" not in str(caught.value)


def test_nesting_without_end_is_an_error() -> None:
    nested = b"\x04\x00\x20\x12SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    content = media.dicomdir([])
    head = content[: content.index(b"\x04\x00\x20\x12SQ")]
    with pytest.raises(InputError, match="broken"):
        list(listed(io.BytesIO(head + nested * 5000)))
