"""What was done to a data set since it was read, as data that undoes it.

`changes` compares a data set with the bytes that it was read from; nobody has to say what he touched, so
nothing can be forgotten. `undo` puts everything back: from the very bytes that were written, to the very
bytes that were read; from a data set that somebody re-coded on its way, element by element.

The pixels themselves are not part of it: the watermark gives them back.
"""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from blessmark.deflate import deflated
from blessmark.errors import PixelError
from blessmark.pixels import elements, layout, lengths
from blessmark.pixels.header import PIXEL_DESCRIPTION
from blessmark.pixels.layout import NO_TAG, PIXEL_DATA, Layout, Piece
from blessmark.pixels.plain import Encoding

_VERSION = 2
#: most bytes that a record of changes inflates to
_LIMIT_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Changes:
    """Everything that distinguishes a data set from the one that was read.

    Attributes
    ----------
    encoding : of `removed`
    removed : tag -> the element as it lay there, of every element that was changed or removed
    added : tags that were not there before
    order : tags of the original in their order, () where it is the ascending one
    digest : SHA-256 of the original data set, b"" where its pixels are stored in another form now
    """

    encoding: Encoding
    removed: tuple[tuple[int, bytes], ...] = field(repr=False)
    added: tuple[int, ...] = ()
    order: tuple[int, ...] = ()
    digest: bytes = b""

    def to_bytes(self) -> bytes:
        """The changes in one piece; `from_bytes` is its inverse.

        Raises PixelError where they are more than it would read.
        """
        head = struct.pack(
            ">BBBIII",
            self.encoding.implicit,
            self.encoding.little,
            len(self.digest),
            len(self.added),
            len(self.order),
            len(self.removed),
        )
        tags = struct.pack(f">{len(self.added) + len(self.order)}I", *self.added, *self.order)
        kept = b"".join(struct.pack(">II", tag, len(raw)) + raw for tag, raw in self.removed)
        content = head + self.digest + tags + kept
        if len(content) > _LIMIT_BYTES:
            raise PixelError(f"what was changed is over {_LIMIT_BYTES} bytes, more than can be given back")
        return bytes((_VERSION,)) + deflated(content)

    @classmethod
    def from_bytes(cls, content: bytes) -> Changes:
        """The changes that `to_bytes` wrote; raises PixelError for anything else."""
        if content[:1] != bytes((_VERSION,)):
            raise PixelError(
                "the labels were sealed by a newer dicom-node; recover the instance with that version"
            )
        try:
            return cls._parsed(_inflated(content[1:]))
        except (struct.error, zlib.error) as error:
            raise PixelError("the sealed record of changes is malformed") from error

    @classmethod
    def _parsed(cls, content: bytes) -> Changes:
        implicit, little, digest, added, order, removed = struct.unpack_from(">BBBIII", content)
        at = struct.calcsize(">BBBIII")
        tags = struct.unpack_from(f">{added + order}I", content, at + digest)
        found = cls(
            Encoding(bool(implicit), bool(little)),
            (),
            tags[:added],
            tags[added:],
            content[at : at + digest],
        )
        at += digest + 4 * len(tags)
        kept: list[tuple[int, bytes]] = []
        for _ in range(removed):
            tag, size = struct.unpack_from(">II", content, at)
            kept.append((tag, content[at + 8 : at + 8 + size]))
            at += 8 + size
        if at != len(content):
            raise PixelError("the sealed record of changes is malformed")
        return replace(found, removed=tuple(kept))


def _inflated(content: bytes) -> bytes:
    """What `to_bytes` deflated, and no more than it may have been."""
    stream = zlib.decompressobj()
    inflated = stream.decompress(content, _LIMIT_BYTES)
    if not stream.eof:
        raise PixelError(
            f"the sealed record of changes is malformed, or inflates to more than {_LIMIT_BYTES} bytes"
        )
    return inflated


def changes(ds: Dataset, digest: bytes) -> Changes:
    """What was done to `ds` since it was read or settled; `digest` is of the data set as it was then.

    Where compressed pixels are stored in another form now, what describes that form is no change to be
    undone, and the original's bytes cannot be had again.
    """
    kept = layout.layout_of(ds)
    digest = digest if layout.same_form(ds) else b""
    meant = frozenset() if digest else PIXEL_DESCRIPTION
    now = layout.compared(ds)
    removed = tuple(
        (piece.tag, piece.raw)
        for piece, fits in now.pieces
        if piece.tag != PIXEL_DATA and piece.tag not in meant and (not fits or now.is_lost(piece))
    )
    added = tuple(tag for tag in now.fresh if tag not in meant)
    ascending = list(kept.tags) == sorted(set(kept.tags)) and NO_TAG not in kept.tags
    return Changes(kept.encoding, removed, added, () if ascending else kept.tags, digest)


def original(found: Changes) -> Dataset:
    """The elements that `found` puts back, as a data set of their own."""
    content = b"".join(raw for tag, raw in found.removed if tag != NO_TAG)
    return read_dataset(
        io.BytesIO(content), is_implicit_VR=found.encoding.implicit, is_little_endian=found.encoding.little
    )


def undo(ds: Dataset, found: Changes) -> bool:
    """Take `found` back; whether `ds` is then proven to be the original, byte for byte.

    Where somebody wrote the lengths of sequences anew, those of the original are found by trial.
    """
    for tag in found.added:
        if tag in ds:
            del ds[tag]
    lying = layout.kept(ds)
    put_back = [_as_piece(tag, raw, found.encoding) for tag, raw in found.removed]
    for piece in put_back:
        if piece.item is not None:
            ds[piece.tag] = piece.item
    if lying is None or lying.encoding != found.encoding:
        return False
    pieces = _merged(lying.pieces, put_back, found)
    fixed = {tag for tag, _ in found.removed}
    tried = lengths.variants(ds, pieces, lying.encoding, fixed) if found.digest else ()
    for likely in itertools.chain((pieces,), tried):
        layout.attach(ds, Layout(lying.encoding, likely))
        if layout.digest(ds) == found.digest:
            return True
    layout.attach(ds, Layout(lying.encoding, pieces))
    return False


def _as_piece(tag: int, raw: bytes, encoding: Encoding) -> Piece:
    if tag == NO_TAG:
        return Piece(tag, raw)
    read = read_dataset(io.BytesIO(raw), is_implicit_VR=encoding.implicit, is_little_endian=encoding.little)
    return Piece(tag, raw, b"", elements.held(read, tag))


def _merged(lying: Iterable[Piece], put_back: Iterable[Piece], found: Changes) -> tuple[Piece, ...]:
    """The pieces of the original, in its order."""
    replaced = {*found.added, *(tag for tag, _ in found.removed)}
    pieces = [*(piece for piece in lying if piece.tag not in replaced), *put_back]
    if not found.order:
        return tuple(sorted(pieces, key=lambda piece: piece.tag))
    waiting: dict[int, list[Piece]] = {}
    for piece in pieces:
        waiting.setdefault(piece.tag, []).append(piece)
    return tuple(waiting[tag].pop(0) for tag in found.order if waiting.get(tag))
