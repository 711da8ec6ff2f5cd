"""Whether a destination is there, as its last answers tell; pure: the clock and the dice are arguments.

    what an attempt shows        while it is there                    while it is down (seen by a probe)
    ANSWERED (done, refused)     stays there                          is there again
    BUSY (A7xx, 0110, 0213)      down after `BUSY_LIMIT` objects      there again if it was silent; if it was
                                 in a row were sent away              busy it stays down, and waits grow
    SILENT (no answer, abort,    down at once                         stays down, and waits grow
      association refused)
    NOTHING (our own fault)      nothing is learnt                    nothing is learnt

While it is down one object at a time goes to it, at waits that grow from `retry.first_s` to `retry.cap_s`: so
the number of attempts in an outage does not depend on how many objects wait. One object that is sent away for
ever, or that makes the peer hang up, costs its destination a pause now and then and holds nobody up behind.
"""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass, replace

from dicom_node.config import RetryPolicy
from dicom_node.errors import PeerError
from dicom_node.retry import Meaning, classify, delay_s

#: so many different objects in a row that are told to come back later mean that the destination is busy
BUSY_LIMIT = 3


class Contact(enum.StrEnum):
    """What an attempt shows about the destination itself; see the table above."""

    ANSWERED = "answered"
    BUSY = "busy"
    SILENT = "silent"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Reach:
    """What is known of a destination.

    Attributes
    ----------
    failures : attempts in a row, counted while it is down, that it did not take; 0 means it is there
    since : when the first of them ended, seconds since 1970
    retry_at : when the next one may go out
    busy : deliveries that it sent away since it last took one, at most `BUSY_LIMIT`
    """

    failures: int = 0
    since: float | None = None
    retry_at: float = 0.0
    busy: frozenset[int] = frozenset()

    @property
    def down(self) -> bool:
        """Whether it gets one object at a time."""
        return self.failures > 0


def contact_of(answer: int | PeerError) -> Contact:
    """What the end of an attempt, a C-STORE status or an error, shows about the destination."""
    if isinstance(answer, int):
        return Contact.BUSY if classify(answer) is Meaning.TRANSIENT else Contact.ANSWERED
    if answer.status is not None:
        return contact_of(answer.status)
    if answer.retryable:
        return Contact.NOTHING if answer.reason in OWN_FAULTS else Contact.SILENT
    return Contact.ANSWERED if answer.reason == "no-context" else Contact.NOTHING


#: reasons of a failure that can pass, but not by anything that the destination does
OWN_FAULTS = frozenset({"spool-full", "spool-unavailable"})


def observed(
    reach: Reach,
    contact: Contact,
    delivery: int,
    *,
    probe: bool,
    now: float,
    policy: RetryPolicy,
    rng: random.Random,
) -> Reach:
    """What is known after one more attempt.

    Parameters
    ----------
    contact, delivery : what it showed, and with which object
    probe : whether it was the one attempt that is allowed while the destination is down
    now : when it ended
    policy, rng : how long to wait
    """
    if contact is Contact.NOTHING:
        return reach
    if contact is Contact.ANSWERED:
        return Reach()
    busy = (
        reach.busy if contact is Contact.SILENT or len(reach.busy) >= BUSY_LIMIT else reach.busy | {delivery}
    )
    if contact is Contact.BUSY and len(busy) < BUSY_LIMIT:
        return Reach(busy=busy)  # whoever answers is there
    if reach.down and not probe:
        return replace(reach, busy=busy)  # sent before it was known to be down: tells the same once more
    failures = reach.failures + 1
    since = now if reach.since is None else reach.since
    return Reach(failures, since, now + delay_s(policy, failures, rng), busy)


def after_restart(since: float, now: float) -> Reach:
    """What is known of a destination that was down since `since` when the node stopped: ask it at once."""
    return Reach(1, since, now)


def stands_aside(reach: Reach, after_s: float, now: float) -> bool:
    """Whether a destination has been down for so long that another takes its deliveries."""
    return reach.since is not None and now - reach.since >= after_s
