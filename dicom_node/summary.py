"""Reports on instances, gathered by study and series: what of a series is proven, and what is only a hint.

Proven is what a record says that only the key could have sealed, or what two data sets show when held against
each other. A hint rests on what anybody could have written into a header, and says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby, pairwise

from dicom_node.report import ErrorReport, FrameReport, InstanceReport, Note

#: sources that a remark names; it counts all of them
_NAMED = 5
#: numbers, or ranges of them, that a remark lists
_RANGES = 8


@dataclass(frozen=True, slots=True)
class Remark:
    """What is to be said of a series or study beyond the findings on its instances.

    `kind` is a bounded word (docs/verify.schema.json); `count` instances are concerned, of which `sources`
    names the first. `text` says of them what is known.
    """

    kind: str
    proven: bool
    text: str
    count: int = 1
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SeriesSummary:
    """One series as its instances' headers name it.

    `findings` are counts, most frequent first; `bound` instances are authentic and name this very study and
    series in their record.
    """

    uid: str
    modality: str
    instances: int
    frames: int
    findings: tuple[tuple[str, int], ...]
    bound: int
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True)
class StudySummary:
    """One study as its instances' headers name it."""

    uid: str
    series: tuple[SeriesSummary, ...]

    @property
    def instances(self) -> int:
        return sum(series.instances for series in self.series)


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that was judged; `findings` count the instances, `missing` the notes that are findings.

    `revoked` instances were marked with a key that is revoked since.
    """

    studies: tuple[StudySummary, ...]
    findings: tuple[tuple[str, int], ...]
    errors: int
    missing: int
    remarks: tuple[Remark, ...] = ()
    revoked: int = 0

    @property
    def instances(self) -> int:
        return sum(count for _, count in self.findings)


def summarised(reports: Iterable[InstanceReport | ErrorReport | Note]) -> Summary:
    """The summary of reports in any order, taken one by one; only what it needs of each is kept."""
    series: dict[tuple[str, str], _Series] = {}
    across, errors, missing, revoked = _Across(), 0, 0, 0
    for each in reports:
        if isinstance(each, ErrorReport):
            errors += 1
        elif isinstance(each, Note):
            missing += each.is_finding
        else:
            place = (each.place.study, each.place.series)
            series.setdefault(place, _Series()).add(each)
            across.add(each)
            revoked += bool(each.key_revoked)
    findings: Counter[str] = Counter()
    for one in series.values():
        findings.update(one.findings)
    studies = tuple(
        StudySummary(study, tuple(series[place].summary(place[1]) for place in places))
        for study, places in groupby(sorted(series), key=lambda place: place[0])
    )
    return Summary(studies, tuple(findings.most_common()), errors, missing, across.remarks(), revoked)


def lines(summary: Summary) -> Iterator[str]:
    """The summary for a person, without the counts of everything: study, series, what is to be said of it."""
    for study in summary.studies:
        yield f"study {study.uid or '(no UID)'}: {_count(study.instances, 'instance')}"
        for series in study.series:
            yield f"  series {series.uid or '(no UID)'}: {' '.join((series.modality, told(series))).lstrip()}"
            yield from (f"    {remark_line(remark)}" for remark in series.remarks)
    yield from (remark_line(remark) for remark in summary.remarks)


def told(series: SeriesSummary) -> str:
    """The counts of a series in words."""
    findings = ", ".join(f"{count} {finding}" for finding, count in series.findings)
    bound = f"{series.bound} of {series.instances} proven to belong here"
    return f"{_count(series.instances, 'instance')}, {_count(series.frames, 'frame')}: {findings}; {bound}"


def remark_line(remark: Remark) -> str:
    """A remark in words; proven or a hint is its first word."""
    named = ", ".join(remark.sources)
    more = f" and {remark.count - len(remark.sources)} more" if remark.count > len(remark.sources) > 0 else ""
    where = f" ({named}{more})" if named else ""
    return f"{'proven' if remark.proven else 'hint'}: {remark.text}{where}"


def totals(summary: Summary) -> str:
    """How many of each finding, most frequent first."""
    counts = Counter(dict(summary.findings))
    counts.update({"missing": summary.missing, "error": summary.errors})
    counts.update({"under a revoked key": summary.revoked})
    return ", ".join(f"{n} {what}" for what, n in counts.most_common() if n) or "nothing to judge"


@dataclass(slots=True)
class _Kept:
    """How many instances a remark concerns, and the first of them."""

    count: int = 0
    sources: list[str] = field(default_factory=list)

    def add(self, source: str) -> None:
        self.count += 1
        if len(self.sources) < _NAMED:
            self.sources.append(source)

    def remark(self, kind: str, text: str, *, proven: bool) -> Remark:
        return Remark(kind, proven, text, self.count, tuple(self.sources))


#: what an instance's report proves of it by itself -> the words for it
_PROVEN = {
    "moved-study": "marked in another study than the header says now",
    "moved-series": "marked in another series than the header says now",
    "renamed": "marked under another SOP Instance UID than the header says now",
    "frames-missing": "fewer frames than were marked",
    "frames-added": "more frames than were marked",
    "frames-exchanged": "frames in other places than they were marked in",
    "frames-unread": "frames without a record of their own among marked ones",
    "revoked-key": "marked with a key that is revoked since: whoever has it could have made it",
}


def _proven(report: InstanceReport) -> Iterator[str]:
    """The kinds of what a report proves beyond its finding."""
    altered = {name for frame in report.frames for name in frame.altered_fields}
    if "StudyInstanceUID" in altered:
        yield "moved-study"
    if "SeriesInstanceUID" in altered:
        yield "moved-series"
    if "SOPInstanceUID" in altered:
        yield "renamed"
    if report.frames_expected and report.number_of_frames < report.frames_expected:
        yield "frames-missing"
    if report.frames_expected and report.number_of_frames > report.frames_expected:
        yield "frames-added"
    if any(frame.holds_frame is not None for frame in report.frames):
        yield "frames-exchanged"
    if any(_has_record(frame) for frame in report.frames) and not all(map(_accounted_for, report.frames)):
        yield "frames-unread"
    if report.key_revoked:
        yield "revoked-key"


def _has_record(frame: FrameReport) -> bool:
    return frame.tier is not None


def _accounted_for(frame: FrameReport) -> bool:
    return frame.tier is not None or frame.holds_frame is not None


@dataclass(slots=True)
class _Series:
    """What the summary of one series needs of its instances."""

    modalities: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    numbers: Counter[int] = field(default_factory=Counter)
    frames: int = 0
    bound: int = 0
    kept: dict[str, _Kept] = field(default_factory=dict)
    unmarked: _Kept = field(default_factory=_Kept)

    def add(self, report: InstanceReport) -> None:
        self.modalities[report.place.modality] += 1
        self.findings[report.finding] += 1
        self.frames += report.number_of_frames
        self.bound += report.finding == "authentic" and {"study", "series"} <= set(report.bound_to)
        if report.place.number is not None:
            self.numbers[report.place.number] += 1
        if report.finding == "unmarked":
            self.unmarked.add(report.source)
        for kind in _proven(report):
            self.kept.setdefault(kind, _Kept()).add(report.source)

    def summary(self, uid: str) -> SeriesSummary:
        return SeriesSummary(
            uid,
            "\\".join(sorted(filter(None, self.modalities))),
            self.findings.total(),
            self.frames,
            tuple(self.findings.most_common()),
            self.bound,
            (*self._proven(), *self._hints()),
        )

    def _proven(self) -> Iterator[Remark]:
        for kind, text in _PROVEN.items():
            if kind in self.kept:
                yield self.kept[kind].remark(kind, text, proven=True)

    def _hints(self) -> Iterator[Remark]:
        if 0 < self.unmarked.count < self.findings.total():
            yield self.unmarked.remark(
                "unmarked-among-marked", "unmarked among marked instances", proven=False
            )
        lacking = _gaps(self.numbers)
        if lacking:
            count = sum(last - first + 1 for first, last in lacking)
            text = f"no instance is numbered {_ranges(lacking)}; numbers are the header's"
            yield Remark("number-gap", False, text, count)
        repeated = [(number, number) for number, count in sorted(self.numbers.items()) if count > 1]
        if repeated:
            text = f"several instances are numbered {_ranges(repeated)}; numbers are the header's"
            yield Remark("number-repeated", False, text, len(repeated))


@dataclass(slots=True)
class _Across:
    """What only shows when instances of every series are held against each other."""

    seen: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    originals: dict[str, str] = field(default_factory=dict)
    studies: dict[str, str] = field(default_factory=dict)
    differing: _Kept = field(default_factory=_Kept)
    repeated: _Kept = field(default_factory=_Kept)
    renamed: _Kept = field(default_factory=_Kept)
    split: _Kept = field(default_factory=_Kept)

    def add(self, report: InstanceReport) -> None:
        place = report.place
        if place.instance and report.content:
            content = bytes.fromhex(report.content)[:16]
            first, source = self.seen.setdefault(place.instance, (content, report.source))
            if (first, source) != (content, report.source):  # one path may be named twice
                (self.repeated if first == content else self.differing).add(f"{source} and {report.source}")
        if report.original:
            uid = self.originals.setdefault(report.original, place.instance)
            if uid != place.instance:
                self.renamed.add(report.source)
        if place.series and self.studies.setdefault(place.series, place.study) != place.study:
            self.split.add(report.source)

    def remarks(self) -> tuple[Remark, ...]:
        told = (
            (self.differing, "same-uid-other-content", "the same SOP Instance UID, different content", True),
            (self.repeated, "repeated", "the same data set more than once", True),
            (self.renamed, "same-original", "an original that is here under another UID too", True),
            (
                self.split,
                "series-in-two-studies",
                "a series that other instances put into another study",
                False,
            ),
        )
        return tuple(
            kept.remark(kind, text, proven=proven) for kept, kind, text, proven in told if kept.count
        )


def _gaps(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """The ranges that lack between the lowest and the highest number."""
    known = sorted(numbers)
    return [(before + 1, after - 1) for before, after in pairwise(known) if after > before + 1]


def _ranges(ranges: list[tuple[int, int]]) -> str:
    words = [f"{first}" if first == last else f"{first}-{last}" for first, last in ranges[:_RANGES]]
    return ", ".join(words) + (" and more" if len(ranges) > _RANGES else "")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
