"""`dicom-node recover IN --out OUT`"""

from __future__ import annotations

import argparse

from dicom_node import report
from dicom_node.cli.files import Pair, instance, pairs, problem, progress, write_whole
from dicom_node.cli.reading import Report, exit_code, reader_of, tell, tell_skipped
from dicom_node.cli.trail import Told, told_to
from dicom_node.protect import written
from dicom_node.report import ErrorReport
from dicom_node.review import Reader, recover


def run(args: argparse.Namespace) -> int:
    """Restore every file of IN that is proven; what is not is told and not written."""
    reader, trail = reader_of(args), told_to(args.config, args.usual_config)
    reports: list[Report] = []
    for pair in progress(pairs(args.source, args.out), "recovering"):
        found = _recovered(pair, reader, trail, partial=args.partial)
        if found is None:
            tell_skipped(pair.source)
            continue
        reports.append(found)
        tell(found)
    trail.close()
    print(report.summary(reports))
    return exit_code(reports)


def _recovered(pair: Pair, reader: Reader, trail: Told, *, partial: bool) -> Report | None:
    try:
        ds = instance(pair.source)
        if ds is None:
            return None
        done = recover(ds, str(pair.source), reader, partial=partial)
        trail.read(ds, done.report.finding)
        if done.restored:
            trail.restored(ds)
            write_whole(pair.target, [written(ds)])
        return done.report
    except Exception as error:
        return ErrorReport(str(pair.source), problem(pair.source, error))
