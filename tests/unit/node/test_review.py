"""THE backward sentence: what a reader finds, and what it gives back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from blessmark import pixels
from blessmark.errors import PixelError
from blessmark.payload.record import FULL_FIELDS
from blessmark.payload.signature import SigningKey
from blessmark.segment import segmenter
from blessmark.types import BoolArray, Carrier, Finding, View
from dicom_node import header
from dicom_node.config import Config, Deidentify, Label, Profile, Route, SegmenterRule, Uids, parse
from dicom_node.jobs import Arrival, InstanceState, Outcome, Work
from dicom_node.keys import FileKeyRing
from dicom_node.measuring import measured
from dicom_node.protect import Site, protect, written
from dicom_node.review import Reader, Recoverer, Restorer, Verifier, recover, review
from dicom_node.spool import Spool
from tests import builders
from tests.builders import Encoding, dataset, phantom, reread
from tests.strategies import KEY, OTHER_KEY, RING, Ring

SITE = Site("node-1", RING, segmenter("anatomy"), FULL_FIELDS)
READER = Reader(RING, (segmenter("anatomy"),))
TIME_S = 1_790_012_800
PATIENT = {"PatientName": "Phantom^Test", "PatientID": "P-1", "StudyDate": "20260921"}


def marked(ds: Dataset | None = None, *, seen_as: bytes = b"", fill: bool = False) -> Dataset:
    """A protected instance as it arrives at a reader.

    `seen_as` is put in the place of the label's hint at the segmenter; `fill` makes the watermark unreadable.
    """
    ds = reread(builders.mr(256, 256, **PATIENT) if ds is None else ds)
    assert protect(ds, SITE, TIME_S).changed
    if seen_as:
        (tag,) = (tag for tag in ds.keys() if tag.group == 0x0099 and tag.element & 0xFF == 0x05)  # noqa: SIM118
        header.put_bytes(ds, tag, "LO", seen_as)
    if fill:
        image = pixels.load(ds)
        assert isinstance(image, pixels.Image)
        noise = np.random.default_rng(0).integers(0, 4096, (1, 256, 256)).astype(np.int32)
        pixels.store(ds, image, [noise])
    return pixels.read(written(ds))


def two_frames() -> Dataset:
    return marked(builders.enhanced_mr(192, 192, frames=2, **PATIENT))


def altered(ds: Dataset, row: int = 128, col: int = 128, frame: int = 1) -> Dataset:
    """One sample of a frame changed by one step."""
    image = pixels.load(ds)
    assert isinstance(image, pixels.Image)
    frames = [each.samples for each in image]
    frames[frame - 1][0, row, col] ^= 1
    pixels.store(ds, image, frames)
    return pixels.read(written(ds))


def samples_of(ds: Dataset) -> np.ndarray:
    image = pixels.load(ds)
    assert isinstance(image, pixels.Image)
    return np.stack([frame.samples for frame in image])


class TestBlocks:
    """Instances that the carrier `dct` marked: authentic, and restored nearly."""

    @staticmethod
    def marked() -> Dataset:
        ds = reread(builders.us(300, 420, frames=2, SequenceOfUltrasoundRegions=[], **PATIENT))
        assert protect(ds, replace(SITE, carrier=Carrier.DCT), TIME_S).result == "protected"
        return pixels.read(written(ds))

    def test_are_told_as_restored_approximately(self):
        report = review(self.marked(), "a", READER).report
        assert report.finding == "authentic"
        for frame in report.frames:
            assert (frame.framing, frame.block_px, frame.lattice) == ("blocks", 6, None)
            assert frame.restoration == "approximate"
            assert not frame.exact
            assert frame.restored_psnr_db > 50

    def test_one_step_of_one_sample_is_found(self):
        found = review(altered(self.marked(), 150, 210, frame=2), "a", READER)
        assert found.finding is Finding.PIXELS_ALTERED
        assert found.report.frames[1].altered_tiles == ((2, 3),)
        assert found.report.frames[1].restoration == "none"

    def test_an_altered_one_is_restored_only_on_request(self):
        ds = altered(self.marked(), 150, 210)
        assert not recover(ds, "a", READER).restored
        found = recover(ds, "a", READER, partial=True)
        assert (found.restored, found.report.restored) == (True, "in part")

    def test_what_is_given_back_nearly_is_not_told_as_proven(self):
        found = recover(self.marked(), "a", READER)
        assert (found.restored, found.report.restored) == (True, "")

    def test_a_header_that_differs_is_named(self):
        ds = self.marked()
        ds.PatientID = "somebody else"
        found = review(ds, "a", READER)
        assert found.finding is Finding.HEADER_ALTERED
        assert found.report.frames[0].altered_fields == ("PatientID",)
        assert found.report.frames[0].restoration == "approximate"

    def test_another_key_reads_nothing(self):
        found = review(self.marked(), "a", Reader(Ring(OTHER_KEY), READER.segmenters))
        assert found.finding is Finding.WRONG_KEY


class TestFindings:
    def test_authentic_with_its_evidence(self):
        found = review(marked(), "image.dcm", READER)
        report = found.report
        assert found.finding is Finding.AUTHENTIC
        assert not found.restored
        assert (report.source, report.finding, report.node) == ("image.dcm", "authentic", "node-1")
        assert report.protected_at == "2026-09-21T17:46:40Z"
        assert report.frames_expected == 1
        (frame,) = report.frames
        assert (frame.exact, frame.framing, frame.tier, frame.key_id) == (True, "tile", "full", KEY.id)
        assert frame.packets > 0
        assert frame.shards_needed > 0
        assert frame.changed_samples > 0
        assert frame.psnr_db is not None
        assert frame.psnr_db > 50

    def test_each_frame_is_shown_with_what_was_restored(self):
        shown = []
        found = review(altered(two_frames(), frame=2), "x", READER, on_frame=lambda *seen: shown.append(seen))
        assert [verdict.finding for _, verdict in shown] == [Finding.AUTHENTIC, Finding.PIXELS_ALTERED]
        for number, (frame, verdict) in enumerate(shown, start=1):
            assert frame.number == number
            assert verdict.restored.samples.shape == frame.samples.shape
            assert verdict.evidence.roi.shape == (192 // 8, 192 // 8)
            assert verdict.evidence.roi.any()
        assert found.report.finding == "pixels-altered"

    def test_header_altered_names_the_fields(self):
        ds = marked()
        ds.PatientName = "Another^Name"
        del ds.StudyDate
        found = review(ds, "x", READER)
        assert found.finding is Finding.HEADER_ALTERED
        assert set(found.report.frames[0].altered_fields) == {"PatientName", "StudyDate"}
        assert "Another" not in repr(found)
        assert "Phantom" not in repr(found)

    def test_padding_of_a_field_is_no_alteration(self):
        ds = marked()
        header.put_bytes(ds, 0x00100020, "LO", b"P-1\0")
        assert review(ds, "x", READER).finding is Finding.AUTHENTIC

    def test_pixels_altered_lists_the_tile(self):
        found = review(altered(marked(), 130, 70), "x", READER)
        assert found.finding is Finding.PIXELS_ALTERED
        assert (2, 1) in found.report.frames[0].altered_tiles
        assert not found.report.frames[0].exact

    def test_wrong_key_is_told_from_unmarked_by_the_hint(self):
        other = Reader(Ring(OTHER_KEY), (segmenter("anatomy"),))
        assert review(marked(), "x", other).finding is Finding.WRONG_KEY
        same_id = Ring(replace(OTHER_KEY, id=KEY.id))
        assert review(marked(), "x", replace(other, ring=same_id)).finding is Finding.WRONG_KEY
        plain = reread(builders.mr(256, 256))
        assert review(plain, "x", READER).finding is Finding.UNMARKED

    def test_other_weights_are_told_from_damage_by_the_hint(self):
        marked_by_next = marked(seen_as=b"vessels/2-0123456789ab", fill=True)
        found = review(marked_by_next, "x", READER)
        assert found.finding is Finding.UNKNOWN_SEGMENTER
        assert found.report.segmenters == ("anatomy/1",)
        assert found.report.frames[0].segmenter == "vessels/2-0123456789ab"
        assert not recover(marked_by_next, "x", READER).restored

    def test_a_false_hint_at_a_segmenter_changes_nothing(self):
        assert review(marked(seen_as=b"vessels/2-0123456789ab"), "x", READER).finding is Finding.AUTHENTIC

    def test_a_watermark_needs_no_label(self):
        ds = marked()
        for tag in [tag for tag in ds.keys() if tag.group == 0x0099]:  # noqa: SIM118
            del ds[tag]
        assert review(ds, "x", READER).finding is Finding.AUTHENTIC

    def test_a_label_without_a_watermark_is_damage(self):
        ds = marked()
        image = pixels.load(ds)
        assert isinstance(image, pixels.Image)
        noise = np.random.default_rng(0).integers(0, 4096, (1, 256, 256)).astype(np.int32)
        pixels.store(ds, image, [noise])
        assert review(ds, "x", READER).finding is Finding.DAMAGED

    def test_what_holds_no_image_is_unmarked_with_a_reason(self):
        found = review(reread(dataset(phantom(6, 6))), "x", READER)
        assert (found.finding, found.report.reason, found.report.frames) == (
            Finding.UNMARKED,
            "too-small",
            (),
        )

    def test_rotated_keys_still_read(self):
        rotated = Reader(Ring(OTHER_KEY, KEY), (segmenter("anatomy"),))
        assert review(marked(), "x", rotated).finding is Finding.AUTHENTIC

    def test_a_broken_instance_is_an_error(self):
        ds = marked()
        ds.PixelData = ds.PixelData[:-2000]
        with pytest.raises(PixelError):
            review(ds, "x", READER)


def test_the_originals_of_another_image_are_not_put_into_this_one():
    """Somebody gives an image the header of another, private block and all."""
    one = pixels.read(builders.file_bytes(builders.mr(256, 192, seed=1, **PATIENT)))
    other = pixels.read(builders.file_bytes(builders.mr(256, 192, seed=2, PatientName="Other^Name")))
    site = replace(SITE, deidentify=Deidentify(profile=Profile.BASIC))
    for ds in (one, other):
        protect(ds, site, TIME_S)
    for tag in [tag for tag in one.keys() if tag.group != 0x7FE0]:  # noqa: SIM118
        del one[tag]
    for tag in [tag for tag in other.keys() if tag.group != 0x7FE0]:  # noqa: SIM118
        one[tag] = other.get_item(tag)
    mixed = pixels.read(written(one))
    assert review(mixed, "x", READER).finding is Finding.HEADER_ALTERED
    found = recover(mixed, "x", READER)
    assert (found.finding, found.identical) == (Finding.HEADER_ALTERED, False)
    assert mixed.PatientName == "Phantom^Test"
    assert "Other" not in str(mixed)


def second_frame_of(other: Dataset) -> Dataset:
    """An instance of two frames, the second of which is that of `other`."""
    ds = two_frames()
    image, theirs = pixels.load(ds), pixels.load(other)
    assert isinstance(image, pixels.Image)
    assert isinstance(theirs, pixels.Image)
    pixels.store(ds, image, [image.frame(1).samples, theirs.frame(2).samples])
    return pixels.read(written(ds))


def test_frames_of_two_instances_are_no_instance():
    """Each frame is the one it was marked as, and its record is genuine; together they are nobody's image."""
    other = builders.enhanced_mr(192, 192, frames=2, seed=1, PatientName="Other^Name", PatientID="P-2")
    mixed = second_frame_of(marked(other))
    assert review(mixed, "x", READER).finding is Finding.PIXELS_ALTERED
    before = written(mixed)
    found = recover(mixed, "x", READER)
    assert (found.finding, found.restored, found.report.restored) == (Finding.PIXELS_ALTERED, False, "")
    assert written(mixed) == before
    assert recover(mixed, "x", READER, partial=True).report.restored == "in part"


