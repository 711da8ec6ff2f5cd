"""pixels: what is read, what is passed through, what is refused, and that not one bit is lost."""

from __future__ import annotations

import importlib
import io
import itertools
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import data_store
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended

from blessmark.errors import PixelError
from blessmark.pixels import (
    Image,
    Passthrough,
    Reason,
    codec,
    codestream,
    jpeg_lossless,
    load,
    read,
    store,
    write,
)
from blessmark.types import Frame, IntArray, Rectangle
from tests.assorted import Thing
from tests.builders import (
    COLOUR_8,
    GREY_8,
    PIXEL_DATA,
    SIGNED_16,
    Encoding,
    cr,
    ct,
    dataset,
    enhanced_mr,
    file_bytes,
    lossless_jpeg,
    mr,
    noise,
    phantom,
    reread,
    secondary_capture,
    us,
)

# the package exports a function of the module's name
pixels_store = importlib.import_module("blessmark.pixels.store")

BIG = uid.ExplicitVRBigEndian
YBR_8 = replace(COLOUR_8, photometric="YBR_FULL")
SIGNED_12 = Encoding(signed=True)

NATIVE = {
    "12 of 16 bits": (Encoding(), 1),
    "signed 16 bits": (SIGNED_16, 1),
    "signed 12 of 16 bits": (SIGNED_12, 1),
    "unsigned 16 bits": (Encoding(bits_stored=16), 1),
    "8 of 16 bits": (Encoding(bits_stored=8), 1),
    "8 bits": (GREY_8, 1),
    "signed 8 bits": (replace(GREY_8, signed=True), 1),
    "8 bits in words": (replace(GREY_8, vr="OW"), 1),
    "white is low": (Encoding(bits_stored=10, photometric="MONOCHROME1"), 1),
    "RGB": (COLOUR_8, 3),
    "RGB by plane": (replace(COLOUR_8, planar=1), 3),
    "RGB of 16 bits": (Encoding(bits_stored=16, photometric="RGB"), 3),
    "YBR": (YBR_8, 3),
    "implicit VR": (Encoding(syntax=uid.ImplicitVRLittleEndian), 1),
    "implicit VR signed": (replace(SIGNED_16, syntax=uid.ImplicitVRLittleEndian), 1),
    "deflated": (Encoding(syntax=uid.DeflatedExplicitVRLittleEndian), 1),
    "big endian": (Encoding(syntax=BIG), 1),
    "big endian signed": (replace(SIGNED_12, syntax=BIG), 1),
    "big endian bytes": (replace(GREY_8, syntax=BIG), 1),
    "big endian bytes in words": (replace(GREY_8, syntax=BIG, vr="OW"), 1),
    "big endian RGB in words": (replace(COLOUR_8, syntax=BIG, vr="OW"), 3),
    "big endian RGB by plane": (replace(COLOUR_8, syntax=BIG, planar=1), 3),
}

LOSSLESS = {
    **{
        f"{name} {bits}": (replace(encoding, syntax=syntax), 1)
        for name, syntax in {
            "RLE": uid.RLELossless,
            "JPEG-LS": uid.JPEGLSLossless,
            "JPEG 2000": uid.JPEG2000Lossless,
            "JPEG lossless": uid.JPEGLossless,
            "JPEG lossless SV1": uid.JPEGLosslessSV1,
        }.items()
        for bits, encoding in {
            "12": Encoding(),
            "signed 12": SIGNED_12,
            "signed 16": SIGNED_16,
            "16": Encoding(bits_stored=16),
            "8": GREY_8,
            "8 of 16": Encoding(bits_stored=8),
            "9 signed": Encoding(bits_stored=9, signed=True),
        }.items()
    },
    "RLE RGB": (replace(COLOUR_8, syntax=uid.RLELossless), 3),
    "RLE RGB 16": (Encoding(bits_stored=16, photometric="RGB", syntax=uid.RLELossless), 3),
    "RLE YBR": (replace(YBR_8, syntax=uid.RLELossless), 3),
    "JPEG-LS RGB": (replace(COLOUR_8, syntax=uid.JPEGLSLossless), 3),
    "JPEG-LS RGB declared by plane": (replace(COLOUR_8, planar=1, syntax=uid.JPEGLSLossless), 3),
    "JPEG 2000 RGB": (replace(COLOUR_8, syntax=uid.JPEG2000Lossless), 3),
    "JPEG 2000 RCT": (replace(COLOUR_8, photometric="YBR_RCT", syntax=uid.JPEG2000Lossless), 3),
    "JPEG 2000 YBR": (replace(YBR_8, syntax=uid.JPEG2000Lossless), 3),
    "JPEG lossless RGB": (replace(COLOUR_8, syntax=uid.JPEGLosslessSV1), 3),
    "JPEG lossless YBR": (replace(YBR_8, syntax=uid.JPEGLossless), 3),
}

#: (encoding, channels, photometric interpretation once decoded)
LOSSY = {
    "JPEG grey": (replace(GREY_8, syntax=uid.JPEGBaseline8Bit), 1, "MONOCHROME2"),
    "JPEG colour": (
        replace(COLOUR_8, photometric="YBR_FULL_422", syntax=uid.JPEGBaseline8Bit),
        3,
        "RGB",
    ),
    "JPEG-LS near-lossless": (replace(SIGNED_12, syntax=uid.JPEGLSNearLossless), 1, "MONOCHROME2"),
    "JPEG-LS near-lossless RGB": (replace(COLOUR_8, syntax=uid.JPEGLSNearLossless), 3, "RGB"),
    "JPEG-LS near-lossless YBR": (replace(YBR_8, syntax=uid.JPEGLSNearLossless), 3, "RGB"),
    "JPEG 2000": (Encoding(syntax=uid.JPEG2000), 1, "MONOCHROME2"),
    "JPEG 2000 ICT": (replace(COLOUR_8, photometric="YBR_ICT", syntax=uid.JPEG2000), 3, "RGB"),
}


def image_of(ds: Dataset) -> Image:
    image = load(ds)
    assert isinstance(image, Image)
    return image


def reason_of(ds: Dataset) -> Reason:
    found = load(ds)
    assert isinstance(found, Passthrough)
    return found.reason


def samples_of(image: Image) -> IntArray:
    return np.stack([frame.samples for frame in image])


def value_of(ds: Dataset) -> bytes:
    value = ds.get_item(PIXEL_DATA).value
    assert isinstance(value, bytes)
    return value


