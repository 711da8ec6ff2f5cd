"""`dicom-node verify PATH... [--json | --csv] [--summary-only] [--jobs N]`"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from dicom_node.cli.files import progress
from dicom_node.cli.judging import judge
from dicom_node.cli.telling import Report
from dicom_node.cli.trail import told_to
from dicom_node.kind import Kind
from dicom_node.sources import STANDARD_INPUT, found, kind_of


def run(args: argparse.Namespace) -> int:
    """Judge everything that PATH names; one line each and a summary, one JSON document, or CSV."""
    with tempfile.TemporaryDirectory(prefix="dicom-node-") as room:
        several = found(args.paths, Path(room), sys.stdin.buffer)
        trail = told_to(args.config, args.usual_config)
        code = judge(args, several, lambda reports: trail.watching(_watched(args.paths, reports)))
        trail.close()
        return code


def _watched(paths: Sequence[str], reports: Iterator[Report]) -> Iterator[Report]:
    """The reports, with a progress bar unless one file is all there is."""
    one = len(paths) == 1 and (paths[0] == STANDARD_INPUT or kind_of(Path(paths[0])) is Kind.INSTANCE)
    return reports if one else progress(reports, "verifying")