def test_frames_of_another_instance_in_other_places_bind_it_to_nothing():
    other = {"frames": 3, "seed": 1, "PatientName": "Other^Name"}
    other |= {"StudyInstanceUID": "2.25.7", "SeriesInstanceUID": "2.25.8"}
    ours, theirs = (
        marked(builders.enhanced_mr(192, 192, **PATIENT | {"frames": 3})),
        marked(builders.enhanced_mr(192, 192, **PATIENT | other)),
    )
    image, stolen = pixels.load(ours), pixels.load(theirs)
    assert isinstance(image, pixels.Image)
    assert isinstance(stolen, pixels.Image)
    mixed = [image.frame(1).samples, stolen.frame(3).samples, stolen.frame(2).samples]
    pixels.store(ours, image, mixed)
    found = review(pixels.read(written(ours)), "x", READER)
    assert [frame.holds_frame for frame in found.report.frames] == [None, 3, 2]
    assert found.report.bound_to == ()
    assert "PatientName" in found.report.frames[1].altered_fields


def test_frames_of_two_versions_of_an_instance_are_no_instance():
    """A modality sends an instance again with other pixels; frames of both are exchanged."""
    again = reread(builders.enhanced_mr(192, 192, frames=2, seed=1, **PATIENT))
    again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = two_frames().SOPInstanceUID
    again = reread(again)
    assert protect(again, SITE, TIME_S + 60).changed
    mixed = second_frame_of(pixels.read(written(again)))
    found = review(mixed, "x", READER)
    assert [frame.finding for frame in found.report.frames] == ["authentic", "authentic"]
    assert found.finding is Finding.PIXELS_ALTERED
    assert not recover(mixed, "x", READER).restored


