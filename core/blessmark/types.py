"""The plain data that travels between the engine's steps.

Arrays are int32 unless said otherwise: wide enough for every sample of 8 to 16 bits, signed or not. Frames
and views hold their samples in 16 bits as well, or instead (`planes`); one is made of the other when it is
first asked for.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from blessmark.planes import PlaneArray, narrowed, shift_of, widened

IntArray = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]


class Lattice(enum.IntEnum):
    """Which pixels the carrier may change; all others are never modified."""

    QUARTER = 0  #: row odd and column odd: one pixel in four
    QUINCUNX = 1  #: row + column odd: every second pixel; twice the capacity, a blurrier view


class Framing(enum.StrEnum):
    """How the message is laid over the image."""

    TILE = "tile"  #: one authenticated packet a tile, erasure-coded across tiles; the default
    GLOBAL = "global"  #: one order over the whole image, for scarce capacity
    BLOCKS = "blocks"  #: one bit a block and channel, by the `dct` carrier
    HEADER = "header"  #: not in the pixels at all: the sealed record travels in a header element


class Carrier(enum.StrEnum):
    """How bits are put into pixels."""

    LATTICE = "lattice"  #: prediction errors of untouched neighbours; restores bit for bit; the default
    DCT = "dct"  #: the order of two coefficients of a block, as the paper does; restores approximately


class Tier(enum.IntEnum):
    """How much of the record travels in the pixels, biggest first."""

    FULL = 0
    CORE = 1
    SEAL = 2


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A half-open region of pixels: rows `top..bottom-1`, columns `left..right-1`."""

    top: int
    left: int
    bottom: int
    right: int


