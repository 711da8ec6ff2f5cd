"""THE backward sentence: what a reader with the key makes of an instance, and how it is given back.

load the pixels, verify them frame by frame against record and header, and, to recover,
store the restored pixels, take the labels off, put the record back into the header
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.uid import UID

from blessmark import pixels
from blessmark.cause import explained
from blessmark.payload import crypto
from blessmark.payload.record import uid_digest
from blessmark.payload.signature import PublicKey
from blessmark.segment import batch, segmenter
from blessmark.segment.whole import Whole
from blessmark.types import (
    Finding,
    Frame,
    IntArray,
    KeyRing,
    Record,
    Segmenter,
    SignatureEvidence,
    SignatureState,
    Verdict,
)
from blessmark.verify import verify
from dicom_node import __version__, header, label, log, portraits
from dicom_node.blobs.port import BlobStore
from dicom_node.config import Config, Label, OnFinding, Route
from dicom_node.jobs import NOT_JUDGED, Outcome, Work, judged, passed
from dicom_node.keys import FileKeyRing
from dicom_node.measuring import stage, tell_modality
from dicom_node.misplaced import misplaced
from dicom_node.originals import SOP_INSTANCE_UID, OriginalFields, unseal
from dicom_node.released import of_instance, release_of
from dicom_node.report import FrameReport, InstanceReport, Place, SignatureReport
from dicom_node.rewrite import shallow
from dicom_node.segmenters import Draw, Rules, chosen, rules_of
from dicom_node.uids import restored_uid

_LOG = logging.getLogger(__name__)

_MODALITY = 0x00080060
#: why an image has its originals in the header and nothing in its pixels
_NO_ROOM = "no-room"
#: the reason of what is authentic under a key that is revoked
_REVOKED = "revoked-key"
#: how much of a restored instance is proven: its whole data set, its pixels and the fields of its record, or
#: only those frames that are told as exact
_BY_BYTES, _BY_SAMPLES, _IN_PART = "byte for byte", "sample for sample", "in part"
#: of what each frame tells how nearly it is the original
_NEARLY = ""
_NOT_THE_ORIGINAL = (_IN_PART, _NEARLY)
#: findings of images whose every sample is as it was released
_UNTOUCHED = (Finding.AUTHENTIC, Finding.HEADER_ALTERED)
_PIXEL_DATA = 0x7FE00010
#: what says where an instance belongs
_PLACES = {"study": 0x0020000D, "series": 0x0020000E, "instance": SOP_INSTANCE_UID}
_INSTANCE_NUMBER = 0x00200013
#: characters that a report takes over; twice what PS3.5 section 6.2 allows a UID, and what it allows a code
_LONGEST_UID, _LONGEST_CS = 128, 16
#: an integer string (PS3.5 section 6.2)
_IS = re.compile(r" *[+-]?[0-9]{1,11} *")
_SEVERITY = {finding: place for place, finding in enumerate(Finding)}

#: is shown each frame as received, with its verdict while that still holds the restored samples
OnFrame = Callable[[Frame, Verdict], None]


@dataclass(frozen=True, slots=True)
class Review:
    """The verdict on an instance; `restored` tells whether `recover` put the original back into it.

    `identical` tells that the data set then is the original's byte for byte, proven by its hash.
    """

    report: InstanceReport
    finding: Finding
    restored: bool = False
    identical: bool = False


@dataclass(frozen=True, slots=True)
class Reader:
    """What a reader brings: keys, and the segmenters that may have drawn the map.

    Which of them is tried first follows from the label and from `rules`, and decides nothing but the time it
    takes. `batch_frames` maps of an instance are drawn together at most. `public_keys` are those of signers
    that are trusted, or were.
    """

    ring: KeyRing
    segmenters: Sequence[Segmenter]
    rules: Rules = ()
    batch_frames: int = batch.FRAMES
    public_keys: Sequence[PublicKey] = ()

    def for_instance(self, ds: Dataset, hinted: Sequence[str]) -> Reader:
        """The same reader, the likeliest segmenter first."""
        usual = chosen(ds, self.rules)

        def unlikelihood(one: Segmenter) -> int:
            return 0 if one.id in hinted else 1 if usual is not None and one.id == usual.id else 2

        return replace(self, segmenters=tuple(sorted(self.segmenters, key=unlikelihood)), rules=())


@dataclass(frozen=True, slots=True)
class Restorer:
    """Who restores, when (seconds since 1970-01-01 UTC), and which originals are to say that they were."""

    node: str
    time_s: int
    label: Label = Label.UNLESS_EXACT


def review(
    ds: Dataset,
    source: str,
    reader: Reader,
    *,
    show_record: bool = False,
    on_frame: OnFrame | None = None,
) -> Review:
    """Judge an instance; `ds` is not changed. `on_frame` is called for each frame, in their order.

    Raises
    ------
    PixelError
        the instance is broken
    """
    subject = _Subject(source, place_of(ds))
    with stage("decode"):
        image = pixels.load(ds)
    if isinstance(image, pixels.Passthrough):
        return _without_pixels(ds, subject, str(image.reason), reader)
    verdicts = [_without_samples(verdict) for verdict in _verdicts(ds, image, reader, on_frame=on_frame)]
    if _nothing_in_the_pixels(verdicts):
        rewritten = _without_pixels(ds, subject, _NO_ROOM, reader)
        if rewritten.finding is Finding.AUTHENTIC:
            return rewritten
    moved = _misplaced(ds, image, reader, verdicts)
    verdicts = [moved.get(verdict.evidence.frame, verdict) for verdict in verdicts]
    return _concluded(subject, verdicts, image.frames, reader, show_record=show_record)


def recover(
    ds: Dataset, source: str, reader: Reader, *, partial: bool = False, by: Restorer | None = None
) -> Review:
    """Judge an instance and put the original back into `ds`: pixels, labels, record.

    `ds` changes only when every frame is proven exact by the hash in its record, or proven to be as it was
    released by a carrier that restores approximately (then labelled so), or, with `partial`, when there is
    anything to restore at all. `by` stands in the labels; without it this program, now.
    """
    by = by or Restorer("dicom-node", int(time.time()))
    subject = _Subject(source, place_of(ds))
    with stage("decode"):
        image = pixels.load(ds)
    if isinstance(image, pixels.Passthrough):
        return _without_pixels(ds, subject, str(image.reason), reader, restore=by)
    verdicts: list[Verdict] = []
    try:
        with stage("encode"):
            pixels.store(ds, image, _restored(ds, image, reader, verdicts, partial=partial))
    except _NotRestorable:
        rest = range(len(verdicts) + 1, image.frames + 1)
        verdicts += [_without_samples(v) for v in _verdicts(ds, image, reader, rest)]
        if _nothing_in_the_pixels(verdicts):
            rewritten = _without_pixels(ds, subject, _NO_ROOM, reader, restore=by)
            if rewritten.restored:
                return rewritten
        return _concluded(subject, verdicts, image.frames, reader)
    proven = _restore_header(ds, reader.ring, verdicts, image.frames, by)
    return _concluded(subject, verdicts, image.frames, reader, restored=True, proven=proven)


class Recoverer:
    """Restores instances of one route from the spool into the spool; see `jobs` for its place.

    What is not authentic goes by the route's `on_finding`; objects of a kind that holds no watermark are
    handed on as they came, unless it names `not-judged`.
    """

    def __init__(
        self,
        config: Config,
        route: Route,
        ring: KeyRing,
        spool: BlobStore,
        draw: Draw = segmenter,
    ) -> None:
        self._route, self._spool, self._node = route, spool, config.node.id
        self._reader = reader_of(config, ring, draw)
        self._unchecked = _Unchecked(route.name)

    def __call__(self, work: Work) -> Outcome:
        self._spool.check_room_to_work(work.blob)
        ds = _read(self._spool.path(work.blob))
        by = Restorer(self._node, int(work.received_at), self._route.label)
        done = recover(ds, work.blob, self._reader, by=by)
        self._unchecked.met(done.report.signature)
        if _is_not_judged(done):
            return _unjudged(work, self._route, "passed", done.report.reason)
        if not self._may_leave(done):
            return judged(work, self._route, str(done.finding))
        with stage("spool"):
            blob = self._spool.put_output(pixels.parts(ds))
        return replace(
            passed(work, self._route, "recovered", _told(done)),
            finding=str(done.finding),
            blob=blob.name,
            size=blob.size,
            sop_instance_uid=header.text(ds, SOP_INSTANCE_UID),
            transfer_syntax_uid=str(ds.file_meta.TransferSyntaxUID),
        )

    def _may_leave(self, done: Review) -> bool:
        """Whether what was restored is handed on: the original, or one whose header the record set right."""
        if done.finding is Finding.HEADER_ALTERED:
            return done.restored and self._route.on(done.finding) is OnFinding.PASS
        return done.restored and done.finding is Finding.AUTHENTIC


class Verifier:
    """Judges instances of one route and hands them on exactly as they came; the finding is the reason.

    What is not authentic goes by the route's `on_finding`, and usually on as well.
    """

    def __init__(
        self,
        config: Config,
        route: Route,
        ring: KeyRing,
        spool: BlobStore,
        draw: Draw = segmenter,
    ) -> None:
        self._route, self._spool = route, spool
        self._reader = reader_of(config, ring, draw)
        self._unchecked = _Unchecked(route.name)

    def __call__(self, work: Work) -> Outcome:
        done = review(_read(self._spool.path(work.blob)), work.blob, self._reader)
        self._unchecked.met(done.report.signature)
        if _is_not_judged(done):
            return _unjudged(work, self._route, "verified", done.report.reason)
        finding = str(done.finding)
        if done.finding is Finding.AUTHENTIC or self._route.on(finding) is OnFinding.PASS:
            reason = _REVOKED if _is_doubtful(done) else finding
            return replace(passed(work, self._route, "verified", reason), finding=finding)
        return judged(work, self._route, finding)


class _Unchecked:
    """Says of the first signed instance of a route that nobody checks its signature.

    A route has the key ring and no public keys: it takes the layer off and judges what is below.
    """

    def __init__(self, route: str) -> None:
        self._route, self._said = route, False

    def met(self, signature: SignatureReport) -> None:
        """An instance with this signature, if it has one, went by."""
        if not self._said and signature != SignatureReport():
            self._said = True
            log.event(_LOG, "signature-not-checked", level=logging.WARNING, route=self._route)


def _is_not_judged(done: Review) -> bool:
    """Whether an object is of a kind that holds no watermark, and says nothing of having been rewritten."""
    return bool(done.report.reason) and done.finding is Finding.UNMARKED


def _unjudged(work: Work, route: Route, result: str, reason: str) -> Outcome:
    """The outcome of an object that holds no watermark, for this reason, as its route wants it."""
    if route.on(NOT_JUDGED) is not OnFinding.PASS:
        return judged(work, route, NOT_JUDGED)
    return replace(passed(work, route, result, reason), finding=NOT_JUDGED)


def _is_doubtful(done: Review) -> bool:
    """Whether it is authentic under a key that is revoked, so that a thief may have made it."""
    return done.finding is Finding.AUTHENTIC and bool(done.report.key_revoked)


def _told(done: Review) -> str:
    """The reason of an instance that was restored: what its reader should know; "" for an original."""
    if done.finding is not Finding.AUTHENTIC:
        return str(done.finding)
    if _is_doubtful(done):
        return _REVOKED
    nearly = any(frame.restoration == "approximate" for frame in done.report.frames)
    return "approximate" if nearly else ""


def _read(path: Path) -> Dataset:
    """An instance of the spool."""
    with stage("decode"):
        ds = pixels.read(path)
    tell_modality(header.text(ds, _MODALITY))
    return ds


def reader_of(config: Config, ring: KeyRing, draw: Draw = segmenter) -> Reader:
    """The reader that a configuration describes: every segmenter it names, then the whole-image opt-in.

    `draw` gives the segmenter of a name.
    """
    names = (config.watermark.segmenter, *(rule.use for rule in config.watermark.segmenter_rules))
    drawers = (*(draw(name) for name in dict.fromkeys(names)), Whole())
    return Reader(ring, drawers, rules_of(config.watermark, draw), config.networks.batch_frames)


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is judged: the name it has in the report, and where it says that it belongs."""

    source: str
    place: Place


