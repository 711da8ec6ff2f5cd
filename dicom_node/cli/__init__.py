"""The command line: arguments and exit codes, nothing else.

Exit codes: 0 done, or everything judged authentic; 1 an error; 2 the command line is wrong; 3 a finding
other than authentic. Commands are imported only when they run, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from blessmark.errors import WatermarkError
from dicom_node import __version__
from dicom_node.cli import options_keys, options_query, options_ring, options_verify
from dicom_node.errors import EXIT_ERROR, NodeError
from dicom_node.problem import unforeseen

_DEFAULT_CONFIG = Path(os.environ.get("DICOM_NODE_CONFIG", "/etc/dicom-node/dicom-node.yaml"))
#: of instances, then of deliveries; spelled out, because `jobs` loads what `--help` must not wait for
STATES = (
    *("received", "working", "ready", "held", "rejected", "quarantined"),
    *("queued", "sending", "delivered", "dead", "dropped"),
)
_DEFAULT_KEYS = Path(os.environ.get("DICOM_NODE_KEYS", "/etc/dicom-node/keyring"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    args = parser().parse_args(argv)
    try:
        with _terminal_manners():
            return int(importlib.import_module(f"dicom_node.cli.{args.module}").run(args))
    except NodeError as error:
        _complain(str(error))
        return error.exit_code
    except WatermarkError as error:
        _complain(str(error))
        return EXIT_ERROR
    except KeyboardInterrupt:
        _complain("interrupted; files written so far are complete, nothing is half-written")
        return EXIT_ERROR
    except BrokenPipeError:
        # the reader (`| head`) has seen enough; keep the interpreter from complaining about it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except Exception as error:
        _complain(unforeseen(error))
        return EXIT_ERROR


@contextlib.contextmanager
def _terminal_manners() -> Iterator[None]:
    """Be stopped by SIGTERM as by SIGINT, show file names of any bytes, keep libraries from talking.

    Warnings of pydicom quote values, which may be a patient's.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings(), _interruptible():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _complain(text: str) -> None:
    print(f"dicom-node: {text}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """Every command and option; the manual page of the tool."""
    top = argparse.ArgumentParser(
        prog="dicom-node",
        description="Hides the patient record, encrypted, in the pixels outside the region of interest, "
        "and forwards the image; verifies and restores on the other side.",
        epilog="Exit codes: 0 done or all authentic, 1 error, 2 usage, 3 a finding other than authentic.",
    )
    top.add_argument("--version", action="version", version=f"dicom-node {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_protect(commands)
    _add_verify(commands)
    _add_recover(commands)
    options_query.add(commands, _command, _DEFAULT_CONFIG, _add_reading)
    _add_keys(commands)
    _add_access(commands)
    _add_config(commands)
    _add_queue(commands)
    _add_trace(commands)
    _add_audit(commands)
    _add_cluster(commands)
    _command(commands, "selftest", "selftest", "check that this machine reproduces the packaged vectors")
    return top


_Commands = argparse._SubParsersAction  # argparse offers no public name for what add_subparsers returns


def _command(
    commands: _Commands[argparse.ArgumentParser], name: str, module: str, help_: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=help_, description=help_[0].upper() + help_[1:] + ".")
    command.set_defaults(module=module)
    return command


def _add_serve(commands: _Commands[argparse.ArgumentParser]) -> None:
    serve = _command(commands, "serve", "serve", "run the node: receive, protect, forward")
    serve.add_argument("--config", type=Path, required=True, metavar="FILE", help="the YAML configuration")


def _add_protect(commands: _Commands[argparse.ArgumentParser]) -> None:
    protect = _command(commands, "protect", "protect", "watermark a file or a folder of files")
    _add_in_and_out(protect)
    _add_reading(protect)
    protect.add_argument(
        "--node-id",
        type=_node_id,
        default="cli",
        metavar="ID",
        help="written into the watermark (default: cli)",
    )
    protect.add_argument(
        "--max-change",
        type=_grey_levels,
        metavar="N",
        help="most that a sample may move, grey levels (default: 1 %% of the range in use)",
    )
    _add_carrier(protect)
    _add_header(protect)
    protect.add_argument(
        "--sign", action="store_true", help="sign every image with the current key of --signing-keys"
    )
    options_keys.add_signing(protect)
    protect.add_argument(
        "--on-unprotectable",
        choices=("header", "whole-image", "pass", "reject"),
        default="header",
        help="when an image has nothing outside its region of interest: seal the record into a private "
        "header element (default), embed into the whole image, copy unprotected, or skip it",
    )


def _add_carrier(protect: argparse.ArgumentParser) -> None:
    protect.add_argument(
        "--carrier",
        choices=("lattice", "dct"),
        default="lattice",
        help="lattice restores bit for bit (default), dct is the paper's own and restores approximately",
    )
    protect.add_argument(
        "--block",
        type=int,
        choices=(6, 8, 10),
        default=6,
        help="side of a block of the carrier dct, pixels (default: 6)",
    )


def _add_header(protect: argparse.ArgumentParser) -> None:
    protect.add_argument(
        "--uids",
        choices=("keep", "derive"),
        default="keep",
        help="derive: new UIDs of instances and series, the same wherever the key ring is",
    )
    protect.add_argument(
        "--deidentify",
        action="store_true",
        help="take out of the header what identifies the patient (PS3.15 Annex E, Basic Profile)",
    )


def _add_verify(commands: _Commands[argparse.ArgumentParser]) -> None:
    verify = _command(
        commands, "verify", "verify", "judge files: authentic, altered (where), damaged, unmarked"
    )
    _add_reading(verify)
    options_verify.add(verify)
    _add_trail(verify)


def _add_recover(commands: _Commands[argparse.ArgumentParser]) -> None:
    recover = _command(commands, "recover", "recover", "remove the watermark and restore pixels and header")
    _add_in_and_out(recover)
    _add_reading(recover)
    _add_trail(recover)
    recover.add_argument(
        "--partial",
        action="store_true",
        help="also write images of which only some tiles can be restored (never called authentic)",
    )
    options_verify.add_jobs(recover)


def _add_keys(commands: _Commands[argparse.ArgumentParser]) -> None:
    keys = commands.add_parser(
        "keys", help="make, list, revoke, export, import the keys of this site", description="The key ring."
    )
    actions = keys.add_subparsers(dest="action", required=True, metavar="ACTION")
    options_keys.add(partial(_command, actions), _add_ring)


def _add_access(commands: _Commands[argparse.ArgumentParser]) -> None:
    access = commands.add_parser(
        "access", help="make the line of a user", description="Users that peers prove to be."
    )
    actions = access.add_subparsers(dest="action", required=True, metavar="ACTION")
    options_ring.add_access(partial(_command, actions))


def _add_config(commands: _Commands[argparse.ArgumentParser]) -> None:
    config = commands.add_parser("config", help="check a configuration", description="The configuration.")
    actions = config.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = _command(actions, "check", "config", "report every problem of a configuration at once")
    check.add_argument("config", type=Path, metavar="FILE", help="the YAML configuration")
    check.add_argument(
        "--dry-run",
        action="store_true",
        help="also try what it names: keys, disk, ports, networks, and every destination by C-ECHO and the "
        "objects that it would take; nothing is sent or changed",
    )
    _command(actions, "schema", "config", "print the JSON schema for editors")


def _add_queue(commands: _Commands[argparse.ArgumentParser]) -> None:
    queue = commands.add_parser(
        "queue",
        help="what waits, is held or was given up; pause, retry, drop",
        description="The queue of a node, running or not. An ID is a number as the log gives it: 17 for "
        "job=17, an instance with all its deliveries; d17 for delivery=17.",
    )
    actions = queue.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = _command(actions, "list", "queue", "counts and ages by destination and state; rows on demand")
    listing.add_argument("--state", choices=STATES, metavar="STATE", help=f"only {', '.join(STATES)}")
    listing.add_argument("--destination", metavar="D", help="only this destination")
    listing.add_argument(
        "--limit", type=_count, metavar="N", help="list so many rows (default: 50 with a filter, else none)"
    )
    show = _command(actions, "show", "queue", "one instance and its deliveries")
    show.add_argument("id", type=_row_id, metavar="ID")
    for action in (listing, show):
        action.add_argument("--json", action="store_true", help="one JSON document instead of lines")
    retry = _command(actions, "retry", "queue", "send, or work on, again what was given up or held")
    retry.add_argument("--dead", action="store_true", help="all dead letters")
    retry.add_argument("--held", action="store_true", help="all held instances, none quarantined")
    drop = _command(actions, "drop", "queue", "never send what waits, is held or dead; asks first")
    drop.add_argument("--yes", action="store_true", help="do not ask; for scripts")
    for action in (retry, drop):
        action.add_argument("ids", nargs="*", type=_row_id, metavar="ID")
        action.add_argument("--destination", metavar="D", help="all that is meant of this destination")
    pause = _command(actions, "pause", "queue", "send nothing more to a destination; survives restarts")
    resume = _command(actions, "resume", "queue", "end a pause")
    for action in (pause, resume):
        action.add_argument("destination", metavar="D")
    export = _command(actions, "export", "queue", "write an object as it arrived (17) or as it is sent (d17)")
    export.add_argument("id", type=_row_id, metavar="ID")
    export.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="where to; never asked of a header"
    )
    for action in (listing, show, retry, drop, pause, resume, export):
        _add_configuration(action)


def _add_trace(commands: _Commands[argparse.ArgumentParser]) -> None:
    trace = _command(
        commands, "trace", "trace", "every change of state of one object, by its SOP Instance UID"
    )
    trace.add_argument("uid", metavar="UID", help="as it arrived or as it was sent")
    trace.add_argument("--json", action="store_true", help="one JSON document instead of lines")
    _add_configuration(trace)


def _add_audit(commands: _Commands[argparse.ArgumentParser]) -> None:
    audit = commands.add_parser(
        "audit", help="what waits for the audit repository", description="The audit trail of a node."
    )
    actions = audit.add_subparsers(dest="action", required=True, metavar="ACTION")
    status = _command(actions, "status", "audit", "how many messages wait, and since when; 3 if any was lost")
    status.add_argument("--json", action="store_true", help="one JSON document instead of lines")
    export = _command(actions, "export", "audit", "write the messages that wait, one XML document a line")
    export.add_argument("--out", type=Path, metavar="FILE", help="where to (default: standard output)")
    for action in (status, export):
        _add_configuration(action)


def _add_cluster(commands: _Commands[argparse.ArgumentParser]) -> None:
    cluster = commands.add_parser(
        "cluster",
        help="make a node part of a cluster, check its objects",
        description="A cluster of machines.",
    )
    actions = cluster.add_subparsers(dest="action", required=True, metavar="ACTION")
    move = _command(
        actions, "move", "cluster", "bring the objects and the ledger of a node that runs alone to a cluster"
    )
    move.add_argument(
        "--from",
        dest="source",
        type=Path,
        required=True,
        metavar="FILE",
        help="the node's configuration so far",
    )
    move.add_argument(
        "--back-out", action="store_true", help="let the node start again; only before the cluster has worked"
    )
    check = _command(
        actions, "check", "cluster", "hold every object that the ledger claims against the store"
    )
    check.add_argument("--lose", action="store_true", help="have the rows say what is lost, as a start would")
    for action in (move, check):
        action.add_argument(
            "--config", type=Path, required=True, metavar="FILE", help="the configuration of the cluster"
        )


def _add_configuration(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config",
        type=Path,
        default=_DEFAULT_CONFIG,
        metavar="FILE",
        help="the node's configuration (default: $DICOM_NODE_CONFIG or /etc/dicom-node/dicom-node.yaml)",
    )


def _add_in_and_out(command: argparse.ArgumentParser) -> None:
    command.add_argument("source", type=Path, metavar="IN", help="a DICOM file, or a folder of them")
    command.add_argument(
        "--out", type=Path, required=True, metavar="OUT", help="a file, or a folder that mirrors IN"
    )


def _add_reading(command: argparse.ArgumentParser) -> None:
    _add_ring(command)
    command.add_argument(
        "--segmenter",
        metavar="NAME",
        help="what draws the region of interest (default: anatomy; vessels in colour fundus photographs)",
    )


def _add_trail(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the configuration of the node whose audit trail is told (default: $DICOM_NODE_CONFIG or "
        "/etc/dicom-node/dicom-node.yaml, if it is there)",
    )
    command.set_defaults(usual_config=_DEFAULT_CONFIG)


def _add_ring(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--keys",
        type=Path,
        default=_DEFAULT_KEYS,
        metavar="FILE",
        help="the key ring (default: $DICOM_NODE_KEYS or /etc/dicom-node/keyring)",
    )


class RowId(NamedTuple):
    """A row of the ledger as the log names it: `17` is job=17, an instance; `d17` is delivery=17."""

    number: int
    delivery: bool

    def __str__(self) -> str:
        return f"{'d' if self.delivery else ''}{self.number}"


def _row_id(text: str) -> RowId:
    if not re.fullmatch(r"d?[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError("a number as the log gives it: 17 (job=17) or d17 (delivery=17)")
    return RowId(int(text.removeprefix("d")), text.startswith("d"))


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or not int(text):
        raise argparse.ArgumentTypeError("a whole number from 1 to 999999")
    return int(text)


def _node_id(text: str) -> str:
    """As `node.id` of the configuration."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,16}", text):
        raise argparse.ArgumentTypeError("1 to 16 letters, digits, '.', '_' and '-'")
    return text


def _grey_levels(text: str) -> int:
    """As `watermark.max_change` of the configuration."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError("a whole number from 1 to 65535")
    return int(text)
