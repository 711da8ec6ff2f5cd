"""THE forward sentence: what happens to an image between arriving and leaving.

    load the pixels, describe the patient record, embed it frame by frame, store the pixels,
    rewrite the header as the route wants it, label it, seal what all of this replaced

An image that cannot carry its record goes by the route's policy, and says so in its result and reason. On a
route that derives UIDs or de-identifies, objects without such pixels have their header rewritten too.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID

from blessmark import pixels
from blessmark.embed import embed, seal_for_header
from blessmark.embed_dct import embed_dct
from blessmark.errors import CapacityError
from blessmark.payload import crypto, signature
from blessmark.payload.record import uid_digest
from blessmark.payload.signature import LAYER_ID, Instance, Signature, SigningKey
from blessmark.portrait import Portrait, portrait
from blessmark.segment import batch, segmenter
from blessmark.segment.whole import Whole
from blessmark.signing import Release, sign
from blessmark.types import (
    About,
    BlockSettings,
    Carrier,
    Embedded,
    Frame,
    Framing,
    KeyRing,
    Receipt,
    Segmenter,
)
from blessmark.verify import verify
from dicom_node import __version__, header, label, measuring, originals, portraits, segmenters
from dicom_node.blobs.port import BlobStore
from dicom_node.config import (
    Config,
    Deidentify,
    OnContent,
    OnUnprotectable,
    Retain,
    Route,
    Uids,
    record_tag,
)
from dicom_node.deidentify import deidentify, telling_content
from dicom_node.errors import InputError
from dicom_node.jobs import InstanceState, Outcome, Work, passed
from dicom_node.measuring import stage
from dicom_node.metrics import CAPACITY, PSNR, Reading
from dicom_node.originals import SOP_INSTANCE_UID
from dicom_node.uids import deriver, rewrite_uids

PATIENT_IDENTITY_REMOVED = 0x00120062
MODALITY = 0x00080060
_PIXEL_DATA, _UNDEFINED = 0x7FE00010, 0xFFFFFFFF
#: an image that can be marked, but not this one
_NO_ROOM = "no-room"
#: pixels that would leave a de-identifying route unseen
_AS_THEY_CAME = "pixels-as-they-came"


@dataclass(frozen=True, slots=True)
class Site:
    """What a node brings to every image: who it is, its keys, and how it marks.

    `rules` name images whose map another segmenter than `segmenter` draws; the first that fits decides.
    `batch_frames` maps of an instance are drawn together at most. `blocks` matters to the carrier `dct` only.
    Frames are signed where there is a `signer`.
    """

    node: str
    ring: KeyRing
    segmenter: Segmenter
    record_tags: tuple[int, ...]
    max_change: int | None = None
    on_unprotectable: OnUnprotectable = OnUnprotectable.HEADER
    uids: Uids = Uids.KEEP
    deidentify: Deidentify | None = None
    rules: segmenters.Rules = ()
    batch_frames: int = batch.FRAMES
    carrier: Carrier = Carrier.LATTICE
    blocks: BlockSettings = BlockSettings()  # noqa: RUF009 - frozen
    signer: SigningKey | None = None

    @property
    def rewrites(self) -> bool:
        """Whether every header changes, whatever becomes of the pixels."""
        return self.uids is Uids.DERIVE or self.deidentify is not None

    @property
    def cleans(self) -> bool:
        """Whether what cannot be cleaned of the patient waits for an operator."""
        return self.deidentify is not None and self.deidentify.on_content is OnContent.HOLD

    def for_instance(self, ds: Dataset) -> Site:
        """The same site with the segmenter that its rules choose for `ds`."""
        if not self.rules:
            return self
        chosen = segmenters.chosen(ds, self.rules)
        return self if chosen is None else replace(self, segmenter=chosen, rules=())


@dataclass(frozen=True, slots=True)
class FrameMark:
    """How one frame is protected: by pixels (`receipt`) or by the header (`sealed`).

    `signature` is None where nobody signs; `beside`: it travels in the header, as the pixels had no room.
    `portrait` is that of the frame that leaves; some frames of long instances have one.
    """

    frame: int
    receipt: Receipt | None = None
    sealed: bytes = b""
    signature: Signature | None = None
    beside: bool = False
    portrait: Portrait | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Protection:
    """What became of an instance; `result` and `reason` are bounded words for counters and logs.

    `result` is `protected`, `protected-header` (a record that some frame's pixels could not carry travels
    sealed in the header), `protected-whole-image`, `rewritten` (the header only), `passed`, `held` or
    `rejected`. Only the first four changed the data set; their reason tells that a signature was removed.
    """

    result: str
    reason: str = ""
    frames: tuple[FrameMark, ...] = ()

    @property
    def changed(self) -> bool:
        return bool(self.frames) or self.result == "rewritten"


def protect(ds: Dataset, site: Site, time_s: int) -> Protection:
    """Hide the patient record of `ds` in its pixels and label it; `ds` changes only if that succeeds.

    `time_s`, seconds since 1970-01-01 UTC, is when the instance arrived: doing it again gives the same bytes.

    Raises
    ------
    PixelError, RecordError, WatermarkError
        the instance is broken, or marking it failed its read-back
    InputError
        it has no SOP Instance UID, or an element that must be changed is not what its VR says
    """
    if site.cleans and (content := telling_content(ds)):
        return Protection("held", content)
    with stage("decode"):
        image = pixels.load(ds)
    if isinstance(image, pixels.Passthrough):
        if site.cleans and (content := _kept_as_it_is(ds, image)):
            return Protection("held", content)
        return _without_pixels(ds, site, str(image.reason), time_s)
    site = site.for_instance(ds)
    if _is_protected(ds, image, site):
        return _already_protected(ds, site)
    about = _about(ds, site, image.frames, time_s)
    before, told = pixels.settle(ds), _signature(ds, site)
    marks: list[FrameMark] = []
    try:
        # a comment in a code stream that nothing was embedded into must not leave either
        anew = site.deidentify is not None
        instance = Instance(_leaving_uid(ds, site), image.frames)
        with stage("encode"):  # frame by frame, each between its embedding and the next
            pixels.store(ds, image, _embed_frames(image, about, instance, site, marks), anew=anew)
    except _Unprotectable:
        return _without_room(ds, site, time_s)
    _finish(ds, site, marks, before, about)
    return Protection(_result(marks), told, tuple(marks))


class Protector:
    """Protects instances of one route from the spool into the spool; see `jobs` for its place."""

    def __init__(
        self,
        config: Config,
        route: Route,
        ring: KeyRing,
        spool: BlobStore,
        draw: segmenters.Draw = segmenter,
        signer: SigningKey | None = None,
    ) -> None:
        self._route, self._spool = route, spool
        self._site = site_of(config, route, ring, draw, signer)

    def __call__(self, work: Work) -> Outcome:
        self._spool.check_room_to_work(work.blob)
        with stage("decode"):
            ds = pixels.read(self._spool.path(work.blob))
        measuring.tell_modality(header.text(ds, MODALITY))
        done = protect(ds, self._site, int(work.received_at))
        measuring.tell(*_readings(done.frames))
        if done.result in _ENDS:
            return Outcome(_ENDS[done.result], done.result, done.reason)
        if not done.changed:
            return passed(work, self._route, done.result, done.reason)
        with stage("spool"):
            blob = self._spool.put_output(pixels.parts(ds))
        return Outcome(
            InstanceState.READY,
            done.result,
            done.reason,
            blob.name,
            work.arrival.sop_class_uid,
            header.text(ds, SOP_INSTANCE_UID),
            pixels.stated_syntax(ds),
            self._route.destinations,
            blob.size,
        )


def site_of(
    config: Config,
    route: Route,
    ring: KeyRing,
    draw: segmenters.Draw = segmenter,
    signer: SigningKey | None = None,
) -> Site:
    """The site that a configuration describes for a route; `draw` gives the segmenter of a name.

    `signer` is the key of a route that signs.
    """
    dct = config.watermark.dct
    tags = tuple(tag for tag in map(record_tag, config.watermark.record) if tag is not None)
    cap = config.watermark.max_change
    return Site(
        node=config.node.id,
        ring=ring,
        segmenter=draw(config.watermark.segmenter),
        record_tags=tags,
        max_change=None if cap == "auto" else cap,
        on_unprotectable=route.on_unprotectable,
        uids=route.uids,
        deidentify=route.deidentify if route.deidentifies else None,
        rules=segmenters.rules_of(config.watermark, draw),
        batch_frames=config.networks.batch_frames,
        carrier=Carrier(route.carrier or config.watermark.carrier),
        blocks=BlockSettings(dct.block_px, dct.threshold, dct.detector),
        signer=signer,
    )


def written(ds: Dataset) -> bytes:
    """`ds` as a DICOM file."""
    buffer = io.BytesIO()
    pixels.write(ds, buffer)
    return buffer.getvalue()


class _Unprotectable(Exception):  # noqa: N818 - ends the walk over the frames, never leaves this module
    """A frame has no room, and the policy decides for the whole instance."""


_WITHOUT_ROOM = {
    OnUnprotectable.PASS: "passed",
    OnUnprotectable.HOLD: "held",
    OnUnprotectable.REJECT: "rejected",
}
_ENDS = {"held": InstanceState.HELD, "rejected": InstanceState.REJECTED}


def _is_protected(ds: Dataset, image: pixels.Image, site: Site) -> bool:
    """Whether this ring already reads a record in a frame; a label alone proves nothing.

    Neither does a record sealed in the header unless it is of these very pixels: an image that was computed
    from a protected one may have got its private elements with the rest of the header. A first frame that was
    painted over leaves the others protected; their records must name this instance, because frames of
    another may have been put together with new ones.
    """
    mark = label.read_mark(ds)
    if mark is None:
        return False
    sealed, release = dict(mark.sealed_records), Release(hinted=LAYER_ID in mark.segmenters)
    own, drawers = uid_digest(_original_uid(ds, site)), (site.segmenter, Whole())
    for frame in image:
        found = verify(frame, site.ring, drawers, sealed=sealed.get(frame.number), release=release)
        in_pixels = found.evidence.framing is not Framing.HEADER
        if found.record is None or not (in_pixels or found.exact):
            continue
        if frame.number == 1 or found.record.uid_digest == own:
            return True
    return False


def _original_uid(ds: Dataset, site: Site) -> str:
    """The SOP Instance UID before this ring's node derived another, if it did."""
    found = originals.unseal(ds, site.ring)
    return header.text(ds, SOP_INSTANCE_UID) if found is None else found.sop_instance_uid(ds)


