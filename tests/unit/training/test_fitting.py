"""Training learns, and goes on after an interruption as if there had been none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from blessmark.segment.integer import Network, NumpyRuntime
from training.recipe import Recipe
from training.topologies import block_net

fitting = pytest.importorskip("training.fitting", exc_type=ImportError)

RECIPE = Recipe("made", 1, block_net(2, 6), float_steps=150, quantised_steps=10)


def dark_is_vessel(step):
    """Crops whose truth is simply darkness."""
    cells = np.random.default_rng(step).integers(0, 2, (4, 8, 8, 1)).astype(np.float32)
    return 60 + 120 * cells, 1 - cells


def test_a_simple_rule_is_learned_by_integers(tmp_path):
    convs = fitting.fit(RECIPE, dark_is_vessel, tmp_path)
    network = Network("made", 1, 255, RECIPE.topology.steps, convs, "", {})
    cells, truth = dark_is_vessel(999)
    found = NumpyRuntime(network).logits(cells.astype(np.uint8)) > 0
    assert (found == (truth[..., 0] > 0)).mean() > 0.95


@pytest.mark.parametrize("stop", [100, 155])
def test_an_interrupted_run_goes_on_where_it_was(tmp_path, monkeypatch, stop):
    monkeypatch.setattr(fitting, "_CHECKPOINT_EVERY", 5)
    whole = fitting.fit(RECIPE, dark_is_vessel, tmp_path / "whole")
    seen = []

    def until_stop(step):
        seen.append(step)
        if len(seen) == stop:
            raise KeyboardInterrupt
        return dark_is_vessel(step)

    with pytest.raises(KeyboardInterrupt):
        fitting.fit(RECIPE, until_stop, tmp_path / "parts")
    resumed = fitting.fit(RECIPE, dark_is_vessel, tmp_path / "parts")
    for name, conv in whole.items():
        assert np.abs(conv.weights.astype(int) - resumed[name].weights).max() <= 1
        assert np.array_equal(conv.shift, resumed[name].shift)


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = fitting.fit(RECIPE, dark_is_vessel, tmp_path)

    def never(step):
        raise AssertionError(step)

    again = fitting.fit(replace(RECIPE, seed=2), never, tmp_path)
    assert all(np.array_equal(first[name].weights, again[name].weights) for name in first)


def test_loss_is_least_for_the_truth():
    loss = fitting.loss_of(0.3)
    truth = np.array([[1.0, 0.0, 1.0, 0.0]], np.float32)
    right, wrong = (2 * truth - 1) * 9, (1 - 2 * truth) * 9
    assert float(loss(truth, right)) < 0.1 < float(loss(truth, wrong))
