"""Small networks in NumPy: they learn, repeatably, and their gradients are those of the loss."""

from __future__ import annotations

import numpy as np
import pytest

from training import perceptron
from training.perceptron import Schedule, accuracy, fit


def rings(count: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points inside and outside a circle, far from mean 0 and deviation 1."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 1, (count, 2)).astype(np.float32)
    truth = (np.hypot(*points.T) < 0.7).astype(np.float32)
    return points * np.float32(40) + np.float32(300), truth


def test_learns_what_no_plane_separates():
    network = fit(*rings(), (16, 1), Schedule(epochs=30, batch=128))
    assert accuracy(network, *rings(seed=1)) > 0.95
    assert [weights.shape for weights, _ in network.layers] == [(2, 16), (16, 1)]


def test_the_seed_fixes_the_result():
    one, again, other = (
        fit(*rings(500), (4, 1), Schedule(epochs=1, batch=64, seed=seed)).layers for seed in (1, 1, 2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(one[0], again[0], strict=True))
    assert not np.array_equal(one[0][0], other[0][0])


def test_gradients_are_those_of_the_cross_entropy():
    rng = np.random.default_rng(3)
    layers = [
        (rng.normal(size=s).astype(np.float32), rng.normal(size=s[1]).astype(np.float32))
        for s in ((3, 4), (4, 1))
    ]
    inputs = rng.normal(size=(20, 3)).astype(np.float32)
    truth = rng.integers(0, 2, 20).astype(np.float32)

    def loss() -> float:
        hidden = np.maximum(inputs @ layers[0][0] + layers[0][1], 0)
        logits = (hidden @ layers[1][0] + layers[1][1])[:, 0].astype(np.float64)
        return float(np.mean(np.logaddexp(0, logits) - truth * logits))

    found = perceptron._gradients(layers, inputs, truth)
    arrays = [each for layer in layers for each in layer]
    for array, gradient in zip(arrays, found, strict=True):
        at = np.unravel_index(int(np.argmax(np.abs(gradient))), array.shape)
        step = np.float32(1e-2)
        before = array[at]
        array[at] = before + step
        above = loss()
        array[at] = before - step
        below = loss()
        array[at] = before
        assert (above - below) / (2 * step) == pytest.approx(gradient[at], rel=0.05, abs=1e-3)
