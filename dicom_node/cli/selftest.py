"""`dicom-node selftest`"""

from __future__ import annotations

import argparse

from blessmark.errors import SelfTestError
from blessmark.selftest import selftest
from dicom_node.errors import EXIT_DONE, NodeError


def run(args: argparse.Namespace) -> int:
    """Reproduce the packaged vectors on this machine."""
    del args
    print(f"self-test passed: {reproduce()} vectors reproduced bit for bit")
    return EXIT_DONE


def reproduce() -> int:
    """How many vectors there are; raises NodeError when this machine does not reproduce all of them."""
    try:
        return selftest()
    except SelfTestError as error:
        raise NodeError(f"self-test failed: {error}; do not run the node on this machine") from error
