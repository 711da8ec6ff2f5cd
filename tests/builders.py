"""Synthetic DICOM instances: no patient, no acquisition, every unusual encoding on request.

    ct(), mr(), cr(), us(), enhanced_mr(), secondary_capture()   ready-made modalities
    dataset(samples, Encoding(...))                              any samples in any encoding
    phantom(...)                                                 a body on a flat background
    file_bytes(ds), reread(ds)                                   through the wire format and back

Samples are int32 [frames, channels, rows, cols] everywhere. Where two encoders exist, the one used here
is not the one that the engine writes with.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jpeg_ls
import numpy as np
import numpy.typing as npt
import openjpeg.utils
import PIL.Image
from pydicom import dcmread, uid
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import RLELosslessEncoder

Samples = npt.NDArray[np.int32]
Words = npt.NDArray[Any]

PIXEL_DATA = 0x7FE00010


@dataclass(frozen=True)
class Encoding:
    """How samples are written: the Image Pixel module (PS3.3 C.7.6.3) and the transfer syntax.

    `high_bit` None is `bits_stored - 1`; `vr` None is what the transfer syntax prefers; `near` and
    `ratio` are the loss of JPEG-LS near-lossless and JPEG 2000.
    """

    bits_stored: int = 12
    bits_allocated: int = 16
    high_bit: int | None = None
    signed: bool = False
    photometric: str = "MONOCHROME2"
    planar: int = 0
    syntax: str = uid.ExplicitVRLittleEndian
    vr: str | None = None
    near: int = 3
    ratio: float = 8.0

    @property
    def lo(self) -> int:
        return -(1 << (self.bits_stored - 1)) if self.signed else 0

    @property
    def hi(self) -> int:
        return (1 << (self.bits_stored - self.signed)) - 1


GREY_8 = Encoding(bits_stored=8, bits_allocated=8)
COLOUR_8 = Encoding(bits_stored=8, bits_allocated=8, photometric="RGB")
SIGNED_16 = Encoding(bits_stored=16, signed=True)


def phantom(
    rows: int = 64,
    cols: int = 64,
    *,
    frames: int = 1,
    channels: int = 1,
    lo: int = 0,
    hi: int = 4095,
    seed: int = 0,
) -> Samples:
    """A textured ellipse on a flat background of value `lo`: something to segment, somewhere to embed."""
    random = np.random.default_rng(seed)
    y, x = np.ogrid[-1 : 1 : rows * 1j, -1 : 1 : cols * 1j]
    body = (y / 0.6) ** 2 + (x / 0.7) ** 2 < 1
    shape = (frames, channels, rows, cols)
    texture = 0.55 + 0.25 * np.cos(5 * x) * np.sin(4 * y) + random.normal(0, 0.03, shape)
    samples = lo + np.where(body, np.clip(texture, 0, 1), 0.0) * (hi - lo)
    return samples.astype(np.int32)


def noise(
    rows: int, cols: int, encoding: Encoding, *, frames: int = 1, channels: int = 1, seed: int = 0
) -> Samples:
    """Uniform noise over every value that the encoding allows, its ends included."""
    random = np.random.default_rng(seed)
    samples = random.integers(
        encoding.lo, encoding.hi, (frames, channels, rows, cols), np.int32, endpoint=True
    )
    samples.flat[0], samples.flat[-1] = encoding.lo, encoding.hi
    return samples


def synthetic_uid(*parts: object) -> str:
    """A valid UID (PS3.5 B.2) that depends on nothing but `parts`."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:15], 'big')}"


def dataset(samples: Samples, encoding: Encoding | None = None, **attributes: Any) -> Dataset:
    """An instance holding `samples`; `attributes` are keywords with values, None removes one."""
    encoding = encoding or Encoding()
    frames, channels, rows, cols = samples.shape
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.UID(encoding.syntax)
    ds.SOPClassUID = attributes.pop("SOPClassUID", uid.SecondaryCaptureImageStorage)
    ds.SOPInstanceUID = synthetic_uid(samples.tobytes(), encoding)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = synthetic_uid("study"), synthetic_uid("series")
    ds.Modality, ds.PatientName, ds.PatientID = "OT", "", ""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = channels, encoding.photometric
    if frames > 1:
        ds.NumberOfFrames = frames
    if channels > 1:
        ds.PlanarConfiguration = encoding.planar
    ds.Rows, ds.Columns = rows, cols
    ds.BitsAllocated, ds.BitsStored = encoding.bits_allocated, encoding.bits_stored
    ds.HighBit = encoding.bits_stored - 1 if encoding.high_bit is None else encoding.high_bit
    ds.PixelRepresentation = int(encoding.signed)
    put_pixels(ds, pixel_value(samples, encoding), encoding)
    _set(ds, attributes)
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", "")
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", "")
    return ds


