"""What is measured of an instance while it is worked on: the time of its stages, its modality, its marks.

    with measured() as seen:          # the worker, around everything
        with stage("decode"):         # whoever does the step, wherever that is
            ...

Outside `measured` nothing is kept, so the commands do without. Of stages within each other the inner one is
counted and the outer one waits: the seconds of all stages add up to no more than the time that passed.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

from dicom_node.metrics import STAGE_SECONDS, STAGES, Reading, modality_label


@dataclass(slots=True)
class Measured:
    """One instance: seconds by stage, its modality as it is counted, and whatever else was told."""

    modality: str = modality_label("")
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    told: list[Reading] = field(default_factory=list)
    #: the stage that runs, if any, and since when; those around it wait
    running: str = ""
    since: float = 0.0
    #: is called whenever a stage begins or ends: the work has come a step further
    step: Callable[[], object] = lambda: None

    def readings(self) -> list[Reading]:
        """Everything that is to be counted."""
        stages = [Reading(STAGE_SECONDS, (stage,), seconds) for stage, seconds in self.seconds.items()]
        return stages + self.told

    def turn(self, stage: str) -> str:
        """Let another stage run from now on; the one that ran."""
        before, now = self.running, time.perf_counter()
        if before:
            self.seconds[before] += now - self.since
        self.running, self.since = stage, now
        self.step()
        return before


_CURRENT: ContextVar[Measured | None] = ContextVar("measured", default=None)


@contextlib.contextmanager
def measured() -> Iterator[Measured]:
    """Keep what this thread tells until the end."""
    seen = Measured()
    token = _CURRENT.set(seen)
    try:
        yield seen
    finally:
        _CURRENT.reset(token)


class stage:  # noqa: N801 - a context manager as `suppress` is, for half the price of a generator's
    """Measure a stage, one of `metrics.STAGES`; for one `with`."""

    __slots__ = ("_around", "_name", "_seen")

    def __init__(self, name: str) -> None:
        assert name in STAGES
        self._name = name

    def __enter__(self) -> None:
        self._seen = _CURRENT.get()
        if self._seen is not None:
            self._around = self._seen.turn(self._name)

    def __exit__(self, *_error: object) -> None:
        if self._seen is not None:
            self._seen.turn(self._around)


def tell(*readings: Reading) -> None:
    """Have something counted with the instance."""
    seen = _CURRENT.get()
    if seen is not None:
        seen.told += readings


def tell_modality(modality: str) -> None:
    """The Modality (0008,0060) of the instance, as its header has it."""
    seen = _CURRENT.get()
    if seen is not None:
        seen.modality = modality_label(modality)
