"""What every command that judges does: items to the judges, reports to the reader, a number for the shell."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from dicom_node import keys
from dicom_node.cli.pages import pages_of
from dicom_node.cli.telling import Csv, Json, Lines, Report, Telling
from dicom_node.errors import EXIT_DONE, EXIT_ERROR, EXIT_FINDING, KeyFileError, UsageError
from dicom_node.judge import How, Item, Judges
from dicom_node.pool import cores
from dicom_node.report import InstanceReport
from dicom_node.sources import Found
from dicom_node.summary import Summary, summarised


def judge(
    args: argparse.Namespace,
    found: Iterable[Found],
    watched: Callable[[Iterator[Report]], Iterator[Report]] = iter,
) -> int:
    """Judge what was found and say so as the command line wants it; returns the exit code.

    `watched` sees every report go by, as a progress bar does.
    """
    how = how_of(args, show_record=args.show_record, pictures=args.html is not None)
    unsigned = _Unsigned()
    with pages_of(args) as pages:
        tellings = (telling_of(args), *pages)
        with Judges(how, args.jobs or cores()) as judges:
            summary = summarised(_told(unsigned.counted(watched(reports(judges, found))), tellings))
        for telling in tellings:
            telling.end(summary)
    return exit_code(summary, unsigned=unsigned.count if how.public_keys else 0)


class _Unsigned:
    """Counts the instances that go by without a valid signature."""

    def __init__(self) -> None:
        self.count = 0

    def counted(self, found: Iterator[Report]) -> Iterator[Report]:
        """The reports as they are."""
        for report in found:
            self.count += isinstance(report, InstanceReport) and report.signature.state != "valid"
            yield report


def reports(judges: Judges, found: Iterable[Found]) -> Iterator[Report]:
    """A report on everything that was found; what needs no judging is passed on when it is met."""
    met: list[Report] = []

    def items() -> Iterator[Item]:
        for each in found:
            if isinstance(each, Item):
                yield each
            else:
                met.append(each)

    for report in judges.judged(items()):
        yield from met
        met.clear()
        yield report
    yield from met


def how_of(args: argparse.Namespace, *, show_record: bool = False, pictures: bool = False) -> How:
    """How the command line wants instances judged, found to be possible.

    Raises
    ------
    KeyFileError : there is no key ring, or none that can be used
    UsageError : this version lacks the segmenter, or pages are wanted of what no key ring proves
    """
    public = tuple(getattr(args, "public_key", ()))
    ring: Path | None = args.keys
    if public and pictures and not args.keys.exists():
        raise UsageError(f"--html shows what a key ring proves, and {args.keys} is none; leave --html out")
    if public and not args.keys.exists():
        print(
            f"{args.keys}: no key ring here; only signatures are checked, no record is read", file=sys.stderr
        )
        ring = None
    else:
        check_keys(args.keys)
    if args.segmenter is not None:
        check_segmenter(args.segmenter)
    return How(ring, args.segmenter, show_record, pictures, public)


def check_keys(path: Path) -> None:
    """Find out that there is a key ring that can be read; KeyFileError tells how to make a missing one."""
    if not path.exists():
        raise KeyFileError(
            f"{path}: there is no key ring here; make one with: dicom-node keys new --keys {path}"
        )
    keys.describe(path)


def check_segmenter(name: str) -> None:
    """Find out that this version has a segmenter of that name; UsageError lists those it has."""
    from blessmark import segment  # loads NumPy, which this process does without

    known = segment.known()
    if name not in {*known, *(id_.partition("/")[0] for id_ in known)}:
        raise UsageError(f"--segmenter {name}: this version has {', '.join(known)}")


def telling_of(args: argparse.Namespace) -> Telling:
    """What writes the reports as the command line wants them."""
    if args.json:
        return Json(summary_only=args.summary_only)
    return Csv(summary_only=args.summary_only) if args.csv else Lines(summary_only=args.summary_only)


def exit_code(summary: Summary, *, unsigned: int = 0) -> int:
    """An error outweighs a finding, a finding outweighs authentic; nothing judged proves nothing.

    That the key is revoked is a finding: whoever has it could have made the image. Who asks for signatures is
    content with valid ones only: `unsigned` instances have none.
    """
    if summary.errors or not summary.instances:
        return EXIT_ERROR
    proven = {finding for finding, _ in summary.findings} <= {"authentic", "signed"}
    return EXIT_DONE if proven and not (summary.missing or summary.revoked or unsigned) else EXIT_FINDING


def _told(found: Iterator[Report], tellings: Sequence[Telling]) -> Iterator[Report]:
    for report in found:
        for telling in tellings:
            telling.tell(report)
        yield report
