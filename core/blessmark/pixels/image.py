"""One instance's frames as integer planes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from pydicom.dataset import Dataset

from blessmark.errors import PixelError
from blessmark.pixels import codec, elements, fragments, native
from blessmark.pixels.header import (
    Header,
    forced_roi,
    object_reason,
    padding_range,
    pixel_reason,
    read_header,
)
from blessmark.pixels.native import Words
from blessmark.pixels.reason import Passthrough, Reason
from blessmark.planes import of_words, shift_of
from blessmark.types import Frame, Rectangle

#: most bytes that one instance may decode to
LIMIT_BYTES = 4 << 30
#: most samples of one frame; as planes of 16 bits they take twice as many bytes
LIMIT_FRAME_SAMPLES = 1 << 28


@dataclass(frozen=True, slots=True)
class Image:
    """The pixels of one instance, every sample in `lo..hi`.

    All frames are held in the type of the pixel word; `frame` makes planes of one of them.

    Attributes
    ----------
    header : Image Pixel module of the samples; of a lossy colour source, as converted to RGB
    padding : inclusive range of padding values, or None
    forced_roi : regions that are ROI whatever a segmenter says
    lossy_source : the samples once went through lossy compression
    words : [frames, channels, rows, cols] in the type of the pixel word
    """

    header: Header
    padding: tuple[int, int] | None
    forced_roi: tuple[Rectangle, ...]
    lossy_source: bool
    words: Words = field(repr=False, compare=False)

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return self.header.frames

    @property
    def channels(self) -> int:
        return self.header.channels

    @property
    def rows(self) -> int:
        return self.header.rows

    @property
    def cols(self) -> int:
        return self.header.cols

    @property
    def lo(self) -> int:
        return self.header.lo

    @property
    def hi(self) -> int:
        return self.header.hi

    @property
    def photometric(self) -> str:
        """Photometric Interpretation of the samples; YBR_FULL means that channel 0 is the grey one."""
        return self.header.photometric

    def frame(self, number: int) -> Frame:
        """Frame `number`, from 1 to `frames`."""
        if not 1 <= number <= self.frames:
            raise ValueError(f"frame {number} of {self.frames}")
        planes = of_words(self.words[number - 1], shift_of(self.lo, self.hi))
        return Frame.of_planes(planes, self.lo, self.hi, self.padding, number, self.forced_roi)

    def __iter__(self) -> Iterator[Frame]:
        return (self.frame(number) for number in range(1, self.frames + 1))


def load(
    ds: Dataset,
    *,
    limit_bytes: int = LIMIT_BYTES,
    limit_frame_samples: int = LIMIT_FRAME_SAMPLES,
) -> Image | Passthrough:
    """The pixels of an instance, or why it is passed through. `ds` is not changed in any way.

    Everything is decoded here, so that a damaged frame is found before the first one is marked.

    Raises
    ------
    PixelError : the instance contradicts itself, is cut short, cannot be decoded, or declares more than
        `limit_bytes` bytes of pixels or `limit_frame_samples` samples a frame
    """
    with elements.named(ds):
        reason = object_reason(ds)
        if reason is not None:
            return Passthrough(reason)
        header = read_header(ds)
        reason = pixel_reason(ds, header)
        if reason is not None:
            return Passthrough(reason)
        _check_size(header, limit_bytes, limit_frame_samples)
        return _judged(_decoded(ds, header))


def _check_size(header: Header, limit_bytes: int, limit_frame_samples: int) -> None:
    if header.total_bytes > limit_bytes:
        raise PixelError(f"{header.size} are {header.total_bytes} bytes, over the limit of {limit_bytes}")
    if header.frame_samples > limit_frame_samples:
        raise PixelError(
            f"a frame of {header.frame_samples} samples is over the limit of {limit_frame_samples}"
        )


def _decoded(ds: Dataset, header: Header) -> Image:
    if header.native:
        held = native.checked_bytes(ds, header)
        words = native.planes(native.in_sample_order(held, ds, header), header)
    else:
        words = _decompressed(ds, header)
    if header.lossy and header.channels == 3:
        header = replace(header, photometric="RGB", planar=0)
    lossy = header.lossy or elements.text(ds, "LossyImageCompression") == "01"
    return Image(header, padding_range(ds, header), forced_roi(ds, header), lossy, words)


def _decompressed(ds: Dataset, header: Header) -> Words:
    shape = (header.frames, header.rows, header.cols, header.channels)
    words = np.empty(shape, header.word)
    for index, encoded in enumerate(fragments.frames_of(ds, header.frames)):
        words[index] = codec.decode(encoded, header)
    return np.moveaxis(words, 3, 1)


def _judged(image: Image) -> Image | Passthrough:
    """The image, unless its samples say that it must be passed through."""
    header = image.header
    if header.bits_stored < header.bits_allocated and (
        image.words.max() > header.hi or (header.signed and image.words.min() < header.lo)
    ):
        return Passthrough(Reason.HIGH_BITS_USED)
    if image.padding == (header.lo, header.hi):
        return Passthrough(Reason.ALL_PADDING)
    return image
