"""The three commands, end to end, on a made-up data set and a recipe of a few steps."""

from __future__ import annotations

import gzip
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from blessmark.segment.integer import NumpyRuntime, logits_digest, parse
from training.__main__ import main
from training.photos import DataError

commands = pytest.importorskip("training.commands", exc_type=ImportError)


def put(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if path.suffix != ".gz":
        image.save(path)
        return
    buffer = io.BytesIO()
    image.save(buffer, "PPM")
    path.write_bytes(gzip.compress(buffer.getvalue()))


def photographs():
    """Four photographs of 64 x 96 with one vessel each: (number, photograph, vessels, mask)."""
    for number in range(1, 5):
        rgb = np.full((64, 96, 3), 120, np.uint8)
        rgb[:, 20 * number - 10 : 20 * number - 5] = 70
        vessels = np.where(rgb[..., 0] < 100, 255, 0).astype(np.uint8)
        yield number, rgb, vessels, np.full_like(vessels, 255)


def hrf(folder):
    for number, rgb, vessels, mask in photographs():
        put(folder / "images" / f"{number:02}_h.png", rgb)
        put(folder / "manual1" / f"{number:02}_h.tif", vessels)
        put(folder / "mask" / f"{number:02}_h_mask.tif", mask)
    return {"hrf/04_h"}


def drive(folder):
    for number, rgb, vessels, mask in photographs():
        part = folder / ("training" if number > 2 else "test")
        put(part / "images" / f"{number:02}_{part.name}.tif", rgb)
        put(part / "1st_manual" / f"{number:02}_manual1.gif", vessels)
        put(part / "mask" / f"{number:02}_{part.name}_mask.gif", mask)
    return {"drive/01_test", "drive/02_test"}


def stare(folder):
    for number, rgb, vessels, _ in photographs():
        put(folder / "stare-images" / f"im{number:04}.ppm.gz", rgb)
        put(folder / "labels-ah" / f"im{number:04}.ah.ppm.gz", vessels)
    return {"stare/im0004"}


def chase(folder):
    for number, rgb, vessels, _ in photographs():
        put(folder / f"Image_{number:02}L.jpg", rgb)
        put(folder / f"Image_{number:02}L_1stHO.png", vessels > 0)
    return {"chase/Image_04L"}


@pytest.fixture
def data(tmp_path):
    """Photographs in HRF's layout."""
    hrf(tmp_path / "set")
    return tmp_path / "set"


@pytest.fixture
def quick(monkeypatch):
    """Both kinds of task, with next to no training."""
    for name in ("vessels", "blessmark-block-8"):
        task = commands.TASKS[name]
        recipe = replace(task.recipe, float_steps=3, quantised_steps=2, batch=2, side=32)
        monkeypatch.setitem(commands.TASKS, name, Quick(task, recipe))


class Quick:
    """A task under another recipe."""

    def __init__(self, task, recipe):
        self._task, self.recipe = task, recipe

    def __getattr__(self, name):
        return getattr(self._task, name)

    def batches(self, data):
        draw = self._task.batches(data)
        return lambda step: tuple(each[:2] for each in draw(step))


@pytest.mark.parametrize("name", ["vessels", "blessmark-block-8"])
def test_train_evaluate_export(name, data, quick, tmp_path):
    trained = commands.train(name, data, tmp_path / "out")
    evaluated = commands.evaluate(name, data, tmp_path / "out")
    assert evaluated["scores"] == trained["scores"]
    assert evaluated["weights"].endswith(f"{name}.npz")

    exported = commands.export(name, data, tmp_path / "out")
    weights = tmp_path / "out" / "weights"
    network = parse((weights / f"{name}.npz").read_bytes(), (weights / f"{name}.json").read_text())
    assert network.digest == exported["sha256"]
    assert logits_digest(NumpyRuntime(network)) == network.logits_sha256
    assert json.dumps(exported)
    assert network.digest in (weights / f"{name}.md").read_text()


@pytest.mark.parametrize("layout", [hrf, drive, stare, chase])
def test_every_layout_is_trained_on_and_scored_on_its_held_out_part(layout, quick, tmp_path):
    held_out = layout(tmp_path / "set")
    trained = commands.train("vessels", tmp_path / "set", tmp_path / "out")
    assert {row["image"] for row in trained["scores"]["quarter"]} == {*held_out, "pooled"}
    packaged = commands.evaluate("vessels", tmp_path / "set", tmp_path / "none")
    assert packaged["scores"]["quarter"][-1]["dice"] > 0.5


def test_another_fold_holds_out_other_photographs(data, tmp_path):
    for fold, number in enumerate((4, 3, 2, 1)):
        (row, _) = commands.evaluate("vessels", data, tmp_path, fold)["scores"]["quarter"]
        assert row["image"] == f"hrf/0{number}_h"
    with pytest.raises(DataError, match="anatomy-net"):
        commands.evaluate("anatomy-net", data, tmp_path, 1)


def test_packaged_weights_are_scored_where_there_are_no_others(data, tmp_path):
    report = commands.evaluate("vessels", data, tmp_path)
    assert report["weights"] == "packaged"
    (pooled,) = [row for row in report["scores"]["quarter"] if row["image"] == "pooled"] or [{}]
    assert pooled.get("dice", 0) > 0.5


def test_an_unknown_network_names_the_known_ones(data, tmp_path):
    with pytest.raises(DataError, match="vessels"):
        commands.train("nonesuch", data, tmp_path)


def test_the_command_line_says_what_is_wrong(tmp_path, monkeypatch, capsys):
    kinds = ("OMP_NUM", "OPENBLAS_NUM", "TF_NUM_INTRAOP", "TF_NUM_INTEROP")
    for kind in kinds:
        monkeypatch.setenv(f"{kind}_THREADS", "1")
    assert main(["train", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path)]) == 2
    assert "not a folder" in capsys.readouterr().err
    assert main(["evaluate", "--data", str(tmp_path), "--network", "nonesuch"]) == 2
    assert "vessels" in capsys.readouterr().err
