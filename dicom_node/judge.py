"""Many instances judged by several processes: what a command hands in, and what it gets back.

Light on purpose: the command's own process loads neither pixels nor networks; `judgement` does, in others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType

from dicom_node.item import How, Item
from dicom_node.pool import Pool
from dicom_node.report import InstanceReport, Unreadable

__all__ = ["How", "Item", "Judges", "Report", "limit_s", "lost"]

Report = InstanceReport | Unreadable

#: how long a step of the work on an instance may take, to decode it or to judge a frame: any, and for each
#: byte of it. All of it may be hours: an empty tile of a slide may be a kilobyte, and take as long as any
_FILE_S, _BYTE_S = 600.0, 1e-4


class Judges:
    """Processes that judge; a context manager, which ends them at once when it is left."""

    def __init__(self, how: How, processes: int) -> None:
        self._pool = Pool(partial(_judge, how), _ended_its_judge, processes, _may_take_s)

    def __enter__(self) -> Judges:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.__exit__(kind, error, trace)

    def judged(self, items: Iterable[Item]) -> Iterator[Report]:
        """A report on each item, in their order; few items are under way at any time, and none is kept.

        Raises
        ------
        NodeError : no process can be started, or none can read the key ring
        """
        taken: set[Path] = set()
        try:
            for item, report in self._pool.answers(_noted(items, taken)):
                _let_go(item, taken)
                yield report
        finally:
            for path in taken:
                path.unlink(missing_ok=True)


def _noted(items: Iterable[Item], taken: set[Path]) -> Iterator[Item]:
    """The items, noting whose files are to be removed."""
    for item in items:
        if item.temporary and item.path is not None:
            taken.add(item.path)
        yield item


def _let_go(item: Item, taken: set[Path]) -> None:
    if item.temporary and item.path is not None:
        item.path.unlink(missing_ok=True)
        taken.discard(item.path)


def _judge(how: How) -> Callable[[Item], Report]:
    from dicom_node.judgement import Judge

    return Judge(how)


def _ended_its_judge(item: Item, code: int | None) -> Report:
    return lost(item.source, code)


def _may_take_s(item: Item) -> float:
    return limit_s(item.path)  # bytes in memory are a few megabytes at most


def limit_s(path: Path | None) -> float:
    """How long a step of the work on a file may take, seconds: many times what the slowest takes at rest."""
    try:
        size = 0 if path is None else path.stat().st_size
    except OSError:  # whoever reads it says what is wrong
        size = 0
    return _FILE_S + size * _BYTE_S


def lost(source: str, code: int | None) -> Unreadable:
    """The report on what ended two processes, the second with this exit code, or, None, took too long."""
    if code is None:
        return Unreadable(
            source, "kept the process that read it busy for too long, and was given up; examine it"
        )
    by = f"signal {-code}" if code < 0 else f"exit code {code}"
    return Unreadable(
        source, f"ended the process that read it, twice ({by}); examine it, or take it to a larger machine"
    )
