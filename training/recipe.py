"""Schedules: how long each network is trained in floats and how long on the integer grid."""

from __future__ import annotations

from dataclasses import dataclass, field

from training.samples import Augment
from training.topologies import Topology, u_net


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything besides the data that decides which weights come out.

    Attributes
    ----------
    side : of a crop, input samples
    batch : crops a step
    float_steps, quantised_steps : length of the two phases
    float_rate, quantised_rate : learning rates at their start; both fall to 0 along a cosine
    dice_weight : of the soft Dice loss beside the cross-entropy
    """

    name: str
    version: int
    topology: Topology
    seed: int = 1
    side: int = 64
    batch: int = 8
    float_steps: int = 20000
    quantised_steps: int = 2500
    float_rate: float = 3e-3
    quantised_rate: float = 6e-4
    dice_weight: float = 0.3
    augment: Augment = field(default_factory=Augment)


VESSELS = Recipe("vessels", 1, u_net(16, 24, 32))
