"""Every data set's folder layout is read, and split the same way every time."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.photos import FOLDS, DataError, find, read


def picture(path: Path, value: int = 120, mode: str = "RGB", size: tuple[int, int] = (12, 8)) -> None:
    """A plain image; a gzipped one where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new(mode, size, value if mode == "L" else (value, value, value))
    if path.suffix != ".gz":
        image.save(path)
        return
    buffer = io.BytesIO()
    image.save(buffer, "PPM")
    path.write_bytes(gzip.compress(buffer.getvalue()))


def hrf(folder: Path, stems: list[str]) -> None:
    for stem in stems:
        picture(folder / "images" / f"{stem}.JPG")
        picture(folder / "manual1" / f"{stem}.tif", 255, "L")
        picture(folder / "mask" / f"{stem}_mask.tif", 255)


def test_hrf_holds_out_the_last_quarter_of_its_numbers(tmp_path: Path) -> None:
    hrf(tmp_path, [f"{number:02}_{kind}" for number in (1, 3, 5, 7) for kind in ("dr", "g", "h")])
    entries = find(tmp_path)
    assert len(entries) == 12
    assert {entry.name for entry in entries if entry.held_out} == {"hrf/07_dr", "hrf/07_g", "hrf/07_h"}
    photo = read(entries[0])
    assert photo.rgb.shape == (8, 12, 3)
    assert photo.vessels.all()
    assert photo.field.all()


def test_folds_hold_out_each_number_once_together(tmp_path: Path) -> None:
    hrf(tmp_path, [f"{number:02}_{kind}" for number in range(1, 10) for kind in ("g", "h")])
    folds = [{entry.group for entry in find(tmp_path, fold) if entry.held_out} for fold in range(FOLDS)]
    assert folds == [{"08", "09"}, {"06", "07"}, {"04", "05"}, {"02", "03"}]


def test_drive_keeps_its_own_split_in_every_fold(tmp_path: Path) -> None:
    for part, number in (("training", "21"), ("test", "01")):
        picture(tmp_path / part / "images" / f"{number}_{part}.tif")
        picture(tmp_path / part / "1st_manual" / f"{number}_manual1.gif", 255, "L")
        picture(tmp_path / part / "mask" / f"{number}_{part}_mask.gif", 255, "L")
    for fold in range(FOLDS):
        assert {entry.name: entry.held_out for entry in find(tmp_path, fold)} == {
            "drive/21_training": False,
            "drive/01_test": True,
        }


def test_drive_without_its_vessels_says_so(tmp_path: Path) -> None:
    picture(tmp_path / "training" / "images" / "21_training.tif")
    with pytest.raises(DataError, match="21_manual1"):
        find(tmp_path)


def test_stare_is_read_gzipped_and_without_a_mask(tmp_path: Path) -> None:
    for number in range(1, 5):
        picture(tmp_path / "stare-images" / f"im000{number}.ppm.gz", 120 if number > 1 else 5)
        picture(tmp_path / "labels-ah" / f"im000{number}.ah.ppm.gz", 255)
    entries = find(tmp_path)
    assert [entry.held_out for entry in entries] == [False, False, False, True]
    assert not read(entries[0]).field.any()
    assert read(entries[1]).field.all()


def test_chase_keeps_both_eyes_together(tmp_path: Path) -> None:
    for number in range(1, 5):
        for eye in "LR":
            picture(tmp_path / f"Image_{number:02}{eye}.jpg")
            picture(tmp_path / f"Image_{number:02}{eye}_1stHO.png", 255, "L")
    entries = find(tmp_path)
    assert len(entries) == 8
    assert {entry.name for entry in entries if entry.held_out} == {"chase/Image_04L", "chase/Image_04R"}


def test_a_folder_of_several_sets_is_searched(tmp_path: Path) -> None:
    hrf(tmp_path / "hrf", ["01_h"])
    hrf(tmp_path / "more", ["03_h"])
    assert [entry.name for entry in find(tmp_path)] == ["hrf/01_h", "hrf/03_h"]


def test_a_folder_without_a_set_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no HRF, DRIVE, STARE or CHASE_DB1"):
        find(tmp_path)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        find(tmp_path / "nowhere")


def test_sizes_that_differ_are_an_error(tmp_path: Path) -> None:
    hrf(tmp_path, ["01_h"])
    picture(tmp_path / "manual1" / "01_h.tif", 255, "L", (10, 8))
    with pytest.raises(DataError, match="differ in size"):
        read(find(tmp_path)[0])


def test_the_frame_is_planar(tmp_path: Path) -> None:
    hrf(tmp_path, ["01_h"])
    frame = read(find(tmp_path)[0]).frame
    assert frame.samples.shape == (3, 8, 12)
    assert frame.samples.dtype == np.int32
