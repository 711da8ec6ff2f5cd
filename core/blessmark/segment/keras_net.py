"""The integer networks on Keras 3: TensorFlow by default, JAX and torch with the same lines.

Every layer computes float32 sums of integers below 2^23, so the logits are those of the NumPy reference,
whatever the device, batch size, thread count or library version. `engine.start` proves it once for the
machine at hand, and answers with the reference runtime where it does not hold.

Importing this module takes seconds: only `engine` does, in workers; the command line runs on NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np
from keras import ops

from blessmark.segment.engine import NoDevice, Wish
from blessmark.segment.integer import (
    ACTIVATION_MAX,
    INPUT,
    Conv,
    Images,
    Network,
    Op,
    Step,
    scaled_kernel,
)
from blessmark.types import IntArray


class Spread(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Depth to space by 2: four channels become 2 x 2 pixels of one."""

    def call(self, values: Any) -> Any:
        """[n, rows, cols, 4] -> [n, 2 rows, 2 cols, 1]."""
        count, rows, cols, _ = ops.shape(values)
        pairs = ops.transpose(ops.reshape(values, (count, rows, cols, 2, 2)), (0, 1, 3, 2, 4))
        return ops.reshape(pairs, (count, 2 * rows, 2 * cols, 1))

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape that `call` returns, None where it is not known yet."""
        count, rows, cols, _ = shape
        return (count, rows and 2 * rows, cols and 2 * cols, 1)


class KerasRuntime:
    """One network on the Keras backend of this process."""

    def __init__(self, network: Network, wish: Wish | None = None) -> None:
        self.network = network
        self.backend: str = keras.backend.backend()
        self._wish = wish or Wish()
        with self._placed():
            self._model = _model(network)
            self._model.compile(jit_compile=self._wish.xla or self.backend == "jax")

    def logits(self, images: Images) -> IntArray:
        """uint8 [n, rows, cols, channels] -> int32 [n, result rows, result cols]."""
        rows = self._strip_rows(*images.shape[1:3])
        strips = [self._strip(images, top, rows) for top in range(0, images.shape[1], rows)]
        return np.concatenate(strips, axis=1)

    def _strip_rows(self, rows: int, cols: int) -> int:
        """How many rows of an image go through the network together: all, if they are few enough."""
        if rows * cols <= self._wish.batch_samples:
            return max(1, rows)
        multiple = self.network.multiple
        return max(multiple, self._wish.batch_samples // cols // multiple * multiple)

    def _strip(self, images: Images, top: int, rows: int) -> IntArray:
        """The logits of some rows, from these rows and as many beside them as can influence them."""
        multiple = self.network.multiple
        halo = -(-self.network.reach // multiple) * multiple
        first, last = max(0, top - halo), min(images.shape[1], top + rows + halo)
        logits = self._whole(images[:, first:last])
        scale = logits.shape[1] // (last - first)
        return logits[:, (top - first) * scale : (min(top + rows, images.shape[1]) - first) * scale]

    def _whole(self, images: Images) -> IntArray:
        with self._placed():
            parts = [self._model.predict_on_batch(part) for part in self._batches(images)]
        return np.concatenate(parts)[..., 0].astype(np.int32)

    def _batches(self, images: Images) -> Iterator[Images]:
        count = max(1, self._wish.batch_samples // max(1, images[0].size))
        return (images[first : first + count] for first in range(0, len(images), count))

    def _placed(self) -> AbstractContextManager[Any]:
        if self._wish.device == "auto":
            return nullcontext()
        return keras.device(f"{self._wish.device}:0")  # type: ignore[no-any-return]


def runtime(network: Network, wish: Wish) -> KerasRuntime:
    """The network on this process's backend, its libraries configured as wished.

    Raises
    ------
    NoDevice
        there is no such device
    RuntimeError
        Keras runs on another backend in this process already, or the library was configured otherwise
    """
    if keras.backend.backend() != wish.engine:
        raise RuntimeError(f"this process runs Keras on {keras.backend.backend()} already")
    if wish.engine == "tensorflow":
        _configure_tensorflow(wish)
    if wish.device == "gpu" and not keras.distribution.list_devices("gpu"):
        raise NoDevice(wish.device)
    return KerasRuntime(network, wish)


def _configure_tensorflow(wish: Wish) -> None:
    """Devices, memory growth and threads can only be set before TensorFlow's first operation."""
    import tensorflow

    gpus = tensorflow.config.list_physical_devices("GPU")
    if wish.device == "cpu" and gpus:
        tensorflow.config.set_visible_devices([], "GPU")
    elif wish.memory_growth:
        for gpu in gpus:
            tensorflow.config.experimental.set_memory_growth(gpu, True)
    if wish.threads is not None:
        tensorflow.config.threading.set_intra_op_parallelism_threads(wish.threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)


def _model(network: Network) -> keras.Model:
    inputs = keras.Input((None, None, network.channels), dtype="uint8", name=INPUT)
    values: dict[str, Any] = {INPUT: ops.cast(inputs, "float32")}
    for step in network.steps:
        values[step.name] = _apply(step, [values[name] for name in step.sources], network)
    return keras.Model(inputs, values[network.steps[-1].name])


def _apply(step: Step, sources: list[Any], network: Network) -> Any:
    if step.op is Op.JOIN:
        return ops.concatenate(sources, axis=-1)
    if step.op is Op.UP:
        return ops.repeat(ops.repeat(sources[0], 2, axis=1), 2, axis=2)
    if step.op is Op.POOL:
        return ops.max_pool(sources[0], 2, strides=2, data_format="channels_last")
    if step.op is Op.SPREAD:
        return Spread()(sources[0])
    return _convolved(step, sources[0], network.convs[step.name])


def _convolved(step: Step, values: Any, conv: Conv) -> Any:
    kernel, bias = scaled_kernel(conv)
    layer = keras.layers.Conv2D(
        bias.size, kernel.shape[0], padding="same", dtype="float32", data_format="channels_last"
    )
    summed = layer(values)
    layer.set_weights([kernel, bias])
    whole = ops.floor(summed)
    return whole if step.op is Op.LOGIT else ops.clip(whole, 0, ACTIVATION_MAX)
