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
#: columns that are cut where the terminal is too narrow, and to how many characters at least
_CUT = frozenset({"name", "description"})
_LEAST = 8
_NUMBERS = frozenset({"studies", "images", "number", "frames"})
_GAP = 2


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
    *others, last = shown or ("PatientID",)
    # the UID stays at the end
    shown = {key: shown.get(key, key) for key in dict.fromkeys((*others, *inquiry.wanted, last))}
    if not rows:
        print(f"no {inquiry.level} matches")
    elif sys.stdout.isatty():
        _drawn(shown, rows)
    else:
        _plain(shown, rows)


def _has(rows: Sequence[Row], key: str) -> bool:
    return any(row.get(key) for row in rows)


def _drawn(shown: dict[str, str], rows: Sequence[Row]) -> None:
    """A table as wide as the terminal; a UID that has no room beside the rest stands below it, whole."""
    from rich.cells import cell_len, set_cell_size
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    *short, last = shown
    cells = [[_cell(row, key) for key in shown] for row in rows]
    widths = [max(cell_len(line[at]) for line in (list(shown.values()), *cells)) for at in range(len(shown))]
    below = sum(widths) + _GAP * len(short) > console.width
    fitted = _fitted([shown[key] for key in short], widths[:-1], console.width) if below else widths[:-1]
    if fitted is None:
        _listed(shown, rows)
        return

    def line(texts: Sequence[str]) -> str:
        aligned = (
            text.rjust(width) if shown[key] in _NUMBERS else set_cell_size(_cut(text, width), width)
            for key, text, width in zip(short, texts, fitted, strict=True)
        )
        return (" " * _GAP).join(aligned)

    console.print(Text(line(list(shown.values())[:-1]) + ("" if below else f"  {shown[last]}"), "bold"))
    for texts in cells:
        console.print(Text(line(texts[:-1]) + ("" if below else f"  {texts[-1]}")), soft_wrap=True)
        if below:
            console.print(Text(f"    {texts[-1]}", "dim"), soft_wrap=True)


def _fitted(headings: Sequence[str], widths: Sequence[int], room: int) -> list[int] | None:
    """The widths of columns in so much room; None where even the narrowest have none."""
    fitted = list(widths)
    over = sum(fitted) + _GAP * (len(fitted) - 1) - room
    while over > 0:
        able = [at for at, heading in enumerate(headings) if heading in _CUT and fitted[at] > _LEAST]
        if not able:
            return None
        fitted[max(able, key=fitted.__getitem__)] -= 1
        over -= 1
    return fitted


def _cut(text: str, width: int) -> str:
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def _listed(shown: dict[str, str], rows: Sequence[Row]) -> None:
    """One line a value, where a terminal has no room for columns."""
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
