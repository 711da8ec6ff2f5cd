"""Compressed pixels written out: the samples that `load` reads, and a header that says what they are."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate_extended

from blessmark.errors import PixelError
from blessmark.pixels import Image, decompress, load
from tests.builders import (
    COLOUR_8,
    GREY_8,
    PIXEL_DATA,
    SIGNED_16,
    Encoding,
    dataset,
    file_bytes,
    noise,
    phantom,
    put_pixels,
    reread,
)

LOSSLESS = (
    uid.RLELossless,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLossless,
)
LOSSY = (uid.JPEGLSNearLossless, uid.JPEG2000, uid.JPEGBaseline8Bit)


def encoding(base: Encoding, syntax: str, **changes: object) -> Encoding:
    return Encoding(
        **{**{name: getattr(base, name) for name in base.__dataclass_fields__}, **changes, "syntax": syntax}
    )


def samples_of(ds: Dataset) -> np.ndarray:
    image = load(reread(ds))
    assert isinstance(image, Image)
    return image.words.astype(np.int32)


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("base", [Encoding(), GREY_8, COLOUR_8, SIGNED_16], ids=["12", "8", "rgb", "signed"])
def test_the_samples_are_the_stored_ones(syntax: str, base: Encoding) -> None:
    if base is SIGNED_16 and syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1):
        base = Encoding(bits_stored=15, signed=True)
    made = encoding(base, syntax)
    channels = 3 if base is COLOUR_8 else 1
    samples = phantom(40, 48, frames=2, channels=channels, lo=made.lo, hi=made.hi)
    ds = reread(dataset(samples, made, NumberOfFrames=2))
    decompress(ds)
    assert ds.file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian
    assert "LossyImageCompression" not in ds
    assert np.array_equal(samples_of(ds), samples)


@pytest.mark.parametrize("syntax", LOSSY)
@pytest.mark.parametrize("channels", [1, 3])
def test_lossy_samples_are_the_decoded_ones_and_say_so(syntax: str, channels: int) -> None:
    photometric = "YBR_FULL_422" if channels == 3 and syntax == uid.JPEGBaseline8Bit else "RGB"
    made = encoding(GREY_8, syntax, photometric=photometric if channels == 3 else "MONOCHROME2")
    ds = reread(dataset(phantom(48, 48, channels=channels, hi=255), made))
    expected = samples_of(ds)
    decompress(ds)
    assert np.array_equal(samples_of(ds), expected)
    assert ds.LossyImageCompression == "01"
    assert ds.LossyImageCompressionMethod
    assert float(ds.LossyImageCompressionRatio) > 0
    if channels == 3:
        assert (ds.PhotometricInterpretation, ds.PlanarConfiguration) == ("RGB", 0)


def test_what_is_said_about_an_earlier_loss_stays() -> None:
    ds = dataset(phantom(48, 48, hi=255), encoding(GREY_8, uid.JPEGBaseline8Bit))
    ds.LossyImageCompression, ds.LossyImageCompressionRatio = "01", "33"
    decompress(ds)
    assert ds.LossyImageCompressionRatio == 33
    assert "LossyImageCompressionMethod" not in ds


def test_an_odd_number_of_bytes_is_padded_and_offset_tables_go() -> None:
    made = encoding(GREY_8, uid.RLELossless)
    ds = dataset(noise(9, 9, made), made)
    from pydicom.encaps import generate_frames

    frames = list(generate_frames(ds.PixelData, number_of_frames=1))
    ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = encapsulate_extended(frames)
    decompress(ds)
    assert len(ds.PixelData) == 82
    assert "ExtendedOffsetTable" not in ds
    assert "ExtendedOffsetTableLengths" not in ds


def test_words_of_32_bits_out_of_rle() -> None:
    made = Encoding(bits_stored=32, bits_allocated=32, syntax=uid.RLELossless)
    samples = np.arange(64 * 64, dtype=np.int32).reshape(1, 1, 64, 64) << 12
    ds = reread(dataset(samples, made, SOPClassUID=uid.RTDoseStorage))
    decompress(ds)
    assert ds.PixelData == samples.astype("<u4").tobytes()


def test_a_compressed_icon_is_written_out_too() -> None:
    made = encoding(GREY_8, uid.JPEGLSLossless)
    inner = phantom(16, 16, hi=255)
    icon = dataset(inner, made)
    del icon.file_meta
    ds = reread(dataset(phantom(32, 32, hi=255), made, IconImageSequence=[icon]))
    decompress(ds)
    back = reread(ds).IconImageSequence[0]
    assert back.PixelData == inner.astype("u1").tobytes()
    assert not hasattr(ds.IconImageSequence[0], "file_meta")


def test_an_uncompressed_icon_stays() -> None:
    icon = dataset(phantom(16, 16, hi=255), GREY_8)
    del icon.file_meta
    ds = reread(dataset(phantom(32, 32, hi=255), encoding(GREY_8, uid.RLELossless), IconImageSequence=[icon]))
    decompress(ds)
    assert reread(ds).IconImageSequence[0].PixelData == icon.PixelData


def test_an_object_without_pixels_only_changes_its_syntax() -> None:
    ds = dataset(phantom(16, 16, hi=255), encoding(GREY_8, uid.RLELossless), PixelData=None)
    decompress(ds)
    assert ds.file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"BitsStored": 6}, "do not start at the lowest bit"),
        ({"PhotometricInterpretation": "YBR_FULL_422", "SamplesPerPixel": 3}, "contradicts|without change"),
        ({"Rows": 65535, "Columns": 65535, "NumberOfFrames": 10}, "too many"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "words of 32 bits"),
    ],
)
def test_what_would_not_be_the_same_is_refused(changes: dict[str, object], said: str) -> None:
    ds = dataset(phantom(32, 32, hi=255), encoding(GREY_8, uid.JPEGLSLossless), **changes)
    with pytest.raises(PixelError, match=said):
        decompress(ds)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.MPEG2MPML, uid.JPEG2000MC])
def test_what_is_not_compressed_or_has_no_decoder(syntax: str) -> None:
    ds = dataset(phantom(32, 32, hi=255), GREY_8)
    ds.file_meta.TransferSyntaxUID = uid.UID(syntax)
    with pytest.raises(PixelError, match="cannot be decompressed"):
        decompress(ds)


def test_a_damaged_frame(tmp_path: object) -> None:
    made = encoding(GREY_8, uid.JPEG2000Lossless)
    ds = dataset(phantom(64, 64, hi=255), made)
    put_pixels(ds, ds[PIXEL_DATA].value.replace(b"\xff\x4f", b"\xff\x4e", 1), made)
    with pytest.raises(PixelError):
        decompress(ds)
    assert file_bytes(ds)
