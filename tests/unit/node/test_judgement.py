"""One instance judged in its process: what it reads, and that nothing it raises leaves it."""

from __future__ import annotations

from pathlib import Path

import pytest

from blessmark import segment
from dicom_node import keys, signers
from dicom_node.errors import KeyFileError
from dicom_node.item import How, Item
from dicom_node.judgement import Judge, drawers_of, reader_of
from dicom_node.protect import protect
from dicom_node.report import InstanceReport, Unreadable
from tests import builders
from tests.unit.node.test_protect import site


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    ring = tmp_path_factory.mktemp("ring") / "keyring"
    keys.generate(ring)
    return Judge(How(ring))


def test_the_content_is_that_of_the_data_set_whatever_the_file_says_about_itself(judge: Judge) -> None:
    ds = builders.ct(64, 64)
    one = judge(Item("one", None, builders.file_bytes(ds)))
    ds.file_meta.ImplementationVersionName = "ANOTHER"
    two = judge(Item("two", None, builders.file_bytes(ds)))
    ds.PatientID = "1"
    three = judge(Item("three", None, builders.file_bytes(ds)))
    reports = [each for each in (one, two, three) if isinstance(each, InstanceReport)]
    assert [each.content == reports[0].content for each in reports] == [True, True, False]


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is not a DICOM file"), (builders.file_bytes(builders.ct(64, 64))[:5000], "cut short")],
)
def test_what_cannot_be_judged_is_told(judge: Judge, content: bytes, words: str) -> None:
    found = judge(Item("x", None, content))
    assert isinstance(found, Unreadable)
    assert words in found.error
    assert "the object" not in found.error


def test_an_index_under_another_name_is_no_instance(judge: Judge) -> None:
    ds = builders.ct(16, 16)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    found = judge(Item("x", None, builders.file_bytes(ds)))
    assert isinstance(found, Unreadable)
    assert "DICOMDIR" in found.error


def test_only_regular_files_are_read(judge: Judge, tmp_path: Path) -> None:
    found = judge(Item("x", tmp_path))
    assert isinstance(found, Unreadable)
    assert "neither a file nor a folder" in found.error


def test_what_nobody_foresaw_is_told_without_a_value(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    def review(*_: object, **__: object) -> None:
        raise KeyError("quotes a patient")

    monkeypatch.setattr("dicom_node.judgement.review", review)
    found = judge(Item("x", None, builders.file_bytes(builders.ct(64, 64))))
    assert isinstance(found, Unreadable)
    assert found.error.startswith("unexpected KeyError in ")
    assert "patient" not in found.error


def test_a_named_segmenter_is_the_only_one_beside_the_whole_image(tmp_path: Path) -> None:
    ring = tmp_path / "ring"
    with pytest.raises(KeyFileError):
        reader_of(ring, None)
    keys.generate(ring)
    assert [each.id.partition("/")[0] for each in reader_of(ring, "vessels").segmenters] == [
        "vessels",
        "whole",
    ]
    assert len(reader_of(ring, None).segmenters) == 3


def test_every_segmenter_that_a_node_may_mark_with_is_tried_whatever_its_configuration_says() -> None:
    """`watermark.segmenter_rules` of the node that marked need not be known to who verifies."""
    tried, _ = drawers_of(None)
    assert {each.id.partition("-")[0] for each in tried} == set(segment.known())


def test_without_a_ring_signatures_are_judged_and_the_place_is_told(tmp_path: Path) -> None:
    made = signers.generate(tmp_path / "signing")
    public = tmp_path / "public"
    public.write_text(signers.pem(made), "ascii")
    ds = builders.ct(256, 256)
    assert protect(ds, site(signer=signers.load(tmp_path / "signing")), 1_790_000_000).changed
    report = Judge(How(None, public_keys=(public,)))(Item("x", None, builders.file_bytes(ds)))
    assert isinstance(report, InstanceReport)
    assert (report.finding, report.signature.key) == ("signed", made.name)
    assert report.place.instance == ds.SOPInstanceUID
    assert report.content