def test_a_name_in_another_character_set_is_another_name():
    ds = marked(
        builders.mr(256, 256, SpecificCharacterSet="ISO_IR 100", **PATIENT | {"PatientName": "M\xfcller"})
    )
    assert review(ds, "x", READER).finding is Finding.AUTHENTIC
    header.put_bytes(ds, 0x00080005, "CS", b"ISO_IR 144")
    found = review(ds, "x", READER)
    assert found.finding is Finding.HEADER_ALTERED
    assert found.report.frames[0].altered_fields == ("SpecificCharacterSet",)


class TestRewritten:
    """Objects without pixels whose header was rewritten."""

    SITE = Site("node-1", RING, segmenter("anatomy"), FULL_FIELDS, uids=Uids.DERIVE)

    def sent(self) -> Dataset:
        ds = builders.mr(16, 16, **PATIENT)
        del ds.PixelData, ds.BitsAllocated
        ds = pixels.read(builders.file_bytes(ds))
        assert protect(ds, self.SITE, TIME_S).result == "rewritten"
        return pixels.read(written(ds))

    def test_is_authentic_and_judging_changes_nothing(self):
        ds = self.sent()
        before = written(ds)
        found = review(ds, "x", READER)
        assert (found.finding, found.report.reason, found.restored) == (
            Finding.AUTHENTIC,
            "no-pixel-data",
            False,
        )
        assert written(ds) == before

    def test_comes_back_whole(self):
        ds = self.sent()
        found = recover(ds, "x", READER)
        assert found.restored
        assert found.identical
        assert ds.SOPInstanceUID == builders.mr(16, 16, **PATIENT).SOPInstanceUID
        assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID

    def test_whatever_else_changed_is_found(self):
        ds = self.sent()
        ds.StudyDescription = "slipped in"
        ds = pixels.read(written(ds))
        before = written(ds)
        found = recover(ds, "x", READER)
        assert (found.finding, found.restored) == (Finding.HEADER_ALTERED, False)
        assert written(ds) == before

    def test_those_without_the_key_are_told_that_it_is_missing(self):
        other = Reader(Ring(OTHER_KEY), (segmenter("anatomy"),))
        found = recover(self.sent(), "x", other)
        assert (found.finding, found.restored) == (Finding.WRONG_KEY, False)

    @pytest.mark.parametrize("uid", ["2.25.4711", ""])
    def test_under_another_uid_it_is_altered_not_unmarked(self, uid):
        ds = self.sent()
        ds.SOPInstanceUID = uid
        assert review(pixels.read(written(ds)), "x", READER).finding is Finding.HEADER_ALTERED

    def test_it_may_say_that_it_was_restored(self):
        ds = self.sent()
        found = recover(ds, "x", READER, by=Restorer("b", TIME_S, Label.ALWAYS))
        assert (found.restored, found.identical, found.report.restored) == (True, False, "sample for sample")
        (item,) = ds.ContributingEquipmentSequence
        assert (item.StationName, item.ContributionDescription) == ("b", "Header restored (blessmark/1)")
        assert list(ds.get("ImageType", [])) == []