class _NotRestorable(Exception):  # noqa: N818 - ends the walk over the frames, never leaves this module
    """A frame cannot be restored as far as was asked for."""


def _verdicts(
    ds: Dataset,
    image: pixels.Image,
    reader: Reader,
    numbers: range | None = None,
    on_frame: OnFrame | None = None,
) -> Iterator[Verdict]:
    mark = label.read_mark(ds)
    sealed = dict(mark.sealed_records) if mark is not None else {}
    hints = [mark.fingerprint] if mark is not None else []
    drawn_by = mark.segmenters if mark is not None else ()
    fields = OriginalFields(ds, unseal(ds, reader.ring))
    first, *others = reader.for_instance(ds, drawn_by).segmenters
    wanted = numbers if numbers is not None else range(1, image.frames + 1)
    frames = (image.frame(number) for number in wanted)
    then = portraits.unseal(ds, mark, reader.ring)
    for frame, drawer in batch.drawn_ahead(frames, first, reader.batch_frames):
        with stage("extract"):
            verdict = verify(
                frame,
                reader.ring,
                (drawer, *others),
                header=fields,
                sealed=sealed.get(frame.number),
                hinted_keys=hints,
                hinted_segmenters=drawn_by,
                release=release_of(ds, mark, frame.number, image.frames, reader.public_keys),
            )
        verdict = explained(verdict, frame, then.frames.get(frame.number), portraits.claims(ds, then))
        if on_frame is not None:
            on_frame(frame, verdict)
        yield verdict


