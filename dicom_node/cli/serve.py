"""`dicom-node serve --config FILE [--parts PART,...]`"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from dicom_node import config, service
from dicom_node.config import Config
from dicom_node.config.words import ClusterPart
from dicom_node.errors import ConfigError, NodeError
from dicom_node.pool import Pool


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
    """How many vectors this machine reproduces, found out in a process of its own.

    The libraries of the engine take 150 MB; the process that receives and sends has no other use for them.
    """
    with Pool[None, int](_reproduced, _ended, 1) as pool:
        return sum(count for _, count in pool.answers([None]))


def _reproduced() -> Callable[[None], int]:
    from dicom_node.cli.selftest import reproduce

    count = reproduce()
    return lambda _: count


def _ended(_: None, code: int | None) -> int:
    raise NodeError(f"the self-test ended before it could tell its result (exit code {code}); start again")