class _Held:
    """Samples [channels, rows, cols] as int32, as planes of 16 bits, or both.

    They are kept under the name by which they are asked for, and made of the other ones where there are none.
    Who has asked for both must not write to either.
    """

    #: whether planes are made again once samples were asked for, since those may be written to
    _made_again = False

    lo: int
    hi: int
    padding: tuple[int, int] | None

    if not TYPE_CHECKING:  # or every name would be one to the type checker

        def __getattr__(self, name: str) -> Any:
            """The samples, of whatever came as planes; nothing else is missing."""
            held = self.__dict__
            planes = held.get("planes") if name == "samples" else None
            if planes is not None:
                held["samples"] = widened(planes, self.shift)
                if self._made_again:
                    held.pop("planes", None)
            if name != "samples" or name not in held:  # it may have come in another thread
                raise AttributeError(name)
            return held["samples"]

    @cached_property
    def planes(self) -> PlaneArray:
        """int16 [channels, rows, cols]: the samples less `shift`.

        Raises
        ------
        ValueError
            samples are so far outside `lo..hi` that 16 bits do not hold them
        """
        samples: IntArray = self.__dict__["samples"]
        return narrowed(samples, self.shift)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows, columns."""
        held = self.__dict__.get("planes")
        channels, rows, cols = (self.__dict__["samples"] if held is None else held).shape
        return channels, rows, cols

    @property
    def shift(self) -> int:
        """By how much less than samples `planes` are."""
        return shift_of(self.lo, self.hi)

    @property
    def plane_padding(self) -> tuple[int, int] | None:
        """The padding values as they stand in `planes`."""
        if self.padding is None:
            return None
        return self.padding[0] - self.shift, self.padding[1] - self.shift


@dataclass(frozen=True)
class Frame(_Held):
    """One frame of an image as integer planes.

    Attributes
    ----------
    samples : int32 [channels, rows, cols], each sample in `lo..hi`; not to be written to once the frame was
        embedded into, read, stored or drawn, which keep planes of them
    lo, hi : the range that BitsStored and PixelRepresentation allow, inclusive
    padding : inclusive range of PixelPaddingValue(/RangeLimit), or None (PS3.3 C.7.5.1.1.2)
    number : frame number, from 1 (PS3.3 C.7.6.6)
    forced_roi : regions that are ROI whatever the segmenter says (PS3.3 C.8.5.5 ultrasound regions)
    """

    _made_again = True

    samples: IntArray
    lo: int
    hi: int
    padding: tuple[int, int] | None = None
    number: int = 1
    forced_roi: tuple[Rectangle, ...] = ()

    def __post_init__(self) -> None:
        if self.samples.ndim != 3 or self.samples.dtype != np.int32:
            raise ValueError("samples must be int32 [channels, rows, cols]")
        if self.lo >= self.hi:
            raise ValueError("lo must be below hi")

    @classmethod
    def of_planes(
        cls,
        planes: PlaneArray,
        lo: int,
        hi: int,
        padding: tuple[int, int] | None = None,
        number: int = 1,
        forced_roi: tuple[Rectangle, ...] = (),
    ) -> Frame:
        """A frame that holds `planes`, its samples less `planes.shift_of(lo, hi)`."""
        return _made(cls, planes=planes, lo=lo, hi=hi, padding=padding, number=number, forced_roi=forced_roi)

    @property
    def channels(self) -> int:
        return self.shape[0]

    @property
    def rows(self) -> int:
        return self.shape[1]

    @property
    def cols(self) -> int:
        return self.shape[2]

    @property
    def bounds(self) -> tuple[int, int]:
        """Range in which embedding may move a sample: `lo..hi` without the padding values.

        Padding at the low end raises the lower bound, padding at the high end lowers the upper one, so
        that no padding sample changes and none appears.
        """
        if self.padding is None:
            return self.lo, self.hi
        low, high = self.padding
        if low - self.lo <= self.hi - high:
            return max(self.lo, high + 1), self.hi
        return self.lo, min(self.hi, low - 1)

    @property
    def plane_bounds(self) -> tuple[int, int]:
        """`bounds` as they stand in `planes`."""
        lo, hi = self.bounds
        return lo - self.shift, hi - self.shift

    def with_samples(self, samples: IntArray) -> Frame:
        """The same frame holding other samples of the same shape."""
        if samples.shape != self.shape:
            raise ValueError("shape differs")
        return Frame(samples, self.lo, self.hi, self.padding, self.number, self.forced_roi)

    def with_planes(self, planes: PlaneArray) -> Frame:
        """The same frame holding other planes of the same shape."""
        if planes.shape != self.shape:
            raise ValueError("shape differs")
        return Frame.of_planes(planes, self.lo, self.hi, self.padding, self.number, self.forced_roi)


@dataclass(frozen=True)
class View(_Held):
    """What a segmenter may look at: samples that embedding provably cannot change.

    `samples` has the frame's shape; every lattice pixel holds the mean of its untouched neighbours.
    """

    samples: IntArray
    lattice: Lattice
    lo: int
    hi: int
    padding: tuple[int, int] | None

    @classmethod
    def of_planes(
        cls, planes: PlaneArray, lattice: Lattice, lo: int, hi: int, padding: tuple[int, int] | None
    ) -> View:
        """A view that holds `planes`, its samples less `planes.shift_of(lo, hi)`."""
        return _made(cls, planes=planes, lattice=lattice, lo=lo, hi=hi, padding=padding)


_H = TypeVar("_H", bound=_Held)


def _made(kind: type[_H], **held: Any) -> _H:
    """A frame or a view with those attributes, without samples as yet."""
    if held["planes"].ndim != 3 or held["planes"].dtype != np.int16:
        raise ValueError("planes must be int16 [channels, rows, cols]")
    made = object.__new__(kind)
    made.__dict__.update(held, planes=np.ascontiguousarray(held["planes"]))
    return made


class Segmenter(Protocol):
    """Finds the region of interest of a view.

    The map must depend on the view alone and be bit-identical on every machine. Two segmenters share an
    `id` only if they give the same map for every view.
    """

    @property
    def id(self) -> str:
        """Name and version, `anatomy/1`, and the weights of a network; bound into the watermark."""

    @property
    def reach_px(self) -> int | None:
        """How far a pixel can influence the map; None when it reaches everywhere."""

    def roi_blocks(self, view: View) -> BoolArray:
        """bool [rows // 8, cols // 8]: True where a block holds any ROI pixel."""


@dataclass(frozen=True, slots=True)
class SiteKey:
    """The secrets that one key id stands for; see `payload.crypto` for what each is used for."""

    id: int
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.id <= 255:
            raise ValueError("a key id is one byte")
        if len(self.secret) != 32:
            raise ValueError("a site key is 32 bytes")


class KeyRing(Protocol):
    """The keys a site holds: one to write with, all of them to read with."""

    @property
    def current(self) -> SiteKey:
        """The key that new watermarks are written with."""

    @property
    def keys(self) -> tuple[SiteKey, ...]:
        """Every key that may be read with, the current one first."""


@dataclass(frozen=True, slots=True)
class About:
    """What the caller wants the watermark to say about an instance; embedding adds the rest.

    Attributes
    ----------
    sop_instance_uid : of the original instance
    frames : how many frames the instance holds
    time_s : now, seconds since 1970-01-01 UTC
    node : id of this node
    charset : Specific Character Set exactly as in the header, b"" if absent
    fields : tag (group << 16 | element) -> the value bytes exactly as in the header
    """

    sop_instance_uid: str
    frames: int = 1
    time_s: int = 0
    node: str = ""
    charset: bytes = field(default=b"", repr=False)
    fields: Mapping[int, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Record:
    """What the watermark says about one frame.

    Attributes
    ----------
    tier : how much of it travelled
    pixel_digest : first 16 bytes of the SHA-256 of the original frame (`record.pixel_digest`)
    uid_digest : first 8 bytes of the SHA-256 of the SOP Instance UID
    frame, frames : number of this frame and how many the instance holds
    time_s : when it was protected, seconds since 1970-01-01 UTC
    node : id of the node that protected it
    segmenter : id of the segmenter that drew the map
    charset : Specific Character Set exactly as in the header, b"" if absent
    fields : tag (group << 16 | element) -> the value bytes exactly as in the header
    digests : one byte per cell of the localisation grid, b"" if there was no room (`record.Grid`)
    """

    tier: Tier
    pixel_digest: bytes
    uid_digest: bytes
    frame: int
    frames: int
    time_s: int
    node: str = ""
    segmenter: str = ""
    charset: bytes = field(default=b"", repr=False)
    fields: Mapping[int, bytes] = field(default_factory=dict, repr=False)
    digests: bytes = b""


class Finding(enum.StrEnum):
    """What a reader with the key can say about one frame or instance, best first."""

    #: record authentic, header agrees; restored pixels hash to the original, or (`dct`) all are as released
    AUTHENTIC = "authentic"
    HEADER_ALTERED = "header-altered"  #: pixels prove original, header fields differ from the record
    PIXELS_ALTERED = "pixels-altered"  #: the record is authentic, the pixels are not what it was made for
    DAMAGED = "damaged"  #: packets authenticate, but too few survive to read the record
    #: it was marked by a map that this reader has no segmenter, or other weights, for; it cannot be judged
    UNKNOWN_SEGMENTER = "unknown-segmenter"
    WRONG_KEY = "wrong-key"  #: the header says it is protected under a key that this ring lacks
    UNMARKED = "unmarked"  #: no watermark that any key of this ring can read


class SignatureState(enum.StrEnum):
    """What a reader with public keys can say about the signature of one frame or instance, best first."""

    VALID = "valid"  #: the holder of a trusted key released this frame, as part of this instance
    NONE = "none"  #: there is no signature
    UNKNOWN_KEY = "unknown-key"  #: there is one, by a key that the reader was not given
    REVOKED = "revoked"  #: it would be valid, but its key is trusted no more
    INVALID = "invalid"  #: there is one, or was, and it does not hold for what arrived


@dataclass(frozen=True, slots=True)
class SignatureEvidence:
    """The signature of one frame; `key` is its 8-byte id, `time_s` what the signer claims.

    `carried` is `pixels`, `header`, or "" where there is none, or none that could be read.
    """

    state: SignatureState = SignatureState.NONE
    key: bytes = b""
    time_s: int = 0
    carried: str = ""


class TileState(enum.IntEnum):
    """What one tile of a marked frame says, the alphabet of `Evidence.tiles`."""

    QUIET = 0  #: no packet of its own and nothing against it
    PACKET = 1  #: its packet authenticates its restored pixels
    ALTERED = 2  #: its restored pixels are not the original ones
    FOREIGN = 3  #: its packet authenticates, but belongs to another image


class Cause(enum.StrEnum):
    """What a change looks like."""

    LOSSY_COMPRESSION = "lossy-compression"  #: a codec that does not give every sample back
    RESIZED = "resized"  #: interpolated to another number of rows or columns
    CROPPED = "cropped"  #: rows or columns are missing, or were added
    TURNED = "turned"  #: rotated by quarter turns, or mirrored
    RESCALED = "rescaled"  #: brightness, contrast, bits or window
    FILTERED = "filtered"  #: smoothed or sharpened
    NOISE = "noise"  #: small changes all over
    PASTED_REGION = "pasted-region"  #: a part is another one, the rest as it was


@dataclass(frozen=True, slots=True)
class Hint:
    """A cause, and in a few words what speaks for it; numbers, no names."""

    cause: Cause
    because: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a verdict rests on; one per frame.

    `tiles` is uint8 [tile rows, tile cols] of `TileState`, None when nothing was found. `packets` counts
    tiles whose packet is authentic, `shards_needed` the shards the record takes; a packet holds 1 to 16.
    `roi` is bool [rows // 8, cols // 8], the map that the watermark was read by; None when nothing was found,
    and for watermarks that need no such map: those in the header and the `dct` carrier's.
    `block_px` and `restored_psnr_db` are told by the `dct` carrier alone. Of the `altered_tiles`, the
    `proven_tiles` certainly have other pixels than the original; others may be silent for their neighbours.
    `causes` are hints at what happened, the likeliest first; no finding rests on them.
    """

    frame: int
    key_id: int | None = None
    framing: Framing | None = None
    lattice: Lattice | None = None
    tier: Tier | None = None
    segmenter: str = ""
    packets: int = 0
    shards_needed: int = 0
    changed_samples: int = 0
    psnr_db: float | None = None
    localisation: str = "none"  #: "exact" (finite reach), "indicative" (global segmenter) or "none"
    tiles: npt.NDArray[np.uint8] | None = None
    altered_tiles: tuple[tuple[int, int], ...] = ()
    altered_fields: tuple[int, ...] = ()
    proven_tiles: tuple[tuple[int, int], ...] = ()
    causes: tuple[Hint, ...] = ()
    block_px: int | None = None
    restored_psnr_db: float | None = None
    roi: BoolArray | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to "is this the image that was protected?", for one frame.

    `restored` is the frame with the watermark removed as far as possible; it equals the original bit for
    bit whenever `exact` is true, which the hash inside the watermark has then proven. `approximate` is true
    where the frame is proven to be what was released, to the last bit, but the carrier restores it only
    nearly: `evidence.restored_psnr_db` tells how nearly, as measured when it was marked. `signature` never
    changes the finding.
    """

    finding: Finding
    evidence: Evidence
    record: Record | None = None
    restored: Frame | None = None
    exact: bool = False
    approximate: bool = False
    signature: SignatureEvidence = SignatureEvidence()


@dataclass(frozen=True, slots=True)
class BlockSettings:
    """How the `dct` carrier embeds; a reader finds all of it by itself.

    Attributes
    ----------
    side : of a block, pixels: 6, 8 or 10
    threshold : by how much one coefficient must exceed the other, as a share of full scale (deeper than
        8 bits: of the range in use)
    detector : what finds the altered blocks again when restoring, `context` or `paper`
    """

    side: int = 6
    threshold: float = 0.01
    detector: str = "context"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What embedding did to one frame.

    `lattice` is None and `block_px` the side of a block where the `dct` carrier was used; then
    `switched_blocks` turned region of interest by what was embedded into them, and `restored_psnr_db` is what
    restoring gives, None where it gives the original.
    """

    tier: Tier
    framing: Framing
    lattice: Lattice | None
    segmenter: str
    key_id: int
    message_bits: int
    capacity_bits: int
    changed_samples: int
    max_change: int
    psnr_db: float
    roi_share: float
    localised: bool
    block_px: int | None = None
    switched_blocks: int = 0
    restored_psnr_db: float | None = None


@dataclass(frozen=True, slots=True)
class Embedded:
    """A marked frame and what was done to it."""

    frame: Frame
    receipt: Receipt
