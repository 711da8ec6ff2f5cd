"""Value bytes in and out of a data set, whatever it is stored in."""

from __future__ import annotations

import io

import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from blessmark.errors import PixelError
from dicom_node import header
from dicom_node.errors import InputError
from dicom_node.header import (
    SPECIFIC_CHARACTER_SET,
    HeaderFields,
    put_bytes,
    read_fields,
    restore_fields,
    value_bytes,
    value_representation,
)
from tests.builders import Encoding, dataset, phantom, reread

NAME, PATIENT_ID, DESCRIPTION, ROWS = 0x00100010, 0x00100020, 0x00081030, 0x00280010
SMALLEST, FRAME_TIME, WINDOW = 0x00280106, 0x00181063, 0x00281050
NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)


def stored(
    syntax: str = uid.ExplicitVRLittleEndian, *, signed: bool = False, **attributes: object
) -> Dataset:
    """A small image as it comes out of a file, every value raw."""
    return reread(dataset(phantom(16, 16), Encoding(syntax=syntax, signed=signed), **attributes))


def rewritten(ds: Dataset) -> Dataset:
    """Through a file and back."""
    from pydicom import dcmread

    target = io.BytesIO()
    ds.save_as(target)
    return dcmread(io.BytesIO(target.getvalue()))


class TestReading:
    @pytest.mark.parametrize("syntax", NATIVE)
    def test_text_comes_as_stored_with_its_padding(self, syntax):
        ds = stored(syntax, PatientID="ABC", SOPInstanceUID="1.2.3", StudyDescription="four")
        assert value_bytes(ds, PATIENT_ID) == b"ABC "
        assert value_bytes(ds, 0x00080018) == b"1.2.3\0"
        assert value_bytes(ds, DESCRIPTION) == b"four"

    @pytest.mark.parametrize("syntax", NATIVE)
    def test_numbers_are_little_endian_always(self, syntax):
        ds = stored(syntax, SmallestImagePixelValue=0x0102)
        assert value_bytes(ds, ROWS) == b"\x10\0"
        assert value_bytes(ds, SMALLEST) == b"\x02\x01"

    @pytest.mark.parametrize("syntax", NATIVE)
    def test_reading_decodes_nothing(self, syntax):
        ds = stored(syntax)
        before = dict(ds._dict)
        read_fields(ds, [int(tag) for tag in ds.keys()])  # noqa: SIM118
        assert all(ds._dict[tag] is element for tag, element in before.items())

    def test_decoded_elements_are_encoded_again(self):
        ds = stored()
        ds.SpecificCharacterSet = "ISO_IR 100"
        ds.PatientName = "Ärger^Test"
        assert value_bytes(ds, NAME) == "Ärger^Test".encode("latin-1")
        ds.FrameTime = "40"
        assert value_bytes(ds, FRAME_TIME) == b"40"

    def test_absent_and_empty_differ(self):
        ds = stored(PatientID="")
        assert value_bytes(ds, PATIENT_ID) == b""
        assert value_bytes(ds, DESCRIPTION) is None
        assert read_fields(ds, (PATIENT_ID, DESCRIPTION)) == {PATIENT_ID: b""}

    def test_bytes_that_fit_no_character_set_pass_untouched(self):
        ds = stored()
        put_bytes(ds, NAME, "PN", b"\xff\xfe^\x80 ")
        assert value_bytes(rewritten(ds), NAME) == b"\xff\xfe^\x80 "


class TestRepresentation:
    @pytest.mark.parametrize("syntax", NATIVE)
    @pytest.mark.parametrize(("signed", "vr"), [(False, "US"), (True, "SS")])
    def test_follows_the_sign_where_the_dictionary_leaves_it_open(self, syntax, signed, vr):
        ds = stored(syntax, signed=signed)
        put_bytes(ds, SMALLEST, vr, b"\3\0")
        assert value_representation(rewritten(ds), SMALLEST) == vr

    def test_of_elements_that_are_absent_or_unknown(self):
        ds = stored(uid.ImplicitVRLittleEndian)
        assert value_representation(ds, NAME) == "PN"
        assert value_representation(ds, 0x00990110) == "UN"


