"""The networks on Keras give the reference's integers, or the reference itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from blessmark.segment.engine import NoDevice, Wish
from blessmark.segment.integer import NumpyRuntime, logits_digest
from tests.unit.engine.small_networks import images, random_network

keras_net = pytest.importorskip("blessmark.segment.keras_net", exc_type=ImportError)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [(2, 2), (8, 6), (30, 64)])
def test_logits_are_those_of_the_reference(seed: int, size: tuple[int, int]) -> None:
    network, batch = random_network(seed), images(seed, 3, *size)
    got = keras_net.KerasRuntime(network).logits(batch)
    assert got.dtype == np.int32
    assert np.array_equal(got, NumpyRuntime(network).logits(batch))


@pytest.mark.parametrize("batch_samples", [1, 100, 640, 3 * 640, 1 << 20])
def test_neither_batches_nor_strips_show(batch_samples: int) -> None:
    network, batch = random_network(7), images(7, 7, 40, 16)
    runtime = keras_net.KerasRuntime(network, Wish(batch_samples=batch_samples))
    assert np.array_equal(runtime.logits(batch), NumpyRuntime(network).logits(batch))


def test_a_process_that_runs_keras_on_one_backend_runs_it_on_no_other() -> None:
    other = "jax" if keras_net.keras.backend.backend() != "jax" else "torch"
    with pytest.raises(RuntimeError, match="already"):
        keras_net.runtime(random_network(), Wish(other))


@pytest.mark.skipif(
    bool(keras_net.keras.distribution.list_devices("gpu")), reason="there is a GPU in this machine"
)
def test_a_device_that_is_not_there_is_no_runtime() -> None:
    backend = keras_net.keras.backend.backend()
    with pytest.raises(NoDevice):
        keras_net.runtime(random_network(), Wish(backend, "gpu"))


def test_a_float_that_is_not_exact_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the half in the bias the same sums floor to other integers now and then."""
    network = random_network(1)
    exact = keras_net.scaled_kernel

    def shifted(conv):
        kernel, bias = exact(conv)
        return kernel, bias - np.float32(0.75) * np.exp2(-conv.shift.astype(np.float32))

    monkeypatch.setattr(keras_net, "scaled_kernel", shifted)
    assert logits_digest(keras_net.KerasRuntime(network)) != network.logits_sha256


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--quick"], []], ids=["quick", "whole"])
def test_no_logit_differs_on_any_setting_of_the_cpu(options: list[str]) -> None:
    """Batch 1, 4, 37; 1 and 2 threads; oneDNN and XLA on and off; NumPy, JAX, and torch where installed."""
    command = [sys.executable, "-m", "benchmarks.exactness", *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr[-2000:]
    assert {row["backend"] for row in rows} >= {"numpy", "tensorflow", "jax"}
    of_tensorflow = [row for row in rows if row["backend"] == "tensorflow"]
    seen = {name: {row[name] for row in of_tensorflow} for name in ("threads", "onednn", "xla", "batch")}
    assert seen == {"threads": {1, 2}, "onednn": {True, False}, "xla": {True, False}, "batch": {1, 4, 37}}
    assert all(row["images"] >= 20 and row["differing"] == 0 for row in rows)
