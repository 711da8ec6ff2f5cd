"""When a destination is down, when it is back, and how often it is asked meanwhile."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.config import RetryPolicy
from dicom_node.errors import PeerError
from dicom_node.reach import (
    BUSY_LIMIT,
    Contact,
    Reach,
    after_restart,
    contact_of,
    observed,
    stands_aside,
)

STEADY = RetryPolicy(jitter=0.0)
DAY_S = 86400.0


def after(
    reach: Reach,
    contact: Contact,
    *,
    delivery: int = 1,
    probe: bool = True,
    now: float = 0.0,
    policy: RetryPolicy = STEADY,
    seed: int = 0,
) -> Reach:
    return observed(reach, contact, delivery, probe=probe, now=now, policy=policy, rng=random.Random(seed))


@pytest.mark.parametrize(
    ("answer", "contact"),
    [
        (0x0000, Contact.ANSWERED),
        (0xB000, Contact.ANSWERED),
        (0xC000, Contact.ANSWERED),
        (0xA900, Contact.ANSWERED),
        (0xA700, Contact.BUSY),
        (0x0110, Contact.BUSY),
        (PeerError("x", status=0xA700), Contact.BUSY),
        (PeerError("x", reason="unreachable"), Contact.SILENT),
        (PeerError("x", reason="rejected-permanent"), Contact.SILENT),
        (PeerError("x", reason="closed"), Contact.SILENT),
        (PeerError("x"), Contact.SILENT),
        (PeerError("x", retryable=False, reason="no-context"), Contact.ANSWERED),
        (PeerError("x", reason="spool-full"), Contact.NOTHING),
        (PeerError("x", reason="spool-unavailable"), Contact.NOTHING),
        (PeerError("x", retryable=False, reason="not-convertible"), Contact.NOTHING),
        (PeerError("x", retryable=False, reason="unexpected-error"), Contact.NOTHING),
    ],
)
def test_what_an_answer_shows(answer: int | PeerError, contact: Contact) -> None:
    assert contact_of(answer) is contact


def test_silence_is_an_outage_at_once_and_an_answer_ends_it() -> None:
    down = after(Reach(), Contact.SILENT, now=100.0)
    assert (down.down, down.since, down.retry_at) == (True, 100.0, 105.0)
    longer = after(down, Contact.SILENT, now=106.0)
    assert (longer.since, longer.retry_at) == (100.0, 116.0)
    assert after(longer, Contact.ANSWERED) == Reach()


def test_what_fails_beside_the_probe_does_not_lengthen_the_waits() -> None:
    down = after(Reach(), Contact.SILENT, now=100.0)
    assert after(down, Contact.SILENT, probe=False, now=101.0) == down


def test_one_object_that_is_always_sent_away_is_no_outage() -> None:
    reach = Reach()
    for _ in range(50):
        reach = after(reach, Contact.BUSY, delivery=7)
        assert not reach.down


def test_several_objects_sent_away_in_a_row_are_one() -> None:
    reach = Reach()
    for delivery in range(BUSY_LIMIT):
        assert not reach.down
        reach = after(reach, Contact.BUSY, delivery=delivery, now=10.0)
    assert (reach.down, reach.since) == (True, 10.0)
    assert after(reach, Contact.BUSY, delivery=9, now=20.0).failures == 2
    assert after(reach, Contact.ANSWERED) == Reach()


def test_an_answer_between_them_starts_the_count_anew() -> None:
    reach = Reach()
    for delivery in range(30):
        reach = after(reach, Contact.BUSY, delivery=delivery)
        reach = after(reach, Contact.ANSWERED if delivery % 2 else Contact.NOTHING)
        assert not reach.down


def test_whoever_was_silent_and_is_busy_now_is_there() -> None:
    down = after(Reach(), Contact.SILENT, now=5.0)
    assert after(down, Contact.BUSY, delivery=3) == Reach(busy=frozenset({3}))


def test_our_own_faults_show_nothing() -> None:
    down = after(Reach(), Contact.SILENT)
    assert after(down, Contact.NOTHING) is down


def test_a_restart_forgets_no_outage_and_asks_at_once() -> None:
    reach = after_restart(50.0, 1000.0)
    assert (reach.down, reach.since, reach.retry_at) == (True, 50.0, 1000.0)
    assert stands_aside(reach, 600.0, 1000.0)


def test_another_takes_over_after_the_agreed_time_only() -> None:
    down = after(Reach(), Contact.SILENT, now=100.0)
    assert not stands_aside(Reach(), 0.0, 1e9)
    assert not stands_aside(down, 60.0, 159.9)
    assert stands_aside(down, 60.0, 160.0)


@given(st.lists(st.sampled_from(Contact), max_size=60), st.integers(1, 5))
def test_every_history_leaves_a_sensible_state(contacts: Sequence[Contact], objects: int) -> None:
    reach, now = Reach(), 0.0
    for number, contact in enumerate(contacts):
        now = max(now + 1.0, reach.retry_at)
        reach = after(reach, contact, delivery=number % objects, now=now)
        assert reach.down == (reach.since is not None)
        assert len(reach.busy) <= BUSY_LIMIT
        if reach.down and contact is not Contact.NOTHING:
            assert now < reach.retry_at <= now + STEADY.cap_s
        if contact is Contact.ANSWERED:
            assert not reach.down


@given(st.integers(1, 30), st.floats(0.0, 0.5), st.integers(0, 1000))
def test_days_of_outage_cost_few_attempts_however_much_waits(days: int, jitter: float, seed: int) -> None:
    policy, reach, now, attempts = RetryPolicy(jitter=jitter), Reach(), 0.0, 0
    while now < days * DAY_S:
        attempts += 1
        reach = after(reach, Contact.SILENT, delivery=attempts, now=now, policy=policy, seed=seed + attempts)
        now = reach.retry_at
    # a wait of 900 s, shortened by the jitter; and the short ones at the beginning
    assert attempts <= days * DAY_S / (900.0 * (1 - jitter)) + 10


def test_two_nodes_do_not_come_back_at_the_same_moment() -> None:
    policy = RetryPolicy(jitter=0.2)
    down = Reach(20, 0.0, 0.0)
    times = {round(after(down, Contact.SILENT, policy=policy, seed=seed).retry_at) for seed in range(50)}
    assert len(times) > 30
    assert min(times) >= 720
    assert max(times) <= 1080
