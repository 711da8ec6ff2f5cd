"""Elements replaced at any depth, and nothing that was read is touched."""

from __future__ import annotations

import pytest
from pydicom import uid
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from blessmark import pixels
from dicom_node.rewrite import Element, Fate, as_sequence, rewrite, shallow
from tests.builders import Encoding, dataset, file_bytes, phantom

NAME, SERIES = 0x00100010, 0x00400275


def nested(syntax: str = uid.ExplicitVRLittleEndian) -> Dataset:
    inner, outer = Dataset(), Dataset()
    inner.PatientName = inner.PatientComments = "inner"
    outer.PatientName = "outer"
    outer.ScheduledProtocolCodeSequence = [inner]
    made = dataset(
        phantom(8, 8), Encoding(syntax=syntax), PatientName="top", RequestAttributesSequence=[outer]
    )
    return pixels.read(file_bytes(made))


def renaming(_holder: Dataset, tag: int, element: Element) -> Fate | Element:
    return DataElement(tag, "PN", "new") if tag == NAME else Fate.KEEP


def names(ds: Dataset) -> list[str]:
    found = [str(ds.PatientName)] if "PatientName" in ds else []
    for tag in (SERIES, 0x00400008):
        for item in ds[tag].value if tag in ds else []:
            found += names(item)
    return found


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_replaces_at_every_depth(syntax):
    ds = nested(syntax)
    assert rewrite(ds, renaming)
    assert names(ds) == ["new", "new", "new"]


def test_removes_at_every_depth():
    ds = nested()
    assert rewrite(ds, lambda _holder, tag, _element: Fate.REMOVE if tag == NAME else Fate.KEEP)
    assert names(ds) == []
    assert ds[SERIES].value[0].ScheduledProtocolCodeSequence[0].PatientComments == "inner"


def test_what_is_left_is_not_entered():
    ds = nested()
    rewrite(ds, lambda h, tag, e: Fate.LEAVE if tag == SERIES else renaming(h, tag, e))
    assert names(ds) == ["new", "outer", "inner"]


def test_the_sequences_that_were_read_stay_as_they_are():
    ds = nested()
    read = ds[SERIES].value
    rewrite(ds, renaming)
    assert [str(read[0].PatientName), str(read[0].ScheduledProtocolCodeSequence[0].PatientName)] == [
        "outer",
        "inner",
    ]


def test_nothing_changes_where_the_rule_wants_nothing():
    ds = nested()
    before = dict(ds._dict)
    assert not rewrite(ds, lambda _holder, _tag, _element: Fate.KEEP)
    assert dict(ds._dict) == before


def test_undefined_lengths_stay_undefined():
    ds = nested()
    ds[SERIES].is_undefined_length = True
    ds = pixels.read(file_bytes(ds))
    rewrite(ds, renaming)
    assert ds[SERIES].is_undefined_length


def test_only_sequences_are_sequences():
    ds = nested()
    assert as_sequence(ds, ds.get_item(NAME)) is None
    found = as_sequence(ds, ds.get_item(SERIES))
    assert found is not None
    assert len(found.value) == 1


def test_a_shallow_copy_grows_alone():
    item = Dataset()
    item.PatientName = "x"
    fresh = shallow(item)
    fresh.PatientID = "y"
    assert "PatientID" not in item
    assert fresh.PatientName == "x"
