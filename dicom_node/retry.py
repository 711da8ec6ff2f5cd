"""What to do after an attempt to deliver; pure: the clock and the dice are arguments.

Answers of a peer fall into four classes (PS3.7 annex C, PS3.4 table B.2-1):

    class      statuses                                        meaning for the delivery
    done       0000                                            delivered
    warning    Bxxx, 0001, 0107, 0111, 0116                    delivered; the status is kept
    transient  A7xx, 0110, 0213, no answer, abort, busy        try again, as often as `give_up_after` allows
    refused    anything else, no presentation context          dead letter after `refusals` such answers

0110 (processing failure) and 0213 (resource limitation) say nothing against the object, so they are
transient. Some archives answer A700 or C000 to everything; both limits are therefore settings.
"""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass

from dicom_node.config import RetryPolicy
from dicom_node.errors import PeerError

_WARNINGS = frozenset({0x0001, 0x0107, 0x0111, 0x0116})
_TRANSIENT = frozenset({0x0110, 0x0213})
#: beyond this many doublings every sensible policy has reached its cap; keeps factor ** n finite
_MAX_STEPS = 64


class Meaning(enum.StrEnum):
    """What a peer's answer means for a delivery; see the table above."""

    DONE = "done"
    WARNING = "warning"
    TRANSIENT = "transient"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Try again at `at` (seconds since 1970); `refused` if it was the object that was not taken."""

    at: float
    reason: str
    result: str
    refused: bool = False


@dataclass(frozen=True, slots=True)
class GiveUp:
    """To the dead letters."""

    reason: str
    result: str


@dataclass(frozen=True, slots=True)
class Done:
    """Delivered; `warning` tells whether the peer had something to say about it."""

    status: int
    warning: bool


Decision = RetryAt | GiveUp | Done


def classify(status: int) -> Meaning:
    """The class of a C-STORE status, 0..0xFFFF."""
    if status == 0:
        return Meaning.DONE
    if status >> 12 == 0xB or status in _WARNINGS:
        return Meaning.WARNING
    if status >> 8 == 0xA7 or status in _TRANSIENT:
        return Meaning.TRANSIENT
    return Meaning.REFUSED


@dataclass(frozen=True, slots=True)
class Tried:
    """How often a delivery was attempted, this time included, and how often the object was refused before."""

    attempts: int
    refusals: int = 0


def decide(
    policy: RetryPolicy,
    tried: Tried,
    error: PeerError | int,
    now: float,
    rng: random.Random,
    *,
    stand_in: bool = False,
) -> Decision:
    """What follows an attempt, which ended in a status or an error.

    Parameters
    ----------
    policy : the destination's retry settings
    tried : how often before
    error : the C-STORE status, or the error that took its place
    now : seconds since 1970-01-01 UTC
    rng : source of the jitter
    stand_in : whether another destination was asked in place of the delivery's own; what that one refuses,
        its own may still take, so nothing is given up
    """
    status = error.status if isinstance(error, PeerError) else error
    answer = _answer(error, status)
    if answer in (Meaning.DONE, Meaning.WARNING):
        assert status is not None
        return Done(status, warning=answer is Meaning.WARNING)
    refused = answer is Meaning.REFUSED
    reason, result = _reason(answer, error, status), _result(answer, error, status)
    count = tried.refusals + 1 if refused else tried.attempts
    limit = policy.refusals if refused else policy.give_up_after
    if limit is not None and count >= limit and not stand_in:
        return GiveUp(reason, result)
    at = now + delay_s(policy, tried.attempts, rng)
    return RetryAt(at, reason, result, refused=refused and not stand_in)


def delay_s(policy: RetryPolicy, attempts: int, rng: random.Random) -> float:
    """Seconds to wait after attempt `attempts` (from 1): geometric, capped, then spread by +-jitter."""
    steps = min(max(attempts - 1, 0), _MAX_STEPS)
    plain = min(policy.cap_s, policy.first_s * policy.factor**steps)
    return plain * (1.0 + policy.jitter * rng.uniform(-1.0, 1.0))


def _answer(error: PeerError | int, status: int | None) -> Meaning:
    if status is not None:
        return classify(status)
    assert isinstance(error, PeerError)
    return Meaning.TRANSIENT if error.retryable else Meaning.REFUSED


def _reason(answer: Meaning, error: PeerError | int, status: int | None) -> str:
    """The word that the delivery keeps."""
    return f"status-{status:04x}" if status is not None else _result(answer, error, status)


def _result(answer: Meaning, error: PeerError | int, status: int | None) -> str:
    """The word that the metrics count by: bounded whatever statuses peers invent."""
    if status is not None or not isinstance(error, PeerError):
        return str(answer)
    return error.reason or ("no-answer" if answer is Meaning.TRANSIENT else "refused")
