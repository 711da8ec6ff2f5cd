"""How `verify` says what it found: lines and a table, one JSON document, or CSV.

Reports are written as they come and are not kept; errors and notes of a JSON document wait for its end.
"""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Protocol, TextIO

from dicom_node import summary as summaries
from dicom_node.problem import printable
from dicom_node.report import SCHEMA, ErrorReport, InstanceReport, Note, instance_document, line
from dicom_node.summary import SeriesSummary, Summary

Report = InstanceReport | ErrorReport | Note

#: finding -> colour of a terminal (ECMA-48 SGR)
_GOOD, _BAD, _DOUBT = "32", "31", "33"
_COLOURS = {"authentic": _GOOD, "unmarked": _DOUBT, "wrong-key": _DOUBT, "unknown-segmenter": _DOUBT}
#: what JSON lets through and a terminal obeys
_STEERING = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
#: what makes a spreadsheet compute the text of a cell
_FORMULA = ("=", "+", "-", "@")


class Telling(Protocol):
    """One way to say what was found."""

    def tell(self, report: Report) -> None:
        """Say this report, or keep it for the end."""

    def end(self, summary: Summary) -> None:
        """Say everything that waits, and the summary."""


class Lines:
    """A line an instance, then studies and series, then the counts; errors and notes on standard error."""

    def __init__(self, *, summary_only: bool) -> None:
        self._summary_only = summary_only

    def tell(self, report: Report) -> None:
        """Print one line, unless only the summary is wanted of it."""
        if not isinstance(report, InstanceReport):
            print(line(report), file=sys.stderr, flush=True)
        elif not self._summary_only:
            print(_coloured(line(report), report.finding), flush=True)

    def end(self, summary: Summary) -> None:
        """Studies and series where there is more than one instance to speak of, then the counts."""
        if self._summary_only or summary.instances > 1 or any(_remarks(summary)):
            if sys.stdout.isatty():
                _print_table(summary)
            else:
                for each in summaries.lines(summary):
                    print(printable(each))
        print(summaries.totals(summary), flush=True)


class Json:
    """One document (docs/verify.schema.json), its instances written as they come."""

    def __init__(self, *, summary_only: bool) -> None:
        self._errors: list[ErrorReport] = []
        self._notes: list[Note] = []
        self._summary_only = summary_only
        self._separator = "\n"
        sys.stdout.write("{" + f'\n  "schema": {_json(SCHEMA)}')
        if not summary_only:
            sys.stdout.write(',\n  "instances": [')

    def tell(self, report: Report) -> None:
        """Write an instance; keep an error or a note."""
        if isinstance(report, ErrorReport):
            self._errors.append(report)
        elif isinstance(report, Note):
            self._notes.append(report)
        elif not self._summary_only:
            sys.stdout.write(f"{self._separator}    {_json(instance_document(report))}")
            self._separator = ",\n"

    def end(self, summary: Summary) -> None:
        """Everything that waits, the studies, the counts."""
        if not self._summary_only:
            sys.stdout.write("\n  ]")
        for key, value in self._rest(summary):
            sys.stdout.write(f",\n  {_json(key)}: {_json(value)}")
        sys.stdout.write("\n}\n")
        sys.stdout.flush()

    def _rest(self, summary: Summary) -> Iterator[tuple[str, object]]:
        yield "errors", [{"source": each.source, "error": each.error} for each in self._errors]
        yield "notes", [asdict(note) for note in self._notes]
        yield (
            "studies",
            [
                {"study_instance_uid": study.uid, "series": [_series_document(each) for each in study.series]}
                for study in summary.studies
            ],
        )
        yield "remarks", [asdict(remark) for remark in summary.remarks]
        yield "findings", dict(summary.findings)


