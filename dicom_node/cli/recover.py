"""`dicom-node recover IN --out OUT`"""

from __future__ import annotations

import argparse

from blessmark import pixels
from blessmark.errors import WatermarkError
from dicom_node import report
from dicom_node.cli.files import Pair, pairs, progress, write_whole
from dicom_node.cli.verify import exit_code, reader_of
from dicom_node.errors import NodeError
from dicom_node.protect import written
from dicom_node.report import ErrorReport, InstanceReport
from dicom_node.review import Reader, recover


def run(args: argparse.Namespace) -> int:
    """Restore every file of IN that is proven; what is not is told and not written."""
    reader = reader_of(args)
    reports: list[InstanceReport | ErrorReport] = []
    for pair in progress(pairs(args.source, args.out), "recovering"):
        reports.append(_recovered(pair, reader, partial=args.partial))
        print(report.line(reports[-1]), flush=True)
    print(report.summary(reports))
    return exit_code(reports)


def _recovered(pair: Pair, reader: Reader, *, partial: bool) -> InstanceReport | ErrorReport:
    try:
        ds = pixels.read(pair.source)
        done = recover(ds, str(pair.source), reader, partial=partial)
        if done.restored:
            write_whole(pair.target, [written(ds)])
        return done.report
    except (NodeError, WatermarkError, OSError) as error:
        return ErrorReport(str(pair.source), str(error))