def _about(ds: Dataset, site: Site, frames: int, time_s: int) -> About:
    uid = header.text(ds, SOP_INSTANCE_UID)
    if not uid:
        raise InputError("the data set has no SOP Instance UID (0008,0018); it cannot be protected")
    return About(
        sop_instance_uid=uid,
        frames=frames,
        time_s=time_s,
        node=site.node,
        charset=header.value_bytes(ds, header.SPECIFIC_CHARACTER_SET) or b"",
        fields=header.read_fields(ds, site.record_tags),
    )


def _embed_frames(
    image: pixels.Image, about: About, instance: Instance, site: Site, marks: list[FrameMark]
) -> Iterator[Frame]:
    """Every frame, marked where they have room; notes in `marks` what was done."""
    together = min(site.batch_frames, image.frames) if site.carrier is Carrier.LATTICE else 1
    drawn = portraits.chosen(instance.frames)
    for frame, drawer in batch.drawn_ahead(image, site.segmenter, together):
        with stage("embed"):
            by = site if drawer is site.segmenter else replace(site, segmenter=drawer)
            marked, mark = _embed_frame(frame, about, instance, by)
        marks.append(replace(mark, portrait=portrait(marked)) if frame.number in drawn else mark)
        yield marked


def _embed_frame(frame: Frame, about: About, instance: Instance, site: Site) -> tuple[Frame, FrameMark]:
    for chosen in _segmenters(site):
        try:
            done = _embedded(frame, about, site, chosen)
        except CapacityError:
            continue
        return _signed(frame, done, chosen, instance, about.time_s, site)
    if site.on_unprotectable in _WITHOUT_ROOM:
        raise _Unprotectable
    made = None if site.signer is None else signature.sign(frame, instance, about.time_s, site.signer)
    sealed = seal_for_header(frame, about, site.ring, site.segmenter)
    return frame, FrameMark(frame.number, None, sealed, made, beside=made is not None)