def _set(ds: Dataset, attributes: Mapping[str, Any]) -> None:
    for keyword, value in attributes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)


def put_pixels(ds: Dataset, value: bytes, encoding: Encoding) -> None:
    """Set Pixel Data to exactly these bytes."""
    encapsulated = uid.UID(encoding.syntax).is_encapsulated
    vr = encoding.vr or ("OB" if encapsulated or encoding.bits_allocated == 8 else "OW")
    ds[PIXEL_DATA] = DataElement(PIXEL_DATA, vr, value, is_undefined_length=encapsulated)


def pixel_value(samples: Samples, encoding: Encoding) -> bytes:
    """The value of Pixel Data: words padded to an even length, or encapsulated frames."""
    if encoding.syntax in _ENCODERS:
        pixels = np.moveaxis(words(samples, encoding), 1, 3)
        return encapsulate([_ENCODERS[encoding.syntax](frame, encoding) for frame in pixels])
    big = encoding.syntax == uid.ExplicitVRBigEndian
    stored = words(samples, encoding)
    if encoding.planar == 0:
        stored = np.moveaxis(stored, 1, 3)
    value = (stored.byteswap() if big else stored).tobytes()
    value += b"\0" * (len(value) % 2)
    swapped = big and encoding.bits_allocated == 8 and encoding.vr == "OW"
    return np.frombuffer(value, "<u2").byteswap().tobytes() if swapped else value


def words(samples: Samples, encoding: Encoding) -> Words:
    """Samples in the pixel word, little endian."""
    return samples.astype(f"<{'i' if encoding.signed else 'u'}{encoding.bits_allocated // 8}")


def _rle(pixels: Words, encoding: Encoding) -> bytes:
    rows, cols, channels = pixels.shape
    return RLELosslessEncoder.encode(
        pixels.tobytes(),
        rows=rows,
        columns=cols,
        number_of_frames=1,
        samples_per_pixel=channels,
        bits_allocated=encoding.bits_allocated,
        bits_stored=encoding.bits_allocated,
        pixel_representation=0,
        photometric_interpretation=encoding.photometric,
        planar_configuration=0,
        encoding_plugin="pydicom",
        validate=False,
    )


def _narrow(pixels: Words, encoding: Encoding) -> Words:
    """The unsigned lowest `bits_stored` bits in one or two bytes, [rows, cols] if grey."""
    unsigned = pixels.view(f"<u{pixels.itemsize}") & ((1 << encoding.bits_stored) - 1)
    narrow = unsigned.astype("u1" if encoding.bits_stored <= 8 else "<u2")
    return narrow if pixels.shape[2] == 3 else narrow[:, :, 0]


def _jpeg_ls(pixels: Words, encoding: Encoding) -> bytes:
    rows, cols, channels = pixels.shape
    return bytes(
        jpeg_ls.encode_buffer(
            _narrow(pixels, encoding).tobytes(),
            rows,
            cols,
            channels,
            encoding.bits_stored,
            lossy_error=encoding.near if encoding.syntax == uid.JPEGLSNearLossless else 0,
            interleave_mode=0 if channels == 1 else 2,
        )
    )


def _jpeg_2000(pixels: Words, encoding: Encoding) -> bytes:
    kind = "i" if encoding.signed else "u"
    narrow = pixels.astype(f"<{kind}{1 if encoding.bits_stored <= 8 else 2}")
    transformed = encoding.photometric in ("YBR_RCT", "YBR_ICT")
    return bytes(
        openjpeg.utils.encode_array(
            np.ascontiguousarray(narrow if pixels.shape[2] == 3 else narrow[:, :, 0]),
            bits_stored=encoding.bits_stored,
            photometric_interpretation=int(transformed),
            use_mct=transformed,
            compression_ratios=[encoding.ratio] if encoding.syntax == uid.JPEG2000 else None,
        )
    )


