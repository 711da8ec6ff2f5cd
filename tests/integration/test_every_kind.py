"""Every cell of the tables in the conformance statement that can be made, made and protected."""

from __future__ import annotations

import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from blessmark import pixels
from blessmark.payload.record import FULL_FIELDS
from blessmark.pixels.layout import digest
from blessmark.segment import segmenter
from dicom_node.config import Deidentify, Profile
from dicom_node.dimse.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES
from dicom_node.protect import Site, protect, written
from dicom_node.review import Reader, recover
from tests.builders import _ENCODERS, Encoding, dataset, file_bytes, phantom
from tests.strategies import RING
from tools.fates import IN_PLACE, KEPT, KINDS, Kind, fate, holds_pixels, of_class

pytestmark = pytest.mark.slow

SITE = Site("node-1", RING, segmenter("anatomy"), FULL_FIELDS)
PRIVATE_SITE = Site(
    "node-1", RING, segmenter("anatomy"), FULL_FIELDS, deidentify=Deidentify(profile=Profile.BASIC)
)
READER = Reader(RING, (segmenter("anatomy"),))
NATIVE = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)


def made(sop_class: str, syntax: str, kind: Kind) -> Dataset:
    """An instance of a class with pixels of a kind, as it arrives."""
    encoding = Encoding(
        kind.stored, kind.allocated, signed=kind.signed, photometric=kind.photometric, syntax=syntax
    )
    low, high = max(encoding.lo, -1000), min(encoding.hi, 3000)
    samples = phantom(64, 64, channels=kind.channels, lo=low, hi=high)
    ds = dataset(samples, encoding, SOPClassUID=sop_class, PatientName="Phantom^Test")
    return pixels.read(file_bytes(ds))


def without_pixels(sop_class: str, syntax: str) -> Dataset:
    ds = dataset(phantom(8, 8), Encoding(syntax=syntax), SOPClassUID=sop_class, PatientName="Phantom^Test")
    del ds.PixelData, ds.BitsAllocated
    if of_class(sop_class) == "`encapsulated-document`":
        ds.EncapsulatedDocument = b"%PDF"
    return pixels.read(file_bytes(ds))


#: what an encoder of the tests can write beside grey and RGB
_KINDS = {
    **dict.fromkeys(NATIVE, tuple(name for name, kind in KINDS.items() if kind.allocated > 1)),
    **dict.fromkeys(_ENCODERS, ("grey 8", "grey 12", "grey 16 signed", "RGB 8", "YBR_FULL 8")),
    uid.JPEGBaseline8Bit: ("grey 8", "YBR_FULL_422"),
}
_CELLS = [(syntax, name) for syntax, names in _KINDS.items() for name in names]


@pytest.mark.parametrize(
    ("syntax", "name"), _CELLS, ids=[f"{uid.UID(syntax).name}-{name}" for syntax, name in _CELLS]
)
def test_pixels_by_transfer_syntax(syntax, name):
    ds = made(uid.SecondaryCaptureImageStorage, syntax, KINDS[name])
    before, original = written(ds), digest(ds)
    expected = fate(uid.SecondaryCaptureImageStorage, syntax, KINDS[name])
    done = protect(ds, SITE, 0)
    if expected.startswith("`"):
        assert (done.result, f"`{done.reason}`") == ("passed", expected)
        assert written(ds) == before
        return
    assert done.changed
    now = str(ds.file_meta.TransferSyntaxUID)
    marked = any(mark.receipt is not None for mark in done.frames)
    if expected in (IN_PLACE, KEPT) or not marked:
        assert now == syntax
    else:
        assert uid.UID(now).name.startswith(expected)
    arrived = pixels.read(written(ds))
    back = recover(arrived, "x", READER)
    assert back.restored
    assert back.identical == (digest(arrived) == original)
    assert back.identical or syntax not in NATIVE


@pytest.mark.parametrize("sop_class", STORAGE_CLASSES, ids=STORAGE_CLASSES.get)
def test_every_sop_class(sop_class):
    expected = of_class(sop_class)
    for syntax in NATIVE[:2]:
        if holds_pixels(sop_class):
            ds = made(sop_class, syntax, KINDS["grey 12"])
        else:
            ds = without_pixels(sop_class, syntax)
        done = protect(ds, SITE, 0)
        if expected.startswith("`"):
            assert (done.result, f"`{done.reason}`") == ("passed", expected)
        else:
            assert done.changed
        done = protect(ds, PRIVATE_SITE, 0)
        if expected == "`encapsulated-document`":
            assert done.result == "held"
        elif expected.startswith("`"):
            assert done.result == "rewritten"
            arrived = pixels.read(written(ds))
            assert "Phantom" not in str(arrived.PatientName)
            assert recover(arrived, "x", READER).identical


def test_every_syntax_that_is_read_is_made_here_or_comes_with_the_public_files():
    """The rest of the column is either read from public files (`test_every_image.py`) or passed on."""
    from_files = {
        uid.JPEGExtended12Bit,
        uid.HTJ2KLossless,
        uid.HTJ2KLosslessRPCL,
        uid.HTJ2K,
    }
    grey = KINDS["grey 8"]
    decided = {s: fate(uid.SecondaryCaptureImageStorage, s, grey) for s in TRANSFER_SYNTAXES}
    read = {syntax for syntax, found in decided.items() if not found.startswith("`")}
    assert read <= {*NATIVE, *_ENCODERS, *from_files}