def _misplaced(
    ds: Dataset, image: pixels.Image, reader: Reader, verdicts: Sequence[Verdict]
) -> dict[int, Verdict]:
    """Frames that prove to be others of the same instance; nothing to look for where nothing was marked."""
    marked = label.read_mark(ds) is not None or any(verdict.record is not None for verdict in verdicts)
    if image.frames == 1 or not marked:
        return {}

    fields = OriginalFields(ds, unseal(ds, reader.ring))

    def look(number: int, other: int) -> Verdict:
        frame = replace(image.frame(number), number=other)
        seen = _without_samples(verify(frame, reader.ring, reader.segmenters, header=fields))
        signed = seen.signature.state is not SignatureState.NONE
        moved = SignatureEvidence(SignatureState.INVALID) if signed else SignatureEvidence()
        return replace(seen, signature=moved)

    return misplaced(verdicts, image.frames, look)


def _nothing_in_the_pixels(verdicts: Sequence[Verdict]) -> bool:
    return all(verdict.record is None and verdict.evidence.framing is None for verdict in verdicts)


def _restored(
    ds: Dataset, image: pixels.Image, reader: Reader, verdicts: list[Verdict], *, partial: bool
) -> Iterator[IntArray]:
    """The restored samples of every frame; what was judged is noted in `verdicts`."""
    for verdict in _verdicts(ds, image, reader):
        verdicts.append(_without_samples(verdict))
        whole = verdict.record is None or verdict.record.frames in (0, image.frames)
        sure = whole and (verdict.exact or verdict.approximate) and _of_one_instance(verdicts)
        if verdict.restored is None or not (sure or partial):
            raise _NotRestorable
        yield verdict.restored.samples


