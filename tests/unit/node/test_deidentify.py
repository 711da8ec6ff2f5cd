"""Table E.1-1 as data, and what it makes of an object."""

from __future__ import annotations

from collections import Counter
from datetime import date
from importlib import resources

import pytest
from pydicom import uid
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from blessmark import pixels
from dicom_node import header
from dicom_node.config import Dates, Deidentify, Descriptors, OnContent, Profile, Retain
from dicom_node.deidentify import action, deidentify, patient_of, table, telling_content, vocabulary
from dicom_node.uids import deriver
from tests.builders import Encoding, dataset, file_bytes, phantom
from tests.strategies import KEY, OTHER_KEY, RING, Ring

BASIC = Deidentify(profile=Profile.BASIC)
NAME = 0x00100010
#: rows of edition 2026c by their action in the Basic Profile
COUNTS = {"X": 412, "D": 93, "U": 55, "Z": 42, "X/D": 23, "X/Z": 11, "X/Z/D": 8, "Z/D": 6, "X/Z/U*": 2}


def with_(**options: object) -> Deidentify:
    return Deidentify.model_validate({"profile": Profile.BASIC, **options})


def stored(syntax: str = uid.ExplicitVRLittleEndian, **attributes: object) -> Dataset:
    return pixels.read(file_bytes(dataset(phantom(16, 16), Encoding(syntax=syntax), **attributes)))


def cleaned(ds: Dataset, profile: Deidentify = BASIC) -> Dataset:
    deidentify(ds, profile, RING)
    return pixels.read(file_bytes(ds))


class TestTable:
    def test_is_whole(self):
        assert len(table()) == 652
        counts = Counter(row.basic for row in table().values())
        assert counts == COUNTS
        assert sum(counts.values()) == 652

    def test_agrees_with_the_dictionary(self):
        text = resources.files("dicom_node").joinpath("table_e1_1.tsv").read_text("utf-8")
        rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
        assert all(keyword_for_tag(int(row[0], 16)) in (row[11], "") for row in rows)
        assert [row[0] for row in rows] == sorted({row[0] for row in rows})
        assert {cell for row in rows for cell in row[2:11]} == {"K", "C", "-"}

    @pytest.mark.parametrize(
        ("keyword", "profile", "expected"),
        [
            ("PatientName", BASIC, "Z"),
            ("InstitutionAddress", BASIC, "X"),
            ("SOPInstanceUID", BASIC, "U"),
            ("StudyDate", BASIC, "Z"),
            ("SeriesDate", BASIC, "D"),
            ("Rows", BASIC, "K"),
            ("SOPInstanceUID", with_(retain=(Retain.UIDS,)), "K"),
            ("StationName", with_(retain=(Retain.DEVICE,)), "K"),
            ("InstitutionName", with_(retain=(Retain.INSTITUTION,)), "K"),
            ("PatientSex", with_(retain=(Retain.PATIENT,)), "K"),
            ("PatientSex", with_(retain=(Retain.DEVICE,)), "Z"),
            ("StudyDate", with_(dates=Dates.RETAIN), "K"),
            ("StudyDate", with_(dates=Dates.MODIFY), "S"),
            ("StudyDescription", with_(descriptors=Descriptors.CLEAN), "C"),
            ("StudyDescription", BASIC, "X"),
        ],
    )
    def test_gives_each_attribute_one_action(self, keyword, profile, expected):
        assert action(tag_for_keyword(keyword), profile) == expected


