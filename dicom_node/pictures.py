"""What an auditor looks at: the image as its header wants it seen, its map and tiles, what the mark changed.

Pictures are painted while an instance is judged, from samples that nobody keeps. They are scaled and
compressed for the eye; no verdict rests on them.
"""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from blessmark.pixels.syntax import LOSSY
from blessmark.types import BoolArray, Evidence, Finding, Frame, IntArray, TileState, Verdict
from dicom_node import header
from dicom_node.report import CHANGE_LIMIT, FramePictures, InstancePictures
from dicom_node.rewrite import shallow

Bytes8 = npt.NDArray[np.uint8]

_SERIES_INSTANCE_UID, _PHOTOMETRIC, _LUT_SHAPE = 0x0020000E, 0x00280004, 0x20500020

_SIDE_PX, _THUMBNAIL_PX = 512, 96
#: pictures so small are kept to the last grey level; they are looked at enlarged
_LOSSLESS_PX = 128
_WEBP_QUALITY = 82
#: altered frames of one instance that are painted in full; more tell nothing new
_MOST_ALTERED = 8
_LOCAL = frozenset({Finding.PIXELS_ALTERED, Finding.DAMAGED})
#: what a sample looks like beyond every window, in modality units
_FAR = 1e12
#: without a window in the header this share of the samples may be cut off at either end, per cent
_CUT_PERCENT = 0.5
_ROI_COLOUR, _PACKET_COLOUR = (64, 156, 255, 90), (60, 200, 110, 100)
_LOWER, _HIGHER, _SHADES = (70, 170, 255), (255, 150, 40), 7
#: attributes that say how stored values become grey levels, and where multi-frame objects keep them
_DISPLAY = {
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "WindowCenter": "FrameVOILUTSequence",
    "WindowWidth": "FrameVOILUTSequence",
    "VOILUTFunction": "FrameVOILUTSequence",
}
_DISPLAY_TOP = (
    *("ModalityLUTSequence", "VOILUTSequence"),
    *("PhotometricInterpretation", "BitsStored", "PixelRepresentation"),
)


@dataclass(frozen=True, slots=True)
class Display:
    """How stored values become grey levels: `table[value - lo]`, and in words where that comes from."""

    table: Bytes8
    lo: int
    words: str

    def grey(self, plane: IntArray) -> Bytes8:
        """uint8 of the plane's shape, 0 for black."""
        return np.asarray(self.table[plane - self.lo])


def display(ds: Dataset, frame: Frame) -> Display:
    """The greys of a frame: by its VOI LUT or window (PS3.3 C.11.2), else by the range that it uses.

    A header that makes no sense is treated as one without a window: a picture is no place to fail.
    """
    inverted = header.text(ds, _PHOTOMETRIC) == "MONOCHROME1" or header.text(ds, _LUT_SHAPE) == "INVERSE"
    try:
        table, words = _by_header(_attributes(ds, frame.number), frame)
    except Exception:  # pydicom raises whatever the values of a header make it raise
        table, words = None, ""
    if table is None:
        table, words = _by_range(frame)
    return Display(255 - table if inverted else table, frame.lo, words)


def _attributes(ds: Dataset, number: int) -> Dataset:
    """The display attributes of one frame: its own, else the shared ones, else those of the instance."""
    found = Dataset()
    for keyword in _DISPLAY_TOP:
        if keyword in ds:
            setattr(found, keyword, ds[keyword].value)
    shared = _group(ds, "SharedFunctionalGroupsSequence", 0)
    own = _group(ds, "PerFrameFunctionalGroupsSequence", number - 1)
    for keyword, sequence in _DISPLAY.items():
        for place in (_group(own, sequence, 0), _group(shared, sequence, 0), ds):
            if keyword in place:
                setattr(found, keyword, place[keyword].value)
                break
    found.file_meta = ds.file_meta
    return found


def _group(ds: Dataset, sequence: str, index: int) -> Dataset:
    items = ds.get(sequence) or []
    return items[index] if len(items) > index else Dataset()


def _by_header(attributes: Dataset, frame: Frame) -> tuple[Bytes8 | None, str]:
    stored = np.arange(frame.lo, frame.hi + 1)
    if attributes.get("VOILUTSequence"):
        bits = int(attributes.VOILUTSequence[0].LUTDescriptor[2])
        seen = apply_voi_lut(apply_modality_lut(stored, attributes).astype(np.int64), attributes)
        return _to_grey(seen, 0.0, float((1 << bits) - 1)), "the VOI LUT of the header"
    if attributes.get("WindowWidth") is None or attributes.get("WindowCenter") is None:
        return None, ""
    values = np.asarray(apply_modality_lut(stored, attributes), np.float64)
    with np.errstate(over="ignore"):  # far off, a sigmoid is 0 for all that
        seen = apply_voi_lut(np.concatenate([values, [-_FAR, _FAR]]), attributes)
    centre, width = (_first(attributes[keyword].value) for keyword in ("WindowCenter", "WindowWidth"))
    words = f"the window of the header, centre {centre:g}, width {width:g}"
    return _to_grey(seen[:-2], float(seen[-2]), float(seen[-1])), words


