"""Labels on, labels off: every element that was replaced comes back byte by byte."""

from __future__ import annotations

import io

import pytest
from pydicom import dcmread, uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from dicom_node import header, label
from dicom_node.errors import InputError
from tests.builders import Encoding, dataset, phantom, reread

NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
IMAGE_TYPE, DERIVATION, EQUIPMENT = 0x00080008, 0x00082111, 0x0018A001
#: 2026-09-21T17:46:40Z
TIME_S = 1_790_012_800
MARK = label.Mark(b"\x01\x02\x03\x04", ((1, b"sealed one"), (7, b"sealed seven!")), b"sealed originals")


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


def marked(ds: Dataset, mark: label.Mark = MARK, description: str = "what was done") -> Dataset:
    label.mark(ds, mark, node="node-1", version="0.1", time_s=TIME_S, description=description)
    return ds


def values(ds: Dataset) -> dict[int, bytes | None]:
    return {int(tag): header.value_bytes(ds, tag) for tag in ds.keys()}  # noqa: SIM118


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
        label.unmark(ds, label.originals(stored()))
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


class TestUnmark:
    @pytest.mark.parametrize("syntax", NATIVE)
    @pytest.mark.parametrize("signed", [False, True])
    def test_gives_every_element_back_byte_by_byte(self, syntax, signed):
        ds = stored(
            syntax,
            signed=signed,
            ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
            DerivationDescription="lossy once",
            InstanceCoercionDateTime="20200101",
            SmallestImagePixelValue=0x0102,
            LargestImagePixelValue=0x0F0F,
            ContributingEquipmentSequence=[item("first")],
        )
        header.put_bytes(ds, IMAGE_TYPE, "CS", b"ORIGINAL \\PRIMARY\\ODD  ")
        before = values(through_a_file(ds))
        kept = label.originals(ds)
        received = through_a_file(marked(ds))
        assert values(received) != before
        label.unmark(received, kept)
        assert values(through_a_file(received)) == before

    @pytest.mark.parametrize("syntax", NATIVE)
    def test_where_there_was_nothing_to_replace(self, syntax):
        ds = stored(syntax)
        before = values(ds)
        kept = label.originals(ds)
        assert kept, "what is sealed must not be empty"
        received = through_a_file(marked(ds))
        label.unmark(received, kept)
        assert values(through_a_file(received)) == before

    def test_text_beyond_ascii_keeps_its_bytes(self):
        ds = stored(SpecificCharacterSet="ISO_IR 100", DerivationDescription="für Köln")
        before = values(ds)
        kept = label.originals(ds)
        received = through_a_file(marked(ds))
        assert received.DerivationDescription == "für Köln; what was done"
        label.unmark(received, kept)
        assert values(through_a_file(received)) == before

    def test_marks_nest(self):
        ds = stored(ImageType=["ORIGINAL", "PRIMARY"])
        before = values(ds)
        first = label.originals(ds)
        once = through_a_file(marked(ds))
        after_one = values(once)
        second = label.originals(once)
        twice = through_a_file(marked(once, label.Mark(b"\x09\x09\x09\x09"), "again"))
        assert label.read_mark(twice) == label.Mark(b"\x09\x09\x09\x09")
        assert len(twice.ContributingEquipmentSequence) == 2
        label.unmark(twice, second)
        assert values(through_a_file(twice)) == after_one
        label.unmark(twice, first)
        assert values(through_a_file(twice)) == before

    def test_a_data_set_can_be_marked_again_afterwards(self):
        ds = stored()
        for _ in range(2):
            kept = label.originals(ds)
            assert label.read_mark(through_a_file(marked(ds))) == MARK
            label.unmark(ds, kept)

    def test_a_later_version_is_refused(self):
        ds = marked(stored())
        before = values(ds)
        with pytest.raises(InputError, match="newer dicom-node"):
            label.unmark(ds, b"\x02anything")
        assert values(ds) == before


def test_an_earlier_contributor_sequence_is_not_shared():
    """The original sequence object must not grow when a data set is marked."""
    earlier = Sequence([item("first")])
    ds = dataset(phantom(16, 16), ContributingEquipmentSequence=earlier)
    marked(ds)
    assert len(earlier) == 1
