"""What the node changed, sealed beside the data set, and what a reader makes of it."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from blessmark import pixels
from blessmark.errors import PixelError
from dicom_node import header, label
from dicom_node.originals import OriginalFields, Originals, seal, unseal
from tests import builders
from tests.builders import file_bytes
from tests.strategies import OTHER_KEY, RING, Ring

NAME, UID = 0x00100010, 0x00080018


def sealed(**attributes: object) -> tuple[bytes, Dataset]:
    """The data set's bytes before, and the instance as it arrives at a reader."""
    ds = pixels.read(file_bytes(builders.mr(32, 32, PatientName="Phantom^Test", **attributes)))
    before = pixels.settle(ds)
    fields = header.read_fields(ds, (NAME, UID))
    ds.PatientName = ""
    label.mark(ds, label.Mark(b"\1\2\3\4"), label.Note("n", "0", 0, "emptied"))
    seal(ds, RING, before, fields)
    return before, through_a_file(ds)


def through_a_file(ds: Dataset) -> Dataset:
    return pixels.read(file_bytes(ds))


def test_undoing_gives_the_very_bytes():
    before, ds = sealed()
    found = unseal(ds, RING)
    assert found is not None
    assert pixels.undo(ds, found.changes)
    assert pixels.settle(ds) == before
    assert ds.PatientName == "Phantom^Test"


def test_nothing_of_the_patient_stands_in_the_clear():
    _, ds = sealed()
    assert b"Phantom" not in file_bytes(ds)
    assert "Phantom" not in repr(unseal(ds, RING))


def test_another_key_opens_nothing():
    assert unseal(sealed()[1], Ring(OTHER_KEY)) is None


def test_an_instance_without_a_block_has_none():
    assert unseal(through_a_file(builders.mr(16, 16)), RING) is None


def test_the_originals_of_another_instance_are_none():
    _, ds = sealed()
    ds.SOPInstanceUID = "2.25.1"
    assert unseal(ds, RING) is None


def test_bytes_there_and_back():
    found = Originals(unseal(sealed()[1], RING).changes, {NAME: None, UID: b"2.25.1"})
    assert Originals.from_bytes(found.to_bytes()) == found


def test_a_later_version_is_refused():
    with pytest.raises(PixelError, match="newer dicom-node"):
        Originals.from_bytes(b"\0\0\0\0\xffanything")


class TestFields:
    def test_what_the_node_wrote_reads_as_what_it_was(self):
        _, ds = sealed()
        assert OriginalFields(ds, unseal(ds, RING))[NAME] == b"Phantom^Test"

    def test_what_somebody_else_wrote_reads_as_what_it_is(self):
        _, ds = sealed()
        ds.PatientName = "Another"
        assert OriginalFields(ds, unseal(ds, RING))[NAME] == b"Another "

    def test_an_untouched_field_is_itself(self):
        _, ds = sealed(PatientID="P-1")
        fields = OriginalFields(ds, unseal(ds, RING))
        assert fields[0x00100020] == b"P-1 "
        assert NAME in set(fields)
        assert len(fields) == len(set(fields))

    def test_without_originals_the_header_is_what_it_is(self):
        _, ds = sealed()
        assert OriginalFields(ds, None)[NAME] == b""
