"""What evaluates a network: the wished engine where it proves exact, the reference otherwise."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from blessmark.segment import engine
from blessmark.segment.engine import Deferred, NoDevice, Outcome, Wish, start
from blessmark.segment.integer import Images, Network, NumpyRuntime, load, logits_digest
from blessmark.types import IntArray
from tests.unit.engine.small_networks import images, random_network


class Fake:
    """A library that gives the reference's logits, each greater by `error`."""

    backend = "fake"

    def __init__(self, network: Network, error: int = 0) -> None:
        self.network = network
        self._error = error

    def logits(self, images: Images) -> IntArray:
        return NumpyRuntime(self.network).logits(images) + np.int32(self._error)


@pytest.fixture
def library(monkeypatch):
    """Puts a fake in the place of Keras; the function that makes its runtimes is up to the test."""

    def put(runtime) -> None:
        module = ModuleType("fake")
        module.runtime = runtime
        monkeypatch.setattr(engine, "_KERAS", "fake")
        monkeypatch.setitem(sys.modules, "fake", module)
        monkeypatch.setenv("KERAS_BACKEND", "")

    return put


def test_numpy_is_what_it_was_asked_for() -> None:
    started = start(random_network(), Wish("numpy"))
    assert (started.runtime.backend, started.outcome, started.warning) == ("numpy", Outcome.OK, None)


def test_a_library_that_agrees_is_used(library) -> None:
    library(lambda network, wish: Fake(network))
    started = start(random_network(), Wish("tensorflow"))
    assert (started.runtime.backend, started.outcome, started.warning) == ("fake", Outcome.OK, None)


def test_one_wrong_logit_is_enough_to_be_replaced(library) -> None:
    class OneOff(Fake):
        def logits(self, images: Images) -> IntArray:
            wrong = super().logits(images)
            wrong[-1, -1, -1] += 1
            return wrong

    library(lambda network, wish: OneOff(network))
    network = random_network()
    started = start(network, Wish("tensorflow"))
    assert started.runtime == NumpyRuntime(network)
    assert started.outcome is Outcome.DIFFERS
    assert "other logits" in started.warning
    assert random_network().id in started.warning


def test_a_library_that_raises_is_replaced_and_its_text_is_not_told(library) -> None:
    def broken(network: Network, wish: Wish) -> Fake:
        raise OSError("/secret/driver.so")

    library(broken)
    network = random_network()
    started = start(network, Wish("tensorflow"))
    assert started.runtime == NumpyRuntime(network)
    assert started.outcome is Outcome.FAILED
    assert "OSError" in started.warning
    assert "secret" not in started.warning


def test_a_library_that_is_not_there_is_replaced(monkeypatch) -> None:
    monkeypatch.setattr(engine, "_KERAS", "blessmark.segment.nonesuch")
    monkeypatch.setenv("KERAS_BACKEND", "")
    network = random_network()
    started = start(network, Wish("torch"))
    assert started.runtime == NumpyRuntime(network)
    assert started.outcome is Outcome.NOT_INSTALLED
    assert "torch" in started.warning


def test_without_the_device_the_library_runs_on_the_cpu(library) -> None:
    def on_cpu_only(network: Network, wish: Wish) -> Fake:
        if wish.device != "cpu":
            raise NoDevice(wish.device)
        return Fake(network)

    library(on_cpu_only)
    started = start(random_network(), Wish("tensorflow", "gpu"))
    assert (started.runtime.backend, started.outcome) == ("fake", Outcome.NO_DEVICE)
    assert "CPU" in started.warning


def test_auto_is_tensorflow_where_it_is_installed_and_numpy_elsewhere(library, monkeypatch) -> None:
    library(lambda network, wish: Fake(network))
    monkeypatch.setattr(engine, "find_spec", lambda name: name)
    assert start(random_network()).runtime.backend == "fake"
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    started = start(random_network())
    assert (started.runtime.backend, started.outcome, started.warning) == ("numpy", Outcome.OK, None)


def test_a_deferred_network_starts_once_and_only_when_it_is_used() -> None:
    network, starts = random_network(), []

    def start_now(given: Network) -> NumpyRuntime:
        starts.append(given)
        return NumpyRuntime(given)

    deferred, batch = Deferred(network, start_now), images(0, 2, 8, 8)
    assert (deferred.network, deferred.backend, starts) == (network, "", [])
    for _ in range(2):
        assert np.array_equal(deferred.logits(batch), NumpyRuntime(network).logits(batch))
    assert (deferred.backend, starts) == ("numpy", [network])


def test_the_packaged_network_proves_exact_on_the_installed_library() -> None:
    pytest.importorskip("keras")
    network = load("vessels")
    started = start(network, Wish(device="cpu"))
    assert (started.outcome, started.warning) == (Outcome.OK, None)
    assert started.runtime.backend == "tensorflow"
    assert logits_digest(started.runtime) == network.logits_sha256


def test_another_digest_in_the_weight_file_means_numpy() -> None:
    pytest.importorskip("keras")
    network = replace(random_network(), logits_sha256="0" * 64)
    assert start(network, Wish("tensorflow")).outcome is Outcome.DIFFERS


def test_asking_for_a_segmenter_loads_no_library() -> None:
    code = (
        "import sys; from blessmark.segment import engine, segmenter; segmenter('vessels')\n"
        "sys.exit(bool({'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
