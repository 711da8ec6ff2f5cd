"""`dicom-node audit status | export`

What waits for the audit repository, beside a running node or without one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping

from dicom_node import config
from dicom_node.audit.auditor import Auditor
from dicom_node.audit.events import TrailUsed
from dicom_node.audit.syslog import document
from dicom_node.audit.trail import auditor_of
from dicom_node.cli.live import age, moment
from dicom_node.cli.trail import person
from dicom_node.config import Config
from dicom_node.errors import EXIT_DONE, EXIT_FINDING, UsageError
from dicom_node.service import log_salt


def run(args: argparse.Namespace) -> int:
    """Run one action."""
    loaded = config.load(args.config)
    auditor = auditor_of(loaded, log_salt(loaded))
    if auditor is None:
        raise UsageError(f"{args.config} has no audit.host: this node keeps no audit trail")
    return _ACTIONS[args.action](args, loaded, auditor)


def _status(args: argparse.Namespace, loaded: Config, auditor: Auditor) -> int:
    """How much waits, and what was lost; 3 when something was."""
    store, state = auditor.store, auditor.store.state()
    waiting = store.waiting()
    oldest = store.written_at(waiting[0]) if waiting else None
    if args.json:
        shown = {
            "repository": f"{loaded.audit.host}:{loaded.audit.port}",
            "transport": loaded.audit.transport,
            "waiting": len(waiting),
            "oldest": None if oldest is None else moment(oldest),
            "at_most": loaded.audit.keep_messages,
            "lost": state.lost,
            "lost_since": moment(state.lost_since) if state.lost else None,
        }
        print(json.dumps(shown, indent=1))
    else:
        since = "" if oldest is None else f", the oldest for {age(oldest)}"
        print(f"{len(waiting)} messages wait for {loaded.audit.host}:{loaded.audit.port}{since}")
        if state.lost:
            print(f"{state.lost} events were not told since {moment(state.lost_since)}")
    return EXIT_FINDING if state.lost else EXIT_DONE


def _export(args: argparse.Namespace, _loaded: Config, auditor: Auditor) -> int:
    """The documents that wait, one a line, oldest first; that they were read is told before."""
    waiting = auditor.store.waiting()
    auditor.require([TrailUsed(time.time(), person())])
    documents = (auditor.store.read(number) for number in waiting)
    lines = (document(message) + b"\n" for message in documents if message is not None)
    if args.out is None:
        for line in lines:
            sys.stdout.write(line.decode("utf-8"))
        return EXIT_DONE
    from dicom_node.cli.files import write_whole

    write_whole(args.out, lines)
    print(f"{args.out}: {len(waiting)} messages")
    return EXIT_DONE


_ACTIONS: Mapping[str, Callable[[argparse.Namespace, Config, Auditor], int]] = {
    "status": _status,
    "export": _export,
}
