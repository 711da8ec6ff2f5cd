"""`dicom-node verify PATH... [--json]`"""

from __future__ import annotations

import argparse
from pathlib import Path

from blessmark import pixels
from blessmark.errors import WatermarkError
from blessmark.segment import segmenter
from blessmark.segment.whole import Whole
from dicom_node import report
from dicom_node.cli.files import progress, sources
from dicom_node.errors import EXIT_DONE, EXIT_ERROR, EXIT_FINDING, NodeError
from dicom_node.keys import FileKeyRing
from dicom_node.report import ErrorReport, InstanceReport
from dicom_node.review import Reader, review


def run(args: argparse.Namespace) -> int:
    """Judge every file; one line each and a summary, or one JSON document."""
    reader = reader_of(args)
    reports: list[InstanceReport | ErrorReport] = []
    for path in progress(sources(args.paths), "verifying"):
        reports.append(_judged(path, reader, show_record=args.show_record))
        if not args.json:
            print(report.line(reports[-1]), flush=True)
    print(report.to_json(reports) if args.json else report.summary(reports))
    return exit_code(reports)


def reader_of(args: argparse.Namespace) -> Reader:
    """The keys and the segmenters that the command line names."""
    return Reader(FileKeyRing.load(args.keys), (segmenter(args.segmenter), Whole()))


def exit_code(reports: list[InstanceReport | ErrorReport]) -> int:
    """An error outweighs a finding, a finding outweighs authentic."""
    if any(isinstance(item, ErrorReport) for item in reports):
        return EXIT_ERROR
    findings = {item.finding for item in reports if isinstance(item, InstanceReport)}
    return EXIT_DONE if findings <= {"authentic"} else EXIT_FINDING


def _judged(path: Path, reader: Reader, *, show_record: bool) -> InstanceReport | ErrorReport:
    try:
        return review(pixels.read(path), str(path), reader, show_record=show_record).report
    except (NodeError, WatermarkError, OSError) as error:
        return ErrorReport(str(path), str(error))
