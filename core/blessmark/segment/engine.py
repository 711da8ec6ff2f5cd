"""Which library evaluates a network, and the proof that it may.

    wished engine and device -> import -> two fixed images -> same logits as the definition? -> runtime

A library that is missing, fails, or gives one other logit is replaced by the NumPy reference, which always
works, only slower. Nothing here is imported before a network is really used: TensorFlow takes seconds to load
and half a gigabyte to stay.
"""

from __future__ import annotations

import enum
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec

from blessmark.segment.integer import Images, Network, NumpyRuntime, Runtime, logits_digest
from blessmark.types import IntArray

_NUMPY = "numpy"
_KERAS = "blessmark.segment.keras_net"


class Outcome(enum.StrEnum):
    """How a start ended; everything but `OK` means that something else runs than was asked for."""

    OK = "ok"
    NOT_INSTALLED = "not-installed"  #: the library cannot be imported
    NO_DEVICE = "no-device"  #: there is no such device; the library runs on the CPU
    FAILED = "failed"  #: the library raised
    DIFFERS = "differs"  #: the library gives other logits than the definition


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to evaluate the networks, and how.

    Attributes
    ----------
    engine : `auto` (TensorFlow where it is installed, else NumPy), `tensorflow`, `jax`, `torch` or `numpy`
    device : `auto` leaves it to the library, `cpu`, `gpu`
    memory_growth : take GPU memory as needed instead of all of it at once (TensorFlow)
    threads : CPU threads of one operation; None leaves the choice to the library (TensorFlow)
    xla : compile the whole network with XLA (TensorFlow; JAX always does)
    batch_samples : how many input samples go through the network together; bounds its memory, for a larger
        image is cut into strips
    """

    engine: str = "auto"
    device: str = "auto"
    memory_growth: bool = True
    threads: int | None = None
    xla: bool = False
    batch_samples: int = 1 << 17


@dataclass(frozen=True, slots=True)
class Started:
    """A runtime that passed its self-test; `warning` says why it is not the wished one."""

    runtime: Runtime
    outcome: Outcome = Outcome.OK
    warning: str | None = None


class NoDevice(Exception):  # noqa: N818 - ends an attempt, never leaves this module
    """The wished device is not there."""


def start(network: Network, wish: Wish | None = None) -> Started:
    """The network on the wished engine if it gives the definition's logits here, on NumPy otherwise.

    Never raises for want of a library, a device or of agreement.
    """
    wish = wish or Wish()
    engine = _chosen(wish.engine)
    if engine == _NUMPY:
        return Started(NumpyRuntime(network))
    started = _attempt(network, replace(wish, engine=engine))
    if started.outcome is Outcome.NO_DEVICE:
        on_cpu = _attempt(network, replace(wish, engine=engine, device="cpu"))
        return replace(started, runtime=on_cpu.runtime)
    return started


class Deferred:
    """A network whose engine is started when it is first asked for logits; a `Runtime`."""

    def __init__(self, network: Network, start_now: Callable[[Network], Runtime]) -> None:
        self.network = network
        self._start_now = start_now
        self._runtime: Runtime | None = None

    @property
    def backend(self) -> str:
        """What evaluates it; empty as long as nothing does."""
        return "" if self._runtime is None else self._runtime.backend

    def logits(self, images: Images) -> IntArray:
        """uint8 [n, rows, cols, channels] -> int32 [n, result rows, result cols]."""
        if self._runtime is None:
            self._runtime = self._start_now(self.network)
        return self._runtime.logits(images)


def _chosen(engine: str) -> str:
    if engine != "auto":
        return engine
    return "tensorflow" if find_spec("tensorflow") and find_spec("keras") else _NUMPY


def _attempt(network: Network, wish: Wish) -> Started:
    """One try; whatever a driver or library raises, the reference still works."""
    reference = NumpyRuntime(network)
    try:
        _prepare_environment(wish)
        keras_net = importlib.import_module(_KERAS)
        runtime: Runtime = keras_net.runtime(network, wish)
        agrees = logits_digest(runtime) == network.logits_sha256
    except ImportError:
        return Started(reference, Outcome.NOT_INSTALLED, _warning(network, wish, "is not installed"))
    except NoDevice:
        what = f"finds no {wish.device}; running on the CPU instead"
        return Started(reference, Outcome.NO_DEVICE, f"{network.id}: {wish.engine} {what}")
    except Exception as error:
        what = f"failed ({type(error).__name__})"
        return Started(reference, Outcome.FAILED, _warning(network, wish, what))
    if not agrees:
        what = "gives other logits than the definition"
        return Started(reference, Outcome.DIFFERS, _warning(network, wish, what))
    return Started(runtime)


def _warning(network: Network, wish: Wish, what: str) -> str:
    return (
        f"{network.id}: {wish.engine} {what}; running on NumPy, with the same maps but several times slower: "
        "check the installation, or set networks.engine to numpy"
    )


def _prepare_environment(wish: Wish) -> None:
    """What the libraries read from the environment when they are first imported."""
    os.environ["KERAS_BACKEND"] = wish.engine
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if wish.device == "cpu":
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
