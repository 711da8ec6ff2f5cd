"""Changed samples back into their instance, losslessly and read back."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from blessmark.errors import PixelError
from blessmark.pixels import codec, elements, fragments, native
from blessmark.pixels.header import Header, read_header
from blessmark.pixels.image import Image
from blessmark.pixels.native import Words
from blessmark.pixels.syntax import ENCODABLE, LOSSY, written_as
from blessmark.planes import extremes, low_words, same, widened
from blessmark.types import Frame, IntArray


def store(ds: Dataset, image: Image, frames: Iterable[IntArray | Frame], *, anew: bool = False) -> None:
    """Replace the pixels of `ds`, which `image` was loaded from, by `frames`.

    `frames` are as many frames, or int32 [channels, rows, cols], as the image has, each sample in
    `lo..hi`; they are taken one at a time. Uncompressed data change only in the bytes of changed
    samples. Compressed data keep their lossless syntax where it has an encoder (RLE, JPEG-LS, JPEG
    2000), and become JPEG-LS lossless where it has none or was lossy; then the transfer syntax, the
    colour of decoded colour and, if absent, the record of the earlier lossy compression (PS3.3
    C.7.6.1.1.5) change with them. Where no sample differs, they stay byte for byte as they are, unless
    they are to be encoded `anew`: a code stream may hold more than samples.

    `ds` is changed only after the last frame was found equal to what was asked for.

    Raises
    ------
    PixelError : frames of another shape, number or range; or what was written does not read back
    """
    with elements.named(ds):
        source = read_header(ds)
        if _geometry(source) != _geometry(image.header):
            raise PixelError("the image was not loaded from this instance")
        wanted = _checked(frames, image)
        if source.native:
            _replace_value(ds, _patched(ds, source, wanted))
        else:
            _replace_fragments(ds, source, image, wanted, anew=anew)


def _geometry(header: Header) -> tuple[int, ...]:
    return header.frames, header.channels, header.rows, header.cols, header.bits_stored, header.lo


def _checked(frames: Iterable[IntArray | Frame], image: Image) -> Iterator[Words]:
    """The frames as pixel words, each of the right shape and range, and exactly as many as there must be."""
    count = 0
    for count, given in enumerate(frames, start=1):
        held, shift = (given.planes, given.shift) if isinstance(given, Frame) else (given, 0)
        typed = isinstance(given, Frame) or given.dtype == np.int32
        if held.shape != (image.channels, image.rows, image.cols) or not typed:
            raise PixelError(f"frame {count} has another shape or type than its original")
        least, greatest = extremes(given.planes) if isinstance(given, Frame) else (held.min(), held.max())
        if least < image.lo - shift or greatest > image.hi - shift:
            raise PixelError(f"frame {count} holds samples outside {image.lo}..{image.hi}")
        if count > image.frames:
            break
        yield _words(given, image.words.dtype)
    if count != image.frames:
        raise PixelError(f"{count} frames were given for the {image.frames} of the instance")


def _words(frame: IntArray | Frame, word: np.dtype[Any]) -> Words:
    """The samples, which fit into them, in pixel words of that size and sign; maybe the planes themselves."""
    if isinstance(frame, Frame) and word.itemsize == 2:
        return low_words(frame.planes, frame.shift).view(f"{word.kind}2")
    if isinstance(frame, Frame):
        return (widened(frame.planes, frame.shift) if frame.shift else frame.planes).astype(word)
    return frame.astype(word)


def _patched(ds: Dataset, header: Header, wanted: Iterable[Words]) -> bytes:
    """The pixel data with the samples of `wanted`: one copy, for a gigabyte is a usual size.

    `BytesIO` copies when it is written into, and gives that copy away as it is.
    """
    held = native.checked_bytes(ds, header)
    copy = io.BytesIO(native.in_sample_order(held, ds, header))
    with copy.getbuffer() as view:
        _put_frames(native.planes(view, header), wanted)
    return native.in_sample_order(copy.getvalue(), ds, header)


def _put_frames(words: Words, wanted: Iterable[Words]) -> None:
    for index, samples in enumerate(wanted):
        words[index] = samples
        if not _reads_back(words[index], samples):
            raise PixelError(f"frame {index + 1} does not read back; nothing was changed")


def _reads_back(words: Words, wanted: Words) -> bool:
    """Whether words that were written are the wanted ones, without an array in between where they lie so."""
    flags = words.flags
    if words.dtype == wanted.dtype and words.itemsize == 2 and flags.aligned and flags.c_contiguous:
        return bool(same(words.view(np.int16), wanted.view(np.int16)))
    return np.array_equal(words, wanted)


def _replace_value(ds: Dataset, patched: bytes) -> None:
    """Put bytes of the same length in place of the old ones, VR and all."""
    item = elements.pixel_element(ds)
    if isinstance(item, RawDataElement):
        ds[item.tag] = item._replace(value=patched)
    elif item is not None:
        item.value = patched


def _replace_fragments(
    ds: Dataset, source: Header, image: Image, wanted: Iterable[Words], *, anew: bool
) -> None:
    differing: list[bool] = []
    first = _target(image.header, source, written_as(source.syntax))
    encoded, target = _encoded(_compared(wanted, image, differing), first, source)
    if not (anew or any(differing)):
        return
    before = len(elements.pixel_bytes(ds))
    fragments.replace_fragments(ds, encoded)
    describe(ds, source, target)
    if source.lossy:
        record_loss(ds, source, before)


def _compared(wanted: Iterable[Words], image: Image, differing: list[bool]) -> Iterator[Words]:
    """The frames, noting of each whether it differs from the image's own."""
    for samples, words in zip(wanted, image.words, strict=False):  # `wanted` itself tells a wrong number
        differing.append(not np.array_equal(samples, words))
        yield samples


