"""What commands that load pixels share: names on the command line, an instance from its file."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from dicom_node.cli import reading
from dicom_node.errors import InputError, KeyFileError, UsageError
from tests import builders


def test_a_missing_ring_says_how_to_make_it_where_it_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=f"dicom-node keys new --keys {tmp_path / 'ring'}"):
        reading.ring_of(argparse.Namespace(keys=tmp_path / "ring"))


def test_an_unknown_segmenter_is_a_usage_error_that_lists_the_known() -> None:
    with pytest.raises(UsageError, match="anatomy/1"):
        reading.segmenters_of(argparse.Namespace(segmenter="nobody"))


def test_without_a_name_images_are_marked_as_a_node_marks_them() -> None:
    usual, rules = reading.segmenters_of(argparse.Namespace(segmenter=None))
    assert usual.id == "anatomy/1"
    assert [rule.modality for rule, _ in rules] == [("OP",)]


def test_a_dicomdir_is_no_instance(tmp_path: Path) -> None:
    ds = builders.ct(16, 16)
    (tmp_path / "a").write_bytes(builders.file_bytes(ds))
    assert reading.instance(tmp_path / "a") is not None
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    (tmp_path / "b").write_bytes(builders.file_bytes(ds))
    assert reading.instance(tmp_path / "b") is None
    assert "DICOMDIR" in reading.skipped(tmp_path / "b").text


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a file nor a folder"):
        reading.instance(tmp_path)
