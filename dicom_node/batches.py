"""Whether workers share a batcher, where, and which of the images that wait go through a network together.

Decisions, without effects.

The oldest is never left out. What fits with it goes along, until the batch is full; and a batch that is not
full goes when its oldest has waited long enough, or when nobody is left who could fill it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dicom_node.config import BatcherKind, Config, Device, Engine, Networks

#: what a driver shows where there is a card
_CARD = Path("/dev/nvidia0")


@dataclass(frozen=True, slots=True)
class Waiting:
    """Images of one size that wait for one network: how many, and since when in seconds."""

    network: str
    size: tuple[int, ...]
    frames: int
    since: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """Most frames of a batch, and the longest that one waits for others, in seconds."""

    frames: int
    wait_s: float


@dataclass(frozen=True, slots=True)
class Choice:
    """The places of those that go now; none of them, and for how many seconds to wait, if nobody does."""

    places: tuple[int, ...] = ()
    rest_s: float | None = None


def choose(waiting: Sequence[Waiting], bounds: Bounds, now: float, *, everybody: bool) -> Choice:
    """What goes through a network at this moment; `everybody` who could ask for more waits already."""
    if not waiting:
        return Choice()
    oldest = min(waiting, key=lambda each: each.since)
    fitting = [
        place
        for place, each in enumerate(waiting)
        if (each.network, each.size) == (oldest.network, oldest.size)
    ]
    fitting.sort(key=lambda place: waiting[place].since)
    chosen, frames, full = [fitting[0]], oldest.frames, oldest.frames >= bounds.frames
    for place in fitting[1:]:
        if frames + waiting[place].frames > bounds.frames:
            full = True
            break
        chosen.append(place)
        frames += waiting[place].frames
    rest_s = oldest.since + bounds.wait_s - now
    if full or everybody or frames >= bounds.frames or rest_s <= 0:
        return Choice(tuple(chosen))
    return Choice(rest_s=rest_s)


def is_wanted(networks: Networks) -> bool:
    """Whether workers share one process that evaluates their networks."""
    if networks.batcher is not BatcherKind.AUTO:
        return networks.batcher is BatcherKind.PROCESS
    if networks.engine is Engine.NUMPY or networks.device is Device.CPU:
        return False
    return networks.device is Device.GPU or _CARD.exists()


def address_of(config: Config) -> str:
    """Where the batcher of this node listens: a name in the kernel that goes with its process."""
    place = str(config.storage.folder.absolute()).encode()
    return f"\0dicom-node-{hashlib.sha256(place).hexdigest()[:32]}"
