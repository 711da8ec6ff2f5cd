"""What the commands share: names on the command line, lines, the exit code."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node import keys
from dicom_node.cli import reading
from dicom_node.cli.reading import Report
from dicom_node.errors import KeyFileError, UsageError
from dicom_node.report import ErrorReport, InstanceReport, SignatureReport


def found(finding: str) -> InstanceReport:
    return InstanceReport(f"{finding}.dcm", finding)


@pytest.mark.parametrize(
    ("reports", "code"),
    [
        ([found("authentic")], 0),
        ([found("authentic"), found("unmarked")], 3),
        ([found("pixels-altered")], 3),
        ([found("authentic"), ErrorReport("x", "bad")], 1),
        ([found("damaged"), ErrorReport("x", "bad")], 1),
        ([], 1),
    ],
)
def test_an_error_outweighs_a_finding_and_nothing_judged_proves_nothing(
    reports: list[Report], code: int
) -> None:
    assert reading.exit_code(reports) == code


@pytest.mark.parametrize(
    ("finding", "state", "asked", "code"),
    [
        ("authentic", "invalid", False, 0),
        ("authentic", "valid", True, 0),
        ("authentic", "none", True, 3),
        ("authentic", "invalid", True, 3),
        ("pixels-altered", "valid", True, 3),
        ("signed", "valid", True, 0),
        ("unsigned", "none", True, 3),
    ],
)
def test_who_asks_for_signatures_is_content_with_valid_ones(
    finding: str, state: str, asked: bool, code: int
) -> None:
    item = replace(found(finding), signature=SignatureReport(state))
    assert reading.exit_code([item], signed=asked) == code


def test_a_missing_ring_says_how_to_make_it_where_it_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=f"dicom-node keys new --keys {tmp_path / 'ring'}"):
        reading.ring_of(argparse.Namespace(keys=tmp_path / "ring"))


def test_the_reader_tries_the_named_segmenter_then_the_whole_image(tmp_path: Path) -> None:
    keys.generate(tmp_path / "ring")
    reader = reading.reader_of(argparse.Namespace(keys=tmp_path / "ring", segmenter="anatomy/1"))
    assert [segmenter.id for segmenter in reader.segmenters] == ["anatomy/1", "whole/1"]
    assert len(reader.ring.keys) == 1


def test_without_a_name_the_reader_has_what_a_node_has(tmp_path: Path) -> None:
    keys.generate(tmp_path / "ring")
    reader = reading.reader_of(argparse.Namespace(keys=tmp_path / "ring", segmenter=None))
    assert [each.id.partition("-")[0] for each in reader.segmenters] == ["anatomy/1", "vessels/1", "whole/1"]
    assert [rule.modality for rule, _ in reader.rules] == [("OP",)]


def test_an_unknown_segmenter_is_a_usage_error_that_lists_the_known() -> None:
    with pytest.raises(UsageError, match="anatomy/1"):
        reading.segmenters_of(argparse.Namespace(segmenter="nobody"))


def test_errors_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    reading.tell(found("authentic"))
    reading.tell(ErrorReport("x.dcm", "bad; send it again"))
    reading.tell_skipped(Path("DICOMDIR"))
    said = capsys.readouterr()
    assert said.out.startswith("authentic")
    assert said.err.splitlines()[0] == "error            x.dcm: bad; send it again"
    assert said.err.splitlines()[1].startswith("skipped")
