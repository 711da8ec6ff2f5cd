"""python -m tests.crash.trap serve --config FILE: `dicom-node`, killed whole at a named point.

The environment says where: `CRASH_POINT` names the point, `CRASH_PASS` the how-manieth time that a process
gets there (from 1). The node has no hooks for this: functions are replaced here, before its own `main` runs;
a spawned worker imports this module again, and so is trapped like its parent.
"""

from __future__ import annotations

import itertools
import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dicom_node.cli import main
from dicom_node.ledger import Ledger

POINT, PASS = "CRASH_POINT", "CRASH_PASS"


def _die(*_result: object) -> None:
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _something(*result: object) -> bool:
    """Whether a claim came back with anything."""
    return bool(result[0])


def _always(*_result: object) -> bool:
    return True


#: point -> the method of the ledger, whether before it or after, and whether its result counts
LEDGER_POINTS: dict[str, tuple[str, str, Callable[..., bool]]] = {
    "published, no row yet": ("add", "before", _always),
    "row committed, not answered": ("add", "after", _always),
    "work claimed": ("claim_work", "after", _something),
    "output written, not finished": ("finish_all", "before", _always),
    "finished, nobody told": ("finish_all", "after", _always),
    "send claimed": ("claim_sends", "after", _something),
    "sent and answered, not recorded": ("take_receipts", "before", _always),
    "delivery recorded": ("take_receipts", "after", _always),
    "restarted, leases not yet taken back": ("recover", "before", _always),
    "restarted, leases taken back": ("recover", "after", _always),
}
#: points between the system calls that make a file durable
FILE_POINTS = ("bytes written, not synced", "bytes synced, not named", "named, folder not synced")


#: what destinations took is recorded by itself, or with the next claim, which may have nothing to record
_RECORDS = {"take_receipts": ("take_receipts", "claim_sends")}
#: in a file, what a full batch came to is recorded with the claim of the next
_ALSO = {"finish_all": ("finish_all", "_finish_and_claim")}


def _trapped(
    function: Callable[..., Any],
    when: str,
    applies: Callable[..., bool],
    number: int,
    passes: Iterator[int],
    *,
    records: bool,
) -> Callable[..., Any]:
    def wrapper(*arguments: Any, **options: Any) -> Any:
        if records and not options.get("receipts", True):
            return function(*arguments, **options)
        if when == "before" and next(passes) == number:
            _die()
        result = function(*arguments, **options)
        if when == "after" and applies(result) and next(passes) == number:
            _die()
        return result

    return wrapper


def _in_spool(place: object) -> bool:
    return "/spool/" in str(place)


def _trap_syncs(point: str, number: int) -> None:
    """Die before or after a file of the spool is synced, whichever call it is that syncs."""
    passes = itertools.count(1)

    def trapped(sync: Callable[[int], None]) -> Callable[[int], None]:
        def wrapper(handle: int) -> None:
            ours = stat.S_ISREG(os.fstat(handle).st_mode) and _in_spool(
                Path(f"/proc/self/fd/{handle}").readlink()
            )
            due = ours and next(passes) == number
            if due and point == FILE_POINTS[0]:
                _die()
            sync(handle)
            if due and point == FILE_POINTS[1]:
                _die()

        return wrapper

    os.fsync, os.fdatasync = trapped(os.fsync), trapped(os.fdatasync)


def _trap_names(number: int) -> None:
    """Die after a file of the spool has got its name, whichever call it is that names."""
    passes = itertools.count(1)

    def trapped(name: Callable[..., None]) -> Callable[..., None]:
        def wrapper(source: Any, target: Any, **options: Any) -> None:
            name(source, target, **options)
            if _in_spool(target) and next(passes) == number:
                _die()

        return wrapper

    os.rename, os.replace, os.link = trapped(os.rename), trapped(os.replace), trapped(os.link)


def _set(point: str, number: int) -> None:
    if point in LEDGER_POINTS:
        method, when, applies = LEDGER_POINTS[point]
        passes, records = itertools.count(1), method in _RECORDS
        for each in (_RECORDS | _ALSO).get(method, (method,)):
            trapped = _trapped(getattr(Ledger, each), when, applies, number, passes, records=records)
            setattr(Ledger, each, trapped)
    elif point == FILE_POINTS[2]:
        _trap_names(number)
    else:
        _trap_syncs(point, number)


if POINT in os.environ:
    _set(os.environ[POINT], int(os.environ[PASS]))

if __name__ == "__main__":
    raise SystemExit(main())
