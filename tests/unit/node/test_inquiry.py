"""What an archive is asked, and what its answers are worth as text."""

from __future__ import annotations

import io

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.errors import UsageError
from dicom_node.inquiry import (
    Inquiry,
    Level,
    Order,
    Row,
    character_set,
    identifier,
    readable,
    row_of,
    row_of_json,
    shown,
)


def raw(**values: bytes) -> Dataset:
    """An Identifier as it comes off the wire: Explicit VR Little Endian, every value as these bytes."""
    encoded = b""
    for keyword, value in sorted(values.items(), key=lambda pair: _TAGS[pair[0]]):
        group, element, vr = _TAGS[keyword]
        value += b" " * (len(value) % 2)
        encoded += group.to_bytes(2, "little") + element.to_bytes(2, "little") + vr
        encoded += len(value).to_bytes(2, "little") + value
    return dcmread(io.BytesIO(encoded), force=True)


_TAGS = {
    "SpecificCharacterSet": (0x0008, 0x0005, b"CS"),
    "PatientName": (0x0010, 0x0010, b"PN"),
    "PatientID": (0x0010, 0x0020, b"LO"),
    "NumberOfFrames": (0x0028, 0x0008, b"IS"),
}


# what is asked


def test_a_question_goes_down_from_the_study() -> None:
    assert Inquiry(Level.PATIENT).steps() == (Level.PATIENT,)
    assert Inquiry(Level.STUDY).steps() == (Level.STUDY,)
    assert Inquiry(Level.IMAGE).steps() == (Level.STUDY, Level.SERIES, Level.IMAGE)


def test_every_key_is_matched_at_its_level() -> None:
    keys = {"PatientID": "P*", "Modality": "CT", "SOPClassUID": "1.2", "KVP": "120"}
    inquiry = Inquiry(Level.IMAGE, keys, ("ImageType", "PatientComments"))
    assert inquiry.matched_at(Level.STUDY) == {"PatientID": "P*", "ModalitiesInStudy": "CT"}
    assert inquiry.matched_at(Level.SERIES) == {"Modality": "CT"}
    assert inquiry.matched_at(Level.IMAGE) == {"SOPClassUID": "1.2", "KVP": "120"}
    assert "ImageType" in inquiry.wanted_at(Level.IMAGE)


def test_a_key_below_the_level_that_is_asked_for_is_matched_there() -> None:
    assert Inquiry(Level.STUDY, {"SeriesDescription": "x"}).matched_at(Level.STUDY) == {
        "SeriesDescription": "x"
    }
    assert Inquiry(Level.PATIENT, {"StudyDate": "x"}).matched_at(Level.PATIENT) == {"StudyDate": "x"}


@pytest.mark.parametrize("keyword", ["PatientsName", "PixelData", "ReferencedStudySequence"])
def test_what_is_no_key_is_told(keyword: str) -> None:
    with pytest.raises(UsageError, match=keyword):
        Inquiry(Level.STUDY, {keyword: "x"}).check()


def test_a_request_says_its_character_set_only_where_it_needs_one() -> None:
    assert character_set(["DOE^*", ""]) == ""
    assert character_set(["MÜLLER^*"]) == "ISO_IR 100"
    assert character_set(["MÜLLER^*", "山田*"]) == "ISO_IR 192"
    asked = identifier(Level.STUDY, {"PatientName": "MÜLLER^*"}, ("PatientName", "StudyDate"))
    assert asked.SpecificCharacterSet == "ISO_IR 100"
    assert asked.QueryRetrieveLevel == "STUDY"
    assert not asked["StudyDate"].value


def test_lists_of_uids_are_lists() -> None:
    asked = identifier(Level.STUDY, {"StudyInstanceUID": "1.2\\1.3"}, ("StudyInstanceUID",))
    assert list(asked.StudyInstanceUID) == ["1.2", "1.3"]


def test_an_order_can_be_cut_down_to_names() -> None:
    order = Order(Level.SERIES, "1", "2", {"3": "ct", "4": "mr"})
    assert order.of(["4"]) == Order(Level.IMAGE, "1", "2", {"4": "mr"})


# what comes back


@pytest.mark.parametrize(
    ("charset", "value", "text"),
    [
        (b"ISO_IR 100", "Müller^Jörg".encode("latin-1"), "Müller^Jörg"),
        (b"ISO_IR 192", "山田^太郎".encode(), "山田^太郎"),
        (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "Yamada^Tarou=山田^太郎"),
        (b"ISO_IR 144", "Иванов".encode("iso8859-5"), "Иванов"),
        # nothing said: UTF-8 if it can be, else Latin 1
        (b"", "Müller".encode(), "Müller"),
        (b"", "Müller".encode("latin-1"), "Müller"),
        # said wrongly
        (b"ISO_IR 192", "Müller".encode("latin-1"), "Müller"),
        (b"ISO_IR 999", "Müller".encode(), "Müller"),
        (b"UTF8", "Müller".encode(), "Müller"),
    ],
)
def test_a_name_is_read_whatever_the_archive_says(charset: bytes, value: bytes, text: str) -> None:
    found = row_of(Level.STUDY, raw(SpecificCharacterSet=charset, PatientName=value), ("PatientName",))
    assert found.get("PatientName") == text


def test_nothing_of_an_answer_moves_a_cursor() -> None:
    found = row_of(
        Level.STUDY, raw(PatientID=b"\x1b[2Jx\r\n\x07", PatientName=b"A"), ("PatientID", "PatientName")
    )
    assert found.get("PatientID") == "\\x1b[2Jx\\x0d\\x0a\\x07"
    assert shown("a\u202eb\0\0") == "a\\x202eb"
    assert readable(b"ISO\xff", ["ISO_IR 6"]) == "ISOÿ"


def test_a_value_that_is_none_spoils_nothing() -> None:
    found = row_of(
        Level.IMAGE, raw(NumberOfFrames=b"ten", PatientID=b"P"), ("NumberOfFrames", "PatientID", "KVP")
    )
    assert dict(found.values) == {"NumberOfFrames": "ten", "PatientID": "P", "KVP": ""}


def test_binary_numbers_are_read() -> None:
    ds = Dataset()
    ds.Rows = 512
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    assert row_of(Level.IMAGE, ds, ("Rows", "ImageType")).values == {
        "Rows": "512",
        "ImageType": "ORIGINAL\\PRIMARY",
    }


def test_dicom_json_is_read_as_well() -> None:
    found = {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎"}]},
        "00080061": {"vr": "CS", "Value": ["CT", None, "SR"]},
        "00201208": {"vr": "IS", "Value": [12]},
        "00100020": {"vr": "LO"},
        "00100030": "nonsense",
    }
    keys = (
        "PatientName",
        "ModalitiesInStudy",
        "NumberOfStudyRelatedInstances",
        "PatientID",
        "PatientBirthDate",
    )
    row = row_of_json(Level.STUDY, found, keys)
    assert [row.get(key) for key in keys] == ["Yamada^Tarou=山田^太郎", "CT\\SR", "12", "", ""]


def test_a_row_knows_what_is_above_it() -> None:
    study = Row(Level.STUDY, {"StudyInstanceUID": "1", "PatientID": "P"})
    series = Row(Level.SERIES, {"SeriesInstanceUID": "2", "PatientID": ""}).below(study)
    assert (series.unique, series.get("PatientID"), series.get("StudyInstanceUID")) == ("2", "P", "1")
    assert "P" not in repr(series)
