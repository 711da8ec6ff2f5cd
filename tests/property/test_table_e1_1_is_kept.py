"""Law: of every attribute that PS3.15 Table E.1-1 names, nothing is left but what its action allows.

The checker reads the table itself and knows nothing of how `deidentify` decides: it puts a value into an
object, at the top and inside a sequence, and looks at what comes out.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources

import pytest
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from blessmark import pixels
from dicom_node.config import Deidentify, Profile
from dicom_node.deidentify import deidentify
from tests.builders import dataset, file_bytes, phantom
from tests.strategies import RING

BASIC = Deidentify(profile=Profile.BASIC)
SECRET = "SECRET"
#: what each action allows (PS3.15 E.3.1): nothing, an empty value, or another value
ALLOWED = {
    "X": {"absent"},
    "Z": {"empty", "other"},
    "D": {"other"},
    "U": {"other"},
    "X/Z": {"absent", "empty", "other"},
    "X/D": {"absent", "other"},
    "Z/D": {"empty", "other"},
    "X/Z/D": {"absent", "empty", "other"},
    "X/Z/U*": {"absent", "empty", "other"},
}
#: not in a data set: command, file meta information, media directory
ELSEWHERE = (0x0000, 0x0002, 0x0004)
#: where the table would leave an object that is not valid: docs/adr/0020
KEPT_VALID = {0x00700082: "other", 0x00700083: "other"}
#: of a report the codes and numbers stay and the texts go: docs/adr/0020
CONTENT_SEQUENCE = 0x0040A730
#: put there by the profile itself
WRITTEN_ANEW = (0x00120062, 0x00120063, 0x00120064, 0x00280303)

VALUES: dict[str, object] = {
    **dict.fromkeys(("LO", "SH", "ST", "LT", "UT", "UC", "CS", "AE", "PN"), SECRET),
    "UI": "1.2.3.4711",
    "DA": "19770815",
    "DT": "19770815123456",
    "TM": "123456",
    "AS": "047Y",
    "DS": "47.11",
    "IS": "4711",
    "UR": f"http://{SECRET}",
    **dict.fromkeys(("US", "SS", "UL", "SL", "UV", "SV"), 4711),
    **dict.fromkeys(("FL", "FD"), 47.25),
    **dict.fromkeys(("OB", "OW", "OD", "OF", "OL", "OV", "UN"), SECRET.encode() + b"\0\0"),
}


def rows() -> Iterator[tuple[int, str]]:
    text = resources.files("dicom_node").joinpath("table_e1_1.tsv").read_text("utf-8")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            tag, basic = line.split("\t")[:2]
            if int(tag[:4], 16) not in ELSEWHERE:
                yield int(tag, 16), basic


def element(tag: int) -> DataElement:
    vr = dictionary_VR(tag).split(" or ")[0] if dictionary_has_tag(tag) else "LO"
    if vr != "SQ":
        return DataElement(tag, vr, VALUES[vr])
    item = Dataset()
    item.PatientName, item.SOPInstanceUID, item.StudyDescription = SECRET, "1.2.3.4711", SECRET
    return DataElement(tag, vr, Sequence([item]))


def outcome(ds: Dataset, made: DataElement) -> str:
    """What became of an element: absent, empty, other or kept."""
    if made.tag not in ds:
        return "absent"
    found = ds[made.tag]
    if found.is_empty or (found.VR == "SQ" and not found.value):
        return "empty"
    if found.VR == "SQ":
        told = [found.value[0].get(keyword) for keyword in ("PatientName", "SOPInstanceUID")]
        return "kept" if SECRET in map(str, told) or "1.2.3.4711" in map(str, told) else "other"
    return "kept" if found.value == made.value else "other"


def cleaned(tag: int, *, nested: bool) -> tuple[Dataset, DataElement]:
    made, holder = element(tag), Dataset()
    ds = dataset(phantom(16, 16), PatientName="Doe^Jane", PatientID="4712")
    if nested:
        holder.add(made)
        ds.AnatomicRegionSequence = Sequence([holder])
    else:
        ds.add(made)
    ds = pixels.read(file_bytes(ds))
    deidentify(ds, BASIC, RING)
    ds = pixels.read(file_bytes(ds))
    return (ds.AnatomicRegionSequence[0] if nested else ds), made


@pytest.mark.parametrize("nested", [False, True], ids=["at the top", "in a sequence"])
def test_what_is_left_of_every_attribute_is_what_its_action_allows(nested: bool) -> None:
    wrong = []
    for tag, basic in rows():
        if tag in WRITTEN_ANEW:
            continue
        ds, made = cleaned(tag, nested=nested)
        found = outcome(ds, made)
        allowed = {KEPT_VALID[tag]} if tag in KEPT_VALID else ALLOWED[basic]
        if tag == CONTENT_SEQUENCE:
            allowed = {"other"}
        elif not dictionary_has_tag(tag):  # newer than the library: what no dictionary knows goes
            allowed = {"absent"}
        if found not in allowed:
            wrong.append((f"{tag:08X}", basic, found))
        if made.VR == "UI" and found == "other":
            assert UID(str(ds[tag].value)).is_valid
    assert wrong == []
