"""The training loop: two phases, checkpoints, and a run that continues where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from blessmark.segment.integer import Conv
from training.quantised import FloatConv, float_model, folded, integers, quantised_model
from training.recipe import Recipe
from training.samples import Batches

_CHECKPOINT_EVERY = 250


@dataclass(frozen=True, slots=True)
class Phase:
    """One stretch of training."""

    name: str
    steps: int
    rate: float
    first_step: int


def fit(recipe: Recipe, batches: Batches, folder: Path) -> Mapping[str, Conv]:
    """Train in floats, fold, train on the integer grid; continues from checkpoints in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(recipe.seed)
    model = float_model(recipe.topology)
    floats = Phase("float", recipe.float_steps, recipe.float_rate, 0)
    _run(model, floats, recipe, batches, folder)
    model = quantised_model(recipe.topology, folded(model, recipe.topology))
    grid = Phase("quantised", recipe.quantised_steps, recipe.quantised_rate, recipe.float_steps)
    _run(model, grid, recipe, batches, folder)
    return integers(model, recipe.topology)


def loss_of(dice_weight: float) -> Callable[[Any, Any], Any]:
    """Cross-entropy on logits plus dice_weight * (1 - soft Dice of the whole batch)."""

    def loss(truth: Any, logits: Any) -> Any:
        cross = ops.mean(ops.binary_crossentropy(truth, logits, from_logits=True))
        share = ops.sigmoid(logits)
        overlap, size = ops.sum(share * truth), ops.sum(share) + ops.sum(truth)
        return cross + dice_weight * (1 - (2 * overlap + 1) / (size + 1))

    return loss


def _run(model: keras.Model, phase: Phase, recipe: Recipe, batches: Batches, folder: Path) -> None:
    schedule = keras.optimizers.schedules.CosineDecay(phase.rate, max(phase.steps, 1))
    optimizer = keras.optimizers.Adam(schedule)
    optimizer.build(model.trainable_variables)
    model.compile(optimizer, loss=loss_of(recipe.dice_weight), jit_compile=False)
    checkpoint = folder / f"{phase.name}.npz"
    done = _restore(model, checkpoint)
    with _progress() as progress:
        task = progress.add_task(phase.name, total=phase.steps, completed=done, loss=float("nan"))
        smooth = float("nan")
        for step in range(done, phase.steps):
            crops, truth = batches(phase.first_step + step)
            loss = float(model.train_on_batch(crops, truth))
            smooth = loss if step == done else 0.99 * smooth + 0.01 * loss
            progress.update(task, advance=1, loss=smooth)
            if (step + 1) % _CHECKPOINT_EVERY == 0 or step + 1 == phase.steps:
                _save(model, checkpoint, step + 1)
                progress.console.log(f"{phase.name} step {step + 1} loss {smooth:.4f}")


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("loss {task.fields[loss]:.4f}"))


def _save(model: keras.Model, path: Path, done: int) -> None:
    """Replace the checkpoint in one go, so that an interrupted write leaves the former one."""
    arrays: dict[str, Any] = {f"v{index:03}": np.asarray(each) for index, each in enumerate(_state(model))}
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, done=np.int64(done), **arrays)
    partial.replace(path)


def _restore(model: keras.Model, path: Path) -> int:
    """How many steps the checkpoint holds; 0 without one."""
    if not path.is_file():
        return 0
    with np.load(path, allow_pickle=False) as stored:
        for index, each in enumerate(_state(model)):
            each.assign(stored[f"v{index:03}"])
        return int(stored["done"])


def _state(model: keras.Model) -> list[Any]:
    """Weights, moving averages and the optimizer's memory, in the order Keras builds them."""
    return [*model.variables, *model.optimizer.variables]


def floats_of(recipe: Recipe, folder: Path) -> Mapping[str, FloatConv]:
    """The folded float network of a finished float phase."""
    model = float_model(recipe.topology)
    model.compile(keras.optimizers.Adam(), jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    _restore(model, folder / "float.npz")
    return folded(model, recipe.topology)
