"""THE forward sentence: what leaves, how it is labelled, and what happens to images without room."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames

from blessmark import pixels
from blessmark.errors import PixelError
from blessmark.payload.record import FULL_FIELDS
from blessmark.segment import segmenter
from blessmark.types import BlockSettings, Carrier, Finding, Framing, Tier
from dicom_node import header, label
from dicom_node.config import (
    CarrierName,
    Config,
    Deidentify,
    OnContent,
    OnUnprotectable,
    Profile,
    SegmenterRule,
    Uids,
)
from dicom_node.errors import InputError
from dicom_node.jobs import Arrival, InstanceState, Work
from dicom_node.measuring import measured
from dicom_node.metrics import CAPACITY, PSNR
from dicom_node.protect import FrameMark, Protector, Site, protect, site_of, written
from dicom_node.review import Reader, recover, review
from dicom_node.segmenters import timed
from dicom_node.spool import Spool
from dicom_node.uids import deriver
from tests import builders
from tests.builders import COLOUR_8, Encoding, dataset, file_bytes, phantom, reread
from tests.strategies import KEY, OTHER_KEY, RING, Ring

TIME_S = 1_790_000_000
NAME, STUDY_DATE = "Phantom^Test", "20260921"
PATIENT = {"PatientName": NAME, "PatientID": "P-1", "StudyDate": STUDY_DATE}
MODALITIES = {
    "ct": lambda: builders.ct(256, 256, **PATIENT),
    "mr": lambda: builders.mr(256, 192, **PATIENT),
    "cr": lambda: builders.cr(320, 256, **PATIENT),
    "us": lambda: builders.us(240, 320, frames=2, **PATIENT),
    "enhanced_mr": lambda: builders.enhanced_mr(192, 192, frames=2, **PATIENT),
    "secondary_capture": lambda: builders.secondary_capture(256, 256, **PATIENT),
}
#: the same with room for a record of one bit a block
LARGE = {
    "ct": lambda: builders.ct(640, 640, **PATIENT),
    "mr": lambda: builders.mr(512, 512, **PATIENT),
    "cr": lambda: builders.cr(520, 512, **PATIENT),
    "us": lambda: builders.us(300, 420, frames=2, SequenceOfUltrasoundRegions=[], **PATIENT),
    "enhanced_mr": lambda: builders.enhanced_mr(512, 512, frames=2, **PATIENT),
    "secondary_capture": lambda: builders.secondary_capture(320, 320, **PATIENT),
}


def site(policy: OnUnprotectable = OnUnprotectable.HEADER, **more: object) -> Site:
    return Site("node-1", RING, segmenter("anatomy"), FULL_FIELDS, on_unprotectable=policy, **more)


def full_of_tissue(rows: int = 128) -> Dataset:
    """An image without any background."""
    samples = np.random.default_rng(1).normal(2000, 4, (1, 1, rows, rows)).astype(np.int32)
    return reread(dataset(samples, **PATIENT))


def samples_of(ds: Dataset) -> np.ndarray:
    image = pixels.load(ds)
    assert isinstance(image, pixels.Image)
    return np.stack([frame.samples for frame in image])


BASIC = Deidentify(profile=Profile.BASIC)


def values(ds: Dataset) -> dict[int, bytes | None]:
    return {int(tag): header.value_bytes(ds, tag) for tag in ds.keys()}  # noqa: SIM118


@pytest.mark.parametrize("modality", MODALITIES)
def test_there_and_back(modality):
    """Marked in the pixels, labelled, authentic to a reader; afterwards every element is what it was."""
    ds = reread(MODALITIES[modality]())
    before, original = values(ds), samples_of(ds)
    done = protect(ds, site(), TIME_S)
    assert done.result == "protected"
    assert [mark.frame for mark in done.frames] == list(range(1, len(original) + 1))
    assert all(mark.receipt is not None and mark.receipt.tier is Tier.FULL for mark in done.frames)

    sent = pixels.read(written(ds))
    assert sent.ImageType[0] == "DERIVED"
    assert "ROI bit-identical; reversible" in sent.ContributingEquipmentSequence[0].ContributionDescription
    assert not np.array_equal(samples_of(sent), original)
    reader = Reader(RING, (segmenter("anatomy"),))
    assert str(review(sent, "x", reader).finding) == "authentic"
    assert recover(sent, "x", reader).restored
    back = pixels.read(written(sent))
    assert np.array_equal(samples_of(back), original)
    assert values(back) == before


def test_the_same_image_at_the_same_time_gives_the_same_bytes():
    first, second = (reread(builders.mr(256, 192, **PATIENT)) for _ in "ab")
    for ds in (first, second):
        protect(ds, site(), TIME_S)
    assert written(first) == written(second)


def test_only_pixels_and_labels_change():
    ds = reread(builders.ct(256, 256, **PATIENT))
    before = values(ds)
    protect(ds, site(), TIME_S)
    changed = {tag for tag, value in values(ds).items() if before.get(tag) != value}
    assert {tag for tag in changed if tag >> 16 != 0x0099} == {
        builders.PIXEL_DATA,
        0x00080008,
        0x00080015,
        0x00080110,
        0x00082111,
        0x00089215,
        0x0018A001,
    }


def test_no_patient_in_the_labels():
    ds = reread(full_of_tissue())
    protect(ds, site(), TIME_S)
    added = b"".join(value or b"" for tag, value in values(ds).items() if tag >> 16 == 0x0099)
    assert NAME.encode() not in added
    assert STUDY_DATE.encode() not in added
    assert "Phantom" not in repr(ds.ContributingEquipmentSequence)
    assert "Phantom" not in repr(label.read_mark(ds))


class TestPassing:
    @pytest.mark.parametrize(
        ("ds", "reason"),
        [
            (dataset(phantom(6, 6)), "too-small"),
            (dataset(phantom(32, 32), SOPClassUID=uid.RTDoseStorage), "rt-dose"),
            (dataset(phantom(32, 32), SOPClassUID=uid.SegmentationStorage), "segmentation"),
        ],
    )
    def test_what_is_never_marked_stays_as_it_is(self, ds, reason):
        ds = reread(ds)
        before = written(ds)
        done = protect(ds, site(), TIME_S)
        assert (done.result, done.reason, done.frames, done.changed) == ("passed", reason, (), False)
        assert written(ds) == before

    def test_what_this_ring_protected_already_is_not_marked_twice(self):
        for original in (builders.mr(256, 192), full_of_tissue()):
            ds = reread(original)
            protect(ds, site(), TIME_S)
            received = pixels.read(written(ds))
            done = protect(received, site(), TIME_S + 5)
            assert (done.result, done.reason) == ("passed", "already-protected")
            assert written(received) == written(ds)

    def test_a_first_frame_that_was_painted_over_leaves_the_others_protected(self):
        ds = reread(builders.us(256, 256))
        protect(ds, site(), TIME_S)
        image = pixels.load(ds)
        assert isinstance(image, pixels.Image)
        frames = [frame.samples for frame in image]
        frames[0] = np.zeros_like(frames[0])
        pixels.store(ds, image, frames)
        assert protect(pixels.read(written(ds)), site(), TIME_S + 5).reason == "already-protected"
        ds.SOPInstanceUID = "2.25.5"  # a new object that somebody put one of them into
        assert protect(pixels.read(written(ds)), site(), TIME_S + 5).result != "passed"

    def test_a_label_alone_does_not_keep_an_image_from_being_marked(self):
        ds = reread(builders.mr(256, 192))
        label.mark(ds, label.Mark(b"\0" * 4), label.Note("x", "0", 0, "claimed"))
        assert protect(pixels.read(written(ds)), site(), TIME_S).result == "protected"

    def test_what_was_computed_from_a_protected_image_is_protected_anew(self):
        """Its header came along, with the record sealed for other pixels."""
        ds = full_of_tissue()
        assert protect(ds, site(), TIME_S).result == "protected-header"
        image = pixels.load(ds)
        assert isinstance(image, pixels.Image)
        pixels.store(ds, image, [frame.samples[:, ::-1] for frame in image])
        ds.SOPInstanceUID = "2.25.5"
        done = protect(pixels.read(written(ds)), site(), TIME_S)
        assert (done.result, done.reason) == ("protected-header", "")

    def test_another_site_marks_on_top_and_both_come_off_in_turn(self):
        ds = reread(builders.mr(256, 256))
        before, original = values(ds), samples_of(ds)
        protect(ds, site(), TIME_S)
        once = pixels.read(written(ds))
        other = Site("node-2", Ring(OTHER_KEY), segmenter("anatomy"), FULL_FIELDS)
        assert protect(once, other, TIME_S + 60).changed
        twice = pixels.read(written(once))
        for ring in (Ring(OTHER_KEY), RING):
            done = recover(twice, "x", Reader(ring, (segmenter("anatomy"),)))
            assert done.restored
        assert np.array_equal(samples_of(twice), original)
        assert values(twice) == before


class TestWithoutRoom:
    def test_the_record_travels_in_the_header_by_default(self):
        ds = full_of_tissue()
        before = samples_of(ds)
        done = protect(ds, site(), TIME_S)
        assert done.result == "protected-header"
        assert done.frames[0].receipt is None
        assert len(done.frames[0].sealed) > 40
        received = pixels.read(written(ds))
        assert np.array_equal(samples_of(received), before)
        assert "DerivationDescription" not in received
        assert "pixels unchanged" in received.ContributingEquipmentSequence[0].ContributionDescription
        found = review(received, "x", Reader(RING, (segmenter("anatomy"),)))
        assert str(found.finding) == "authentic"
        assert found.report.frames[0].framing == "header"

    def test_the_whole_image_if_that_was_asked_for(self):
        ds = full_of_tissue(256)
        done = protect(ds, site(OnUnprotectable.WHOLE_IMAGE), TIME_S)
        assert done.result == "protected-whole-image"
        assert done.frames[0].receipt is not None
        assert done.frames[0].receipt.segmenter == "whole/1"
        assert "Whole-image watermark" in ds.DerivationDescription
        assert "ROI bit-identical" not in ds.DerivationDescription

    @pytest.mark.parametrize(
        ("policy", "result"),
        [
            (OnUnprotectable.PASS, "passed"),
            (OnUnprotectable.HOLD, "held"),
            (OnUnprotectable.REJECT, "rejected"),
        ],
    )
    def test_other_policies_leave_the_instance_alone(self, policy, result):
        ds = full_of_tissue()
        before = written(ds)
        done = protect(ds, site(policy), TIME_S)
        assert (done.result, done.reason, done.changed) == (result, "no-room", False)
        assert written(ds) == before

    @staticmethod
    def mixed() -> Dataset:
        """Two frames, the second without background."""
        samples = phantom(192, 192, frames=2)
        samples[1] = np.random.default_rng(1).normal(2000, 40, samples[1].shape)
        return reread(dataset(samples, **PATIENT))

    def test_one_frame_without_room_is_sealed_and_the_others_are_marked(self):
        ds = self.mixed()
        original = samples_of(ds)
        done = protect(ds, site(), TIME_S)
        assert done.result == "protected-header"
        assert [mark.receipt is None for mark in done.frames] == [False, True]
        received = pixels.read(written(ds))
        mark = label.read_mark(received)
        assert mark is not None
        assert [frame for frame, _ in mark.sealed_records] == [2]
        reader = Reader(RING, (segmenter("anatomy"),))
        assert str(review(received, "x", reader).finding) == "authentic"
        assert recover(received, "x", reader).restored
        assert np.array_equal(samples_of(received), original)

    def test_a_policy_for_the_instance_ends_at_the_first_such_frame(self):
        ds = self.mixed()
        before = written(ds)
        assert protect(ds, site(OnUnprotectable.HOLD), TIME_S).result == "held"
        assert written(ds) == before


class TestRewriting:
    """Routes that derive UIDs or de-identify."""

    @staticmethod
    def report() -> Dataset:
        ds = builders.mr(16, 16, **PATIENT)
        del ds.PixelData, ds.BitsAllocated
        return reread(ds)

    def test_a_derived_instance_names_its_source(self):
        ds = reread(builders.mr(256, 192, **PATIENT))
        before = ds.SOPInstanceUID, ds.StudyInstanceUID
        assert protect(ds, site(uids=Uids.DERIVE), TIME_S).result == "protected"
        sent = pixels.read(written(ds))
        assert sent.SOPInstanceUID == deriver(RING)(before[0])
        assert sent.StudyInstanceUID == before[1]
        assert sent.file_meta.MediaStorageSOPInstanceUID == sent.SOPInstanceUID
        assert sent.SourceImageSequence[0].ReferencedSOPInstanceUID == before[0]
        assert sent.PatientName == NAME

    def test_sending_the_same_again_gives_the_same_uids(self):
        uids = set()
        for moment in (TIME_S, TIME_S + 86_400):
            ds = reread(builders.mr(256, 192, **PATIENT))
            protect(ds, site(uids=Uids.DERIVE), moment)
            uids.add((ds.SOPInstanceUID, ds.SeriesInstanceUID))
        assert len(uids) == 1

    def test_an_object_without_pixels_follows(self):
        ds = self.report()
        before = ds.SOPInstanceUID
        done = protect(ds, site(uids=Uids.DERIVE), TIME_S)
        assert (done.result, done.reason, done.changed) == ("rewritten", "no-pixel-data", True)
        assert ds.SOPInstanceUID == deriver(RING)(before)
        assert "ImageType" not in ds
        again = pixels.read(written(ds))
        assert protect(again, site(uids=Uids.DERIVE), TIME_S).reason == "already-protected"

    def test_signatures_that_go_are_told_of(self):
        signed = {"MACParametersSequence": [Dataset()], "DigitalSignaturesSequence": [Dataset()]}
        ds = reread(builders.mr(256, 192, **PATIENT, **signed))
        assert protect(ds, site(), TIME_S).reason == "signature-removed"
        report = self.report()
        for keyword, value in signed.items():
            setattr(report, keyword, value)
        again = reread(report)
        done = protect(again, site(uids=Uids.DERIVE), TIME_S)
        assert done.reason == "no-pixel-data, signature-removed"
        assert protect(reread(report), site(), TIME_S).reason == "no-pixel-data", "it leaves with its own"

    def test_a_signature_of_an_item_goes_where_the_item_is_renamed(self):
        below = Dataset()
        below.ReferencedSOPClassUID, below.ReferencedSOPInstanceUID = uid.MRImageStorage, "2.25.7"
        below.MACParametersSequence, below.DigitalSignaturesSequence = [Dataset()], [Dataset()]
        original = file_bytes(builders.mr(256, 192, ReferencedImageSequence=[below], **PATIENT))
        ds = pixels.read(original)
        assert protect(ds, site(), TIME_S).reason == ""
        assert "DigitalSignaturesSequence" in ds.ReferencedImageSequence[0]
        ds = pixels.read(original)
        assert protect(ds, site(uids=Uids.DERIVE), TIME_S).reason == "signature-removed"
        assert "DigitalSignaturesSequence" not in ds.ReferencedImageSequence[0]
        sent = pixels.read(written(ds))
        assert recover(sent, "x", Reader(RING, (segmenter("anatomy"),))).identical
        assert written(sent) == original

    def test_an_image_without_room_that_may_pass_is_rewritten_too(self):
        ds = full_of_tissue()
        done = protect(ds, site(OnUnprotectable.PASS, deidentify=BASIC), TIME_S)
        assert (done.result, done.reason) == ("rewritten", "no-room")
        sent = pixels.read(written(ds))
        assert NAME not in str(sent.PatientName)
        reader = Reader(RING, (segmenter("anatomy"),))
        assert str(review(sent, "x", reader).finding) == "authentic"
        assert recover(sent, "x", reader).identical

    def test_a_de_identified_image_names_no_source_and_no_time(self):
        ds = reread(builders.mr(256, 192, **PATIENT))
        protect(ds, site(deidentify=BASIC), TIME_S)
        assert "SourceImageSequence" not in ds
        assert "InstanceCoercionDateTime" not in ds
        purposes = [
            item.PurposeOfReferenceCodeSequence[0].CodeValue for item in ds.ContributingEquipmentSequence
        ]
        assert purposes == ["109103", "109104"]
        assert ds.PatientIdentityRemoved == "YES"

    def test_what_another_route_protected_with_its_names_in_place_does_not_leave(self):
        for ds, earlier in (
            (reread(builders.mr(256, 192, **PATIENT)), site()),
            (self.report(), site(uids=Uids.DERIVE)),
        ):
            assert protect(ds, earlier, TIME_S).changed
            received = pixels.read(written(ds))
            done = protect(received, site(deidentify=BASIC), TIME_S)
            assert (done.result, done.reason) == ("held", "protected-but-identified")

    def test_what_this_route_de_identified_already_passes(self):
        for ds in (reread(builders.mr(256, 192, **PATIENT)), self.report()):
            protect(ds, site(deidentify=BASIC), TIME_S)
            received = pixels.read(written(ds))
            assert protect(received, site(deidentify=BASIC), TIME_S).reason == "already-protected"

    @staticmethod
    def with_a_comment() -> Dataset:
        """A compressed image without room for a mark, the patient's name in its code stream."""
        made = dataset(phantom(48, 48), Encoding(bits_stored=12, syntax=uid.JPEGLSLossless), **PATIENT)
        frame = next(generate_frames(made.PixelData, number_of_frames=1))
        comment = b"\xff\xfe" + (2 + len(NAME)).to_bytes(2, "big") + NAME.encode()
        made.PixelData = encapsulate([frame[:2] + comment + frame[2:]])
        return reread(made)

    def test_a_comment_in_a_code_stream_stays_behind(self):
        """Where nothing was marked nothing is encoded anew, so the stream itself would leave as it came."""
        ds = self.with_a_comment()
        before = samples_of(ds)
        assert NAME.encode() in written(ds)
        assert protect(ds, site(deidentify=BASIC), TIME_S).result == "protected-header"
        sent = pixels.read(written(ds))
        assert NAME.encode() not in written(sent)
        assert recover(sent, "x", Reader(RING, (segmenter("anatomy"),))).restored
        assert sent.PatientName == PATIENT["PatientName"]
        np.testing.assert_array_equal(samples_of(sent), before)

    def test_a_code_stream_that_would_pass_on_waits_for_an_operator(self):
        ds = self.with_a_comment()
        done = protect(ds, site(OnUnprotectable.PASS, deidentify=BASIC), TIME_S)
        assert (done.result, done.reason) == ("held", "pixels-as-they-came")

    @pytest.mark.parametrize(
        "attribute",
        [
            {"BurnedInAnnotation": "YES"},
            {"RecognizableVisualFeatures": "YES"},
            {"EncapsulatedDocument": b"%PDF"},
            {"SOPClassUID": uid.BasicVoiceAudioWaveformStorage},
        ],
    )
    def test_what_cannot_be_cleaned_is_held(self, attribute):
        ds = reread(builders.mr(64, 64, **{**PATIENT, **attribute}))
        before = written(ds)
        assert protect(ds, site(deidentify=BASIC), TIME_S).result == "held"
        assert written(ds) == before
        passing = Deidentify(profile=Profile.BASIC, on_content=OnContent.PASS)
        assert protect(ds, site(deidentify=passing), TIME_S).changed
        assert NAME not in str(ds.PatientName)


