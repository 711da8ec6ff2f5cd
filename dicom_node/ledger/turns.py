"""Whose turn it is to write, among the processes that share one SQLite file.

SQLite lets one writer in and has the others look again by themselves: after 1, 2, 5 .. milliseconds, in the
end ten times a second. Whoever has waited for long looks least often, and a process that writes all the time
is always there before it. Here everybody looks three times a millisecond.
"""

from __future__ import annotations

import sqlite3
import time

#: seconds between two looks: who writes is done within a few tenths of a millisecond
LOOK_S = 0.0003


def begin(raw: sqlite3.Connection, limit_s: float) -> None:
    """Begin to write; sqlite3.OperationalError (SQLITE_BUSY) when somebody else does for so long.

    SQLite must not wait by itself: the connection has a `busy_timeout` of 0.
    """
    deadline = time.monotonic() + limit_s
    while not _begun(raw, deadline):
        time.sleep(LOOK_S)


def _begun(raw: sqlite3.Connection, deadline: float) -> bool:
    try:
        raw.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        # the lowest byte says what; those above it why, as that somebody mends the log of a process that died
        busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
        if not busy or time.monotonic() >= deadline:
            raise
        return False
    return True
