"""The state of every instance and delivery, made durable; the only package that knows SQL.

Rules that bind here:
1. What a method has returned from is on disk: every write is one transaction, committed with
   `synchronous=FULL` (SQLite) or `synchronous_commit=on` (PostgreSQL).
2. A row moves only along the tables of `jobs`; whoever moves it out of a lease proves by (id, token) that the
   lease is still its own, else StaleLease. A token is never given out twice for a row.
3. An arrival is known by (SOP Instance UID, SHA-256 of its bytes, route). The same again is acknowledged and
   starts nothing; the same UID with other content is kept, processed and counted as a conflict.
4. Bytes that are lost are lost aloud: their rows are quarantined or dead, with the reason, and come to life
   again when the same object arrives again.
5. An instance that loses its worker twice is quarantined. One that lost its worker once is leased alone, so
   that whoever dies with it in hand accuses nobody else.

    schema       tables and migrations
    dialects     a SQLite file or PostgreSQL: all that differs
    statements   what every object needs, spelled once
    database     opened, begun, committed
    commitments  what destinations are asked to commit to
    promises     what peers ask this node to commit to
    deliveries   one row per instance and destination
    instances    arrivals and the work on them
    operator     decisions of a person
    view         what these rest on: lists, one object, its story
    trail        the story of all of them, for the audit trail
    conversions  objects made for destinations that take another transfer syntax
    outages      destinations that are down, and how attempts ended
    verdicts     what readers found, counted
    guards       what a shared store of objects has remembered
    retention    what may go
    moving       into another ledger
    figures      what is counted
    recovery     what a start puts right
    set_backs    what follows a clock that was set back

Every thread and process of a node may hold a ledger of the same file, and every node of a cluster one of
the same database; a forked child must open its own.
Times are seconds since 1970-01-01 UTC.
"""

from __future__ import annotations

from dicom_node.ledger.conversions import Conversions
from dicom_node.ledger.dialects import address
from dicom_node.ledger.figures import Counts, Figures, Queue
from dicom_node.ledger.guards import Guards
from dicom_node.ledger.instances import INTERRUPTED_LIMIT, LOST_LIMIT, Added, Ended, Waiting
from dicom_node.ledger.moving import Moving
from dicom_node.ledger.operator import Operator
from dicom_node.ledger.outages import Outages
from dicom_node.ledger.promises import Promises
from dicom_node.ledger.recovery import Claim, Part
from dicom_node.ledger.retention import Purged
from dicom_node.ledger.set_backs import SetBacks
from dicom_node.ledger.trail import Step, Trail
from dicom_node.ledger.verdicts import Verdicts
from dicom_node.ledger.view import Backlog, DeadLetter, Event, Item, Judged, Kept, Parcel, View

__all__ = [
    "INTERRUPTED_LIMIT",
    "LOST_LIMIT",
    "Added",
    "Backlog",
    "Claim",
    "Counts",
    "DeadLetter",
    "Ended",
    "Event",
    "Item",
    "Judged",
    "Kept",
    "Ledger",
    "Parcel",
    "Part",
    "Purged",
    "Queue",
    "Step",
    "Waiting",
    "address",
]


class Ledger(
    SetBacks,
    Promises,
    Operator,
    View,
    Trail,
    Figures,
    Conversions,
    Outages,
    Verdicts,
    Guards,
    Moving,
):
    """The jobs of a node, in a SQLite file, or of several, in PostgreSQL; see `database.Database`."""
