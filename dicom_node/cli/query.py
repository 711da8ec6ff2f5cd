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
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dicom_node import archives, log, report
from dicom_node.archives import Collection, Missed
from dicom_node.cli import query_table
from dicom_node.cli.asking import Asked, destination_of, keys_of, opened, tls_of
from dicom_node.cli.files import Pair
from dicom_node.cli.judging import exit_code, how_of, judge
from dicom_node.cli.recover import restoring, was_restored
from dicom_node.cli.telling import Report
from dicom_node.errors import EXIT_DONE, EXIT_ERROR, EXIT_FINDING, InputError, NodeError, UsageError
from dicom_node.inquiry import Order
from dicom_node.item import Item
from dicom_node.landing import OTHER_CONTENT, Landed, Manifest
from dicom_node.pool import cores
from dicom_node.report import ErrorReport, InstanceReport, Note, Unreadable
from dicom_node.summary import summarised, totals

if TYPE_CHECKING:
    from dicom_node.cli.sending import Courier

T = TypeVar("T")

#: lines of the manifest between two times that they are put on disk
_SYNC_EVERY = 100


def run(args: argparse.Namespace) -> int:
    """Run one action."""
    log.setup("text", "error")
    if "keys" in args:
        args.keys = keys_of(args)
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
    counts: Counter[str] = Counter()
    with opened(args) as asked, contextlib.closing(Manifest(args.out)) as manifest:
        here = _Here(asked.orders(), manifest)
        with asked.collected(args.out, here, durable=True) as collection:
            came_in = _accounted(asked, collection, _progress(collection, "fetching"))
            for number, came in enumerate(came_in):
                if isinstance(came, Unreadable):
                    _tell(came)
                else:
                    manifest.add(came)
                counts["error" if isinstance(came, Unreadable) else "fetched"] += 1
                if number % _SYNC_EVERY == 0:
                    manifest.sync()
        counts["already there"] += here.count
        _tell_refused(collection)
    print(_counted(counts))
    return EXIT_ERROR if counts["error"] or not +counts else EXIT_DONE


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
    how_of(args)
    with opened(args) as asked, _scratch() as folder, asked.collected(folder, asked.orders()) as collection:
        found = (
            came
            if isinstance(came, Unreadable)
            else Item(asked.called(came.uid), collection.landing.path(came), temporary=True)
            for came in _accounted(asked, collection, iter(collection))
        )
        watched = partial(_watched, collection, "verifying")
        code = judge(args, found, lambda reports: asked.trail.watching(watched(reports)))
        _tell_refused(collection)
    return code


def _recover(args: argparse.Namespace) -> int:
    how_of(args)
    with opened(args) as asked, _scratch() as folder, asked.collected(folder, asked.orders()) as collection:
        originals = _restored(args, asked, collection, lambda came: args.out / came.file)
        summary = summarised(_told(report for report, _ in originals))
        _tell_refused(collection)
    print(totals(summary))
    return exit_code(summary)


def _restored(
    args: argparse.Namespace, asked: Asked, collection: Collection, target: Callable[[Landed], Path]
) -> Iterator[tuple[Report, Path | None]]:
    """Everything restored in other processes: the report on it, and where its original is if it is proven."""
    called: dict[Path, str] = {}
    missed: list[Unreadable] = []

    def pairs() -> Iterator[Pair]:
        for came in _accounted(asked, collection, _progress(collection, "recovering")):
            if isinstance(came, Unreadable):
                missed.append(came)
                continue
            path = collection.landing.path(came)
            called[path] = asked.called(came.uid)
            yield Pair(path, target(came))

    asked.trail.allow_restoring(None)
    with restoring(how_of(args), args.jobs or cores()) as pool:
        for pair, found in pool.answers(pairs()):
            pair.source.unlink(missing_ok=True)
            original = None
            if isinstance(found, InstanceReport):
                asked.trail.judged(found.place.study, found.finding)
                if was_restored(found):
                    original = pair.target
                    asked.trail.restored(found.place.study)
            yield replace(found, source=called.pop(pair.source)), original
    yield from ((each, None) for each in missed)


# send


