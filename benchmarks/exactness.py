"""Counts logits that differ between the NumPy reference and every other way to run a network.

    python -m benchmarks.exactness                 the CPU matrix
    python -m benchmarks.exactness --quick         its settings in few processes, on smaller images: for CI
    python -m benchmarks.exactness --device gpu    CPU and GPU, TF32 on and off, for a machine that has one
    ... --data DIR                                 photographs of that folder besides the synthetic images
    ... --save                                     keep the result in results/ and RESULTS.md

Every row is a process of its own, because thread counts, oneDNN and TF32 are fixed when a framework starts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.results import Result, Table, save
from blessmark.segment.integer import NumpyRuntime, Runtime, load

Pair = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]
_BATCHES = (1, 4, 37)
_IMAGES, _ROWS, _COLS = 40, 96, 128
#: height and width are divided by this for a quick run
_QUICK = 3


@dataclass(frozen=True, slots=True)
class Setting:
    """What a process is started with; it runs every batch size, and XLA on and off where that is a choice."""

    backend: str
    device: str = "cpu"
    threads: int = 1
    onednn: bool = True
    tf32: bool = True

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "KERAS_BACKEND": self.backend if self.backend != "numpy" else "tensorflow",
            "OMP_NUM_THREADS": str(self.threads),
            "OPENBLAS_NUM_THREADS": str(self.threads),
            "TF_ENABLE_ONEDNN_OPTS": str(int(self.onednn)),
            "NVIDIA_TF32_OVERRIDE": str(int(self.tf32)),
            "JAX_PLATFORMS": "cuda" if self.device == "gpu" else "cpu",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }


def cpu_settings() -> list[Setting]:
    """TensorFlow with 1 and 2 threads, oneDNN on and off; NumPy; JAX and torch where installed."""
    tensorflow = [
        Setting("tensorflow", threads=threads, onednn=onednn)
        for threads in (1, 2)
        for onednn in (True, False)
    ]
    others = [Setting(name) for name in ("jax", "torch") if find_spec(name)]
    return [Setting("numpy"), Setting("numpy", threads=2), *tensorflow, *others]


def quick_settings() -> list[Setting]:
    """Every value of every setting of the CPU matrix, in as few processes as can hold them."""
    both = [Setting("tensorflow"), Setting("tensorflow", threads=2, onednn=False)]
    others = [Setting(name) for name in ("jax", "torch") if find_spec(name)]
    return [Setting("numpy", threads=2), *both, *others]


def gpu_settings() -> list[Setting]:
    """Every installed framework on the GPU, TF32 allowed and forbidden."""
    names = [name for name in ("tensorflow", "jax", "torch") if find_spec(name)]
    return [Setting(name, "gpu", tf32=tf32) for name in names for tf32 in (True, False)]


def synthetic(reduced: int = 1) -> npt.NDArray[np.uint8]:
    """uint8 [40, 96, 128, 1]: branching dark lines of many widths on uneven, noisy grounds.

    `reduced` keeps the upper left part of each, its sides divided by that.
    """
    rng = np.random.default_rng(11)
    row, col = np.mgrid[:_ROWS, :_COLS]
    stack = []
    for _ in range(_IMAGES):
        ground = 128 + rng.normal(0, 12) + 0.3 * (row - 48) * rng.normal() + rng.normal(0, 4, (_ROWS, _COLS))
        for _ in range(int(rng.integers(2, 9))):
            ground -= _line(rng, row, col)
        stack.append(np.clip(np.rint(ground), 0, 255).astype(np.uint8))
    return np.stack(stack)[:, : _ROWS // reduced, : _COLS // reduced // 4 * 4, None]


def _line(
    rng: np.random.Generator, row: npt.NDArray[np.int64], col: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    angle, bend = rng.uniform(0, np.pi), rng.normal(0, 8)
    across = np.cos(angle) * (row - rng.uniform(0, _ROWS)) + np.sin(angle) * (col - rng.uniform(0, _COLS))
    along = np.sin(angle) * row - np.cos(angle) * col
    across = across + bend * np.sin(along / 20)
    return np.asarray(rng.uniform(5, 60) * np.exp(-((across / rng.uniform(0.7, 5)) ** 2)))


def photographs(folder: Path) -> list[npt.NDArray[np.uint8]]:
    """Network inputs of the labelled photographs in the folder, each [1, rows, cols, 1]."""
    from blessmark.segment.vessels import network_input, scale_of
    from blessmark.types import Lattice
    from blessmark.view import invariant_view
    from training.photos import find, read

    photos = (read(entry) for entry in find(folder))
    return [
        network_input(invariant_view(photo.frame, Lattice.QUARTER), scale_of(*photo.vessels.shape))[None]
        for photo in photos
    ]


def compare(setting: Setting, name: str, reference: Path) -> list[dict[str, object]]:
    """One row a batch size (and XLA choice) of this process: how many logits differ."""
    with np.load(reference) as stored:
        pairs = [(stored[f"i{n}"], stored[f"l{n}"]) for n in range(len(stored.files) // 2)]
    images, logits = sum(len(each) for each, _ in pairs), sum(each.size for _, each in pairs)
    rows: list[dict[str, object]] = []
    for xla in (False, True) if setting.backend == "tensorflow" else (False,):
        for batch in _BATCHES:
            differing = _differing(_runtime(setting, name, batch, pairs[0][0][0].size, xla), pairs)
            run = {"xla": xla, "batch": batch, "images": images, "logits": logits, "differing": differing}
            rows.append({**asdict(setting), **run})
    return rows


def _differing(runtime: Runtime, pairs: list[Pair]) -> int:
    return sum(int((runtime.logits(images) != logits).sum()) for images, logits in pairs)


def _runtime(setting: Setting, name: str, batch: int, cells: int, xla: bool) -> Runtime:
    """The network on the setting's library, `batch` images of so many cells at a time."""
    if setting.backend == "numpy":
        return NumpyRuntime(load(name))
    from blessmark.segment.engine import Wish, start

    wish = Wish(
        setting.backend,
        setting.device,
        threads=setting.threads,
        xla=xla,
        batch_samples=batch * cells,
    )
    started = start(load(name), wish)
    if started.warning:
        raise SystemExit(started.warning)
    return started.runtime


