"""`dicom-node serve --config FILE`"""

from __future__ import annotations

import argparse

from dicom_node import config, service


def run(args: argparse.Namespace) -> int:
    """Run the node until it is told to stop."""

    def read() -> config.Config:
        return config.load(args.config)

    return service.serve(read(), reread=read, self_test=_self_test)


def _self_test() -> int:
    """The engine is loaded only once the configuration has proven good."""
    from dicom_node.cli.selftest import reproduce

    return reproduce()
