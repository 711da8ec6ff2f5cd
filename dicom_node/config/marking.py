"""What is hidden in an image, what draws its map, and the processes that do it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from dicom_node.config.kinds import RECORD_FIELDS, Keyword, Section, SegmenterName, without_repeats
from dicom_node.config.words import BatcherKind, CarrierName, Device, Engine


class SegmenterRule(Section):
    """Images whose region of interest another segmenter draws; every condition that is given must hold."""

    use: SegmenterName
    #: values of Modality (0008,0060)
    modality: tuple[str, ...] = ()
    #: values of SOP Class UID (0008,0016)
    sop_class: tuple[str, ...] = ()
    #: values of Body Part Examined (0018,0015)
    body_part: tuple[str, ...] = ()
    #: whether the image has three samples per pixel; null is either
    colour: bool | None = None

    def fits(self, modality: str, sop_class: str, body_part: str, *, colour: bool) -> bool:
        """Whether an image with these attributes is meant."""
        wanted = ((self.modality, modality), (self.sop_class, sop_class), (self.body_part, body_part))
        return all(not values or value in values for values, value in wanted) and self.colour in (
            None,
            colour,
        )


class Dct(Section):
    """How the carrier `dct` embeds; readers find these by themselves."""

    #: side of a block, pixels; the smaller, the more room
    block_px: Literal[6, 8, 10] = 6
    #: by how much one coefficient exceeds the other, share of full scale (over 8 bits: of the range in use)
    threshold: float = Field(default=0.01, ge=0.005, le=0.05)
    #: what finds altered blocks again when restoring
    detector: Literal["context", "paper"] = "context"


class Watermark(Section):
    """What is hidden and how strongly."""

    carrier: CarrierName = CarrierName.LATTICE
    dct: Dct = Dct()
    segmenter: SegmenterName = "anatomy"
    #: the first that fits an image takes the place of `segmenter`
    segmenter_rules: tuple[SegmenterRule, ...] = (
        SegmenterRule(use="vessels", modality=("OP",), colour=True),
    )
    record: Annotated[tuple[Keyword, ...], Field(min_length=1), AfterValidator(without_repeats)] = tuple(
        RECORD_FIELDS
    )
    #: most that a sample may move, in grey levels; auto is 1 % of the range in use
    max_change: Literal["auto"] | Annotated[int, Field(ge=1, le=65535)] = "auto"
    #: whether marked images are signed, so that anybody with the public key can tell who released them
    sign: bool = False


class Networks(Section):
    """What evaluates the networks among the segmenters; the maps do not depend on it."""

    #: auto is TensorFlow where it is installed, NumPy elsewhere
    engine: Engine = Engine.AUTO
    #: auto leaves it to the engine
    device: Device = Device.AUTO
    #: take GPU memory as needed, not all of it at once, so that several workers share one card (TensorFlow)
    memory_growth: bool = True
    #: CPU threads of one worker's TensorFlow; the workers share the cores
    threads: int = Field(default=1, ge=1, le=64)
    #: process: one process evaluates them for all workers and owns the card; none: every worker for itself;
    #: auto: process where a GPU is to be used, none elsewhere
    batcher: BatcherKind = BatcherKind.AUTO
    #: longest that an image waits for others to go with it, milliseconds; where there is a batcher
    batch_wait_ms: float = Field(default=5.0, ge=0.0, le=1000.0)
    #: most frames whose maps are drawn together: of one instance, and with a batcher of several
    batch_frames: int = Field(default=16, ge=1, le=1024)
    #: cells of 2 x 2 pixels that go through a network at once; bounds its memory, larger images go in strips
    batch_cells: int = Field(default=131072, ge=16384, le=67108864)


class Workers(Section):
    """The processes that protect and recover."""

    #: auto is one per CPU core that the node may use; one in all where every route has the role pass
    count: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = "auto"
    #: seconds after which a silent worker's instances go to another
    lease_s: float = Field(default=300.0, ge=5.0, le=86400.0)
