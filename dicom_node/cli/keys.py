"""`dicom-node keys new | list | new-signing | export-public | revoke-signing`"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dicom_node import keys
from dicom_node.cli.files import write_whole
from dicom_node.errors import EXIT_DONE, KeyFileError


def run(args: argparse.Namespace) -> int:
    """Make a key, or list what is there; a secret is never printed."""
    return _ACTIONS[args.action](args)


def _new(args: argparse.Namespace) -> int:
    _make_folder(args.keys.parent, "--keys")
    made = keys.generate(args.keys)
    print(f"key {made} is current in {args.keys}; keep a copy of that file in a safe, away from the images")
    return EXIT_DONE


def _list(args: argparse.Namespace) -> int:
    """The ring, then the signing keys if there are any; an installation may have either alone."""
    signs = args.signing_keys.exists()
    if args.keys.exists() or not signs:
        for info in keys.describe(args.keys):
            print(f"{info.id:>3}  {info.created}  {'current' if info.current else 'read only'}")
    if signs:
        from dicom_node import signers

        for signer in signers.describe(args.signing_keys):
            state = f"revoked {signer.revoked}" if signer.revoked else "current" if signer.current else "old"
            print(f"{signer.id:>3}  {signer.created}  signing {signer.name}  {state}")
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


_ACTIONS = {
    "new": _new,
    "list": _list,
    "new-signing": _new_signing,
    "export-public": _export_public,
    "revoke-signing": _revoke_signing,
}


def _make_folder(folder: Path, option: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KeyFileError(
            f"{folder} cannot be made ({error.strerror}); choose another place with {option}"
        ) from error