def written(ds: Dataset) -> Dataset:
    target = io.BytesIO()
    write(ds, target)
    return read(target.getvalue())


def flipped(samples: IntArray, at: tuple[int, ...], image: Image) -> IntArray:
    """The samples with one of them moved by one step inside the range."""
    changed = samples.copy()
    changed[at] += 1 if changed[at] < image.hi else -1
    return changed


class TestNative:
    @pytest.mark.parametrize(("encoding", "channels"), NATIVE.values(), ids=NATIVE)
    @pytest.mark.parametrize("size", [(16, 24), (9, 11)], ids=["even", "odd"])
    def test_samples_come_out_as_they_went_in(self, encoding, channels, size):
        samples = noise(*size, encoding, frames=2, channels=channels)
        image = image_of(reread(dataset(samples, encoding)))
        assert np.array_equal(samples_of(image), samples)
        assert (image.lo, image.hi) == (encoding.lo, encoding.hi)
        assert (image.frames, image.channels, image.rows, image.cols) == samples.shape
        assert not image.lossy_source

    @pytest.mark.parametrize(("encoding", "channels"), NATIVE.values(), ids=NATIVE)
    def test_unchanged_samples_leave_every_byte(self, encoding, channels):
        ds = reread(dataset(noise(9, 11, encoding, frames=3, channels=channels), encoding))
        before = value_of(ds)
        image = image_of(ds)
        store(ds, image, (frame.samples for frame in image))
        assert value_of(ds) == before

    @pytest.mark.parametrize(("encoding", "channels"), NATIVE.values(), ids=NATIVE)
    def test_one_changed_sample_changes_the_bytes_of_one_word(self, encoding, channels):
        ds = reread(dataset(noise(9, 11, encoding, frames=3, channels=channels), encoding))
        before, image = value_of(ds), image_of(ds)
        wanted = flipped(samples_of(image), (1, channels - 1, 4, 7), image)
        store(ds, image, wanted)
        after = value_of(ds)
        changed = np.flatnonzero(np.frombuffer(before, np.uint8) != np.frombuffer(after, np.uint8))
        width = encoding.bits_allocated // 8
        assert 1 <= changed.size <= width
        assert np.ptp(changed) < width
        assert np.array_equal(samples_of(image_of(written(ds))), wanted)

    def test_trailing_padding_is_kept(self):
        ds = mr(8, 9)
        ds.PixelData += b"\0" * 6
        image = image_of(ds)
        store(ds, image, flipped(samples_of(image), (0, 0, 0, 0), image))
        assert len(ds.PixelData) == 8 * 9 * 2 + 6
        assert ds.PixelData.endswith(b"\0" * 6)

    def test_a_padding_byte_is_kept_whatever_it_is(self):
        ds = dataset(noise(9, 11, GREY_8), GREY_8)
        ds.PixelData = ds.PixelData[:-1] + b"\x20"
        image = image_of(ds)
        store(ds, image, samples_of(image))
        assert ds.PixelData.endswith(b"\x20")

    def test_vr_and_other_elements_are_written_as_they_were_read(self):
        content = file_bytes(us(encoding=replace(COLOUR_8, vr="OW")))
        ds = read(content)
        image = image_of(ds)
        store(ds, image, samples_of(image))
        target = io.BytesIO()
        write(ds, target)
        assert target.getvalue() == content

    def test_frames_are_widened_one_at_a_time(self):
        image = image_of(us(frames=4))
        assert image.words.dtype == np.uint8
        frame = image.frame(3)
        assert isinstance(frame, Frame)
        assert (frame.number, frame.samples.dtype) == (3, np.int32)
        assert [frame.number for frame in image] == [1, 2, 3, 4]
        with pytest.raises(ValueError, match="frame 5 of 4"):
            image.frame(5)
        with pytest.raises(ValueError, match="frame 0 of 4"):
            image.frame(0)


