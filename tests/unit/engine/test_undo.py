"""Whatever is done to a data set, `undo` gives the very bytes back."""

from __future__ import annotations

import io
import sys
import zlib

import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from blessmark import pixels
from blessmark.errors import PixelError
from blessmark.pixels import layout
from blessmark.pixels.undo import Changes
from tests.builders import Encoding, dataset, file_bytes, phantom

SYNTAXES = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)


def stored(syntax: str = uid.ExplicitVRLittleEndian, **attributes: object) -> Dataset:
    item = Dataset()
    item.PatientName = "nested"
    made = dataset(
        phantom(8, 8),
        Encoding(syntax=syntax),
        PatientName="A",
        PatientID="P-1",
        SmallestImagePixelValue=3,
        RequestAttributesSequence=[item],
        **attributes,
    )
    return pixels.read(file_bytes(made))


def changed(ds: Dataset) -> Changes:
    """Elements added, emptied, removed and replaced; what undoes it."""
    digest = pixels.settle(ds)
    ds.PatientName, ds.StudyDescription = "", "added"
    ds.RequestAttributesSequence = []
    del ds.PatientID, ds.SmallestImagePixelValue
    return pixels.changes(ds, digest)


def arrived(ds: Dataset) -> Dataset:
    target = io.BytesIO()
    pixels.write(ds, target)
    return pixels.read(target.getvalue())


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_very_bytes_come_back(syntax):
    ds = stored(syntax)
    before = b"".join(layout.parts(ds))
    found = changed(ds)
    received = arrived(ds)
    assert b"".join(layout.parts(received)) != before
    assert pixels.undo(received, found)
    assert b"".join(layout.parts(received)) == before
    assert b"".join(layout.parts(arrived(received))) == before


def test_something_else_was_changed_too():
    ds = stored()
    found = changed(ds)
    received = arrived(ds)
    received.Modality = "XX"
    assert not pixels.undo(received, found)
    assert received.PatientName == "A"


def test_a_recoded_data_set_comes_back_element_by_element():
    ds = stored(uid.ImplicitVRLittleEndian)
    found = changed(ds)
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    received = arrived(ds)
    assert not pixels.undo(received, found)
    again = arrived(received)
    assert (again.PatientName, again.PatientID, again.SmallestImagePixelValue) == ("A", "P-1", 3)
    assert again.RequestAttributesSequence[0].PatientName == "nested"
    assert "StudyDescription" not in again


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_changes_are_bytes_and_back(syntax):
    found = changed(stored(syntax))
    assert Changes.from_bytes(found.to_bytes()) == found
    assert {tag for tag, _ in found.removed} == {0x00100010, 0x00100020, 0x00280106, 0x00400275}
    assert found.added == (0x00081030,)


@pytest.mark.parametrize("content", [b"", b"\x01x", b"\xff"])
def test_what_a_later_version_wrote_is_refused(content):
    with pytest.raises(PixelError, match="newer"):
        Changes.from_bytes(content)


@pytest.mark.parametrize("content", [b"\x02", b"\x02abc", b"\x02" + zlib.compress(b"x")])
def test_what_nobody_wrote_is_malformed(content):
    with pytest.raises(PixelError, match="malformed"):
        Changes.from_bytes(content)


def test_what_inflates_without_end_is_refused_and_so_is_what_could_not_be_read_again(monkeypatch):
    found = changed(stored(SYNTAXES[0]))
    content = found.to_bytes()
    monkeypatch.setattr(sys.modules["blessmark.pixels.undo"], "_LIMIT_BYTES", 64)
    with pytest.raises(PixelError, match="inflates to more than 64 bytes"):
        Changes.from_bytes(content)
    with pytest.raises(PixelError, match="more than can be given back"):
        found.to_bytes()


def test_an_element_that_is_cut_short_is_malformed():
    content = zlib.decompress(changed(stored(SYNTAXES[0])).to_bytes()[1:])
    with pytest.raises(PixelError, match="malformed"):
        Changes.from_bytes(b"\x02" + zlib.compress(content[:-1]))


def test_an_order_of_its_own_comes_back():
    content = file_bytes(dataset(phantom(8, 8), PatientName="A"))
    name = content.index(b"\x10\x00\x10\x00PN")
    moved = content[:name] + content[name + 10 :]
    content = (
        moved[: moved.index(b"\xe0\x7f\x10\x00")]
        + content[name : name + 10]
        + moved[moved.index(b"\xe0\x7f\x10\x00") :]
    )
    ds = pixels.read(content)
    before = b"".join(layout.parts(ds))
    digest = pixels.settle(ds)
    ds.PatientName, ds.StudyDescription = "B", "added"
    found = pixels.changes(ds, digest)
    assert found.order
    received = arrived(ds)
    assert pixels.undo(received, found)
    assert b"".join(layout.parts(received)) == before


def test_nothing_of_the_values_in_a_repr():
    assert b"P-1" not in repr(changed(stored())).encode()


def test_compressed_pixels_stored_anew_are_no_change_to_undo():
    ds = pixels.read(file_bytes(dataset(phantom(64, 64), Encoding(syntax=uid.JPEG2000Lossless))))
    digest = pixels.settle(ds)
    image = pixels.load(ds)
    assert isinstance(image, pixels.Image)
    pixels.store(ds, image, [frame.samples + 1 for frame in image])
    assert pixels.changes(ds, digest).digest == b""
    assert pixels.original(pixels.changes(ds, digest)).keys() == Dataset().keys()
