"""An archive writes the lengths of sequences anew; the original's bytes are found all the same."""

from __future__ import annotations

import io
import itertools

import pytest
from pydicom import dcmread, uid
from pydicom.dataset import Dataset

from blessmark import pixels
from blessmark.pixels import layout, lengths
from blessmark.pixels.lengths import STYLES, Style
from tests.builders import Encoding, dataset, file_bytes, phantom

SYNTAXES = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)


def nested(depth: int) -> Dataset:
    item = Dataset()
    item.CodeValue = str(depth)
    if depth:
        item.ContentSequence = [nested(depth - 1), Dataset()]
    return item


def stored(syntax: str, style: Style) -> bytes:
    """A file with sequences in sequences, one that is private, and an empty one."""
    ds = dataset(phantom(8, 8), Encoding(syntax=syntax), PatientName="A", ContentSequence=[nested(2)])
    ds.ReferencedStudySequence = []
    ds.private_block(0x0011, "TEST", create=True).add_new(0x01, "SQ", [nested(1)])
    return as_an_archive_writes(file_bytes(ds), style)


def as_an_archive_writes(content: bytes, style: Style) -> bytes:
    ds = dcmread(io.BytesIO(content))
    _set(ds, style)
    target = io.BytesIO()
    ds.save_as(target)
    return target.getvalue()


def _set(ds: Dataset, style: Style) -> None:
    for element in ds:
        if element.VR == "SQ":
            element.is_undefined_length = style.sequences
            for item in element.value:
                item.is_undefined_length_sequence_item = style.items
                _set(item, style)


def data_set(content: bytes) -> bytes:
    return b"".join(layout.parts(pixels.read(content)))


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(("before", "after"), list(itertools.product(STYLES, repeat=2)))
def test_the_very_bytes_come_back_whatever_an_archive_prefers(syntax, before, after):
    original = stored(syntax, before)
    ds = pixels.read(original)
    digest = pixels.settle(ds)
    ds.PatientName, ds.StudyDescription = "", "added"
    ds.ContentSequence[0].CodeValue = "changed"
    found = pixels.changes(ds, digest)
    target = io.BytesIO()
    pixels.write(ds, target)
    received = pixels.read(as_an_archive_writes(target.getvalue(), after))
    assert pixels.undo(received, found)
    assert b"".join(layout.parts(received)) == data_set(original)


def test_a_value_that_is_another_is_not_made_right_by_any_of_them():
    ds = pixels.read(stored(uid.ExplicitVRLittleEndian, STYLES[0]))
    digest = pixels.settle(ds)
    ds.PatientName = ""
    found = pixels.changes(ds, digest)
    target = io.BytesIO()
    ds.StudyDescription = "slipped in"
    pixels.write(ds, target)
    received = pixels.read(as_an_archive_writes(target.getvalue(), STYLES[-1]))
    assert not pixels.undo(received, found)
    assert b"slipped in" in b"".join(layout.parts(received))


def test_nothing_is_tried_where_there_is_no_sequence_and_nothing_twice():
    ds = pixels.read(file_bytes(dataset(phantom(8, 8))))
    kept = layout.layout_of(ds)
    assert list(lengths.variants(ds, kept.pieces, kept.encoding, ())) == []
    ds = pixels.read(stored(uid.ExplicitVRLittleEndian, STYLES[1]))
    kept = layout.layout_of(ds)
    assert len(list(lengths.variants(ds, kept.pieces, kept.encoding, ()))) == len(STYLES) - 1
    fixed = {0x0040A730, 0x00111001, 0x00081110}
    assert list(lengths.variants(ds, kept.pieces, kept.encoding, fixed)) == []


def test_what_cannot_be_read_stays_as_it_is():
    ds = pixels.read(stored(uid.ExplicitVRLittleEndian, STYLES[3]))
    kept = layout.layout_of(ds)
    broken = [piece for piece in kept.pieces if piece.tag == 0x0040A730]
    assert broken[0].item is not None
    item = broken[0].item._replace(value=b"\xfe\xff\x00\xe0\xff\xff")
    assert lengths.styled(ds, item, STYLES[0]) is None