def _jpeg(pixels: Words, encoding: Encoding) -> bytes:
    """8-bit lossy JPEG; colour becomes YCbCr 4:2:2 inside a JFIF stream."""
    target = io.BytesIO()
    grey = pixels.shape[2] == 1
    picture = PIL.Image.fromarray(pixels[:, :, 0] if grey else pixels)
    picture.save(target, "JPEG", quality=90, subsampling=0 if grey else "4:2:2")
    return target.getvalue()


def _jpeg_lossless(pixels: Words, encoding: Encoding) -> bytes:
    narrow = _narrow(pixels, encoding).reshape(pixels.shape).astype(np.int64)
    predictor = 1 if encoding.syntax == uid.JPEGLosslessSV1 else 4
    return lossless_jpeg(narrow, encoding.bits_stored, predictor=predictor)


def lossless_jpeg(
    pixels: npt.NDArray[np.int64],
    precision: int,
    *,
    predictor: int = 1,
    restart_lines: int = 0,
    shift: int = 0,
) -> bytes:
    """Lossless JPEG (ITU-T T.81 process 14) of [rows, cols, channels]; `shift` is the point transform."""
    rows, cols, channels = pixels.shape
    ids = range(1, channels + 1)
    frame = b"".join(bytes((i, 0x11, 0)) for i in ids)
    scan = b"".join(bytes((i, 0)) for i in ids)
    lines = restart_lines or rows
    strips = [pixels[top : top + lines] >> shift for top in range(0, rows, lines)]
    coded = [_huffman(_differences(strip, predictor, 1 << (precision - shift - 1))) for strip in strips]
    restarts = (bytes((0xFF, 0xD0 + number % 8)) for number in range(len(coded) - 1))
    entropy = coded[0] + b"".join(mark + part for mark, part in zip(restarts, coded[1:], strict=True))
    return b"".join(
        (
            b"\xff\xd8",
            _segment(0xC3, bytes((precision,)) + _u16(rows) + _u16(cols) + bytes((channels,)) + frame),
            _segment(0xC4, bytes((0, *(0, 0, 0, 0, 17), *[0] * 11, *range(17)))),
            _segment(0xDD, _u16(restart_lines * cols)) if restart_lines else b"",
            _segment(0xDA, bytes((channels,)) + scan + bytes((predictor, 0, shift))),
            entropy,
            b"\xff\xd9",
        )
    )


def _u16(number: int) -> bytes:
    return number.to_bytes(2, "big")


def _segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + _u16(len(content) + 2) + content


def _differences(strip: npt.NDArray[np.int64], predictor: int, start: int) -> npt.NDArray[np.int64]:
    """Prediction errors in coding order, folded into -32767..32768 (T.81 H.1.2)."""
    padded = np.pad(strip, ((1, 0), (1, 0), (0, 0)))
    left, above, corner = padded[1:, :-1], padded[:-1, 1:], padded[:-1, :-1]
    guess = {
        1: left,
        2: above,
        3: corner,
        4: left + above - corner,
        5: left + ((above - corner) >> 1),
        6: above + ((left - corner) >> 1),
        7: (left + above) >> 1,
    }[predictor].copy()
    guess[0], guess[1:, 0] = left[0], above[1:, 0]
    guess[0, 0] = start
    error = (strip - guess) & 0xFFFF
    return np.asarray(np.where(error > 32768, error - 65536, error).ravel())


def _huffman(differences: npt.NDArray[np.int64]) -> bytes:
    """Every category has the five-bit code of its own number."""
    bits = "".join(_coded(int(difference)) for difference in differences)
    bits += "1" * (-len(bits) % 8)
    return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)).replace(b"\xff", b"\xff\x00")


def _coded(difference: int) -> str:
    category = abs(difference).bit_length()
    if category in (0, 16):
        return f"{category:05b}"
    extra = difference if difference > 0 else difference + (1 << category) - 1
    return f"{category:05b}{extra:0{category}b}"


