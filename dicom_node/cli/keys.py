"""`dicom-node keys new | list`"""

from __future__ import annotations

import argparse
from pathlib import Path

from dicom_node import keys
from dicom_node.errors import EXIT_DONE, KeyFileError


def run(args: argparse.Namespace) -> int:
    """Make a key, or list what is there; a key itself is never printed."""
    if args.action == "new":
        _make_folder(args.keys.parent)
        made = keys.generate(args.keys)
        print(
            f"key {made} is current in {args.keys}; keep a copy of that file in a safe, away from the images"
        )
        return EXIT_DONE
    for info in keys.describe(args.keys):
        print(f"{info.id:>3}  {info.created}  {'current' if info.current else 'read only'}")
    return EXIT_DONE


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KeyFileError(
            f"{folder} cannot be made ({error.strerror}); choose another place with --keys"
        ) from error
