"""Reports: complete for programs, short for people, silent about patients."""

from __future__ import annotations

import json
import math
from dataclasses import replace

from dicom_node.report import (
    ErrorReport,
    FrameReport,
    InstanceReport,
    Note,
    Place,
    instance_document,
    line,
)

FRAME = FrameReport(
    frame=1,
    finding="authentic",
    exact=True,
    framing="tile",
    lattice="quarter",
    tier="full",
    segmenter="anatomy/1",
    key_id=7,
    packets=12,
    shards_needed=5,
    changed_samples=431,
    psnr_db=81.234,
    localisation="indicative",
)
INSTANCE = InstanceReport(
    "image.dcm",
    "authentic",
    node="n1",
    protected_at="2026-09-21T17:46:40Z",
    frames_expected=1,
    segmenters=("anatomy/1",),
    frames=(FRAME,),
)


class TestLine:
    def test_says_finding_way_and_source(self):
        assert line(INSTANCE).split(maxsplit=1)[0] == "authentic"
        assert "full tile/quarter, 81.2 dB" in line(INSTANCE)
        assert line(INSTANCE).endswith("image.dcm")

    def test_the_worst_frame_gives_the_level(self):
        frames = (FRAME, replace(FRAME, frame=2, psnr_db=70.0), replace(FRAME, frame=3, psnr_db=math.inf))
        assert "70.0 dB, 3 frames" in line(replace(INSTANCE, frames=frames))

    def test_counts_tiles_and_names_fields(self):
        frame = replace(FRAME, altered_tiles=((0, 1), (2, 3)), altered_fields=("StudyDate", "PatientID"))
        text = line(replace(INSTANCE, finding="pixels-altered", frames=(frame,)))
        assert "2 tiles altered" in text
        assert "altered: PatientID StudyDate" in text

    def test_a_seal_in_the_header_has_no_lattice(self):
        frame = replace(FRAME, framing="header", lattice=None, psnr_db=None)
        assert "full header" in line(replace(INSTANCE, frames=(frame,)))

    def test_a_map_that_this_installation_cannot_draw_is_told_with_what_it_has(self):
        frame = replace(FRAME, finding="unknown-segmenter", segmenter="vessels/2-0123456789ab")
        found = replace(
            INSTANCE,
            finding="unknown-segmenter",
            segmenters=("anatomy/1", "vessels/1-ba9876543210"),
            frames=(FRAME, frame),
        )
        told = "marked by vessels/2-0123456789ab; this installation has anatomy/1, vessels/1-ba9876543210"
        assert told in line(found)

    def test_blocks_say_their_side_and_how_near_restoring_comes(self):
        frame = replace(
            FRAME,
            framing="blocks",
            lattice=None,
            block_px=6,
            exact=False,
            restoration="approximate",
            restored_psnr_db=70.5,
        )
        text = line(replace(INSTANCE, frames=(frame, replace(frame, frame=2, restored_psnr_db=69.0))))
        assert "full blocks/6, 81.2 dB, restoration approximate (69.0 dB), 2 frames" in text

    def test_reasons_and_errors(self):
        assert line(InstanceReport("a", "unmarked", "no-pixel-data")).split() == [
            "unmarked",
            "no-pixel-data",
            "a",
        ]
        assert line(InstanceReport("a", "unmarked")).split() == ["unmarked", "a"]

    def test_says_how_much_of_a_restored_instance_is_proven(self):
        told = line(InstanceReport("a", "authentic", "no-pixel-data", restored="byte for byte"))
        assert told.split() == ["authentic", "no-pixel-data,", "byte", "for", "byte", "a"]
        assert line(ErrorReport("b.dcm", "cut short")) == "error            b.dcm: cut short"


class TestDocument:
    def test_holds_everything(self):
        frame = replace(FRAME, altered_tiles=((2, 3),), altered_fields=("PatientID",))
        place = Place("1.2", "1.2.3", "1.2.3.4", "CT", 7)
        found = replace(INSTANCE, frames=(frame,), place=place, bound_to=("instance",), content="ab")
        instance = instance_document(replace(found, number_of_frames=1))
        (told,) = instance.pop("frames")
        assert instance == {
            "source": "image.dcm",
            "finding": "authentic",
            "reason": "",
            "node": "n1",
            "protected_at": "2026-09-21T17:46:40Z",
            "study_instance_uid": "1.2",
            "series_instance_uid": "1.2.3",
            "sop_instance_uid": "1.2.3.4",
            "modality": "CT",
            "instance_number": 7,
            "bound_to": ["instance"],
            "content_sha256": "ab",
            "number_of_frames": 1,
            "frames_expected": 1,
            "segmenters": ["anatomy/1"],
        }
        assert set(told) == set(FrameReport.__dataclass_fields__)
        assert (told["altered_tiles"], told["altered_fields"]) == ([[2, 3]], ["PatientID"])
        assert told["psnr_db"] == 81.234

    def test_has_no_number_that_json_has_not(self):
        found = instance_document(replace(INSTANCE, frames=(replace(FRAME, psnr_db=math.inf),)))
        assert found["frames"][0]["psnr_db"] is None

    def test_the_record_is_there_only_when_it_was_asked_for(self):
        assert "record" not in instance_document(INSTANCE)
        shown = replace(INSTANCE, record={"PatientName": "Jürgen^Test"}, original="5ec3e7")
        assert instance_document(shown)["record"] == {"PatientName": "Jürgen^Test"}
        assert "5ec3e7" not in json.dumps(instance_document(shown))
        assert "Jürgen" not in repr(shown)
        assert "5ec3e7" not in repr(shown)
        assert "Jürgen" not in line(shown)


def test_notes_are_lines_too_and_no_line_steers_a_terminal():
    assert line(Note("a", "missing", "listed")).split() == ["missing", "listed", "a"]
    assert [Note("a", kind, "").is_finding for kind in ("missing", "refused", "unlisted", "index")] == [
        True,
        True,
        False,
        False,
    ]
    for report in (
        InstanceReport("a\x1b[2J", "unmarked"),
        ErrorReport("a\x1b[2J", "b\x1b"),
        Note("\x1b", "x", "y"),
    ):
        assert "\x1b" not in line(report)
        assert "\\x1b" in line(report)
