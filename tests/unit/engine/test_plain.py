"""What is written without a library is what the library writes, byte for byte; what is not, is left to it."""

from __future__ import annotations

import struct
from pathlib import Path

import pydicom.data
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import charset, uid
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from blessmark import pixels
from blessmark.pixels.plain import Encoding, plain, plain_meta, plain_value
from tests.builders import ct, reread

ENCODINGS = (Encoding(True, True), Encoding(False, True), Encoding(False, False))
ENCODING = st.sampled_from(ENCODINGS)
ASCII = st.text(st.characters(codec="ascii", exclude_categories=()), max_size=40)
TEXTS = {
    "CS": 0x00080060,
    "LO": 0x00100020,
    "SH": 0x00080050,
    "ST": 0x00082111,
    "DT": 0x0008002A,
    "UT": 0x0040A160,
}
FILES = Path(pydicom.data.__file__).parent / "test_files"


def by_pydicom(
    element: DataElement | RawDataElement, encoding: Encoding, names: list[str] | None = None
) -> bytes:
    target = DicomBytesIO()
    target.is_little_endian, target.is_implicit_VR = encoding.little, encoding.implicit
    write_data_element(target, element, names)
    return bytes(target.getvalue())


def a_sequence(*texts: str) -> DataElement:
    """A sequence of one item, with text, UIDs and another sequence in it."""
    inner, item = Dataset(), Dataset()
    inner.CodeValue, inner.CodingSchemeDesignator, inner.CodeMeaning = "1", "DCM", texts[0]
    item.Manufacturer, item.SoftwareVersions = texts[0], list(texts)
    item.ReferencedSOPInstanceUID = "1.2.3"
    item.PurposeOfReferenceCodeSequence = Sequence([inner, inner])
    return DataElement(0x0018A001, "SQ", Sequence([item, inner]))


@given(st.sampled_from(sorted(TEXTS)), ASCII, ENCODING)
def test_text_of_one_value_or_several(vr, text, encoding):
    element = DataElement(TEXTS[vr], vr, text)
    assert plain(element, encoding) == by_pydicom(element, encoding)


@given(st.lists(ASCII, min_size=1, max_size=4), ENCODING)
def test_sequences_of_text(texts, encoding):
    element = a_sequence(*texts)
    assert plain(element, encoding) == by_pydicom(element, encoding)


@given(st.binary(max_size=70), ENCODING)
def test_bytes_and_uids(value, encoding):
    for element in (
        DataElement(0x00990010, "OB", value),
        DataElement(0x00080018, "UI", "1.2." + "3" * len(value)),
    ):
        assert plain(element, encoding) == by_pydicom(element, encoding)


@given(st.binary(max_size=70), st.sampled_from(["OB", "SQ", "UN", "US", "LO", "PN"]), ENCODING)
def test_what_was_read_stays_as_it_was_read(value, vr, encoding):
    raw = RawDataElement(BaseTag(0x00091001), vr, len(value), value, 0, encoding.implicit, encoding.little)
    assert plain(raw, encoding) == by_pydicom(raw, encoding)
    others = [other for other in ENCODINGS if other != encoding]
    assert [plain(raw, other) for other in others] == [None, None]


@pytest.mark.parametrize("name", sorted(charset.python_encoding))
def test_ascii_is_the_same_in_every_character_set(name):
    text = "".join(map(chr, range(128))).replace("\\", "")
    names = charset.convert_encodings(["", name] if name.startswith("ISO 2022") else name)
    element = DataElement(0x00082111, "ST", text)
    assert plain(element, ENCODINGS[1]) == by_pydicom(element, ENCODINGS[1], names)


