"""The three commands, end to end, on a made-up data set and a recipe of a few steps."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from blessmark.segment.integer import NumpyRuntime, logits_digest, parse
from training.__main__ import main
from training.photos import DataError

commands = pytest.importorskip("training.commands", exc_type=ImportError)


@pytest.fixture
def data(tmp_path):
    """Four groups of photographs of 64 x 96 with one vessel each, in HRF's layout."""
    for folder in ("images", "manual1", "mask"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    for number in range(1, 5):
        rgb = np.full((64, 96, 3), 120, np.uint8)
        rgb[:, 20 * number - 10 : 20 * number - 5] = 70
        vessels = np.where(rgb[..., 0] < 100, 255, 0).astype(np.uint8)
        Image.fromarray(rgb).save(tmp_path / "set" / "images" / f"{number:02}_h.png")
        Image.fromarray(vessels).save(tmp_path / "set" / "manual1" / f"{number:02}_h.tif")
        Image.fromarray(np.full_like(vessels, 255)).save(
            tmp_path / "set" / "mask" / f"{number:02}_h_mask.tif"
        )
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