class TestBasicProfile:
    def test_says_what_was_done(self):
        ds = cleaned(stored())
        assert ds.PatientIdentityRemoved == "YES"
        assert "PS3.15 Annex E 2026c" in ds.DeidentificationMethod
        assert len(ds.DeidentificationMethod) <= 64
        codes = [(c.CodeValue, c.CodingSchemeDesignator) for c in ds.DeidentificationMethodCodeSequence]
        assert codes == [("113100", "DCM")]
        assert ds.LongitudinalTemporalInformationModified == "REMOVED"

    def test_names_every_option(self):
        profile = with_(
            retain=tuple(Retain),
            dates=Dates.MODIFY,
            descriptors=Descriptors.CLEAN,
            safe_private=("0019,xx0C,SOMEBODY",),
        )
        ds = cleaned(stored(), profile)
        assert [c.CodeValue for c in ds.DeidentificationMethodCodeSequence] == [
            "113100",
            "113105",
            "113107",
            "113108",
            "113109",
            "113110",
            "113111",
            "113112",
        ]

    def test_removes_empties_and_replaces(self):
        ds = cleaned(
            stored(
                PatientBirthDate="19600101",
                AccessionNumber="A-1",
                OtherPatientNames="Phantom^Maiden",
                SeriesDate="20260101",
                OperatorsName="Who^Else",
            )
        )
        assert (ds.PatientBirthDate, ds.AccessionNumber) == ("", "")
        assert "OtherPatientNames" not in ds
        assert (ds.SeriesDate, str(ds.OperatorsName)) == ("19000101", "Removed^Name")

    def test_a_writer_that_gave_up_on_the_type_hides_nothing(self):
        """Elements of VR UN are what the dictionary says they are."""
        ds = stored(OperatorsName="Who^Else", SeriesInstanceUID="1.2.3.4", PatientName="Phantom^Test")
        ds.SeriesDescription = "of Phantom"
        ds = pixels.read(file_bytes(ds))
        before = ds.SeriesInstanceUID
        for tag in (0x00081070, 0x0020000E, NAME):
            value = header.value_bytes(ds, tag) or b""
            ds[tag] = RawDataElement(Tag(tag), "UN", len(value), value, 0, False, True)
        ds = cleaned(ds)
        assert str(ds.OperatorsName) == "Removed^Name"
        assert ds.SeriesInstanceUID == deriver(RING)(before)
        assert b"Phantom" not in file_bytes(ds)

    def test_one_pseudonym_a_patient(self):
        first, second = (cleaned(stored(PatientID="P-1", PatientName=name)) for name in ("A", "B"))
        other = cleaned(stored(PatientID="P-2", PatientName="A"))
        assert first.PatientID == second.PatientID != other.PatientID
        assert str(first.PatientName) == f"Anonymous^{first.PatientID}"
        assert cleaned(stored()).PatientID == ""

    def test_the_pseudonym_rests_on_the_oldest_key(self):
        ds = stored(PatientID="P-1")
        assert patient_of(ds, Ring(OTHER_KEY, KEY)) == patient_of(ds, RING)
        assert patient_of(ds, Ring(OTHER_KEY)).pseudonym != patient_of(ds, RING).pseudonym
        assert "P-1" not in repr(patient_of(ds, RING))

    def test_uids_are_derived_the_study_too(self):
        ds = stored()
        before = ds.StudyInstanceUID
        assert cleaned(ds).StudyInstanceUID == deriver(RING)(before)

    @pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian])
    def test_items_of_sequences_are_cleaned_too(self, syntax):
        inner, item = Dataset(), Dataset()
        inner.PersonName = "Phantom^Inside"
        item.TextValue, item.ContentSequence = "told to Phantom", [inner]
        ds = cleaned(stored(syntax, ContentSequence=[item]))
        (item,) = ds.ContentSequence
        assert item.TextValue == "REMOVED"
        assert str(item.ContentSequence[0].PersonName) == "Removed^Name"

    def test_of_a_report_codes_and_numbers_stay(self):
        codes = []
        for scheme, meaning in (("SCT", "Finding"), ("99LOCAL", "seen by Dr. Phantom")):
            code = Dataset()
            code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", scheme, meaning
            codes.append(code)
        measured, item = Dataset(), Dataset()
        measured.NumericValue = "4.2"
        item.ConceptNameCodeSequence, item.ConceptCodeSequence = [codes[0]], [codes[1]]
        item.MeasuredValueSequence = [measured]
        (item,) = cleaned(stored(ContentSequence=[item])).ContentSequence
        assert item.MeasuredValueSequence[0].NumericValue == 4.2
        assert item.ConceptNameCodeSequence[0].CodeMeaning == "Finding"
        assert item.ConceptCodeSequence[0].CodeMeaning == "REMOVED"

    def test_private_attributes_go_unless_they_are_safe(self):
        ds = stored()
        for creator in ("SAFE ONE", "OTHER ONE"):
            block = ds.private_block(0x0019, creator, create=True)
            block.add_new(0x0C, "LO", f"of {creator}")
            block.add_new(0x0D, "LO", f"of {creator}")
        ds = cleaned(pixels.read(file_bytes(ds)), with_(safe_private=("0019,xx0C,SAFE ONE",)))
        private = {int(tag): ds[tag].value for tag in ds.keys() if tag.group % 2}  # noqa: SIM118
        assert private == {0x00190010: "SAFE ONE", 0x0019100C: "of SAFE ONE"}

    def test_what_no_dictionary_knows_goes(self):
        ds = stored()
        ds.add_new(0x00089998, "LO", "whatever")
        assert 0x00089998 not in cleaned(pixels.read(file_bytes(ds)))

    @pytest.mark.parametrize(
        "keyword", ["MultiFrameSourceSOPInstanceUID", "SOPInstanceUIDOfConcatenationSource"]
    )
    def test_instances_are_not_named_where_the_table_forgets_them(self, keyword):
        ds = cleaned(stored(**{keyword: "2.25.77"}))
        assert ds[keyword].value == deriver(RING)("2.25.77")
        kept = cleaned(stored(**{keyword: "2.25.77"}), with_(retain=(Retain.UIDS,)))
        assert kept[keyword].value == "2.25.77"

    def test_nor_is_the_place_where_an_object_lies(self):
        ds = cleaned(stored(RetrieveURL="https://pacs/studies/2.25.77", RetrieveURI="https://pacs/2.25.77"))
        assert {ds.RetrieveURL, ds.RetrieveURI} == {"urn:removed"}

    @pytest.mark.parametrize("vr", ["SQ", "UN"])
    @pytest.mark.parametrize(
        "item",
        [
            # a UID whose length reaches over the name behind it
            b"\x08\x00\x50\x11UI\x14\x001.2.\x10\x00\x10\x00PN\x08\x00Phantom ",
            # a VR that is none
            b"\x08\x00\x50\x11U\xff\x04\x001.2.\x10\x00\x10\x00PN\x08\x00Phantom ",
            # an element longer than its item
            b"\x08\x00\x50\x11UI\x04\x001.2.\x10\x00\x10\x00PN\xff\x00Phantom ",
            # a group length that is a text
            b"\x10\x00\x00\x00PN\x08\x00Phantoms",
        ],
    )
    def test_a_broken_sequence_hides_nothing(self, vr, item):
        ds = stored(PatientName="Phantom^Test")
        value = b"\xfe\xff\x00\xe0" + len(item).to_bytes(4, "little") + item
        ds[0x00081140] = RawDataElement(Tag(0x00081140), vr, len(value), value, 0, False, True)
        ds = pixels.read(file_bytes(ds))
        deidentify(ds, BASIC, RING)
        assert b"Phantom" not in file_bytes(ds)

    def test_overlays_and_curves_go(self):
        ds = stored()
        ds.add_new(0x60000010, "US", 16)
        ds.add_new(0x60003000, "OW", bytes(32))
        assert not [tag for tag in cleaned(ds).keys() if tag.group == 0x6000]  # noqa: SIM118

    def test_a_text_that_repeats_the_name_goes_wherever_it_stands(self):
        item = Dataset()
        item.CodeValue, item.CodeMeaning = "1", "Protocol of Dr. PHANTOM"
        ds = cleaned(stored(PatientName="Phantom^Test", PatientID="P-1", ProcedureCodeSequence=[item]))
        assert ds.ProcedureCodeSequence[0].CodeMeaning == "REMOVED"

    @pytest.mark.parametrize("vr", ["OB", "UR", "AE", "CS"])
    def test_also_where_a_writer_calls_the_text_something_else(self, vr):
        ds = stored(PatientName="Phantom^Test")
        ds[0x00181250] = RawDataElement(Tag(0x00181250), vr, 12, b"Phantom^Test", 0, False, True)
        ds = pixels.read(file_bytes(ds))
        deidentify(ds, BASIC, RING)
        assert b"Phantom" not in file_bytes(ds)

    def test_the_file_says_no_more_than_it_must(self):
        ds = stored()
        ds.file_meta.SourceApplicationEntityTitle = "WARD-3"
        ds.preamble = b"PHANTOM".ljust(128, b"\0")
        ds = cleaned(ds)
        assert "SourceApplicationEntityTitle" not in ds.file_meta
        assert ds.preamble == bytes(128)
        assert ds.file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian


