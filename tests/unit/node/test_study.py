"""The pages of a verification: one a study, named by numbers, escaped, and no larger than can be read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dicom_node.errors import OutputError, UsageError
from dicom_node.pages import study
from dicom_node.pages.study import About, Key, StudyPages
from dicom_node.pages.words import FINDINGS
from dicom_node.report import ErrorReport, FrameReport, InstancePictures, InstanceReport, Note, Place
from dicom_node.summary import summarised
from tests.found import a_frame, a_report, painted, picture

ABOUT = About("27 November 2026 at 18:00:00 UTC", "0.1.0", (Key(1, "0a1b2c3d"), Key(2, "ffffffff")), False)
Report = InstanceReport | ErrorReport | Note


def written(folder: Path, reports: Iterable[Report], about: About = ABOUT) -> Path:
    """The page to open after those reports."""
    kept = list(reports)
    with StudyPages(folder, about) as pages:
        for report in kept:
            pages.add(report)
        return pages.finish(summarised(kept))


def in_study(number: int, series: int = 1, finding: str = "authentic", **changed: Any) -> InstanceReport:
    place = Place(f"1.2.{number}", f"1.2.{number}.{series}", "1.9", "CT", 1)
    return a_report(finding, place=place, **changed)


class Outline(HTMLParser):
    """What a browser makes of a page: its elements with the names of their attributes, and its texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.skeleton: list[tuple[str, tuple[str, ...]]] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.skeleton.append((tag, tuple(name for name, _ in attrs)))
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str, name: str) -> list[str]:
        return [value for element, attribute, value in self.attributes if (element, attribute) == (tag, name)]


# which pages there are


def test_one_study_is_one_page(tmp_path: Path) -> None:
    page = written(tmp_path / "out", [in_study(1), in_study(1, 2)])
    assert page.name == "study-1.html"
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["study-1.html"]
    assert "All 2 images are what was protected." in page.read_text("utf-8")


def test_a_single_image_is_its_own_verdict(tmp_path: Path) -> None:
    text = written(tmp_path / "out", [in_study(1)]).read_text("utf-8")
    assert (
        ">This image is what ct-room protected on 21 September 2026 at 17:46:40 UTC. "
        "No pixel and no field of the record was changed.<" in text
    )


def test_several_studies_have_an_index(tmp_path: Path) -> None:
    page = written(tmp_path / "out", [in_study(1), in_study(2, finding="damaged"), in_study(1)])
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "index.html",
        "study-1.html",
        "study-2.html",
    ]
    outline = Outline(page.read_text("utf-8"))
    assert {"study-1.html", "study-2.html"} <= set(outline.all("a", "href"))
    assert "index.html" in Outline((tmp_path / "out" / "study-2.html").read_text("utf-8")).all("a", "href")


def test_what_could_not_be_judged_is_on_the_index(tmp_path: Path) -> None:
    others = [ErrorReport("bad.dcm", "is cut short"), Note("IM3", "missing", "listed and not there")]
    text = written(tmp_path / "out", [in_study(1), *others]).read_text("utf-8")
    assert (
        "No pixel and no field of the record was changed. 1 file could not be read. 1 file is missing."
        in text
    )
    for words in ("bad.dcm", "is cut short", "IM3", "listed and not there"):
        assert words in text


def test_nothing_at_all_is_said_to_be_nothing(tmp_path: Path) -> None:
    assert "There was nothing to judge." in written(tmp_path / "out", []).read_text("utf-8")


def test_pages_go_into_a_folder_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("x")
    with pytest.raises(UsageError, match="not empty"):
        StudyPages(tmp_path, ABOUT)
    with pytest.raises(OutputError, match="cannot be written"):
        StudyPages(tmp_path / "holiday.txt" / "below", ABOUT)


def test_what_breaks_off_leaves_no_piece_behind(tmp_path: Path) -> None:
    with StudyPages(tmp_path / "out", ABOUT) as pages:
        pages.add(in_study(1))
    assert list((tmp_path / "out").iterdir()) == []


