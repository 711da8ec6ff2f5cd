"""CPU time of each step, beside two peers that everybody knows, measured in the same run."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from pathlib import Path
from statistics import median

import jpeg_ls
import numpy as np

from benchmarks.images import RING, Sample, samples
from benchmarks.results import Cell, Result, Table
from benchmarks.run import Run
from blessmark.embed import embed
from blessmark.errors import CapacityError
from blessmark.extract import extract
from blessmark.recover import recover
from blessmark.segment import segmenter
from blessmark.types import Frame, Lattice
from blessmark.verify import verify
from blessmark.view import invariant_view

#: modality -> folders to take images from, pixels that a time is given for, what that is called
_CLASSES: dict[str, tuple[tuple[str, ...], int, str]] = {
    "CT": (("ct_head", "ct_phantom"), 512 * 512, "512 x 512"),
    "MR": (("mr_structural", "mr_sagittal"), 512 * 512, "512 x 512"),
    "CR, DX": (("cr", "dx"), 1_000_000, "megapixel"),
}
_STEPS = ("view", "anatomy", "embed", "extract", "verify", "recover", "zlib 6", "JPEG-LS")


def measure(run: Run) -> Result:
    """Median CPU time per step, repeats interleaved so that a busy moment hits every step alike."""
    repeats, most = (1, 2) if run.quick else (7, 6)
    times = [_class_line(name, run, repeats, most) for name in _CLASSES]
    own = Table("CPU time in ms, median over images of the median of repeats", _COLUMNS, tuple(times))
    ratios = tuple(_ratios(line) for line in times)
    columns = ("images", *(f"{step} / {peer}" for step in ("embed", "verify") for peer in _STEPS[6:]))
    parameters: dict[str, Cell] = {"seed": run.seed, "repeats": repeats}
    return Result("speed", "Speed", _NOTES, (own, Table("Ratios", columns, ratios)), parameters)


_COLUMNS = ("images", "n", "per", *_STEPS)
_NOTES = (
    "`time.process_time`, one process, after a warm-up; a time is scaled by the pixels of the image.",
    "`embed` is the whole of `blessmark.embed`: view and map of every lattice tried, record, embedding and "
    "read-back. `extract` is map, reading and restoring; `verify` adds the comparison by hash, `recover` "
    "gives the frame back.",
    "Peers: zlib level 6 and JPEG-LS (CharLS) of the same pixels, in words of one or two bytes.",
    "CR and DX images without room for a record are marked with the map `whole`, so that every step runs.",
)


def _class_line(name: str, run: Run, repeats: int, most: int) -> tuple[Cell, ...]:
    folders, pixels, per = _CLASSES[name]
    images = list(samples(_files(run, folders, most)))
    measured = [_times(image, repeats) for image in images]
    scaled = [
        {step: 1000 * seconds * pixels / (image.frame.rows * image.frame.cols) for step, seconds in t.items()}
        for image, t in zip(images, measured, strict=True)
    ]
    cells = [round(median(t[step] for t in scaled), 2) if scaled else None for step in _STEPS]
    return (name, len(images), per, *cells)


def _files(run: Run, folders: tuple[str, ...], most: int) -> list[Path]:
    """Files spread evenly over the folders."""
    files: list[Path] = []
    for folder in folders:
        held = sorted((run.data / "dicom" / folder).glob("*.dcm"))
        files += held[:: max(1, len(held) * len(folders) // most)]
    return files


def _times(image: Sample, repeats: int) -> dict[str, float]:
    steps = _steps(image)
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats + 1):
        for name, step in steps.items():
            start = time.process_time()
            step()
            taken[name].append(time.process_time() - start)
    return {name: median(seconds[1:]) for name, seconds in taken.items()}


def _steps(image: Sample) -> dict[str, Callable[[], object]]:
    frame, about = image.frame, image.about
    chosen = segmenter("anatomy")
    try:
        marked = embed(frame, about, RING, chosen).frame
    except CapacityError:
        chosen = segmenter("whole")
        marked = embed(frame, about, RING, chosen).frame
    view = invariant_view(frame, Lattice.QUARTER)
    anatomy = segmenter("anatomy")
    words = _words(frame)
    bits = max(8, (frame.hi - frame.lo).bit_length())
    rows, cols, channels = words.shape
    coded = words.tobytes()
    return {
        "view": lambda: invariant_view(frame, Lattice.QUARTER),
        "anatomy": lambda: anatomy.roi_blocks(view),
        "embed": lambda: embed(frame, about, RING, chosen),
        "extract": lambda: extract(marked, RING, (chosen,)),
        "verify": lambda: verify(marked, RING, (chosen,)),
        "recover": lambda: recover(marked, RING, (chosen,)),
        "zlib 6": lambda: zlib.compress(coded, 6),
        "JPEG-LS": lambda: jpeg_ls.encode_buffer(
            coded, rows, cols, channels, bits, interleave_mode=0 if channels == 1 else 2
        ),
    }


def _words(frame: Frame) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint16 | np.uint8]]:
    """[rows, cols, channels] from 0, in one or two bytes a sample, as a file would hold them."""
    kind = np.uint8 if frame.hi - frame.lo < 256 else np.uint16
    return np.ascontiguousarray(np.moveaxis(frame.samples - frame.lo, 0, 2).astype(kind))


def _ratios(line: tuple[Cell, ...]) -> tuple[Cell, ...]:
    of = dict(zip(_COLUMNS, line, strict=True))
    return (
        of["images"],
        *(_ratio(of[step], of[peer]) for step in ("embed", "verify") for peer in _STEPS[6:]),
    )


def _ratio(own: Cell, peer: Cell) -> float | None:
    return own / peer if isinstance(own, float) and isinstance(peer, float) and peer else None