class TestCompressed:
    @pytest.mark.parametrize(("encoding", "channels"), LOSSLESS.values(), ids=LOSSLESS)
    def test_lossless_round_trip(self, encoding, channels):
        samples = noise(33, 35, encoding, frames=2, channels=channels)
        ds = reread(dataset(samples, encoding))
        image = image_of(ds)
        assert np.array_equal(samples_of(image), samples)
        wanted = flipped(samples, (1, channels - 1, 5, 6), image)
        store(ds, image, wanted)
        after = written(ds)
        assert np.array_equal(samples_of(image_of(after)), wanted)
        jpeg = encoding.syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1)
        assert after.file_meta.TransferSyntaxUID == (uid.JPEGLSLossless if jpeg else encoding.syntax)
        assert after.PhotometricInterpretation == encoding.photometric
        assert "LossyImageCompression" not in after
        # and another reader sees the same samples
        reader = "gdcm" if after.file_meta.TransferSyntaxUID != uid.RLELossless else "pydicom"
        assert np.array_equal(by_pydicom(after, reader), wanted)

    @pytest.mark.parametrize(("encoding", "channels", "photometric"), LOSSY.values(), ids=LOSSY)
    def test_what_a_lossy_source_decodes_to_is_kept_without_further_loss(
        self, encoding, channels, photometric
    ):
        samples = phantom(40, 48, frames=2, channels=channels, lo=encoding.lo // 2, hi=encoding.hi // 2)
        if encoding.photometric == "YBR_FULL":
            samples[:, 1:] = 128
        ds = reread(dataset(samples, encoding))
        image = image_of(ds)
        decoded = samples_of(image)
        assert image.lossy_source
        assert image.photometric == photometric
        assert 0 < np.abs(decoded - samples).mean() < 0.1 * encoding.hi or encoding.photometric == "YBR_FULL"
        wanted = flipped(decoded, (0, channels - 1, 5, 6), image)
        store(ds, image, wanted)
        after = written(ds)
        assert np.array_equal(samples_of(image_of(after)), wanted)
        assert after.file_meta.TransferSyntaxUID == uid.JPEGLSLossless
        assert after.PhotometricInterpretation == photometric
        assert after.LossyImageCompression == "01"
        assert image_of(after).lossy_source
        assert float(after.LossyImageCompressionRatio) > 1
        assert after.LossyImageCompressionMethod.startswith("ISO_1")

    def test_the_recorded_loss_is_kept_as_found(self):
        encoding = replace(GREY_8, syntax=uid.JPEGBaseline8Bit)
        found = {
            "LossyImageCompression": "01",
            "LossyImageCompressionRatio": [12, 3],
            "LossyImageCompressionMethod": ["ISO_15444_1", "ISO_10918_1"],
        }
        ds = dataset(phantom(hi=255), encoding, **found)
        image = image_of(ds)
        store(ds, image, samples_of(image))
        assert {keyword: ds[keyword].value for keyword in found} == found

    def test_colour_agrees_with_another_decoder(self):
        encoding, channels, _ = LOSSY["JPEG colour"]
        ds = dataset(phantom(40, 48, channels=channels, hi=255), encoding)
        other = by_pydicom(ds, "pillow", raw=False)
        assert np.abs(samples_of(image_of(ds)) - other).max() <= 1

    def test_rgb_in_a_stream_without_a_word_about_colour(self):
        """Three components without JFIF or Adobe markers are what the header says they are."""
        encoding, channels, _ = LOSSY["JPEG colour"]
        grey = np.repeat(phantom(40, 48, hi=255), channels, axis=1)
        ds = dataset(grey, encoding)
        plain = next(iter(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1)))
        assert plain[2:4] == b"\xff\xe0"
        plain = plain[:2] + plain[4 + int.from_bytes(plain[4:6], "big") :]
        ds.PixelData = encapsulate([plain])
        converted = samples_of(image_of(ds))
        ds.PhotometricInterpretation = "RGB"
        components = samples_of(image_of(ds))
        assert abs(int(components[0, 1].mean()) - 128) < 3  # Cb of a grey phantom
        assert np.abs(converted[0, 0] - converted[0, 1]).max() < 4  # R and G of a grey phantom

    @pytest.mark.parametrize("table", ["none", "basic", "extended"])
    def test_every_kind_of_offset_table(self, table):
        encoding = replace(COLOUR_8, syntax=uid.RLELossless)
        ds = us(encoding=encoding, frames=4)
        frames = list(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=4))
        if table == "extended":
            ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = encapsulate_extended(frames)
        else:
            ds.PixelData = encapsulate(frames, has_bot=table == "basic")
        ds = reread(ds)
        image = image_of(ds)
        wanted = flipped(samples_of(image), (3, 2, 1, 1), image)
        store(ds, image, wanted)
        after = written(ds)
        assert ("ExtendedOffsetTable" in after) == (table == "extended")
        assert np.array_equal(samples_of(image_of(after)), wanted)

    def test_a_frame_in_several_fragments(self):
        encoding = Encoding(syntax=uid.JPEG2000Lossless)
        ds = dataset(phantom(), encoding)
        whole = image_of(ds)
        frame = next(iter(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1)))
        ds.PixelData = encapsulate([frame], fragments_per_frame=4, has_bot=False)
        assert np.array_equal(image_of(ds).words, whole.words)

    def test_nothing_is_released_that_does_not_read_back(self, monkeypatch):
        encoding = Encoding(syntax=uid.JPEGLSLossless)
        ds = dataset(phantom(frames=2), encoding)
        before, image = ds.PixelData, image_of(ds)
        honest = codec._to_jpeg_ls
        monkeypatch.setattr(codec, "_to_jpeg_ls", lambda words, header: honest(words ^ 1, header))
        with pytest.raises(PixelError, match="does not decode to itself; nothing was changed"):
            store(ds, image, samples_of(image))
        assert ds.PixelData == before

    def test_images_too_small_for_jpeg_2000_become_jpeg_ls(self):
        """That encoder needs 32 pixels each way; the source comes from one that does not."""
        encoding = Encoding(syntax=uid.JPEG2000Lossless)
        ds = dataset(phantom(32, 40, frames=2), encoding)
        image = image_of(ds)
        small = replace(image.header, rows=20)
        cropped = samples_of(image)[:, :, :20]
        encoded, target = pixels_store._encoded(cropped, small, small)
        assert target.syntax == uid.JPEGLSLossless
        assert np.array_equal(np.moveaxis(codec.decode(encoded[1], target), 2, 0), cropped[1])

    def test_noise_that_jpeg_ls_cannot_hold_becomes_rle(self):
        """The refusal comes at the second frame; the first one follows."""
        encoding = replace(GREY_8, syntax=uid.JPEGLSLossless)
        ds = reread(dataset(phantom(8, 8, frames=3, hi=255), encoding))
        image = image_of(ds)
        wanted = samples_of(image)
        wanted[1] = noise(8, 8, encoding)[0]
        store(ds, image, wanted)
        after = written(ds)
        assert after.file_meta.TransferSyntaxUID == uid.RLELossless
        assert np.array_equal(samples_of(image_of(after)), wanted)

    def test_colour_keeps_no_transform_that_its_new_syntax_lacks(self, monkeypatch):
        encoding = replace(COLOUR_8, photometric="YBR_RCT", syntax=uid.JPEG2000Lossless)
        ds = reread(dataset(phantom(40, 40, channels=3, hi=255), encoding))
        image = image_of(ds)
        monkeypatch.setattr(codec.openjpeg.utils, "encode", give_up)
        wanted = flipped(samples_of(image), (0, 1, 5, 6), image)
        store(ds, image, wanted)
        after = written(ds)
        assert (after.file_meta.TransferSyntaxUID, after.PhotometricInterpretation) == (
            uid.JPEGLSLossless,
            "RGB",
        )
        assert np.array_equal(samples_of(image_of(after)), wanted)

    def test_encoders_that_all_give_up_change_nothing(self, monkeypatch):
        ds = dataset(phantom(), Encoding(syntax=uid.JPEGLSLossless))
        before, image = ds.PixelData, image_of(ds)
        monkeypatch.setattr(codec.jpeg_ls, "encode_buffer", give_up)
        monkeypatch.setattr(codec.rle.utils, "encode_pixel_data", give_up)
        with pytest.raises(PixelError, match=r"cannot be encoded as RLE Lossless \(RuntimeError\)"):
            store(ds, image, samples_of(image))
        assert ds.PixelData == before


def give_up(*_: object, **__: object) -> bytes:
    raise RuntimeError("no")


def by_pydicom(ds: Dataset, plugin: str, *, raw: bool = True) -> IntArray:
    """Samples [frames, channels, rows, cols] as a decoder finds them that the engine does not use."""
    decoder = pydicom.pixels.get_decoder(ds.file_meta.TransferSyntaxUID)
    if plugin not in decoder.available_plugins:
        plugin = ""
    pixels, _ = decoder.as_array(ds, raw=raw, decoding_plugin=plugin)
    shape = (int(ds.get("NumberOfFrames", 1)), ds.Rows, ds.Columns, ds.SamplesPerPixel)
    return np.moveaxis(pixels.reshape(shape), 3, 1).astype(np.int32)