def _target(decoded: Header, source: Header, syntax: str) -> Header:
    """What the header must say of the decoded samples in `syntax`."""
    if syntax == source.syntax or decoded.channels == 1:
        return replace(decoded, syntax=syntax)
    transformed = decoded.photometric in ("YBR_RCT", "YBR_ICT")
    photometric = "RGB" if transformed else decoded.photometric
    return replace(decoded, syntax=syntax, planar=0, photometric=photometric)


def _encoded(wanted: Iterable[Words], target: Header, source: Header) -> tuple[list[bytes], Header]:
    """The frames in one syntax that takes them all: `target`'s, or after a refusal the next one."""
    encoded: list[bytes] = []
    for samples in wanted:
        words = np.moveaxis(samples, 0, 2).astype(target.word)
        while True:
            try:
                encoded.append(codec.encode(words, target))
                break
            except codec.EncoderRefusedError:
                following = ENCODABLE[uid.UID(target.syntax)]
                if following is None:
                    raise
                refused, target = target, _target(target, source, following)
                encoded = [codec.encode(codec.decode(frame, refused), target) for frame in encoded]
    return encoded, target


def describe(ds: Dataset, source: Header, target: Header) -> None:
    """Let the header say what the fragments are, touching only what changed."""
    if target.syntax != source.syntax:
        ds.file_meta.TransferSyntaxUID = uid.UID(target.syntax)
    if target.photometric != source.photometric:
        ds.PhotometricInterpretation = target.photometric
    if target.planar != source.planar:
        ds.PlanarConfiguration = target.planar


def record_loss(ds: Dataset, source: Header, compressed_bytes: int) -> None:
    """Say that the pixels were lossy once, now that the transfer syntax no longer does."""
    if elements.text(ds, "LossyImageCompression"):
        return
    ds.LossyImageCompression = "01"
    ds.LossyImageCompressionRatio = f"{source.total_bytes / compressed_bytes:.2f}"
    ds.LossyImageCompressionMethod = LOSSY[uid.UID(source.syntax)]
