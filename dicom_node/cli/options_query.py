"""The options of `dicom-node query`; names as findscu and its relatives have them, where they have any."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from dicom_node.cli import options_verify

_LEVELS = ("patient", "study", "series", "image")
#: option, keyword that it matches, what it is for
_FILTERS = (
    ("--patient-id", "PatientID", "A*", "patient; * and ? stand for any characters"),
    ("--patient-name", "PatientName", "DOE^*", "patient's name; * and ? stand for any characters"),
    ("--date", "StudyDate", "20200101-20201231", "date of the study, or a range of dates"),
    ("--modality", "Modality", "CT", "modality of the series, or one of the study"),
    ("--accession", "AccessionNumber", "N", "accession number"),
    ("--study", "StudyInstanceUID", "UID", "study; several are separated by commas"),
    ("--series", "SeriesInstanceUID", "UID", "series; several are separated by commas"),
    ("--instance", "SOPInstanceUID", "UID", "instance; several are separated by commas"),
)
_MATCH = re.compile(r"([A-Za-z]+)=(.*)", re.DOTALL)


def add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    command: Callable[..., argparse.ArgumentParser],
    default_config: Path,
    add_reading: Callable[[argparse.ArgumentParser], None],
) -> None:
    """Add the command with its actions."""
    query = commands.add_parser(
        "query",
        help="ask an archive: list, fetch, verify, recover or send what it holds",
        description="Asks an archive by C-FIND, C-GET, C-MOVE or DICOMweb, and works on what it holds.",
    )
    actions = query.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = command(actions, "list", "query", "what the archive holds, as a table")
    fetch = command(
        actions, "fetch", "query", "copy objects into a folder, as the archive has them; can be resumed"
    )
    verify = command(actions, "verify", "query", "judge objects without keeping them")
    recover = command(actions, "recover", "query", "restore objects into a folder")
    send = command(actions, "send", "query", "send objects on to a destination")
    for action in (listing, fetch, verify, recover, send):
        _add_peer(action, default_config)
        _add_filters(action)
    _add_listing(listing)
    for action in (fetch, recover):
        action.add_argument(
            "--out", type=Path, required=True, metavar="DIR", help="the folder, made if absent"
        )
    for action in (fetch, verify, recover, send):
        action.add_argument("--all", action="store_true", help="everything that the archive holds")
    for action in (verify, recover, send):
        add_reading(action)
        # without --keys the configuration may name the ring
        action.set_defaults(keys=None, default_keys=action.get_default("keys"))
    options_verify.add_judging(verify)
    for action in (recover, send):
        options_verify.add_jobs(action)
    _add_sending(send)


def _add_sending(send: argparse.ArgumentParser) -> None:
    send.add_argument(
        "--to", required=True, metavar="DEST", help="a destination of the configuration, or AE@HOST:PORT"
    )
    send.add_argument(
        "--recover", action="store_true", help="send the originals; what is not proven is not sent"
    )


def _add_peer(action: argparse.ArgumentParser, default_config: Path) -> None:
    peer = action.add_argument_group("the archive")
    peer.add_argument(
        "--peer",
        required=True,
        metavar="PEER",
        help="a name under query.peers or destinations of the configuration, or AE@HOST:PORT, or a base URL",
    )
    peer.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"the configuration, read when a name is to be looked up (default: {default_config})",
    )
    peer.set_defaults(default_config=default_config)
    peer.add_argument("--aet", type=_ae_title, metavar="AE", help="the AE title of this machine")
    peer.add_argument("--retrieve", choices=("get", "move"), help="fetch by C-GET or C-MOVE (default: get)")
    peer.add_argument("--port", type=_port, metavar="N", help="where C-MOVE sends to, on this machine")
    peer.add_argument(
        "--credentials", type=Path, metavar="FILE", help="for a base URL: USER:PASSWORD in a file"
    )


def _add_filters(action: argparse.ArgumentParser) -> None:
    filters = action.add_argument_group("which objects")
    for option, keyword, example, help_ in _FILTERS:
        filters.add_argument(option, dest=keyword, metavar=example, help=help_)
    filters.add_argument(
        "-m",
        "--match",
        action="append",
        type=_match,
        default=[],
        metavar="KEY=VALUE",
        help="any other key by its DICOM keyword",
    )
    filters.set_defaults(filters=tuple(keyword for _, keyword, _, _ in _FILTERS))


def _add_listing(listing: argparse.ArgumentParser) -> None:
    listing.add_argument(
        "-L",
        "--level",
        choices=_LEVELS,
        help="what a row is (default: study; series or image where --study or --series is given)",
    )
    listing.add_argument(
        "-r", "--return", dest="wanted", action="append", default=[], metavar="KEY", help="one more column"
    )
    listing.add_argument(
        "--limit", type=_limit, metavar="N", help="no more than N rows; the archive is told to stop"
    )
    form = listing.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON document, with every value in full")
    form.add_argument("--csv", action="store_true", help="comma-separated values, with every value in full")


def _match(text: str) -> tuple[str, str]:
    found = _MATCH.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError("KEYWORD=VALUE, for example StudyDescription=*HEAD*")
    return found[1], found[2]


def _ae_title(text: str) -> str:
    if not re.fullmatch(r"[ -\[\]-~]{1,16}", text) or text != text.strip():
        raise argparse.ArgumentTypeError("1 to 16 characters, no backslash, no spaces around them")
    return text


def _number(text: str, least: int, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,7}", text) or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"a whole number from {least} to {most}")
    return int(text)


def _port(text: str) -> int:
    return _number(text, 1, 65535)


def _limit(text: str) -> int:
    return _number(text, 1, 1_000_000)