_ENCODERS: dict[str, Callable[[Words, Encoding], bytes]] = {
    uid.RLELossless: _rle,
    uid.JPEGLSLossless: _jpeg_ls,
    uid.JPEGLSNearLossless: _jpeg_ls,
    uid.JPEG2000Lossless: _jpeg_2000,
    uid.JPEG2000: _jpeg_2000,
    uid.JPEGBaseline8Bit: _jpeg,
    uid.JPEGLossless: _jpeg_lossless,
    uid.JPEGLosslessSV1: _jpeg_lossless,
}


def ct(rows: int = 64, cols: int = 64, *, seed: int = 0, **attributes: Any) -> Dataset:
    """CT: 16 bits, signed, padding outside the reconstruction circle."""
    samples = phantom(rows, cols, lo=-1000, hi=2000, seed=seed)
    y, x = np.ogrid[-1 : 1 : rows * 1j, -1 : 1 : cols * 1j]
    samples[:, :, y**2 + x**2 > 1] = -2000
    attributes = {
        "Modality": "CT",
        "SOPClassUID": uid.CTImageStorage,
        "PixelPaddingValue": -2000,
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
        **attributes,
    }
    return dataset(samples, SIGNED_16, **attributes)


def mr(rows: int = 64, cols: int = 64, *, seed: int = 0, **attributes: Any) -> Dataset:
    """MR: 12 bits, unsigned."""
    attributes = {"Modality": "MR", "SOPClassUID": uid.MRImageStorage, **attributes}
    return dataset(phantom(rows, cols, hi=3000, seed=seed), **attributes)


def cr(rows: int = 80, cols: int = 64, *, seed: int = 0, **attributes: Any) -> Dataset:
    """CR: 10 bits, MONOCHROME1."""
    encoding = Encoding(bits_stored=10, photometric="MONOCHROME1")
    attributes = {"Modality": "CR", "SOPClassUID": uid.ComputedRadiographyImageStorage, **attributes}
    return dataset(phantom(rows, cols, hi=encoding.hi, seed=seed), encoding, **attributes)


def us(
    rows: int = 64,
    cols: int = 80,
    *,
    frames: int = 3,
    encoding: Encoding = COLOUR_8,
    seed: int = 0,
    **attributes: Any,
) -> Dataset:
    """Ultrasound: a colour cine with one region that is the image proper."""
    region = Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 8, 4
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = cols - 9, rows - 5
    attributes = {
        "Modality": "US",
        "SOPClassUID": uid.UltrasoundMultiFrameImageStorage,
        "SequenceOfUltrasoundRegions": [region],
        "FrameTime": 40,
        **attributes,
    }
    samples = phantom(rows, cols, frames=frames, channels=3, hi=255, seed=seed)
    return dataset(samples, replace(encoding), **attributes)


def enhanced_mr(
    rows: int = 64, cols: int = 64, *, frames: int = 4, seed: int = 0, **attributes: Any
) -> Dataset:
    """Enhanced MR: several frames with functional groups."""
    groups = [Dataset() for _ in range(frames)]
    for number, group in enumerate(groups, start=1):
        content = Dataset()
        content.FrameAcquisitionNumber = number
        group.FrameContentSequence = [content]
    attributes = {
        "Modality": "MR",
        "SOPClassUID": uid.EnhancedMRImageStorage,
        "PerFrameFunctionalGroupsSequence": groups,
        **attributes,
    }
    return dataset(phantom(rows, cols, frames=frames, hi=3000, seed=seed), **attributes)


def secondary_capture(rows: int = 64, cols: int = 64, *, seed: int = 0, **attributes: Any) -> Dataset:
    """Secondary capture: one colour screen shot."""
    return dataset(phantom(rows, cols, channels=3, hi=255, seed=seed), COLOUR_8, **attributes)


def file_bytes(ds: Dataset) -> bytes:
    """The instance as a DICOM file (PS3.10)."""
    target = io.BytesIO()
    ds.save_as(target, enforce_file_format=True)
    return target.getvalue()


def reread(ds: Dataset) -> Dataset:
    """The instance as pydicom finds it in a file, every value still raw."""
    return dcmread(io.BytesIO(file_bytes(ds)))