class TestLabels:
    """What a restored object says of itself, and under which UID."""

    BY = Restorer("node-2", TIME_S)

    def test_the_original_byte_for_byte_says_nothing_unless_it_is_told_to(self):
        original = written(reread(builders.mr(256, 256, **PATIENT)))
        ds = marked(pixels.read(original))
        assert recover(ds, "x", READER, by=replace(self.BY, label=Label.UNLESS_IDENTICAL)).identical
        assert written(ds) == original
        ds = marked(pixels.read(original))
        found = recover(ds, "x", READER, by=replace(self.BY, label=Label.ALWAYS))
        assert (found.identical, found.report.restored) == (False, "sample for sample")
        (item,) = ds.ContributingEquipmentSequence
        assert (item.StationName, item.ContributionDateTime) == ("node-2", "20260921174640+0000")
        assert item.ContributionDescription == "NROI watermark blessmark/1 removed; restored byte for byte"
        assert "ImageType" not in ds

    @pytest.mark.parametrize(("wanted", "items"), [(Label.UNLESS_EXACT, 0), (Label.UNLESS_IDENTICAL, 1)])
    def test_samples_that_are_stored_in_another_form_are_the_original_all_the_same(self, wanted, items):
        encoding = Encoding(syntax="1.2.840.10008.1.2.4.80")
        ds = marked(dataset(phantom(256, 256, hi=3000), encoding, **PATIENT))
        found = recover(ds, "x", READER, by=replace(self.BY, label=wanted))
        assert (found.restored, found.report.restored) == (True, "sample for sample")
        assert len(ds.get("ContributingEquipmentSequence", [])) == items

    def test_fields_that_the_record_put_right_are_told_with_what_they_held(self):
        ds = marked()
        ds.PatientName = "Another^Name"
        del ds.StudyDate
        assert recover(ds, "x", READER, by=self.BY).restored
        ds = pixels.read(written(ds))
        (told,) = ds.OriginalAttributesSequence
        (modified,) = told.ModifiedAttributesSequence
        assert (told.ModifyingSystem, modified.PatientName) == ("node-2", "Another^Name")
        assert modified["StudyDate"].value == ""
        assert {each.keyword for each in modified} == {"PatientName", "StudyDate"}
        assert len(ds.ContributingEquipmentSequence) == 1
        assert "ImageType" not in ds, "its pixels are the original ones"

    def test_a_pseudonym_is_no_earlier_value_of_a_name(self):
        ds = pixels.read(builders.file_bytes(builders.mr(256, 192, **PATIENT)))
        protect(ds, replace(SITE, deidentify=Deidentify(profile=Profile.BASIC)), TIME_S)
        ds = pixels.read(written(ds))
        ds.PatientID = "reconciled"
        assert recover(ds, "x", READER, by=self.BY).restored
        (told,) = ds.OriginalAttributesSequence
        assert [each.value for each in told.ModifiedAttributesSequence[0]] == ["reconciled"]
        assert (ds.PatientID, ds.PatientName) == ("P-1", "Phantom^Test")

    @staticmethod
    def nearly(uids: Uids) -> Dataset:
        ds = reread(builders.us(300, 420, SequenceOfUltrasoundRegions=[], **PATIENT))
        assert protect(ds, replace(SITE, carrier=Carrier.DCT, uids=uids), TIME_S).result == "protected"
        return pixels.read(written(ds))

    def test_what_is_restored_nearly_does_not_take_the_uid_of_its_original(self):
        original = builders.us(300, 420, SequenceOfUltrasoundRegions=[], **PATIENT)
        sent, again = self.nearly(Uids.DERIVE), self.nearly(Uids.DERIVE)
        arrived = sent.SOPInstanceUID
        assert recover(sent, "x", READER, by=self.BY).finding is Finding.AUTHENTIC
        assert recover(again, "x", READER, by=self.BY).restored
        assert written(sent) == written(again)
        assert sent.SOPInstanceUID not in (arrived, original.SOPInstanceUID)
        assert sent.file_meta.MediaStorageSOPInstanceUID == sent.SOPInstanceUID
        assert sent.SourceImageSequence[-1].ReferencedSOPInstanceUID == original.SOPInstanceUID
        assert sent.SeriesInstanceUID == original.SeriesInstanceUID
        assert sent.ImageType[0] == "DERIVED"

    def test_where_it_never_had_another_it_stays(self):
        ds = self.nearly(Uids.KEEP)
        arrived = ds.SOPInstanceUID
        assert recover(ds, "x", READER, by=self.BY).restored
        assert ds.SOPInstanceUID == arrived

    def test_what_is_restored_in_part_says_so_and_keeps_off_the_uid_of_its_original(self):
        original = builders.mr(256, 256, **PATIENT)
        ds = reread(original)
        protect(ds, replace(SITE, uids=Uids.DERIVE), TIME_S)
        ds = altered(pixels.read(written(ds)), 130, 70)
        arrived = ds.SOPInstanceUID
        found = recover(ds, "x", READER, partial=True, by=self.BY)
        assert (found.restored, found.report.restored) == (True, "in part")
        assert ds.ContributingEquipmentSequence[-1].ContributionDescription.endswith("restored in part")
        assert ds.ImageType[0] == "DERIVED"
        assert ds.SOPInstanceUID not in (arrived, original.SOPInstanceUID)

    def test_tiles_without_a_record_do_not_tell_whose_image_it_is(self):
        """Somebody puts the header of one de-identified image onto the damaged pixels of another."""
        site = replace(SITE, deidentify=Deidentify(profile=Profile.BASIC))
        other = pixels.read(builders.file_bytes(builders.mr(256, 256, seed=2, PatientName="Other^Name")))
        damaged = pixels.read(builders.file_bytes(builders.mr(256, 256, **PATIENT)))
        for ds in (other, damaged):
            protect(ds, site, TIME_S)
        samples = samples_of(damaged)[0]
        # a lattice site of every tile but the first: the map is the same, the packets are gone
        samples[0, 71::64, 7::64] ^= 1
        samples[0, 7, 71::64] ^= 1
        image = pixels.load(other)
        assert isinstance(image, pixels.Image)
        pixels.store(other, image, [samples])
        ds = pixels.read(written(other))
        found = recover(ds, "x", READER, partial=True)
        assert (found.finding, found.restored) == (Finding.DAMAGED, True)
        assert "Other" not in str(ds)