@pytest.mark.parametrize(
    "element",
    [
        DataElement(0x00082111, "ST", "Å"),
        DataElement(0x00100010, "PN", "A^B"),
        DataElement(0x00280010, "US", 512),
        DataElement(0x00180050, "DS", "1.5"),
        DataElement(0x00081140, "SQ", Sequence([reread(ct(8, 8))])),
        a_sequence("Å"),
        a_sequence("x" * 70_000),
        DataElement(0x00100020, "LO", None),
        RawDataElement(BaseTag(0x7FE00010), "OB", 0xFFFFFFFF, b"", 0, False, True),
        RawDataElement(BaseTag(0x7FE00010), "OB", 0, None, 0, False, True),
    ],
)
def test_everything_else_is_left_to_pydicom(element):
    assert plain(element, ENCODINGS[1]) is None


@pytest.mark.parametrize(("vr", "head"), [("LO", 8), ("UI", 8), ("UT", 12), ("OB", 12), ("SQ", 12)])
def test_the_value_alone_is_what_stands_behind_the_head(vr, head):
    item = Dataset()
    item.CodeValue = "1"
    value = {"UI": "1.2.3", "OB": b"odd", "SQ": Sequence([item])}.get(vr, "text")
    element = DataElement(0x00091001, vr, value)
    assert plain_value(element) == by_pydicom(element, Encoding(implicit=False, little=True))[head:]


@pytest.mark.parametrize(("vr", "value"), [("US", 1), ("PN", "A^B"), ("LO", "x" * 70_000), ("US or SS", 1)])
def test_a_value_that_leaves_a_choice_is_left_to_pydicom(vr, value):
    assert plain_value(DataElement(0x00091001, vr, value)) is None


def test_lengths_that_are_undefined_are_left_to_pydicom():
    whole = a_sequence("x")
    whole.is_undefined_length = True
    part = a_sequence("x")
    part.value[0].is_undefined_length_sequence_item = True
    assert plain(whole, ENCODINGS[1]) is plain(part, ENCODINGS[1]) is None


def test_an_encoding_is_that_of_its_transfer_syntax():
    found = [
        Encoding.of_syntax(syntax)
        for syntax in (uid.ImplicitVRLittleEndian, uid.JPEG2000Lossless, uid.ExplicitVRBigEndian)
    ]
    assert tuple(found) == ENCODINGS


def test_the_heads_of_elements_and_items():
    assert ENCODINGS[0].element(0x00080060, "CS", b"CT") == b"\x08\0\x60\0\2\0\0\0CT"
    assert ENCODINGS[1].element(0x00080060, "CS", b"CT") == b"\x08\0\x60\0CS\2\0CT"
    assert ENCODINGS[2].element(0x00420011, "OB", b"%P") == b"\0\x42\0\x11OB\0\0\0\0\0\2%P"
    assert ENCODINGS[1].item(b"12") == b"\xfe\xff\0\xe0\2\0\0\x0012"


@pytest.mark.parametrize("path", sorted(FILES.glob("*.dcm")), ids=lambda path: path.name)
def test_file_meta_of_real_files(path):
    ds = pydicom.dcmread(path, force=True)
    by_hand = plain_meta(ds.file_meta)
    target = DicomBytesIO()
    write_file_meta_info(target, ds.file_meta, enforce_standard=False)
    assert by_hand in (None, target.getvalue())


def test_file_meta_says_its_length_if_it_did():
    ds = reread(ct(8, 8, PatientID="1"))
    ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    found = plain_meta(ds.file_meta)
    assert found is not None
    assert struct.unpack("<I", found[8:12]) == (len(found) - 12,)
    del ds.file_meta[0x00020000]
    assert plain_meta(ds.file_meta) == found[12:]
    ds.file_meta.add_new(0x000200FF, "US", 3)
    assert plain_meta(ds.file_meta) is None


def test_a_file_of_them_is_read_again():
    ds = reread(ct(8, 8))
    ds.ContributingEquipmentSequence = a_sequence("one", "two").value
    again = pixels.read(b"".join(pixels.parts(ds)))
    assert again.ContributingEquipmentSequence[0].SoftwareVersions == ["one", "two"]
