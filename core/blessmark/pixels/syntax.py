"""The transfer syntaxes that the engine reads, and what it writes instead of each."""

from __future__ import annotations

from types import MappingProxyType

from pydicom import uid

NATIVE = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    }
)

#: the whole data set is one deflated stream: Deflated Explicit VR, JPIP Referenced Deflate (two)
DEFLATED = frozenset(
    {uid.DeflatedExplicitVRLittleEndian, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"}
)

JPEG_LOSSY = frozenset({uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit})
JPEG_LOSSLESS = frozenset({uid.JPEGLossless, uid.JPEGLosslessSV1})
JPEG_LS = frozenset({uid.JPEGLSLossless, uid.JPEGLSNearLossless})
J2K = frozenset({uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K})
RLE = frozenset({uid.RLELossless})

#: transfer syntaxes that the engine reads
READABLE = NATIVE | JPEG_LOSSY | JPEG_LOSSLESS | JPEG_LS | J2K | RLE

#: transfer syntaxes that may have lost something, and their Lossy Image Compression Method
#: (PS3.3 C.7.6.1.1.5.1)
LOSSY = MappingProxyType(
    {
        uid.JPEGBaseline8Bit: "ISO_10918_1",
        uid.JPEGExtended12Bit: "ISO_10918_1",
        uid.JPEGLSNearLossless: "ISO_14495_1",
        uid.JPEG2000: "ISO_15444_1",
        uid.HTJ2K: "ISO_15444_15",
    }
)

#: every MPEG-2, MPEG-4 and HEVC transfer syntax, 1.2.840.10008.1.2.4.100 to .108
VIDEO_PREFIX = "1.2.840.10008.1.2.4.10"

#: Lossless syntaxes that have an encoder, and what is written where that encoder refuses an image: JPEG 2000
#: the small ones (it halves an image five times), JPEG-LS noise that grows. RLE takes everything.
ENCODABLE = MappingProxyType(
    {
        uid.JPEG2000Lossless: uid.JPEGLSLossless,
        uid.JPEGLSLossless: uid.RLELossless,
        uid.RLELossless: None,
    }
)


def written_as(syntax: str) -> str:
    """The lossless transfer syntax that changed pixels of a compressed `syntax` source are written in."""
    return syntax if syntax in ENCODABLE else str(uid.JPEGLSLossless)
