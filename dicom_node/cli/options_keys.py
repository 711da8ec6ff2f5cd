"""Options of `dicom-node keys`; imports argparse only, because `--help` must answer at once."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from dicom_node.cli import options_ring

DEFAULT_SIGNING = Path(os.environ.get("DICOM_NODE_SIGNING_KEYS", "/etc/dicom-node/signing-keys"))

#: gives an action its parser: name, module, help
Command = Callable[[str, str, str], argparse.ArgumentParser]


def add(command: Command, add_ring: Callable[[argparse.ArgumentParser], None]) -> None:
    """The actions of `keys`."""
    new = command("new", "keys", "make a new current key, keeping the old ones for reading")
    options_ring.add_since(new)
    listing = command("list", "keys", "list key ids, fingerprints, ages and states; never the keys")
    for action in (new, listing, *options_ring.added(command)):
        add_ring(action)
    signing = command("new-signing", "keys", "make a new current signing key, keeping the old ones")
    export = command(
        "export-public", "keys", "print the public halves of the signing keys, for those who check signatures"
    )
    export.add_argument("--id", type=_number, metavar="N", help="only this key (default: all, oldest first)")
    export.add_argument(
        "--format",
        choices=("pem", "raw"),
        default="pem",
        help="pem, with id and age as comment (default), or a line of 64 hex digits a key",
    )
    export.add_argument("--out", type=Path, metavar="FILE", help="write to this file instead of the terminal")
    revoke = command(
        "revoke-signing", "keys", "mark a signing key as trusted no more; export and hand out again"
    )
    revoke.add_argument("id", type=_number, metavar="N")
    for action in (listing, signing, export, revoke):
        add_signing(action)


def add_signing(command: argparse.ArgumentParser) -> None:
    """The file of signing keys."""
    command.add_argument(
        "--signing-keys",
        type=Path,
        default=DEFAULT_SIGNING,
        metavar="FILE",
        help="the signing keys (default: $DICOM_NODE_SIGNING_KEYS or /etc/dicom-node/signing-keys)",
    )


def add_public(command: argparse.ArgumentParser) -> None:
    """The public keys that a reader trusts."""
    command.add_argument(
        "--public-key",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="check signatures with the public keys of this file; may be repeated, and needs no key ring",
    )


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 100_000:
        raise argparse.ArgumentTypeError("a number as `keys list` gives it")
    return int(text)
