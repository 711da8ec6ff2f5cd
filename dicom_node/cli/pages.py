"""`--html DIR`: what was found, as pages for a browser."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dicom_node import __version__
from dicom_node.cli.telling import Report, Telling
from dicom_node.summary import Summary

if TYPE_CHECKING:
    from dicom_node.pages.study import About, StudyPages


@contextmanager
def pages_of(args: argparse.Namespace) -> Iterator[tuple[Telling, ...]]:
    """What writes the pages, if the command line wants any.

    Raises
    ------
    UsageError : the folder holds something already
    OutputError : it cannot be written
    """
    if args.html is None:
        yield ()
        return
    from dicom_node.pages.study import StudyPages  # loads a template engine, which lines do without

    with StudyPages(args.html, _about(args)) as pages:
        yield (_Pages(pages),)


class _Pages:
    """Writes the pages as reports come; says at the end, on standard error, which one to open."""

    def __init__(self, pages: StudyPages) -> None:
        self._pages = pages

    def tell(self, report: Report) -> None:
        """Write one report to its page."""
        self._pages.add(report)

    def end(self, summary: Summary) -> None:
        """Put the pages together."""
        print(
            f"{self._pages.finish(summary)}: open it in a browser; it shows patient images", file=sys.stderr
        )


def _about(args: argparse.Namespace) -> About:
    from blessmark.payload.crypto import fingerprint
    from dicom_node.keys import FileKeyRing
    from dicom_node.pages.study import About, Key
    from dicom_node.pages.words import spoken

    ring = FileKeyRing.load(args.keys)
    return About(
        judged_at=spoken(datetime.fromtimestamp(int(time.time()), UTC).isoformat()),
        version=__version__,
        keys=tuple(Key(key.id, fingerprint(key).hex()) for key in ring.keys),
        show_record=args.show_record,
    )
