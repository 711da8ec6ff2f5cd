"""The report of a verification as pages: one a study, and an index where there is more than one.

Reports come one by one and are written at once, piece by piece, beside the page that they will stand in; what
is kept in memory is how many there are of each kind. Pages and pieces are named by numbers.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dicom_node.errors import OutputError, UsageError
from dicom_node.pages import words
from dicom_node.pages.cards import card_of
from dicom_node.pages.rendering import rendered, streamed
from dicom_node.pages.words import FINDINGS, MEANINGS, STATEMENTS
from dicom_node.report import ErrorReport, InstancePictures, InstanceReport, Note
from dicom_node.summary import Remark, Summary

#: bytes of pictures in one page: those in full, and the thumbnails
_FULL_BYTES, _THUMBNAIL_BYTES = 8_000_000, 4_000_000
_CHUNK_CHARACTERS = 1 << 16
_PIECES = ".dicom-node-pieces"
INDEX = "index.html"


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the ring as a page names it: its number and public fingerprint, never its secret."""

    id: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class About:
    """What a report says about itself; `judged_at` in words."""

    judged_at: str
    version: str
    keys: tuple[Key, ...]
    show_record: bool


@dataclass(slots=True)
class _Series:
    number: int
    uid: str
    modality: str
    counts: Counter[str] = field(default_factory=Counter)
    has_example: bool = False


@dataclass(slots=True)
class _Study:
    number: int
    uid: str
    series: dict[str, _Series] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    #: how many were marked with a key that is revoked since
    revoked: int = 0
    keys: set[int] = field(default_factory=set)
    drawn_by: set[str] = field(default_factory=set)
    #: the verdict on its first instance, which is the verdict on a study of one
    first: str = ""
    full_bytes: int = 0
    thumbnail_bytes: int = 0
    left_out: int = 0