def _restore_header(
    ds: Dataset, ring: KeyRing, verdicts: Sequence[Verdict], frames: int, by: Restorer
) -> str:
    """Undo everything else that the node did, and label what is not the original; how much is proven to be.

    The record in the pixels says whose image it is: originals of another instance are left alone, and without
    a record any. What is not the original to the last sample takes no other instance's UID.
    """
    fullest = min((v.record for v in verdicts if v.record is not None), key=lambda r: r.tier, default=None)
    found = unseal(ds, ring) if fullest is not None else None
    if found is not None and fullest is not None:
        own = uid_digest(found.sop_instance_uid(ds)) == fullest.uid_digest
        found = found if own else None
    arrived = header.text(ds, SOP_INSTANCE_UID)
    before = label.held(ds, {tag for verdict in verdicts for tag in verdict.evidence.altered_fields})
    identical = found is not None and pixels.undo(ds, found.changes)
    if not identical and fullest is not None and fullest.fields:
        header.restore_fields(ds, fullest.fields, fullest.charset)
    proven = _BY_BYTES if identical else _proven(verdicts, frames)
    derived, source = proven in _NOT_THE_ORIGINAL, label.Source.of(ds)
    anew = derived and source.sop_instance != arrived
    if anew:
        content = header.value_bytes(ds, _PIXEL_DATA) or b""
        ds.SOPInstanceUID = restored_uid(ring, source.sop_instance, content)
    if _says_so(proven, by.label) or label.is_corrected(before, ds):
        said = _description(verdicts, proven)
        note = _note(by, said, derived=derived, source=source if anew else None)
        label.mark_restored(ds, note, before)
        proven = _BY_SAMPLES if identical else proven
    _follow_uid(ds, arrived)
    return proven