def _signed(
    frame: Frame, done: Embedded, chosen: Segmenter, instance: Instance, time_s: int, site: Site
) -> tuple[Frame, FrameMark]:
    """A marked frame with its signature, where the site signs."""
    if site.signer is None:
        return done.frame, FrameMark(frame.number, done.receipt)
    signed = sign(frame, done, chosen, instance, time_s, site.signer, max_change=site.max_change)
    mark = FrameMark(frame.number, signed.done.receipt, signature=signed.signature, beside=signed.beside)
    return signed.done.frame, mark


def _leaving_uid(ds: Dataset, site: Site) -> str:
    """The SOP Instance UID under which an instance will leave: what a third party sees."""
    uid = header.text(ds, SOP_INSTANCE_UID)
    derives = (
        site.uids is Uids.DERIVE if site.deidentify is None else Retain.UIDS not in site.deidentify.retain
    )
    return deriver(site.ring)(uid) if derives else uid


def _embedded(frame: Frame, about: About, site: Site, chosen: Segmenter) -> Embedded:
    if site.carrier is Carrier.DCT:
        return embed_dct(frame, about, site.ring, chosen, site.blocks, max_change=site.max_change)
    return embed(frame, about, site.ring, chosen, max_change=site.max_change)


def _segmenters(site: Site) -> tuple[Segmenter, ...]:
    """The map to embed by, and the explicit opt-in to embed without one."""
    whole = site.on_unprotectable is OnUnprotectable.WHOLE_IMAGE
    return (site.segmenter, Whole()) if whole else (site.segmenter,)