class StudyPages:
    """Writes the pages of one verification into a folder that is new or empty.

    Raises
    ------
    UsageError : there is something in the folder already
    OutputError : it cannot be written
    """

    def __init__(self, folder: Path, about: About) -> None:
        self._folder, self._about = folder, about
        self._pieces = folder / _PIECES
        self._studies: dict[str, _Study] = {}
        self._counts: Counter[str] = Counter()
        self._unreadable = self._missing = self._revoked = self._number = 0
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise UsageError(f"{folder} is not empty; name a new folder for the pages")
            self._pieces.mkdir(mode=0o700)

    def __enter__(self) -> StudyPages:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._pieces, ignore_errors=True)

    def add(self, report: InstanceReport | ErrorReport | Note) -> None:
        """Write what was found about one source to where its page will take it from."""
        if not isinstance(report, InstanceReport):
            said = report.error if isinstance(report, ErrorReport) else report.text
            self._unreadable += isinstance(report, ErrorReport)
            self._missing += isinstance(report, Note) and report.is_finding
            self._append("others", rendered("other.html.j2", source=report.source, said=said))
            return
        self._number += 1
        study = self._study(report)
        series = _series_of(study, report)
        _count(study, series, report)
        self._counts[report.finding] += 1
        self._revoked += bool(report.key_revoked)
        study.revoked += bool(report.key_revoked)
        self._write_instance(study, series, report)

    def finish(self, summary: Summary) -> Path:
        """Put the pages together; the one to open. `summary` is of the reports that were added."""
        several = len(self._studies) != 1 or bool(self._unreadable or self._missing)
        remarks = _Remarks(
            {(study.uid, series.uid): series.remarks for study in summary.studies for series in study.series},
            summary.remarks,
        )
        pages = [self._write_study(study, remarks, several) for study in self._studies.values()]
        return self._write_index(remarks) if several else pages[0]

    def _study(self, report: InstanceReport) -> _Study:
        uid = report.place.study
        return self._studies.setdefault(uid, _Study(len(self._studies) + 1, uid))

    def _write_instance(self, study: _Study, series: _Series, report: InstanceReport) -> None:
        card = card_of(self._number, report, show_record=self._about.show_record)
        group = self._group(study, series, card.meaning.tone, report.pictures)
        if group in ("differ", "example"):
            piece = rendered("instance.html.j2", card=card)
        else:
            thumbnail = self._thumbnail(study, report.pictures)
            piece = rendered("cell.html.j2", card=card, thumbnail=thumbnail)
        self._append(f"{study.number}-{series.number}-{group}", piece)

    def _group(self, study: _Study, series: _Series, tone: str, painted: InstancePictures | None) -> str:
        """Where an instance stands among those of its series, one of `_GROUPS`."""
        if tone != "good":
            return "differ" if self._takes(study, painted) else "differ_small"
        if series.has_example or painted is None or not painted.frames or not self._takes(study, painted):
            return "rest"
        series.has_example = True
        return "example"

    def _takes(self, study: _Study, painted: InstancePictures | None) -> bool:
        """Whether there is room in the page for all the pictures of one more instance; then it is taken."""
        size = 0 if painted is None else sum(_size(frame) for frame in painted.frames)
        if study.full_bytes + size > _FULL_BYTES:
            study.left_out += 1
            return False
        study.full_bytes += size
        return True

    def _thumbnail(self, study: _Study, painted: InstancePictures | None) -> bytes:
        thumbnail = b"" if painted is None else painted.thumbnail
        if study.thumbnail_bytes + len(thumbnail) > _THUMBNAIL_BYTES:
            return b""
        study.thumbnail_bytes += len(thumbnail)
        return thumbnail

    def _append(self, piece: str, text: str) -> None:
        with _writing(self._folder), (self._pieces / piece).open("a", encoding="utf-8") as file:
            file.write(text)

    def _write_study(self, study: _Study, remarks: _Remarks, several: bool) -> Path:
        page = _StudyPage.of(study, remarks, self._pieces, self._about, several)
        return self._write("study.html.j2", file_name(study.number), page)

    def _write(self, template: str, name: str, page: object) -> Path:
        """One page, under its name when it is complete and synced."""
        path, part = self._folder / name, self._pieces / name
        with _writing(path):
            with part.open("w", encoding="utf-8") as file:
                for piece in streamed(template, page=page, about=self._about, meanings=MEANINGS):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        return path

    def _write_index(self, remarks: _Remarks) -> Path:
        verdict, tone = words.overall(self._counts, self._unreadable, self._missing, self._revoked)
        page = {
            "verdict": verdict,
            "tone": tone,
            "symbol": _SYMBOLS[tone],
            "facts": _facts(self._about, self._counts, sum(len(s.series) for s in self._studies.values())),
            "counts": _in_order(self._counts),
            "studies": [_line_of(study) for study in self._studies.values()],
            "remarks": remarks.across,
            "others": Pieces(self._pieces / "others"),
            "limits": _limits(self._counts),
        }
        return self._write("index.html.j2", INDEX, page)


#: what the instances of a series are sorted into: those that are not authentic in full or, where a page grows
#: too large, small; an authentic one in full; the rest
_GROUPS = ("differ", "differ_small", "example", "rest")
_SYMBOLS = {"good": "✓", "bad": "✗", "open": "?"}


def file_name(study: int) -> str:
    """The file of the page of a study: a number, nothing out of a header."""
    return f"study-{study}.html"


@dataclass(frozen=True, slots=True)
class Pieces:
    """What was written before and goes into a page as it is; false if there is nothing."""

    path: Path

    def __bool__(self) -> bool:
        return self.path.exists()

    def __iter__(self) -> Iterator[str]:
        with self.path.open(encoding="utf-8") as file:
            while part := file.read(_CHUNK_CHARACTERS):
                yield part


@dataclass(frozen=True, slots=True)
class _Remarks:
    """What there is to say beyond the findings: by study and series, and across them."""

    of_series: Mapping[tuple[str, str], tuple[Remark, ...]]
    across: tuple[Remark, ...]


@dataclass(frozen=True, slots=True)
class _SeriesPart:
    title: str
    facts: list[tuple[str, str]]
    remarks: tuple[Remark, ...]
    differ: Pieces
    differ_small: Pieces
    example: Pieces
    rest: Pieces