class TestLosslessJpeg:
    DECLARED = codestream.Codestream(11, 9, 1, 12)

    @pytest.mark.parametrize("predictor", range(1, 8))
    @pytest.mark.parametrize(("precision", "channels"), [(8, 3), (12, 1), (16, 1), (16, 3)])
    def test_every_predictor(self, predictor, precision, channels):
        pixels = np.random.default_rng(predictor).integers(0, 1 << precision, (11, 9, channels))
        encoded = lossless_jpeg(pixels, precision, predictor=predictor)
        declared = codestream.Codestream(11, 9, channels, precision)
        assert np.array_equal(jpeg_lossless.decode(encoded, declared), pixels)

    @pytest.mark.parametrize("restart_lines", [1, 2, 5])
    def test_restart_intervals(self, restart_lines):
        pixels = np.random.default_rng(0).integers(0, 4096, (11, 9, 1))
        encoded = lossless_jpeg(pixels, 12, predictor=6, restart_lines=restart_lines)
        assert np.array_equal(jpeg_lossless.decode(encoded, self.DECLARED), pixels)

    def test_point_transform(self):
        pixels = np.random.default_rng(0).integers(0, 4096, (11, 9, 1)) & ~7
        encoded = lossless_jpeg(pixels, 12, shift=3)
        assert np.array_equal(jpeg_lossless.decode(encoded, self.DECLARED), pixels)

    def test_a_scan_for_each_component(self):
        """Two grey streams spliced into one of two components, each with its own scan and table."""
        pixels = np.random.default_rng(0).integers(0, 256, (11, 9, 2))
        one, two = (lossless_jpeg(pixels[:, :, i : i + 1], 8, predictor=3) for i in (0, 1))
        frame = one.index(b"\xff\xc3")
        tables = one.index(b"\xff\xc4")
        scan_one, scan_two = one.rindex(b"\xff\xda"), two.rindex(b"\xff\xda")
        header = b"\xff\xc3\x00\x0e" + one[frame + 4 : frame + 9] + b"\x02\x01\x11\x00\x02\x11\x00"
        second = two[scan_two:].replace(b"\xff\xda\x00\x08\x01\x01", b"\xff\xda\x00\x08\x01\x02", 1)
        encoded = one[:frame] + header + one[tables:scan_one] + one[scan_one:-2] + second
        declared = codestream.Codestream(11, 9, 2, 8)
        assert np.array_equal(jpeg_lossless.decode(encoded, declared), pixels)

    def test_every_shortened_stream_is_refused(self):
        pixels = np.random.default_rng(0).integers(0, 4096, (11, 9, 1))
        encoded = lossless_jpeg(pixels, 12)
        for length in range(2, len(encoded) - 4):
            with pytest.raises((ValueError, KeyError, IndexError)):
                jpeg_lossless.decode(encoded[:length] + b"\xff\xd9", self.DECLARED)

    def test_a_code_outside_the_table_is_refused(self):
        encoded = bytearray(lossless_jpeg(np.zeros((11, 9, 1), np.int64), 12))
        encoded[-6:-2] = b"\xf7" * 4  # 11110 is no code of the 17
        with pytest.raises(ValueError, match="damaged entropy-coded data"):
            jpeg_lossless.decode(bytes(encoded), self.DECLARED)


REASONS: dict[Reason, Any] = {
    Reason.NO_PIXEL_DATA: lambda: dataset(phantom(), PixelData=None, BitsAllocated=None),
    Reason.ENCAPSULATED_DOCUMENT: lambda: dataset(phantom(), EncapsulatedDocument=b"%PDF"),
    Reason.VIDEO: lambda: retagged(mr(), uid.MPEG4HP41),
    Reason.FLOAT_PIXELS: lambda: dataset(phantom(), PixelData=None, FloatPixelData=b"\0" * 64 * 64 * 4),
    Reason.SEGMENTATION: lambda: mr(SOPClassUID=uid.SegmentationStorage),
    Reason.RT_DOSE: lambda: mr(SOPClassUID=uid.RTDoseStorage),
    Reason.PARAMETRIC_MAP: lambda: mr(SOPClassUID=uid.ParametricMapStorage),
    Reason.PALETTE_COLOUR: lambda: mr(PhotometricInterpretation="PALETTE COLOR"),
    Reason.ONE_BIT: lambda: mr(BitsAllocated=1, BitsStored=1, HighBit=0),
    Reason.BITS_OUT_OF_RANGE: lambda: mr(BitsAllocated=32, BitsStored=32, HighBit=31),
    Reason.HIGH_BIT: lambda: mr(HighBit=15),
    Reason.HIGH_BITS_USED: lambda: mr(BitsStored=8, HighBit=7),
    Reason.OVERLAY_IN_PIXEL_BITS: lambda: with_overlay(mr(), position=12, data=None),
    Reason.CHROMA_SUBSAMPLED: lambda: secondary_capture(PhotometricInterpretation="YBR_FULL_422"),
    Reason.UNSUPPORTED_PHOTOMETRIC: lambda: secondary_capture(PhotometricInterpretation="HSV"),
    Reason.UNSUPPORTED_TRANSFER_SYNTAX: lambda: retagged(mr(), "1.2.840.10008.1.2.4.110"),
    Reason.ALL_PADDING: lambda: mr(PixelPaddingValue=0, PixelPaddingRangeLimit=65535),
    Reason.TOO_SMALL: lambda: mr(7, 64),
}


