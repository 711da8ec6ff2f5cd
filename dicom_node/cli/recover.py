"""`dicom-node recover IN --out OUT [--partial] [--jobs N]`"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from dicom_node import report
from dicom_node.cli.files import Pair, pairs, progress
from dicom_node.cli.judging import exit_code, how_of
from dicom_node.cli.telling import Report
from dicom_node.cli.trail import Told, told_to
from dicom_node.item import How
from dicom_node.judge import limit_s, lost
from dicom_node.pool import Pool, cores
from dicom_node.report import InstanceReport
from dicom_node.summary import summarised, totals


def run(args: argparse.Namespace) -> int:
    """Restore every file of IN that is proven; what is not is told and not written."""
    how, tasks = how_of(args), pairs(args.source, args.out)
    trail = told_to(args.config, args.usual_config)
    trail.allow_restoring(len(tasks))
    with restoring(how, args.jobs or cores(), everything=args.partial) as pool:
        summary = summarised(_audited(_told(pool, tasks), trail))
    trail.close()
    print(totals(summary))
    return exit_code(summary)


def restoring(how: How, processes: int, *, everything: bool = False) -> Pool[Pair, Report]:
    """Processes that restore files; with `everything`, what is proven in part is written too."""
    return Pool(partial(_restorer, how, everything=everything), _lost, processes, _may_take_s)


def _told(pool: Pool[Pair, Report], tasks: Sequence[Pair]) -> Iterator[Report]:
    """Every file's report, printed as it comes."""
    answers = (answer for _, answer in pool.answers(tasks))
    for each in progress(answers, "recovering", total=len(tasks)):
        stream = sys.stdout if isinstance(each, InstanceReport) else sys.stderr
        print(report.line(each), file=stream, flush=True)
        yield each


def _audited(reports: Iterator[Report], trail: Told) -> Iterator[Report]:
    for each in trail.watching(reports):
        if isinstance(each, InstanceReport) and was_restored(each):
            trail.restored(each.place.study)
        yield each


def was_restored(found: InstanceReport) -> bool:
    """What restores approximately says so of its frames, not of the whole."""
    nearly = any(frame.restoration == "approximate" for frame in found.frames)
    return bool(found.restored) or (nearly and found.finding in ("authentic", "header-altered"))


def _restorer(how: How, *, everything: bool) -> Callable[[Pair], Report]:
    from dicom_node.cli.restoring import (
        Restorer,
    )  # loads pixels, which the process of the command does without

    return Restorer(how, everything=everything)


def _may_take_s(pair: Pair) -> float:
    return limit_s(pair.source)


def _lost(pair: Pair, code: int | None) -> Report:
    return lost(str(pair.source), code)
