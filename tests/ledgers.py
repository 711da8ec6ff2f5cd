"""A ledger in the hands of a test: a clock that stands still, and what arrives and goes."""

from __future__ import annotations

import time

from dicom_node.jobs import Arrival, DeliveryState, InstanceState, Outcome, Send, Work
from dicom_node.ledger import Ledger, Step


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def blob(content: str) -> str:
    return content.encode().hex().rjust(64, "0")


def arrival(uid: str = "1.2.3", route: str = "protect") -> Arrival:
    return Arrival("1.2.840.10008.5.1.4.1.1.2", uid, "1.2.840.10008.1.2.1", "CT1", "NODE", route)


def outcome(*destinations: str, uid: str = "2.25.1", content: str = "out") -> Outcome:
    return Outcome(
        InstanceState.READY,
        "protected",
        blob=blob(content),
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=uid,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        destinations=destinations,
    )


def work(book: Ledger, uid: str = "1.2.3") -> Work:
    """A freshly arrived instance in the hands of worker w."""
    book.add(arrival(uid), blob(uid), 10)
    (claimed,) = book.claim_work("w", 1, 10.0)
    return claimed


def send(book: Ledger, destination: str = "pacs") -> Send:
    """A freshly queued delivery in the hands of a forwarder."""
    book.finish(work(book), outcome(destination))
    (claimed,) = book.claim_sends(destination, 1, 10.0)
    return claimed


def state(book: Ledger) -> InstanceState:
    """The state of the only instance."""
    (found,) = [state for state, count in book.counts().instances.items() if count]
    return found


def delivery_state(book: Ledger) -> DeliveryState:
    """The state of the only delivery."""
    (found,) = [state for state, count in book.counts().deliveries.items() if count]
    return found


def story(book: Ledger, after: int = 0) -> list[Step]:
    """Every step behind `after`; a server shows none while an older transaction of anybody's is open."""
    last, ends_at = book.last_step(), time.monotonic() + 30
    while True:
        steps = book.steps(after, 1000)
        if not last > after or (steps and steps[-1].id == last) or time.monotonic() > ends_at:
            return steps
        time.sleep(0.02)
