"""`dicom-node serve --config FILE [--parts PART,...]`"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dicom_node import config, service
from dicom_node.config import Config
from dicom_node.config.words import ClusterPart
from dicom_node.errors import ConfigError


def run(args: argparse.Namespace) -> int:
    """Run the node until it is told to stop."""

    def read() -> config.Config:
        return _with_parts(config.load(args.config), args.parts)

    return service.serve(read(), reread=read, self_test=_self_test)


def _with_parts(loaded: Config, parts: Sequence[str] | None) -> Config:
    """The configuration of a cluster with the parts that the command line names in place of its own.

    Raises ConfigError when it is none of a cluster.
    """
    if parts is None:
        return loaded
    if loaded.cluster is None:
        raise ConfigError(("--parts is for a cluster; without the section `cluster` a node does everything",))
    chosen = loaded.cluster.model_copy(update={"parts": tuple(map(ClusterPart, parts))})
    return loaded.model_copy(update={"cluster": chosen})


def _self_test() -> int:
    """The engine is loaded only once the configuration has proven good."""
    from dicom_node.cli.selftest import reproduce

    return reproduce()
