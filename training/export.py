"""Turns integers into the packaged weight files, after proving that they compute exactly."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from blessmark.segment.integer import (
    Conv,
    Network,
    NumpyRuntime,
    Op,
    definition_digest,
    dump,
    logits_by_definition,
    logits_digest,
)
from training.recipe import Recipe


class ExportError(Exception):
    """The runtimes do not agree; nothing was written."""


def network(recipe: Recipe, convs: Mapping[str, Conv], card: Mapping[str, Any]) -> Network:
    """The network with its proof of exactness.

    Raises
    ------
    SegmenterError
        a layer could exceed the exact range
    ExportError
        the NumPy runtime differs from the definition on the fixed images
    """
    unproven = Network(recipe.name, recipe.version, 255, recipe.topology.steps, convs, "", card)
    proven = replace(unproven, logits_sha256=definition_digest(unproven))
    if logits_digest(NumpyRuntime(proven)) != proven.logits_sha256:
        raise ExportError(f"{proven.id}: NumPy logits differ from the definition")
    return proven


def lowered(one: Network, offset: int) -> Network:
    """The network with its threshold lowered: every logit is greater by `offset`."""
    name = next(step.name for step in one.steps if step.op is Op.LOGIT)
    conv = one.convs[name]
    convs = {**one.convs, name: replace(conv, bias=(conv.bias + offset).astype(np.int32))}
    shifted = replace(one, convs=convs)
    return replace(shifted, logits_sha256=definition_digest(shifted))


def differing_logits(one: Network, images: np.typing.NDArray[np.uint8]) -> int:
    """Logits in which the NumPy runtime differs from the definition: 0."""
    return int((NumpyRuntime(one).logits(images) != logits_by_definition(one, images)).sum())


def write(one: Network, folder: Path) -> None:
    """Write `<name>.npz` and `<name>.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays, description = dump(one)
    (folder / f"{one.name}.npz").write_bytes(arrays)
    (folder / f"{one.name}.json").write_text(description, encoding="utf-8")


def commit() -> str:
    """The commit this training code was checked out at, with a mark if files differ from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"