def _send(args: argparse.Namespace) -> int:
    from dicom_node.cli.sending import Courier

    if args.recover:
        how_of(args)
    destination = destination_of(args, args.to)
    counts: Counter[str] = Counter()
    with opened(args) as asked, _scratch() as folder, asked.collected(folder, asked.orders()) as collection:
        objects = _originals if args.recover else _as_they_are
        with contextlib.closing(
            Courier(args.to, destination, asked.query.ae_title or "DICOMNODE", tls_of(args, args.to))
        ) as courier:
            doubtful = False
            for report, path in objects(args, asked, collection):
                counts[_sent(courier, report, path)] += 1
                doubtful |= _is_doubtful(report)
        _tell_refused(collection)
    print(_counted(counts))
    if counts["error"] or not counts["sent"]:
        return EXIT_ERROR
    return EXIT_FINDING if counts["not sent"] or doubtful else EXIT_DONE


def _is_doubtful(report: Report) -> bool:
    """Whether there is more to say of an object than that it is authentic, were its original sent or not."""
    return isinstance(report, InstanceReport) and (report.finding != "authentic" or bool(report.key_revoked))


def _as_they_are(
    _args: argparse.Namespace, asked: Asked, collection: Collection
) -> Iterator[tuple[Report, Path | None]]:
    for came in _accounted(asked, collection, _progress(collection, "sending")):
        if isinstance(came, Unreadable):
            yield came, None
        else:
            yield Note(asked.called(came.uid), "sent", ""), collection.landing.path(came)


def _originals(
    args: argparse.Namespace, asked: Asked, collection: Collection
) -> Iterator[tuple[Report, Path | None]]:
    """Restored beside what was fetched; what is not proven original goes no further."""
    place = collection.landing.folder
    return _restored(args, asked, collection, lambda came: place / f"{came.file}.restored")


def _sent(courier: Courier, report: Report, path: Path | None) -> str:
    """Send one object and tell what is not well; the word that it is counted by."""
    failed = "" if path is None else courier.deliver(path)
    if path is not None:
        path.unlink(missing_ok=True)
    if failed:
        report = ErrorReport(report.source, failed)
    if not isinstance(report, Note):
        _tell(report)
    return "error" if isinstance(report, ErrorReport) else "not sent" if path is None else "sent"


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


def _progress(collection: Collection, what: str) -> Iterator[Landed | Missed]:
    """What came, with a bar on standard error when that is a terminal."""
    return _watched(collection, what, iter(collection))


def _watched(collection: Collection, what: str, items: Iterator[T]) -> Iterator[T]:
    """Items of which there will be as many as were ordered, with a bar; the number grows as more is found."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    shared = sys.stdout.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=shared) as bar:
        task = bar.add_task(what, total=None)
        for item in items:
            bar.update(task, advance=1, total=collection.ordered)
            yield item


def _accounted(
    asked: Asked, collection: Collection, items: Iterator[Landed | Missed]
) -> Iterator[Landed | Unreadable]:
    """What came, and what did not with the reason; what ends the fetching early is told like one more.

    So whoever reads gets a whole document, and the exit code of an error.
    """
    try:
        for came in items:
            if isinstance(came, Missed):
                yield Unreadable(asked.called(came.uid), came.why)
            else:
                asked.trail.fetched(asked.archive, came.study, came.sop_class)
                yield came
        if archives.NO_UID in asked.source.notes:
            yield Unreadable(asked.name, f"{archives.NO_UID}; what they stand for was not fetched")
        if count := collection.landing.refused.get(OTHER_CONTENT):
            yield Unreadable(asked.name, f"{count} instances were {OTHER_CONTENT}; the first of each is told")
    except UsageError:
        raise
    except NodeError as error:
        yield Unreadable(asked.name, f"{error}; what came before is told above")


def _told(found: Iterable[Report]) -> Iterator[Report]:
    for each in found:
        _tell(each)
        yield each


def _tell(found: Report) -> None:
    stream = sys.stdout if isinstance(found, InstanceReport) else sys.stderr
    print(report.line(found), file=stream, flush=True)


def _tell_refused(collection: Collection) -> None:
    """Tell what came and was not kept."""
    for why, count in collection.landing.refused.items():
        print(f"note: {count} not kept: {why}", file=sys.stderr)


def _counted(counts: Counter[str]) -> str:
    """How many of each, the most frequent first."""
    return ", ".join(f"{count} {what}" for what, count in counts.most_common() if count) or "nothing found"


_ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "list": _list,
    "fetch": _fetch,
    "verify": _verify,
    "recover": _recover,
    "send": _send,
}
