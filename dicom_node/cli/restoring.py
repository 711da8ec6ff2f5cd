"""Instances restored by several processes: a file in, the original beside it out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dicom_node.item import How
from dicom_node.pool import Pool
from dicom_node.report import ErrorReport, InstanceReport, Unreadable


@dataclass(frozen=True, slots=True)
class Restore:
    """A file to restore, what to call it, and where the original goes."""

    source: str
    path: Path
    target: Path


@dataclass(frozen=True, slots=True)
class Restored:
    """What came of it; `written` tells whether there is an original."""

    task: Restore
    report: InstanceReport | ErrorReport
    written: bool = False


def restored(how: How, tasks: Iterable[Restore], processes: int) -> Iterator[Restored]:
    """Restore one file after the other, in their order; what is not proven is told and not written.

    Raises NodeError if no process can be started, or none can read the key ring.
    """
    with Pool(partial(_restorer, how), _lost, processes) as pool:
        for _, done in pool.answers(tasks):
            yield done


def _restorer(how: How) -> Callable[[Restore], Restored]:
    from dicom_node.judgement import reader_of

    return partial(_restore, reader_of(how.keys, how.segmenter))


def _restore(reader: object, task: Restore) -> Restored:
    from blessmark import pixels
    from dicom_node.cli.files import write_whole
    from dicom_node.problem import problem
    from dicom_node.review import Reader, recover

    assert isinstance(reader, Reader)
    try:
        ds = pixels.read(task.path)
        done = recover(ds, task.source, reader)
        if done.restored:
            write_whole(task.target, pixels.parts(ds))
        return Restored(task, done.report, done.restored)
    except Exception as error:
        return Restored(task, Unreadable(task.source, problem(task.path.name, error)))


def _lost(task: Restore, code: int) -> Restored:
    by = f"signal {-code}" if code < 0 else f"exit code {code}"
    said = f"ended the process that restored it, twice ({by}); examine it, or take it to a larger machine"
    return Restored(task, Unreadable(task.source, said))
