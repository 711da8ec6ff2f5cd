"""What commands that judge share: what was found in, reports and an exit code out."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from dicom_node import keys
from dicom_node.cli import judging
from dicom_node.cli.telling import Csv, Json, Lines
from dicom_node.errors import KeyFileError, UsageError
from dicom_node.item import Item
from dicom_node.judge import How, Judges
from dicom_node.report import ErrorReport, InstanceReport, Note
from dicom_node.summary import summarised


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
        ([found("authentic"), Note("x", "missing", "listed")], 3),
        ([found("authentic"), Note("x", "refused", "outside")], 3),
        ([found("authentic"), Note("x", "unlisted", "there")], 0),
        ([Note("x", "missing", "listed")], 1),
        ([], 1),
    ],
)
def test_an_error_outweighs_a_finding_and_nothing_judged_proves_nothing(
    reports: list[InstanceReport | ErrorReport | Note], code: int
) -> None:
    assert judging.exit_code(summarised(reports)) == code


@pytest.mark.parametrize(
    ("finding", "unsigned", "code"),
    [("authentic", 0, 0), ("authentic", 1, 3), ("signed", 0, 0), ("unsigned", 0, 3), ("bad-signature", 1, 3)],
)
def test_who_asks_for_signatures_is_content_with_valid_ones(finding: str, unsigned: int, code: int) -> None:
    assert judging.exit_code(summarised([found(finding)]), unsigned=unsigned) == code


def test_without_a_ring_public_keys_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = argparse.Namespace(keys=tmp_path / "ring", segmenter=None, public_key=[tmp_path / "public"])
    assert judging.how_of(args) == How(None, public_keys=(tmp_path / "public",))
    assert "no record is read" in capsys.readouterr().err
    with pytest.raises(UsageError, match="leave --html out"):
        judging.how_of(args, pictures=True)
    keys.generate(tmp_path / "ring")
    assert judging.how_of(args) == How(tmp_path / "ring", public_keys=(tmp_path / "public",))


def test_what_needs_no_judging_is_passed_on(tmp_path: Path) -> None:
    ring = tmp_path / "ring"
    keys.generate(ring)
    notes = [Note("a", "skipped", ""), Note("b", "skipped", ""), Note("c", "skipped", "")]
    with Judges(How(ring), 1) as judges:
        given = [notes[0], Item("x", None, b""), notes[1], Item("y", None, b""), notes[2]]
        reports = list(judging.reports(judges, given))
    assert sorted(report.source for report in reports) == ["a", "b", "c", "x", "y"]
    assert [report.source for report in reports if report.source in "xy"] == ["x", "y"]


def test_keys_and_segmenter_are_found_to_be_there_before_anything_starts(tmp_path: Path) -> None:
    ring = tmp_path / "ring"
    with pytest.raises(KeyFileError, match=f"dicom-node keys new --keys {ring}"):
        judging.how_of(argparse.Namespace(keys=ring, segmenter=None))
    keys.generate(ring)
    with pytest.raises(UsageError, match="anatomy/1"):
        judging.how_of(argparse.Namespace(keys=ring, segmenter="nobody"))
    assert judging.how_of(argparse.Namespace(keys=ring, segmenter="anatomy")) == How(ring, "anatomy")
    ring.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        judging.how_of(argparse.Namespace(keys=ring, segmenter=None))


def test_options_choose_the_form(capsys: pytest.CaptureFixture[str]) -> None:
    forms = ((True, False, Json), (False, True, Csv), (False, False, Lines))
    for json, csv, form in forms:
        args = argparse.Namespace(json=json, csv=csv, summary_only=False)
        assert isinstance(judging.telling_of(args), form)
