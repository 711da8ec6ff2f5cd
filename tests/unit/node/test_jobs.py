"""The tables are complete, lead somewhere, and refuse every other move."""

from __future__ import annotations

import itertools
from typing import TypeVar

import pytest

from dicom_node import jobs
from dicom_node.errors import IllegalTransition
from dicom_node.jobs import DELIVERY_TRANSITIONS, INSTANCE_TRANSITIONS, DeliveryState, InstanceState

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


def _reached(first: State, table: dict[State, frozenset[State]]) -> set[State]:
    reached: set[State] = {first}
    fresh: set[State] = {first}
    while fresh:
        fresh = set().union(*(table[state] for state in fresh)) - reached
        reached |= fresh
    return reached
