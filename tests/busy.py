"""A node in the middle of its day: destinations down and paused, objects held and given up, verdicts."""

from __future__ import annotations

import time
from pathlib import Path

from dicom_node.config import Config, parse
from dicom_node.jobs import InstanceState, Outcome
from dicom_node.ledger import Ledger
from tests.ledgers import arrival, blob

PACS, ARCHIVE, NIGHT = "pacs", "archive", "night-store"
#: what no page may show: the UIDs that objects came under
UIDS = [f"1.2.826.0.1.3680043.8.498.{number}" for number in range(200)]


def config(folder: Path) -> Config:
    """A configuration with four destinations, one of which is closed at this hour."""
    hour = time.localtime(time.time() + 6 * 3600).tm_hour
    text = f"""
node: {{id: ward-3, ae_title: NODE, port: 11112}}
storage: {{folder: {folder}}}
keys: {{ring: {folder}/keys}}
destinations:
  {PACS}: {{ae_title: PACS, host: 127.0.0.1, port: 104, failover: spare, failover_after_s: 600.0}}
  {ARCHIVE}: {{ae_title: ARC, host: 127.0.0.1, port: 105}}
  spare: {{ae_title: SPARE, host: 127.0.0.1, port: 106}}
  {NIGHT}: {{ae_title: NIGHT, host: 127.0.0.1, port: 107, windows: ["{hour:02}:00-{hour:02}:30"]}}
routes:
  - {{name: protect, role: protect, destinations: [{PACS}, {ARCHIVE}, {NIGHT}]}}
"""
    return parse(text, folder / "node.yaml")


def fill(book: Ledger) -> None:
    """Put a day's worth of everything into a ledger."""
    for number, uid in enumerate(UIDS[:40]):
        _end(book, uid, *_FATES[number % len(_FATES)])
    for uid in UIDS[40:43]:
        book.add(arrival(uid), blob(uid), 10)
    for send in book.claim_sends(ARCHIVE, 3, 60.0):
        book.dead(send, "status-a900")
    book.pause(ARCHIVE)
    book.went_down(PACS, time.time() - 7500)


def hold(book: Ledger, uid: str) -> None:
    """One more object that waits for an operator."""
    _end(book, uid, InstanceState.HELD, "held", "pixel-error", ())


_FATES: tuple[tuple[InstanceState, str, str, tuple[str, ...]], ...] = (
    (InstanceState.READY, "protected", "", (PACS, ARCHIVE)),
    (InstanceState.READY, "verified", "authentic", (PACS,)),
    (InstanceState.READY, "verified", "pixels-altered", (PACS, "no-more")),
    (InstanceState.HELD, "held", "pixel-error", ()),
    (InstanceState.HELD, "held", "damaged", ()),
    (InstanceState.READY, "protected-header", "", (ARCHIVE, NIGHT)),
    (InstanceState.READY, "recovered", "", (PACS,)),
)


def _end(book: Ledger, uid: str, state: InstanceState, result: str, reason: str, to: tuple[str, ...]) -> None:
    book.add(arrival(uid), blob(uid), 10)
    (work,) = book.claim_work("w", 1, 60.0)
    outcome = Outcome(
        state,
        result,
        reason,
        blob=blob(f"out-{uid[-3:]}") if to else "",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=uid,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        destinations=to,
    )
    book.finish(work, outcome)
