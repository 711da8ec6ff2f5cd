"""What is added by keyword is what pydicom would have made of it, whichever of the two ways it goes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import uid
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from blessmark import pixels
from blessmark.pixels import Content, Fixed
from tests.builders import Encoding, ct, dataset, file_bytes, phantom

TEXT = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\0", max_codepoint=255), max_size=30
)
SYNTAXES = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
BLOCK = 0x00991000


def arrived(syntax: str = uid.ExplicitVRLittleEndian, **attributes: object) -> Dataset:
    attributes = {"SpecificCharacterSet": "ISO_IR 100", **attributes}
    return pixels.read(file_bytes(dataset(phantom(8, 8), Encoding(syntax=syntax), **attributes)))


def by_pydicom(ds: Dataset, content: Content) -> Dataset:
    for keyword, value in content.items():
        setattr(ds, keyword, value if isinstance(value, str) else [_item(each) for each in value])
    return ds


def _item(content: Content | Dataset) -> Dataset:
    return content if isinstance(content, Dataset) else by_pydicom(Dataset(), content)


def written(ds: Dataset) -> bytes:
    return b"".join(pixels.parts(ds))


def a_content(text: str, *items: Dataset) -> Content:
    purpose: Content = {"CodeValue": "1", "CodeMeaning": text, "CodingSchemeDesignator": "DCM"}
    return {
        "DerivationDescription": text,
        "InstanceCoercionDateTime": "20260101",
        "ReferencedSOPInstanceUID": "1.2.3",
        "ContributingEquipmentSequence": [
            *items,
            {"SoftwareVersions": text, "Manufacturer": "x", "PurposeOfReferenceCodeSequence": [purpose]},
        ],
    }


@given(TEXT, st.sampled_from(SYNTAXES))
def test_new_elements(text, syntax):
    ds, expected = arrived(syntax), by_pydicom(arrived(syntax), a_content(text))
    pixels.add(ds, a_content(text))
    assert written(ds) == written(expected)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_elements_that_were_there(syntax):
    earlier = Dataset()
    earlier.Manufacturer, earlier.InstitutionName = "y", "Å"
    before = arrived(syntax, DerivationDescription="before", ContributingEquipmentSequence=[earlier])
    before["ContributingEquipmentSequence"].is_undefined_length = True
    content = file_bytes(before)
    ds, expected = pixels.read(content), pixels.read(content)
    pixels.add(ds, a_content("x", *ds.ContributingEquipmentSequence))
    by_pydicom(expected, a_content("x", *expected.ContributingEquipmentSequence))
    assert written(ds) == written(expected)


def test_what_was_taken_away_and_comes_again_is_compared_by_its_value():
    ds = arrived(DerivationDescription="the same")
    raw = ds.get_item("DerivationDescription")
    del ds.DerivationDescription
    pixels.add(ds, {"DerivationDescription": "the same"})
    assert isinstance(raw, RawDataElement)
    assert isinstance(ds.get_item("DerivationDescription"), DataElement)
    assert written(ds) == written(arrived(DerivationDescription="the same"))


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(
    ("vr", "value"), [("LO", "DICOM-NODE"), ("LO", "a\\bcd"), ("LO", "Å"), ("OB", b"1234")]
)
def test_elements_by_tag(syntax, vr, value):
    ds, expected = arrived(syntax), arrived(syntax)
    for _ in range(2):  # the second takes the place of the first
        pixels.put(ds, 0x00990010, "LO", "SOMEBODY")
        pixels.put(ds, BLOCK, vr, value)
    expected.add_new(0x00990010, "LO", "SOMEBODY")
    expected.add_new(BLOCK, vr, value)
    assert written(ds) == written(expected)


def test_a_data_set_made_in_memory_holds_what_pydicom_makes():
    ds = ct(8, 8)
    pixels.add(ds, a_content("x"))
    pixels.put(ds, BLOCK, "OB", b"12")
    assert all(isinstance(item, DataElement) for item in ds._dict.values())


def test_what_was_added_is_read_as_any_other():
    ds = arrived()
    pixels.add(ds, a_content("text"))
    assert isinstance(ds.get_item("DerivationDescription"), RawDataElement)
    assert ds.DerivationDescription == "text"
    assert ds.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0].CodeMeaning == "text"


def test_text_that_is_too_long_for_its_length_is_pydicoms_affair():
    ds = arrived()
    pixels.add(ds, {"DerivationDescription": "x" * 70_000})
    assert isinstance(ds.get_item("DerivationDescription"), DataElement)


def test_an_item_is_made_once():
    item = pixels.made({"CodeValue": "1"})
    assert pixels.made(item) is item
    assert item.CodeValue == "1"


WORDS = [
    "ORIGINAL\\PRIMARY\\AXIAL",
    "ORIGINAL\\PRIMARY",
    "PRIMARY\\A_1\\B",
    "ORIGINAL",
    "DERIVED\\PRIMARY",
    "",
]
ODD_WORDS = ["ORIGINAL\\\\AXIAL", "ORIGINAL\\CT SPI", "ORIGINAL\\ AXIAL", "original\\x"]


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("words", WORDS + ODD_WORDS)
def test_a_first_word_is_put_as_pydicom_would_or_not_at_all(words: str, syntax: str) -> None:
    ours, theirs = (arrived(syntax, ImageType=words) for _ in range(2))
    done = pixels.put_first(ours, 0x00080008, "DERIVED")
    assert done == (words in WORDS[:3])
    if done:
        theirs.ImageType = ["DERIVED", *theirs.ImageType[1:]]
    assert written(ours) == written(theirs)
    assert ours.ImageType == theirs.ImageType


def test_a_first_word_is_not_put_into_what_was_looked_at_or_made_in_memory() -> None:
    looked_at, made = arrived(ImageType="ORIGINAL\\PRIMARY"), dataset(phantom(8, 8))
    assert looked_at.ImageType[0] == "ORIGINAL"
    made.ImageType = ["ORIGINAL", "PRIMARY"]
    assert not pixels.put_first(looked_at, 0x00080008, "DERIVED")
    assert not pixels.put_first(made, 0x00080008, "DERIVED")
    assert not pixels.put_first(arrived(), 0x00080009, "DERIVED")


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_fixed_item_is_the_same_in_every_data_set(syntax: str) -> None:
    code = {"CodeValue": "1", "CodingSchemeDesignator": "99X", "CodeMeaning": "one"}
    fixed = Fixed({**code, "EquivalentCodeSequence": [Fixed(code)]})
    plain = {**code, "EquivalentCodeSequence": [code]}
    for _ in range(2):
        first, second = arrived(syntax), arrived(syntax)
        pixels.add(first, {"DerivationCodeSequence": [fixed, code]})
        pixels.add(second, {"DerivationCodeSequence": [plain, code]})
        assert written(first) == written(second)
        first.DerivationCodeSequence[0].CodeMeaning = "another"  # is nobody else's


def test_a_fixed_item_that_pydicom_must_write_is_written_by_it_each_time() -> None:
    fixed = Fixed({"CodeMeaning": "prüfen"})
    for _ in range(2):
        ds = arrived()
        pixels.add(ds, {"DerivationCodeSequence": [fixed]})
        assert pixels.read(written(ds)).DerivationCodeSequence[0].CodeMeaning == "prüfen"
    assert pixels.made(fixed) is not pixels.made(fixed)


def test_whether_there_is_an_element() -> None:
    ds = arrived()
    assert pixels.has(ds, 0x00080018)
    assert not pixels.has(ds, 0x00080019)
    assert pixels.tag_object(0x00080018) is pixels.tag_object(0x00080018)
