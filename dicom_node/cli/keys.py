"""`dicom-node keys`: the ring, and the signing keys of a node."""

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
    """The ring, then the signing keys if there are any; an installation may have either alone."""
    signs = args.signing_keys.exists()
    if args.keys.exists() or not signs:
        names = {key.id: keys.fingerprint(key) for key in keys.FileKeyRing.load(args.keys).keys}
        for info in keys.describe(args.keys):
            print(f"{info.id:>3}  {names[info.id]}  {info.created}  {_state(info)}")
    if signs:
        from dicom_node import signers

        for signer in signers.describe(args.signing_keys):
            state = f"revoked {signer.revoked}" if signer.revoked else "current" if signer.current else "old"
            print(f"{signer.id:>3}  signing {signer.name}  {signer.created}  {state}")
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
    added = keys.merge(args.keys, text, str(args.source), renumber=args.renumber)
    named = ", ".join(str(identity) for identity in added)
    print(f"{args.keys}: {f'added key {named}' if added else 'holds every key of it already'}")
    return EXIT_DONE


def _new_signing(args: argparse.Namespace) -> int:
    from dicom_node import signers

    _make_folder(args.signing_keys.parent, "--signing-keys")
    made = signers.generate(args.signing_keys)
    print(
        f"signing key {made.id} ({made.name}) is current in {args.signing_keys}; leave that file on this "
        "machine, and give readers what `dicom-node keys export-public` prints"
    )
    return EXIT_DONE


def _export_public(args: argparse.Namespace) -> int:
    from dicom_node import signers
    from dicom_node.cli.files import write_whole

    chosen = [s for s in signers.describe(args.signing_keys) if args.id in (None, s.id)]
    if not chosen:
        raise KeyFileError(f"{args.signing_keys} holds no signing key {args.id}; see: dicom-node keys list")
    text = "".join((signers.pem if args.format == "pem" else signers.raw)(signer) for signer in chosen)
    if args.out is None:
        sys.stdout.write(text)
    else:
        write_whole(args.out, [text.encode("ascii")])
    return EXIT_DONE


def _revoke_signing(args: argparse.Namespace) -> int:
    from dicom_node import signers

    gone = signers.revoke(args.signing_keys, args.id)
    said = "make another one with: dicom-node keys new-signing; then " if gone.current else ""
    print(
        f"signing key {gone.id} ({gone.name}) is revoked since {gone.revoked}; {said}hand out "
        "`dicom-node keys export-public` again, until then readers trust it"
    )
    return EXIT_DONE


_ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "new": _new,
    "list": _list,
    "revoke": _revoke,
    "export": _export,
    "import": _import,
    "new-signing": _new_signing,
    "export-public": _export_public,
    "revoke-signing": _revoke_signing,
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


def _make_folder(folder: Path, option: str = "--keys") -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KeyFileError(
            f"{folder} cannot be made ({error.strerror}); choose another place with {option}"
        ) from error
