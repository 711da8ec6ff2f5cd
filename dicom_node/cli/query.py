"""`dicom-node query list | fetch | verify | recover | send`

What the archive sends is on disk for as long as it is needed: in the folder that was asked for, or in one
of our own that goes when the command ends.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from dicom_node import archives, log, report
from dicom_node.archives import Collection, Missed
from dicom_node.cli import query_table
from dicom_node.cli.asking import Asked, destination_of, opened
from dicom_node.errors import EXIT_DONE, EXIT_ERROR, EXIT_FINDING, InputError
from dicom_node.inquiry import Order
from dicom_node.landing import Landed, Manifest
from dicom_node.report import ErrorReport, InstanceReport, Unreadable

#: lines of the manifest between two times that they are put on disk
_SYNC_EVERY = 100


def run(args: argparse.Namespace) -> int:
    """Run one action."""
    log.setup("text", "error")
    return _ACTIONS[args.action](args)


# list


def _list(args: argparse.Namespace) -> int:
    with opened(args) as asked:
        # one more than wanted tells whether there are more
        rows = archives.found(asked.source, asked.inquiry, args.limit and args.limit + 1)
        if args.limit is None:
            query_table.show(args, asked.inquiry, rows)
            return EXIT_DONE
        some = list(islice(rows, args.limit + 1))
        query_table.show(args, asked.inquiry, some[: args.limit])
        if len(some) > args.limit:
            print(f"there are more than {args.limit}; narrow the question, or raise --limit", file=sys.stderr)
    return EXIT_DONE


# fetch


def _fetch(args: argparse.Namespace) -> int:
    tally = _Tally()
    with opened(args) as asked, contextlib.closing(Manifest(args.out)) as manifest:
        here = _Here(asked.orders(), manifest)
        with asked.collected(args.out, here, durable=True) as collection:
            for number, came in enumerate(_progress(collection, "fetching")):
                if isinstance(came, Missed):
                    tally.missed(asked, came)
                    continue
                manifest.add(came)
                tally.counts["fetched"] += 1
                if number % _SYNC_EVERY == 0:
                    manifest.sync()
        tally.counts["already there"] += here.count
        tally.refused(collection)
    print(tally.summary())
    return EXIT_ERROR if tally.errors or not +tally.counts else EXIT_DONE


class _Here:
    """The orders without what a folder holds already."""

    def __init__(self, orders: Iterable[Order], manifest: Manifest) -> None:
        self._orders, self._manifest = orders, manifest
        self.count = 0

    def __iter__(self) -> Iterator[Order]:
        for order in self._orders:
            left = [uid for uid in order.expected if not self._manifest.here(uid)]
            self.count += len(order.expected) - len(left)
            if len(left) == len(order.expected):
                yield order
            elif left:
                yield order.of(left)


# verify, recover


def _verify(args: argparse.Namespace) -> int:
    from dicom_node.cli.reading import check_reading
    from dicom_node.judge import How, Item, Judges

    check_reading(args)
    tally, reports = _Tally(lines=not args.json), []
    with opened(args) as asked, _scratch() as folder, asked.collected(folder, asked.orders()) as collection:
        items = (
            Item(asked.called(came.uid), collection.landing.path(came), temporary=True)
            for came in tally.arrived(asked, _progress(collection, "verifying"))
        )
        with Judges(How(args.keys, args.segmenter, args.show_record), _jobs(args)) as judges:
            for judged in judges.judged(items):
                tally.add(judged)
                reports += [judged] if args.json else []
        tally.refused(collection)
    if args.json:
        print(report.to_json([*reports, *tally.missing]))
    return tally.concluded()


def _recover(args: argparse.Namespace) -> int:
    from dicom_node.cli.reading import check_reading
    from dicom_node.cli.restoring import Restore, restored
    from dicom_node.judge import How

    check_reading(args)
    tally = _Tally()
    with opened(args) as asked, _scratch() as folder, asked.collected(folder, asked.orders()) as collection:
        tasks = (
            Restore(asked.called(came.uid), collection.landing.path(came), args.out / came.file)
            for came in tally.arrived(asked, _progress(collection, "recovering"))
        )
        for done in restored(How(args.keys, args.segmenter), tasks, _jobs(args)):
            done.task.path.unlink(missing_ok=True)
            tally.add(done.report)
        tally.refused(collection)
    return tally.concluded()


# send


def _send(args: argparse.Namespace) -> int:
    from dicom_node.cli.sending import Courier

    tally = _Tally()
    destination = destination_of(args, args.to)
    with opened(args) as asked, _scratch() as folder, asked.collected(folder, asked.orders()) as collection:
        arrived = tally.arrived(asked, _progress(collection, "sending"))
        objects: Iterator[tuple[str, Path]] = (
            (asked.called(came.uid), collection.landing.path(came)) for came in arrived
        )
        if args.recover:
            objects = _originals(args, tally, objects)
        courier = Courier(args.to, destination, asked.query.ae_title or "DICOMNODE")
        with contextlib.closing(courier):
            for called, path in objects:
                failed = courier.deliver(path)
                path.unlink(missing_ok=True)
                if failed:
                    tally.add(ErrorReport(called, failed))
                else:
                    tally.counts["sent"] += 1
        tally.refused(collection)
    print(tally.summary())
    return EXIT_ERROR if tally.errors or not tally.counts["sent"] else tally.exit_code()


def _originals(
    args: argparse.Namespace, tally: _Tally, objects: Iterable[tuple[str, Path]]
) -> Iterator[tuple[str, Path]]:
    """Objects restored in place; what is not proven original is told, and goes no further."""
    from dicom_node.cli.reading import check_reading
    from dicom_node.cli.restoring import Restore, restored
    from dicom_node.judge import How

    check_reading(args)
    tasks = (Restore(called, path, path.with_suffix(".restored")) for called, path in objects)
    for done in restored(How(args.keys, args.segmenter), tasks, _jobs(args)):
        done.task.path.unlink(missing_ok=True)
        tally.add(done.report)
        if done.written:
            yield done.task.source, done.task.target


# what the actions share


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for what is on its way, which nobody else can read and which goes at the end."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="dicom-node-query-", ignore_cleanup_errors=True)
    except OSError as error:
        raise InputError(f"no temporary folder can be made ({error.strerror}); set TMPDIR to one") from error
    with folder as name:
        yield Path(name)


def _jobs(args: argparse.Namespace) -> int:
    from dicom_node.pool import cores

    return getattr(args, "jobs", None) or cores()


def _progress(collection: Collection, what: str) -> Iterator[Landed | Missed]:
    """What came, with a bar on standard error when that is a terminal."""
    if not sys.stderr.isatty():
        yield from collection
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    shared = sys.stdout.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=shared) as bar:
        task = bar.add_task(what, total=None)
        for came in collection:
            bar.update(task, advance=1, total=collection.ordered)
            yield came


@dataclass(slots=True)
class _Tally:
    """What came of it all: counts, and what is missing."""

    lines: bool = True
    counts: Counter[str] = field(default_factory=Counter)
    errors: int = 0
    missing: list[Unreadable] = field(default_factory=list)

    def arrived(self, asked: Asked, came: Iterable[Landed | Missed]) -> Iterator[Landed]:
        """What is here; the rest is noted."""
        for one in came:
            if isinstance(one, Missed):
                self.missed(asked, one)
            else:
                yield one

    def missed(self, asked: Asked, missed: Missed) -> None:
        """Tell an instance that was found and did not come."""
        self.missing.append(Unreadable(asked.called(missed.uid), missed.why))
        self.errors += 1
        print(report.line(self.missing[-1]), file=sys.stderr, flush=True)

    def refused(self, collection: Collection) -> None:
        """Tell what came and was not kept."""
        for why, count in collection.landing.refused.items():
            print(f"note: {count} not kept: {why}", file=sys.stderr)

    def add(self, found: InstanceReport | ErrorReport) -> None:
        """Note a report."""
        if isinstance(found, ErrorReport):
            self.errors += 1
            print(report.line(found), file=sys.stderr, flush=True)
            return
        self.counts[found.finding] += 1
        if self.lines:
            print(report.line(found), flush=True)

    def summary(self) -> str:
        """How many of each, the most frequent first."""
        counts = [*self.counts.most_common(), ("error", self.errors)]
        return ", ".join(f"{count} {what}" for what, count in counts if count) or "nothing found"

    def exit_code(self) -> int:
        """An error outweighs a finding, a finding outweighs authentic."""
        if self.errors:
            return EXIT_ERROR
        return EXIT_DONE if set(+self.counts) <= {"authentic", "sent"} else EXIT_FINDING

    def concluded(self) -> int:
        """Print the summary; the exit code. Nothing judged proves nothing."""
        if self.lines:
            print(self.summary())
        return self.exit_code() if self.counts else EXIT_ERROR


_ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "list": _list,
    "fetch": _fetch,
    "verify": _verify,
    "recover": _recover,
    "send": _send,
}
