"""The members of a zip, one after the other: streamed, never extracted by name, and no more than they claim.

What is no DICOM is told after its first bytes; so what inflates without end is hardly ever inflated.
"""

from __future__ import annotations

import errno
import io
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from dicom_node.errors import InputError
from dicom_node.item import Item
from dicom_node.kind import HEAD_BYTES, Kind, kind
from dicom_node.media import LARGEST_INDEX_BYTES, FileId, Index, index_of, is_index_name, unlisted
from dicom_node.problem import problem
from dicom_node.report import Note, Unreadable

#: what an instance may decode to (`blessmark.pixels.image`); no instance is larger
LARGEST_BYTES = 4 << 30
#: what is larger waits on disk, not in memory
IN_MEMORY_BYTES = 4 << 20
#: a member of more bytes than this may not be packed more densely than pixels ever are
_DENSE_FROM_BYTES, _DENSEST = 64 << 20, 250
_MOST_MEMBERS = 1 << 20
_CHUNK = 1 << 20
_ENCRYPTED = 1


def members(path: Path, room: Path) -> Iterator[Item | Note | Unreadable]:
    """The instances in an archive, `archive.zip!member`, and what there is to say of all else in it.

    Hidden members are left out, as hidden files of a folder are, unless an index lists them. Large ones wait
    as temporary files in `room`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [each for each in archive.infolist() if each.file_size or not each.filename.endswith("/")]
            _check(infos, path.stat().st_size)
            indexes: list[Index] = []
            for info in infos:
                if is_index_name(_parts(info)[-1]):
                    indexes += _index(archive, info, f"{path}!{info.filename}")
            for info in infos:
                if _is_hidden(info) and not any(index.lists(_parts(info)) for index in indexes):
                    continue
                yield from _member(archive, info, f"{path}!{info.filename}", room, indexes)
            for index in indexes:
                yield from index.conclusion()
    except Exception as error:
        yield Unreadable(str(path), _why(error, "is a broken archive; have it made again"))


def kept(source: IO[bytes], head: bytes, name: str, room: Path) -> Item:
    """What `source` holds, `head` first, as an item: in memory if it is small, else in a file in `room`.

    Raises
    ------
    InputError : it is larger than any instance, or there is no room for it
    """
    start = head + source.read(IN_MEMORY_BYTES - len(head))
    if len(start) < IN_MEMORY_BYTES:
        return Item(name, None, start)
    with tempfile.NamedTemporaryFile(dir=room, delete=False) as file:
        try:
            _copy(source, start, file)
            file.flush()
        except BaseException as error:
            Path(file.name).unlink()
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise InputError("has no room in the temporary folder; name a larger one in TMPDIR") from None
            raise
        return Item(name, Path(file.name), temporary=True)


def _copy(source: IO[bytes], start: bytes, target: IO[bytes]) -> None:
    size, chunk = 0, start
    while chunk:
        size += len(chunk)
        if size > LARGEST_BYTES:
            raise InputError(f"is larger than {LARGEST_BYTES >> 30} GiB, which no instance is; leave it out")
        target.write(chunk)
        chunk = source.read(_CHUNK)


def _check(infos: list[zipfile.ZipInfo], archive_bytes: int) -> None:
    """Refuse an archive that no program packed: members that share their bytes, or too many of them."""
    if len(infos) > _MOST_MEMBERS:
        raise InputError(f"holds more than {_MOST_MEMBERS} files; verify it in parts")
    if sum(info.compress_size for info in infos) > archive_bytes:
        raise InputError("claims to hold more than its own size; it was made to do harm, leave it out")


def _is_hidden(info: zipfile.ZipInfo) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in _parts(info))


def _parts(info: zipfile.ZipInfo) -> FileId:
    return tuple(info.filename.replace("\\", "/").split("/"))


def _index(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> list[Index]:
    """The index that a member is, none if it only is called so."""
    _check_member(info)
    with archive.open(info) as file:
        head = file.read(HEAD_BYTES)
        if kind(head) is not Kind.INDEX:
            return []
        content = head + file.read(LARGEST_INDEX_BYTES)
    if len(content) > LARGEST_INDEX_BYTES:
        raise InputError("holds an index of files that is too large; unpack it, and verify the folder")
    return [index_of(io.BytesIO(content), name, _parts(info)[:-1])]


def _member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, room: Path, indexes: list[Index]
) -> Iterator[Item | Note | Unreadable]:
    try:
        _check_member(info)
        with archive.open(info) as file:
            head = file.read(HEAD_BYTES)
            found = kind(head)
            if found is Kind.INDEX:
                return
            yield from unlisted(indexes, _parts(info), name)
            if found is Kind.INSTANCE:
                yield kept(file, head, name, room)
            elif found is Kind.ARCHIVE:
                yield Unreadable(name, "is an archive within an archive; unpack it, and verify what it holds")
            else:
                yield Unreadable(
                    name, "is not a DICOM file: it lacks the DICM prefix; leave it out of the archive"
                )
    except Exception as error:
        yield Unreadable(name, _why(error, "is broken within its archive; have the archive made again"))


def _why(error: Exception, broken: str) -> str:
    """What to say of an error; `zipfile` raises nearly anything over an archive that is not in order."""
    odd_offset = isinstance(error, OSError) and error.errno in (None, errno.EINVAL)
    known = isinstance(error, InputError | OSError | MemoryError) and not odd_offset
    return problem("", error) if known else broken


def _check_member(info: zipfile.ZipInfo) -> None:
    if info.filename.endswith("/"):
        raise InputError("is called a folder and holds bytes; have the archive made again")
    if info.flag_bits & _ENCRYPTED:
        raise InputError("is encrypted; unpack the archive, and verify the folder")
    if info.file_size > LARGEST_BYTES:
        raise InputError(f"is larger than {LARGEST_BYTES >> 30} GiB, which no instance is; leave it out")
    if info.file_size > max(_DENSE_FROM_BYTES, _DENSEST * info.compress_size):
        raise InputError(
            f"would inflate to {info.file_size} bytes, {_DENSEST} times its size and more; "
            "if that is meant, unpack the archive, and verify the folder"
        )
