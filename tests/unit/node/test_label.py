"""What a protected object says about itself."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from pydicom import dcmread, uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from dicom_node import header, label
from dicom_node.errors import InputError
from tests.builders import Encoding, dataset, enhanced_mr, phantom, reread

NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
IMAGE_TYPE, DERIVATION, EQUIPMENT = 0x00080008, 0x00082111, 0x0018A001
#: 2026-09-21T17:46:40Z
TIME_S = 1_790_012_800
MARK = label.Mark(b"\x01\x02\x03\x04", ((1, b"sealed one"), (7, b"sealed seven!")), b"sealed originals")
SOURCE = label.Source(str(uid.MRImageStorage), "2.25.77", "2.25.5", "2.25.6")


def stored(
    syntax: str = uid.ExplicitVRLittleEndian, *, signed: bool = False, **attributes: object
) -> Dataset:
    return reread(dataset(phantom(16, 16), Encoding(syntax=syntax, signed=signed), **attributes))


def through_a_file(ds: Dataset, syntax: str | None = None) -> Dataset:
    """As a receiver gets it; in another transfer syntax if one is named."""
    if syntax is not None:
        ds.file_meta.TransferSyntaxUID = syntax
    target = io.BytesIO()
    ds.save_as(target)
    return dcmread(io.BytesIO(target.getvalue()))


def marked(ds: Dataset, mark: label.Mark = MARK, description: str = "what was done", **more: Any) -> Dataset:
    label.mark(ds, mark, label.Note("node-1", "0.1", TIME_S, description, **more))
    return ds


def item(manufacturer: str) -> Dataset:
    contributor = Dataset()
    contributor.Manufacturer = manufacturer
    return contributor


class TestTheHintAtTheSegmenters:
    def test_it_travels(self):
        ids = ("vessels/1-0123456789ab", "whole/1")
        read = label.read_mark(through_a_file(marked(stored(), label.Mark(b"keys", segmenters=ids))))
        assert read is not None
        assert read.segmenters == ids

    def test_a_label_without_it_is_read_as_ever(self):
        read = label.read_mark(marked(stored()))
        assert read is not None
        assert read.segmenters == ()

    @pytest.mark.parametrize("forged", ["Doe^Jane", "vessels/1-XYZ", "\x1b[31m/1", "../1", "a" * 60 + "/1"])
    def test_what_is_no_id_is_not_shown(self, forged):
        ds = marked(stored(), label.Mark(b"keys", segmenters=("anatomy/1",)))
        (tag,) = (tag for tag in ds.keys() if tag.group == 0x0099 and tag.element & 0xFF == 0x05)  # noqa: SIM118
        header.put_bytes(ds, tag, "LO", f"{forged}\\anatomy/1".encode())
        assert label.read_mark(ds).segmenters == ("anatomy/1",)


class TestRestored:
    NOTE = label.Note("node-2", "0.1", TIME_S, "restored somehow", pixels_changed=False)

    def test_pixels_that_are_not_quite_the_original_ones_make_a_derived_image(self):
        ds = stored(ImageType=["ORIGINAL", "PRIMARY", "AXIAL"], DerivationDescription="earlier")
        label.mark_restored(ds, replace(self.NOTE, pixels_changed=True, source=SOURCE), Dataset())
        assert list(ds.ImageType) == ["DERIVED", "PRIMARY", "AXIAL"]
        assert ds.DerivationDescription == "earlier; restored somehow"
        assert ds.SourceImageSequence[0].ReferencedSOPInstanceUID == "2.25.77"
        assert "OriginalAttributesSequence" not in ds

    def test_the_original_gains_nothing_but_who_restored_it(self):
        ds = stored(ContributingEquipmentSequence=[item("first")])
        before = {int(tag) for tag in ds.keys()}  # noqa: SIM118
        label.mark_restored(ds, self.NOTE, Dataset())
        assert {int(tag) for tag in ds.keys()} == before  # noqa: SIM118
        _, last = through_a_file(ds).ContributingEquipmentSequence
        assert last.PurposeOfReferenceCodeSequence[0].CodeValue == "109103"
        assert (last.StationName, last.ContributionDateTime) == ("node-2", "20260921174640+0000")
        assert last.ContributionDescription == "restored somehow"

    @pytest.mark.parametrize("syntax", NATIVE)
    def test_a_field_that_was_put_right_is_told_with_what_it_held(self, syntax):
        ds = stored(syntax, PatientName="Wrong^Name", PatientID="1", SpecificCharacterSet="ISO_IR 100")
        before = label.held(ds, {0x00100010, 0x00100020, 0x00080020})
        assert not label.is_corrected(before, ds)
        ds.PatientName, ds.StudyDate = "Right^Näme", "20260921"
        ds.SpecificCharacterSet = "ISO_IR 192"
        label.mark_restored(ds, self.NOTE, before)
        (told,) = through_a_file(ds).OriginalAttributesSequence
        assert (told.ModifyingSystem, told.ReasonForTheAttributeModification) == ("node-2", "CORRECT")
        assert told.AttributeModificationDateTime == "20260921174640+0000"
        assert told.SourceOfPreviousValues == ""
        (modified,) = told.ModifiedAttributesSequence
        assert (modified.PatientName, modified.SpecificCharacterSet) == ("Wrong^Name", "ISO_IR 100")
        assert modified["StudyDate"].value == "", "it was absent"
        assert "PatientID" not in modified, "it was right"

    def test_a_value_that_cannot_be_read_is_told_as_empty(self):
        ds = stored()
        ds[0x00280106] = RawDataElement(Tag(0x00280106), "US", 3, b"odd", 0, False, True)
        before = label.held(ds, {0x00280106})
        ds[0x00280106] = RawDataElement(Tag(0x00280106), "US", 2, b"7\0", 0, False, True)
        label.mark_restored(ds, self.NOTE, before)
        (told,) = through_a_file(ds).OriginalAttributesSequence
        assert not told.ModifiedAttributesSequence[0]["SmallestImagePixelValue"].value

    def test_earlier_corrections_stay(self):
        earlier = Dataset()
        earlier.ModifyingSystem = "PACS"
        ds = stored(OriginalAttributesSequence=[earlier], PatientID="1")
        before = label.held(ds, {0x00100020})
        ds.PatientID = "2"
        label.mark_restored(ds, self.NOTE, before)
        assert [each.ModifyingSystem for each in ds.OriginalAttributesSequence] == ["PACS", "node-2"]


class TestSignatures:
    def test_are_found_in_items_where_asked_for(self):
        below = Dataset()
        below.DigitalSignaturesSequence = [Dataset()]
        ds = stored(ContributingEquipmentSequence=[below])
        assert (label.is_signed(ds), label.is_signed(ds, deep=True)) == (False, True)
        assert not label.is_signed(stored(ContributingEquipmentSequence=[item("x")]), deep=True)


class TestMark:
    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (None, ["DERIVED", "PRIMARY"]),
            ("", ["DERIVED", "PRIMARY"]),
            ("ORIGINAL", "DERIVED"),
            (["ORIGINAL", "PRIMARY", "AXIAL"], ["DERIVED", "PRIMARY", "AXIAL"]),
            (["DERIVED", "SECONDARY"], ["DERIVED", "SECONDARY"]),
        ],
    )
    def test_image_type_becomes_derived_and_keeps_the_rest(self, before, after):
        ds = stored() if before is None else stored(ImageType=before)
        assert through_a_file(marked(ds)).ImageType == after

    def test_an_image_type_of_another_kind_of_text(self):
        ds = stored()
        header.put_bytes(ds, IMAGE_TYPE, "PN", b"ORIGINAL\\PRIMARY ")
        assert through_a_file(marked(ds))[IMAGE_TYPE].value == ["DERIVED", "PRIMARY"]

    def test_says_when_by_whom_and_what(self):
        ds = through_a_file(marked(stored()))
        assert ds.InstanceCoercionDateTime == "20260921174640+0000"
        assert ds.DerivationDescription == "what was done"
        (contributor,) = ds.ContributingEquipmentSequence
        assert contributor.PurposeOfReferenceCodeSequence[0].CodeValue == "109103"
        assert contributor.PurposeOfReferenceCodeSequence[0].CodingSchemeDesignator == "DCM"
        assert (contributor.StationName, contributor.SoftwareVersions) == ("node-1", "0.1")
        assert contributor.ContributionDescription == "what was done"

    def test_keeps_what_others_said_before(self):
        ds = stored(
            DerivationDescription="lossy once", ContributingEquipmentSequence=[item("first"), item("second")]
        )
        ds = through_a_file(marked(ds))
        assert ds.DerivationDescription == "lossy once; what was done"
        names = [contributor.Manufacturer for contributor in ds.ContributingEquipmentSequence]
        assert names == ["first", "second", "dicom-node"]

    def test_stays_within_the_length_of_a_description(self):
        ds = marked(stored(DerivationDescription="x" * 1020))
        assert len(ds.DerivationDescription) == 1024

    def test_takes_stale_statistics_off(self):
        ds = marked(stored(SmallestImagePixelValue=3, LargestImagePixelValue=9))
        assert "SmallestImagePixelValue" not in ds
        assert "LargestImagePixelValue" not in ds

    @pytest.mark.parametrize("tag", [IMAGE_TYPE, DERIVATION, EQUIPMENT])
    def test_an_unreadable_element_is_an_error_that_does_not_quote_it(self, tag):
        ds = stored()
        value = b"Secret^Name "
        ds[tag] = RawDataElement(Tag(tag), "XX", len(value), value, 0, False, True)
        before = dict(ds._dict)
        with pytest.raises(InputError, match=rf"\({tag >> 16:04X},{tag & 0xFFFF:04X}\)") as caught:
            marked(ds)
        assert "Secret" not in str(caught.value)
        assert dict(ds._dict) == before


class TestPrivateBlock:
    @pytest.mark.parametrize("syntax", NATIVE)
    def test_is_read_back(self, syntax):
        assert label.read_mark(through_a_file(marked(stored(syntax)))) == MARK

    def test_survives_another_transfer_syntax(self):
        ds = through_a_file(marked(stored(uid.ImplicitVRLittleEndian)))
        assert label.read_mark(through_a_file(ds, uid.ExplicitVRLittleEndian)) == MARK

    def test_leaves_the_block_of_another_vendor_alone(self):
        ds = stored()
        block = ds.private_block(0x0099, "SOMEBODY ELSE", create=True)
        block.add_new(0x02, "LO", "theirs")
        ds = through_a_file(marked(through_a_file(ds)))
        assert label.read_mark(ds) == MARK
        assert ds.private_block(0x0099, "SOMEBODY ELSE")[0x02].value == "theirs"

    def test_nothing_is_none(self):
        assert label.read_mark(stored()) is None

    @pytest.mark.parametrize(
        ("element", "vr", "value"),
        [
            (0x1002, "OB", b"\x01\x02"),
            (0x1002, "IS", "2000000000"),  # an integer where bytes belong must not become that many bytes
            (0x1002, "LO", "text"),
        ],
    )
    def test_a_malformed_fingerprint_is_a_hint_less_or_another(self, element, vr, value):
        ds = marked(stored())
        ds.add_new(0x00990000 | element, vr, value)
        found = label.read_mark(through_a_file(ds))
        assert found is None or found.fingerprint == b"text"

    @pytest.mark.parametrize("joined", [b"", b"\0", b"\0\0\0\x01\xff\xff\xff\xff", b"\0\0\0\x01\0\0\0\x03ab"])
    def test_parts_that_do_not_fit_are_left_out(self, joined):
        ds = marked(stored())
        ds.add_new(0x00991003, "OB", joined)
        found = label.read_mark(ds)
        assert found is not None
        assert found.sealed_records == ()


class TestDerivation:
    def test_is_coded_in_the_private_scheme_which_is_identified(self):
        ds = through_a_file(marked(stored()))
        (code,) = ds.DerivationCodeSequence
        assert (code.CodeValue, code.CodingSchemeDesignator) == ("WATERMARK", "99DNODE")
        (scheme,) = ds.CodingSchemeIdentificationSequence
        assert scheme.CodingSchemeDesignator == "99DNODE"

    def test_identifies_the_scheme_once_however_often_it_is_marked(self):
        ds = through_a_file(marked(marked(stored())))
        assert len(ds.CodingSchemeIdentificationSequence) == 1
        assert len(ds.DerivationCodeSequence) == 2

    def test_names_the_source_image_where_it_may(self):
        ds = through_a_file(marked(stored(), source=SOURCE))
        (source,) = ds.SourceImageSequence
        assert source.ReferencedSOPClassUID == SOURCE.sop_class
        assert source.ReferencedSOPInstanceUID == SOURCE.sop_instance
        assert source.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
        assert source.SpatialLocationsPreserved == "YES"
        assert "SourceImageSequence" not in marked(stored())

    def test_an_image_whose_pixels_did_not_change_is_not_derived(self):
        ds = through_a_file(marked(stored(ImageType=["ORIGINAL", "PRIMARY"]), pixels_changed=False))
        assert ds.ImageType == ["ORIGINAL", "PRIMARY"]
        assert "DerivationDescription" not in ds
        assert ds.ContributingEquipmentSequence[0].ContributionDescription == "what was done"

    def test_takes_signatures_off(self):
        ds = stored(MACParametersSequence=[Dataset()], DigitalSignaturesSequence=[Dataset()])
        assert not set(label.SIGNATURES) & set(marked(ds, pixels_changed=False).keys())

    def test_says_so_twice_when_it_also_de_identified(self):
        ds = marked(stored(), deidentified=True)
        codes = [c.PurposeOfReferenceCodeSequence[0].CodeValue for c in ds.ContributingEquipmentSequence]
        assert codes == ["109103", "109104"]


class TestEnhanced:
    @staticmethod
    def enhanced(*, derivation: bool = False) -> Dataset:
        groups = []
        for number in range(3):
            kind, group = Dataset(), Dataset()
            kind.FrameType = ["ORIGINAL", "PRIMARY", "M", str(number)]
            group.MRImageFrameTypeSequence = [kind]
            if derivation:
                group.DerivationImageSequence = [Dataset()]
            groups.append(group)
        return reread(enhanced_mr(16, 16, frames=3, PerFrameFunctionalGroupsSequence=groups))

    def test_every_frame_type_becomes_derived_and_keeps_the_rest(self):
        ds = through_a_file(marked(self.enhanced()))
        types = [group.MRImageFrameTypeSequence[0].FrameType for group in ds.PerFrameFunctionalGroupsSequence]
        assert types == [["DERIVED", "PRIMARY", "M", str(number)] for number in range(3)]

    def test_the_derivation_stands_in_the_shared_groups(self):
        ds = through_a_file(marked(self.enhanced(), source=SOURCE))
        (derivation,) = ds.SharedFunctionalGroupsSequence[0].DerivationImageSequence
        assert derivation.DerivationDescription == "what was done"
        assert derivation.DerivationCodeSequence[0].CodingSchemeDesignator == "99DNODE"
        assert derivation.SourceImageSequence[0].ReferencedSOPInstanceUID == SOURCE.sop_instance
        assert "DerivationDescription" not in ds
        (evidence,) = ds.SourceImageEvidenceSequence
        (series,) = evidence.ReferencedSeriesSequence
        assert (evidence.StudyInstanceUID, series.SeriesInstanceUID) == (SOURCE.study, SOURCE.series)
        assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == SOURCE.sop_instance

    def test_without_another_instance_there_is_no_derivation_to_name(self):
        ds = through_a_file(marked(self.enhanced(derivation=True)))
        assert [len(group.DerivationImageSequence) for group in ds.PerFrameFunctionalGroupsSequence] == [
            1
        ] * 3
        assert "CodingSchemeIdentificationSequence" not in ds
        assert ds.ImageType[0] == "DERIVED"

    def test_or_in_every_frame_where_frames_have_their_own(self):
        ds = through_a_file(marked(self.enhanced(derivation=True), source=SOURCE))
        counts = [len(group.DerivationImageSequence) for group in ds.PerFrameFunctionalGroupsSequence]
        assert counts == [2, 2, 2]
        assert "SharedFunctionalGroupsSequence" not in ds

    def test_the_groups_that_were_read_are_not_touched(self):
        ds = self.enhanced()
        groups = ds.PerFrameFunctionalGroupsSequence
        marked(ds)
        assert groups[0].MRImageFrameTypeSequence[0].FrameType[0] == "ORIGINAL"


def test_an_earlier_contributor_sequence_is_not_shared():
    """The original sequence object must not grow when a data set is marked."""
    earlier = Sequence([item("first")])
    ds = dataset(phantom(16, 16), ContributingEquipmentSequence=earlier)
    marked(ds)
    assert len(earlier) == 1


class TestEveryPrivateBlockIsTaken:
    def taken(self) -> Dataset:
        ds = stored()
        for slot in range(0x10, 0x100):
            ds.add_new(0x00990000 | slot, "LO", f"OTHER {slot}")
        return ds

    def test_it_says_what_to_do_and_changes_nothing(self):
        ds = self.taken()
        before = ds.to_json()
        with pytest.raises(InputError, match="240 private blocks of group 0099"):
            marked(ds)
        assert ds.to_json() == before

    def test_one_that_is_ours_already_is_used(self):
        ds = self.taken()
        ds[0x009900FF].value = "DICOM-NODE"
        assert label.read_mark(marked(ds)) == MARK

    def test_the_last_free_one_is_used(self):
        ds = self.taken()
        del ds[0x009900FF]
        assert label.read_mark(marked(ds)) == MARK


def test_signatures_and_portraits_travel():
    said = label.Mark(b"keys", signatures=((1, b"s" * 77), (3, b"t" * 77)), sealed_portraits=b"sealed")
    assert label.read_mark(through_a_file(marked(stored(), said))) == said
