"""Networks with random integers, for the tests of every runtime."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from blessmark.segment.integer import INPUT, Conv, Network, Op, Step, definition_digest

#: every operation once, as in a U-Net of two levels
STEPS = (
    Step(Op.CONV, "a", (INPUT,)),
    Step(Op.POOL, "p", ("a",)),
    Step(Op.CONV, "b", ("p",)),
    Step(Op.UP, "u", ("b",)),
    Step(Op.JOIN, "j", ("u", "a")),
    Step(Op.CONV, "c", ("j",)),
    Step(Op.LOGIT, "out", ("c",)),
    Step(Op.SPREAD, "pixels", ("out",)),
)
SHAPES = {"a": (3, 1, 6), "b": (3, 6, 5), "c": (3, 11, 6), "out": (1, 6, 4)}


def random_network(seed: int = 0, weight_max: int = 63) -> Network:
    """The steps above with seeded random integers, its digest filled in."""
    rng = np.random.default_rng(seed)
    convs = {name: _conv(rng, *shape, weight_max, name == "out") for name, shape in SHAPES.items()}
    network = Network("random", 1, 255, STEPS, convs, "", {})
    return replace(network, logits_sha256=definition_digest(network))


def images(seed: int, count: int, rows: int, cols: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """uint8 [count, rows, cols, 1] of noise."""
    return np.random.default_rng(seed).integers(0, 256, (count, rows, cols, 1), dtype=np.uint8)


def _conv(
    rng: np.random.Generator, side: int, channels: int, width: int, weight_max: int, logit: bool
) -> Conv:
    weights = rng.integers(-weight_max, weight_max + 1, (side, side, channels, width)).astype(np.int8)
    shift = np.zeros(width, np.uint8) if logit else rng.integers(7, 11, width).astype(np.uint8)
    bias = rng.integers(-2000, 2000, width) + (1 << shift.astype(np.int64) >> 1)
    return Conv(weights, bias.astype(np.int32), shift)
