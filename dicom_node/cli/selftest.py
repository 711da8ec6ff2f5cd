"""`dicom-node selftest`"""

from __future__ import annotations

import argparse

from blessmark.selftest import selftest

from blessmark.errors import SelfTestError
from dicom_node.errors import EXIT_DONE, NodeError


def run(args: argparse.Namespace) -> int:
    """Reproduce the packaged vectors on this machine."""
    del args
    try:
        checked = selftest()
    except SelfTestError as error:
        raise NodeError(f"self-test failed: {error}; do not run the node on this machine") from error
    print(f"self-test passed: {checked} vectors reproduced bit for bit")
    return EXIT_DONE
