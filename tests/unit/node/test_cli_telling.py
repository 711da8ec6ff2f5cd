"""How `verify` says what it found, in lines, JSON and CSV; nothing steers a terminal."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import jsonschema
import pytest

from dicom_node.cli.telling import Csv, Json, Lines, Report, Telling, _print_table
from dicom_node.report import ErrorReport, FrameReport, InstanceReport, Note, Place, SignatureReport
from dicom_node.summary import summarised

SCHEMA = json.loads((Path(__file__).resolve().parents[3] / "docs" / "verify.schema.json").read_text("utf-8"))
FRAME = FrameReport(
    *(1, "header-altered", True, "tile", "quarter", "full", "anatomy/1", 1, 9, 5, 100, 80.125, "exact"),
    altered_tiles=((1, 2),),
    altered_fields=("PatientID",),
    restoration="exact",
)
EVIL = "=cmd|' /C calc'!A0\x1b[2J\x9b31m\u202e\nauthentic"
REPORTS: tuple[Report, ...] = (
    InstanceReport(
        "a.dcm",
        "header-altered",
        frames=(FRAME,),
        place=Place("1.2", "1.2.3", "1.2.3.4", "CT", 1),
        number_of_frames=1,
        content="ab" * 32,
    ),
    InstanceReport(EVIL, "unmarked", "no-pixel-data", place=Place(EVIL, EVIL, EVIL, EVIL)),
    ErrorReport(EVIL, "broken"),
    Note(EVIL, "missing", EVIL),
)


def said(make: Callable[[], Telling], reports: Sequence[Report] = REPORTS) -> None:
    telling = make()
    for report in reports:
        telling.tell(report)
    telling.end(summarised(reports))


@pytest.mark.parametrize("form", [Lines, Json, Csv])
@pytest.mark.parametrize("only", [False, True])
def test_nothing_of_a_stranger_steers_a_terminal(
    form: Callable[..., Telling], only: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    said(lambda: form(summary_only=only))
    shown = "".join(capsys.readouterr())
    assert not {"\x1b", "\x9b", "\u202e"} & set(shown)
    assert "\nauthentic" not in shown


def test_json_is_one_document_as_published(capsys: pytest.CaptureFixture[str]) -> None:
    for only in (False, True):
        said(partial(Json, summary_only=only))
        document = json.loads(capsys.readouterr().out)
        jsonschema.Draft202012Validator(SCHEMA).validate(document)
        assert ("instances" in document) is not only
        assert document["errors"] == [{"source": EVIL, "error": "broken"}]
        assert document["notes"][0]["kind"] == "missing"
        assert document["findings"] == {"header-altered": 1, "unmarked": 1}
    said(lambda: Json(summary_only=False), ())
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(capsys.readouterr().out))


def test_csv_has_a_row_for_everything_and_nothing_that_is_computed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said(lambda: Csv(summary_only=False))
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["finding"] for row in rows] == ["header-altered", "unmarked", "error", "missing"]
    first, evil = rows[0], rows[1]
    assert (first["altered_tiles"], first["altered_fields"], first["restoration"]) == (
        "1",
        "PatientID",
        "exact",
    )
    assert (first["lowest_psnr_db"], first["key_id"], first["instance_number"]) == ("80.12", "1", "1")
    assert evil["source"].startswith("'=cmd")
    said(lambda: Csv(summary_only=True))
    series = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["findings"] for row in series] == ["1 header-altered", "1 unmarked"]


def test_csv_never_says_authentic_without_what_is_to_be_said_of_its_key(
    capsys: pytest.CaptureFixture[str],
) -> None:
    signed = SignatureReport("valid", "21fe31dfa154a261")
    report = InstanceReport("a", "authentic", key_revoked="2026-10-01T00:00:00Z", signature=signed)
    said(lambda: Csv(summary_only=False), [report])
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["finding"], row["key_revoked"]) == ("authentic", "2026-10-01T00:00:00Z")
    assert (row["signature"], row["signature_key"]) == ("valid", "21fe31dfa154a261")
    for only in (lambda: Csv(summary_only=True), lambda: Json(summary_only=True)):
        said(only, [report])
        assert "key that is revoked" in capsys.readouterr().out


def test_a_negative_number_is_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    report = InstanceReport("a", "unmarked", place=Place(number=-3))
    said(lambda: Csv(summary_only=False), [report])
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["instance_number"] == "-3"


def test_errors_and_notes_go_to_standard_error_and_one_instance_needs_no_summary(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said(lambda: Lines(summary_only=False), REPORTS[:1])
    assert capsys.readouterr().out.splitlines()[1:] == ["1 header-altered"]
    said(lambda: Lines(summary_only=False))
    shown = capsys.readouterr()
    assert len(shown.err.splitlines()) == 2
    assert shown.out.splitlines()[-1] == "1 header-altered, 1 unmarked, 1 missing, 1 error"
    assert any(text.startswith("study 1.2: 1 instance") for text in shown.out.splitlines())
    said(lambda: Lines(summary_only=True))
    assert "a.dcm" not in capsys.readouterr().out


def test_a_terminal_gets_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    first = REPORTS[0]
    assert isinstance(first, InstanceReport)
    others = [replace(first, source=f"{n}", place=replace(first.place, number=n)) for n in (1, 4)]
    target = io.StringIO()
    _print_table(summarised([*others, REPORTS[1]]), target)
    shown = target.getvalue()
    assert "study 1.2" in shown
    assert "2 header-altered" in shown
    assert "hint: no instance is numbered 2-3" in shown
    assert "\x1b[2J" not in shown
