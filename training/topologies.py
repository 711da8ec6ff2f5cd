"""What the networks look like: steps and widths, without any weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from blessmark.segment.integer import INPUT, Op, Step


@dataclass(frozen=True, slots=True)
class Topology:
    """The steps of a network and, for each convolution, (side of the kernel, channels out)."""

    steps: tuple[Step, ...]
    convs: Mapping[str, tuple[int, int]]
    channels: int = 1


def u_net(a: int, b: int, e: int, channels: int = 1, spread: bool = True) -> Topology:
    """Three levels of two 3 x 3 convolutions; four logits a cell, spread to 2 x 2, or one: reach 21 cells."""
    steps: tuple[Step, ...] = (
        Step(Op.CONV, "a0", (INPUT,)),
        Step(Op.CONV, "a1", ("a0",)),
        Step(Op.POOL, "b", ("a1",)),
        Step(Op.CONV, "b0", ("b",)),
        Step(Op.CONV, "b1", ("b0",)),
        Step(Op.POOL, "e", ("b1",)),
        Step(Op.CONV, "e0", ("e",)),
        Step(Op.CONV, "e1", ("e0",)),
        Step(Op.UP, "e2", ("e1",)),
        Step(Op.JOIN, "f", ("e2", "b1")),
        Step(Op.CONV, "f0", ("f",)),
        Step(Op.UP, "f1", ("f0",)),
        Step(Op.JOIN, "g", ("f1", "a1")),
        Step(Op.CONV, "g0", ("g",)),
        Step(Op.CONV, "g1", ("g0",)),
        Step(Op.LOGIT, "out", ("g1",)),
    )
    if spread:
        steps = (*steps, Step(Op.SPREAD, "pixels", ("out",)))
    widths = {"a0": a, "a1": a, "b0": b, "b1": b, "e0": e, "e1": e, "f0": b, "g0": a, "g1": a}
    convs = {name: (3, width) for name, width in widths.items()}
    return Topology(steps, {**convs, "out": (1, 4 if spread else 1)}, channels)


def block_net(layers: int, width: int) -> Topology:
    """3 x 3 convolutions on an isolated block, then one 1 x 1: with 10 layers the paper's (its Fig. 2)."""
    names = [f"c{index}" for index in range(layers)]
    steps = [Step(Op.CONV, name, (source,)) for name, source in zip(names, [INPUT, *names[:-1]], strict=True)]
    return Topology(
        (*steps, Step(Op.LOGIT, "out", (names[-1],))),
        {**dict.fromkeys(names, (3, width)), "out": (1, 1)},
    )