class TestSeveralFrames:
    def test_the_worst_frame_decides(self):
        found = review(altered(two_frames(), frame=2), "x", READER)
        assert [frame.finding for frame in found.report.frames] == ["authentic", "pixels-altered"]
        assert found.finding is Finding.PIXELS_ALTERED

    def test_a_missing_frame_is_an_alteration(self):
        ds = two_frames()
        ds.PixelData = ds.PixelData[: len(ds.PixelData) // 2]
        ds.NumberOfFrames = 1
        found = review(ds, "x", READER)
        assert found.finding is Finding.PIXELS_ALTERED
        assert (len(found.report.frames), found.report.frames_expected) == (1, 2)

    def test_and_what_is_left_is_restored_only_in_part(self):
        ds = two_frames()
        ds.PixelData = ds.PixelData[: len(ds.PixelData) // 2]
        ds.NumberOfFrames = 1
        before = written(ds)
        assert not recover(ds, "x", READER).restored
        assert written(ds) == before
        found = recover(ds, "x", READER, partial=True)
        assert (found.restored, found.report.restored) == (True, "in part")

    def test_exchanged_frames_are_not_authentic(self):
        ds = two_frames()
        half = len(ds.PixelData) // 2
        ds.PixelData = ds.PixelData[half:] + ds.PixelData[:half]
        assert review(ds, "x", READER).finding is not Finding.AUTHENTIC

    def test_exchanged_frames_say_where_they_were(self):
        ds = two_frames()
        image = pixels.load(ds)
        assert isinstance(image, pixels.Image)
        pixels.store(ds, image, [frame.samples for frame in image][::-1])
        report = review(ds, "x", READER).report
        assert report.finding == "pixels-altered"
        assert [(frame.holds_frame, frame.exact, frame.tier) for frame in report.frames] == [
            (2, False, "full"),
            (1, False, "full"),
        ]
        assert report.bound_to == ("study", "series", "instance")

    def test_an_unmarked_frame_among_marked_ones_is_an_alteration(self):
        ds = two_frames()
        original = reread(builders.enhanced_mr(192, 192, frames=2, **PATIENT))
        half = len(ds.PixelData) // 2
        ds.PixelData = ds.PixelData[:half] + original.PixelData[half:]
        found = review(ds, "x", READER)
        assert [frame.finding for frame in found.report.frames] == ["authentic", "damaged"]
        assert found.finding is Finding.DAMAGED
        for tag in [tag for tag in ds.keys() if tag.group == 0x0099]:  # noqa: SIM118
            del ds[tag]
        found = review(ds, "x", READER)
        assert [frame.finding for frame in found.report.frames] == ["authentic", "unmarked"]
        assert found.finding is Finding.PIXELS_ALTERED


class TestPlace:
    def test_is_what_the_header_claims_and_the_record_binds(self):
        ds = marked()
        report = review(ds, "x", READER).report
        assert report.place.study == ds.StudyInstanceUID
        assert report.place.series == ds.SeriesInstanceUID
        assert report.place.instance == ds.SOPInstanceUID
        assert (report.place.modality, report.place.number) == ("MR", None)
        assert (report.number_of_frames, report.bound_to) == (1, ("study", "series", "instance"))

    def test_what_the_header_denies_binds_nothing(self):
        ds = marked()
        ds.SeriesInstanceUID, ds.InstanceNumber = "1.2.3", "7"
        report = review(ds, "x", READER).report
        assert (report.place.series, report.place.number) == ("1.2.3", 7)
        assert report.bound_to == ("study", "instance")

    def test_a_record_without_the_study_binds_the_instance_alone(self):
        site = replace(SITE, record_tags=(0x00100010,))
        ds = reread(builders.mr(256, 256, **PATIENT))
        assert protect(ds, site, TIME_S).changed
        assert review(ds, "x", READER).report.bound_to == ("instance",)

    def test_nothing_that_was_read_binds_nothing(self):
        report = review(reread(builders.mr(256, 256)), "x", READER).report
        assert (report.bound_to, report.original) == ((), "")

    def test_a_new_name_does_not_change_whose_image_it_was(self):
        plain, derived = reread(builders.mr(256, 256)), reread(builders.mr(256, 256))
        protect(plain, SITE, TIME_S)
        protect(derived, replace(SITE, uids=Uids.DERIVE), TIME_S)
        one, two = (review(pixels.read(written(ds)), "x", READER).report for ds in (plain, derived))
        assert one.place.instance != two.place.instance
        assert one.original == two.original != ""
        assert two.bound_to == ("study", "series", "instance")

    @pytest.mark.parametrize("number", ["", "12345678901234567", "1.5", "7\\8"])
    def test_a_number_that_is_none_is_none(self, number):
        ds = reread(builders.mr(16, 16))
        header.put_bytes(ds, 0x00200013, "IS", number.encode())
        ds["Modality"].value = "M" * 100
        found = review(ds, "x", READER).report.place
        assert (found.number, found.modality) == (None, "M" * 16)


class TestRecord:
    def test_is_shown_on_request_only(self):
        assert review(marked(), "x", READER).report.record == {}
        shown = review(marked(), "x", READER, show_record=True).report.record
        assert (shown["PatientName"], shown["PatientID"]) == ("Phantom^Test", "P-1")

    @pytest.mark.parametrize(
        ("charset", "name"),
        [
            ("ISO_IR 100", "Jürgen^Ö"),
            ("ISO_IR 144", "Иванов^Тест"),
            ("ISO_IR 192", "王^小東"),
            (["ISO 2022 IR 6", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
        ],
    )
    def test_is_decoded_by_the_character_set_that_travelled_with_it(self, charset, name):
        ds = marked(builders.mr(256, 256, SpecificCharacterSet=charset, PatientName=name))
        stored = header.value_bytes(ds, 0x00100010)
        assert review(ds, "x", READER, show_record=True).report.record["PatientName"] == name
        ds.PatientName = "Changed"
        assert recover(ds, "x", READER).restored
        assert header.value_bytes(ds, 0x00100010) == stored


class TestRecovery:
    def test_puts_altered_fields_right(self):
        ds = marked()
        ds.PatientName = "Another^Name"
        del ds.StudyDate
        found = recover(ds, "x", READER)
        assert found.restored
        assert found.finding is Finding.HEADER_ALTERED
        assert (ds.PatientName, ds.StudyDate) == ("Phantom^Test", "20260921")

    def test_altered_pixels_are_not_restored_unless_asked_for(self):
        original = samples_of(reread(builders.mr(256, 256, **PATIENT)))
        ds = altered(marked(), 130, 70)
        before = written(ds)
        found = recover(ds, "x", READER)
        assert (found.restored, found.finding) == (False, Finding.PIXELS_ALTERED)
        assert written(ds) == before

        found = recover(ds, "x", READER, partial=True)
        assert (found.restored, found.report.restored) == (True, "in part")
        differing = np.argwhere(samples_of(ds)[0, 0] != original[0, 0]) // 64
        assert {(int(row), int(col)) for row, col in differing} <= {(2, 1)}

    def test_nothing_to_restore_changes_nothing(self):
        for ds in (reread(builders.mr(256, 256)), reread(dataset(phantom(6, 6)))):
            before = written(ds)
            for partial in (False, True):
                found = recover(ds, "x", READER, partial=partial)
                assert (found.restored, found.finding) == (False, Finding.UNMARKED)
            assert written(ds) == before

    def test_one_altered_frame_keeps_the_whole_instance_from_being_restored(self):
        ds = altered(two_frames(), frame=1)
        before = written(ds)
        found = recover(ds, "x", READER)
        assert not found.restored
        assert [frame.finding for frame in found.report.frames] == ["pixels-altered", "authentic"]
        assert written(ds) == before

    def test_twice_is_unmarked(self):
        ds = marked()
        assert recover(ds, "x", READER).restored
        assert review(pixels.read(written(ds)), "x", READER).finding is Finding.UNMARKED

    def test_works_on_compressed_pixels(self):
        encoding = builders.Encoding(syntax="1.2.840.10008.1.2.4.80")
        original = dataset(phantom(256, 256, hi=3000), encoding, **PATIENT)
        assert original.PixelData[:4] == encapsulate([b"x"])[:4]
        ds = marked(original)
        assert recover(ds, "x", READER).restored
        assert np.array_equal(samples_of(ds), samples_of(reread(original)))


class TestRoles:
    """The processors of the roles `recover` and `verify`, between spool and spool."""

    @pytest.fixture
    def spool(self, tmp_path: Path) -> Spool:
        return Spool(tmp_path / "spool", 0)

    def process(
        self, role: str, spool: Spool, ds: Dataset, tmp_path: Path, ring: Ring = RING, **keys: object
    ) -> Outcome:
        route = Route.model_validate(
            {"name": "back", "role": role, "destinations": ("pacs",), **keys}, strict=False
        )
        arrival = Arrival("1.2", str(ds.SOPInstanceUID), "1.2.840.10008.1.2.1", "A", "B", "back")
        work = Work(1, 1, 1, arrival, spool.put([written(ds)]).name, TIME_S)
        kind = Recoverer if role == "recover" else Verifier
        return kind(_config(tmp_path), route, ring, spool)(work)

    def test_recover_hands_on_the_original(self, spool, tmp_path):
        original = reread(builders.mr(256, 256, **PATIENT))
        outcome = self.process("recover", spool, marked(original), tmp_path)
        assert (outcome.state, outcome.result, outcome.destinations, outcome.finding) == (
            InstanceState.READY,
            "recovered",
            ("pacs",),
            "authentic",
        )
        restored = pixels.read(spool.path(outcome.blob))
        assert (samples_of(restored) == samples_of(reread(builders.mr(256, 256, **PATIENT)))).all()

    @pytest.mark.parametrize(
        ("role", "stages"),
        [("recover", {"decode", "extract", "encode", "spool"}), ("verify", {"decode", "extract"})],
    )
    def test_both_tell_what_they_measured(self, spool, tmp_path, role, stages):
        ds = marked()
        with measured() as seen:
            self.process(role, spool, ds, tmp_path)
        assert set(seen.seconds) == stages
        assert seen.modality == "MR"

    @pytest.mark.parametrize("role", ["recover", "verify"])
    def test_that_nobody_checks_a_signature_is_said_once(self, spool, tmp_path, role, caplog):
        """A route has no public keys; what is below the layer is judged, and the ring decides."""
        signing = replace(SITE, signer=SigningKey(bytes(32)))
        route = Route.model_validate({"name": "back", "role": role, "destinations": ("pacs",)}, strict=False)
        judge = (Recoverer if role == "recover" else Verifier)(_config(tmp_path), route, RING, spool)
        outcomes = []
        for site in (SITE, signing, signing):
            ds = reread(builders.mr(256, 256, **PATIENT))
            assert protect(ds, site, TIME_S).changed
            arrival = Arrival("1.2", str(ds.SOPInstanceUID), "1.2.840.10008.1.2.1", "A", "B", "back")
            outcomes.append(judge(Work(1, 1, 1, arrival, spool.put([written(ds)]).name, TIME_S)))
            assert len(caplog.records) == min(len(outcomes) - 1, 1)
        assert {outcome.finding for outcome in outcomes} == {"authentic"}
        assert [record.msg for record in caplog.records] == ["signature-not-checked"]

    @pytest.mark.parametrize("keys", [{}, {"label": "always"}])
    def test_recovering_again_gives_the_same_bytes(self, spool, tmp_path, keys):
        """As after a kill: the label tells when an object arrived, not when it was restored."""
        first, second = (self.process("recover", spool, marked(), tmp_path, **keys) for _ in range(2))
        assert first == second
        assert ("ContributingEquipmentSequence" in pixels.read(spool.path(first.blob))) is bool(keys)

    @pytest.mark.parametrize(
        ("policy", "state", "result"),
        [
            ("hold", InstanceState.HELD, "held"),
            ("reject", InstanceState.REJECTED, "rejected"),
            ("pass", InstanceState.READY, "passed-on-finding"),
        ],
    )
    @pytest.mark.parametrize("role", ["recover", "verify"])
    def test_what_is_not_authentic_goes_by_its_finding(self, spool, tmp_path, role, policy, state, result):
        ds = altered(marked())
        keys = {"on_finding": {"pixels-altered": policy}, "on_error": "pass"}
        outcome = self.process(role, spool, ds, tmp_path, **keys)
        if role == "verify" and policy == "pass":
            result = "verified"
        assert (outcome.state, outcome.result, outcome.reason) == (state, result, "pixels-altered")
        assert outcome.finding == "pixels-altered"
        assert outcome.blob in ("", spool.put([written(ds)]).name), "as it came, or not at all"

    def test_recover_holds_everything_that_is_not_authentic(self, spool, tmp_path):
        renamed, missing = marked(), two_frames()
        renamed.PatientName = "Another^Name"
        missing.PixelData = missing.PixelData[: len(missing.PixelData) // 2]
        missing.NumberOfFrames = 1
        for ds, finding in (
            (renamed, "header-altered"),
            (missing, "pixels-altered"),
            (reread(builders.mr(256, 256)), "unmarked"),
        ):
            outcome = self.process("recover", spool, ds, tmp_path)
            assert (outcome.state, outcome.reason) == (InstanceState.HELD, finding)

    def test_a_header_that_the_record_put_right_may_leave_restored(self, spool, tmp_path):
        ds = marked()
        ds.PatientName = "Another^Name"
        outcome = self.process("recover", spool, ds, tmp_path, on_finding={"header-altered": "pass"})
        assert (outcome.state, outcome.result, outcome.reason, outcome.finding) == (
            InstanceState.READY,
            "recovered",
            "header-altered",
            "header-altered",
        )
        restored = pixels.read(spool.path(outcome.blob))
        assert restored.PatientName == "Phantom^Test"
        assert restored.OriginalAttributesSequence[0].ModifyingSystem == "n"

    def test_what_a_missing_key_keeps_shut_is_recovered_once_it_is_there(self, spool, tmp_path):
        first = self.process("recover", spool, marked(), tmp_path, Ring(OTHER_KEY))
        assert (first.state, first.finding) == (InstanceState.HELD, "wrong-key")
        again = self.process("recover", spool, marked(), tmp_path, Ring(OTHER_KEY, KEY))
        assert (again.result, again.finding) == ("recovered", "authentic")

    def test_verify_hands_everything_on_as_it_came(self, spool, tmp_path):
        for ds, finding in ((marked(), "authentic"), (altered(marked()), "pixels-altered")):
            outcome = self.process("verify", spool, ds, tmp_path)
            assert (outcome.state, outcome.result, outcome.reason, outcome.finding) == (
                InstanceState.READY,
                "verified",
                finding,
                finding,
            )
            assert outcome.blob == spool.put([written(ds)]).name

    @pytest.mark.parametrize(("role", "result"), [("recover", "recovered"), ("verify", "verified")])
    def test_what_a_revoked_key_marked_is_told_so(self, spool, tmp_path, role, result):
        ring = FileKeyRing((OTHER_KEY, KEY), {KEY.id: "2026-10-01T00:00:00Z"})
        outcome = self.process(role, spool, marked(), tmp_path, ring)
        assert (outcome.result, outcome.reason, outcome.finding) == (result, "revoked-key", "authentic")

    @pytest.mark.parametrize("role", ["recover", "verify"])
    def test_objects_without_pixels_pass_with_their_reason(self, spool, tmp_path, role):
        ds = reread(builders.mr(64, 64, **PATIENT))
        for tag in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"):
            del ds[tag]
        outcome = self.process(role, spool, ds, tmp_path, on_finding={"other": "reject"})
        assert (outcome.state, outcome.reason, outcome.finding) == (
            InstanceState.READY,
            "no-pixel-data",
            "not-judged",
        )
        for policy, state in (("hold", InstanceState.HELD), ("reject", InstanceState.REJECTED)):
            outcome = self.process(role, spool, ds, tmp_path, on_finding={"not-judged": policy})
            assert (outcome.state, outcome.reason, outcome.finding) == (state, "not-judged", "not-judged")
            assert not outcome.destinations


def _config(folder: Path) -> Config:
    return parse(
        f"node: {{id: n, ae_title: N}}\nstorage: {{folder: {folder}}}\n"
        "destinations: {pacs: {ae_title: P, host: localhost, port: 104}}\n"
        "routes: [{name: back, role: recover, destinations: [pacs]}]\n",
        folder / "node.yaml",
    )


class Counting:
    """A segmenter that counts the maps that it draws."""

    def __init__(self, name: str) -> None:
        self._drawer, self.drawn = segmenter(name), 0

    @property
    def id(self) -> str:
        return self._drawer.id

    @property
    def reach_px(self) -> int | None:
        return self._drawer.reach_px

    def roi_blocks(self, view: View) -> BoolArray:
        self.drawn += 1
        return self._drawer.roi_blocks(view)


class TestTheOrderOfSegmenters:
    RULE = SegmenterRule(use="vessels", modality=("OP",))

    @pytest.mark.parametrize("labelled", [True, False])
    def test_the_likeliest_is_tried_first_and_then_no_other(self, labelled):
        """By the label, or without one by the rule."""
        anatomy, vessels = Counting("anatomy"), Counting("vessels")
        photograph = reread(builders.secondary_capture(192, 192, Modality="OP", **PATIENT))
        assert protect(photograph, replace(SITE, segmenter=segmenter("vessels")), TIME_S).changed
        if not labelled:
            for tag in [tag for tag in photograph.keys() if tag.group == 0x0099]:  # noqa: SIM118
                del photograph[tag]
        reader = Reader(RING, (anatomy, vessels), () if labelled else ((self.RULE, vessels),))
        assert review(photograph, "x", reader).finding is Finding.AUTHENTIC
        assert anatomy.drawn == 0
        assert vessels.drawn > 0

    def test_what_anatomy_marked_in_any_framing_is_read_without_a_network(self):
        anatomy, vessels = Counting("anatomy"), Counting("vessels")
        reader = Reader(RING, (anatomy, vessels), ((self.RULE, vessels),))
        assert review(marked(), "x", reader).finding is Finding.AUTHENTIC
        small = marked(builders.mr(96, 96, **PATIENT))
        assert review(small, "x", reader).report.frames[0].framing in {"global", "header", "tile"}
        assert vessels.drawn == 0

    def test_frames_are_judged_the_same_in_batches(self):
        frames = 5
        cine = dataset(np.stack([phantom(96, 96)[0]] * frames), Encoding(bits_stored=12), Modality="XA")
        cine = reread(cine)
        assert protect(cine, replace(SITE, segmenter=segmenter("vessels"), batch_frames=3), TIME_S).changed
        found = [
            review(cine, "x", Reader(RING, (segmenter("vessels"),), batch_frames=count)).report
            for count in (1, 2, 16)
        ]
        assert found[0].finding == "authentic"
        assert len(found[0].frames) == frames
        assert found[0] == found[1] == found[2]
