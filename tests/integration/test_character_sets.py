"""Every name in the files that pydicom tests its character sets with comes back bit for bit.

Some of these files hold no image and some describe one that is not there, so what they say, byte for byte as
they say it, is carried over into an image of ours.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.data import get_charset_files
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import Dataset

from blessmark import pixels
from blessmark.payload.record import FULL_FIELDS
from blessmark.pixels import layout
from blessmark.segment import segmenter
from dicom_node import header
from dicom_node.config import Deidentify, Profile
from dicom_node.protect import Site, protect, written
from dicom_node.review import Reader, recover
from dicom_node.rewrite import as_sequence
from tests.builders import PIXEL_DATA, file_bytes, mr
from tests.secret_values import found, kept_values, removed_values
from tests.strategies import RING

BASIC = Deidentify(profile=Profile.BASIC)
PLAIN = Site("node-1", RING, segmenter("anatomy"), FULL_FIELDS)
PRIVATE = Site("node-1", RING, segmenter("anatomy"), FULL_FIELDS, deidentify=BASIC)
READER = Reader(RING, (segmenter("anatomy"),))
FILES = {path.stem: path for path in sorted(map(Path, get_charset_files("*.dcm")))}

#: these name people in sequences only, with character sets of their own
_NAMED_IN_SEQUENCES = {"chrSQEncoding", "chrSQEncoding1"}
_PATIENT_NAME = 0x00100010
#: what makes the image ours: its class and UID, and the pixels with what describes them
_OURS = (0x00080016, 0x00080018)
_OUR_GROUPS = (0x0028, 0x7FE0)


def image_saying(path: Path, side: int) -> bytes:
    """An image of ours with every other element of a file, as the bytes that stand there."""
    theirs = pixels.read(path)
    ours = mr(side, side)
    ours.file_meta.TransferSyntaxUID = theirs.file_meta.TransferSyntaxUID
    content = file_bytes(ours)
    before = len(content) - len(body(pixels.read(content)))
    pieces = elements(pixels.read(content))
    last = content[before + sum(len(raw) for tag, raw in pieces.items() if tag != PIXEL_DATA) :]
    pieces |= {
        tag: raw for tag, raw in elements(theirs).items() if tag not in _OURS and tag >> 16 not in _OUR_GROUPS
    }
    pieces[PIXEL_DATA] = last
    return content[:before] + b"".join(pieces[tag] for tag in sorted(pieces))


def elements(ds: Dataset) -> dict[int, bytes]:
    """Each element as it stands in the file; of the pixels, what is before them."""
    return {piece.tag: piece.raw for piece in layout.layout_of(ds).pieces if piece.tag}


def names(ds: Dataset) -> list[bytes]:
    """The names in a data set at any depth, byte for byte."""
    told = []
    for tag in ds.keys():  # noqa: SIM118
        sequence = as_sequence(ds, ds.get_item(tag))
        if sequence is not None:
            told += [name for item in sequence.value for name in names(item)]
        elif dictionary_has_tag(tag) and dictionary_VR(tag) == "PN":
            told.append(header.value_bytes(ds, int(tag)) or b"")
    return told


def body(ds: Dataset) -> bytes:
    return b"".join(layout.parts(ds))


def test_the_files_are_there():
    assert len(FILES) >= 17


@pytest.mark.parametrize("side", [256, 32], ids=["room", "no room"])
@pytest.mark.parametrize("site", [PLAIN, PRIVATE], ids=["plain", "de-identified"])
@pytest.mark.parametrize("name", FILES)
def test_every_name_comes_back_bit_for_bit(name, site, side):
    ds = pixels.read(image_saying(FILES[name], side))
    said = names(pixels.read(FILES[name]))
    assert max(map(len, said)) > 8
    original, kept = body(ds), b"\0".join(kept_values(ds, BASIC))
    secrets = [value for value in removed_values(ds, BASIC) if value not in kept]
    assert protect(ds, site, 0).result == ("protected" if side == 256 else "protected-header")
    content = written(ds)
    if site is PRIVATE:
        assert secrets
        assert found(content, secrets) == []
    arrived = pixels.read(content)
    assert recover(arrived, "x", READER).identical
    back = pixels.read(written(arrived))
    assert body(back) == original
    assert set(said) <= set(names(back))


@pytest.mark.parametrize("name", sorted(FILES.keys() - _NAMED_IN_SEQUENCES))
def test_the_record_alone_gives_the_name_back(name):
    """Without the private block, the pixels give the bytes of the name and its character set."""
    ds = pixels.read(image_saying(FILES[name], 256))
    before = {tag: header.value_bytes(ds, tag) for tag in (_PATIENT_NAME, header.SPECIFIC_CHARACTER_SET)}
    assert protect(ds, PRIVATE, 0).result == "protected"
    for tag in [tag for tag in ds.keys() if tag.group == 0x0099]:  # noqa: SIM118
        del ds[tag]
    arrived = pixels.read(written(ds))
    assert header.value_bytes(arrived, _PATIENT_NAME) != before[_PATIENT_NAME]
    assert recover(arrived, "x", READER).restored
    back = pixels.read(written(arrived))
    assert {tag: header.value_bytes(back, tag) for tag in before} == before
