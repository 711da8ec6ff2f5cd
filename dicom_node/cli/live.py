"""What the commands on a node's own state share: its ledger while it runs, its log, readable times."""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from dicom_node import config, log
from dicom_node.config import Config
from dicom_node.errors import LedgerError
from dicom_node.ledger import Ledger
from dicom_node.stores import ledger_exists, open_ledger

_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[Config, Ledger]]:
    """The configuration of a node and its ledger, beside the running node or without one.

    Raises
    ------
    ConfigError : the configuration cannot be used
    LedgerError : there is no ledger yet, it is of another version, or it refuses
    """
    loaded = config.load(path)
    if not ledger_exists(loaded):
        raise LedgerError(
            f"there is no ledger in {loaded.storage.folder}; has the node been started with {path}?"
        )
    ledger = open_ledger(loaded, existing=True)
    try:
        yield loaded, ledger
    finally:
        ledger.close()


def start_log(loaded: Config) -> None:
    """Write audit lines as the node does, with its salt, to standard error."""
    from dicom_node.service import log_salt

    log.setup(loaded.log.format, "info", salt=log_salt(loaded))


def audit(
    what: str,
    *,
    job: int | None = None,
    delivery: int | None = None,
    destination: str | None = None,
    uid: str | None = None,
    count: int | None = None,
) -> None:
    """The line that tells what an operator did; `uid` is the SOP Instance UID, shown as its hash."""
    log.event(
        _LOG,
        what,
        job=job,
        delivery=delivery,
        destination=destination,
        uid=None if uid is None else log.uid_hash(uid),
        count=count,
        reason="operator",
    )


def login() -> str:
    """The login of who gave a command; its number where it has no name."""
    behind = os.environ.get("SUDO_USER", "")
    if behind and os.geteuid() == 0:
        return behind
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def moment(at: float) -> str:
    """A time as everybody reads it, UTC, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def age(at: float) -> str:
    """How long ago, in one unit; in the future counts as now."""
    seconds = max(0.0, time.time() - at)
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def table(columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> list[str]:
    """Rows under their headings, numbers to the right; None is shown as a dash."""
    cells = [columns, *(tuple("-" if cell is None else str(cell) for cell in row) for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(columns))]
    right = [
        bool(rows) and all(isinstance(row[at], int | None) for row in rows) for at in range(len(columns))
    ]
    return [
        "  ".join(
            cell.rjust(width) if to_the_right else cell.ljust(width)
            for cell, width, to_the_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in cells
    ]
