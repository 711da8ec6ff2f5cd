"""Which segmenter draws the map of an instance, and what a worker evaluates the networks among them on.

The map is the same on every engine; the command line therefore uses the segmenters as the engine package
hands them out, on NumPy, and workers through `Engines`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from blessmark.segment import engine, segmenter
from blessmark.segment.batch import DrawsTogether
from blessmark.segment.integer import Network, Runtime
from blessmark.types import BoolArray, Segmenter, View
from dicom_node import header, log
from dicom_node.batched import Batched
from dicom_node.config import Device, Networks, SegmenterRule, Watermark
from dicom_node.measuring import stage
from dicom_node.metrics import NetworkRun

_LOG = logging.getLogger(__name__)

#: Modality, SOP Class UID, Body Part Examined
_CHOSEN_BY = (0x00080060, 0x00080016, 0x00180015)
_SAMPLES = 0x00280002
#: as a number, and as the text that a careless writer makes of it
_THREE = (b"\3", b"3")

#: is told of every network that a process starts to evaluate
Tell = Callable[[NetworkRun], None]
#: gives the segmenter of a name
Draw = Callable[[str], Segmenter]
#: whose images another segmenter than the usual one draws the map of
Rules = tuple[tuple[SegmenterRule, Segmenter], ...]


def rules_of(watermark: Watermark, draw: Draw = segmenter) -> Rules:
    """The rules of a configuration with the segmenters that they name."""
    return tuple((rule, draw(rule.use)) for rule in watermark.segmenter_rules)


def chosen(ds: Dataset, rules: Rules) -> Segmenter | None:
    """The segmenter of the first rule that fits an instance, None if none does."""
    words = [header.text(ds, tag) for tag in _CHOSEN_BY]
    # its bytes, for an element that was decoded once is decoded again by whoever compares
    colour = (header.value_bytes(ds, _SAMPLES) or b"").strip(b" \0") in _THREE
    return next((drawer for rule, drawer in rules if rule.fits(*words, colour=colour)), None)


class Engines:
    """The segmenters of one process, their networks on the configured engine.

    An engine is started when the first image needs it; how that ended is logged and told.

    Parameters
    ----------
    networks : engine, device and bounds
    tell : is called once for every network that is started
    batcher : where it listens, and is asked first; "" where there is none. It has the card to itself
    """

    def __init__(self, networks: Networks, tell: Tell, *, batcher: str = "") -> None:
        self._batcher = batcher
        self._wish = engine.Wish(
            engine=networks.engine,
            device=Device.CPU if batcher else networks.device,
            memory_growth=networks.memory_growth,
            threads=networks.threads,
            batch_samples=networks.batch_cells,
        )
        self._tell = tell

    def segmenter(self, name: str) -> Segmenter:
        """The segmenter of that name; the same for the same name."""
        return segmenter(name, self._on)

    def runtime(self, network: Network) -> Runtime:
        """The network on the engine of this process."""
        return engine.Deferred(network, self._start)

    def _on(self, network: Network) -> Runtime:
        own = self.runtime(network)
        return Batched(network, self._batcher, own) if self._batcher else own

    def _start(self, network: Network) -> Runtime:
        began = time.monotonic()
        started = engine.start(network, self._wish)
        log.event(
            _LOG,
            "network-started",
            level=logging.WARNING if started.warning else logging.INFO,
            error=started.warning,
            segmenter=network.id,
            engine=started.runtime.backend,
            reason=started.outcome,
            total_s=time.monotonic() - began,
        )
        self._tell(NetworkRun(network.id, started.runtime.backend, str(started.outcome)))
        return started.runtime


def timed(segmenter: Segmenter) -> Segmenter:
    """The same segmenter, its maps drawn in the stage `segment`."""
    return _TimedTogether(segmenter) if isinstance(segmenter, DrawsTogether) else _Timed(segmenter)


@dataclass(frozen=True, slots=True)
class _Timed:
    segmenter: Segmenter

    @property
    def id(self) -> str:
        return self.segmenter.id

    @property
    def reach_px(self) -> int | None:
        return self.segmenter.reach_px

    def roi_blocks(self, view: View) -> BoolArray:
        with stage("segment"):
            return self.segmenter.roi_blocks(view)


@dataclass(frozen=True, slots=True)
class _TimedTogether(_Timed):
    def roi_blocks_of(self, views: Sequence[View]) -> list[BoolArray]:
        assert isinstance(self.segmenter, DrawsTogether)
        with stage("segment"):
            return self.segmenter.roi_blocks_of(views)