class TestOptions:
    def test_modified_dates_keep_their_distance(self):
        profile = with_(dates=Dates.MODIFY)
        made = stored(
            PatientID="P-1",
            StudyDate="20260110",
            SeriesDate="20260115",
            AcquisitionDateTime="20260120101112.5",
        )
        ds = cleaned(made, profile)
        days = [
            date.fromisoformat(f"{d[:4]}-{d[4:6]}-{d[6:8]}")
            for d in (ds.StudyDate, ds.SeriesDate, ds.AcquisitionDateTime)
        ]
        assert (days[1] - days[0]).days == (days[2] - days[1]).days == 5
        assert days[0] < date(2026, 1, 10)
        assert ds.AcquisitionDateTime.endswith("101112.5")
        assert ds.LongitudinalTemporalInformationModified == "MODIFIED"

    def test_a_date_that_is_none_is_not_kept(self):
        ds = stored(StudyDate="20260110")
        header.put_bytes(ds, 0x00080020, "DA", b"Phantom ")
        assert cleaned(ds, with_(dates=Dates.MODIFY)).StudyDate == "19000101"

    def test_clean_descriptors_keep_terms_only(self):
        ds = stored(PatientName="Head^Test", StudyDescription="Head Abdomen Xyzzy 4711")
        assert cleaned(ds, with_(descriptors=Descriptors.CLEAN)).StudyDescription == "Abdomen"
        assert {"abdomen", "head"} <= vocabulary()

    def test_retained_uids_stay(self):
        ds = stored()
        before = ds.SOPInstanceUID
        assert cleaned(ds, with_(retain=(Retain.UIDS,))).SOPInstanceUID == before


class TestContent:
    def test_a_document_and_burned_in_text_may_tell(self):
        assert telling_content(stored(BurnedInAnnotation="YES")) == "burned-in-annotation"
        assert telling_content(stored(BurnedInAnnotation="NO")) == ""
        assert telling_content(stored(EncapsulatedDocument=b"%PDF")) == "encapsulated-document"

    def test_hold_is_the_default(self):
        assert BASIC.on_content is OnContent.HOLD