class TestPassthrough:
    @pytest.mark.parametrize("reason", Reason)
    def test_every_reason_is_found(self, reason):
        assert reason_of(REASONS[reason]()) is reason

    @pytest.mark.parametrize("reason", Reason)
    def test_a_reason_is_a_word_with_a_meaning(self, reason):
        assert reason.replace("-", "").isalpha()
        assert reason == reason.lower()
        assert reason.meaning.endswith(".")
        assert "\n" not in reason.meaning

    @pytest.mark.parametrize("name", ["ARGB", "CMYK"])
    def test_four_samples_a_pixel(self, name):
        ds = dataset(phantom(channels=4, hi=255), replace(COLOUR_8, photometric=name))
        assert reason_of(ds) is Reason.UNSUPPORTED_PHOTOMETRIC

    def test_more(self):
        assert reason_of(mr(BitsStored=6, HighBit=5)) is Reason.BITS_OUT_OF_RANGE
        assert reason_of(retagged(mr(), "1.2.840.113619.5.2")) is Reason.UNSUPPORTED_TRANSFER_SYNTAX
        assert reason_of(retagged(mr(), uid.JPEGExtended12Bit)) is Reason.UNSUPPORTED_TRANSFER_SYNTAX
        assert reason_of(secondary_capture(PixelRepresentation=1)) is Reason.UNSUPPORTED_PHOTOMETRIC
        assert (
            reason_of(secondary_capture(PhotometricInterpretation="YBR_RCT"))
            is Reason.UNSUPPORTED_PHOTOMETRIC
        )
        no_pixels = dataset(phantom(), PixelData=None, PixelDataProviderURL="http://localhost/")
        assert reason_of(no_pixels) is Reason.NO_PIXEL_DATA

    def test_negative_samples_without_their_sign_bits(self):
        """The word of -1 in 12 bits may be 0x0FFF; restoring it would need to know that."""
        ds = dataset(noise(16, 16, Encoding()), Encoding(), PixelRepresentation=1)
        assert reason_of(ds) is Reason.HIGH_BITS_USED

    def test_unused_bits_of_compressed_words(self):
        encoding = Encoding(bits_stored=16, syntax=uid.RLELossless)
        ds = dataset(noise(16, 16, encoding), encoding, BitsStored=12, HighBit=11)
        assert reason_of(ds) is Reason.HIGH_BITS_USED

    def test_an_overlay_of_its_own_is_no_obstacle(self):
        assert isinstance(load(with_overlay(mr(), position=0, data=b"\0" * 512)), Image)
        assert reason_of(with_overlay(mr(), position=0, data=None)) is Reason.OVERLAY_IN_PIXEL_BITS


def retagged(ds: Dataset, syntax: str) -> Dataset:
    ds.file_meta.TransferSyntaxUID = uid.UID(syntax)
    return ds


def with_overlay(ds: Dataset, *, position: int, data: bytes | None, group: int = 0x6002) -> Dataset:
    for element, vr, value in (
        (0x0010, "US", 64),
        (0x0011, "US", 64),
        (0x0100, "US", 1),
        (0x0102, "US", position),
        (0x3000, "OW", data),
    ):
        if value is not None:
            ds[(group << 16) | element] = DataElement((group << 16) | element, vr, value)
    return ds


CONTRADICTIONS: dict[str, tuple[Any, str]] = {
    "no rows": (lambda: mr(Rows=0), "one of them is zero"),
    "no columns": (lambda: mr(Columns=0), "one of them is zero"),
    "no frames": (lambda: mr(NumberOfFrames=0), "one of them is zero"),
    "negative frames": (lambda: mr(NumberOfFrames=-3), "one of them is zero"),
    "no samples": (lambda: mr(SamplesPerPixel=0, PlanarConfiguration=0), "one of them is zero"),
    "two samples": (lambda: mr(SamplesPerPixel=2, PlanarConfiguration=0), "contradict MONOCHROME2"),
    "three grey samples": (
        lambda: mr(SamplesPerPixel=3, PlanarConfiguration=0),
        "contradict MONOCHROME2",
    ),
    "one colour sample": (lambda: mr(PhotometricInterpretation="RGB"), "contradict RGB"),
    "strange words": (lambda: mr(BitsAllocated=13), "BitsAllocated is 13"),
    "no words": (lambda: mr(BitsAllocated=0), "BitsAllocated is 0"),
    "too many bits": (lambda: mr(BitsStored=17), "BitsStored is 17 in words of 16 bits"),
    "no bits": (lambda: mr(BitsStored=0), "BitsStored is 0"),
    "strange sign": (lambda: mr(PixelRepresentation=2), "PixelRepresentation is 2"),
    "strange order": (lambda: secondary_capture(PlanarConfiguration=7), "PlanarConfiguration is 7"),
    "no order": (lambda: secondary_capture(PlanarConfiguration=None), "PlanarConfiguration is missing"),
    "no pixels": (lambda: mr(PixelData=None), "Pixel Data is missing"),
    "empty pixels": (lambda: mr(PixelData=b""), "holds 0 of the 8192 bytes"),
    "short pixels": (
        lambda: mr(PixelData=b"\0" * 8190),
        "holds 8190 of the 8192 bytes of 1 frames of 64 x 64",
    ),
    "long pixels": (lambda: mr(PixelData=b"\1" * 8194), "2 bytes more than"),
    "many frames": (lambda: mr(NumberOfFrames=2**31 - 1), "over the limit"),
    "two numbers": (lambda: mr(Rows=[64, 64]), "Rows is not one number"),
    "no syntax": (lambda: retagged(mr(), ""), "the transfer syntax is not stated"),
    "natively compressed": (lambda: retagged(mr(), uid.RLELossless), "holds no fragments"),
    **{
        f"no {keyword}": (lambda keyword=keyword: mr(**{keyword: None}), f"{keyword} is missing")
        for keyword in (
            "Rows",
            "Columns",
            "SamplesPerPixel",
            "BitsAllocated",
            "BitsStored",
            "PixelRepresentation",
        )
    },
}


