"""Compressed frames out of and into the fragments of Pixel Data (PS3.5 annex A.4)."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames

from blessmark.errors import PixelError
from blessmark.pixels import elements

#: tag of a fragment
ITEM = b"\xfe\xff\x00\xe0"
#: tag and length of a fragment
_ITEM_BYTES = 8
_OFFSETS, _LENGTHS = "ExtendedOffsetTable", "ExtendedOffsetTableLengths"


def frames_of(ds: Dataset, expected: int) -> Iterator[bytes]:
    """The compressed frames one after the other, exactly `expected` of them.

    Raises
    ------
    PixelError : there are more or fewer, or the fragments cannot be told apart
    """
    held = elements.pixel_bytes(ds)
    if not held.startswith(ITEM):
        raise PixelError("the transfer syntax is a compressed one, but Pixel Data holds no fragments")
    if len(held) < expected * _ITEM_BYTES:
        raise PixelError(f"{len(held)} bytes cannot hold {expected} compressed frames")
    found = 0
    for found, encoded in enumerate(_split(held, expected, _extended_offsets(ds)), start=1):
        if found > expected:
            break
        yield encoded
    if found != expected:
        surplus = "more" if found > expected else f"only {found}"
        raise PixelError(f"Pixel Data holds {surplus} of the {expected} frames that the header declares")


def _split(held: bytes, expected: int, offsets: tuple[bytes, bytes] | None) -> Iterator[bytes]:
    try:
        yield from generate_frames(held, number_of_frames=expected, extended_offsets=offsets)
    except Exception as error:
        raise PixelError(f"the fragments of Pixel Data are broken ({type(error).__name__})") from error


def _extended_offsets(ds: Dataset) -> tuple[bytes, bytes] | None:
    offsets, lengths = (elements.value(ds, elements.tag_of(name), name) for name in (_OFFSETS, _LENGTHS))
    return (offsets, lengths) if offsets and lengths else None


def replace_fragments(ds: Dataset, encoded: list[bytes]) -> None:
    """Put compressed frames in place of the old ones, with the kind of offset table that was there.

    Raises
    ------
    PixelError : they take more bytes than the offsets can address; nothing was changed
    """
    extended = elements.holds(ds, _OFFSETS)
    try:
        parts = encapsulate_extended(encoded) if extended else (encapsulate(encoded),)
    except Exception as error:
        raise PixelError(f"the frames cannot be encapsulated ({type(error).__name__})") from error
    for name, table in zip((_OFFSETS, _LENGTHS), parts[1:], strict=False):
        ds[elements.tag_of(name)] = DataElement(elements.tag_of(name), "OV", table)
    tag = elements.tag_of("PixelData")
    ds[tag] = DataElement(tag, "OB", parts[0], is_undefined_length=True)
