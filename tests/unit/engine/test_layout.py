"""Untouched elements keep their bytes, whatever pydicom would have written."""

from __future__ import annotations

import hashlib
import io
import zlib

import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from blessmark import pixels
from blessmark.pixels import layout
from tests.builders import Encoding, dataset, file_bytes, phantom, reread

NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)


def element(tag: int, value: bytes, vr: bytes = b"LO") -> bytes:
    """A short element in Explicit VR Little Endian, as no library would write it."""
    return (
        tag.to_bytes(4, "big")[1::-1]
        + tag.to_bytes(4, "big")[:1:-1]
        + vr
        + len(value).to_bytes(2, "little")
        + value
    )


def body_of(content: bytes) -> bytes:
    """The data set of a file with a file meta group length."""
    return content[144 + int.from_bytes(content[140:144], "little") :]


def file_with(extra: bytes, **attributes: object) -> bytes:
    """A file with elements in front of its data set's own."""
    content = file_bytes(dataset(phantom(8, 8), **attributes))
    body = body_of(content)
    return content[: len(content) - len(body)] + extra + body


def written(ds: Dataset) -> bytes:
    target = io.BytesIO()
    pixels.write(ds, target)
    return target.getvalue()


ODD = {
    "an odd length": element(0x00080005, b"ISO_IR 100") + element(0x00080008, b"ODD"),
    "padding of its own": element(0x00080008, b"ORIGINAL \\PRIMARY\0\0"),
    "a group length": element(0x00080000, (1234).to_bytes(4, "little"), b"UL"),
    "another VR": element(0x00080008, b"ORIGINAL", b"UT"[::-1]),
    "a repeated element": element(0x00080008, b"ONE ") + element(0x00080008, b"TWO "),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_nobody_touched_is_written_as_it_came(kind):
    content = file_with(ODD[kind])
    assert body_of(written(pixels.read(content))) == body_of(content)


@pytest.mark.parametrize("syntax", NATIVE)
def test_looking_is_not_touching(syntax):
    content = file_bytes(
        dataset(phantom(8, 8), Encoding(syntax=syntax), PatientName="X", PixelSpacing=[1, 2])
    )
    ds = pixels.read(content)
    for each in ds:
        assert each.value is not None
    assert layout.stale_groups(ds) == frozenset()
    assert body_of(written(ds)) == body_of(content)


def test_the_first_element_of_an_inflated_data_set_may_be_decoded_already():
    """pydicom decodes the character set while it reads, and nothing stands before it."""
    deflated = Encoding(syntax=uid.DeflatedExplicitVRLittleEndian)
    content = file_bytes(dataset(phantom(8, 8), deflated, SpecificCharacterSet="ISO_IR 192"))
    again = written(pixels.read(content))
    assert zlib.decompress(body_of(again), -15) == zlib.decompress(body_of(content), -15)


def test_a_changed_element_is_written_anew_and_nothing_else():
    content = file_with(element(0x00080008, b"ODD"), PatientName="A")
    ds = pixels.read(content)
    ds.PatientName = "B"
    assert body_of(written(ds)) == body_of(content).replace(b"A ", b"B ")


def test_added_elements_stand_in_their_place():
    ds = pixels.read(file_bytes(dataset(phantom(8, 8))))
    ds.StudyDescription = "new"
    again = pixels.read(written(ds))
    assert again.StudyDescription == "new"
    tags = layout.layout_of(again).tags
    assert list(tags) == sorted(tags)


def test_a_group_length_goes_with_a_change_of_its_group_only():
    ds = pixels.read(file_with(element(0x00080000, bytes(4), b"UL"), StudyDescription="old"))
    ds.PatientName = "in another group"
    assert 0x00080000 in pixels.read(written(ds))
    ds.StudyDescription = "changed"
    assert 0x00080000 not in pixels.read(written(ds))


def test_patched_pixels_keep_header_and_padding():
    samples = phantom(9, 9, hi=255)
    content = file_bytes(dataset(samples, Encoding(8, 8)))
    ds = pixels.read(content)
    image = pixels.load(ds)
    assert isinstance(image, pixels.Image)
    pixels.store(ds, image, [255 - frame.samples for frame in image])
    assert len(written(ds)) == len(content)
    image = pixels.load(ds)
    assert isinstance(image, pixels.Image)
    pixels.store(ds, image, [255 - frame.samples for frame in image])
    assert body_of(written(ds)) == body_of(content)
    assert layout.same_form(ds)


def test_a_data_set_made_in_memory_is_written_once_to_be_compared_with():
    ds = reread(dataset(phantom(8, 8), PatientName="A"))
    assert layout.kept(ds) is None
    before = pixels.settle(ds)
    ds.PatientName = "B"
    assert layout.digest(ds) != before
    assert layout.stale_groups(ds) == {0x0010}


def test_settling_takes_what_is_for_what_was():
    ds = pixels.read(file_bytes(dataset(phantom(8, 8), PatientName="A", PatientID="P")))
    ds.PatientName, ds.StudyDescription = "B", "new"
    del ds.PatientID
    digest = pixels.settle(ds)
    assert layout.stale_groups(ds) == frozenset()
    assert layout.digest(ds) == digest
    assert layout.digest(pixels.read(written(ds))) == digest


@pytest.mark.parametrize("kind", [*ODD, "large elements", "fragments"])
def test_the_hash_of_what_nobody_touched_is_that_of_its_bytes(kind):
    if kind == "fragments":
        content = file_bytes(dataset(phantom(64, 64), Encoding(syntax=uid.RLELossless)))
    elif kind == "large elements":
        made = dataset(phantom(64, 64), ImageComments="x" * 9000)
        made.add_new(0x00091001, "OB", bytes(20_000))
        made.add_new(0xFFFCFFFC, "OB", bytes(20_000))
        content = file_bytes(made)
    else:
        content = file_with(ODD[kind])
    ds = pixels.read(content)
    expected = hashlib.sha256(body_of(content)).digest()
    assert pixels.settle(ds) == expected
    assert layout.digest(ds) == expected


def test_another_encoding_writes_every_element_anew():
    ds = pixels.read(
        file_bytes(dataset(phantom(8, 8), Encoding(syntax=uid.ImplicitVRLittleEndian), PatientName="A"))
    )
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    again = pixels.read(written(ds))
    assert again.PatientName == "A"
    assert (again.pixel_array == ds.pixel_array).all()
