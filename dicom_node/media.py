"""An index of files held against the files: what it lists and is missing, and what it does not list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

from dicom_node.report import Note

#: a file's name: the components that lead to it
FileId = tuple[str, ...]

#: what an index is called (PS3.10 section 8.6); file systems of media show names in either case
INDEX_NAME = "dicomdir"
#: a record of an index takes some hundred bytes; a larger one indexes more than a million files
LARGEST_INDEX_BYTES = 256 << 20


def is_index_name(name: str) -> bool:
    """Whether a file of that name is the index of its folder."""
    return name.casefold() == INDEX_NAME


def leads_out(name: FileId) -> bool:
    """Whether a name is none of a file in the folder of its index, or below it."""
    return not name or any(part in ("", ".", "..") or "/" in part or "\0" in part for part in name)


class Index:
    """What one index lists, crossed off as it is found.

    Parameters
    ----------
    source : what to call the index
    folder : where it lies; names of files below it begin with this
    names : the files that it lists, relative to `folder`
    """

    def __init__(self, source: str, folder: FileId, names: Iterable[FileId]) -> None:
        self.source, self._folder = source, folder
        self._refused = 0
        self._waiting: dict[FileId, FileId] = {}
        for name in names:
            if leads_out(name):
                self._refused += 1
            else:
                self._waiting[_folded(name)] = name
        self._listed = len(self._waiting)

    def covers(self, name: FileId) -> bool:
        """Whether a file lies in the folder of the index, or below it."""
        return name[: len(self._folder)] == self._folder

    def lists(self, name: FileId) -> bool:
        """Whether a file is listed and not yet crossed off."""
        return self.covers(name) and _folded(name[len(self._folder) :]) in self._waiting

    def cross_off(self, name: FileId) -> bool:
        """Whether the index lists a file; it is not missing then."""
        return self._waiting.pop(_folded(name[len(self._folder) :]), None) is not None

    def missing(self) -> tuple[FileId, ...]:
        """The files that are listed and were not crossed off, as the index names them."""
        return tuple(self._waiting.values())

    def conclusion(self) -> Iterator[Note]:
        """What is missing, what leads out of the folder and was not read, and how many are listed."""
        for name in self.missing():
            yield Note("/".join(name), "missing", f"listed by {self.source}, and not there")
        if self._refused:
            said = f"{self._refused} of the files it lists lie outside of its folder; they were not read"
            yield Note(self.source, "refused", said)
        yield Note(self.source, "index", f"lists {self._listed} files, {len(self._waiting)} missing")


def unlisted(indexes: Iterable[Index], name: FileId, source: str) -> Iterator[Note]:
    """Cross a file off every index that covers it; a note for each that does not list it."""
    for index in indexes:
        if index.covers(name) and not index.cross_off(name):
            yield Note(source, "unlisted", f"not listed by {index.source}")


def index_of(file: BinaryIO, source: str, folder: FileId) -> Index:
    """The index that `file` holds; raises InputError if it is broken."""
    from dicom_node.dicomdir import listed  # loads pydicom, which most runs do without

    return Index(source, folder, listed(file))


def _folded(name: FileId) -> FileId:
    return tuple(part.casefold() for part in name)
