"""Rows as people and programs want them."""

from __future__ import annotations

import argparse
import csv
import io
import json
import re

import pytest

from dicom_node.cli import query_table
from dicom_node.inquiry import Inquiry, Level, Row

ROW = Row(
    Level.STUDY,
    {
        "PatientID": "=cmd()",
        "PatientName": "Müller^Jörg",
        "StudyDate": "20240105",
        "ModalitiesInStudy": "CT\\SR",
        "StudyInstanceUID": "1.2." + "3" * 50,
    },
)


def shown(rows: list[Row], inquiry: Inquiry | None = None, **form: bool) -> None:
    args = argparse.Namespace(json=form.get("json", False), csv=form.get("csv", False))
    query_table.show(args, inquiry or Inquiry(Level.STUDY), rows)


def test_a_pipe_gets_every_value_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    shown([ROW])
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["patient", "ID", "name", "date", "modality", "study"]
    assert "2024-01-05" in line
    assert "CT, SR" in line
    assert line.endswith("1.2." + "3" * 50)


def test_nothing_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    shown([])
    assert capsys.readouterr().out == "no study matches\n"


def test_json_is_one_document_of_any_length(capsys: pytest.CaptureFixture[str]) -> None:
    shown([ROW, ROW], json=True)
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["level"]) == ("dicom-node/query/1", "study")
    assert [row["PatientName"] for row in document["rows"]] == ["Müller^Jörg"] * 2
    shown([], json=True)
    assert json.loads(capsys.readouterr().out)["rows"] == []


def test_no_cell_is_a_formula(capsys: pytest.CaptureFixture[str]) -> None:
    shown([ROW], Inquiry(Level.STUDY, {}, ("StudyID",)), csv=True)
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["PatientID"] == "'=cmd()"
    assert row["StudyID"] == ""


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_a_terminal_of_any_width_shows_the_uid_to_its_end(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    shown([ROW, ROW])
    lines = re.sub("\x1b[^m]*m", "", capsys.readouterr().out).splitlines()
    assert sum(line.endswith("1.2." + "3" * 50) for line in lines) == 2
    assert max(len(line) for line in lines if "333" not in line) <= width
    assert any("Müller^Jörg" in line for line in lines)


def test_classes_have_names(capsys: pytest.CaptureFixture[str]) -> None:
    shown(
        [Row(Level.IMAGE, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "InstanceNumber": "1"})],
        Inquiry(Level.IMAGE),
    )
    assert "CT Image" in capsys.readouterr().out
