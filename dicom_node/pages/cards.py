"""One instance as a page shows it: a report and its pictures, put into words and coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from dicom_node.pages import words
from dicom_node.pages.words import MEANINGS, Meaning
from dicom_node.report import CHANGE_LIMIT, FramePictures, InstancePictures, InstanceReport

_TILE_PX = 64
_FRAMES_LISTED = 200
#: width of a bar of the histogram with its gap, and the height of the highest
_BAR_PX, _BARS_HIGH_PX = 24, 88


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring tiles of one row that differ alike, in pixels of the frame."""

    x: int
    y: int
    width: int
    height: int
    words: str


@dataclass(frozen=True, slots=True)
class Shown:
    """One frame in full: its pictures and what is laid over them."""

    pictures: FramePictures
    meaning: Meaning
    altered: tuple[Run, ...]
    altered_words: str
    received_alt: str
    map_alt: str
    restored_words: str
    tiles_width: int
    tiles_height: int


@dataclass(frozen=True, slots=True)
class Field:
    """A header field of the record; `value` is None where it is not to be shown."""

    name: str
    value: str | None
    agrees: bool


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a histogram; `way` is `lower` or `higher`."""

    x: int
    height: int
    label: str
    way: str
    words: str


@dataclass(frozen=True, slots=True)
class Bars:
    """A histogram of changes, and the same in words."""

    bars: tuple[Bar, ...]
    width: int
    words: str


@dataclass(frozen=True, slots=True)
class Card:
    """All that the templates of an instance want."""

    number: int
    title: str
    label: str
    meaning: Meaning
    sentence: str
    facts: list[tuple[str, str]]
    greys: str
    frames: tuple[Shown, ...]
    several_frames: bool
    listed_frames: tuple[tuple[int, str, int], ...]
    listed_words: str
    bars: Bars | None
    fields: tuple[Field, ...]
    altered: bool
    shows_values: bool


def card_of(number: int, report: InstanceReport, *, show_record: bool) -> Card:
    """What a page shows of one instance; `number` is its place in the report."""
    painted, meaning = report.pictures, MEANINGS[report.finding]
    bad = [f for f in report.frames if f.finding != "authentic"] if len(report.frames) > 1 else []
    altered = words.altered_fields(report)
    return Card(
        number=number,
        title=_title(number, report),
        label=_label(number, report),
        meaning=meaning,
        sentence=words.sentence(report),
        facts=[("File", report.source), *words.facts(report)],
        greys="" if painted is None else painted.greys,
        frames=tuple(_shown(frame, report) for frame in (() if painted is None else painted.frames)),
        several_frames=len(report.frames) > 1,
        listed_frames=tuple(
            (f.frame, MEANINGS[f.finding].title.lower(), len(f.altered_tiles)) for f in bad[:_FRAMES_LISTED]
        ),
        listed_words=_listed_words(len(bad)),
        bars=_bars(painted),
        fields=_fields(report, altered, show_record=show_record),
        altered=bool(altered),
        shows_values=show_record,
    )


def _label(number: int, report: InstanceReport) -> str:
    """What an instance is called among those of its series: its Instance Number, if it has one."""
    return f"Image {report.place.number}" if report.place.number is not None else f"No. {number}"


def _title(number: int, report: InstanceReport) -> str:
    name = report.source.replace("\\", "/").rstrip("/").rpartition("/")[2] or report.source
    return f"{_label(number, report)}, {name}"


def _listed_words(bad: int) -> str:
    shown = f", the first {_FRAMES_LISTED} of them" if bad > _FRAMES_LISTED else ""
    return f"{words.counted(bad, 'frame')} that {'is' if bad == 1 else 'are'} not authentic{shown}"


def _shown(frame: FramePictures, report: InstanceReport) -> Shown:
    meaning = MEANINGS[frame.finding]
    differ = len(frame.altered_tiles) + len(frame.foreign_tiles)
    tiles = f"{words.counted(differ, 'tile')} {'differs' if differ == 1 else 'differ'}"
    if frame.foreign_tiles:
        tiles += f", {len(frame.foreign_tiles)} with a packet of another image"
    trust = {f.frame: f.localisation for f in report.frames}.get(frame.frame, "none")
    sure = {"exact": " (exact)", "indicative": " (at most; see Where)"}.get(trust, "")
    runs = (
        *_runs(frame.altered_tiles, frame, "what is here is not what was protected"),
        *_runs(frame.foreign_tiles, frame, "a piece of another protected image"),
    )
    share = "" if frame.roi_share is None else f" Region of interest: {frame.roi_share:.0%} of all blocks."
    return Shown(
        pictures=frame,
        meaning=meaning,
        altered=runs,
        altered_words=f"{tiles}{sure}.",
        received_alt=f"The image as received, {meaning.title.lower()}"
        + (f"; {tiles}: {_places(frame)}." if differ else "."),
        map_alt=f"The image with its map and its tiles laid over it.{share}",
        restored_words=_restored(frame, report),
        tiles_width=-(-frame.cols // _TILE_PX) * _TILE_PX,
        tiles_height=-(-frame.rows // _TILE_PX) * _TILE_PX,
    )


def _places(frame: FramePictures) -> str:
    tiles = (*frame.altered_tiles, *frame.foreign_tiles)
    return words.listed(f"row {row + 1} column {column + 1}" for row, column in tiles)


def _restored(frame: FramePictures, report: InstanceReport) -> str:
    how = {f.frame: f for f in report.frames}.get(frame.frame)
    if how is not None and how.restoration == "exact":
        return "The original, bit for bit."
    if how is not None and how.restoration == "approximate":
        return "Nearly the original (N19)."
    return "As far as it can be; not the original."


def _runs(tiles: Sequence[tuple[int, int]], frame: FramePictures, what: str) -> list[Run]:
    """Neighbours of a row together: a frame may have thousands of tiles."""
    ordered = sorted(tiles)
    starts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(ordered)) if b != (a[0], a[1] + 1))]
    spans = zip(starts, [*starts[1:], len(ordered)], strict=True) if ordered else ()
    return [_run(ordered[start:end], frame, what) for start, end in spans]


def _run(tiles: Sequence[tuple[int, int]], frame: FramePictures, what: str) -> Run:
    row, first = tiles[0]
    x, y = first * _TILE_PX, row * _TILE_PX
    columns = f"column {first + 1}" + (f" to {first + len(tiles)}" if len(tiles) > 1 else "")
    return Run(
        x,
        y,
        min(len(tiles) * _TILE_PX, frame.cols - x),
        min(_TILE_PX, frame.rows - y),
        f"Tile row {row + 1}, {columns}: {what}",
    )


def _bars(painted: InstancePictures | None) -> Bars | None:
    moved = {} if painted is None else {step: n for step, n in painted.changes if step}
    if painted is None or not moved:
        return None
    low, high = min(moved), max(moved)
    limit = max(abs(low), abs(high))
    steps = [step for step in range(low, high + 1) if step]
    most = max(moved.values())
    bars = tuple(_bar(place, step, moved.get(step, 0), most) for place, step in enumerate(steps))
    total = words.counted(sum(n for _, n in painted.changes), "pixel")
    usual, more = _signed(max(moved, key=moved.__getitem__)), " or more" if limit == CHANGE_LIMIT else ""
    said = (
        f"{words.counted(sum(moved.values()), 'pixel')} of {total} moved, most of them by {usual}; "
        f"the furthest by {limit}{more}."
    )
    return Bars(bars, max(8, len(steps)) * _BAR_PX, said)


def _bar(place: int, step: int, count: int, most: int) -> Bar:
    return Bar(
        place * _BAR_PX + 4,
        max(1, round(_BARS_HIGH_PX * count / most)) if count else 0,
        _signed(step),
        "lower" if step < 0 else "higher",
        f"{words.counted(count, 'pixel')} by {_signed(step)}",
    )


def _signed(step: int) -> str:
    return f"+{step}" if step > 0 else f"\N{MINUS SIGN}{-step}"


def _fields(report: InstanceReport, altered: Sequence[str], *, show_record: bool) -> tuple[Field, ...]:
    names = dict.fromkeys((*report.fields, *report.record, *altered))
    return tuple(
        Field(name, report.record.get(name, "") if show_record else None, name not in altered)
        for name in names
    )
