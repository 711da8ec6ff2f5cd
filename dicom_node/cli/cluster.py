"""`dicom-node cluster move | check`"""

from __future__ import annotations

import argparse
import sys
import time

from dicom_node import config
from dicom_node.cli.live import start_log
from dicom_node.errors import EXIT_DONE, EXIT_ERROR, UsageError
from dicom_node.moving import Copied, Move, check

#: seconds between two signs of life
_TELL_S = 5.0


def run(args: argparse.Namespace) -> int:
    """Move a node into a cluster, or check a cluster's objects."""
    return _check(args) if args.action == "check" else _move(args)


def _move(args: argparse.Namespace) -> int:
    new = config.load(args.config)
    start_log(new)
    move = Move(config.load(args.source), new, _Telling())
    if args.back_out:
        move.back_out()
        print(
            "taken back: the node may start again; make the database of the cluster anew before another move"
        )
        return EXIT_DONE
    done = move.run()
    print(f"moved: {done.copied} objects copied by this command, {done.claims} claims checked in the store")
    for states in (done.counts.instances, done.counts.deliveries):
        for state, count in states.items():
            if count:
                print(f"{state:<12} {count}")
    print("the machines of the cluster may start; this node starts no more with its configuration so far")
    return EXIT_DONE


class _Telling:
    """Says how far the copying is, every few seconds."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _TELL_S

    def __call__(self, copied: Copied) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _TELL_S
            print(
                f"{copied.seen} objects looked at, {copied.objects} copied, {copied.bytes / 1e9:.1f} GB",
                file=sys.stderr,
                flush=True,
            )


def _check(args: argparse.Namespace) -> int:
    loaded = config.load(args.config)
    if loaded.cluster is None:
        raise UsageError(
            "--config names no cluster; a node that runs alone checks its objects at every start"
        )
    start_log(loaded)
    claims, lost = check(loaded, lose=args.lose)
    print(f"{claims} claims, {lost} lost")
    return EXIT_ERROR if lost else EXIT_DONE
