"""What the header says about the pixels: geometry, bits, and what must not be touched.

Contradictions are errors here, before anything is decoded; unusual but honest headers are findings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset

from blessmark.errors import PixelError
from blessmark.pixels import elements
from blessmark.pixels.reason import Reason
from blessmark.pixels.syntax import J2K, LOSSY, NATIVE, READABLE, VIDEO_PREFIX
from blessmark.profile import V1
from blessmark.types import Rectangle

_CHANNELS = {
    "MONOCHROME1": 1,
    "MONOCHROME2": 1,
    "PALETTE COLOR": 1,
    "RGB": 3,
    "YBR_FULL": 3,
    "YBR_FULL_422": 3,
    "YBR_PARTIAL_422": 3,
    "YBR_PARTIAL_420": 3,
    "YBR_ICT": 3,
    "YBR_RCT": 3,
    "HSV": 3,
    "ARGB": 4,
    "CMYK": 4,
}

#: label maps and height maps that the installed dictionary may not know by name yet
_LABEL_MAP, _HEIGHT_MAP = "1.2.840.10008.5.1.4.1.1.66.7", "1.2.840.10008.5.1.4.1.1.66.8"

_SOP_CLASSES = {
    uid.SegmentationStorage: Reason.SEGMENTATION,
    _LABEL_MAP: Reason.SEGMENTATION,
    _HEIGHT_MAP: Reason.SEGMENTATION,
    uid.RTDoseStorage: Reason.RT_DOSE,
    uid.ParametricMapStorage: Reason.PARAMETRIC_MAP,
    uid.OphthalmicThicknessMapStorage: Reason.PARAMETRIC_MAP,
    uid.CornealTopographyMapStorage: Reason.PARAMETRIC_MAP,
}

#: attributes that describe how pixels are stored, and change with it where compressed ones are stored anew
PIXEL_DESCRIPTION = frozenset(
    {0x00280004, 0x00280006, 0x00282110, 0x00282112, 0x00282114, 0x7FE00001, 0x7FE00002}
)

#: containers that the standard knew at some time, and that are passed through (PS3.5 8.1.1)
_OTHER_CONTAINERS = frozenset({1, 12, 24, 32, 40, 48, 64})


@dataclass(frozen=True, slots=True)
class Header:
    """The Image Pixel module (PS3.3 C.7.6.3) of one instance, free of contradictions.

    Attributes
    ----------
    frames, rows, cols : at least 1 each
    channels : samples per pixel
    bits_allocated, bits_stored : of one sample; `bits_stored <= bits_allocated`
    high_bit : position of a sample's highest bit in its word
    signed : two's complement samples
    photometric : Photometric Interpretation
    planar : 0 = samples of a pixel together, 1 = one plane after the other
    syntax : transfer syntax UID
    """

    frames: int
    rows: int
    cols: int
    channels: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric: str
    planar: int
    syntax: str

    def __post_init__(self) -> None:
        if min(self.frames, self.rows, self.cols, self.channels) < 1:
            raise PixelError(f"{self.size} pixels x {self.channels} samples: one of them is zero")
        if self.bits_allocated not in {8, 16} | _OTHER_CONTAINERS:
            raise PixelError(f"BitsAllocated is {self.bits_allocated}, no size of a pixel word")
        if not 1 <= self.bits_stored <= self.bits_allocated:
            raise PixelError(f"BitsStored is {self.bits_stored} in words of {self.bits_allocated} bits")
        if _CHANNELS.get(self.photometric, self.channels) != self.channels:
            raise PixelError(f"{self.channels} samples per pixel contradict {self.photometric}")
        if self.planar not in (0, 1):
            raise PixelError(f"PlanarConfiguration is {self.planar}, neither 0 nor 1")

    @property
    def size(self) -> str:
        """The geometry in words, for messages."""
        return f"{self.frames} frames of {self.rows} x {self.cols}"

    @property
    def native(self) -> bool:
        """Whether the pixels are uncompressed."""
        return self.syntax in NATIVE

    @property
    def lossy(self) -> bool:
        """Whether the transfer syntax may have lost something already."""
        return self.syntax in LOSSY

    @property
    def lo(self) -> int:
        """Lowest value that a sample can have."""
        return -(1 << (self.bits_stored - 1)) if self.signed else 0

    @property
    def hi(self) -> int:
        """Highest value that a sample can have."""
        return (1 << (self.bits_stored - self.signed)) - 1

    @property
    def word(self) -> np.dtype[Any]:
        """The type of one pixel word in the byte order of the transfer syntax."""
        order = ">" if self.syntax == uid.ExplicitVRBigEndian else "<"
        return np.dtype(f"{order}{'i' if self.signed else 'u'}{self.bits_allocated // 8}")

    @property
    def frame_samples(self) -> int:
        """Samples of one frame."""
        return self.rows * self.cols * self.channels

    @property
    def total_bytes(self) -> int:
        """Bytes of all frames, uncompressed and without padding."""
        return self.frames * self.frame_samples * self.bits_allocated // 8


def read_header(ds: Dataset) -> Header:
    """The Image Pixel module of an instance that holds pixels.

    Raises
    ------
    PixelError : an attribute is missing, malformed or contradicts another
    """
    bits_stored = elements.required(ds, "BitsStored")
    high_bit = elements.number(ds, "HighBit")
    channels = elements.required(ds, "SamplesPerPixel")
    frames = elements.number(ds, "NumberOfFrames")
    return Header(
        frames=1 if frames is None else frames,
        rows=elements.required(ds, "Rows"),
        cols=elements.required(ds, "Columns"),
        channels=channels,
        bits_allocated=elements.required(ds, "BitsAllocated"),
        bits_stored=bits_stored,
        high_bit=bits_stored - 1 if high_bit is None else high_bit,
        signed=_signed(ds),
        photometric=elements.text(ds, "PhotometricInterpretation"),
        planar=_planar(ds, channels),
        syntax=elements.transfer_syntax(ds),
    )


def _signed(ds: Dataset) -> bool:
    representation = elements.required(ds, "PixelRepresentation")
    if representation not in (0, 1):
        raise PixelError(f"PixelRepresentation is {representation}, neither 0 nor 1")
    return representation == 1


def _planar(ds: Dataset, channels: int) -> int:
    """Order of the samples; uncompressed colour without it has no meaning (PS3.3 C.7.6.3.1.3)."""
    if channels == 1:
        return 0
    if elements.transfer_syntax(ds) in NATIVE:
        return elements.required(ds, "PlanarConfiguration")
    return elements.number(ds, "PlanarConfiguration") or 0


def object_reason(ds: Dataset) -> Reason | None:
    """Why this kind of object is passed through whatever its pixels are, or None.

    Raises
    ------
    PixelError : the header describes an image, but there is none: the instance was cut short
    """
    if elements.holds(ds, "EncapsulatedDocument"):
        return Reason.ENCAPSULATED_DOCUMENT
    if elements.holds(ds, "FloatPixelData") or elements.holds(ds, "DoubleFloatPixelData"):
        return Reason.FLOAT_PIXELS
    if not elements.holds(ds, "PixelData"):
        return _without_pixels(ds)
    if elements.transfer_syntax(ds).startswith(VIDEO_PREFIX):
        return Reason.VIDEO
    return _SOP_CLASSES.get(elements.text(ds, "SOPClassUID"))


def _without_pixels(ds: Dataset) -> Reason:
    if elements.holds(ds, "BitsAllocated") and not elements.holds(ds, "PixelDataProviderURL"):
        raise PixelError("the header describes an image, but Pixel Data is missing; send the instance again")
    return Reason.NO_PIXEL_DATA


def pixel_reason(ds: Dataset, header: Header) -> Reason | None:
    """Why these pixels are passed through, judged by the header alone, or None."""
    return (
        _bits_reason(header)
        or _photometric_reason(header)
        or _syntax_reason(header)
        or (Reason.OVERLAY_IN_PIXEL_BITS if _overlay_in_words(ds) else None)
        or (Reason.TOO_SMALL if min(header.rows, header.cols) < V1.block_px else None)
    )


def _bits_reason(header: Header) -> Reason | None:
    if header.bits_allocated == 1:
        return Reason.ONE_BIT
    if header.bits_allocated not in (8, 16) or header.bits_stored < 8:
        return Reason.BITS_OUT_OF_RANGE
    return Reason.HIGH_BIT if header.high_bit != header.bits_stored - 1 else None


def _photometric_reason(header: Header) -> Reason | None:
    photometric = header.photometric
    if photometric == "PALETTE COLOR":
        return Reason.PALETTE_COLOUR
    if photometric in ("MONOCHROME1", "MONOCHROME2"):
        return None
    if photometric == "YBR_FULL_422" and not header.lossy:
        return Reason.CHROMA_SUBSAMPLED
    plain = photometric == "RGB" or (photometric == "YBR_FULL" and header.bits_allocated == 8)
    converted = photometric == "YBR_FULL_422" or (
        photometric in ("YBR_RCT", "YBR_ICT") and header.syntax in J2K
    )
    return None if (plain or converted) and not header.signed else Reason.UNSUPPORTED_PHOTOMETRIC


def _syntax_reason(header: Header) -> Reason | None:
    # the 12-bit process of JPEG Extended has no maintained, freely licensed decoder
    if header.syntax not in READABLE or (header.syntax == uid.JPEGExtended12Bit and header.bits_stored > 8):
        return Reason.UNSUPPORTED_TRANSFER_SYNTAX
    return None


def _overlay_in_words(ds: Dataset) -> bool:
    """Whether an overlay lives in the pixel words (PS3.3 C.9.2, retired but about).

    Its bit position is not zero, or its geometry is declared and its own data are not there.
    """
    # plain integers: every comparison of pydicom's tags runs Python code
    overlays = {tag >> 16 for tag in map(int, ds._dict) if 0x60000000 <= tag < 0x61000000}
    for group in sorted(group for group in overlays if group % 2 == 0):
        base = group << 16
        if base | 0x0102 in ds and elements.number_at(ds, base | 0x0102, "Overlay Bit Position"):
            return True
        if base | 0x0010 in ds and base | 0x3000 not in ds:
            return True
    return False


def padding_range(ds: Dataset, header: Header) -> tuple[int, int] | None:
    """Inclusive range of values that mean "no pixel here", None if there is none.

    PS3.3 C.7.5.1.1.2: Pixel Padding Value alone, or to Pixel Padding Range Limit in either order. Both are
    signed as the pixels are, whatever VR a careless writer gave them; only grey images have padding.
    """
    first = elements.number(ds, "PixelPaddingValue")
    if first is None or header.channels != 1:
        return None
    limit = elements.number(ds, "PixelPaddingRangeLimit")
    ends = [_as_sample(end, header) for end in (first, first if limit is None else limit)]
    low, high = max(min(ends), header.lo), min(max(ends), header.hi)
    return (low, high) if low <= high else None


def _as_sample(raw: int, header: Header) -> int:
    """Fold a 16-bit number into the sign of the pixels."""
    word = raw & 0xFFFF
    return word - 0x10000 if header.signed and word > 0x7FFF else word


def forced_roi(ds: Dataset, header: Header) -> tuple[Rectangle, ...]:
    """The ultrasound regions (PS3.3 C.8.5.5), clipped to the image.

    A region whose corners are missing or unreadable could be anywhere, so it covers the whole image.
    """
    tag = elements.tag_of("SequenceOfUltrasoundRegions")
    regions = elements.value(ds, tag, "SequenceOfUltrasoundRegions") or ()
    found = (_rectangle(item, header) for item in regions)
    return tuple(dict.fromkeys(region for region in found if region is not None))


_CORNERS = ("RegionLocationMinY0", "RegionLocationMinX0", "RegionLocationMaxY1", "RegionLocationMaxX1")


def _rectangle(item: Dataset, header: Header) -> Rectangle | None:
    try:
        y0, x0, y1, x1 = (elements.required(item, corner) for corner in _CORNERS)
    except PixelError:
        return Rectangle(0, 0, header.rows, header.cols)
    top, bottom = max(min(y0, y1), 0), min(max(y0, y1) + 1, header.rows)
    left, right = max(min(x0, x1), 0), min(max(x0, x1) + 1, header.cols)
    return Rectangle(top, left, bottom, right) if top < bottom and left < right else None