def _says_so(proven: str, wanted: Label) -> bool:
    """Whether an object that is proven so far says that it was restored."""
    if proven == _BY_BYTES:
        return wanted is Label.ALWAYS
    return proven != _BY_SAMPLES or wanted is not Label.UNLESS_EXACT


def _note(
    by: Restorer, description: str, *, derived: bool = False, source: label.Source | None = None
) -> label.Note:
    return label.Note(by.node, __version__, by.time_s, description, pixels_changed=derived, source=source)


def _description(verdicts: Sequence[Verdict], proven: str) -> str:
    """What the labels say of a restored image."""
    how = f"restored {proven}"
    if proven == _NEARLY:
        level = min(v.evidence.restored_psnr_db or 0.0 for v in verdicts if v.approximate)
        how = f"NROI restored approximately, {level:.1f} dB"
    return f"NROI watermark {label.FORMAT_NAME} removed; {how}"


def _without_samples(verdict: Verdict) -> Verdict:
    """The verdict without its restored frame and map: a cine of thousands of frames must fit into memory."""
    return replace(verdict, restored=None, evidence=replace(verdict.evidence, roi=None))


def _without_pixels(
    ds: Dataset, subject: _Subject, reason: str, reader: Reader, *, restore: Restorer | None = None
) -> Review:
    """The verdict on an object that carries nothing in pixels, but may have had its header rewritten.

    The hash among its originals speaks for all of it: whatever differs from what the node wrote is found,
    and then nothing is restored.
    """
    found = unseal(ds, reader.ring)
    if found is None:
        finding = _unopened(ds, reader.ring)
        return Review(InstanceReport(subject.source, str(finding), reason, place=subject.place), finding)
    original = uid_digest(found.sop_instance_uid(ds)).hex()
    revoked = _revoked(reader.ring, _sealed_under(ds, reader.ring))
    trial = shallow(ds)
    finding = Finding.AUTHENTIC if pixels.undo(trial, found.changes) else Finding.HEADER_ALTERED
    proven = ""
    if restore is not None and finding is Finding.AUTHENTIC:
        _become(ds, trial)
        proven = _BY_BYTES if not _says_so(_BY_BYTES, restore.label) else _BY_SAMPLES
        if proven != _BY_BYTES:
            label.mark_restored(ds, _note(restore, f"Header restored ({label.FORMAT_NAME})"), Dataset())
    report = InstanceReport(
        subject.source,
        str(finding),
        reason,
        restored=proven,
        place=subject.place,
        bound_to=tuple(_PLACES) if finding is Finding.AUTHENTIC else (),
        key_revoked=revoked,
        original=original,
    )
    return Review(report, finding, restored=bool(proven), identical=proven == _BY_BYTES)


