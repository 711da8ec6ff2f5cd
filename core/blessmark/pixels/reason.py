"""Why an instance travels on unmarked: a bounded set of words, for labels, counters and policies."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Reason(enum.StrEnum):
    """One word for each kind of object that is passed through; `meaning` is a line for the operator."""

    NO_PIXEL_DATA = "no-pixel-data"
    ENCAPSULATED_DOCUMENT = "encapsulated-document"
    VIDEO = "video"
    FLOAT_PIXELS = "float-pixels"
    SEGMENTATION = "segmentation"
    RT_DOSE = "rt-dose"
    PARAMETRIC_MAP = "parametric-map"
    PALETTE_COLOUR = "palette-colour"
    ONE_BIT = "one-bit"
    BITS_OUT_OF_RANGE = "bits-out-of-range"
    HIGH_BIT = "high-bit"
    HIGH_BITS_USED = "high-bits-used"
    OVERLAY_IN_PIXEL_BITS = "overlay-in-pixel-bits"
    CHROMA_SUBSAMPLED = "chroma-subsampled"
    UNSUPPORTED_PHOTOMETRIC = "unsupported-photometric"
    UNSUPPORTED_TRANSFER_SYNTAX = "unsupported-transfer-syntax"
    ALL_PADDING = "all-padding"
    TOO_SMALL = "too-small"

    @property
    def meaning(self) -> str:
        """What the word stands for, one sentence."""
        return _MEANINGS[self]


_MEANINGS = {
    Reason.NO_PIXEL_DATA: "The instance holds no image.",
    Reason.ENCAPSULATED_DOCUMENT: "The instance holds a document (PDF, CDA, STL ...), not an image.",
    Reason.VIDEO: "The pixels are an MPEG or HEVC stream, which cannot be re-encoded without loss.",
    Reason.FLOAT_PIXELS: "The pixels are floating-point numbers.",
    Reason.SEGMENTATION: "The pixels are labels, not intensities.",
    Reason.RT_DOSE: "The pixels are a dose, from which treatment is computed.",
    Reason.PARAMETRIC_MAP: "The pixels are a measured quantity, from which others are computed.",
    Reason.PALETTE_COLOUR: "The pixels are indices into a colour table; neighbours are not similar colours.",
    Reason.ONE_BIT: "A pixel is one bit.",
    Reason.BITS_OUT_OF_RANGE: "A sample has fewer than 8 or more than 16 bits, or an unusual container.",
    Reason.HIGH_BIT: "The samples do not start at the lowest bit of their words.",
    Reason.HIGH_BITS_USED: "The unused high bits of the pixel words are not empty.",
    Reason.OVERLAY_IN_PIXEL_BITS: "An overlay is kept in unused bits of the pixel words.",
    Reason.CHROMA_SUBSAMPLED: "Losslessly stored colour shared by neighbouring pixels.",
    Reason.UNSUPPORTED_PHOTOMETRIC: "The photometric interpretation is retired, private or out of place.",
    Reason.UNSUPPORTED_TRANSFER_SYNTAX: "There is no decoder for the transfer syntax.",
    Reason.ALL_PADDING: "The declared padding covers every value that a pixel can have.",
    Reason.TOO_SMALL: "The image is smaller than one block of the region-of-interest map.",
}


@dataclass(frozen=True, slots=True)
class Passthrough:
    """The finding that an instance is never marked; it is forwarded exactly as it came."""

    reason: Reason
