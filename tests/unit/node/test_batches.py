"""Who goes with whom, and when; and who shares a batcher at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node import batches
from dicom_node.batches import Bounds, Choice, Waiting, choose, is_wanted
from dicom_node.config import BatcherKind, Device, Engine, Networks

SIZE = (64, 64, 1)
BOUNDS = Bounds(8, 0.01)


def at(since: float, frames: int = 1, network: str = "a", size: tuple[int, ...] = SIZE) -> Waiting:
    return Waiting(network, size, frames, since)


def test_nobody_waits() -> None:
    assert choose([], BOUNDS, 0.0, everybody=True) == Choice()


def test_one_waits_for_others_as_long_as_it_may() -> None:
    assert choose([at(1.0)], BOUNDS, 1.004, everybody=False).rest_s == pytest.approx(0.006)
    assert choose([at(1.0)], BOUNDS, 1.010, everybody=False).places == (0,)


def test_one_does_not_wait_where_nobody_could_come() -> None:
    assert choose([at(1.0)], BOUNDS, 1.0, everybody=True).places == (0,)


def test_a_full_batch_goes_at_once() -> None:
    assert choose([at(1.0, 4), at(1.0, 4)], BOUNDS, 1.0, everybody=False).places == (0, 1)
    assert choose([at(1.0, 20)], BOUNDS, 1.0, everybody=False).places == (0,)
    assert choose([at(1.0, 6), at(1.0, 4)], BOUNDS, 1.0, everybody=False).places == (0,)


def test_only_images_of_one_size_for_one_network_go_together() -> None:
    waiting = [at(2.0), at(1.0), at(1.5, network="b"), at(1.6, size=(8, 8, 1)), at(1.7)]
    assert choose(waiting, BOUNDS, 3.0, everybody=False).places == (1, 4, 0)


@given(
    st.lists(
        st.builds(
            Waiting,
            st.sampled_from("ab"),
            st.sampled_from([(8, 8, 1), (16, 8, 1)]),
            st.integers(1, 20),
            st.floats(0, 1),
        ),
        min_size=1,
        max_size=12,
    ),
    st.floats(0, 2),
    st.booleans(),
)
def test_the_oldest_is_never_left_out_and_no_batch_is_too_large(
    waiting: list[Waiting], now: float, everybody: bool
) -> None:
    choice = choose(waiting, BOUNDS, now, everybody=everybody)
    oldest = min(each.since for each in waiting)
    if not choice.places:
        assert choice.rest_s is not None
        assert 0 < choice.rest_s <= oldest + BOUNDS.wait_s
        return
    chosen = [waiting[place] for place in choice.places]
    assert min(each.since for each in chosen) == oldest
    assert len({(each.network, each.size) for each in chosen}) == 1
    assert sum(each.frames for each in chosen) <= BOUNDS.frames or len(chosen) == 1


@pytest.mark.parametrize(
    ("networks", "card", "wanted"),
    [
        (Networks(), False, False),
        (Networks(), True, True),
        (Networks(device=Device.GPU), False, True),
        (Networks(device=Device.CPU), True, False),
        (Networks(engine=Engine.NUMPY), True, False),
        (Networks(batcher=BatcherKind.PROCESS), False, True),
        (Networks(batcher=BatcherKind.NONE), True, False),
    ],
)
def test_a_batcher_is_for_a_card_unless_told_otherwise(
    networks: Networks, card: bool, wanted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_CARD", tmp_path if card else tmp_path / "none")
    assert is_wanted(networks) is wanted