# what stands in them


def test_what_differs_comes_first_and_one_authentic_image_in_full(tmp_path: Path) -> None:
    small = InstancePictures(picture(), (), (), "")
    reports = [
        in_study(1),
        in_study(1, source="second.dcm", pictures=small),
        in_study(1, finding="pixels-altered", source="bad.dcm"),
    ]
    text = written(tmp_path / "out", reports).read_text("utf-8")
    order = [text.index(f'id="image-{number}"') for number in (3, 1, 2)]
    assert order == sorted(order)
    assert text.count('<article class="card"') == 2
    assert text.count("<li id=") == 1


def test_keys_are_named_and_remarks_are_told(tmp_path: Path) -> None:
    moved = a_frame(finding="header-altered", altered_fields=("StudyInstanceUID",))
    report = a_report("header-altered", moved)
    text = written(tmp_path / "out", [report, in_study(1)]).read_text("utf-8")
    assert "1 (fingerprint 0a1b2c3d), 2 (fingerprint ffffffff)" in text
    page = (tmp_path / "out" / "study-1.html").read_text("utf-8")
    assert "<strong>Proven:</strong> marked in another study than the header says now" in page
    assert "<dd>1 (fingerprint 0a1b2c3d)</dd>" in page


@pytest.mark.parametrize("shown", [False, True])
def test_values_of_the_record_are_there_only_on_request(tmp_path: Path, shown: bool) -> None:
    about = dataclasses.replace(ABOUT, show_record=shown)
    report = in_study(1, record={"PatientName": "Phantom^Test"})
    text = written(tmp_path / "out", [report], about).read_text("utf-8")
    assert ("Phantom^Test" in text) is shown
    assert ("and the fields of the record" in text) is shown


def test_a_page_stays_as_large_as_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "_FULL_BYTES", 3000)
    monkeypatch.setattr(study, "_THUMBNAIL_BYTES", 300)
    reports = [in_study(1, finding="damaged") for _ in range(20)]
    text = written(tmp_path / "out", reports).read_text("utf-8")
    full = text.count('<article class="card"')
    assert 0 < full < 20
    assert text.count("<li id=") == 20 - full
    assert text.count("<img ") < 20 - full
    assert f"{20 - full} images are shown as thumbnails only" in text


def test_the_memory_it_takes_does_not_grow_with_the_images(tmp_path: Path) -> None:
    with StudyPages(tmp_path / "out", ABOUT) as pages:
        for number in range(300):
            pages.add(in_study(1, source=f"{number}.dcm"))
        (one,) = pages._studies.values()
        assert len(repr(one)) < 1000
        pages.finish(summarised([]))


# every page, for everybody


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> list[Outline]:
    """The pages of images of every finding."""
    folder = tmp_path_factory.mktemp("pages") / "out"
    written(folder, _all_reports("a harmless text"))
    return [Outline(file.read_text("utf-8")) for file in sorted(folder.iterdir())]


def _all_reports(text: str) -> list[Report]:
    """Images of every finding, every text in them replaced by `text`; those that are not free are kept."""
    reports: list[Report] = [ErrorReport(text, text), Note(text, "missing", text)]
    for number, finding in enumerate(FINDINGS):
        tiles = ((0, 0), (1, 2)) if finding == "pixels-altered" else ()
        frames = [
            a_frame(n, finding, altered_tiles=tiles, altered_fields=(text,), segmenter=text, framing=framing)
            for n, framing in ((1, "tile"), (2, "header"), (3, text))
        ]
        report = a_report(
            finding,
            *(_with(frame, tier=text) for frame in frames[: 1 + 2 * (number % 2)]),
            source=text,
            node=text,
            protected_at=text,
            reason=text if finding == "unmarked" else "",
            segmenters=(text,),
            fields=(text, f"{text}2"),
            record={text: text, f"{text}2": text},
            place=Place(f"{text}{number % 3}", text, text, text, number),
            pictures=dataclasses.replace(painted(finding, 3, altered_tiles=tiles), greys=text),
        )
        reports += [report, dataclasses.replace(report, finding="authentic"), report]
    return reports


