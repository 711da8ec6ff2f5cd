"""What a review found, as text for people and as JSON for programs (docs/verify.schema.json).

Values of the record are patient data: they appear only where the caller asks for them by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from dicom_node.problem import printable

#: of the document that `verify --json` prints
SCHEMA = "dicom-node/verify/2"
#: changes of so many steps or more are counted together
CHANGE_LIMIT = 8


@dataclass(frozen=True, slots=True)
class FrameReport:
    """One frame's verdict without any patient data; tiles are (row, column) of the 64 x 64 grid.

    `restoration` is `exact` (proven by the hash inside), `approximate` (the frame is proven as released, and
    the carrier restores it only nearly, to `restored_psnr_db`) or `none`. `holds_frame` is the number
    that the frame was marked with, where that is another than its own.
    """

    frame: int
    finding: str
    exact: bool
    framing: str | None
    lattice: str | None
    tier: str | None
    segmenter: str
    key_id: int | None
    packets: int
    shards_needed: int
    changed_samples: int
    psnr_db: float | None
    localisation: str
    altered_tiles: tuple[tuple[int, int], ...] = ()
    altered_fields: tuple[str, ...] = ()
    block_px: int | None = None
    restoration: str = "none"
    restored_psnr_db: float | None = None
    holds_frame: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance says that it belongs, as its header has it: a claim, "" or None where it has none.

    UIDs are a patient's: they stand in the report that a person asked for, and in no log.
    """

    study: str = ""
    series: str = ""
    instance: str = ""
    modality: str = ""
    number: int | None = None


@dataclass(frozen=True, slots=True)
class FramePictures:
    """One frame as `pictures` painted it: files in memory, b"" where there is nothing to show.

    `received` and `restored` are WebP; the rest are PNG with transparency, to be laid over them: `change` has
    the geometry of the frame, `roi` one pixel a block of 8 x 8, `packets` one a tile of 64 x 64. `roi_share`
    is the share of blocks that are region of interest; tiles are (row, column) of the 64 x 64 grid.
    """

    frame: int
    finding: str
    rows: int
    cols: int
    received: bytes = field(repr=False)
    restored: bytes = field(default=b"", repr=False)
    change: bytes = field(default=b"", repr=False)
    roi: bytes = field(default=b"", repr=False)
    roi_share: float | None = None
    packets: bytes = field(default=b"", repr=False)
    altered_tiles: tuple[tuple[int, int], ...] = ()
    foreign_tiles: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class InstancePictures:
    """What `pictures` painted of an instance: a thumbnail always, frames in full where there is reason.

    `changes` counts the samples of all frames by how much the watermark moved them, the ends of the range
    with everything beyond; `greys` says in words how stored values became grey levels.
    """

    thumbnail: bytes = field(repr=False)
    frames: tuple[FramePictures, ...] = ()
    changes: tuple[tuple[int, int], ...] = ()
    greys: str = ""


@dataclass(frozen=True, slots=True)
class InstanceReport:
    """One instance's verdict: the worst of its frames, or why it holds nothing to judge.

    `reason` is a reason code for objects without embeddable pixels; `restored` says how much `recover` proved
    of what it gave back; `record` holds the fields of the record as keyword -> text and is filled only on
    request. `segmenters` are the ids of those that the reader tried.

    `place` is what the header claims, `bound_to` what of it ("study", "series", "instance") the records name
    and the header agrees with. `content` is the SHA-256 of the data set in hexadecimal, "" if nobody
    asked; `original` stands for the SOP Instance UID in the record, equal where those are. `fields` are the
    keywords of the fields of the record, without their values. `pictures` are there if they were asked for.
    """

    source: str
    finding: str
    reason: str = ""
    protected_at: str = ""
    node: str = ""
    frames_expected: int = 0
    segmenters: tuple[str, ...] = ()
    frames: tuple[FrameReport, ...] = ()
    restored: str = ""
    place: Place = Place()
    number_of_frames: int = 0
    bound_to: tuple[str, ...] = ()
    content: str = ""
    original: str = field(default="", repr=False)
    #: when the key that its records open under was revoked, ISO 8601 UTC; "" if it is not
    key_revoked: str = ""
    fields: tuple[str, ...] = ()
    record: dict[str, str] = field(default_factory=dict, repr=False)
    pictures: InstancePictures | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """A source of which a command could not make what it was asked for, and what to do about it."""

    source: str
    error: str


@dataclass(frozen=True, slots=True)
class Unreadable(ErrorReport):
    """A source that could not be judged at all."""


