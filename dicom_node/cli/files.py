"""Which files a command reads, and how it writes: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
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
    """Every file among `paths`, folders walked in name order, hidden files left out.

    Raises
    ------
    InputError
        a path does not exist.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"{path}: no such file or folder")
    return found


def pairs(source: Path, target: Path) -> list[Pair]:
    """Pair every file below `source` with its place below `target`.

    A single file goes to `target`, or into it when that is a folder.

    Raises
    ------
    UsageError
        a file would overwrite its own source, or a folder lies inside the other.
    """
    if not source.is_dir():
        sources([source])
        into = target / source.name if target.is_dir() else target
        if into.exists() and into.samefile(source):
            raise UsageError(f"{into}: IN and OUT are the same file; choose another OUT")
        return [Pair(source, into)]
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target}: IN is a folder, so OUT must be one too")
    inside, outside = target.resolve(), source.resolve()
    if inside == outside or outside in inside.parents:
        raise UsageError(f"{target}: OUT lies inside IN; choose a folder beside it")
    return [Pair(path, target / path.relative_to(source)) for path in sources([source])]


def write_whole(target: Path, chunks: Iterable[bytes]) -> None:
    """Write a file under a temporary name, sync it, and rename it into place.

    Raises
    ------
    OutputError
        the folder is read-only, the disk is full, ...; nothing is left behind.
    """
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".dicom-node-", dir=target.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise OutputError(f"{target}: cannot write ({error.strerror}); nothing was written") from error


def _umask() -> int:
    """The process's umask; reading it means setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def progress(items: Sequence[T], what: str) -> Iterator[T]:
    """Yield `items`, with a bar on a terminal when there are several."""
    if len(items) < 2:
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(
        items, description=what, console=console, disable=not console.is_terminal, transient=True
    )