class TestContradictions:
    @pytest.mark.parametrize(("build", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
    def test_is_an_error_that_names_the_instance(self, build, message):
        ds = build()
        with pytest.raises(PixelError, match=message) as caught:
            load(ds)
        assert str(caught.value).startswith(f"instance {ds.SOPInstanceUID}: ")
        assert "\n" not in str(caught.value)

    def test_no_file_meta(self):
        ds = mr()
        del ds.file_meta
        with pytest.raises(PixelError, match="transfer syntax is not stated"):
            load(ds)

    def test_no_photometric_interpretation_is_unsupported(self):
        assert reason_of(mr(PhotometricInterpretation=None)) is Reason.UNSUPPORTED_PHOTOMETRIC

    def test_values_are_never_quoted(self):
        ds = read(file_bytes(mr(PatientName="must^not^appear")))
        raw = ds.get_item("Rows")
        ds[raw.tag] = raw._replace(value=b"must not appear", VR="US")
        with pytest.raises(PixelError) as caught:
            load(ds)
        text = f"{caught.value} {caught.value.__cause__} {caught.value.__cause__.__cause__}"
        assert "appear" not in text

    def test_a_malformed_uid_is_not_repeated(self):
        ds = mr(Rows=0)
        ds.SOPInstanceUID = "must not appear"
        with pytest.raises(PixelError, match=r"^instance without a valid UID: "):
            load(ds)

    def test_limits(self):
        ds = mr(16, 16)
        assert isinstance(load(ds, limit_bytes=512, limit_frame_samples=256), Image)
        with pytest.raises(PixelError, match="are 512 bytes, over the limit of 511"):
            load(ds, limit_bytes=511)
        with pytest.raises(PixelError, match="a frame of 256 samples is over the limit of 255"):
            load(ds, limit_frame_samples=255)

    def test_a_bomb_is_not_lit(self):
        """4 GiB declared by a header over a few bytes: refused by arithmetic, before any allocation."""
        ds = dataset(phantom(), Encoding(syntax=uid.RLELossless), Rows=65535, Columns=65535)
        with pytest.raises(PixelError, match="over the limit"):
            load(ds)


GREY_SYNTAXES = [
    encoding for name, (encoding, channels) in LOSSLESS.items() if channels == 1 and name.endswith(" 12")
]


RUNS = {
    "too few": bytes((0xC2, 7)),
    "too many": bytes((0xC0, 7)) * 2,
    "overflowing": bytes((0x81, 7)),
    "cut in a literal": bytes((0x3F, 7, 7)),
    "cut in a run": bytes((0x80, 0xC1)),
    "followed by something": bytes((0xC1, 7, 0, 1)),
}


class TestDamagedFrames:
    @staticmethod
    def frame_of(ds: Dataset) -> bytes:
        frames = pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1)
        return next(iter(frames))

    @pytest.mark.parametrize("encoding", GREY_SYNTAXES, ids=lambda encoding: uid.UID(encoding.syntax).keyword)
    def test_a_codestream_of_another_size(self, encoding):
        ds = dataset(noise(32, 32, encoding), encoding, Rows=16, Columns=16)
        with pytest.raises(PixelError, match=r"contradicts|cannot be decoded"):
            load(ds)

    @pytest.mark.parametrize("encoding", GREY_SYNTAXES, ids=lambda encoding: uid.UID(encoding.syntax).keyword)
    def test_a_frame_cut_in_half(self, encoding):
        ds = dataset(noise(64, 64, encoding), encoding)
        frame = self.frame_of(ds)
        ds.PixelData = encapsulate([frame[: len(frame) // 2]])
        with pytest.raises(PixelError):
            load(ds)

    @pytest.mark.parametrize("encoding", GREY_SYNTAXES, ids=lambda encoding: uid.UID(encoding.syntax).keyword)
    @pytest.mark.parametrize("frame", [b"", b"\0\0", b"\xff\xd8\xff\xd9", b"\xff\x4f\xff\x51" + b"\0" * 60])
    def test_rubbish_instead_of_a_frame(self, encoding, frame):
        ds = dataset(noise(32, 32, encoding), encoding)
        item = b"\xfe\xff\x00\xe0"
        ds.PixelData = item + bytes(4) + item + len(frame).to_bytes(4, "little") + frame
        with pytest.raises(PixelError):
            load(ds)

    def test_more_bits_than_the_words_hold(self):
        encoding = Encoding(syntax=uid.JPEG2000Lossless)
        ds = dataset(phantom(), encoding, BitsAllocated=8, BitsStored=8, HighBit=7)
        with pytest.raises(PixelError, match="12 bits does not fit 8-bit words"):
            load(ds)

    def test_a_lossless_process_under_a_lossy_syntax(self):
        ds = dataset(phantom(hi=255), replace(GREY_8, syntax=uid.JPEGLosslessSV1))
        with pytest.raises(PixelError, match="no frame header of JPEG Baseline"):
            load(retagged(ds, uid.JPEGBaseline8Bit))

    @pytest.mark.parametrize(
        ("declared", "message"), [(2, "more of the 2"), (3, "more"), (5, "4 bytes|only 4|broken")]
    )
    def test_frames_and_their_number_disagree(self, declared, message):
        encoding = replace(COLOUR_8, syntax=uid.RLELossless)
        ds = us(frames=4, encoding=encoding)
        ds.NumberOfFrames = declared
        with pytest.raises(PixelError, match=message):
            load(ds)

    def test_a_number_of_frames_that_cannot_be_is_refused_before_memory_is_taken(self):
        ds = dataset(noise(8, 8, Encoding()), Encoding(syntax=uid.JPEGLSLossless), NumberOfFrames=1_000_000)
        with pytest.raises(PixelError, match="bytes cannot hold 1000000 compressed frames"):
            load(ds)

    @pytest.mark.parametrize("runs", RUNS.values(), ids=RUNS)
    def test_runs_that_are_not_one_byte_plane(self, runs):
        frame = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56) + runs
        ds = dataset(phantom(8, 8, hi=255), replace(GREY_8, syntax=uid.RLELossless))
        ds.PixelData = encapsulate([frame])
        with pytest.raises(PixelError, match="cannot be decoded"):
            load(ds)

    def test_runs_that_are(self):
        runs = bytes((0x80, 0xE1, 7, 0x1F, *range(32), 0x80, 0))
        frame = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56) + runs
        ds = dataset(phantom(8, 8, hi=255), replace(GREY_8, syntax=uid.RLELossless))
        ds.PixelData = encapsulate([frame])
        assert samples_of(image_of(ds)).ravel().tolist() == [7] * 32 + list(range(32))


PADDINGS = {
    "none": (SIGNED_16, {}, None),
    "one value": (SIGNED_16, {"PixelPaddingValue": -2000}, (-2000, -2000)),
    "a range": (SIGNED_16, {"PixelPaddingValue": -3000, "PixelPaddingRangeLimit": -2000}, (-3000, -2000)),
    "a range upside down": (
        SIGNED_16,
        {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -3000},
        (-3000, -2000),
    ),
    "unsigned": (Encoding(bits_stored=16), {"PixelPaddingValue": 63536}, (63536, 63536)),
    "written with the other sign": (SIGNED_16, {"PixelPaddingValue": 63536}, (-2000, -2000)),
    "cut at the range": (
        SIGNED_12,
        {"PixelPaddingValue": -32768, "PixelPaddingRangeLimit": -2000},
        (-2048, -2000),
    ),
    "beyond the range": (Encoding(), {"PixelPaddingValue": 63536}, None),
    "a limit alone": (SIGNED_16, {"PixelPaddingRangeLimit": 5}, None),
}


class TestPadding:
    @pytest.mark.parametrize("implicit", [False, True], ids=["explicit", "implicit"])
    @pytest.mark.parametrize(("encoding", "attributes", "expected"), PADDINGS.values(), ids=PADDINGS)
    def test_range(self, encoding, attributes, expected, implicit):
        if implicit:
            encoding = replace(encoding, syntax=uid.ImplicitVRLittleEndian)
        ds = dataset(noise(16, 16, encoding), encoding)
        for keyword, value in attributes.items():
            tag = pydicom.datadict.tag_for_keyword(keyword)
            ds[tag] = DataElement(tag, "SS" if value < 0 else "US", value)
        image = image_of(reread(ds))
        assert image.padding == expected
        assert image.frame(1).padding == expected

    def test_colour_has_none(self):
        ds = secondary_capture()
        ds.add_new("PixelPaddingValue", "US", 0)
        assert image_of(ds).padding is None

    def test_big_endian(self):
        encoding = replace(SIGNED_16, syntax=BIG)
        ds = dataset(noise(16, 16, encoding), encoding)
        ds.add_new("PixelPaddingValue", "SS", -2000)
        assert image_of(reread(ds)).padding == (-2000, -2000)


REGIONS = {
    "corners are inclusive": ([(2, 3, 10, 20)], [Rectangle(3, 2, 21, 11)]),
    "clipped": ([(50, 30, 500, 300)], [Rectangle(30, 50, 40, 60)]),
    "outside": ([(60, 0, 70, 10)], []),
    "corners exchanged": ([(10, 20, 2, 3)], [Rectangle(3, 2, 21, 11)]),
    "a missing corner covers everything": ([(2, 3, None, 20)], [Rectangle(0, 0, 40, 60)]),
    "several": (
        [(0, 0, 1, 1), (4, 4, 5, 5), (0, 0, 1, 1)],
        [Rectangle(0, 0, 2, 2), Rectangle(4, 4, 6, 6)],
    ),
    "none": ([], []),
}


class TestRegions:
    @staticmethod
    def with_regions(*corners: tuple[Any, Any, Any, Any]) -> Dataset:
        keywords = (
            "RegionLocationMinX0",
            "RegionLocationMinY0",
            "RegionLocationMaxX1",
            "RegionLocationMaxY1",
        )
        items = []
        for region in corners:
            item = Dataset()
            for keyword, corner in zip(keywords, region, strict=True):
                if corner is not None:
                    setattr(item, keyword, corner)
            items.append(item)
        return reread(us(40, 60, SequenceOfUltrasoundRegions=items))

    @pytest.mark.parametrize(("corners", "expected"), REGIONS.values(), ids=REGIONS)
    def test_rectangles(self, corners, expected):
        image = image_of(self.with_regions(*corners))
        assert list(image.forced_roi) == expected
        assert image.frame(2).forced_roi == tuple(expected)


class TestStoreOfFrames:
    ENCODINGS = (
        GREY_8,
        COLOUR_8,
        replace(COLOUR_8, planar=1),
        SIGNED_16,
        Encoding(),
        Encoding(bits_stored=16),
        Encoding(bits_stored=16, syntax=uid.ExplicitVRBigEndian),
        replace(SIGNED_16, syntax=uid.ExplicitVRBigEndian),
        Encoding(bits_stored=16, syntax=uid.JPEGLSLossless),
        replace(SIGNED_16, syntax=uid.RLELossless),
    )

    @pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
    def test_are_what_their_samples_are(self, encoding):
        channels = 3 if encoding.photometric == "RGB" else 1
        ds = reread(dataset(noise(24, 31, encoding, frames=2, channels=channels), encoding))
        image = image_of(ds)
        turned = [frame.with_planes(np.ascontiguousarray(frame.planes[:, ::-1])) for frame in image]
        by_arrays = reread(ds)
        store(by_arrays, image, [frame.samples[:, ::-1] for frame in image])
        store(ds, image, turned)
        assert ds.PixelData == by_arrays.PixelData
        assert (samples_of(image_of(ds)) == samples_of(image)[:, :, ::-1]).all()

    def test_are_refused_beyond_the_range_of_the_image(self):
        ds = mr()
        image, beyond = image_of(ds), Frame(np.full((1, 64, 64), 40_000, np.int32), 0, 65535)
        wide = Frame(np.full((1, image.rows, image.cols), 4096, np.int32), 0, 65535)
        for frame, message in ((wide, "samples outside 0..4095"), (beyond, "outside|shape")):
            with pytest.raises(PixelError, match=message):
                store(ds, image, [frame])

    def test_of_another_range_are_taken_as_long_as_they_fit(self):
        ds = mr()
        image = image_of(ds)
        store(ds, image, [Frame(image.frame(1).samples[:, ::-1], 0, 65535)])
        assert (samples_of(image_of(ds)) == samples_of(image)[:, :, ::-1]).all()


class TestStoreRefuses:
    def test_frames_that_are_not_those_of_the_image(self):
        ds = mr()
        before, image = ds.PixelData, image_of(ds)
        samples = samples_of(image)
        outside = samples.copy()
        outside[0, 0, 3, 3] = 4096
        for frames, message in (
            ([], "0 frames were given for the 1"),
            ([*samples, *samples], "2 frames were given for the 1"),
            ([samples[0, :, :-1]], "frame 1 has another shape"),
            ([samples[0].astype(np.int64)], "another shape or type"),
            (outside, "samples outside 0..4095"),
            (-1 - samples, "samples outside 0..4095"),
        ):
            with pytest.raises(PixelError, match=message):
                store(ds, image, frames)
            assert ds.PixelData == before

    def test_an_image_of_another_instance(self):
        with pytest.raises(PixelError, match="not loaded from this instance"):
            store(mr(64, 64), image_of(mr(64, 72)), [])


MODALITIES = [ct, mr, cr, us, enhanced_mr, secondary_capture]


class TestReadAndWrite:
    @pytest.mark.parametrize("build", MODALITIES)
    def test_bytes_survive_reading_loading_and_writing(self, build):
        content = file_bytes(build())
        ds = read(content)
        assert isinstance(load(ds), Image)
        assert all(isinstance(ds.get_item(tag), RawDataElement) for tag in ds.keys())  # noqa: SIM118
        target = io.BytesIO()
        write(ds, target)
        assert target.getvalue() == content

    def test_a_path_reads_like_its_bytes(self, tmp_path: Path):
        path = tmp_path / "object"
        path.write_bytes(file_bytes(mr()))
        assert read(path) == read(path.read_bytes())

    def test_a_missing_file_is_an_operating_system_error(self, tmp_path: Path):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "absent")

    @pytest.mark.parametrize("content", [b"", b"DICM", b"\0" * 128 + b"DIC", b"<html>" * 100])
    def test_something_else_is_refused(self, content):
        with pytest.raises(PixelError, match="the object is not a DICOM file"):
            read(content)

    def test_the_file_is_named(self, tmp_path: Path):
        path = tmp_path / "object-17"
        path.write_bytes(b"nothing")
        with pytest.raises(PixelError, match=r"^object-17 is not a DICOM file"):
            read(path)

    @pytest.mark.parametrize(
        "syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.RLELossless]
    )
    def test_a_file_cut_anywhere_is_refused_or_holds_no_pixels(self, syntax):
        """Cut between two elements a file looks whole; then the image is missing, which `load` tells."""
        content = file_bytes(us(8, 9, frames=2, encoding=replace(COLOUR_8, syntax=syntax)))
        outcomes = {outcome_of(content[:length]) for length in range(len(content))}
        assert outcomes == {"error", Reason.NO_PIXEL_DATA}

    def test_a_deflated_bomb_is_refused(self):
        ds = dataset(
            np.zeros((64, 1, 256, 256), np.int32), Encoding(syntax=uid.DeflatedExplicitVRLittleEndian)
        )
        content = file_bytes(ds)
        assert len(content) < 20_000
        with pytest.raises(PixelError, match="inflates to more than the limit of 8000000 bytes"):
            read(content, limit_bytes=8_000_000)
        assert isinstance(load(read(content)), Image)

    def test_a_broken_deflate_stream_is_refused(self):
        content = file_bytes(dataset(phantom(), Encoding(syntax=uid.DeflatedExplicitVRLittleEndian)))
        with pytest.raises(PixelError):
            read(content[: len(content) - 200])
        with pytest.raises(PixelError):
            read(content[:-300] + zlib.compress(b"x" * 300))

    @pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"])
    def test_a_deflated_data_set_that_refers_to_its_pixels(self, syntax):
        content = referring(syntax)
        ds = read(content)
        assert load(ds) == Passthrough(Reason.NO_PIXEL_DATA)
        again = io.BytesIO()
        write(ds, again)
        assert body_of(again.getvalue()) == body_of(content)
        ds.PatientID = "P-2"
        written = io.BytesIO()
        write(ds, written)
        assert read(written.getvalue()).PatientID == "P-2"
        assert b"P-2" not in written.getvalue()
        with pytest.raises(PixelError, match="inflates to more than the limit of 100 bytes"):
            read(content, limit_bytes=100)

    def test_an_element_that_cannot_be_written(self):
        ds = mr(PatientName="must^not^appear")
        ds.add_new(0x00091001, "XX", "must not appear")
        with pytest.raises(PixelError, match="the data set cannot be written") as caught:
            write(ds, io.BytesIO())
        assert "appear" not in str(caught.value)


def body_of(content: bytes) -> bytes:
    """The bytes after the file meta information."""
    return content[144 + int.from_bytes(content[140:144], "little") :]


def referring(syntax: str) -> bytes:
    """A file in one of the deflated JPIP syntaxes (PS3.5 A.7), as a sender makes it."""
    ds = mr(PixelDataProviderURL="https://pixels.example/1", PatientID="P-1")
    del ds.PixelData
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(body_of(file_bytes(ds))) + packer.flush()
    return Thing(ds.SOPClassUID, ds.SOPInstanceUID, syntax, packed + b"\0" * (len(packed) % 2)).part10()


def outcome_of(content: bytes) -> str:
    try:
        found = load(read(content))
    except PixelError:
        return "error"
    return found.reason if isinstance(found, Passthrough) else "image"


def public_files(shared: Path | None) -> list[Path]:
    roots = [Path(pydicom.__file__).parent / "data", Path(data_store.__file__).parent / "data"]
    roots += [shared / "dicom"] if shared else []
    return [path for root in roots for path in sorted(root.rglob("*.dcm"))]


def outcome(path: Path) -> str:
    """What becomes of a public file; asserts the round trip of every image on the way."""
    try:
        ds = read(path)
        found = load(ds)
    except PixelError:
        return "error"
    if isinstance(found, Passthrough):
        return found.reason
    before = value_of(ds)
    if not writable(ds):
        return "error"
    check_round_trip(ds, found)
    if found.header.native:
        assert value_of(ds) == before
    return "lossy image" if found.header.lossy else "image"


def writable(ds: Dataset) -> bool:
    """One public file mixes implicit and explicit VR in a way that can be read, but not written."""
    try:
        write(ds, io.BytesIO())
    except PixelError:
        return False
    return True


def check_round_trip(ds: Dataset, image: Image) -> None:
    """Stored unchanged and then with one sample flipped, the image is exactly what was asked for."""
    store(ds, image, (frame.samples for frame in image))
    again = written(ds)
    same = image_of(again)
    assert np.array_equal(same.words, image.words)
    at = (image.frames - 1, image.channels - 1, image.rows // 2, image.cols // 3)
    frames = ((flipped(f.samples, at[1:], image) if f.number == image.frames else f.samples) for f in same)
    store(again, same, frames)
    changed = np.argwhere(image_of(written(again)).words != image.words)
    assert [tuple(index) for index in changed] == [at]


def test_small_public_files_round_trip():
    files = [path for path in public_files(None) if path.stat().st_size < 60_000]
    outcomes = Counter(outcome(path) for path in files)
    assert outcomes["image"] >= 30
    assert outcomes["lossy image"] >= 10
    assert outcomes["error"] <= 16


@pytest.mark.slow
def test_every_public_file_round_trips(shared_data: Path):
    outcomes = Counter(outcome(path) for path in public_files(shared_data))
    print(*itertools.chain(sorted(outcomes.items())), sep="\n")
    assert outcomes["image"] + outcomes["lossy image"] > 0.6 * outcomes.total()
    assert outcomes["error"] < 0.05 * outcomes.total()


@pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEG2000Lossless, uid.JPEGBaseline8Bit])
def test_compressed_pixels_that_do_not_differ_stay_byte_for_byte(syntax):
    encoding = Encoding(bits_stored=8, bits_allocated=8, syntax=syntax)
    ds = reread(dataset(phantom(40, 48, frames=2, hi=255), encoding))
    before = bytes(ds.PixelData)
    image = image_of(ds)
    store(ds, image, samples_of(image))
    assert (ds.file_meta.TransferSyntaxUID, bytes(ds.PixelData)) == (syntax, before)
    assert "LossyImageCompressionRatio" not in ds
