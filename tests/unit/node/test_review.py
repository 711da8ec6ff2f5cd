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
from blessmark.segment import segmenter
from blessmark.types import BoolArray, Carrier, Finding, View
from dicom_node import header
from dicom_node.config import Config, Deidentify, OnError, Profile, Role, Route, SegmenterRule, Uids, parse
from dicom_node.jobs import Arrival, InstanceState, Outcome, Work
from dicom_node.protect import Site, protect, written
from dicom_node.review import Reader, Recoverer, Verifier, recover, review
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

    def test_is_unmarked_to_those_without_the_key(self):
        other = Reader(Ring(OTHER_KEY), (segmenter("anatomy"),))
        assert review(self.sent(), "x", other).finding is Finding.UNMARKED


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

    def test_exchanged_frames_are_not_authentic(self):
        ds = two_frames()
        half = len(ds.PixelData) // 2
        ds.PixelData = ds.PixelData[half:] + ds.PixelData[:half]
        assert review(ds, "x", READER).finding is not Finding.AUTHENTIC

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
        self, role: str, spool: Spool, ds: Dataset, tmp_path: Path, on_error: str = "hold"
    ) -> Outcome:
        route = Route.model_validate(
            {"name": "back", "role": Role(role), "destinations": ("pacs",), "on_error": OnError(on_error)}
        )
        arrival = Arrival("1.2", str(ds.SOPInstanceUID), "1.2.840.10008.1.2.1", "A", "B", "back")
        work = Work(1, 1, 1, arrival, spool.put([written(ds)]).name)
        kind = Recoverer if role == "recover" else Verifier
        return kind(_config(tmp_path), route, RING, spool)(work)

    def test_recover_hands_on_the_original(self, spool, tmp_path):
        original = reread(builders.mr(256, 256, **PATIENT))
        outcome = self.process("recover", spool, marked(original), tmp_path)
        assert (outcome.state, outcome.result, outcome.destinations) == (
            InstanceState.READY,
            "recovered",
            ("pacs",),
        )
        restored = pixels.read(spool.path(outcome.blob))
        assert (samples_of(restored) == samples_of(reread(builders.mr(256, 256, **PATIENT)))).all()

    @pytest.mark.parametrize(
        ("on_error", "state", "result"),
        [
            ("hold", InstanceState.HELD, "held"),
            ("reject", InstanceState.REJECTED, "rejected"),
            ("pass", InstanceState.READY, "passed-on-error"),
        ],
    )
    def test_recover_hands_nothing_on_unasked_that_is_not_proven(
        self, spool, tmp_path, on_error, state, result
    ):
        ds = altered(marked())
        outcome = self.process("recover", spool, ds, tmp_path, on_error)
        assert (outcome.state, outcome.result, outcome.reason) == (state, result, "pixels-altered")
        assert outcome.blob in ("", spool.put([written(ds)]).name)

    def test_verify_hands_everything_on_as_it_came(self, spool, tmp_path):
        for ds, finding in ((marked(), "authentic"), (altered(marked()), "pixels-altered")):
            outcome = self.process("verify", spool, ds, tmp_path)
            assert (outcome.state, outcome.result, outcome.reason) == (
                InstanceState.READY,
                "verified",
                finding,
            )
            assert outcome.blob == spool.put([written(ds)]).name

    @pytest.mark.parametrize("role", ["recover", "verify"])
    def test_objects_without_pixels_pass_with_their_reason(self, spool, tmp_path, role):
        ds = reread(builders.mr(64, 64, **PATIENT))
        for tag in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"):
            del ds[tag]
        outcome = self.process(role, spool, ds, tmp_path)
        assert (outcome.state, outcome.reason) == (InstanceState.READY, "no-pixel-data")


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