def _unopened(ds: Dataset, ring: KeyRing) -> Finding:
    """Why nothing could be unsealed: there is nothing, a key is lacking, or what is sealed is another's."""
    mark = label.read_mark(ds)
    if mark is None:
        return Finding.UNMARKED
    known = any(crypto.fingerprint(key) == mark.fingerprint for key in ring.keys)
    return Finding.HEADER_ALTERED if known else Finding.WRONG_KEY


def _become(ds: Dataset, other: Dataset) -> None:
    """Give `ds` the elements and the layout of `other`."""
    before = header.text(ds, SOP_INSTANCE_UID)
    ds.__dict__.update(other.__dict__)
    _follow_uid(ds, before)


def _follow_uid(ds: Dataset, before: str) -> None:
    """Where the data set has another UID than `before`, the file meta information follows (PS3.10 7.1)."""
    changed = header.text(ds, SOP_INSTANCE_UID) != before
    if changed and "MediaStorageSOPInstanceUID" in ds.file_meta:
        ds.file_meta.MediaStorageSOPInstanceUID = UID(header.text(ds, SOP_INSTANCE_UID))


def _concluded(
    subject: _Subject,
    verdicts: Sequence[Verdict],
    frames: int,
    reader: Reader,
    *,
    show_record: bool = False,
    restored: bool = False,
    proven: str = "",
) -> Review:
    record = next((v.record for v in verdicts if v.record is not None), None)
    finding = _instance_finding(verdicts, frames)
    report = InstanceReport(
        source=subject.source,
        finding=str(finding),
        protected_at="" if record is None or not record.time_s else _moment(record.time_s),
        node="" if record is None else record.node,
        frames_expected=0 if record is None else record.frames,
        segmenters=tuple(each.id for each in reader.segmenters),
        frames=tuple(_frame_report(verdict) for verdict in verdicts),
        restored=proven,
        place=subject.place,
        number_of_frames=frames,
        bound_to=_bound_to(verdicts),
        key_revoked=_revoked(reader.ring, {v.evidence.key_id for v in verdicts if v.record is not None}),
        original="" if record is None else record.uid_digest.hex(),
        fields=() if record is None else tuple(_keyword(tag) for tag in record.fields),
        record=_readable(record) if show_record and record is not None else {},
        signature=of_instance([verdict.signature for verdict in verdicts]),
    )
    return Review(report, finding, restored, proven == _BY_BYTES)


def _revoked(ring: KeyRing, used: Collection[int | None]) -> str:
    """When the first of the keys that were used was revoked; "" if none was."""
    revoked = ring.revoked if isinstance(ring, FileKeyRing) else {}
    return min((at for identity, at in revoked.items() if identity in used), default="")


def _sealed_under(ds: Dataset, ring: KeyRing) -> set[int | None]:
    """The key that the originals of an object open under."""
    return {key.id for key in ring.keys if unseal(ds, FileKeyRing((key,))) is not None}


def place_of(ds: Dataset) -> Place:
    """Where an instance says that it belongs."""
    number = header.text(ds, _INSTANCE_NUMBER)
    study, series, instance = (header.text(ds, tag)[:_LONGEST_UID] for tag in _PLACES.values())
    modality = header.text(ds, _MODALITY)[:_LONGEST_CS]
    return Place(study, series, instance, modality, int(number) if _IS.fullmatch(number) else None)