class TestErrors:
    @pytest.mark.parametrize("vr", [b"US", b"FD", b"DS", b"IS", b"AT"])
    @pytest.mark.parametrize("tag", [b"\x10\0\x10\0", b"\x10\0\x20\0"], ids=["name", "id"])
    def test_a_patient_in_an_element_of_numbers(self, tag, vr):
        """Its stand-in cannot be written there; what pydicom says of that quotes it."""
        content = file_bytes(builders.ct(64, 64, **{**PATIENT, "PatientName": "Phantom^Test.^.^"}))
        at = content.index(tag)
        ds = pixels.read(content[: at + 4] + vr + content[at + 6 :])
        with pytest.raises(InputError, match="not a value of its type; correct or remove it") as caught:
            protect(ds, site(deidentify=Deidentify(profile=Profile.BASIC)), TIME_S)
        assert "Phantom" not in str(caught.value)

    def test_without_a_sop_instance_uid(self):
        ds = reread(dataset(phantom(64, 64)))
        del ds.SOPInstanceUID
        with pytest.raises(InputError, match="SOP Instance UID"):
            protect(ds, site(), TIME_S)

    def test_truncated_pixels_change_nothing(self):
        ds = reread(builders.mr(64, 64, **PATIENT))
        ds.PixelData = ds.PixelData[:-100]
        with pytest.raises(PixelError) as caught:
            protect(ds, site(), TIME_S)
        assert NAME not in str(caught.value)
        assert "InstanceCoercionDateTime" not in ds

    def test_an_unreadable_label_leaves_the_instance_unlabelled(self):
        ds = reread(builders.mr(256, 192))
        header.put_bytes(ds, 0x00082111, "XX", b"odd!")
        with pytest.raises(InputError, match=r"\(0008,2111\)"):
            protect(ds, site(), TIME_S)
        assert label.read_mark(ds) is None


