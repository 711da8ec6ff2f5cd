"""Compressed pixels written out as they are, for whoever cannot read their transfer syntax."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
from pydicom import uid
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from blessmark.errors import PixelError
from blessmark.pixels import codec, elements, fragments
from blessmark.pixels.header import Header, read_header
from blessmark.pixels.image import LIMIT_BYTES
from blessmark.pixels.store import describe, record_loss
from blessmark.pixels.syntax import J2K, NATIVE, READABLE, RLE

_OFFSET_TABLES = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
_ICONS = "IconImageSequence"
#: most bytes of a value whose length is stated (PS3.5 section 7.1.2)
_LONGEST = 0xFFFFFFFE


def decompress(ds: Dataset, *, limit_bytes: int = LIMIT_BYTES) -> None:
    """Turn an instance in any readable compressed syntax into Explicit VR Little Endian; icons included.

    Samples become what `load` reads: of a lossless source the stored ones, of a lossy one the decoded ones,
    in RGB if it is a colour one, and then the record of the earlier lossy compression (PS3.3 C.7.6.1.1.5) is
    added where it is absent. Nothing else changes.

    Where it raises, `ds` may have been changed in part: drop it.

    Raises
    ------
    PixelError : there is no decoder, a frame is damaged, or the samples are more than `limit_bytes`
    """
    with elements.named(ds):
        syntax = elements.transfer_syntax(ds)
        if syntax not in READABLE or syntax in NATIVE:
            raise PixelError(f"{uid.UID(syntax).name} cannot be decompressed")
        if any(_is_compressed(icon) for icon in elements.value(ds, elements.tag_of(_ICONS), _ICONS) or ()):
            # a copy: the sequence that was read is what tells that it has changed
            icons = copy.deepcopy(ds[elements.tag_of(_ICONS)])
            for icon in icons.value:
                _decompress_icon(icon, ds, limit_bytes)
            ds[elements.tag_of(_ICONS)] = icons
        if elements.holds(ds, "PixelData"):
            _decompress(ds, limit_bytes)
        ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian


def _is_compressed(icon: Dataset) -> bool:
    return elements.pixel_bytes(icon).startswith(fragments.ITEM)


def _decompress_icon(icon: Dataset, ds: Dataset, limit_bytes: int) -> None:
    """An icon is compressed as its image is, or not at all (PS3.3 C.7.6.1.1.6)."""
    if _is_compressed(icon):
        icon.file_meta = ds.file_meta
        _decompress(icon, limit_bytes)
        del icon.file_meta


def _decompress(ds: Dataset, limit_bytes: int) -> None:
    source = read_header(ds)
    _check(source, limit_bytes)
    before = len(elements.pixel_bytes(ds))
    samples = bytearray()
    for encoded in fragments.frames_of(ds, source.frames):
        samples += np.ascontiguousarray(codec.decode(encoded, source)).tobytes()
    samples += b"\0" * (len(samples) % 2)
    for name in _OFFSET_TABLES:
        if elements.holds(ds, name):
            del ds[elements.tag_of(name)]
    tag = elements.tag_of("PixelData")
    ds[tag] = DataElement(tag, "OW" if source.bits_allocated > 8 else "OB", bytes(samples))
    describe(ds, source, _decoded(source))
    if source.lossy:
        record_loss(ds, source, before)


def _check(source: Header, limit_bytes: int) -> None:
    if source.total_bytes > min(limit_bytes, _LONGEST):
        raise PixelError(f"{source.size} are {source.total_bytes} bytes, too many to be written uncompressed")
    if source.bits_allocated not in ((8, 16, 32) if source.syntax in RLE else (8, 16)):
        raise PixelError(f"words of {source.bits_allocated} bits cannot be decompressed")
    if source.high_bit != source.bits_stored - 1 and source.syntax not in RLE:
        raise PixelError(
            "the samples do not start at the lowest bit of their words; their place would be lost"
        )
    if source.syntax == uid.JPEGExtended12Bit and source.bits_stored > 8:
        raise PixelError("there is no decoder for 12-bit JPEG")
    if not _has_plain_samples(source):
        raise PixelError(f"{source.photometric} in this transfer syntax cannot be written out without change")


def _has_plain_samples(source: Header) -> bool:
    """Whether the decoder gives every pixel samples of its own, in a colour that needs no compression."""
    if source.channels == 1:
        return True
    photometric = source.photometric
    if photometric in ("YBR_RCT", "YBR_ICT"):
        return source.syntax in J2K
    if photometric == "YBR_FULL_422":
        return source.lossy
    return photometric == "RGB" or (
        photometric == "YBR_FULL" and not (source.lossy and source.bits_stored > 8)
    )


def _decoded(source: Header) -> Header:
    """What the header says of the samples that `codec.decode` gives."""
    if source.channels == 1:
        return source
    to_rgb = source.lossy or source.photometric in ("YBR_RCT", "YBR_ICT")
    return replace(source, planar=0, photometric="RGB" if to_rgb else source.photometric)
