"""Rows of an archive as a table for people, as JSON, as comma-separated values."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Sequence

from dicom_node.inquiry import RETURNED, Inquiry, Level, Row

SCHEMA = "dicom-node/query/1"

#: columns of the table by level: keyword -> heading; the rest is in --json and --csv
_SHOWN: dict[Level, dict[str, str]] = {
    Level.PATIENT: {
        "PatientID": "patient ID",
        "PatientName": "name",
        "PatientBirthDate": "born",
        "PatientSex": "sex",
        "NumberOfPatientRelatedStudies": "studies",
    },
    Level.STUDY: {
        "PatientID": "patient ID",
        "PatientName": "name",
        "StudyDate": "date",
        "ModalitiesInStudy": "modality",
        "StudyDescription": "description",
        "NumberOfStudyRelatedInstances": "images",
        "StudyInstanceUID": "study",
    },
    Level.SERIES: {
        "StudyDate": "date",
        "Modality": "modality",
        "SeriesNumber": "number",
        "SeriesDescription": "description",
        "NumberOfSeriesRelatedInstances": "images",
        "SeriesInstanceUID": "series",
    },
    Level.IMAGE: {
        "InstanceNumber": "number",
        "NumberOfFrames": "frames",
        "SOPClassUID": "class",
        "SOPInstanceUID": "instance",
    },
}
#: what must be readable to its end, for it is copied into the next command
_NEVER_CUT = frozenset({"StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "PatientID"})
_NUMBERS = frozenset({"studies", "images", "number", "frames"})
#: narrower than this, a row is written as lines
_NARROW = 60


def show(args: argparse.Namespace, inquiry: Inquiry, rows: Iterable[Row]) -> None:
    """Print rows in the form that the command line asks for."""
    if args.json:
        _json(inquiry, rows)
    elif args.csv:
        _csv(inquiry, rows)
    else:
        _table(inquiry, list(rows))


def columns(inquiry: Inquiry) -> tuple[str, ...]:
    """Every keyword that a row may have, from the top level down."""
    found = [key for level in inquiry.steps() for key in inquiry.wanted_at(level)]
    return tuple(dict.fromkeys(found))


def _json(inquiry: Inquiry, rows: Iterable[Row]) -> None:
    """One document, written as the rows come."""
    print(f'{{"schema": "{SCHEMA}", "level": "{inquiry.level}", "rows": [', end="")
    for number, row in enumerate(rows):
        values = {key: row.get(key) for key in columns(inquiry) if row.get(key)}
        print(",\n " if number else "\n ", json.dumps(values, ensure_ascii=False), sep="", end="")
    print("\n]}")


def _csv(inquiry: Inquiry, rows: Iterable[Row]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    keys = columns(inquiry)
    writer.writerow(keys)
    for row in rows:
        writer.writerow([_unexecuted(row.get(key)) for key in keys])


def _unexecuted(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def _table(inquiry: Inquiry, rows: Sequence[Row]) -> None:
    shown = {key: heading for key, heading in _SHOWN[inquiry.level].items() if _has(rows, key)}
    shown |= {key: key for key in inquiry.wanted}
    if not rows:
        print(f"no {inquiry.level} matches")
    elif sys.stdout.isatty():
        _drawn(shown, rows)
    else:
        _plain(shown, rows)


def _has(rows: Sequence[Row], key: str) -> bool:
    return any(row.get(key) for row in rows)


def _drawn(shown: dict[str, str], rows: Sequence[Row]) -> None:
    """A table as wide as the terminal: what is copied is folded, the rest is cut."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if console.width < _NARROW:
        _listed(shown, rows)
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for key, heading in shown.items():
        kept = key in _NEVER_CUT
        table.add_column(
            heading,
            overflow="fold" if kept else "ellipsis",
            no_wrap=not kept,
            justify="right" if heading in _NUMBERS else "left",
            min_width=min(22, console.width // 4) if kept and key != "PatientID" else None,
        )
    for row in rows:
        table.add_row(*(Text(_cell(row, key)) for key in shown))
    console.print(table)


def _listed(shown: dict[str, str], rows: Sequence[Row]) -> None:
    width = max(len(heading) for heading in shown.values())
    for row in rows:
        for key, heading in shown.items():
            print(f"{heading:<{width}}  {_cell(row, key)}")
        print()


def _plain(shown: dict[str, str], rows: Sequence[Row]) -> None:
    """For a file or a pipe: every value in full."""
    cells = [[*shown.values()], *([_cell(row, key) for key in shown] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(shown))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(row: Row, key: str) -> str:
    text = row.get(key)
    if key == "SOPClassUID":
        from pydicom.uid import UID

        return str(UID(text).name).removesuffix(" Storage")
    if key.endswith("Date") and len(text) == 8 and text.isdigit():
        return f"{text[:4]}-{text[4:6]}-{text[6:]}"
    return text.replace("\\", ", ") or "-"


assert all(set(_SHOWN[level]) <= {key for each in Level for key in RETURNED[each]} for level in Level)
