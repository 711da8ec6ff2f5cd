"""Arguments of `dicom-node keys` and `dicom-node access`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    _Actions = argparse._SubParsersAction[argparse.ArgumentParser]  # argparse offers no public name for it
    _Add = Callable[[_Actions, str, str, str], argparse.ArgumentParser]
    _Ring = Callable[[argparse.ArgumentParser], None]


def add_keys(commands: _Actions, command: _Add, add_ring: _Ring) -> None:
    """The key ring: new, list, revoke, export, import."""
    keys = commands.add_parser(
        "keys",
        help="make, list, revoke, export and import the keys of this site",
        description="The key ring.",
    )
    actions = keys.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = command(actions, "new", "keys", "make a new current key, keeping the old ones for reading")
    new.add_argument(
        "--from",
        dest="since",
        default="",
        metavar="TIME",
        help="when it becomes current, as 2027-02-15T00:00:00Z; it is read with at once (default: now)",
    )
    listing = command(actions, "list", "keys", "list key ids, fingerprints, ages and states, never the keys")
    revoke = command(
        actions, "revoke", "keys", "never mark with a key again (it leaked), and say so when reading"
    )
    revoke.add_argument("id", type=_key_id, metavar="ID", help="as `keys list` shows it")
    for action in (new, listing, revoke, _add_export(actions, command), _add_import(actions, command)):
        add_ring(action)


def _add_export(actions: _Actions, command: _Add) -> argparse.ArgumentParser:
    export = command(
        actions,
        "export",
        "keys",
        "write the whole ring, encrypted to a certificate, for a safe or another machine",
    )
    export.add_argument(
        "--to",
        type=Path,
        required=True,
        metavar="CERT",
        help="the recipient's RSA certificate (PEM); whoever has its key can open the export (openssl cms)",
    )
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="a new file (CMS, PEM)")
    return export


def _add_import(actions: _Actions, command: _Add) -> argparse.ArgumentParser:
    taking = command(
        actions, "import", "keys", "add the keys of an export, for reading; into a new ring, as they are"
    )
    taking.add_argument(
        "source", type=Path, metavar="FILE", help="an export, or - for what `openssl cms -decrypt` writes"
    )
    taking.add_argument("--certificate", type=Path, metavar="CERT", help="that it was encrypted to (PEM)")
    taking.add_argument("--private-key", type=Path, metavar="KEY", help="of that certificate (PEM)")
    return taking


def add_access(commands: _Actions, command: _Add) -> None:
    """Who may open associations: user."""
    access = commands.add_parser(
        "access",
        help="make the line of a user for access.users",
        description="User names and passcodes of peers.",
    )
    actions = access.add_subparsers(dest="action", required=True, metavar="ACTION")
    user = command(
        actions, "user", "access", "print the line of a user; the passcode is asked for, or read from a pipe"
    )
    user.add_argument("name", metavar="NAME", help="as the peer sends it (PS3.7 section D.3.3.7)")


def _key_id(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 255:
        raise argparse.ArgumentTypeError("a key id is 1 to 255")
    return int(text)
