"""Reports gathered by study and series: what is proven, and what is a hint."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicom_node.report import ErrorReport, FrameReport, InstanceReport, Note, Place
from dicom_node.summary import Remark, Summary, lines, remark_line, summarised, totals

FRAME = FrameReport(1, "authentic", True, "tile", "quarter", "full", "anatomy/1", 1, 9, 5, 100, 80.0, "exact")
LOST = replace(FRAME, finding="damaged", exact=False, framing=None, tier=None)


def one(number: int = 1, series: str = "1.1", study: str = "1", finding: str = "authentic") -> InstanceReport:
    place = Place(study, series, f"{series}.{number}", "CT", number)
    return InstanceReport(
        f"{series}/{number}",
        finding,
        frames_expected=1,
        frames=(replace(FRAME, finding=finding),),
        place=place,
        number_of_frames=1,
        bound_to=("study", "series", "instance"),
        content=f"{number:064x}",
        original=f"{series}/{number}",
    )


def remarks(summary: Summary) -> dict[str, Remark]:
    of_series = [r for study in summary.studies for series in study.series for r in series.remarks]
    return {remark.kind: remark for remark in (*of_series, *summary.remarks)}


def test_instances_are_counted_by_study_and_series_in_any_order() -> None:
    reports = [one(1, "1.1"), one(1, "2.1", "2"), one(2, "1.1"), one(1, "1.2"), ErrorReport("x", "broken")]
    for given in (reports, list(reversed(reports))):
        found = summarised(iter(given))
        assert [(study.uid, study.instances) for study in found.studies] == [("1", 3), ("2", 1)]
        assert [series.uid for series in found.studies[0].series] == ["1.1", "1.2"]
        assert found.studies[0].series[0].findings == (("authentic", 2),)
        assert (found.instances, found.errors, found.findings) == (4, 1, (("authentic", 4),))
        assert remarks(found) == {}


def test_only_what_is_authentic_and_named_by_its_record_is_proven_to_belong() -> None:
    seal = replace(one(2), bound_to=("instance",))
    (study,) = summarised([one(1), seal, one(3, finding="pixels-altered")]).studies
    assert study.series[0].bound == 1
    assert study.series[0].instances == 3


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"frames": (replace(FRAME, altered_fields=("StudyInstanceUID",)),)}, "moved-study"),
        ({"frames": (replace(FRAME, altered_fields=("SeriesInstanceUID",)),)}, "moved-series"),
        ({"frames": (replace(FRAME, altered_fields=("SOPInstanceUID",)),)}, "renamed"),
        ({"frames_expected": 3, "number_of_frames": 2}, "frames-missing"),
        ({"frames_expected": 1, "number_of_frames": 2}, "frames-added"),
        ({"frames": (FRAME, replace(LOST, tier="full", holds_frame=3))}, "frames-exchanged"),
        ({"frames": (FRAME, LOST)}, "frames-unread"),
        ({"key_revoked": "2026-10-01T00:00:00Z"}, "revoked-key"),
    ],
)
def test_what_a_record_proves_of_its_instance(changed: dict[str, object], kind: str) -> None:
    report = replace(one(1), finding="header-altered", **changed)  # type: ignore[arg-type]
    found = remarks(summarised([report]))
    assert list(found) == [kind]
    assert found[kind].proven
    assert found[kind].sources == ("1.1/1",)


def test_a_wholly_unreadable_image_says_nothing_of_its_frames() -> None:
    assert (
        remarks(summarised([replace(one(), finding="damaged", frames=(LOST, LOST), frames_expected=0)])) == {}
    )


def test_numbers_are_hints() -> None:
    found = remarks(
        summarised([one(1), one(2), one(5), replace(one(5), source="again", content="", original="")])
    )
    assert not any(remark.proven for remark in found.values())
    assert "numbered 3-4;" in found["number-gap"].text
    assert found["number-gap"].count == 2
    assert "numbered 5;" in found["number-repeated"].text


def test_an_unmarked_one_among_marked_ones_is_a_hint() -> None:
    found = remarks(summarised([one(1), one(2, finding="unmarked")]))["unmarked-among-marked"]
    assert (found.proven, found.sources) == (False, ("1.1/2",))
    assert remarks(summarised([one(1, finding="unmarked"), one(2, finding="unmarked")])) == {}


def test_the_same_instance_twice_is_told_from_two_that_only_share_a_name() -> None:
    again = replace(one(1), source="copy")
    other = replace(again, content="f" * 64)
    assert remarks(summarised([one(1), again]))["repeated"].sources == ("1.1/1 and copy",)
    found = remarks(summarised([one(1), other]))["same-uid-other-content"]
    assert found.proven
    assert found.sources == ("1.1/1 and copy",)
    assert "repeated" not in remarks(summarised([one(1), one(1)]))  # one path, named twice


def test_two_members_of_one_name_are_told_apart_by_their_content() -> None:
    other = replace(one(1), content="f" * 64)
    assert other.source == one(1).source
    assert remarks(summarised([one(1), other]))["same-uid-other-content"].proven


def test_one_original_under_two_names_is_proven() -> None:
    twin = replace(one(2), original=one(1).original)
    found = remarks(summarised([one(1), twin]))["same-original"]
    assert (found.proven, found.sources) == (True, ("1.1/2",))


def test_a_series_in_two_studies_is_a_hint() -> None:
    found = remarks(summarised([one(1), one(2, study="9")]))["series-in-two-studies"]
    assert (found.proven, found.count) == (False, 1)


def test_notes_that_are_findings_count() -> None:
    found = summarised([one(1), Note("A/2", "missing", "listed"), Note("x", "unlisted", "not listed")])
    assert found.missing == 1
    assert totals(found) == "1 authentic, 1 missing"
    assert totals(summarised([])) == "nothing to judge"


def test_the_lines_say_proven_or_hint_first_and_name_few() -> None:
    given = [one(n, finding="unmarked") for n in range(2, 12)]
    said = list(lines(summarised([one(1), *given])))
    assert said[0] == "study 1: 11 instances"
    assert said[1] == (
        "  series 1.1: CT 11 instances, 11 frames: 10 unmarked, 1 authentic; 1 of 11 proven to belong here"
    )
    assert said[2].startswith("    hint: unmarked among marked instances (1.1/2, ")
    assert said[2].endswith(" and 5 more)")
    assert remark_line(Remark("x", True, "so it is")) == "proven: so it is"
