"""Whose an object is, from its file; or nobody's, and never an error."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from dicom_node.audit.events import Study
from dicom_node.audit.subjects import Subjects, study_in, study_of
from dicom_node.errors import BlobsUnavailable
from dicom_node.spool import Spool
from tests.builders import file_bytes, mr


@pytest.fixture
def spool(scratch: Path) -> Spool:
    return Spool(scratch / "spool", 0)


def test_study_and_patient_are_those_of_the_header(spool: Spool) -> None:
    blob = spool.put([file_bytes(mr(8, 8, StudyInstanceUID="1.2.3", PatientID="P-1"))])
    subjects = Subjects(spool)
    assert subjects(blob.name) == Study("1.2.3", "P-1")
    spool.path(blob.name).unlink()
    assert subjects(blob.name) == Study("1.2.3", "P-1")  # remembered


def test_what_is_gone_or_broken_is_nobodys(spool: Spool, scratch: Path) -> None:
    subjects = Subjects(spool)
    assert subjects("") == Study()
    assert subjects("../../x") == Study()
    assert subjects("ab" * 32) == Study()
    (scratch / "broken").write_bytes(b"\0" * 200)
    assert study_in(scratch / "broken") == Study()


def test_a_store_that_is_away_is_asked_again(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    blob = spool.put([file_bytes(mr(8, 8, StudyInstanceUID="1.2.3", PatientID="P-1"))])
    subjects = Subjects(spool)

    def away(_name: str) -> Path:
        raise BlobsUnavailable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(spool, "path", away)
        with pytest.raises(BlobsUnavailable):
            subjects(blob.name)
    assert subjects(blob.name) == Study("1.2.3", "P-1")


def test_a_header_without_a_study_is_of_none(scratch: Path) -> None:
    ds = mr(8, 8)
    del ds.StudyInstanceUID
    ds.PatientID = ""
    (scratch / "file").write_bytes(file_bytes(ds))
    assert study_in(scratch / "file") == Study()


def test_what_breaks_the_rules_makes_no_message_that_nobody_takes() -> None:
    ds = mr(8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.add_new("StudyInstanceUID", "UI", "1." * 40_000)
        ds.add_new("PatientID", "LO", "P" * 70_000)
    assert study_of(ds) == Study("", "P" * 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.add_new("StudyInstanceUID", "UI", "Surname^Given")
    assert study_of(ds).uid == ""
