"""A de-identified object tells nothing of its patient, and gives everything back to those with the key.

Every value of every attribute that was changed is searched in every byte that leaves: header, private data,
file meta information; as it stands, and as text in each character set.
"""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import Dataset

from blessmark import pixels
from blessmark.payload.record import FULL_FIELDS
from blessmark.pixels import layout
from blessmark.segment import segmenter
from dicom_node.config import Deidentify, OnUnprotectable, Profile
from dicom_node.deidentify import action, table
from dicom_node.originals import unseal
from dicom_node.protect import Site, protect, written
from dicom_node.review import Reader, recover, review
from tests import builders
from tests.builders import file_bytes
from tests.secret_values import found, removed_values
from tests.strategies import RING

BASIC = Deidentify(profile=Profile.BASIC)
SITE = Site("node-1", RING, segmenter("anatomy"), FULL_FIELDS, deidentify=BASIC)
READER = Reader(RING, (segmenter("anatomy"),))
TIME_S = 1_790_012_800

#: names as their countries write them, each with its Specific Character Set (PS3.5 annexes H to K)
NAMES = {
    "Japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "Korean": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    "Chinese": ("GB18030", "Wang^XiaoDong=王^小东"),
    "Chinese, Unicode": ("ISO_IR 192", "Wang^XiaoDong=王^小東"),
    "Cyrillic": ("ISO_IR 144", "Люкceмбypг^Иван"),  # noqa: RUF001
    "Greek": ("ISO_IR 126", "Διονυσιος^Νικος"),
    "Arabic": ("ISO_IR 127", "قباني^لنزار"),
    "Hebrew": ("ISO_IR 138", "שרון^דבורה"),
    "Thai": ("ISO_IR 166", "นามสกุล^ชื่อต้น"),
    "Latin": ("ISO_IR 100", "Äneas^Rüdiger"),
}


def instance(kind: str, **attributes: object) -> Dataset:
    """An image with room, one without, a report."""
    if kind == "room":
        return builders.mr(256, 192, **attributes)
    if kind == "no room":
        return builders.mr(32, 32, **attributes)
    ds = builders.mr(8, 8, **attributes)
    for keyword in ("PixelData", "BitsAllocated"):
        delattr(ds, keyword)
    return ds


def sent(ds: Dataset, site: Site = SITE) -> tuple[bytes, bytes, list[bytes]]:
    """The original data set, the file that leaves, and the values that must not be in it."""
    ds = pixels.read(file_bytes(ds))
    original = body(ds)
    secrets = list(removed_values(ds, BASIC))
    done = protect(ds, site, TIME_S)
    assert done.changed
    return original, written(ds), secrets


def body(ds: Dataset) -> bytes:
    return b"".join(layout.parts(ds))


PATIENT = {
    "PatientName": "Xerxes^Quirin",
    "PatientID": "PID-9981",
    "PatientBirthDate": "19570312",
    "AccessionNumber": "ACC-7731",
    "InstitutionName": "Hospital Zzyzx",
    "ReferringPhysicianName": "Quacksalber^Otto",
    "StudyDate": "20260921",
    "StudyTime": "101112",
    "StudyDescription": "Follow-up of Xerxes",
}


@pytest.mark.parametrize("kind", ["room", "no room", "report"])
@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian])
def test_nothing_of_the_patient_leaves_and_everything_comes_back(kind, syntax):
    ds = instance(kind, **PATIENT)
    item = Dataset()
    item.ScheduledProcedureStepDescription, item.RequestedProcedureID = "asked by Quacksalber", "RP-4711"
    ds.RequestAttributesSequence = [item]
    ds.private_block(0x0019, "VENDOR", create=True).add_new(1, "LO", "Xerxes in private")
    ds.file_meta.TransferSyntaxUID = syntax
    original, content, secrets = sent(ds)
    assert len(secrets) > 12
    assert found(content, secrets) == []
    assert found(file_bytes(ds), secrets) != []
    arrived = pixels.read(content)
    assert str(review(arrived, "x", READER).finding) == "authentic"
    assert arrived.SOPInstanceUID == arrived.file_meta.MediaStorageSOPInstanceUID
    done = recover(arrived, "x", READER)
    assert done.identical
    assert body(pixels.read(written(arrived))) == original
    assert arrived.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID


