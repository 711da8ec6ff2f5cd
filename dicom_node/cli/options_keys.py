"""Options of `dicom-node keys`; imports argparse only, because `--help` must answer at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from dicom_node.cli import options_ring

#: gives an action its parser: name, module, help
Command = Callable[[str, str, str], argparse.ArgumentParser]


def add(command: Command, add_ring: Callable[[argparse.ArgumentParser], None]) -> None:
    """The actions of `keys`."""
    new = command("new", "keys", "make a new current key, keeping the old ones for reading")
    options_ring.add_since(new)
    listing = command("list", "keys", "list key ids, fingerprints, ages and states; never the keys")
    for action in (new, listing, *options_ring.added(command)):
        add_ring(action)
