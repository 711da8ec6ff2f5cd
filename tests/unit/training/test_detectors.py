"""What the detectors are trained on, and the three commands for them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blessmark.carrier.dct import SIDES
from blessmark.carrier.dct_detector import Detector
from training import detectors
from training.__main__ import main
from training.detectors import Name, Plate, reduced_colour, samples_of
from training.perceptron import Schedule
from training.photos import DataError, Photo


def plate(seed: int = 0) -> Plate:
    rng = np.random.default_rng(seed)
    row, col = np.ogrid[:120, :150]
    base = 100 + 40 * np.sin(row / 17) + 30 * np.cos(col / 11)
    samples = np.stack([base + rng.normal(0, 1.5, base.shape) for _ in range(3)]).astype(np.int32)
    vessels = np.zeros(base.shape, np.bool_)
    vessels[50:56] = True
    return Plate("made/1", 6, samples, vessels)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("detector", [Detector.PAPER, Detector.CONTEXT])
def test_every_block_comes_with_either_bit(side, detector):
    """So that half of the blocks are altered and half are not, in any photograph."""
    seen, truth = samples_of(plate(), Name(detector, side), np.random.default_rng(0), 1.0, None)
    free = sum(
        not plate().vessels[side * r : side * r + side, side * c : side * c + side].any()
        for r in range(120 // side)
        for c in range(150 // side)
    )
    assert len(seen) == len(truth) == 2 * 3 * free
    assert truth.mean() == pytest.approx(0.5, abs=0.02)
    assert np.isfinite(seen).all()


def test_few_blocks_may_carry_and_few_be_asked():
    name = Name(Detector.CONTEXT, 6)
    some, _ = samples_of(plate(), name, np.random.default_rng(0), 0.2, None)
    fewer, _ = samples_of(plate(), name, np.random.default_rng(0), 0.2, 10)
    assert len(fewer) == 2 * 3 * 10 < len(some)


def test_photographs_are_reduced_by_rounded_means():
    rgb = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    vessels = np.zeros((4, 6), np.bool_)
    vessels[3, 5] = True
    found = reduced_colour(Photo("a/b", False, rgb, vessels, ~vessels), 2)
    assert found.samples.shape == (3, 2, 3)
    assert found.samples[1, 0, 0] == (int(rgb[:2, :2, 1].astype(int).sum()) + 2) // 4
    assert found.vessels.tolist() == [[False] * 3, [False, False, True]]


def test_names():
    assert str(Name.of("detector-paper-10")) == "detector-paper-10"
    assert Name.of("detector-context-6").file == "context-6"
    with pytest.raises(DataError, match="there are detector-"):
        Name.of("detector-context-7")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A DRIVE of one photograph in each half."""
    for part, number in (("training", 21), ("test", 1)):
        folder = tmp_path / "drive" / part
        name = f"{number:02}_{part}"
        made = plate(number)
        for below, file, samples in (
            ("images", f"{name}.tif", np.moveaxis(made.samples, 0, 2).astype(np.uint8)),
            ("1st_manual", f"{number:02}_manual1.png", made.vessels.astype(np.uint8) * 255),
            ("mask", f"{name}_mask.png", np.full(made.vessels.shape, 255, np.uint8)),
        ):
            (folder / below).mkdir(parents=True, exist_ok=True)
            Image.fromarray(samples).save(folder / below / file)
    return tmp_path


def test_the_commands(data, tmp_path, capsys, monkeypatch):
    """Trained, exported and scored through the command line, without Keras."""
    quick = dict.fromkeys(detectors._SCHEDULES, Schedule(epochs=4, batch=64))
    monkeypatch.setattr(detectors, "_SCHEDULES", quick)
    out = tmp_path / "out"
    arguments = ["--network", "detector-context-6", "--data", str(data), "--out", str(out)]
    for command in ("train", "export", "evaluate"):
        capsys.readouterr()
        assert main([command, *arguments]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["network"], report["weights"]) == ("detector-context-6", str(out / "context-6.npz"))
    stored = json.loads((out / "weights" / "context-6.json").read_text("utf-8"))
    assert stored["name"] == "detector-context-6"
    assert {row["reduced"] for row in stored["scores"]} == {1}
    assert all(row["accuracy"] > 0.8 for row in stored["scores"])
    assert stored["training"]["blocks"] > 1000
    assert main(["train", "--network", "detector-paper-7", "--data", str(data)]) == 2