class TestRestoring:
    @pytest.mark.parametrize("syntax", NATIVE)
    def test_writes_what_differs_and_nothing_else(self, syntax):
        ds = stored(syntax, PatientID="ABC", StudyDescription="before")
        fields = read_fields(ds, (PATIENT_ID, DESCRIPTION, ROWS))
        kept = ds._dict[PATIENT_ID]
        ds.StudyDescription = "after"
        restore_fields(ds, fields, b"")
        assert ds._dict[PATIENT_ID] is kept
        assert read_fields(rewritten(ds), fields) == fields

    @pytest.mark.parametrize("syntax", NATIVE)
    def test_numbers_and_removed_elements_come_back(self, syntax):
        ds = stored(syntax, SmallestImagePixelValue=0x0102, FrameTime="40")
        fields = read_fields(ds, (SMALLEST, FRAME_TIME))
        ds.SmallestImagePixelValue = 9
        del ds.FrameTime
        restore_fields(ds, fields, b"")
        back = rewritten(ds)
        assert (back.SmallestImagePixelValue, back.FrameTime) == (0x0102, 40)
        assert read_fields(back, fields) == fields

    def test_goes_back_to_the_character_set_of_the_record(self):
        """An archive re-coded the whole header to UTF-8; names must not turn into other names."""
        ds = stored(SpecificCharacterSet="ISO_IR 100", PatientName="Jürgen^Ö", InstitutionName="Köln")
        fields = read_fields(ds, (NAME,))
        institution = value_bytes(ds, 0x00080080)
        ds.decode()
        ds.SpecificCharacterSet = "ISO_IR 192"
        archived = rewritten(ds)
        assert value_bytes(archived, NAME) != fields[NAME]

        restore_fields(archived, fields, b"ISO_IR 100")
        back = rewritten(archived)
        assert value_bytes(back, SPECIFIC_CHARACTER_SET) == b"ISO_IR 100"
        assert value_bytes(back, NAME) == fields[NAME]
        assert value_bytes(back, 0x00080080) == institution
        assert (back.PatientName, back.InstitutionName) == ("Jürgen^Ö", "Köln")

    def test_a_record_without_a_character_set_takes_it_off_again(self):
        ds = stored(PatientName="Plain^Ascii")
        fields = read_fields(ds, (NAME,))
        ds.SpecificCharacterSet = "ISO_IR 192"
        archived = rewritten(ds)
        restore_fields(archived, fields, b"")
        assert SPECIFIC_CHARACTER_SET not in rewritten(archived)

    def test_padding_of_the_character_set_is_no_difference(self):
        ds = stored(SpecificCharacterSet="ISO_IR 13")
        kept = ds._dict[SPECIFIC_CHARACTER_SET]
        restore_fields(ds, {}, b"ISO_IR 13")
        assert ds._dict[SPECIFIC_CHARACTER_SET] is kept


def test_header_fields_is_a_mapping_on_demand():
    ds = stored(PatientID="ABC")
    fields = HeaderFields(ds)
    assert fields[PATIENT_ID] == b"ABC "
    assert fields.get(DESCRIPTION, b"none") == b"none"
    assert set(fields) == {int(tag) for tag in ds.keys()}  # noqa: SIM118
    assert len(fields) == len(ds)
    with pytest.raises(KeyError):
        fields[DESCRIPTION]


def test_an_element_that_is_not_what_its_vr_says_is_named_without_its_value():
    ds = stored(PatientName="Phantom^Test")
    ds[NAME].VR = "US"
    with pytest.raises(InputError) as caught, header.readable(ds):
        value_bytes(ds, NAME)
    assert str(caught.value).startswith("element (0010,0010) holds bytes that are not a value of its type;")
    assert "Phantom" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_one_that_cannot_be_told_has_no_number():
    with pytest.raises(InputError, match="an element of the header holds"), header.readable(stored()):
        raise OSError("for data_element: somebody")


@pytest.mark.parametrize(
    "error", [PixelError("broken"), InputError("ours"), AssertionError("a mistake of ours")]
)
def test_errors_that_are_not_about_values_stay_what_they_are(error):
    with pytest.raises(type(error), match=str(error)), header.readable(stored()):
        raise error
