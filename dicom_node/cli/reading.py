"""What the commands share: keys and segmenters by name, the lines they print, the exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from blessmark import segment
from blessmark.segment.whole import Whole
from blessmark.types import KeyRing, Segmenter
from dicom_node import report
from dicom_node.config import Watermark
from dicom_node.errors import EXIT_DONE, EXIT_ERROR, EXIT_FINDING, KeyFileError, UsageError
from dicom_node.keys import FileKeyRing
from dicom_node.report import ErrorReport, InstanceReport
from dicom_node.review import Reader
from dicom_node.segmenters import Rules, rules_of

Report = InstanceReport | ErrorReport


def ring_of(args: argparse.Namespace) -> KeyRing:
    """The key ring that the command line names; KeyFileError tells how to make a missing one."""
    if not args.keys.exists():
        raise KeyFileError(
            f"{args.keys}: there is no key ring here; make one with: dicom-node keys new --keys {args.keys}"
        )
    return FileKeyRing.load(args.keys)


def segmenters_of(args: argparse.Namespace) -> tuple[Segmenter, Rules]:
    """The segmenter that the command line names; without a name the usual one, and the rules of a node.

    Raises UsageError for a name that this version lacks.
    """
    if args.segmenter is None:
        usual = Watermark()
        return segment.segmenter(usual.segmenter), rules_of(usual)
    known = segment.known()
    if args.segmenter not in {*known, *(id_.partition("/")[0] for id_ in known)}:
        raise UsageError(f"--segmenter {args.segmenter}: this version has {', '.join(known)}")
    return segment.segmenter(args.segmenter), ()


def reader_of(args: argparse.Namespace) -> Reader:
    """The keys and the segmenters that the command line names."""
    usual, rules = segmenters_of(args)
    return Reader(ring_of(args), (usual, *(drawer for _, drawer in rules), Whole()), rules)


def tell(found: Report) -> None:
    """Print one line: a finding to standard output, an error to standard error."""
    print(report.line(found), file=sys.stderr if isinstance(found, ErrorReport) else sys.stdout, flush=True)


def tell_skipped(path: Path) -> None:
    """Say that a DICOMDIR was left out; it is neither a finding nor an error."""
    print(f"{'skipped':<16} {'an index of files (DICOMDIR), not an instance':<44} {path}", file=sys.stderr)


def exit_code(reports: Sequence[Report], *, signed: bool = False) -> int:
    """An error outweighs a finding, a finding outweighs authentic; nothing judged proves nothing.

    Who asks for signatures (`signed`) is content only with valid ones.
    """
    if not reports or any(isinstance(item, ErrorReport) for item in reports):
        return EXIT_ERROR
    proven = (_proven(item, signed=signed) for item in reports if isinstance(item, InstanceReport))
    return EXIT_DONE if all(proven) else EXIT_FINDING


def _proven(item: InstanceReport, *, signed: bool) -> bool:
    valid = item.signature.state == "valid"
    return (item.finding == "authentic" and (valid or not signed)) or (item.finding == "signed" and valid)
