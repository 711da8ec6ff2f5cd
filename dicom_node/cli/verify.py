"""`dicom-node verify PATH... [--json]`"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pydicom.dataset import Dataset

from blessmark.segment.whole import Whole
from dicom_node import report, signers
from dicom_node.cli.files import instance, progress, sources
from dicom_node.cli.reading import Report, exit_code, reader_of, segmenters_of, tell, tell_skipped
from dicom_node.problem import problem
from dicom_node.released import check_released
from dicom_node.report import ErrorReport, InstanceReport
from dicom_node.review import review


def run(args: argparse.Namespace) -> int:
    """Judge every file; one line each and a summary, or one JSON document."""
    judge = _judge(args)
    reports: list[Report] = []
    for path in progress(sources(args.paths), "verifying"):
        found = _judged(path, judge)
        if found is None:
            tell_skipped(path)
            continue
        reports.append(found)
        if not args.json:
            tell(found)
    print(report.to_json(reports) if args.json else report.summary(reports))
    return exit_code(reports, signed=bool(args.public_key))


def _judge(args: argparse.Namespace) -> Callable[[Dataset, str], InstanceReport]:
    """What judges an instance: the key ring, or, where there is none, public keys alone."""
    trusted = signers.trusted(args.public_key)
    if trusted and not args.keys.exists():
        print(
            f"{args.keys}: no key ring here; signatures alone are checked, no record is read", file=sys.stderr
        )
        usual, rules = segmenters_of(args)
        drawers = (usual, *(drawer for _, drawer in rules), Whole())
        return lambda ds, source: check_released(ds, source, drawers, trusted)
    reader = replace(reader_of(args), public_keys=trusted)
    return lambda ds, source: review(ds, source, reader, show_record=args.show_record).report


def _judged(path: Path, judge: Callable[[Dataset, str], InstanceReport]) -> Report | None:
    try:
        ds = instance(path)
        return None if ds is None else judge(ds, str(path))
    except Exception as error:
        return ErrorReport(str(path), problem(path.name, error))
