"""Fully connected networks, Adam on cross-entropy, in NumPy: small enough to need nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from blessmark.carrier.dct_detector import Dense, Float

#: of Adam, its authors' defaults (Kingma and Ba, 2015)
_FIRST, _SECOND, _TINY = 0.9, 0.999, 1e-7


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast; the rate falls to 0 along a cosine."""

    epochs: int
    rate: float = 3e-3
    batch: int = 512
    seed: int = 1


def fit(inputs: Float, truth: Float, widths: Sequence[int], schedule: Schedule) -> Dense:
    """A network for inputs float32 [n, in] and truth float32 [n] of 0 and 1; the seed fixes the result.

    Inputs are brought to mean 0 and deviation 1; the first layer of the result has that folded in.
    """
    rng = np.random.default_rng(schedule.seed)
    mean, deviation = inputs.mean(axis=0), inputs.std(axis=0) + np.float32(1e-3)
    scaled = (inputs - mean) / deviation
    layers = _started(rng, (inputs.shape[1], *widths))
    adam = _Adam([each for layer in layers for each in layer])
    steps = schedule.epochs * (len(inputs) // schedule.batch)
    for step in range(steps):
        at = step * schedule.batch % (len(inputs) // schedule.batch * schedule.batch)
        if at == 0:
            order = rng.permutation(len(inputs))
        chosen = order[at : at + schedule.batch]
        gradients = _gradients(layers, scaled[chosen], truth[chosen])
        adam.step(gradients, schedule.rate * 0.5 * (1 + np.cos(np.pi * step / steps)))
    return _unscaled(layers, mean, deviation)


def accuracy(network: Dense, inputs: Float, truth: Float) -> float:
    """Share of the inputs that the network is right about."""
    return float(np.mean((network.logits(inputs) > 0) == (truth > 0)))


def _started(rng: np.random.Generator, widths: Sequence[int]) -> list[tuple[Float, Float]]:
    """Weights after He et al. (2015), biases zero."""
    return [
        (rng.normal(0, np.sqrt(2 / a), (a, b)).astype(np.float32), np.zeros(b, np.float32))
        for a, b in pairwise(widths)
    ]


def _gradients(layers: list[tuple[Float, Float]], inputs: Float, truth: Float) -> list[Float]:
    """Of the mean cross-entropy, in the order of the layers: weights, bias, weights, bias ..."""
    values = [inputs]
    for weights, bias in layers[:-1]:
        values.append(np.maximum(values[-1] @ weights + bias, 0))
    logits = (values[-1] @ layers[-1][0] + layers[-1][1])[:, 0]
    slope = ((1 / (1 + np.exp(-np.clip(logits, -30, 30))) - truth) / len(truth)).astype(np.float32)[:, None]
    found: list[Float] = []
    for (weights, _), value in zip(reversed(layers), reversed(values), strict=True):
        found = [value.T @ slope, slope.sum(axis=0), *found]
        slope = (slope @ weights.T) * (value > 0)
    return found


def _unscaled(layers: list[tuple[Float, Float]], mean: Float, deviation: Float) -> Dense:
    weights, bias = layers[0]
    weights = weights / deviation[:, None]
    return Dense(((weights, bias - mean @ weights), *layers[1:]))


class _Adam:
    """Adam on arrays that are changed in place."""

    def __init__(self, arrays: list[Float]) -> None:
        self._arrays = arrays
        self._means = [np.zeros_like(each) for each in arrays]
        self._squares = [np.zeros_like(each) for each in arrays]
        self._steps = 0

    def step(self, gradients: list[Float], rate: float) -> None:
        self._steps += 1
        first, second = 1 - _FIRST**self._steps, 1 - _SECOND**self._steps
        for array, mean, square, gradient in zip(
            self._arrays, self._means, self._squares, gradients, strict=True
        ):
            mean += (1 - _FIRST) * (gradient - mean)
            square += (1 - _SECOND) * (gradient * gradient - square)
            array -= (rate * (mean / first) / (np.sqrt(square / second) + _TINY)).astype(np.float32)