def _readings(marks: Sequence[FrameMark]) -> list[Reading]:
    """What is counted of the frames that were marked."""
    receipts = [mark.receipt for mark in marks if mark.receipt is not None]
    room = [Reading(CAPACITY, (), receipt.capacity_bits / 8) for receipt in receipts]
    return room + [Reading(PSNR, (), each.psnr_db) for each in receipts if math.isfinite(each.psnr_db)]


def _result(marks: list[FrameMark]) -> str:
    """The weakest protection of any frame names that of the instance."""
    if any(mark.receipt is None for mark in marks):
        return "protected-header"
    whole = any(mark.receipt is not None and _touches_everything(mark.receipt) for mark in marks)
    return "protected-whole-image" if whole else "protected"


def _already_protected(ds: Dataset, site: Site) -> Protection:
    """It stays as it is; but what was protected with its names in place does not leave de-identified."""
    if site.deidentify is not None and header.text(ds, PATIENT_IDENTITY_REMOVED) != "YES":
        return Protection("held", "protected-but-identified")
    return Protection("passed", "already-protected")


def _without_room(ds: Dataset, site: Site, time_s: int) -> Protection:
    """An image that can be marked, but has no room, as the policy wants it."""
    if site.on_unprotectable is not OnUnprotectable.PASS:
        return Protection(_WITHOUT_ROOM[site.on_unprotectable], _NO_ROOM)
    if site.cleans and _is_compressed(ds):
        return Protection("held", _AS_THEY_CAME)
    return _without_pixels(ds, site, _NO_ROOM, time_s)


def _kept_as_it_is(ds: Dataset, image: pixels.Passthrough) -> str:
    """Why the pixels of an object that is not marked may tell of the patient; "" if they cannot.

    Nobody looks into them: a code stream may hold comments, and unused bits an overlay.
    """
    hidden = (pixels.Reason.OVERLAY_IN_PIXEL_BITS, pixels.Reason.HIGH_BITS_USED)
    return _AS_THEY_CAME if _is_compressed(ds) or image.reason in hidden else ""


def _is_compressed(ds: Dataset) -> bool:
    """Whether there are pixel data in fragments (PS3.5 annex A.4)."""
    item: Any = ds.get_item(_PIXEL_DATA) if _PIXEL_DATA in ds else None
    if isinstance(item, RawDataElement):
        return bool(item.length == _UNDEFINED)
    return item is not None and bool(item.is_undefined_length)


def _without_pixels(ds: Dataset, site: Site, reason: str, time_s: int) -> Protection:
    """An object whose pixels carry nothing: as it came, or with its header rewritten where the route does."""
    if not site.rewrites:
        return Protection("passed", reason)
    if originals.unseal(ds, site.ring) is not None:
        return _already_protected(ds, site)
    before, told = pixels.settle(ds), _signature(ds, site)
    _finish(ds, site, [], before, _about(ds, site, 1, time_s))
    return Protection("rewritten", ", ".join(filter(None, (reason, told))))


