"""Every cell of the tables in the conformance statement: an object of that kind, and what became of it.

What is marked is made: by an encoder of the tests, or from the codestreams in `tests/codestreams`. What is
passed on is judged by its header alone, so its fragments may be any bytes; they must leave as they came. No
object can be made for the cells of `NOT_TO_BE_MADE`, and the tables say so.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from functools import cache
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from blessmark import pixels
from blessmark.payload.record import FULL_FIELDS
from blessmark.pixels.layout import digest
from blessmark.segment import segmenter
from dicom_node.config import Deidentify, Profile
from dicom_node.deidentify import telling_content
from dicom_node.dimse.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES
from dicom_node.protect import Protection, Site, protect, written
from dicom_node.review import Reader, recover
from tests.builders import Encoding, Samples, dataset, file_bytes, phantom, pixel_value, put_pixels
from tests.strategies import RING
from tools.fates import IMPOSSIBLE, IN_PLACE, JPIP, KEPT, KINDS, Kind, fate, holds_pixels, of_class

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
JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)
HTJ2K = (uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
_CODESTREAMS = json.loads(Path(__file__).parents[1].joinpath("codestreams/htj2k.json").read_text("ascii"))
_SIDE = 128
_OPAQUE = bytes(range(256)) * 3

#: cells of which there are no objects: samples of JPEG Baseline have 8 bits (PS3.5 A.4.1)
NOT_TO_BE_MADE = {(uid.JPEGBaseline8Bit, "grey 12"), (uid.JPEGBaseline8Bit, "grey 16 signed")}


def encoding_of(syntax: str, kind: Kind) -> Encoding:
    return Encoding(
        kind.stored,
        max(kind.allocated, 8),
        signed=kind.signed,
        photometric=kind.photometric,
        syntax=syntax,
        near=1,
        ratio=2.0,
    )


def samples_of(kind: Kind) -> Samples:
    """A phantom with room for a record; in luminance and chrominance, a pale one."""
    encoding = encoding_of(uid.ExplicitVRLittleEndian, kind)
    low, high = max(encoding.lo, -1000), min(encoding.hi, 3000)
    samples = phantom(_SIDE, _SIDE, channels=kind.channels, lo=low, hi=high)
    if kind.photometric.startswith("YBR"):
        samples[:, 1:] = 128 + samples[:, 1:] // 8
    return samples


@cache
def encoded(syntax: str, kind: Kind) -> bytes:
    """The value of Pixel Data for pixels of a kind in a syntax; any fragments where nobody looks at them."""
    samples = samples_of(kind)
    if syntax in NATIVE:
        return uncompressed(samples, syntax, kind)
    if fate(uid.SecondaryCaptureImageStorage, syntax, kind).startswith("`"):
        return encapsulate([_OPAQUE, _OPAQUE[::-1]])
    if syntax in JPEG:
        return encapsulate([jpeg(samples, syntax, kind)])
    if syntax in HTJ2K:
        return encapsulate([htj2k(syntax, kind)])
    return pixel_value(samples, encoding_of(syntax, kind))


def uncompressed(samples: Samples, syntax: str, kind: Kind) -> bytes:
    if kind.allocated == 1:
        return np.packbits((samples > 0).ravel(), bitorder="little").tobytes()
    if kind.photometric == "YBR_FULL_422":  # two luminances, then the chrominance that they share
        luminance, shared = samples[0, 0].reshape(-1, 2), samples[0, 1:, :, ::2].reshape(2, -1).T
        return np.hstack([luminance, shared]).astype("u1").tobytes()
    return pixel_value(samples, encoding_of(syntax, kind))


def jpeg(samples: Samples, syntax: str, kind: Kind) -> bytes:
    """A lossy JPEG as its photometric interpretation says; the extended process differs in its marker."""
    pixels_ = np.moveaxis(samples[0], 0, 2).squeeze().astype("u1")
    mode = {"RGB": "RGB", "MONOCHROME2": "L"}.get(kind.photometric, "YCbCr")
    subsampling = "4:2:2" if kind.photometric == "YBR_FULL_422" else "4:4:4"
    target = io.BytesIO()
    PIL.Image.fromarray(pixels_, mode).save(
        target, "JPEG", quality=95, subsampling=subsampling, keep_rgb=mode == "RGB"
    )
    stream = target.getvalue()
    return stream.replace(b"\xff\xc0\x00", b"\xff\xc1\x00", 1) if syntax == uid.JPEGExtended12Bit else stream


def htj2k(syntax: str, kind: Kind) -> bytes:
    return base64.b64decode(_stored(syntax, kind)["codestream"])


def _stored(syntax: str, kind: Kind) -> dict[str, str]:
    way = "lossy" if syntax == uid.HTJ2K else "lossless"
    name = next(n for n, other in KINDS.items() if other == kind).replace("_422", " 8")
    return dict(_CODESTREAMS[f"{way} {name}"])


def made(sop_class: str, syntax: str, kind: Kind) -> Dataset:
    """An instance of a class with pixels of a kind, as it arrives."""
    native = encoding_of(uid.ExplicitVRLittleEndian, kind)
    ds = dataset(samples_of(kind), native, SOPClassUID=sop_class, PatientName="Phantom^Test")
    ds.file_meta.TransferSyntaxUID = uid.UID(syntax)
    ds.BitsAllocated = kind.allocated
    if syntax in JPIP:
        del ds.PixelData
        ds.PixelDataProviderURL = "https://pixels.example/1"
        return arrived_as(ds, syntax)
    put_pixels(ds, encoded(syntax, kind), encoding_of(syntax, kind))
    ds["PixelData"].is_undefined_length = syntax not in NATIVE
    ds["PixelData"].VR = "OW" if kind.allocated == 16 and syntax in NATIVE else "OB"
    return arrived_as(ds, syntax)


def arrived_as(ds: Dataset, syntax: str) -> Dataset:
    """`ds` as it is found in a file; pydicom writes none in a syntax that it does not know."""
    if syntax in NATIVE:
        return pixels.read(file_bytes(ds))
    ds.preamble = bytes(128)
    return pixels.read(written(ds))


def without_pixels(sop_class: str, syntax: str) -> Dataset:
    ds = dataset(phantom(8, 8), SOPClassUID=sop_class, PatientName="Phantom^Test")
    ds.file_meta.TransferSyntaxUID = uid.UID(syntax)
    del ds.PixelData, ds.BitsAllocated
    if of_class(sop_class) == "`encapsulated-document`":
        ds.EncapsulatedDocument = b"%PDF"
    return arrived_as(ds, syntax)


def is_as_told(done: Protection, expected: str, ds: Dataset, before: bytes, came_in: str) -> None:
    """What became of `ds` is what a table says."""
    if expected.startswith("`"):
        assert (done.result, f"`{done.reason}`") == ("passed", expected)
        assert written(ds) == before
        return
    assert [mark.receipt is not None for mark in done.frames] == [True], "a phantom with room"
    now = str(ds.file_meta.TransferSyntaxUID)
    if expected in (IN_PLACE, KEPT):
        assert now == came_in
    else:
        assert uid.UID(now).name.startswith(expected)


_CELLS = [
    (syntax, name) for syntax in TRANSFER_SYNTAXES for name in KINDS if (syntax, name) not in NOT_TO_BE_MADE
]


@pytest.mark.parametrize(
    ("syntax", "name"), _CELLS, ids=[f"{uid.UID(syntax).name}-{name}" for syntax, name in _CELLS]
)
def test_pixels_by_transfer_syntax(syntax, name):
    ds = made(uid.SecondaryCaptureImageStorage, syntax, KINDS[name])
    before, original, came = written(ds), digest(ds), pixels.load(ds)
    expected = fate(uid.SecondaryCaptureImageStorage, syntax, KINDS[name])
    done = protect(ds, SITE, 0)
    is_as_told(done, expected, ds, before, syntax)
    if not done.changed:
        return
    arrived = pixels.read(written(ds))
    back = recover(arrived, "x", READER)
    gone = pixels.load(arrived)
    assert isinstance(came, pixels.Image)
    assert isinstance(gone, pixels.Image)
    assert np.array_equal(gone.words, came.words)
    assert back.restored
    assert back.identical == (syntax in NATIVE)
    assert digest(arrived) == original or syntax not in NATIVE


def test_the_cells_without_an_object_are_those_that_the_table_calls_so():
    told = {
        (syntax, name)
        for syntax in TRANSFER_SYNTAXES
        for name, kind in KINDS.items()
        if fate(uid.SecondaryCaptureImageStorage, syntax, kind) == IMPOSSIBLE
    }
    assert told == NOT_TO_BE_MADE


@pytest.mark.parametrize("syntax", HTJ2K[:2])
@pytest.mark.parametrize("name", ["grey 8", "grey 12", "grey 16 signed", "RGB 8", "YBR_FULL 8"])
def test_htj2k_is_read_as_it_was_written(syntax, name):
    image = pixels.load(made(uid.SecondaryCaptureImageStorage, syntax, KINDS[name]))
    assert isinstance(image, pixels.Image)
    found = image.frame(1).samples.astype("<i4").tobytes()
    assert hashlib.sha256(found).hexdigest() == _stored(syntax, KINDS[name])["sha256"]


@pytest.mark.parametrize("sop_class", STORAGE_CLASSES, ids=STORAGE_CLASSES.get)
def test_every_sop_class_in_every_transfer_syntax(sop_class):
    for syntax in TRANSFER_SYNTAXES:
        if holds_pixels(sop_class):
            ds = made(sop_class, syntax, KINDS["grey 8"])
            expected = fate(sop_class, syntax, KINDS["grey 8"])
        else:
            ds, expected = without_pixels(sop_class, syntax), of_class(sop_class)
        before = written(ds)
        is_as_told(protect(ds, SITE, 0), expected, ds, before, syntax)


@pytest.mark.parametrize("sop_class", STORAGE_CLASSES, ids=STORAGE_CLASSES.get)
def test_every_sop_class_on_a_route_that_deidentifies(sop_class):
    expected = of_class(sop_class)
    for syntax in NATIVE[:2]:
        if holds_pixels(sop_class):
            ds = made(sop_class, syntax, KINDS["grey 12"])
        else:
            ds = without_pixels(sop_class, syntax)
        content = telling_content(ds)
        done = protect(ds, PRIVATE_SITE, 0)
        if content:
            assert (done.result, done.reason) == ("held", content)
            assert content in ("encapsulated-document", "voice")
            continue
        assert done.result == ("rewritten" if expected.startswith("`") else "protected")
        arrived = pixels.read(written(ds))
        assert "Phantom" not in str(arrived.PatientName)
        assert recover(arrived, "x", READER).identical
