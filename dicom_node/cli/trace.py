"""`dicom-node trace UID`"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from dicom_node.cli.live import moment, opened, table
from dicom_node.errors import EXIT_DONE, LedgerError
from dicom_node.ledger import Event, Item, Ledger


def run(args: argparse.Namespace) -> int:
    """Tell every change of state of the instances that came, or left, under a UID."""
    with opened(args.config) as (_, ledger):
        events = ledger.trace(args.uid)
        items = _items(ledger, events)
    if not events:
        raise LedgerError(
            f"nothing is known of {args.uid}: it never came, or its history has ended (storage.history_days)"
        )
    if args.json:
        print(
            json.dumps({"uid": args.uid, "instances": [_document(item, events) for item in items]}, indent=1)
        )
        return EXIT_DONE
    rows: list[tuple[object, ...]] = [
        (moment(event.at), event.instance_id, event.what, event.destination or None, event.reason or None)
        for event in events
    ]
    print("\n".join(table(("time", "job", "what", "destination", "reason"), rows)))
    for item in items:
        print(f"\njob {item.id} is {item.state} now{_because(item.reason)}")
        for parcel in item.deliveries:
            print(f"  d{parcel.id} to {parcel.destination} is {parcel.state}{_because(parcel.reason)}")
    return EXIT_DONE


def _items(ledger: Ledger, events: Sequence[Event]) -> list[Item]:
    found = [ledger.item(number) for number in dict.fromkeys(event.instance_id for event in events)]
    return [item for item in found if item is not None]


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""


def _document(item: Item, events: Sequence[Event]) -> dict[str, object]:
    return {
        "job": item.id,
        "state": item.state,
        "result": item.result,
        "reason": item.reason,
        "route": item.route,
        "deliveries": [
            {
                "delivery": parcel.id,
                "destination": parcel.destination,
                "state": parcel.state,
                "attempts": parcel.attempts,
                "reason": parcel.reason,
            }
            for parcel in item.deliveries
        ],
        "events": [
            {
                "time": moment(event.at),
                "what": event.what,
                "destination": event.destination,
                "reason": event.reason,
            }
            for event in events
            if event.instance_id == item.id
        ],
    }