def _first(value: Any) -> float:
    return float(value if isinstance(value, int | float) or not hasattr(value, "__len__") else value[0])


def _by_range(frame: Frame) -> tuple[Bytes8, str]:
    """What lies between the percentiles of the samples that are no padding."""
    samples = frame.samples[0, :: max(1, frame.rows // _SIDE_PX), :: max(1, frame.cols // _SIDE_PX)]
    if frame.padding is not None:
        inside = samples[(samples < frame.padding[0]) | (samples > frame.padding[1])]
        samples = inside if inside.size else samples
    low, high = np.percentile(samples, [_CUT_PERCENT, 100 - _CUT_PERCENT])
    stored = np.arange(frame.lo, frame.hi + 1, dtype=np.float64)
    return _to_grey(stored, float(low), float(max(high, low + 1))), "the range of its samples"


def _to_grey(values: npt.NDArray[Any], black: float, white: float) -> Bytes8:
    scaled = (np.asarray(values, np.float64) - black) * (255.0 / (white - black))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


class Gallery:
    """The pictures of many instances: of each series one authentic instance is painted in full, and whatever
    is not authentic; of the others a thumbnail."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def painter(self, ds: Dataset) -> Painter:
        """A painter for one instance, to be handed to `review` as `on_frame`."""
        # a copy: whoever looks at an element may change the bytes that pydicom writes it as, and with them a
        # verdict that rests on those
        return Painter(shallow(ds), in_full=_series(ds) not in self._seen)

    def finished(self, ds: Dataset, painter: Painter, finding: Finding) -> InstancePictures | None:
        """What was painted; None of an object that has no pixels to judge."""
        if finding is Finding.AUTHENTIC:
            self._seen.add(_series(ds))
        return painter.pictures()


def _series(ds: Dataset) -> str:
    return header.text(ds, _SERIES_INSTANCE_UID)


@dataclass(slots=True)
class Painter:
    """Paints one instance: its middle frame, and the frames that differ; called as `review` goes along.

    `in_full` paints the middle frame in full though nothing is wrong with it.
    """

    ds: Dataset = field(repr=False)
    in_full: bool
    _frames: list[FramePictures] = field(default_factory=list, init=False)
    _thumbnail: bytes = field(default=b"", init=False)
    _changes: Counter[int] = field(default_factory=Counter, init=False)
    _words: str = field(default="", init=False)

    def __call__(self, frame: Frame, verdict: Verdict) -> None:
        """Paint what is wanted of this frame."""
        change = None if verdict.restored is None else _change(frame, verdict.restored)
        if change is not None:
            self._changes.update(_counted(change))
            change = change if change.any() else None
        middle = frame.number == _middle(self.ds)
        full = verdict.finding is not Finding.AUTHENTIC or self.in_full if middle else self._wanted(verdict)
        if not (middle or full or not self._thumbnail):
            return
        greys = self._greys(frame)
        if middle or not self._thumbnail:
            self._thumbnail = _webp(_seen(self.ds, frame.samples, greys, _THUMBNAIL_PX))
        if full:
            self._frames.append(_painted(self.ds, frame, verdict, change, greys))

    def pictures(self) -> InstancePictures | None:
        """What was painted; None if there was no frame."""
        if not self._thumbnail:
            return None
        bars = tuple(sorted(self._changes.items()))
        return InstancePictures(self._thumbnail, tuple(self._frames), bars, self._words)

    def _wanted(self, verdict: Verdict) -> bool:
        return verdict.finding in _LOCAL and len(self._frames) < _MOST_ALTERED

    def _greys(self, frame: Frame) -> Display:
        made = display(self.ds, frame) if frame.channels == 1 else _plain(frame)
        self._words = self._words or made.words
        return made


def _middle(ds: Dataset) -> int:
    return int(ds.get("NumberOfFrames") or 1) // 2 + 1


def _plain(frame: Frame) -> Display:
    """Colour as it is stored, narrowed to 8 bits."""
    stored = np.arange(frame.lo, frame.hi + 1, dtype=np.float64)
    return Display(_to_grey(stored, frame.lo, frame.hi), frame.lo, "its colours")


def _painted(
    ds: Dataset, frame: Frame, verdict: Verdict, change: IntArray | None, greys: Display
) -> FramePictures:
    evidence = verdict.evidence
    restored = b""
    lossless = max(frame.rows, frame.cols) <= _LOSSLESS_PX
    if verdict.restored is not None and change is not None:
        restored = _webp(_seen(ds, verdict.restored.samples, greys, _SIDE_PX), lossless=lossless)
    return FramePictures(
        frame=frame.number,
        finding=str(verdict.finding),
        rows=frame.rows,
        cols=frame.cols,
        received=_webp(_seen(ds, frame.samples, greys, _SIDE_PX), lossless=lossless),
        restored=restored,
        change=b"" if change is None else _change_png(change),
        roi=b"" if evidence.roi is None else _mask_png(evidence.roi, _ROI_COLOUR),
        roi_share=None if evidence.roi is None else float(evidence.roi.mean()) if evidence.roi.size else 1.0,
        packets=_packets_png(evidence),
        altered_tiles=_tiles(evidence, TileState.ALTERED),
        foreign_tiles=_tiles(evidence, TileState.FOREIGN),
    )


def _tiles(evidence: Evidence, state: TileState) -> tuple[tuple[int, int], ...]:
    found = () if evidence.tiles is None else np.argwhere(evidence.tiles == state)
    return tuple((int(row), int(col)) for row, col in found)


def _packets_png(evidence: Evidence) -> bytes:
    if evidence.tiles is None or not (evidence.tiles == TileState.PACKET).any():
        return b""
    return _mask_png(evidence.tiles == TileState.PACKET, _PACKET_COLOUR)


def _seen(ds: Dataset, samples: IntArray, greys: Display, side_px: int) -> Image.Image:
    """The picture of a frame, no side longer than `side_px`, never enlarged."""
    step = max(1, max(samples.shape[1:]) // (2 * side_px))
    planes = [greys.grey(plane) for plane in samples[:, ::step, ::step]]
    picture = _coloured(ds, planes) if len(planes) == 3 else Image.fromarray(planes[0])
    picture.thumbnail((side_px, side_px), Image.Resampling.BOX)
    return picture


def _coloured(ds: Dataset, planes: list[Bytes8]) -> Image.Image:
    pixels = np.stack(planes, axis=2)
    stored = header.text(ds, _PHOTOMETRIC)
    decoded = str(ds.file_meta.TransferSyntaxUID) in LOSSY  # to RGB, whatever the header says
    if stored.startswith("YBR_FULL") and not decoded:
        return Image.merge("YCbCr", [Image.fromarray(plane) for plane in planes]).convert("RGB")
    return Image.fromarray(pixels)


def _change(frame: Frame, restored: Frame) -> IntArray:
    """int32 [rows, cols]: what the watermark added to the sample of the channel where it is most."""
    difference = frame.samples - restored.samples
    if len(difference) == 1:
        return np.asarray(difference[0])
    most = np.abs(difference).argmax(axis=0)
    return np.asarray(np.take_along_axis(difference, most[None], axis=0)[0])


def _counted(change: IntArray) -> dict[int, int]:
    """How many pixels moved by how much; beyond `CHANGE_LIMIT` they are counted with the last."""
    clipped = np.clip(change, -CHANGE_LIMIT, CHANGE_LIMIT) + CHANGE_LIMIT
    counts = np.bincount(clipped.ravel(), minlength=2 * CHANGE_LIMIT + 1)
    return {step - CHANGE_LIMIT: int(count) for step, count in enumerate(counts) if count}


def _change_png(change: IntArray) -> bytes:
    """Unchanged pixels transparent, lowered ones blue, raised ones orange; fainter for smaller changes.

    Where the frame is larger than the picture, a pixel shows the greatest change of those that it stands for.
    """
    pooled = _greatest(change, -(-max(change.shape) // _SIDE_PX))
    moved = np.abs(pooled[pooled != 0])
    full = max(1.0, float(np.percentile(moved, 99))) if moved.size else 1.0
    shade = np.minimum(np.ceil(np.abs(pooled) * (_SHADES / full)), _SHADES).astype(np.uint8)
    picture = Image.fromarray(np.where(pooled > 0, shade + _SHADES, shade).astype(np.uint8))
    picture.putpalette([0, 0, 0, *(_LOWER * _SHADES), *(_HIGHER * _SHADES)])
    alphas = [255 * (2 + shade) // (2 + _SHADES) for shade in range(1, _SHADES + 1)]
    return _png(picture.convert("P") if picture.mode != "P" else picture, bytes([0, *alphas, *alphas]))


def _greatest(change: IntArray, step: int) -> IntArray:
    """Each `step` x `step` pixels as the one of them that moved most."""
    if step <= 1:
        return change
    rows, cols = (-(-side // step) for side in change.shape)
    padded = np.zeros((rows * step, cols * step), change.dtype)
    padded[: change.shape[0], : change.shape[1]] = change
    cells = padded.reshape(rows, step, cols, step).swapaxes(1, 2).reshape(rows, cols, step * step)
    most = np.abs(cells).argmax(axis=2)
    return np.asarray(np.take_along_axis(cells, most[..., None], axis=2)[..., 0])


def _mask_png(mask: BoolArray, colour: tuple[int, int, int, int]) -> bytes:
    """One pixel a block, coloured where the mask is True, transparent elsewhere."""
    picture = Image.fromarray(mask.astype(np.uint8))
    picture.putpalette([0, 0, 0, *colour[:3]])
    return _png(picture, bytes([0, colour[3]]))


def _png(picture: Image.Image, alphas: bytes) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", transparency=alphas, optimize=False)
    return file.getvalue()


def _webp(picture: Image.Image, *, lossless: bool = False) -> bytes:
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=_WEBP_QUALITY, method=2, lossless=lossless)
    return file.getvalue()
