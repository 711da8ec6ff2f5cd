"""What a command line names, as instances to judge: files, folders, media, archives, standard input.

Everything comes one by one and in name order: a folder of a hundred thousand files is never whole in memory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dicom_node.errors import InputError
from dicom_node.item import Item
from dicom_node.kind import HEAD_BYTES, Kind, kind
from dicom_node.media import LARGEST_INDEX_BYTES, FileId, Index, index_of, is_index_name, unlisted
from dicom_node.report import Note, Unreadable

#: stands for standard input
STANDARD_INPUT = "-"

#: folders within folders that a walk follows
_DEEPEST = 200

Found = Item | Note | Unreadable


def found(given: Sequence[str], room: Path, standard_input: BinaryIO) -> Iterator[Found]:
    """Everything that `given` names, in that order; large members of archives pass through folder `room`.

    A folder is walked in name order, hidden files and folders left out, archives in it entered. Of a DICOMDIR
    named by itself, the files that it lists are given. What does not exist or cannot be listed is given too:
    reading it says what is wrong.

    Raises
    ------
    InputError : there is no file at all
    """
    nothing = True
    for name in given:
        for each in _named(name, room, standard_input):
            nothing = False
            yield each
    if nothing:
        raise InputError(f"{given[0]}: there is no file in this folder; name one that holds DICOM files")


def _named(name: str, room: Path, standard_input: BinaryIO) -> Iterator[Found]:
    if name == STANDARD_INPUT:
        yield _from_standard_input(standard_input, room)
        return
    path = Path(name)
    if path.is_dir():
        yield from _Walk(path, room).files()
    elif kind_of(path) is Kind.INDEX:
        yield from _Walk(path.parent, room, only_listed_by=path).files()
    else:
        yield from _file(path, room)


def _from_standard_input(standard_input: BinaryIO, room: Path) -> Item | Unreadable:
    """One instance; whatever else comes is not waited for."""
    from dicom_node.zips import kept

    name = "standard input"
    try:
        head = standard_input.read(HEAD_BYTES)
        if kind(head) is not Kind.INSTANCE:
            raise InputError("is no DICOM instance; standard input takes one, with its DICM prefix")
        return kept(standard_input, head, name, room)
    except InputError as error:
        return Unreadable(name, str(error))


def kind_of(path: Path) -> Kind:
    """The kind of a file; OTHER as well for what cannot be read, and is no regular file."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return Kind.OTHER
        with path.open("rb") as file:
            return kind(file.read(HEAD_BYTES))
    except OSError:
        return Kind.OTHER


def _file(path: Path, room: Path) -> Iterator[Found]:
    """One file; what cannot be read is an item, so that its judge says why."""
    match kind_of(path):
        case Kind.ARCHIVE:
            from dicom_node.zips import members

            yield from members(path, room)
        case Kind.INDEX:
            yield Note(str(path), "skipped", "an index of files (DICOMDIR), not an instance")
        case _:
            yield Item(str(path), path)


@dataclass(slots=True)
class _Walk:
    """A folder with everything below it; under an index, only what really lies there is read.

    `only_listed_by` names an index: then what it does not list is told, and not given.
    """

    top: Path
    room: Path
    only_listed_by: Path | None = None

    def files(self) -> Iterator[Found]:
        """The files in name order, each index concluded after its folder."""
        if self.only_listed_by is None:
            yield from self._folder(self.top, (), ())
            return
        own: list[Index] = []
        yield from self._read_index(self.only_listed_by, (), own)
        for index in own:
            yield from self._folder(self.top, (), (index,))
            yield from self._concluded(index, self.top, ())

    def _folder(self, folder: Path, place: FileId, above: tuple[Index, ...]) -> Iterator[Found]:
        if len(place) > _DEEPEST:
            yield Unreadable(str(folder), f"lies more than {_DEEPEST} folders deep; name it by itself")
            return
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            yield Item(str(folder), folder)
            return
        own: list[Index] = []
        for entry in entries:
            if self._is_index(entry):
                yield from self._read_index(Path(entry.path), place, own)
        indexes = (*above, *own)
        for entry in entries:
            if not (entry.name.startswith(".") or self._is_index(entry) or self._is_the_one(entry)):
                yield from self._entry(entry, (*place, entry.name), indexes)
        for index in own:
            yield from self._concluded(index, folder, place)

    def _is_index(self, entry: os.DirEntry[str]) -> bool:
        return (
            self.only_listed_by is None
            and is_index_name(entry.name)
            and kind_of(Path(entry.path)) is Kind.INDEX
        )

    def _is_the_one(self, entry: os.DirEntry[str]) -> bool:
        return self.only_listed_by is not None and Path(entry.path) == self.only_listed_by

    def _read_index(self, path: Path, place: FileId, own: list[Index]) -> Iterator[Found]:
        try:
            with path.open("rb") as file:
                if file.seek(0, os.SEEK_END) > LARGEST_INDEX_BYTES:
                    raise InputError("is too large for an index of files; name the folders that it covers")
                file.seek(0)
                own.append(index_of(file, str(path), place))
        except InputError as error:
            yield Unreadable(str(path), str(error))

    def _entry(self, entry: os.DirEntry[str], place: FileId, indexes: tuple[Index, ...]) -> Iterator[Found]:
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from self._folder(path, place, indexes)
        elif _is_folder(path):
            yield Note(str(path), "skipped", "a link to a folder; name that folder if it is meant")
        elif indexes and entry.is_symlink() and _leads_out(path, self.top):
            yield Note(
                str(path), "refused", "a link that leads out of the folder of the index; it was not read"
            )
        else:
            notes = list(unlisted(indexes, place, str(path)))
            yield from notes
            if not (notes and self.only_listed_by):
                yield from _file(path, self.room)

    def _concluded(self, index: Index, folder: Path, place: FileId) -> Iterator[Found]:
        """What an index lists although its name hides it, and what there is to say of the index."""
        for name in index.missing():
            path = folder.joinpath(*name)
            if _is_file(path) and path.resolve().is_relative_to(folder.resolve()):
                index.cross_off((*place, *name))
                yield from _file(path, self.room)
        yield from index.conclusion()


def _is_folder(path: Path) -> bool:
    """Whether there is a folder; a link to itself leads to none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _leads_out(path: Path, top: Path) -> bool:
    """Whether a link leads out of `top`; what one that leads nowhere is worth, its reader says."""
    try:
        return not path.resolve().is_relative_to(top.resolve())
    except (OSError, RuntimeError):
        return False


def _is_file(path: Path) -> bool:
    """Whether there is a file; a name that no file system takes is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
