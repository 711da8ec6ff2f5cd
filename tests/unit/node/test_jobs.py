"""The tables are complete, lead somewhere, and refuse every other move."""

from __future__ import annotations

import itertools
from typing import TypeVar

import pytest

from dicom_node import config, jobs
from dicom_node.config import OnFinding, Role, Route
from dicom_node.errors import IllegalTransition
from dicom_node.jobs import (
    DELIVERY_TRANSITIONS,
    INSTANCE_TRANSITIONS,
    Arrival,
    DeliveryState,
    InstanceState,
    Outcome,
    Work,
)

State = TypeVar("State", InstanceState, DeliveryState)


def test_every_state_has_its_row() -> None:
    assert set(INSTANCE_TRANSITIONS) == set(InstanceState)
    assert set(DELIVERY_TRANSITIONS) == set(DeliveryState)


@pytest.mark.parametrize(("before", "after"), list(itertools.product(InstanceState, repeat=2)))
def test_an_instance_moves_along_its_table_only(before: InstanceState, after: InstanceState) -> None:
    if after in INSTANCE_TRANSITIONS[before]:
        jobs.check_instance_move(before, after)
    else:
        with pytest.raises(IllegalTransition, match=f"from {before} to {after}"):
            jobs.check_instance_move(before, after)


@pytest.mark.parametrize(("before", "after"), list(itertools.product(DeliveryState, repeat=2)))
def test_a_delivery_moves_along_its_table_only(before: DeliveryState, after: DeliveryState) -> None:
    if after in DELIVERY_TRANSITIONS[before]:
        jobs.check_delivery_move(before, after)
    else:
        with pytest.raises(IllegalTransition, match=f"from {before} to {after}"):
            jobs.check_delivery_move(before, after)


def test_every_state_is_reached_from_the_first_one() -> None:
    assert _reached(InstanceState.RECEIVED, INSTANCE_TRANSITIONS) == set(InstanceState)
    assert _reached(DeliveryState.QUEUED, DELIVERY_TRANSITIONS) == set(DeliveryState)


def test_what_is_finished_stays_finished() -> None:
    assert INSTANCE_TRANSITIONS[InstanceState.READY] == {InstanceState.RECEIVED}, "to be made again"
    assert not INSTANCE_TRANSITIONS[InstanceState.REJECTED]
    # but for a destination that does not have it after all, see `commitment`
    assert DELIVERY_TRANSITIONS[DeliveryState.DELIVERED] == {DeliveryState.QUEUED, DeliveryState.DEAD}
    assert not DELIVERY_TRANSITIONS[DeliveryState.DROPPED]


WORK = Work(1, 1, 1, Arrival("1.2", "1.2.3", "1.2.4", "A", "B", "back"), "blob", 0.0, 10)


def route(role: Role, **by_finding: OnFinding) -> Route:
    policies = {config.Finding(name.replace("_", "-")): policy for name, policy in by_finding.items()}
    return Route(name="back", role=role, destinations=("pacs",), on_finding=policies)


@pytest.mark.parametrize(
    ("policies", "state", "result"),
    [
        ({}, "held", "held"),
        ({"unmarked": OnFinding.PASS}, "held", "held"),
        ({"damaged": OnFinding.REJECT}, "rejected", "rejected"),
        ({"damaged": OnFinding.PASS, "other": OnFinding.REJECT}, "ready", "passed-on-finding"),
        ({"other": OnFinding.PASS}, "ready", "passed-on-finding"),
    ],
)
def test_a_finding_goes_by_its_own_policy(policies: dict[str, OnFinding], state: str, result: str) -> None:
    found = jobs.judged(WORK, route(Role.RECOVER, **policies), "damaged")
    assert (found.state, found.result, found.reason, found.finding) == (state, result, "damaged", "damaged")
    assert found.destinations == (("pacs",) if state == "ready" else ())
    assert found.blob == ("blob" if state == "ready" else "")


def test_a_route_that_verifies_lets_everything_through_unless_told() -> None:
    assert jobs.judged(WORK, route(Role.VERIFY), "damaged").state is InstanceState.READY
    assert jobs.judged(WORK, route(Role.VERIFY, other=OnFinding.HOLD), "damaged").state is InstanceState.HELD


@pytest.mark.parametrize(
    ("state", "finding", "alarms"),
    [
        (InstanceState.READY, "", False),
        (InstanceState.READY, "authentic", False),
        (InstanceState.READY, "not-judged", False),
        (InstanceState.HELD, "not-judged", True),
        (InstanceState.READY, "unmarked", False),
        (InstanceState.HELD, "unmarked", True),
        (InstanceState.READY, "pixels-altered", True),
        (InstanceState.READY, "header-altered", True),
        (InstanceState.REJECTED, "wrong-key", True),
    ],
)
def test_what_an_operator_should_know_of(state: InstanceState, finding: str, alarms: bool) -> None:
    assert Outcome(state, "any", finding=finding).alarms is alarms


def _reached(first: State, table: dict[State, frozenset[State]]) -> set[State]:
    reached: set[State] = {first}
    fresh: set[State] = {first}
    while fresh:
        fresh = set().union(*(table[state] for state in fresh)) - reached
        reached |= fresh
    return reached
