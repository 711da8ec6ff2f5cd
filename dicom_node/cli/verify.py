"""`dicom-node verify PATH... [--json]`"""

from __future__ import annotations

import argparse
from pathlib import Path

from dicom_node import report
from dicom_node.cli.files import instance, progress, sources
from dicom_node.cli.reading import Report, exit_code, reader_of, tell, tell_skipped
from dicom_node.problem import problem
from dicom_node.report import ErrorReport
from dicom_node.review import Reader, review


def run(args: argparse.Namespace) -> int:
    """Judge every file; one line each and a summary, or one JSON document."""
    reader = reader_of(args)
    reports: list[Report] = []
    for path in progress(sources(args.paths), "verifying"):
        found = _judged(path, reader, show_record=args.show_record)
        if found is None:
            tell_skipped(path)
            continue
        reports.append(found)
        if not args.json:
            tell(found)
    print(report.to_json(reports) if args.json else report.summary(reports))
    return exit_code(reports)


def _judged(path: Path, reader: Reader, *, show_record: bool) -> Report | None:
    try:
        ds = instance(path)
        return None if ds is None else review(ds, str(path), reader, show_record=show_record).report
    except Exception as error:
        return ErrorReport(str(path), problem(path.name, error))
