"""`dicom-node keys new | list | revoke | export | import`"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Callable
from pathlib import Path

from dicom_node import escrow, keys
from dicom_node.errors import EXIT_DONE, KeyFileError, UsageError


def run(args: argparse.Namespace) -> int:
    """Do what is asked of the ring; a key itself is never printed."""
    return _ACTIONS[args.action](args)


def _new(args: argparse.Namespace) -> int:
    _make_folder(args.keys.parent)
    made = keys.generate(args.keys, args.since)
    when = next((info.current_from for info in keys.describe(args.keys) if info.id == made), "")
    print(
        f"key {made} {f'will be current from {when}' if when else 'is current'} in {args.keys};"
        " keep a copy of that file in a safe, away from the images"
    )
    return EXIT_DONE


def _list(args: argparse.Namespace) -> int:
    names = {key.id: keys.fingerprint(key) for key in keys.FileKeyRing.load(args.keys).keys}
    for info in keys.describe(args.keys):
        print(f"{info.id:>3}  {names[info.id]}  {info.created}  {_state(info)}")
    return EXIT_DONE


def _state(info: keys.KeyInfo) -> str:
    if info.revoked:
        return f"revoked {info.revoked}"
    if info.current_from:
        return f"current from {info.current_from}"
    return "current" if info.current else "read only"


def _revoke(args: argparse.Namespace) -> int:
    keys.revoke(args.keys, args.id)
    print(
        f"key {args.id} is revoked in {args.keys}; nothing is marked with it, and what was says so when read"
    )
    return EXIT_DONE


def _export(args: argparse.Namespace) -> int:
    sealed = escrow.sealed(keys.text_of(args.keys), args.to)
    try:
        handle = os.open(args.out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(sealed)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise KeyFileError(f"{args.out} cannot be written: {error.strerror}") from error
    print(f"{args.out} holds {args.keys}, for whoever has the key of {args.to}; try once that it opens")
    return EXIT_DONE


def _import(args: argparse.Namespace) -> int:
    content = _content(args.source)
    if not escrow.is_sealed(content):
        text = escrow.checked(content)
    elif args.certificate is None or args.private_key is None:
        raise UsageError(f"{args.source} is encrypted; name --certificate and --private-key of its recipient")
    else:
        text = escrow.opened(content, args.certificate, args.private_key, _passphrase(args.private_key))
    _make_folder(args.keys.parent)
    added = keys.merge(args.keys, text, str(args.source))
    named = ", ".join(str(identity) for identity in added)
    print(f"{args.keys}: {f'added key {named}' if added else 'holds every key of it already'}")
    return EXIT_DONE


_ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "new": _new,
    "list": _list,
    "revoke": _revoke,
    "export": _export,
    "import": _import,
}


def _content(source: Path) -> bytes:
    if str(source) == "-":
        return sys.stdin.buffer.read()
    try:
        return source.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{source} cannot be read: {error.strerror}") from error


def _passphrase(key: Path) -> bytes | None:
    """Of an encrypted private key, asked for on the terminal; None for one that is not."""
    try:
        locked = b"ENCRYPTED" in key.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{key} cannot be read: {error.strerror}") from error
    return getpass.getpass(f"Passphrase of {key}: ").encode() if locked else None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KeyFileError(
            f"{folder} cannot be made ({error.strerror}); choose another place with --keys"
        ) from error
