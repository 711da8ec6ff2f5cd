"""Options of what is done with a key ring as a whole, and of `dicom-node access`; imports argparse only."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

#: gives an action its parser: name, module, help
Command = Callable[[str, str, str], argparse.ArgumentParser]


def add_since(new: argparse.ArgumentParser) -> None:
    """When a new key becomes current."""
    new.add_argument(
        "--from",
        dest="since",
        default="",
        metavar="TIME",
        help="when it becomes current, as 2027-02-15T00:00:00Z; it is read with at once (default: now)",
    )


def added(command: Command) -> tuple[argparse.ArgumentParser, ...]:
    """Revoke, export and import."""
    revoke = command("revoke", "keys", "never mark with a key again (it leaked), and say so when reading")
    revoke.add_argument("id", type=_key_id, metavar="ID", help="as `keys list` shows it")
    export = command(
        "export", "keys", "write the ring, encrypted to a certificate, for a safe or another machine"
    )
    export.add_argument(
        "--to",
        type=Path,
        required=True,
        metavar="CERT",
        help="the recipient's RSA certificate (PEM); whoever has its key can open the export (openssl cms)",
    )
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="a new file (CMS, PEM)")
    taking = command("import", "keys", "add the keys of an export, for reading; into a new ring, as they are")
    taking.add_argument(
        "source", type=Path, metavar="FILE", help="an export, or - for what `openssl cms -decrypt` writes"
    )
    taking.add_argument("--certificate", type=Path, metavar="CERT", help="that it was encrypted to (PEM)")
    taking.add_argument("--private-key", type=Path, metavar="KEY", help="of that certificate (PEM)")
    taking.add_argument(
        "--renumber",
        action="store_true",
        help="call a key otherwise whose id is another key's here, as where two sites are read with one ring",
    )
    return revoke, export, taking


def add_access(command: Command) -> None:
    """The actions of `access`."""
    user = command(
        "user", "access", "print the line of a user; the passcode is asked for, or read from a pipe"
    )
    user.add_argument("name", metavar="NAME", help="as the peer sends it (PS3.7 section D.3.3.7)")


def _key_id(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 255:
        raise argparse.ArgumentTypeError("a key id is 1 to 255")
    return int(text)