@dataclass(frozen=True, slots=True)
class Note:
    """What there is to say of a source that is neither a finding about an instance nor an error.

    `kind` is `missing` (listed by an index, and not there), `refused` (listed, outside of the folder of the
    index), `unlisted`, `index` (a DICOMDIR and what it lists) or `skipped`.
    """

    source: str
    kind: str
    text: str

    @property
    def is_finding(self) -> bool:
        """Whether it keeps a folder or medium from being called all authentic."""
        return self.kind in ("missing", "refused")


def line(report: InstanceReport | ErrorReport | Note) -> str:
    """One line for a person: finding, how it was carried, what differs, source."""
    source = printable(report.source)
    if isinstance(report, ErrorReport):
        return f"{'error':<16} {source}: {printable(report.error)}"
    if isinstance(report, Note):
        return f"{report.kind:<16} {printable(report.text):<44} {source}"
    return f"{report.finding:<16} {printable(_detail(report)):<44} {source}".rstrip()


def _detail(report: InstanceReport) -> str:
    return ", ".join(filter(None, (_judged(report), report.restored)))


def _judged(report: InstanceReport) -> str:
    if report.reason or not report.frames:
        return ", ".join(filter(None, (report.reason, _revoked(report))))
    lacking = [f.segmenter for f in report.frames if f.finding == "unknown-segmenter"]
    if lacking:
        return f"marked by {lacking[0]}; this installation has {', '.join(report.segmenters)}"
    parts = [_revoked(report)] if report.key_revoked else []
    parts += [_carried(report.frames[0])] if report.frames[0].framing else []
    levels = [f.psnr_db for f in report.frames if f.psnr_db is not None and math.isfinite(f.psnr_db)]
    if levels:
        parts.append(f"{min(levels):.1f} dB")
    nearly = [f.restored_psnr_db or 0.0 for f in report.frames if f.restoration == "approximate"]
    if nearly:
        parts.append(f"restoration approximate ({min(nearly):.1f} dB)")
    if len(report.frames) > 1:
        parts.append(f"{len(report.frames)} frames")
    tiles = sum(len(f.altered_tiles) for f in report.frames)
    if tiles:
        parts.append(f"{tiles} tiles altered")
    fields = {name for f in report.frames for name in f.altered_fields}
    if fields:
        parts.append("altered: " + " ".join(sorted(fields)))
    return ", ".join(parts)


def _revoked(report: InstanceReport) -> str:
    return f"its key was revoked {report.key_revoked}" if report.key_revoked else ""


def _carried(frame: FrameReport) -> str:
    how = frame.lattice or frame.block_px
    where = f"{frame.framing}/{how}" if how else f"{frame.framing}"
    return f"{frame.tier} {where}" if frame.tier else where


def instance_document(report: InstanceReport) -> dict[str, object]:
    """An instance's report as JSON holds it."""
    place = report.place
    result: dict[str, object] = {
        "source": report.source,
        "finding": report.finding,
        "reason": report.reason,
        "node": report.node,
        "protected_at": report.protected_at,
        "study_instance_uid": place.study,
        "series_instance_uid": place.series,
        "sop_instance_uid": place.instance,
        "modality": place.modality,
        "instance_number": place.number,
        "bound_to": list(report.bound_to),
        "content_sha256": report.content,
        "number_of_frames": report.number_of_frames,
        "frames_expected": report.frames_expected,
        "segmenters": list(report.segmenters),
        "frames": [_frame(frame) for frame in report.frames],
    }
    if report.key_revoked:
        result["key_revoked"] = report.key_revoked
    if report.record:
        result["record"] = report.record
    return result


def _frame(frame: FrameReport) -> dict[str, object]:
    psnr = frame.psnr_db if frame.psnr_db is not None and math.isfinite(frame.psnr_db) else None
    return {
        "frame": frame.frame,
        "finding": frame.finding,
        "exact": frame.exact,
        "framing": frame.framing,
        "lattice": frame.lattice,
        "tier": frame.tier,
        "segmenter": frame.segmenter,
        "key_id": frame.key_id,
        "packets": frame.packets,
        "shards_needed": frame.shards_needed,
        "changed_samples": frame.changed_samples,
        "psnr_db": psnr,
        "localisation": frame.localisation,
        "altered_tiles": [list(tile) for tile in frame.altered_tiles],
        "altered_fields": list(frame.altered_fields),
        "block_px": frame.block_px,
        "restoration": frame.restoration,
        "restored_psnr_db": frame.restored_psnr_db,
        "holds_frame": frame.holds_frame,
    }