def test_the_record_holds_the_configured_tags_only():
    ds = reread(builders.mr(256, 192, **PATIENT))
    chosen = Site("n", RING, segmenter("anatomy"), (0x00100020,))
    protect(ds, chosen, TIME_S)
    report = review(ds, "x", Reader(RING, (segmenter("anatomy"),)), show_record=True).report
    assert report.record == {"PatientID": "P-1"}


def test_a_cap_reaches_the_engine():
    samples = phantom(256, 256) + np.random.default_rng(3).normal(0, 16, (1, 1, 256, 256)).astype(np.int32)
    ds = reread(dataset(np.clip(samples, 0, 4095)))
    done = protect(ds, site(max_change=1), TIME_S)
    assert all(mark.receipt is None or mark.receipt.max_change == 1 for mark in done.frames)


def config(folder: Path, **watermark: object) -> Config:
    return Config.model_validate(
        {
            "node": {"id": "n7", "ae_title": "NODE"},
            "storage": {"folder": folder, "reserve_mb": 16},
            "destinations": {"a": {"ae_title": "X", "host": "127.0.0.1", "port": 104}},
            "routes": (
                {"name": "all", "role": "protect", "destinations": ("a",), "on_unprotectable": "hold"},
            ),
            "watermark": watermark,
        },
        strict=False,
    )


