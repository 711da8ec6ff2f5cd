"""A finding in plain words: what it says, what it proves, by the numbers of the threat model."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from blessmark.types import Finding
from dicom_node.pages.words import (
    FINDINGS,
    MEANINGS,
    STATEMENTS,
    counted,
    facts,
    listed,
    overall,
    sentence,
    spoken,
)
from dicom_node.report import Place, SignatureReport
from tests.architecture.repository import ROOT
from tests.found import a_frame, a_report


def test_a_hint_and_a_signature_stand_behind_the_verdict_and_are_called_what_they_are() -> None:
    altered = a_report("damaged", a_frame(finding="damaged"))
    frames = tuple(replace(each, causes=(("resized", "x"), ("noise", "y"))) for each in altered.frames)
    said = sentence(replace(altered, frames=frames, signature=SignatureReport("invalid")))
    assert said.startswith(sentence(altered))
    assert said.endswith(
        " It looks like resized; that is a hint, no proof. Its signature does not hold for what is here."
    )
    assert sentence(replace(altered, signature=SignatureReport("unknown-key"))) == sentence(altered)
    assert "holds" in sentence(replace(a_report(), signature=SignatureReport("valid", "ab" * 8)))


def test_every_finding_has_its_meaning_and_its_sentence() -> None:
    assert list(FINDINGS) == [str(finding) for finding in Finding] == list(MEANINGS)
    for finding in FINDINGS:
        assert sentence(a_report(finding)).endswith(".")


def test_the_numbers_are_those_of_the_threat_model() -> None:
    model = (ROOT / "docs" / "threat-model.md").read_text("utf-8")
    known = set(re.findall(r"^- \*\*([GN]\d+) ", model, re.M))
    named = {number for meaning in MEANINGS.values() for number in meaning.numbers}
    assert named <= set(STATEMENTS) <= known


class TestOneInstance:
    def test_authentic(self):
        assert sentence(a_report()) == (
            "This image is what ct-room protected on 21 September 2026 at 17:46:40 UTC. "
            "No pixel and no field of the record was changed."
        )

    def test_authentic_as_released(self):
        frame = a_frame(framing="blocks", block_px=6, restoration="approximate", restored_psnr_db=71.2)
        report = a_report("authentic", frame)
        assert "to the last bit" in sentence(report)
        assert dict(facts(report))["Restores"] == "nearly, to 71.2 dB (N19)"

    def test_an_object_without_pixels_whose_header_was_sealed(self):
        report = a_report(frames=(), reason="no-pixel-data", node="", protected_at="", pictures=None)
        assert "byte for byte" in sentence(report)
        assert "changed" in sentence(a_report("header-altered", frames=(), reason="no-pixel-data"))

    def test_fields_that_differ(self):
        one = a_report("header-altered", a_frame(finding="header-altered", altered_fields=("PatientName",)))
        assert sentence(one).endswith("The header is not: PatientName differs from the record.")
        two = a_frame(finding="header-altered", altered_fields=("StudyDate", "PatientID"))
        assert "PatientID and StudyDate differ" in sentence(a_report("header-altered", two))

    def test_altered_pixels_and_where(self):
        tiles = ((0, 1), (1, 1))
        report = a_report("pixels-altered", a_frame(finding="pixels-altered", altered_tiles=tiles))
        assert "is not what ct-room protected" in sentence(report)
        assert "2 tiles" in sentence(report)
        assert "upper bound" in dict(facts(report))["Where"]

    def test_altered_frames(self):
        frames = [a_frame(n, "pixels-altered" if n in (3, 7) else "authentic") for n in range(1, 9)]
        assert "frames 3 and 7" in sentence(a_report("pixels-altered", *frames))
        many = [a_frame(n, "pixels-altered") for n in range(1, 30)]
        assert "29 frames" in sentence(a_report("pixels-altered", *many))

    def test_missing_frames(self):
        report = a_report("pixels-altered", a_frame(1), a_frame(2), frames_expected=3)
        assert "protected with 3 frames, and has 2 now" in sentence(report)
        assert dict(facts(report))["Frames"] == "2 of 3"

    def test_changes_that_cannot_be_located(self):
        assert "no room" in dict(facts(a_report("pixels-altered")))["Where"]
        exact = a_frame(finding="pixels-altered", altered_tiles=((0, 0),), localisation="exact")
        assert "were changed" in dict(facts(a_report("pixels-altered", exact)))["Where"]

    def test_damage_that_left_something_and_damage_that_left_nothing(self):
        assert "parts of its watermark" in sentence(a_report("damaged"))
        assert "cannot be read" in sentence(a_report("damaged", a_frame(finding="damaged", packets=0)))

    def test_an_object_that_is_never_marked_says_why(self):
        assert "(video)" in sentence(a_report("unmarked", reason="video"))
        assert dict(facts(a_report("unmarked", reason="video")))["Passed on because"] == "video"

    def test_the_network_that_is_lacking_is_named(self):
        frame = a_frame(finding="unknown-segmenter", segmenter="vessels/9-ab")
        assert "vessels/9-ab" in sentence(a_report("unknown-segmenter", frame))

    def test_facts_tell_what_carried_the_record(self):
        found = dict(facts(a_report()))
        assert found["Room"] == "the record takes 9 shards; 14 tiles hold authentic ones"
        assert found["Changed by the watermark"] == "1,200 samples"
        assert found["PSNR"].startswith("84.5 dB")
        assert found["Restores"].startswith("bit for bit")
        assert found["Key"] == "1"
        assert found["SOP Instance UID"] == "1.2.3.1.7"
        bound = a_report(bound_to=("study", "series", "instance"), content="ab" * 32)
        assert dict(facts(bound))["Record names this"] == "study, series and instance"
        assert dict(facts(bound))["SHA-256 of the data set"] == "ab" * 32
        sealed = a_frame(framing="header", packets=0, psnr_db=None, changed_samples=0)
        assert "sealed in the header" in dict(facts(a_report("authentic", sealed)))["Record"]

    def test_nothing_is_said_of_what_is_not_known(self):
        bare = a_frame(finding="unmarked", framing=None, lattice=None, tier=None, segmenter="", key_id=None,
                       packets=0, shards_needed=0, changed_samples=0, psnr_db=None)  # fmt: skip
        report = a_report("unmarked", bare, node="", protected_at="", frames_expected=0, place=Place())
        assert facts(report) == []


@pytest.mark.parametrize(
    ("counts", "unreadable", "expected", "tone"),
    [
        (
            {"authentic": 3},
            0,
            "All 3 images are what was protected. No pixel and no field of the record was changed.",
            "good",
        ),
        (
            {"authentic": 1},
            0,
            "The only image is what was protected. No pixel and no field of the record was changed.",
            "good",
        ),
        ({"authentic": 1, "damaged": 1}, 0, "1 of 2 images is not what was protected.", "bad"),
        (
            {"authentic": 1, "header-altered": 1, "pixels-altered": 1, "wrong-key": 2},
            0,
            "2 of 5 images are not what was protected, and 2 could not be judged.",
            "bad",
        ),
        (
            {"authentic": 4, "unmarked": 1},
            0,
            "1 of 5 images could not be judged; the rest is what was protected.",
            "open",
        ),
        ({"unmarked": 2}, 0, "None of 2 images could be judged.", "open"),
        ({}, 1, "There was nothing to judge. 1 file could not be read.", "open"),
        (
            {"authentic": 1},
            2,
            "The only image is what was protected. No pixel and no field of the record was changed. "
            "2 files could not be read.",
            "open",
        ),
        ({"damaged": 1}, 2, "1 of 1 image is not what was protected. 2 files could not be read.", "bad"),
    ],
)
def test_many_instances(counts: dict[str, int], unreadable: int, expected: str, tone: str) -> None:
    assert overall(counts, unreadable) == (expected, tone)


def test_words_for_numbers_times_and_lists() -> None:
    assert (counted(1, "tile"), counted(0, "tile")) == ("1 tile", "0 tiles")
    assert spoken("2026-09-01T05:06:07Z") == "1 September 2026 at 05:06:07 UTC"
    assert spoken("yesterday") == "yesterday"
    assert (listed([]), listed("a"), listed("ab"), listed("abc")) == ("", "a", "a and b", "a, b and c")
    assert listed("abcdefghij") == "a, b, c, d, e and 5 more"