@pytest.mark.parametrize("kind", ["room", "no room", "report"])
@pytest.mark.parametrize("language", NAMES)
def test_names_of_every_script_come_back_as_they_were(kind, language):
    charset, name = NAMES[language]
    ds = instance(kind, SpecificCharacterSet=charset, PatientName=name, PatientID="PID-9981")
    original, content, secrets = sent(ds)
    assert found(content, secrets) == []
    arrived = pixels.read(content)
    assert name.split("=", maxsplit=1)[0].split("^", maxsplit=1)[0] not in str(arrived.PatientName)
    assert recover(arrived, "x", READER).identical
    back = pixels.read(written(arrived))
    assert body(back) == original
    assert str(back.PatientName) == str(pixels.read(file_bytes(ds)).PatientName)


@pytest.mark.parametrize("language", NAMES)
def test_the_record_alone_gives_the_name_back(language):
    """Where somebody took the private block away, the pixels still know whose they are."""
    charset, name = NAMES[language]
    ds = instance("room", SpecificCharacterSet=charset, PatientName=name, PatientID="PID-9981")
    _, content, _ = sent(ds)
    arrived = pixels.read(content)
    for tag in [tag for tag in arrived.keys() if tag.group == 0x0099]:  # noqa: SIM118
        del arrived[tag]
    arrived = pixels.read(written(arrived))
    assert unseal(arrived, RING) is None
    assert str(review(arrived, "x", READER).finding) == "header-altered"
    assert recover(arrived, "x", READER).restored
    back = pixels.read(written(arrived))
    assert str(back.PatientName) == str(pixels.read(file_bytes(ds)).PatientName)
    assert (back.PatientID, back.SOPInstanceUID) == ("PID-9981", ds.SOPInstanceUID)


_TEXT_VRS = {"LO", "SH", "ST", "LT", "PN", "UT"}
_TAGS = sorted(
    tag for tag in table() if dictionary_has_tag(tag) and dictionary_VR(tag) in _TEXT_VRS and tag >> 16 > 2
)
_LETTERS = st.characters(codec="latin-1", exclude_categories=("C",), exclude_characters="\\^=")
_VALUES = st.text(_LETTERS, min_size=6, max_size=20).filter(lambda text: text.strip() == text)


@settings(max_examples=40, deadline=None)
@given(
    values=st.dictionaries(st.sampled_from(_TAGS), _VALUES, min_size=1, max_size=12),
    kind=st.sampled_from(["room", "no room", "report"]),
    policy=st.sampled_from([OnUnprotectable.HEADER, OnUnprotectable.PASS]),
)
def test_whatever_the_attributes_hold(values, kind, policy):
    """Nothing leaves stripped and irrecoverable: what is gone from the header is among the originals."""
    ds = instance(kind, SpecificCharacterSet="ISO_IR 100")
    for tag, value in values.items():
        ds.add_new(tag, dictionary_VR(tag), value)
    site = Site("node-1", RING, segmenter("anatomy"), FULL_FIELDS, on_unprotectable=policy, deidentify=BASIC)
    original, content, _ = sent(ds, site)
    gone = [value.encode("latin-1") for tag, value in values.items() if action(tag, BASIC) != "K"]
    assert [value for value in gone if value in content] == []
    arrived = pixels.read(content)
    assert recover(arrived, "x", READER).identical
    target = io.BytesIO()
    pixels.write(arrived, target)
    assert body(pixels.read(target.getvalue())) == original
