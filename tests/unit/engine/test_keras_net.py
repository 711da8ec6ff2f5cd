"""The networks on Keras give the reference's integers, or the reference itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from blessmark.segment.integer import NumpyRuntime, load, logits_digest
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
    runtime = keras_net.KerasRuntime(network, keras_net.Device(batch_samples=batch_samples))
    assert np.array_equal(runtime.logits(batch), NumpyRuntime(network).logits(batch))


def test_the_packaged_network_passes_its_self_test() -> None:
    network = load("vessels")
    started = keras_net.start(network, keras_net.Device("cpu"))
    assert started.warning is None
    assert started.runtime.backend != "numpy"
    assert logits_digest(started.runtime) == network.logits_sha256


def test_a_runtime_that_disagrees_is_replaced_by_the_reference() -> None:
    network = replace(random_network(), logits_sha256="0" * 64)
    started = keras_net.start(network)
    assert "other logits" in started.warning
    assert started.runtime == NumpyRuntime(network)


def test_a_missing_device_is_replaced_by_the_reference() -> None:
    network = random_network()
    started = keras_net.start(network, keras_net.Device("abacus:9"))
    assert "failed" in started.warning
    assert started.runtime == NumpyRuntime(network)


def test_a_float_that_is_not_exact_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the half in the bias the same sums floor to other integers now and then."""
    network = random_network(1)
    exact = keras_net.scaled_kernel

    def shifted(conv):
        kernel, bias = exact(conv)
        return kernel, bias - np.float32(0.75) * np.exp2(-conv.shift.astype(np.float32))

    monkeypatch.setattr(keras_net, "scaled_kernel", shifted)
    assert keras_net.start(network).warning is not None


@pytest.mark.slow
def test_no_logit_differs_on_any_setting_of_the_cpu() -> None:
    """Batch 1, 4, 37; 1 and 2 threads; oneDNN and XLA on and off; NumPy; JAX and torch where installed."""
    command = [sys.executable, "-m", "benchmarks.exactness"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr[-2000:]
    assert {row["backend"] for row in rows} >= {"numpy", "tensorflow"}
    assert all(row["images"] >= 20 and row["differing"] == 0 for row in rows)
