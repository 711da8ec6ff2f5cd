"""The images that are measured: one frame of each public DICOM file, and fundus photographs at half size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image as Picture

from blessmark import pixels
from blessmark.errors import PixelError
from blessmark.payload.record import FULL_FIELDS
from blessmark.profile import V1
from blessmark.types import About, BoolArray, Frame, SiteKey
from dicom_node import header

_SOP_INSTANCE_UID = 0x00080018


@dataclass(frozen=True, slots=True)
class Ring:
    """A key ring in memory; the first key writes."""

    keys: tuple[SiteKey, ...]

    @property
    def current(self) -> SiteKey:
        return self.keys[0]


KEY = SiteKey(1, bytes(range(32)))
RING = Ring((KEY,))
OTHER_RING = Ring((SiteKey(2, bytes(range(32, 64))),))


@dataclass(frozen=True, slots=True)
class Fixed:
    """A segmenter that answers with a map made elsewhere; `blocks` is bool [rows // 8, cols // 8]."""

    blocks: BoolArray
    id: str = "fixed/1"
    reach_px: int | None = 0

    def roi_blocks(self, _view: object) -> BoolArray:
        return self.blocks


@dataclass(frozen=True, slots=True)
class Sample:
    """One frame to be marked, and the record that its header gives."""

    name: str
    modality: str
    frame: Frame
    about: About


def dicom_files(data: Path) -> list[Path]:
    """Every file below `data`/dicom, sorted."""
    return sorted(path for path in (data / "dicom").rglob("*") if path.is_file())


def thinned(files: list[Path], most: int = 2, series: int = 20) -> list[Path]:
    """`files` without all but the first `most` of each folder that holds more than `series` of them.

    A long series is one acquisition: its slices differ in their pixels and in a handful of numbers.
    """
    folders: dict[Path, list[Path]] = {}
    for path in files:
        folders.setdefault(path.parent, []).append(path)
    return [each for held in folders.values() for each in (held[:most] if len(held) > series else held)]


def sample(path: Path, least_side: int = 0) -> Sample | None:
    """The middle frame of a file; None when it holds no image that can be marked, or a smaller one."""
    try:
        ds = pixels.read(path)
        image = pixels.load(ds)
    except PixelError:
        return None
    if isinstance(image, pixels.Passthrough) or min(image.rows, image.cols) < least_side:
        return None
    about = About(
        sop_instance_uid=(header.value_bytes(ds, _SOP_INSTANCE_UID) or b"").decode("ascii").strip(" \0"),
        frames=image.frames,
        time_s=1_790_000_000,
        node="benchmark",
        charset=header.value_bytes(ds, header.SPECIFIC_CHARACTER_SET) or b"",
        fields=header.read_fields(ds, FULL_FIELDS),
    )
    modality = (header.value_bytes(ds, 0x00080060) or b"").decode("ascii", "replace").strip(" \0") or "none"
    return Sample(path.name, modality, image.frame((image.frames + 1) // 2), about)


@dataclass(frozen=True, slots=True)
class Fundus:
    """A photograph at half size, RGB.

    `vessels` and `outside` are bool [rows, cols]: drawn by hand, and where the camera saw nothing.
    """

    name: str
    frame: Frame
    vessels: BoolArray
    outside: BoolArray

    def map_of(self, *masks: BoolArray) -> BoolArray:
        """bool [rows // 8, cols // 8]: blocks that any of the masks touches."""
        rows, cols = self.frame.rows // V1.block_px, self.frame.cols // V1.block_px
        pixels_ = np.logical_or.reduce(masks)[: rows * V1.block_px, : cols * V1.block_px]
        return np.asarray(pixels_.reshape(rows, V1.block_px, cols, V1.block_px).any(axis=(1, 3)))


def fundus_names(data: Path) -> list[str]:
    """The photographs below `data`/hrf that have a vessel mask and a field of view."""
    return sorted(path.name for path in (data / "hrf" / "images").glob("*"))


def fundus(data: Path, name: str) -> Fundus:
    """Read one photograph; every sample is the mean of 2 x 2, rounded half up."""
    folder, stem = data / "hrf", Path(name).stem
    picture = _samples(folder / "images" / name).astype(np.int32)
    cells = picture[0::2, 0::2] + picture[0::2, 1::2] + picture[1::2, 0::2] + picture[1::2, 1::2]
    half = np.ascontiguousarray(((cells + 2) >> 2).transpose(2, 0, 1)).astype(np.int32)
    vessels = _mask(next(folder.glob(f"manual1/{stem}.*")))
    seen = _mask(folder / "mask" / f"{stem}_mask.tif")
    return Fundus(name, Frame(half, 0, 255), _halved(vessels), _halved(~seen))


def fundus_about(name: str) -> About:
    """A record of usual length for a photograph that has no header."""
    fields = {
        0x00100010: b"Phantom^Retina Specimen ",
        0x00100020: b"F-2026-000417 ",
        0x00100030: b"19570312",
        0x00100040: b"F ",
        0x00080020: b"20261104",
        0x00080030: b"091522",
        0x00080050: b"A20261104017",
        0x00080060: b"OP",
        0x00080080: b"Eye Clinic",
        0x00080090: b"Sender^Test ",
        0x0020000D: b"1.2.826.0.1.3680043.9.7433.3.20261104.417.1",
        0x0020000E: b"1.2.826.0.1.3680043.9.7433.3.20261104.417.1.1",
        _SOP_INSTANCE_UID: b"1.2.826.0.1.3680043.9.7433.3.20261104.417.1.1.1",
    }
    return About(f"2.25.{sum(name.encode())}", 1, 1_790_000_000, "benchmark", b"ISO_IR 100", fields)


def _samples(path: Path) -> npt.NDArray[np.uint8]:
    with Picture.open(path) as picture:
        return np.asarray(picture)


def _mask(path: Path) -> BoolArray:
    """True where a mask file is not black; some are stored as grey, some as colour."""
    samples = _samples(path)
    return np.asarray(samples.reshape(*samples.shape[:2], -1).any(axis=2))


def _halved(mask: BoolArray) -> BoolArray:
    """True where any pixel of a 2 x 2 cell is."""
    return np.asarray(mask[0::2, 0::2] | mask[0::2, 1::2] | mask[1::2, 0::2] | mask[1::2, 1::2])


def chosen(files: list[Path], most: int, seed: int) -> list[Path]:
    """`most` of the files, drawn by the seed, in their order; all of them when there are no more."""
    if len(files) <= most:
        return files
    picked = np.random.default_rng(seed).choice(len(files), most, replace=False)
    return [files[index] for index in sorted(picked)]


def samples(files: list[Path], least_side: int = 0) -> Iterator[Sample]:
    """The frames of those files that can be marked and are large enough."""
    for path in files:
        found = sample(path, least_side)
        if found is not None:
            yield found
