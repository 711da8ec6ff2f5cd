"""The distortion detectors of the `dct` carrier: samples, and the three commands for them.

The paper's protocol: every block outside the region of interest, in each channel, as it is and with its bit
inverted. Around it lie blocks that carry random bits, or that carry none, as in an image with a short record.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from blessmark.carrier.dct import HUNDREDTHS, SIDES, cut, dct_pair, marked
from blessmark.carrier.dct_detector import (
    Dense,
    Detector,
    Float,
    digest,
    dump,
    inputs,
    packaged,
    parse,
    sizes,
)
from blessmark.types import BoolArray, IntArray
from training.export import commit
from training.perceptron import Schedule, accuracy, fit
from training.photos import DataError, Photo, find, read
from training.recipe import PAPER_PX
from training.samples import vessel_share
from training.tasks import HRF, HRF_LICENCE

#: 1 % of 255, the paper's
_THRESHOLD = 255 * HUNDREDTHS // 100
_BOUNDS = (0, 255)
#: a photograph is seen at the paper's size, and at half its own
_HALF = 2
#: most blocks that one photograph at half size gives
_MOST = 2500
#: shares of the blocks that carry: all of them, as in the paper, and few, as with a record
_FILLS = (1.0, 0.2)
_SCHEDULES = {
    Detector.PAPER: Schedule(epochs=20, rate=1e-3, batch=256),
    Detector.CONTEXT: Schedule(epochs=16),
}
_SEED = 1


@dataclass(frozen=True, slots=True)
class Name:
    """`detector-context-6`: which detector, for blocks of which side."""

    detector: Detector
    side: int

    @classmethod
    def of(cls, text: str) -> Name:
        """Raises DataError for a name that there is not."""
        for name in (cls(detector, side) for detector in _SCHEDULES for side in SIDES):
            if str(name) == text:
                return name
        raise DataError(f"no network {text!r}; there are detector-{{paper,context}}-{{6,8,10}}")

    def __str__(self) -> str:
        return f"detector-{self.file}"

    @property
    def file(self) -> str:
        return f"{self.detector.name.lower()}-{self.side}"


@dataclass(frozen=True, slots=True)
class Plate:
    """A photograph at one size: int32 [3, rows, cols], and bool [rows, cols] where a vessel is."""

    name: str
    scale: int
    samples: IntArray
    vessels: BoolArray


def plates(data: Path, held_out: bool, fold: int = 0) -> Iterator[Plate]:
    """Every photograph of one part of the data, at both sizes."""
    for entry in find(data, fold):
        if entry.held_out == held_out:
            photo = read(entry)
            paper = max(1, round(max(photo.vessels.shape) / PAPER_PX))
            for scale in sorted({paper, max(1, paper * _HALF // 6)}):
                yield reduced_colour(photo, scale)


def reduced_colour(photo: Photo, scale: int) -> Plate:
    """The photograph with every sample the mean of scale x scale, rounded half up."""
    rows, cols = (length // scale for length in photo.vessels.shape)
    cells = photo.rgb[: rows * scale, : cols * scale].reshape(rows, scale, cols, scale, 3)
    mean = (cells.sum(axis=(1, 3), dtype=np.uint32) + scale**2 // 2) // scale**2
    samples = np.ascontiguousarray(np.moveaxis(mean, 2, 0), np.int32)
    whole = photo.vessels[: rows * scale, : cols * scale]
    return Plate(photo.name, scale, samples, vessel_share(whole, scale, rows, cols) > 0)


def samples_of(
    plate: Plate, name: Name, rng: np.random.Generator, fill: float, most: int | None
) -> tuple[Float, Float]:
    """Inputs and truth: every chosen block with either bit, among others that carry random bits.

    `fill` is the share of the blocks outside the vessels that carry anything.
    """
    side, pair = name.side, dct_pair(name.side)
    grid = cut(plate.samples, side)
    free = np.flatnonzero(~cut(plate.vessels[None].astype(np.int32), side).any(axis=(2, 3, 4)))
    places = np.sort(rng.permutation(free)[: round(fill * len(free))])
    row, col = np.divmod(places, grid.shape[1])
    blocks = grid[row, col]
    flat = blocks.reshape(-1, side, side)
    variants = [marked(pair, flat, bit, _THRESHOLD, _BOUNDS) for bit in (0, 1)]
    bits = rng.integers(0, 2, len(flat)).astype(np.uint8)
    asked = np.sort(rng.permutation(len(places))[:most])
    found = []
    for carried in (bits, 1 - bits):
        content = np.where((carried == 0)[:, None, None], *variants)
        image = plate.samples.copy()
        cut(image, side)[row, col] = content.reshape(blocks.shape)
        by_block = carried.reshape(len(places), -1)[asked]
        seen = inputs(image, side, places[asked], by_block, _THRESHOLD, name.detector)
        changed = (content != flat).any(axis=(1, 2)).reshape(len(places), -1)[asked]
        found.append((seen, changed.reshape(-1).astype(np.float32)))
    return np.concatenate([seen for seen, _ in found]), np.concatenate([truth for _, truth in found])


def train(name: str, data: Path, out: Path, fold: int = 0) -> dict[str, Any]:
    """Train a detector on the training part and score it on the held-out part."""
    which, started = Name.of(name), time.monotonic()
    rng = np.random.default_rng([_SEED, which.side, int(which.detector)])
    drawn = [
        samples_of(plate, which, rng, fill, _MOST if plate.scale <= _HALF else None)
        for plate in plates(data, held_out=False, fold=fold)
        for fill in _FILLS
    ]
    seen = np.concatenate([each for each, _ in drawn])
    truth = np.concatenate([each for _, each in drawn])
    widths = sizes(which.detector, which.side)
    network = fit(seen, truth, widths, _SCHEDULES[which.detector])
    training = {
        "seconds": round(time.monotonic() - started),
        "blocks": len(truth),
        "epochs": _SCHEDULES[which.detector].epochs,
        "accuracy_on_training_blocks": round(accuracy(network, seen, truth), 4),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    _write(network, which, {"data": HRF, "licence": HRF_LICENCE, "training": training}, out)
    return {"weights": str(out), "training": training, "scores": scores(network, which, data, fold)}


def evaluate(name: str, data: Path, out: Path, fold: int = 0) -> dict[str, Any]:
    """Score the weights in the output folder, or the packaged ones, on the held-out part."""
    which = Name.of(name)
    network, where, _ = _weights(which, out)
    return {"network": name, "weights": where, "scores": scores(network, which, data, fold)}


def export(name: str, data: Path, out: Path, fold: int = 0) -> dict[str, Any]:
    """Score the trained weights and write them with their description to `<out>/weights`."""
    which = Name.of(name)
    network, _, about = _weights(which, out)
    about["training"]["commit"] = commit()
    about["scores"] = scores(network, which, data, fold)
    _write(network, which, about, out / "weights")
    return {"weights": str(out / "weights"), "sha256": digest(network), **about}


def scores(network: Dense, name: Name, data: Path, fold: int = 0) -> list[dict[str, Any]]:
    """Accuracy over all held-out blocks, by size of the photographs and share of blocks that carry."""
    rng = np.random.default_rng(_SEED)
    right: dict[tuple[int, float], list[tuple[int, float]]] = {}
    for plate in plates(data, held_out=True, fold=fold):
        for fill in _FILLS:
            seen, truth = samples_of(plate, name, rng, fill, None)
            right.setdefault((plate.scale, fill), []).append((len(truth), accuracy(network, seen, truth)))
    return [
        {
            "reduced": scale,
            "blocks_that_carry": fill,
            "blocks": sum(count for count, _ in found),
            "accuracy": round(sum(n * share for n, share in found) / sum(n for n, _ in found), 4),
        }
        for (scale, fill), found in sorted(right.items())
    ]


def _weights(name: Name, out: Path) -> tuple[Dense, str, dict[str, Any]]:
    own = out / f"{name.file}.npz"
    if own.is_file():
        about = json.loads(own.with_suffix(".json").read_text("utf-8"))
        return parse(own.read_bytes()), str(own), about
    return packaged(name.detector, name.side), "packaged", {"training": {}}


def _write(network: Dense, name: Name, about: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stored = dump(network)
    (folder / f"{name.file}.npz").write_bytes(stored)
    described = {"name": str(name), **about, "sha256": digest(parse(stored))}
    (folder / f"{name.file}.json").write_text(json.dumps(described, indent=1) + "\n", "utf-8")
