"""Times, memory and start-up cost of the networks, each in a fresh process.

python -m benchmarks.bench_segment [--save]               on the CPU
python -m benchmarks.bench_segment --device gpu [--save]  also on the GPU, in batches
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.results import Result, Table, save

_REPEATS = 9


@dataclass(frozen=True, slots=True)
class Case:
    """One network on one runtime; `batch` views or block sets go through it together."""

    backend: str
    network: str = "vessels"
    side: int = 512
    threads: int = 1
    device: str = "cpu"
    batch: int = 1


def cases(device: str) -> list[Case]:
    """What a worker and the command line meet."""
    backends = [name for name in ("tensorflow", "jax") if find_spec(name)]
    chosen = [Case("numpy"), Case("numpy", side=3504), Case("numpy", "blessmark-block-8")]
    chosen += [Case(name, threads=threads) for name in backends for threads in (1, 2)]
    chosen += [Case(name, batch=8) for name in backends]
    chosen += [Case("tensorflow", side=3504), Case("tensorflow", "blessmark-block-8")] if backends else []
    if device == "gpu":
        chosen += [Case(name, device="gpu", batch=batch) for name in backends for batch in (1, 16, 64)]
    return chosen


def measure(case: Case) -> dict[str, Any]:
    """Seconds to import and start, milliseconds an image, and the process's peak memory."""
    started = time.perf_counter()
    runtime = _runtime(case)
    ready = time.perf_counter()
    images = _inputs(case, runtime.network.channels)
    first = _ms(lambda: runtime.logits(images))
    network_ms = [_ms(lambda: runtime.logits(images)) / case.batch for _ in range(_REPEATS)]
    return {
        **asdict(case),
        "import_and_start_s": round(ready - started, 2),
        "first_call_ms": round(first, 1),
        "network_ms": round(min(network_ms), 2),
        "network_median_ms": round(float(np.median(network_ms)), 2),
        "map_ms": round(min(_ms(_whole_map(case, runtime)) for _ in range(3)), 1),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _runtime(case: Case) -> Any:
    from blessmark.segment.integer import NumpyRuntime, load

    network = load(case.network)
    if case.backend == "numpy":
        return NumpyRuntime(network)
    from blessmark.segment.engine import Wish, start

    samples = 1 << (23 if case.device == "gpu" else 17)
    wish = Wish(case.backend, case.device, threads=case.threads, batch_samples=samples)
    result = start(network, wish)
    if result.warning:
        raise SystemExit(result.warning)
    return result.runtime


def _view(case: Case) -> Any:
    from blessmark.types import Frame, Lattice
    from blessmark.view import invariant_view

    rows, cols = (2336, 3504) if case.side == 3504 else (case.side, case.side)
    plane = np.random.default_rng(0).integers(60, 160, (1, rows, cols), dtype=np.int32)
    return invariant_view(Frame(plane, 0, 255), Lattice.QUARTER)


def _inputs(case: Case, channels: int) -> Any:
    from blessmark.segment.vessels import network_input, scale_of

    if case.network == "vessels":
        view = _view(case)
        one = network_input(view, scale_of(*view.samples.shape[1:]))
        return np.stack([one] * case.batch)
    return np.random.default_rng(0).integers(60, 160, (case.side**2 // 64, 8, 8, channels), dtype=np.uint8)


def _whole_map(case: Case, runtime: Any) -> Callable[[], Any]:
    from blessmark.segment.block import BlockNet
    from blessmark.segment.vessels import Vessels

    segmenter = Vessels(runtime) if case.network == "vessels" else BlockNet(runtime, 8)
    view = _view(case)
    return lambda: segmenter.roi_blocks(view)


def _ms(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e3


def _environment(case: Case) -> dict[str, str]:
    threads = {name: str(case.threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    backend = "tensorflow" if case.backend == "numpy" else case.backend
    platforms = "cuda" if case.device == "gpu" else "cpu"
    single = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"} if case.threads == 1 else {}
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": backend, "JAX_PLATFORMS": platforms}
    return {**os.environ, **threads, **quiet, **single}


def main() -> int:
    """Print one JSON line a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        print(json.dumps(measure(Case(**json.loads(chosen.child)))))
        return 0
    rows = []
    for case in cases(chosen.device):
        command = [sys.executable, "-m", "benchmarks.bench_segment", "--child", json.dumps(asdict(case))]
        done = subprocess.run(command, env=_environment(case), capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(rows[-1]), flush=True)
    if chosen.save:
        save(result(rows, chosen.device))
    return 0


def result(rows: list[dict[str, Any]], device: str) -> Result:
    """The rows as a benchmark result."""
    notes = (
        "An image of side 512 is 512 x 512 pixels, one of side 3504 a photograph of 3504 x 2336.",
        "`network_ms` is the least of nine runs, an image; `map_ms` is a whole map, from view to blocks.",
        f"Load average when the run ended: {os.getloadavg()[0]:.1f}.",
    )
    table = Table("times and memory", tuple(rows[0]), tuple(tuple(row.values()) for row in rows))
    return Result(f"segment-{device}", f"Speed of the networks: {device.upper()}", notes, (table,))


if __name__ == "__main__":
    sys.exit(main())
