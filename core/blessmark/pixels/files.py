"""Whole DICOM files in and out, without believing them and without tidying them up."""

from __future__ import annotations

import io
import itertools
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from pydicom import dcmread, uid
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset, read_sequence
from pydicom.filewriter import write_file_meta_info
from pydicom.tag import BaseTag

from blessmark.errors import PixelError
from blessmark.pixels import elements, layout
from blessmark.pixels.image import LIMIT_BYTES
from blessmark.pixels.plain import Encoding, plain_meta
from blessmark.pixels.scan import scan
from blessmark.pixels.syntax import DEFLATED

_UNDEFINED = 0xFFFFFFFF
_PREFIX_END = 132
#: tag and length of an element, and of a delimiter
_ITEM_BYTES = 8
#: parts of a file that are written with others, and how much is gathered, bytes
_SMALL, _CHUNK = 1 << 16, 1 << 20


def read(source: bytes | Path, *, limit_bytes: int = LIMIT_BYTES) -> Dataset:
    """A complete DICOM file (PS3.10), its values still the bytes that were read.

    `source` is the file's content or its path. A deflated data set may inflate to `limit_bytes`.

    Raises
    ------
    PixelError : not a DICOM file, broken, cut short, or larger than `limit_bytes` once inflated
    OSError : the file cannot be opened
    """
    name = source.name if isinstance(source, Path) else "the object"
    # without a buffer: what is usual is read in two pieces
    with io.FileIO(source) if isinstance(source, Path) else io.BytesIO(source) as file:
        try:
            return _parsed(file, limit_bytes)
        except InvalidDicomError:
            raise PixelError(f"{name} is not a DICOM file: it lacks the DICM prefix") from None
        except PixelError as error:
            raise PixelError(f"{name}: {error}") from error
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk failed; pydicom's own OSErrors carry no errno and mean a broken file
            # "from None": pydicom quotes values, which a log must not repeat
            raise PixelError(f"{name} cannot be parsed ({type(error).__name__})") from None


def write(ds: Dataset, target: BinaryIO) -> None:
    """The file that `parts` gives, into `target`. Raises PixelError as it does, OSError as `target` does."""
    for part in parts(ds):
        target.write(part)


def parts(ds: Dataset) -> Iterator[bytes]:
    """The file piece by piece: the data set in its own transfer syntax, untouched elements as they were read.

    Only retired group lengths (PS3.5 7.2) of changed groups are dropped: they would be wrong.

    Raises
    ------
    PixelError : an element cannot be encoded
    """
    try:
        yield from _gathered(_parts(ds))
    except Exception as error:
        with elements.named(ds):
            raise PixelError(f"the data set cannot be written ({type(error).__name__})") from None


def _parts(ds: Dataset) -> Iterable[bytes]:
    syntax = elements.transfer_syntax(ds)
    preamble = ds.__dict__.get("preamble")
    head = [preamble + b"DICM", _meta(ds)] if preamble else [_meta(ds)]
    body = layout.parts(ds, Encoding.of_syntax(syntax))
    return itertools.chain(head, _deflated(body)) if syntax in DEFLATED else head + body


def _gathered(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, small parts together: fifty elements are not to cost fifty system calls."""
    small: list[bytes] = []
    size = 0
    for part in parts:
        length = len(part)
        if length < _SMALL:
            small.append(part)
            size += length
        if size >= _CHUNK or (size and length >= _SMALL):
            yield b"".join(small)
            small, size = [], 0
        if length >= _SMALL:
            yield part
    if size:
        yield b"".join(small)


def _meta(ds: Dataset) -> bytes:
    if (found := plain_meta(ds.file_meta)) is not None:
        return found
    target = DicomBytesIO()
    write_file_meta_info(target, ds.file_meta, enforce_standard=False)
    return bytes(target.getvalue())


def _deflated(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The parts as one deflated stream of even length (PS3.5 annex A.5)."""
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    size = 0
    for part in (*map(stream.compress, parts), stream.flush()):
        size += len(part)
        yield part
    yield b"\0" * (size % 2)


def _parsed(file: BinaryIO, limit_bytes: int) -> Dataset:
    if (usual := scan(file)) is not None:
        return usual
    if not isinstance(file, io.FileIO):
        return _parsed_by_pydicom(file, limit_bytes)
    with io.BufferedReader(file) as buffered:
        return _parsed_by_pydicom(buffered, limit_bytes)


def _parsed_by_pydicom(file: BinaryIO, limit_bytes: int) -> Dataset:
    start, syntax = _after_meta(file)
    content, parsed = file, file
    if syntax in DEFLATED:
        inflated = _inflated(file, limit_bytes)
        file.seek(0)
        if syntax == uid.DeflatedExplicitVRLittleEndian:  # the one that pydicom inflates, without limit
            start, content = 0, io.BytesIO(inflated)
        else:
            content = parsed = io.BytesIO(file.read(start) + inflated)
    parsed.seek(0)
    ds = dcmread(parsed)
    size = content.seek(0, io.SEEK_END)
    _check_complete(ds, content, size)
    layout.keep(ds, content, start, size)
    return ds


def _after_meta(file: BinaryIO) -> tuple[int, str]:
    """Where the data set starts, and the transfer syntax; `file` then stands there."""
    file.seek(_PREFIX_END)
    meta = read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=_beyond_meta)
    return file.tell(), elements.text(meta, "TransferSyntaxUID")


def _inflated(file: BinaryIO, limit_bytes: int) -> bytes:
    """The data set of a deflated file that stands at it."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = stream.decompress(file.read(), limit_bytes)
    if stream.unconsumed_tail:
        raise PixelError(f"the data set inflates to more than the limit of {limit_bytes} bytes")
    return inflated


def _beyond_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag.group != 2


def _check_complete(ds: Dataset, content: BinaryIO, size: int) -> None:
    """Find a file that was cut short, which pydicom reads up to the last whole element without a word."""
    last = max(_held(ds), key=_position, default=None)
    if last is None:
        raise PixelError("there is no data set behind the file header; send it again")
    end = _end(last, ds, content)
    if end > size or end + _ITEM_BYTES <= size:
        raise PixelError("the file is cut short or broken behind its last readable element; send it again")


def _held(ds: Dataset) -> list[DataElement | RawDataElement]:
    return [item for tag in ds.keys() if (item := elements.held(ds, tag)) is not None]  # noqa: SIM118


def _position(item: DataElement | RawDataElement) -> int:
    return (item.value_tell if isinstance(item, RawDataElement) else item.file_tell) or 0


def _end(last: DataElement | RawDataElement, ds: Dataset, content: BinaryIO) -> int:
    """Where an element ends in the file; a sequence of undefined length must be read again to know."""
    start = _position(last)
    if isinstance(last, RawDataElement):
        if last.length != _UNDEFINED:
            return start + last.length
        return start + len(last.value or b"") + _ITEM_BYTES
    content.seek(start)
    implicit, little = ds.original_encoding
    read_sequence(content, bool(implicit), little is not False, _UNDEFINED, "iso8859")
    return content.tell()
