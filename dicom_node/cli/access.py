"""`dicom-node access user NAME`"""

from __future__ import annotations

import argparse
import getpass
import sys

from dicom_node import users
from dicom_node.errors import EXIT_DONE, UsageError


def run(args: argparse.Namespace) -> int:
    """Print the line of a user for the file that `access.users` names; the passcode is never an argument."""
    print(users.entry(args.name, _passcode()))
    return EXIT_DONE


def _passcode() -> str:
    if not sys.stdin.isatty():
        said = sys.stdin.readline().rstrip("\r\n")
    else:
        said = getpass.getpass("Passcode: ")
        if getpass.getpass("Once more: ") != said:
            raise UsageError("the two are not the same")
    if not said:
        raise UsageError("an empty passcode proves nothing")
    return said