@dataclass(frozen=True, slots=True)
class _StudyPage:
    """All that the template of a study wants."""

    number: int
    several: bool
    verdict: str
    tone: str
    symbol: str
    remarks: tuple[Remark, ...]
    facts: list[tuple[str, str]]
    counts: list[tuple[str, int]]
    series: list[_SeriesPart]
    limits: list[tuple[str, str]]
    left_out: str

    @classmethod
    def of(cls, study: _Study, remarks: _Remarks, pieces: Path, about: About, several: bool) -> _StudyPage:
        verdict, tone = _verdict(study)
        return cls(
            number=study.number,
            several=several,
            verdict=verdict,
            tone=tone,
            symbol=_SYMBOLS[tone],
            remarks=() if several else remarks.across,
            facts=[("Study Instance UID", study.uid or "none"), *_study_facts(study, about)],
            counts=_in_order(study.counts),
            series=[
                _series_part(study, series, remarks.of_series.get((study.uid, series.uid), ()), pieces)
                for series in study.series.values()
            ],
            limits=_limits(study.counts),
            left_out=_left_out(study),
        )


def _series_of(study: _Study, report: InstanceReport) -> _Series:
    place = report.place
    new = _Series(len(study.series) + 1, place.series, place.modality)
    return study.series.setdefault(place.series, new)


def _count(study: _Study, series: _Series, report: InstanceReport) -> None:
    study.first = study.first or words.sentence(report)
    study.counts[report.finding] += 1
    series.counts[report.finding] += 1
    for frame in report.frames:
        if frame.key_id is not None:
            study.keys.add(frame.key_id)
        if frame.segmenter:
            study.drawn_by.add(frame.segmenter)


def _series_part(study: _Study, series: _Series, remarks: tuple[Remark, ...], pieces: Path) -> _SeriesPart:
    total = sum(series.counts.values())
    title = ", ".join(filter(None, (series.modality, words.counted(total, "image"))))
    found = words.listed(f"{number} {MEANINGS[f].title.lower()}" for f, number in _in_order(series.counts))
    facts = [("Series Instance UID", series.uid or "none"), ("Found", found)]
    place = f"{study.number}-{series.number}"
    return _SeriesPart(
        title, facts, remarks, **{group: Pieces(pieces / f"{place}-{group}") for group in _GROUPS}
    )


def _study_facts(study: _Study, about: About) -> list[tuple[str, str]]:
    used = [key for key in about.keys if key.id in study.keys]
    return [
        *_facts(about, study.counts, len(study.series)),
        ("Keys that it was marked with", _keys(used) or "none that is known here"),
        ("Regions of interest by", words.listed(sorted(study.drawn_by)) or "nothing"),
    ]


def _facts(about: About, counts: Counter[str], series: int) -> list[tuple[str, str]]:
    what = f"{words.counted(sum(counts.values()), 'image')} in {series} series"
    return [
        ("Judged", what),
        ("On", about.judged_at),
        ("Keys in the ring used", _keys(about.keys)),
        ("Program", f"dicom-node {about.version}, watermark format v1"),
    ]


def _keys(keys: Iterable[Key]) -> str:
    return ", ".join(f"{key.id} (fingerprint {key.fingerprint})" for key in keys)


def _verdict(study: _Study) -> tuple[str, str]:
    verdict, tone = words.overall(study.counts, revoked=study.revoked)
    return study.first if sum(study.counts.values()) == 1 else verdict, tone


def _line_of(study: _Study) -> dict[str, object]:
    verdict, tone = _verdict(study)
    return {
        "file": file_name(study.number),
        "number": study.number,
        "uid": study.uid,
        "total": sum(study.counts.values()),
        "verdict": verdict,
        "tone": tone,
        "symbol": _SYMBOLS[tone],
    }


def _in_order(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return [(finding, counts[finding]) for finding in FINDINGS if counts.get(finding)]


def _limits(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """The statements of the threat model that the page names, in their order."""
    named = {number for finding, _ in _in_order(counts) for number in MEANINGS[finding].numbers}
    named |= {"N5", "N10", "N19"}
    return [(number, said) for number, said in STATEMENTS.items() if number in named]


def _left_out(study: _Study) -> str:
    if not study.left_out:
        return ""
    return (
        f"{words.counted(study.left_out, 'image')} are shown as thumbnails only, to keep the page small; "
        "verify them alone to see them in full."
    )


def _size(frame: object) -> int:
    return sum(len(getattr(frame, name)) for name in ("received", "restored", "change", "roi", "packets"))


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written ({error.strerror}); make room, or name another folder"
        ) from error
