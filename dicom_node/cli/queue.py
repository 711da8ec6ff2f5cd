"""`dicom-node queue list | show | retry | pause | resume | drop | export`

Works on the ledger itself, beside a running node or without one; the node looks at it every second. Nothing
of a patient is shown: an object is named by its number and by the hash under which the log knows its UID.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dicom_node import log
from dicom_node.cli import RowId
from dicom_node.cli.live import age, audit, login, moment, opened, start_log, table
from dicom_node.config import Config
from dicom_node.errors import EXIT_DONE, EXIT_ERROR, LedgerError, UsageError
from dicom_node.jobs import DeliveryState, InstanceState
from dicom_node.ledger import Item, Kept, Ledger, Parcel, Queue
from dicom_node.standing import Standing, standing
from dicom_node.stores import open_spool

_KEPT = (InstanceState.HELD, InstanceState.QUARANTINED)
_WAITING = (DeliveryState.QUEUED, DeliveryState.DEAD)
_CHUNK_BYTES = 1 << 20


def run(args: argparse.Namespace) -> int:
    """Run one action."""
    with opened(args.config) as (config, ledger):
        return _ACTIONS[args.action](args, config, ledger)


# list


def _list(args: argparse.Namespace, config: Config, ledger: Ledger) -> int:
    queues = [queue for queue in ledger.queues() if _wanted(args, queue)]
    paused, down = ledger.paused(), ledger.outages()
    rows = list(_rows(args, ledger, queues)) if args.state or args.destination or args.limit else None
    if args.json:
        print(json.dumps(_listed(config, queues, paused, down, rows), indent=1))
        return EXIT_DONE
    print("\n".join(_summary(config, queues, paused, down)))
    if rows is not None:
        print("\n" + "\n".join(table(_ROW_COLUMNS, [_row(row) for row in rows])))
    return EXIT_DONE


def _wanted(args: argparse.Namespace, queue: Queue) -> bool:
    return args.state in (None, queue.state) and args.destination in (None, queue.destination)


def _rows(args: argparse.Namespace, ledger: Ledger, queues: Sequence[Queue]) -> Iterator[Parcel | Kept]:
    """The rows behind the summary, at most as many as asked for."""
    left = args.limit or 50
    for queue in queues:
        found: Sequence[Parcel | Kept]
        if isinstance(queue.state, DeliveryState):
            found = ledger.parcels(queue.destination, queue.state, left)
        else:
            found = ledger.instances_in(queue.state, left)
        yield from found
        left -= len(found)
        if left <= 0:
            return


def _summary(
    config: Config, queues: Sequence[Queue], paused: Mapping[str, float], down: Mapping[str, float]
) -> list[str]:
    rows: list[tuple[object, ...]] = [
        (
            queue.destination or "(this node)",
            queue.state,
            queue.count,
            None if queue.oldest_at is None else age(queue.oldest_at),
            _remark(config, queue.destination, paused, down),
        )
        for queue in queues
    ]
    silent = {*paused, *down} - {queue.destination for queue in queues}
    rows += [(name, None, 0, None, _remark(config, name, paused, down)) for name in sorted(silent)]
    return table(("where", "state", "count", "oldest", ""), rows)


def _remark(config: Config, destination: str, paused: Mapping[str, float], down: Mapping[str, float]) -> str:
    if not destination:
        return ""
    stands = standing(config, destination, paused, down, time.time())
    remarks = [] if stands.configured else ["NOT IN THE CONFIGURATION"]
    if stands.paused_since is not None:
        remarks.append(f"PAUSED since {moment(stands.paused_since)}")
    if stands.closed_until is not None:
        remarks.append(f"CLOSED until {moment(stands.closed_until)}")
    if stands.down_since is not None:
        over = f", goes to {stands.goes_to}" if stands.goes_to else ""
        remarks.append(f"DOWN since {moment(stands.down_since)}{over}")
    return ", ".join(remarks)


_ROW_COLUMNS = ("id", "job", "destination", "state", "attempts", "since", "next", "reason")


def _row(row: Parcel | Kept) -> tuple[object, ...]:
    if isinstance(row, Kept):
        return (row.id, row.id, None, row.state, None, moment(row.received_at), None, row.reason)
    due = moment(row.next_at) if row.state is DeliveryState.QUEUED else None
    return (
        f"d{row.id}",
        row.instance_id,
        row.destination,
        row.state,
        row.attempts,
        moment(row.queued_at),
        due,
        row.reason,
    )


def _stands_listed(name: str, stands: Standing) -> dict[str, object]:
    def at(moment_at: float | None) -> str | None:
        return None if moment_at is None else moment(moment_at)

    return {
        "name": name,
        "configured": stands.configured,
        "paused_since": at(stands.paused_since),
        "closed_until": at(stands.closed_until),
        "down_since": at(stands.down_since),
        "goes_to": stands.goes_to,
    }


def _listed(
    config: Config,
    queues: Sequence[Queue],
    paused: Mapping[str, float],
    down: Mapping[str, float],
    rows: Sequence[Parcel | Kept] | None,
) -> dict[str, object]:
    known = set(config.destinations)
    names = sorted(known | {*paused, *down} | {queue.destination for queue in queues if queue.destination})
    document: dict[str, object] = {
        "destinations": [
            _stands_listed(name, standing(config, name, paused, down, time.time())) for name in names
        ],
        "queues": [
            {
                "destination": queue.destination or None,
                "state": queue.state,
                "count": queue.count,
                "oldest": None if queue.oldest_at is None else moment(queue.oldest_at),
            }
            for queue in queues
        ],
    }
    if rows is not None:
        document["rows"] = [dict(zip(_ROW_COLUMNS, _row(row), strict=True)) for row in rows]
    return document


# show


def _show(args: argparse.Namespace, config: Config, ledger: Ledger) -> int:
    start_log(config)  # for its salt: a UID is shown under the hash that the log gives it
    item = _item_of(ledger, args.id)
    shown = _shown(item)
    if args.json:
        print(json.dumps(shown, indent=1))
        return EXIT_DONE
    for name, value in shown.items():
        if name != "deliveries":
            print(f"{name:<16} {value}")
    rows = [_row(parcel) for parcel in item.deliveries]
    if rows:
        print("\n" + "\n".join(table(_ROW_COLUMNS, rows)))
    return EXIT_DONE


def _shown(item: Item) -> dict[str, object]:
    return {
        "job": item.id,
        "state": item.state,
        "result": item.result,
        "reason": item.reason,
        "uid": log.uid_hash(item.sop_instance_uid),
        "sop_class": item.sop_class_uid,
        "route": item.route,
        "calling_ae": item.calling_ae,
        "received": moment(item.received_at),
        "bytes": item.size,
        "attempts": item.attempts,
        "repeats": item.repeats,
        "conflict": item.conflict,
        "deliveries": [dict(zip(_ROW_COLUMNS, _row(parcel), strict=True)) for parcel in item.deliveries],
    }


# retry, drop


@dataclass(frozen=True, slots=True)
class _Change:
    """A change of one row that an operator asked for, ready to be made."""

    make: Callable[[], None]
    job: int
    delivery: int | None
    destination: str | None
    uid: str


def _retry(args: argparse.Namespace, config: Config, ledger: Ledger) -> int:
    if bool(args.ids) == (args.dead or args.held) or (args.destination and not args.dead):
        raise UsageError("name IDs, or --dead (with --destination D, if you like), or --held")
    start_log(config)
    if args.ids:
        return _make(_changes(ledger, args.ids, ledger.rework, ledger.requeue), "requeued")
    done = 0
    if args.dead:
        done += _all(lambda: ledger.requeue_dead(args.destination))
    if args.held:
        done += _all(ledger.rework_held)
    audit("requeued", count=done, destination=args.destination)
    print(f"{done} queued again")
    return EXIT_DONE


def _drop(args: argparse.Namespace, config: Config, ledger: Ledger) -> int:
    if bool(args.ids) == bool(args.destination):
        raise UsageError("name IDs, or --destination D for all that waits for it or is dead")
    start_log(config)
    if args.ids:
        changes = _changes(
            ledger,
            args.ids,
            lambda number: ledger.reject(number, login()),
            lambda number: ledger.drop(number, login()),
        )
        if not _sure(args, f"{len(changes)} of {len(args.ids)} named"):
            return EXIT_ERROR
        return _make(changes, "dropped")
    waiting = sum(
        queue.count
        for queue in ledger.queues()
        if queue.destination == args.destination and queue.state in _WAITING
    )
    if not _sure(args, f"all {waiting} waiting or dead deliveries to {args.destination}"):
        return EXIT_ERROR
    done = _all(lambda: ledger.drop_waiting(args.destination, login()))
    audit("dropped", count=done, destination=args.destination)
    print(f"{done} dropped")
    return EXIT_DONE


def _changes(
    ledger: Ledger,
    ids: Sequence[RowId],
    of_instance: Callable[[int], None],
    of_delivery: Callable[[int], None],
) -> list[_Change]:
    """Everything that is to be changed; raises before anything is, if an ID names nothing that waits."""
    found: dict[tuple[int, int | None], _Change] = {}
    for row in ids:
        item = _item_of(ledger, row)
        parcels = [
            p for p in item.deliveries if p.state in _WAITING and (not row.delivery or p.id == row.number)
        ]
        kept = item.state in _KEPT and not row.delivery
        if not parcels and not kept:
            raise LedgerError(
                f"{row}: nothing of it is held, quarantined, waiting or dead; see queue show {row}"
            )
        for parcel in parcels:
            make = _bound(of_delivery, parcel.id)
            found[item.id, parcel.id] = _Change(
                make, item.id, parcel.id, parcel.destination, item.sop_instance_uid
            )
        if kept:
            found[item.id, None] = _Change(
                _bound(of_instance, item.id), item.id, None, None, item.sop_instance_uid
            )
    return list(found.values())


def _bound(change: Callable[[int], None], number: int) -> Callable[[], None]:
    return lambda: change(number)


def _make(changes: Sequence[_Change], what: str) -> int:
    for change in changes:
        change.make()
        audit(
            what,
            job=change.job,
            delivery=change.delivery,
            destination=change.destination,
            uid=change.uid,
        )
    print(f"{len(changes)} {'queued again' if what == 'requeued' else what}")
    return EXIT_DONE


def _all(step: Callable[[], int]) -> int:
    """Repeat a step until nothing is left; how many rows it changed in all."""
    done = 0
    while changed := step():
        done += changed
    return done


def _sure(args: argparse.Namespace, what: str) -> bool:
    if args.yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError("dropping cannot be undone; confirm with --yes")
    print(f"never send {what}? This cannot be undone. [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


# pause, resume


def _pause(args: argparse.Namespace, config: Config, ledger: Ledger) -> int:
    return _switch(args, config, ledger, ledger.pause, "paused")


def _resume(args: argparse.Namespace, config: Config, ledger: Ledger) -> int:
    return _switch(args, config, ledger, ledger.resume, "resumed")


def _switch(
    args: argparse.Namespace, config: Config, ledger: Ledger, change: Callable[[str], bool], what: str
) -> int:
    name = args.destination
    known = {*config.destinations, *ledger.paused(), *(queue.destination for queue in ledger.queues())} - {""}
    if name not in known:
        raise UsageError(f"there is no destination {name}; there are {', '.join(sorted(known)) or 'none'}")
    start_log(config)
    if not change(name):
        print(f"{name} {'is paused already' if what == 'paused' else 'was not paused'}")
        return EXIT_DONE
    audit(what, destination=name)
    print(f"{name} is {what}")
    return EXIT_DONE


# export


def _export(args: argparse.Namespace, config: Config, ledger: Ledger) -> int:
    from dicom_node.cli.files import write_whole

    start_log(config)
    item = _item_of(ledger, args.id)
    blob = item.blob
    if args.id.delivery:
        blob = next(parcel.blob for parcel in item.deliveries if parcel.id == args.id.number)
    spool = open_spool(config, reserve_bytes=0)
    spool.verify(blob)
    with spool.open(blob) as file:
        write_whole(args.out, iter(lambda: file.read(_CHUNK_BYTES), b""))
    ledger.note_export(item.id, login())
    audit("exported", job=item.id, uid=item.sop_instance_uid)
    print(f"{args.out}: {'as it is sent' if args.id.delivery else 'as it arrived'}; it holds patient data")
    return EXIT_DONE


def _item_of(ledger: Ledger, row: RowId) -> Item:
    """The instance of an ID, which may name one of its deliveries."""
    number: int | None = row.number
    if row.delivery:
        parcel = ledger.parcel(row.number)
        number = None if parcel is None else parcel.instance_id
    item = None if number is None else ledger.item(number)
    if item is None:
        raise LedgerError(f"there is no {row}; see queue list (17 is an instance, d17 a delivery)")
    return item


_ACTIONS: Mapping[str, Callable[[argparse.Namespace, Config, Ledger], int]] = {
    "list": _list,
    "show": _show,
    "retry": _retry,
    "drop": _drop,
    "pause": _pause,
    "resume": _resume,
    "export": _export,
}