def test_site_of_a_configuration(tmp_path):
    made = config(tmp_path, max_change=2, record=("PatientID", "StudyDate"))
    route = made.routes[0].model_copy(update={"uids": Uids.DERIVE})
    found = site_of(made, route, RING)
    assert found.record_tags == (0x00100020, 0x00080020)
    assert (found.node, found.max_change, found.on_unprotectable) == ("n7", 2, OnUnprotectable.HOLD)
    assert (found.uids, found.deidentify, found.rewrites) == (Uids.DERIVE, None, True)
    assert found.segmenter.id == "anatomy/1"
    plain = site_of(config(tmp_path), made.routes[0], RING)
    assert (plain.max_change, plain.record_tags, plain.rewrites) == (None, FULL_FIELDS, False)


def test_a_route_may_choose_another_carrier(tmp_path):
    made = config(tmp_path, carrier="dct", dct={"block_px": 8, "threshold": 0.02, "detector": "paper"})
    (route,) = made.routes
    found = site_of(made, route, RING)
    assert (found.carrier, found.blocks) == (Carrier.DCT, BlockSettings(8, 0.02, "paper"))
    own = route.model_copy(update={"carrier": CarrierName.LATTICE})
    assert site_of(made, own, RING).carrier is Carrier.LATTICE
    assert site_of(config(tmp_path), route, RING).carrier is Carrier.LATTICE


