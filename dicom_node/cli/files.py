"""Which files a command reads, and how it writes: whole or not at all."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dicom_node.errors import InputError, OutputError, UsageError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pair:
    """A file to read and where its result goes."""

    source: Path
    target: Path


def sources(paths: Iterable[Path]) -> list[Path]:
    """Every file that `paths` name: files as given, folders walked in name order.

    Below a folder, hidden files and folders are left out. A path that does not exist, or a folder that cannot
    be listed, is among the result: reading it says what is wrong, and the files beside it are not held up.

    Raises
    ------
    InputError
        there is no file at all.
    """
    given = list(paths)
    found = [file for path in given for file in (_files_below(path) if path.is_dir() else [path])]
    if not found:
        raise InputError(f"{given[0]}: there is no file in this folder; name one that holds DICOM files")
    return found


def _files_below(folder: Path) -> list[Path]:
    found: list[Path] = []

    def unlisted(error: OSError) -> None:
        found.append(Path(error.filename))

    for place, folders, names in os.walk(folder, onerror=unlisted):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(found)


def pairs(source: Path, target: Path) -> list[Pair]:
    """Pair every file below `source` with its place below `target`.

    A single file goes to `target`, or into it when that is a folder.

    Raises
    ------
    UsageError
        a file would overwrite its own source, or one of the two folders lies inside the other.
    InputError
        there is no file at all.
    """
    if not source.is_dir():
        into = target / source.name if target.is_dir() else target
        if into.exists() and source.exists() and into.samefile(source):
            raise UsageError(f"{into}: IN and OUT are the same file; choose another OUT")
        return [Pair(source, into)]
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target}: IN is a folder, so OUT must be one too")
    inner, outer = target.resolve(), source.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise UsageError(f"{target}: of IN and OUT, one lies inside the other; choose a folder beside IN")
    return [Pair(path, target / path.relative_to(source)) for path in sources([source])]


def write_whole(target: Path, chunks: Iterable[bytes]) -> None:
    """Write a file under a temporary name, sync it, and rename it into place.

    Raises
    ------
    OutputError
        the folder is read-only, the disk is full, ...; nothing is left behind, nor is after an interrupt.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".dicom-node-", dir=target.parent)
    except OSError as error:
        raise _unwritable(target, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(target)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritable(target, error) from error
        raise


def _unwritable(target: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{target} cannot be written ({error.strerror}); nothing was written, choose another OUT or make room"
    )


def _umask() -> int:
    """The process's umask; reading it means setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def progress(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield `items`, with a bar on standard error when that is a terminal and there may be several.

    `total` is how many there are, None if nobody has counted.
    """
    if not sys.stderr.isatty() or (total is not None and total < 2):
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    # lines for a terminal go above the bar; lines for a file must not, or they would end on the terminal
    shared = sys.stdout.isatty()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=shared) as bar:
        yield from bar.track(items, total=total, description=what)
