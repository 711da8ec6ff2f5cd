"""A file is cut into the very elements, values and pieces that pydicom and `layout.keep` make of it."""

from __future__ import annotations

import io
from pathlib import Path

import pydicom.data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread, uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from blessmark.errors import PixelError
from blessmark.pixels import layout
from blessmark.pixels.files import _after_meta, read
from blessmark.pixels.layout import Item, kept
from blessmark.pixels.scan import scan
from tests.assorted import OBJECTS
from tests.builders import Encoding, ct, dataset, file_bytes, phantom, us

FILES = sorted(Path(pydicom.data.__file__).parent.glob("*_files/**/*.dcm"))


def by_pydicom(content: bytes) -> Dataset:
    ds = dcmread(io.BytesIO(content))
    start, _ = _after_meta(io.BytesIO(content))
    layout.keep(ds, io.BytesIO(content), start, len(content))
    return ds


def shown(item: Item | None) -> object:
    if item is None or isinstance(item, RawDataElement):
        return item
    return int(item.tag), item.VR, repr(item.value), item.is_undefined_length, item.file_tell


def everything(ds: Dataset) -> object:
    """All that a data set holds, and how it lay in its file."""
    found = kept(ds)
    assert found is not None
    return (
        [(int(tag), shown(item)) for tag, item in ds._dict.items()],
        [(int(tag), shown(item)) for tag, item in ds.file_meta._dict.items()],
        [(piece.tag, piece.raw, piece.tail, shown(piece.item)) for piece in found.pieces],
        [piece.item is ds._dict.get(piece.tag) for piece in found.pieces],
        found.encoding,
        ds.preamble,
        ds.original_encoding,
        ds.original_character_set,
        sorted(ds.__dict__),
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_real_files(path):
    content = path.read_bytes()
    found = scan(io.BytesIO(content))
    if found is not None:
        assert everything(found) == everything(by_pydicom(content))


@pytest.mark.parametrize("path", FILES[::5], ids=lambda path: path.name)
def test_a_file_on_disk_is_read_as_its_bytes_are(path):
    def of(source: Path | bytes) -> object:
        try:
            return everything(read(source))
        except PixelError:
            return None

    assert of(path) == of(path.read_bytes())


def test_what_a_data_set_is_made_like_is_not_shared():
    content = file_bytes(ct(8, 8, SpecificCharacterSet="ISO_IR 100"))
    first, second = scan(io.BytesIO(content)), scan(io.BytesIO(content))
    assert first is not None
    assert second is not None
    for holders in ((first, second), (first.file_meta, second.file_meta)):
        one, other = (vars(holder) for holder in holders)
        assert not [name for name in one if isinstance(one[name], dict | list) and one[name] is other[name]]
    first.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
    first.SpecificCharacterSet = "ISO_IR 192"
    assert everything(second) == everything(by_pydicom(content))


class Stingy(io.BytesIO):
    """A file that gives less than it is asked for."""

    def read(self, count: int | None = -1, /) -> bytes:
        return super().read(min(count, 1000) if count and count > 0 else count)


def test_a_file_that_gives_less_than_it_is_asked_for():
    content = file_bytes(ct(64, 64))
    found = scan(Stingy(content))
    assert found is not None
    assert everything(found) == everything(by_pydicom(content))


def test_most_real_files_are_usual():
    usual = sum(scan(io.BytesIO(path.read_bytes())) is not None for path in FILES)
    assert usual > 0.7 * len(FILES)


@pytest.mark.parametrize("name", OBJECTS)
def test_odd_objects(name):
    content = OBJECTS[name].part10()
    found = scan(io.BytesIO(content))
    if found is not None:
        assert everything(found) == everything(by_pydicom(content))


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian])
def test_values_longer_than_the_window(syntax):
    samples = phantom(400, 400)
    ds = dataset(samples, Encoding(syntax=syntax), ImageComments="x" * 900)
    for number in range(40):
        ds.add_new(0x00291000 + number, "UN", bytes([number]) * (number * 700))
    content = file_bytes(ds)
    found = scan(io.BytesIO(content))
    assert found is not None
    assert everything(found) == everything(by_pydicom(content))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(200),
        file_bytes(ct(8, 8))[:-2],
        file_bytes(ct(8, 8)) + bytes(6),
        file_bytes(ct(8, 8))[: _after_meta(io.BytesIO(file_bytes(ct(8, 8))))[0]],
        file_bytes(dataset(phantom(8, 8), Encoding(syntax=uid.ExplicitVRBigEndian))),
        file_bytes(dataset(phantom(8, 8), Encoding(syntax=uid.DeflatedExplicitVRLittleEndian))),
    ],
    ids=["nothing", "zeros", "cut short", "zeros behind", "no data set", "big endian", "deflated"],
)
def test_what_is_not_usual_is_left_to_pydicom(content):
    assert scan(io.BytesIO(content)) is None


@pytest.mark.parametrize("lost", range(1, 5))
def test_a_file_that_ends_within_the_last_delimiter_is_left_to_pydicom(lost):
    """Of fragments that are broken too, pydicom looks for the delimiter's tag alone."""
    whole = file_bytes(dataset(phantom(8, 8), Encoding(syntax=uid.RLELossless)))
    content = whole[:-8] + b"behind the fragments" + whole[-8:]
    assert scan(io.BytesIO(content)) is not None
    assert scan(io.BytesIO(content[:-lost])) is None
    with pytest.raises(PixelError, match="cut short"):
        read(content[:-lost])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_are_read_as_pydicom_reads_them(data):
    """Whatever a byte becomes: the same data set, or pydicom's turn."""
    whole = data.draw(st.sampled_from(_WHOLE))
    at = data.draw(st.integers(128, min(len(whole) - 1, 900)))
    content = whole[:at] + data.draw(st.binary(min_size=1, max_size=3)) + whole[at + 1 :]
    found = scan(io.BytesIO(content))
    if found is None:
        return
    without = io.BytesIO(content)
    again = dcmread(without)
    assert [(int(t), shown(i)) for t, i in found._dict.items()] == [
        (int(t), shown(i)) for t, i in again._dict.items()
    ]


_WHOLE = [
    file_bytes(ct(8, 8, PatientID="1")),
    file_bytes(us(16, 16)),
    *(o.part10() for o in OBJECTS.values()),
]


def test_read_uses_it():
    content = file_bytes(us(16, 16, PatientID="1"))
    assert everything(read(content)) == everything(by_pydicom(content))
