"""The sealed portraits of an instance: what its frames looked like when they left; for hints.

They stand in the private block, sealed, so that nobody without the ring writes them, and are tied to the SOP
Instance UID. Whoever drops them drops hints, nothing else.

    u8 1 | u8 compressed with loss before | 8 bytes of UID digest | for each: u32 frame number, a portrait
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from pydicom.dataset import Dataset

from blessmark import pixels
from blessmark.cause import Claims
from blessmark.deflate import deflated
from blessmark.payload import crypto
from blessmark.payload.record import UID_DIGEST_BYTES, uid_digest
from blessmark.portrait import LENGTH, Portrait
from blessmark.types import KeyRing
from dicom_node import header, label
from dicom_node.rewrite import shallow

#: frames of an instance that have a portrait, at most
MOST = 16
_CONTEXT = b"blessmark portraits"
_HEAD = struct.Struct(f">BB{UID_DIGEST_BYTES}s")
_NUMBER = struct.Struct(">I")
_VERSION = 1
#: the most that an unpacked blob may hold; a sealed one is genuine, so this only bounds mistakes
_MOST_BYTES = _HEAD.size + MOST * (_NUMBER.size + LENGTH)
_LOSSY = 0x00282110
_SOURCE_IMAGES, _REFERENCED = 0x00082112, 0x00081155
#: JPEG baseline, extended, JPEG-LS near-lossless, JPEG 2000, HTJ2K (PS3.5 annex A.4)
_LOSSY_SYNTAXES = {f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 81, 91, 203)}


@dataclass(frozen=True, slots=True)
class Portraits:
    """The portraits by frame number, and whether the image that left had been compressed with loss.

    None where that is not known.
    """

    frames: Mapping[int, Portrait]
    lossy: bool | None


def chosen(frames: int) -> frozenset[int]:
    """The numbers of the frames that get a portrait: all, or some spread evenly."""
    count = min(frames, MOST)
    return frozenset(1 + index * frames // count for index in range(count))


def sealed(frames: Mapping[int, Portrait], uid: str, ring: KeyRing, *, lossy: bool) -> bytes:
    """The portraits of the instance that leaves as `uid`; b"" for none."""
    if not frames:
        return b""
    parts = [_NUMBER.pack(number) + each.to_bytes() for number, each in sorted(frames.items())]
    content = _HEAD.pack(_VERSION, lossy, uid_digest(uid)) + b"".join(parts)
    return crypto.seal_element(crypto.derive(ring.current), deflated(content), _CONTEXT)


def unseal(ds: Dataset, mark: label.Mark | None, ring: KeyRing) -> Portraits:
    """The portraits of `ds`, none where it has none, no key opens them, or they are of another instance."""
    nothing = Portraits({}, lossy=None)
    if mark is None or not mark.sealed_portraits:
        return nothing
    for key in ring.keys:
        content = crypto.open_element(crypto.derive(key), mark.sealed_portraits, _CONTEXT)
        if content is not None:
            found = _parsed(content, {uid_digest(uid) for uid in _names(ds)})
            return nothing if found is None else found
    return nothing


def claims(ds: Dataset, then: Portraits) -> Claims:
    """What the header says about compression, now and when the instance left."""
    return Claims(lossy_now=is_lossy(ds), lossy_then=then.lossy)


def is_lossy(ds: Dataset) -> bool:
    """Whether the header says that the pixels were compressed with loss (PS3.3 C.7.6.1.1.5)."""
    return header.text(ds, _LOSSY) == "01" or pixels.stated_syntax(ds) in _LOSSY_SYNTAXES


def _names(ds: Dataset) -> Iterator[str]:
    """The SOP Instance UID, and those of the images that `ds` says it was made from (PS3.3 C.7.6.1.1.4).

    Who compresses with loss gives a new UID, and names the old one there.
    """
    yield header.text(ds, label.SOP_INSTANCE_UID)
    aside = shallow(ds)  # reading a sequence changes how a data set holds it
    try:
        sources = aside[_SOURCE_IMAGES].value if _SOURCE_IMAGES in aside else []
        yield from (header.text(item, _REFERENCED) for item in sources)
    except Exception:
        return  # a sequence that cannot be read names nothing


def _parsed(content: bytes, uids: AbstractSet[bytes]) -> Portraits | None:
    plain = zlib.decompressobj().decompress(content, _MOST_BYTES)
    if len(plain) < _HEAD.size:
        return None
    version, lossy, of = _HEAD.unpack_from(plain)
    if version != _VERSION or of not in uids:
        return None
    frames = {}
    for at in range(_HEAD.size, len(plain) - LENGTH - _NUMBER.size + 1, _NUMBER.size + LENGTH):
        (number,) = _NUMBER.unpack_from(plain, at)
        found = Portrait.from_bytes(plain[at + _NUMBER.size :][:LENGTH])
        if found is not None:
            frames[number] = found
    return Portraits(frames, bool(lossy))