def matrix(
    settings: list[Setting], name: str, data: Path | None, reduced: int = 1
) -> Iterator[dict[str, Any]]:
    """Run every setting in its own process and yield its rows."""
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder) / "reference.npz"
        _write_reference(reference, name, data, reduced)
        for setting in settings:
            command = [sys.executable, "-m", "benchmarks.exactness", "--network", name]
            command += ["--child", json.dumps(asdict(setting)), "--reference", str(reference)]
            done = subprocess.run(
                command, env=setting.environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise RuntimeError(f"{setting}: {done.stderr[-2000:]}")
            yield from json.loads(done.stdout.splitlines()[-1])


def _write_reference(path: Path, name: str, data: Path | None, reduced: int) -> None:
    stacks = [synthetic(reduced), *(photographs(data) if data else [])]
    runtime = NumpyRuntime(load(name))
    arrays: dict[str, Any] = {f"i{n}": images for n, images in enumerate(stacks)}
    arrays |= {f"l{n}": runtime.logits(images) for n, images in enumerate(stacks)}
    np.savez(path, **arrays)


def main() -> int:
    """0 if no logit differs anywhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--network", default="vessels")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--reference", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        print(json.dumps(compare(Setting(**json.loads(chosen.child)), chosen.network, chosen.reference)))
        return 0
    settings = quick_settings() if chosen.quick else cpu_settings()
    settings += gpu_settings() if chosen.device == "gpu" else []
    rows: list[dict[str, Any]] = []
    for row in matrix(settings, chosen.network, chosen.data, _QUICK if chosen.quick else 1):
        print(json.dumps(row), flush=True)
        rows.append(row)
    if chosen.save:
        save(result(rows, chosen.network, chosen.device))
    return int(any(row["differing"] for row in rows))


def result(rows: list[dict[str, Any]], name: str, device: str) -> Result:
    """The rows as a benchmark result."""
    network = load(name)
    where = "CPU and GPU" if device == "gpu" else "CPU"
    notes = (
        f"{network.id}, SHA-256 {network.digest}: logits that differ from the NumPy reference. "
        "Every row is a process of its own; batches of photographs hold one image each.",
    )
    table = Table("differing logits", tuple(rows[0]), tuple(tuple(row.values()) for row in rows))
    return Result(f"exactness-{device}", f"Exactness of the networks: {where}", notes, (table,))


if __name__ == "__main__":
    sys.exit(main())
