"""Schedules: how long each network is trained in floats and how long on the integer grid."""

from __future__ import annotations

from dataclasses import dataclass, field

from training.samples import Augment
from training.topologies import Topology, block_net, u_net


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


#: longer side of the photographs of the paper's retina set, pixels
PAPER_PX = 584

VESSELS = Recipe("vessels", 1, u_net(16, 24, 32))


def block_recipe(side: int) -> Recipe:
    """The paper's network for blocks of that side; crops hold a whole number of blocks."""
    return Recipe(
        f"blessmark-block-{side}",
        1,
        block_net(10, 16),
        side=100 if side == 10 else 96,
        batch=4,
        float_steps=6000,
        quantised_steps=800,
        augment=Augment(pivot=0, dark=0, contrast=0.1, level=4, noise=1.5, blur_share=0.0),
    )


#: one sample is a block of 8 x 8 pixels, with its least and its greatest cell
BODIES = Recipe(
    "anatomy-net",
    1,
    u_net(16, 24, 32, channels=2, spread=False),
    side=32,
    batch=16,
    float_steps=3000,
    quantised_steps=500,
    augment=Augment(level=6, noise=3),
)
