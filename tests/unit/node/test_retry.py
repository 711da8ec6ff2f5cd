"""Every answer of a peer has one consequence, and waiting times grow, are capped and are spread."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.config import RetryPolicy
from dicom_node.errors import PeerError
from dicom_node.retry import Done, GiveUp, Meaning, RetryAt, Tried, classify, decide, delay_s

_STEADY = RetryPolicy(jitter=0.0)
_NOW = 1000.0


def after(
    error: PeerError | int,
    attempts: int = 1,
    policy: RetryPolicy = _STEADY,
    *,
    refusals: int = 0,
    stand_in: bool = False,
) -> object:
    return decide(policy, Tried(attempts, refusals), error, _NOW, random.Random(1), stand_in=stand_in)


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (0x0000, Meaning.DONE),
        (0xB000, Meaning.WARNING),
        (0xB006, Meaning.WARNING),
        (0xB007, Meaning.WARNING),
        (0xBFFF, Meaning.WARNING),
        (0x0001, Meaning.WARNING),
        (0x0107, Meaning.WARNING),
        (0x0111, Meaning.WARNING),
        (0x0116, Meaning.WARNING),
        (0xA700, Meaning.TRANSIENT),
        (0xA7FF, Meaning.TRANSIENT),
        (0x0110, Meaning.TRANSIENT),
        (0x0213, Meaning.TRANSIENT),
        (0xA900, Meaning.REFUSED),
        (0xA800, Meaning.REFUSED),
        (0xC000, Meaning.REFUSED),
        (0xC123, Meaning.REFUSED),
        (0x0117, Meaning.REFUSED),
        (0x0122, Meaning.REFUSED),
        (0x0124, Meaning.REFUSED),
        (0xFE00, Meaning.REFUSED),
    ],
)
def test_statuses_fall_into_their_class(status: int, answer: Meaning) -> None:
    assert classify(status) is answer


def test_success_is_done_and_a_warning_is_done_with_a_warning() -> None:
    assert after(0x0000) == Done(0x0000, warning=False)
    assert after(0xB007) == Done(0xB007, warning=True)
    assert after(PeerError("coerced", status=0xB000, retryable=False)) == Done(0xB000, warning=True)


@pytest.mark.parametrize(
    ("error", "reason", "result"),
    [
        (0xA700, "status-a700", "transient"),
        (PeerError("busy", status=0xA700, retryable=False), "status-a700", "transient"),
        (PeerError("gone"), "no-answer", "no-answer"),
        (PeerError("gone", reason="unreachable"), "unreachable", "unreachable"),
    ],
)
def test_a_busy_or_silent_peer_is_tried_for_ever_by_default(
    error: PeerError | int, reason: str, result: str
) -> None:
    assert after(error, 1) == RetryAt(_NOW + 5.0, reason, result)
    assert after(error, 2) == RetryAt(_NOW + 10.0, reason, result)
    assert after(error, 100_000) == RetryAt(_NOW + 900.0, reason, result)


@pytest.mark.parametrize(
    ("error", "reason", "result"),
    [
        (0xC000, "status-c000", "refused"),
        (0x0122, "status-0122", "refused"),
        (PeerError("no", retryable=False), "refused", "refused"),
        (PeerError("no", retryable=False, reason="no-context"), "no-context", "no-context"),
    ],
)
def test_a_refused_object_becomes_a_dead_letter_after_its_chances(
    error: PeerError | int, reason: str, result: str
) -> None:
    assert after(error, 1) == RetryAt(_NOW + 5.0, reason, result, refused=True)
    assert after(error, 2, refusals=1) == RetryAt(_NOW + 10.0, reason, result, refused=True)
    assert after(error, 3, refusals=2) == GiveUp(reason, result)
    assert after(error, 1, RetryPolicy(refusals=1)) == GiveUp(reason, result)


def test_an_outage_does_not_use_up_the_chances_of_an_object() -> None:
    assert isinstance(after(0xC000, attempts=500), RetryAt)
    assert isinstance(after(0xC000, attempts=501, refusals=2), GiveUp)


def test_what_a_stand_in_refuses_its_own_destination_may_still_take() -> None:
    answer = after(0xC000, attempts=50, refusals=2, stand_in=True)
    assert answer == RetryAt(_NOW + 900.0, "status-c000", "refused")
    assert isinstance(after(0xA700, 9, RetryPolicy(give_up_after=2), stand_in=True), RetryAt)
    assert after(0x0000, stand_in=True) == Done(0x0000, warning=False)


def test_outages_end_too_if_the_policy_says_so() -> None:
    policy = RetryPolicy(give_up_after=2)
    assert isinstance(after(0xA700, 1, policy), RetryAt)
    assert after(0xA700, 2, policy) == GiveUp("status-a700", "transient")
    assert isinstance(after(0xC000, 2, policy), RetryAt)


@given(st.integers(0, 0xFFFF))
def test_counters_know_a_handful_of_words_whatever_peers_answer(status: int) -> None:
    answer = after(status)
    assert isinstance(answer, Done) or answer.result in ("transient", "refused")  # type: ignore[attr-defined]


policies = st.builds(
    RetryPolicy,
    first_s=st.floats(0.1, 60.0),
    factor=st.floats(1.0, 10.0),
    cap_s=st.floats(60.0, 86400.0),
    jitter=st.floats(0.0, 0.9),
)


@given(policies, st.integers(0, 10**9), st.integers())
def test_a_delay_stays_within_cap_and_jitter(policy: RetryPolicy, attempts: int, seed: int) -> None:
    plain = delay_s(policy.model_copy(update={"jitter": 0.0}), attempts, random.Random(0))
    spread = delay_s(policy, attempts, random.Random(seed))
    assert policy.first_s <= plain <= policy.cap_s
    assert abs(spread - plain) <= (policy.jitter + 1e-12) * plain


@given(policies, st.integers(1, 200))
def test_delays_never_shrink(policy: RetryPolicy, attempts: int) -> None:
    steady = policy.model_copy(update={"jitter": 0.0})
    assert delay_s(steady, attempts, random.Random(0)) <= delay_s(steady, attempts + 1, random.Random(0))


@given(st.integers(0, 0xFFFF), st.integers(1, 1000), st.booleans())
def test_every_status_has_a_consequence(status: int, attempts: int, retryable: bool) -> None:
    wrapped = PeerError("said so", status=status, retryable=retryable)
    assert after(status, attempts) == after(wrapped, attempts)
