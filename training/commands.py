"""The three commands, each a sentence over the steps of this package."""

from __future__ import annotations

import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from blessmark.segment.integer import Network, load, parse
from training import export as exporting
from training.cards import card_text
from training.fitting import fit
from training.photos import DataError
from training.tasks import TASKS, BlockTask, Task, VesselTask


def train(name: str, data: Path, out: Path, fold: int = 0) -> dict[str, Any]:
    """Train a network, or go on with an interrupted run; write its integers and score them."""
    task = _task(name, fold)
    started = time.monotonic()
    convs = fit(task.recipe, task.batches(data), out / name)
    training = _environment(started)
    trained = exporting.network(task.recipe, convs, {"data": task.data, "training": training})
    exporting.write(trained, out / name)
    return {"weights": str(out / name), "training": training, "scores": task.scores(trained, data)}


def evaluate(name: str, data: Path, out: Path, fold: int = 0) -> dict[str, Any]:
    """Score the weights in the output folder, or the packaged ones if there are none, on held-out images."""
    task = _task(name, fold)
    network, where = _weights(name, out)
    return {"network": network.id, "weights": where, "scores": task.scores(network, data)}


def export(name: str, data: Path, out: Path, fold: int = 0) -> dict[str, Any]:
    """Set the operating point, score, and write weights and model card to `<out>/weights`."""
    task = _task(name, fold)
    trained, _ = _weights(name, out)
    ready = task.calibrated(trained, data)
    card = {**trained.card, "licence": task.licence, "scores": task.scores(ready, data)}
    card["training"] = {**card["training"], "commit": exporting.commit()}
    final = replace(ready, card=card)
    exporting.write(final, out / "weights")
    (out / "weights" / f"{name}.md").write_text(card_text(final), encoding="utf-8")
    return {"weights": str(out / "weights"), "network": final.id, "sha256": final.digest, "card": card}


def _task(name: str, fold: int) -> Task:
    if name not in TASKS:
        raise DataError(f"no network {name!r}; there are {', '.join(TASKS)}")
    task = TASKS[name]
    if not fold:
        return task
    if not isinstance(task, VesselTask | BlockTask):
        raise DataError(f"{name} is not scored on photographs; leave --fold out")
    data = f"every quarter of the photographs but number {fold} from the last"
    return replace(task, fold=fold, data=data)


def _weights(name: str, out: Path) -> tuple[Network, str]:
    own = out / name / f"{name}.npz"
    if own.is_file():
        return parse(own.read_bytes(), own.with_suffix(".json").read_text(encoding="utf-8")), str(own)
    return load(name), "packaged"


def _environment(started: float) -> dict[str, Any]:
    return {
        "seconds": round(time.monotonic() - started),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "keras": f"{keras.__version__} on {keras.backend.backend()}",
        "processor": platform.machine(),
    }
