"""Reads public vessel data sets into one shape, whatever their folder layout.

HRF        images/01_h.jpg            manual1/01_h.tif                  mask/01_h_mask.tif
DRIVE      training/images/21_*.tif   training/1st_manual/21_manual1.*  training/mask/21_*_mask.*
STARE      stare-images/im0001.ppm    labels-ah/im0001.ah.ppm           (also gzipped; no mask)
CHASE_DB1  Image_01L.jpg              Image_01L_1stHO.png               (no mask)
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from blessmark.types import BoolArray, Frame

#: a pixel whose brightest channel lies below this is surround, where a data set has no mask
_SURROUND_LEVEL = 32
#: one of so many groups of images is held out where a data set has no split of its own
FOLDS = 4

Rgb = npt.NDArray[np.uint8]


class DataError(Exception):
    """The folder does not hold a data set that can be read; the message names the folder or file."""


@dataclass(frozen=True, slots=True)
class Photo:
    """One labelled photograph.

    Attributes
    ----------
    name : data set and file stem, `hrf/01_h`
    held_out : never trained on
    rgb : uint8 [rows, cols, 3]
    vessels, field : bool [rows, cols]: vessel pixels; pixels that count for scores
    """

    name: str
    held_out: bool
    rgb: Rgb
    vessels: BoolArray
    field: BoolArray

    @property
    def frame(self) -> Frame:
        return Frame(np.ascontiguousarray(np.moveaxis(self.rgb, 2, 0).astype(np.int32)), 0, 255)


@dataclass(frozen=True, slots=True)
class Entry:
    """Where the files of one photograph lie."""

    name: str
    group: str  #: images of one group are held out together
    image: Path
    vessels: Path
    field: Path | None = None
    held_out: bool | None = None  #: None where the data set has no split of its own


def find(folder: Path, fold: int = 0) -> list[Entry]:
    """Every photograph of every data set in the folder or directly below it, in a fixed order.

    `fold`, 0 to 3, says which quarter of the groups is held out, counted from the last; a data set with a
    split of its own keeps it.

    Raises
    ------
    DataError
        there is none, or a photograph lacks its vessels
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder")
    folders = [folder, *sorted(each for each in folder.iterdir() if each.is_dir())]
    sets = (list(reader(each)) for each in folders for reader in _READERS)
    entries = [entry for each in sets for entry in _split(each, fold)]
    if not entries:
        raise DataError(f"no HRF, DRIVE, STARE or CHASE_DB1 layout in {folder} or directly below it")
    return entries


def read(entry: Entry) -> Photo:
    """The photograph as arrays."""
    rgb = _pixels(entry.image, "RGB")
    vessels = _binary(entry.vessels)
    field = _binary(entry.field) if entry.field else rgb.max(axis=2) >= _SURROUND_LEVEL
    if not rgb.shape[:2] == vessels.shape == field.shape:
        raise DataError(f"{entry.name}: image, vessels and mask differ in size")
    return Photo(entry.name, bool(entry.held_out), rgb, vessels, field)


def _hrf(folder: Path) -> Iterator[Entry]:
    for image in _images(folder / "images"):
        vessels = _sibling(folder / "manual1", image.stem)
        if vessels is not None:
            mask = _sibling(folder / "mask", f"{image.stem}_mask")
            yield Entry(f"hrf/{image.stem}", image.stem.partition("_")[0], image, vessels, mask)


def _drive(folder: Path) -> Iterator[Entry]:
    for part in ("training", "test"):
        for image in _images(folder / part / "images"):
            number = image.stem.partition("_")[0]
            vessels = _sibling(folder / part / "1st_manual", f"{number}_manual1")
            mask = _sibling(folder / part / "mask", f"{image.stem}_mask")
            if vessels is None:
                raise DataError(f"{image}: no 1st_manual/{number}_manual1")
            yield Entry(f"drive/{image.stem}", number, image, vessels, mask, part == "test")


def _stare(folder: Path) -> Iterator[Entry]:
    for image in _images(folder / "stare-images"):
        stem = image.name.partition(".")[0]
        vessels = _sibling(folder / "labels-ah", f"{stem}.ah")
        if vessels is not None:
            yield Entry(f"stare/{stem}", stem, image, vessels)


def _chase(folder: Path) -> Iterator[Entry]:
    for image in _images(folder):
        vessels = _sibling(folder, f"{image.stem}_1stHO")
        if vessels is not None:
            yield Entry(f"chase/{image.stem}", image.stem.rstrip("LR"), image, vessels)


_READERS: tuple[Callable[[Path], Iterator[Entry]], ...] = (_hrf, _drive, _stare, _chase)


def _split(entries: list[Entry], fold: int) -> Iterator[Entry]:
    """Hold out a quarter of the groups: both eyes or all three diseases of a number together."""
    groups = sorted({entry.group for entry in entries})
    quarter = len(groups) // FOLDS
    end = len(groups) - fold * quarter
    chosen = set(groups[end - quarter : end])
    for entry in entries:
        held_out = entry.group in chosen if entry.held_out is None else entry.held_out
        yield Entry(entry.name, entry.group, entry.image, entry.vessels, entry.field, held_out)


def _images(folder: Path) -> list[Path]:
    suffixes = (".jpg", ".tif", ".png", ".ppm", ".ppm.gz", ".gif")
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name.lower().endswith(suffixes))


def _sibling(folder: Path, stem: str) -> Path | None:
    """The image of that stem, whatever its suffix."""
    return next((path for path in _images(folder) if path.name.startswith(f"{stem}.")), None)


def _binary(path: Path) -> BoolArray:
    return np.asarray(_pixels(path, "L") >= 128)


def _pixels(path: Path, mode: str) -> npt.NDArray[np.uint8]:
    """uint8 [rows, cols] in mode `L`, [rows, cols, 3] in mode `RGB`."""
    content = path.read_bytes()
    with Image.open(io.BytesIO(gzip.decompress(content) if path.suffix == ".gz" else content)) as image:
        return np.asarray(image.convert(mode))
