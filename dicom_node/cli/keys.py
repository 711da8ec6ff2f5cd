"""`dicom-node keys new | list`"""

from __future__ import annotations

import argparse

from dicom_node import keys
from dicom_node.errors import EXIT_DONE


def run(args: argparse.Namespace) -> int:
    """Make a key, or list what is there; a key itself is never printed."""
    if args.action == "new":
        made = keys.generate(args.keys)
        print(f"key {made} is current in {args.keys}; keep a copy of that file where the images cannot be")
        return EXIT_DONE
    for info in keys.describe(args.keys):
        print(f"{info.id:>3}  {info.created}  {'current' if info.current else 'read only'}")
    return EXIT_DONE