def _signature(ds: Dataset, site: Site) -> str:
    """What a count says of an object that will lose digital signatures; "" for one that has none to lose.

    Those of an item hold as long as nothing in it is rewritten.
    """
    return "signature-removed" if label.is_signed(ds, deep=site.rewrites) else ""


def _finish(ds: Dataset, site: Site, marks: list[FrameMark], before: bytes, about: About) -> None:
    """Rewrite and label the header, and seal what that replaced; `before` is the hash of the original."""
    with header.readable(ds):
        _relabel(ds, site, marks, before, about)


def _relabel(ds: Dataset, site: Site, marks: list[FrameMark], before: bytes, about: About) -> None:
    derives = site.uids is Uids.DERIVE and site.deidentify is None
    source = label.Source.of(ds) if derives else None
    if site.deidentify is not None:
        deidentify(ds, site.deidentify, site.ring)
    elif site.uids is Uids.DERIVE:
        rewrite_uids(ds, deriver(site.ring))
    note = label.Note(
        site.node,
        __version__,
        about.time_s,
        _description(marks),
        pixels_changed=any(mark.receipt is not None for mark in marks),
        deidentified=site.deidentify is not None,
        source=source,
    )
    label.mark(ds, _mark(ds, site, marks), note)
    originals.seal(ds, site.ring, before, about.fields)
    if site.rewrites and "MediaStorageSOPInstanceUID" in ds.file_meta:
        ds.file_meta.MediaStorageSOPInstanceUID = UID(header.text(ds, SOP_INSTANCE_UID))


def _mark(ds: Dataset, site: Site, marks: list[FrameMark]) -> label.Mark:
    """What the private block says; `ds` has the SOP Instance UID under which it leaves."""
    seen = {mark.frame: mark.portrait for mark in marks if mark.portrait is not None}
    uid = header.text(ds, SOP_INSTANCE_UID)
    return label.Mark(
        _fingerprint(site.ring.current),
        tuple((mark.frame, mark.sealed) for mark in marks if mark.sealed),
        segmenters=_drawn_by(marks),
        signatures=tuple(
            (mark.frame, mark.signature.to_bytes())
            for mark in marks
            if mark.signature is not None and mark.beside
        ),
        sealed_portraits=portraits.sealed(seen, uid, site.ring, lossy=portraits.is_lossy(ds)),
    )


#: of the current key, which is the same for every image
_fingerprint = functools.lru_cache(maxsize=64)(crypto.fingerprint)


def _drawn_by(marks: list[FrameMark]) -> tuple[str, ...]:
    """The ids of the segmenters whose maps the frames were marked by, each once; and of the signature layer.

    A reader without signatures takes the last for a segmenter that it lacks, and does not judge.
    """
    layers = [LAYER_ID] if any(m.signature is not None and not m.beside for m in marks) else []
    drawn = (mark.receipt.segmenter for mark in marks if mark.receipt is not None)
    return tuple(dict.fromkeys((*drawn, *layers)))


def _description(marks: list[FrameMark]) -> str:
    """What the Derivation Description says: what was done, where, and how far a sample moved at most."""
    receipts = [mark.receipt for mark in marks if mark.receipt is not None]
    if not marks:
        return f"Header rewritten ({label.FORMAT_NAME})"
    if not receipts:
        return f"Record sealed in header ({label.FORMAT_NAME}); pixels unchanged"
    whole = any(_touches_everything(receipt) for receipt in receipts)
    nearly = any(receipt.restored_psnr_db is not None for receipt in receipts)
    where = "Whole-image watermark" if whole else "NROI watermark"
    kept = "" if whole else "ROI bit-identical; "
    change = max(receipt.max_change for receipt in receipts)
    back = "approximately reversible" if nearly else "reversible"
    return f"{where} {label.FORMAT_NAME}; {kept}{back}; max change {change}"


def _touches_everything(receipt: Receipt) -> bool:
    """Whether no region of interest was spared: the opt-in, of either carrier."""
    return receipt.segmenter.startswith("whole")