class TestBlocks:
    """The paper's own carrier: the same sentence, restored nearly."""

    SITE = site(carrier=Carrier.DCT)

    @pytest.mark.parametrize("modality", MODALITIES)
    def test_there_and_nearly_back(self, modality):
        ds = reread(LARGE[modality]())
        before, original = values(ds), samples_of(ds)
        done = protect(ds, self.SITE, TIME_S)
        assert done.result == "protected"
        assert {mark.receipt.framing for mark in done.frames} == {Framing.BLOCKS}
        marked = pixels.read(written(ds))
        found = review(marked, "a", Reader(RING, (segmenter("anatomy"),)))
        assert found.finding is Finding.AUTHENTIC
        assert {frame.restoration for frame in found.report.frames} <= {"exact", "approximate"}
        back = recover(marked, "a", Reader(RING, (segmenter("anatomy"),)))
        assert back.restored
        full = before.keys() - {0x7FE00010}
        changed = {tag for tag in full if values(marked).get(tag) != before[tag]}
        assert changed <= {0x00080008}, "the image type says that the pixels are derived"
        assert marked.ImageType[0] == "DERIVED"
        assert "approximately" in marked.ContributingEquipmentSequence[-1].ContributionDescription
        if modality != "enhanced_mr":  # its derivations are told of images with another source only
            assert "approximately" in marked.DerivationDescription
        spread = int(original.max()) - int(original.min())
        assert np.abs(samples_of(marked) - original).max() <= max(3, spread // 20)

    def test_says_that_it_is_reversible_approximately(self):
        ds = reread(LARGE["us"]())
        protect(ds, self.SITE, TIME_S)
        assert "ROI bit-identical; approximately reversible" in ds.DerivationDescription

    def test_is_known_as_protected_already(self):
        ds = reread(LARGE["us"]())
        protect(ds, self.SITE, TIME_S)
        again = protect(pixels.read(written(ds)), self.SITE, TIME_S)
        assert (again.result, again.reason) == ("passed", "already-protected")

    @pytest.mark.parametrize("policy", OnUnprotectable)
    def test_what_has_no_room_goes_by_policy(self, policy):
        expected = {
            OnUnprotectable.HEADER: "protected-header",
            OnUnprotectable.WHOLE_IMAGE: "protected-whole-image",
            OnUnprotectable.PASS: "passed",
            OnUnprotectable.HOLD: "held",
            OnUnprotectable.REJECT: "rejected",
        }
        ds = full_of_tissue(256)
        assert protect(ds, site(policy, carrier=Carrier.DCT), TIME_S).result == expected[policy]


class TestProtector:
    """From the spool into the spool."""

    @pytest.fixture
    def spool(self, tmp_path):
        (tmp_path / "spool").mkdir()
        return Spool(tmp_path / "spool", 1_000_000)

    def work(self, spool: Spool, ds: Dataset) -> Work:
        kept = spool.put([written(ds)])
        syntax = str(ds.file_meta.TransferSyntaxUID)
        arrival = Arrival(ds.SOPClassUID, ds.SOPInstanceUID, syntax, "MODALITY", "NODE", "all")
        return Work(id=1, token=1, attempts=1, arrival=arrival, blob=kept.name)

    def test_hands_on_a_marked_blob(self, tmp_path, spool):
        ds = reread(builders.mr(256, 192, **PATIENT))
        settings = config(tmp_path)
        work = self.work(spool, ds)
        outcome = Protector(settings, settings.routes[0], RING, spool)(work)
        assert (outcome.state, outcome.result) == (InstanceState.READY, "protected")
        assert outcome.blob != work.blob
        found = review(pixels.read(spool.path(outcome.blob)), "x", Reader(RING, (segmenter("anatomy"),)))
        assert str(found.finding) == "authentic"
        assert outcome.destinations == ("a",)

    def test_tells_what_it_measured(self, tmp_path, spool):
        ds = reread(builders.mr(256, 192, **PATIENT))
        settings = config(tmp_path)
        protector = Protector(settings, settings.routes[0], RING, spool, lambda name: timed(segmenter(name)))
        work = self.work(spool, ds)
        with measured() as seen:
            assert protector(work).result == "protected"
        assert seen.modality == "MR"
        assert set(seen.seconds) == {"decode", "segment", "embed", "encode", "spool"}
        told = {reading.metric: reading.value for reading in seen.told}
        assert set(told) == {CAPACITY, PSNR}
        assert told[CAPACITY] > 100
        assert 60 < told[PSNR] < 110

    def test_hands_on_the_very_blob_of_what_is_passed(self, tmp_path, spool):
        ds = reread(dataset(phantom(6, 6)))
        settings = config(tmp_path)
        work = self.work(spool, ds)
        outcome = Protector(settings, settings.routes[0], RING, spool)(work)
        assert (outcome.state, outcome.result, outcome.reason) == (InstanceState.READY, "passed", "too-small")
        assert outcome.blob == work.blob

    def test_holds_by_the_policy_of_its_route(self, tmp_path, spool):
        settings = config(tmp_path)
        outcome = Protector(settings, settings.routes[0], RING, spool)(self.work(spool, full_of_tissue()))
        assert (outcome.state, outcome.result, outcome.reason) == (InstanceState.HELD, "held", "no-room")


def test_lossy_colour_is_marked_as_what_was_decoded():
    """What a lossy source decodes to is the truth from then on, stored without further loss."""
    encoding = Encoding(
        bits_stored=8, bits_allocated=8, photometric="YBR_FULL_422", syntax=uid.JPEGBaseline8Bit
    )
    ds = reread(dataset(phantom(256, 256, channels=3, hi=255), encoding, **PATIENT))
    decoded = samples_of(ds)
    done = protect(ds, site(), TIME_S)
    assert done.changed
    received = pixels.read(written(ds))
    assert received.file_meta.TransferSyntaxUID == uid.JPEGLSLossless
    assert received.LossyImageCompression == "01"
    assert recover(received, "x", Reader(RING, (segmenter("anatomy"),))).restored
    assert np.array_equal(samples_of(received), decoded)


def test_a_frame_mark_says_how_a_frame_is_protected():
    done = protect(reread(builders.us(240, 320, frames=2, encoding=COLOUR_8)), site(), TIME_S)
    assert all(isinstance(mark, FrameMark) and not mark.sealed for mark in done.frames)
    assert {mark.receipt.framing for mark in done.frames if mark.receipt} <= {Framing.TILE, Framing.GLOBAL}
    assert {mark.receipt.key_id for mark in done.frames if mark.receipt} == {KEY.id}


class TestSegmenterRules:
    RULE = SegmenterRule.model_validate({"use": "vessels", "modality": ("OP",)})

    def test_the_first_rule_that_fits_draws_the_map(self):
        vessels = segmenter("vessels")
        chosen = site(rules=((self.RULE, vessels),))
        assert chosen.for_instance(builders.ct(64, 64, Modality="OP")).segmenter is vessels
        assert chosen.for_instance(builders.ct(64, 64)).segmenter is chosen.segmenter

    def test_a_photograph_goes_there_and_back_by_its_own_segmenter(self):
        photograph = phantom(192, 192, channels=3, hi=255)
        original = reread(dataset(photograph, COLOUR_8, Modality="OP", **PATIENT))
        wanted = samples_of(original)
        done = protect(original, site(rules=((self.RULE, segmenter("vessels")),)), TIME_S)
        receipts = [mark.receipt for mark in done.frames]
        assert [receipt.segmenter for receipt in receipts if receipt is not None] == [segmenter("vessels").id]
        mark = label.read_mark(original)
        assert mark is not None
        assert mark.segmenters == (segmenter("vessels").id,)
        found = recover(original, "op", Reader(RING, (segmenter("anatomy"), segmenter("vessels"))))
        assert (found.report.finding, found.restored) == ("authentic", True)
        assert (samples_of(original) == wanted).all()


def test_the_label_names_no_segmenter_where_no_map_was_used():
    samples = np.random.default_rng(1).normal(2000, 4, (1, 1, 128, 128)).astype(np.int32)
    ds = reread(dataset(samples, **PATIENT))
    assert protect(ds, site(), TIME_S).result == "protected-header"
    mark = label.read_mark(ds)
    assert mark is not None
    assert mark.segmenters == ()


@pytest.mark.parametrize("batch_frames", [1, 3, 16])
def test_frames_are_marked_the_same_in_batches(batch_frames):
    cine = np.stack([phantom(96, 96, seed=seed)[0] for seed in range(5)])
    alone, together = (reread(dataset(cine, Modality="XA", **PATIENT)) for _ in range(2))
    vessels = replace(site(), segmenter=segmenter("vessels"), batch_frames=1)
    assert protect(alone, vessels, TIME_S).result == "protected"
    assert protect(together, replace(vessels, batch_frames=batch_frames), TIME_S).changed
    assert written(alone) == written(together)


def test_a_record_in_the_header_leaves_compressed_pixels_as_they_came():
    samples = np.random.default_rng(1).normal(2000, 4, (1, 1, 128, 128)).astype(np.int32)
    ds = reread(dataset(samples, Encoding(syntax=uid.JPEGLosslessSV1), **PATIENT))
    before = bytes(ds.PixelData)
    done = protect(ds, site(), TIME_S)
    assert done.result == "protected-header"
    assert (ds.file_meta.TransferSyntaxUID, bytes(ds.PixelData)) == (uid.JPEGLosslessSV1, before)
    assert review(ds, "sealed", Reader(RING, (segmenter("anatomy"),))).report.finding == "authentic"