def _with(frame: FrameReport, **changed: Any) -> FrameReport:
    return dataclasses.replace(frame, **changed)


_HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)' x='",
    "</style></title></svg><iframe src=//evil>",
    "{{ 7 * 7 }}{% raw %}<!--",
    "javascript:alert(1)&#x3c;script&#62;",
    "]]><![CDATA[<b>",
)


@pytest.mark.parametrize("hostile", _HOSTILE)
def test_no_text_of_a_header_becomes_a_part_of_the_page(
    tmp_path: Path, everything: list[Outline], hostile: str
) -> None:
    """A browser finds the very same elements and attributes, whatever the texts are."""
    about = dataclasses.replace(ABOUT, show_record=True)
    written(tmp_path / "hostile", _all_reports(hostile), about)
    written(tmp_path / "harmless", _all_reports("a harmless text"), about)
    names = sorted(file.name for file in (tmp_path / "harmless").iterdir())
    assert sorted(file.name for file in (tmp_path / "hostile").iterdir()) == names
    for name in names:
        outline = Outline((tmp_path / "hostile" / name).read_text("utf-8"))
        assert outline.skeleton == Outline((tmp_path / "harmless" / name).read_text("utf-8")).skeleton
    assert any(hostile in text for text in outline.texts)


def test_what_steers_the_eye_is_written_out(tmp_path: Path) -> None:
    report = in_study(1, source="a\u202egnp.dcm\x1b[2J")
    text = written(tmp_path / "out", [report]).read_text("utf-8")
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert "\\u202egnp.dcm" in text


def test_nothing_is_loaded_and_nothing_runs(everything: list[Outline]) -> None:
    for outline in everything:
        assert {tag for tag, _ in outline.skeleton}.isdisjoint(
            {"script", "iframe", "object", "link", "form", "base"}
        )
        for tag, name, value in outline.attributes:
            assert not name.startswith("on")
            if name in ("src", "href"):
                inside = ("data:image/", "#") if tag != "a" else ("#", "study-", "index.html")
                assert value.startswith(inside), (tag, name, value[:80])


def test_the_policy_comes_before_anything_it_speaks_of(everything: list[Outline]) -> None:
    for outline in everything:
        tags = [tag for tag, _ in outline.skeleton]
        assert outline.all("meta", "content")[0].startswith("default-src 'none'")
        assert tags.index("meta") < tags.index("style")


def test_every_id_is_there_once_and_every_reference_finds_one(everything: list[Outline]) -> None:
    for outline in everything:
        ids = [value for _, name, value in outline.attributes if name == "id"]
        assert len(ids) == len(set(ids))
        wanted = [v[1:] for _, name, v in outline.attributes if name == "href" and v.startswith("#")]
        wanted += [v for _, name, v in outline.attributes if name in ("aria-labelledby",)]
        assert set(wanted) <= set(ids)


def test_headings_go_down_one_step_at_a_time(everything: list[Outline]) -> None:
    for outline in everything:
        levels = [
            int(tag[1]) for tag, _ in outline.skeleton if len(tag) == 2 and tag[0] == "h" and tag[1].isdigit()
        ]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))


def test_every_picture_says_what_it_shows(everything: list[Outline]) -> None:
    for outline in everything:
        assert all(outline.all("img", "alt"))
        assert len(outline.all("img", "alt")) == len(outline.all("img", "src"))
        for tag, names in outline.skeleton:
            if tag == "svg":
                assert "aria-label" in names or "aria-hidden" in names


def test_every_page_has_its_language_title_and_landmarks(everything: list[Outline]) -> None:
    for outline in everything:
        tags = [tag for tag, _ in outline.skeleton]
        assert outline.all("html", "lang") == ["en"]
        for landmark in ("title", "header", "main", "footer"):
            assert landmark in tags
        assert tags.count("main") == 1
