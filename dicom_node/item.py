"""What is to be judged, and how: all that a command tells the processes that judge."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Item:
    """One Part 10 instance to judge.

    Attributes
    ----------
    source : what to call it in the report: a path, `archive.zip!member`, `orthanc:<SOP Instance UID>`
    path : where its bytes are, or
    data : the bytes themselves, a few megabytes at most: they wait in memory
    temporary : the file at `path` is removed when it has been judged
    """

    source: str
    path: Path | None
    data: bytes | None = field(default=None, repr=False)
    temporary: bool = False


@dataclass(frozen=True, slots=True)
class How:
    """How instances are judged; goes to every process.

    Attributes
    ----------
    keys : the key ring
    segmenter : the only one to try; None tries the usual ones
    show_record : put the fields of the record, patient data, into the reports
    pictures : paint the instances, for a report that shows them
    """

    keys: Path
    segmenter: str | None = None
    show_record: bool = False
    pictures: bool = False