class Csv:
    """A row an instance, error or note; with only the summary wanted, a row a series."""

    _INSTANCE = (
        *("finding", "source", "reason", "modality", "study_instance_uid", "series_instance_uid"),
        *("sop_instance_uid", "instance_number", "number_of_frames", "frames_expected", "bound_to"),
        *("content_sha256", "node", "protected_at", "key_id", "tier", "framing", "lowest_psnr_db"),
        *("restoration", "altered_tiles", "altered_fields"),
        *("key_revoked", "signature", "signature_key"),
    )
    _SERIES = (
        *("study_instance_uid", "series_instance_uid", "modality", "instances", "frames", "bound"),
        *("findings", "remarks"),
    )

    def __init__(self, *, summary_only: bool) -> None:
        self._summary_only = summary_only
        self._rows = csv.writer(sys.stdout, lineterminator="\n")
        self._rows.writerow(self._SERIES if summary_only else self._INSTANCE)

    def tell(self, report: Report) -> None:
        """Write a row."""
        if self._summary_only:
            if not isinstance(report, InstanceReport):
                print(line(report), file=sys.stderr, flush=True)
        else:
            self._rows.writerow([_cell(value) for value in _row(report)])

    def end(self, summary: Summary) -> None:
        """The rows of the series, if they are what is wanted."""
        for study in summary.studies if self._summary_only else ():
            for each in study.series:
                self._rows.writerow([_cell(value) for value in _series_row(study.uid, each)])
        sys.stdout.flush()


def _row(report: Report) -> tuple[object, ...]:
    if isinstance(report, ErrorReport):
        return "error", report.source, report.error
    if isinstance(report, Note):
        return report.kind, report.source, report.text
    place, first = report.place, report.frames[0] if report.frames else None
    levels = [frame.psnr_db for frame in report.frames if frame.psnr_db not in (None, float("inf"))]
    known = {frame.restoration for frame in report.frames}
    return (
        *(report.finding, report.source, report.reason, place.modality, place.study, place.series),
        *(place.instance, place.number, report.number_of_frames, report.frames_expected),
        " ".join(report.bound_to),
        *(report.content, report.node, report.protected_at),
        *((first.key_id, first.tier, first.framing) if first else ("", "", "")),
        min(filter(None, levels), default=None),
        next((each for each in ("none", "approximate", "exact") if each in known), ""),
        sum(len(frame.altered_tiles) for frame in report.frames),
        " ".join(sorted({name for frame in report.frames for name in frame.altered_fields})),
        *(report.key_revoked, report.signature.state, report.signature.key),
    )


def _series_row(study: str, series: SeriesSummary) -> tuple[object, ...]:
    findings = ", ".join(f"{count} {finding}" for finding, count in series.findings)
    remarks = "; ".join(map(summaries.remark_line, series.remarks))
    counts = (series.instances, series.frames, series.bound)
    return study, series.uid, series.modality, *counts, findings, remarks


def _cell(value: object) -> str:
    """A value for a spreadsheet: nothing that steers a terminal, nothing that is computed."""
    text = "" if value is None else f"{value:.2f}" if isinstance(value, float) else printable(str(value))
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text


def _series_document(series: SeriesSummary) -> dict[str, object]:
    return {
        "series_instance_uid": series.uid,
        "modality": series.modality,
        "instances": series.instances,
        "frames": series.frames,
        "findings": dict(series.findings),
        "bound": series.bound,
        "remarks": [asdict(remark) for remark in series.remarks],
    }


def _json(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _coloured(text: str, finding: str) -> str:
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_COLOURS.get(finding, _BAD)}m{text[: len(finding)]}\x1b[0m{text[len(finding) :]}"


def _remarks(summary: Summary) -> Iterator[object]:
    yield from summary.remarks
    yield from (remark for study in summary.studies for each in study.series for remark in each.remarks)


def _print_table(summary: Summary, target: TextIO | None = None) -> None:
    """Studies and series as a table, for a terminal; then what is to be said of each."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("series", "modality", "instances", "frames", "findings", "bound", show_edge=False)
    console = Console(file=target or sys.stdout, highlight=False)
    said: list[str] = []
    for study in summary.studies:
        table.add_section()
        table.add_row(Text(f"study {printable(study.uid)}", "bold"), "", str(study.instances))
        for each in study.series:
            findings = ", ".join(f"{count} {finding}" for finding, count in each.findings)
            counts = (str(each.instances), str(each.frames), findings, str(each.bound))
            table.add_row(*(Text(printable(cell)) for cell in (each.uid, each.modality, *counts)))
            said += [f"{summaries.remark_line(remark)}, series {each.uid}" for remark in each.remarks]
    console.print(table)
    for remark in (*said, *map(summaries.remark_line, summary.remarks)):
        console.print(Text(printable(remark)), soft_wrap=True)
