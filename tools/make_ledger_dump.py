"""Writes what a ledger of the present schema looks like, for the tests of later schemas.

    python -m tools.make_ledger_dump

A ledger with an instance and a delivery in every state, as SQL, in `tests/unit/node/old_ledgers/`. Run it
before the first migration after a release is written: `test_ledger_schema.py` brings every dump up to date.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dicom_node.jobs import Arrival, InstanceState, Outcome, Work
from dicom_node.ledger import Ledger

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "unit" / "node" / "old_ledgers"
_START = 1_000_000.0


def main() -> int:
    """Write the dump of this version."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        live(path)
        with sqlite3.connect(path) as raw:
            version = raw.execute("PRAGMA user_version").fetchone()[0]
            lines = list(_dump(raw))
        raw.close()
    FOLDER.mkdir(exist_ok=True)
    target = FOLDER / f"{version:04}.sql"
    target.write_text("\n".join([*lines, f"PRAGMA user_version = {version};", ""]), encoding="utf-8")
    print(target)
    return 0


def live(path: Path) -> None:
    """A ledger's life of ten minutes: instance n has the UID 1.n and ends in the nth of the states below."""
    ticks = iter(range(10_000))
    book = Ledger(path, clock=lambda: _START + next(ticks))
    for number in range(1, 8):
        book.add(_arrival(number), f"{number:064x}", 1000 + number)
    book.add(_arrival(1), f"{1:064x}", 1001)
    book.add(_arrival(1), f"{100:064x}", 1100)
    works = {work.id: work for work in book.claim_work("w", 7, 1e6)}
    book.release(works[1], _START, "busy")
    for number, end in ((3, InstanceState.HELD), (4, InstanceState.QUARANTINED), (5, InstanceState.REJECTED)):
        book.finish(works[number], Outcome(end, str(end), "because"))
    for number in (6, 7):
        book.finish(works[number], _ready(works[number]), priority=number)
    sends = {send.id: send for name in ("pacs", "vna") for send in book.claim_sends(name, 2, 1e6)}
    book.delivered(sends[1], 0)
    book.retry(sends[2], _START, "no-answer")
    book.dead(sends[3], "status-c000")
    book.close()


def _arrival(number: int) -> Arrival:
    return Arrival(
        "1.2.840.10008.5.1.4.1.1.2", f"1.{number}", "1.2.840.10008.1.2.1", "CT1", "NODE", "protect"
    )


def _ready(work: Work) -> Outcome:
    return Outcome(
        InstanceState.READY,
        "protected",
        blob=f"{work.id + 1000:064x}",
        sop_class_uid=work.arrival.sop_class_uid,
        sop_instance_uid=f"2.25.{work.id}",
        transfer_syntax_uid=work.arrival.transfer_syntax_uid,
        destinations=("pacs", "vna"),
    )


def _dump(raw: sqlite3.Connection) -> Iterator[str]:
    """What `iterdump` says, without the transaction around it."""
    return (line for line in raw.iterdump() if line not in ("BEGIN TRANSACTION;", "COMMIT;"))


if __name__ == "__main__":
    sys.exit(main())
