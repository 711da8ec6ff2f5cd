"""The options of `dicom-node verify`, and those that every command that judges shares."""

from __future__ import annotations

import argparse
import re
from pathlib import Path


def add(verify: argparse.ArgumentParser) -> None:
    """What `verify` reads, and how it judges and tells."""
    verify.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="files, folders, a DICOMDIR, zip archives; - is one instance from standard input",
    )
    add_judging(verify)


def add_judging(command: argparse.ArgumentParser) -> None:
    """How instances are judged, and how that is told."""
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON document instead of lines")
    form.add_argument(
        "--csv", action="store_true", help="a row an instance instead of lines, for spreadsheets"
    )
    command.add_argument(
        "--summary-only", action="store_true", help="only what there is to say of studies and series"
    )
    command.add_argument(
        "--html",
        type=Path,
        metavar="DIR",
        help="besides, write pages with pictures (patient data) for a browser into a new folder",
    )
    command.add_argument(
        "--show-record",
        action="store_true",
        help="include the fields of the record (patient data) in --json and --html",
    )
    add_jobs(command)


def add_jobs(command: argparse.ArgumentParser) -> None:
    """How many processes work."""
    command.add_argument(
        "--jobs", type=_jobs, metavar="N", help="processes that work at a time (default: one a core)"
    )


def _jobs(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", text) or not int(text):
        raise argparse.ArgumentTypeError("a whole number from 1 to 999")
    return int(text)