def _bound_to(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """What of an instance's place every frame's record names, and the header agrees with.

    Every record names the SOP Instance UID, the smaller ones by its digest (docs/format/v1.md).
    """
    if not verdicts or any(verdict.record is None for verdict in verdicts):
        return ()
    return tuple(
        name
        for name, tag in _PLACES.items()
        if all(
            tag not in verdict.evidence.altered_fields
            and verdict.record is not None
            and (tag == SOP_INSTANCE_UID or tag in verdict.record.fields)
            for verdict in verdicts
        )
    )


def _proven(verdicts: Sequence[Verdict], frames: int) -> str:
    """How much of the samples that were given back is the original; `_NEARLY` where each frame tells."""
    if _instance_finding(verdicts, frames) not in _UNTOUCHED:
        return _IN_PART
    return _BY_SAMPLES if all(verdict.exact for verdict in verdicts) else _NEARLY


def _instance_finding(verdicts: Sequence[Verdict], frames: int) -> Finding:
    """The worst frame decides; frames missing, unmarked among marked, or of others, are alterations."""
    marked = any(verdict.record is not None for verdict in verdicts)
    findings = [verdict.finding for verdict in verdicts]
    if marked:
        findings = [Finding.PIXELS_ALTERED if f is Finding.UNMARKED else f for f in findings]
        expected = {verdict.record.frames for verdict in verdicts if verdict.record is not None}
        if any(count not in (0, frames) for count in expected) or not _of_one_instance(verdicts):
            findings.append(Finding.PIXELS_ALTERED)
    return max(findings, key=_SEVERITY.__getitem__)


def _of_one_instance(verdicts: Sequence[Verdict]) -> bool:
    """Whether the records may have been made together: all name one instance, and one time, a seal none."""
    records = [verdict.record for verdict in verdicts if verdict.record is not None]
    instances = {record.uid_digest for record in records}
    times = {record.time_s for record in records if record.time_s}
    return len(instances) <= 1 and len(times) <= 1


def _frame_report(verdict: Verdict) -> FrameReport:
    evidence = verdict.evidence
    return FrameReport(
        frame=evidence.frame,
        finding=str(verdict.finding),
        exact=verdict.exact,
        framing=None if evidence.framing is None else str(evidence.framing),
        lattice=None if evidence.lattice is None else evidence.lattice.name.lower(),
        tier=None if evidence.tier is None else evidence.tier.name.lower(),
        segmenter=evidence.segmenter,
        key_id=evidence.key_id,
        packets=evidence.packets,
        shards_needed=evidence.shards_needed,
        changed_samples=evidence.changed_samples,
        psnr_db=evidence.psnr_db,
        localisation=evidence.localisation,
        altered_tiles=evidence.altered_tiles,
        altered_fields=tuple(_keyword(tag) for tag in evidence.altered_fields),
        block_px=evidence.block_px,
        restoration="exact" if verdict.exact else "approximate" if verdict.approximate else "none",
        restored_psnr_db=evidence.restored_psnr_db,
        proven_tiles=evidence.proven_tiles,
        causes=tuple((str(hint.cause), hint.because) for hint in evidence.causes),
        holds_frame=_marked_as(verdict),
    )


def _marked_as(verdict: Verdict) -> int | None:
    """The number that a frame was marked with, where it is another than it has now."""
    frame = verdict.evidence.frame
    return verdict.record.frame if verdict.record is not None and verdict.record.frame != frame else None


def _moment(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat().replace("+00:00", "Z")


def _keyword(tag: int) -> str:
    """The DICOM keyword of a tag, eight hexadecimal digits for one that has none."""
    return keyword_for_tag(tag) or f"{tag:08X}"


def _readable(record: Record) -> dict[str, str]:
    """The record's fields as text, decoded by the character set that travelled with them."""
    names = record.charset.decode("ascii", "replace").strip(" \0").split("\\")
    encodings = convert_encodings(names if names != [""] else None)
    delimiters = {ord(delimiter) for delimiter in "\\^="}
    return {
        _keyword(tag): decode_bytes(value.strip(b" \0"), encodings, delimiters)
        for tag, value in record.fields.items()
    }
