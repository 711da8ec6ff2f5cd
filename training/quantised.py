"""The networks while they are trained: as floats, and as floats that behave like the integers.

The quantised model rounds with the straight-through rule: its forward pass is the integer network times
powers of two, bit for bit, and its gradients are those of the unrounded one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from blessmark.segment.integer import ACTIVATION_MAX, INPUT, WEIGHT_MAX, Conv, Op, Step
from blessmark.segment.keras_net import Spread
from training.topologies import Topology

#: an input sample x stands for x / 2^7, an activation y for y / 2^4
INPUT_BITS = 7
ACTIVATION_BITS = 4

Float = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FloatConv:
    """A convolution with its batch norm folded in: float32 kernel and bias."""

    kernel: Float
    bias: Float


def rounded(values: Any) -> Any:
    """floor(x + 0.5) forwards, identity backwards."""
    return values + ops.stop_gradient(ops.floor(values + 0.5) - values)


class QuantisedConv(keras.layers.Layer):  # type: ignore[misc]
    """A convolution on the grid of the integer network: weights, bias and activation."""

    def __init__(self, source_bits: int, exponent: npt.NDArray[np.int64], side: int, op: Op, name: str):
        super().__init__(name=name)
        self.source_bits = source_bits
        self.exponent = exponent
        self.side = side
        self.op = op

    def build(self, shape: tuple[int | None, ...]) -> None:
        width = len(self.exponent)
        self.kernel = self.add_weight((self.side, self.side, shape[-1], width), name="kernel")
        self.bias = self.add_weight((width,), name="bias")
        self.step = np.exp2(self.exponent).astype(np.float32)
        self.bias_step = np.exp2(self.exponent - self.source_bits).astype(np.float32)

    def call(self, values: Any) -> Any:
        kernel = ops.clip(rounded(self.kernel / self.step), -WEIGHT_MAX, WEIGHT_MAX) * self.step
        bias = rounded(self.bias / self.bias_step) * self.bias_step
        summed = ops.conv(values, kernel, padding="same") + bias
        if self.op is Op.LOGIT:
            return summed
        scale = float(2**ACTIVATION_BITS)
        return ops.clip(rounded(summed * scale), 0, ACTIVATION_MAX) / scale


def float_model(topology: Topology) -> keras.Model:
    """Convolution, batch norm, ReLU; logits without batch norm."""

    def conv(step: Step, values: Any) -> Any:
        side, width = topology.convs[step.name]
        last = step.op is Op.LOGIT
        layer = keras.layers.Conv2D(width, side, padding="same", use_bias=last, name=step.name)
        if last:
            return layer(values)
        normed = keras.layers.BatchNormalization(momentum=0.98, name=f"{step.name}.norm")(layer(values))
        return keras.layers.ReLU()(normed)

    return _model(topology, conv)


def quantised_model(topology: Topology, convs: Mapping[str, FloatConv]) -> keras.Model:
    """The same network on the integer grid, starting from trained floats; weight steps stay as they are."""

    def conv(step: Step, values: Any) -> Any:
        kernel = convs[step.name].kernel
        bits = INPUT_BITS if step.sources == (INPUT,) else ACTIVATION_BITS
        exponents = weight_exponents(kernel)
        if step.op is Op.LOGIT:  # one unit for all logits, so that one threshold serves them
            exponents = np.full_like(exponents, exponents.max())
        return QuantisedConv(bits, exponents, kernel.shape[0], step.op, step.name)(values)

    model = _model(topology, conv)
    for name, each in convs.items():
        model.get_layer(name).set_weights([each.kernel, each.bias])
    return model


def _model(topology: Topology, conv: Any) -> keras.Model:
    inputs = keras.Input((None, None, topology.channels), name=INPUT)
    values = {INPUT: inputs / float(2**INPUT_BITS)}
    for step in topology.steps:
        sources = [values[name] for name in step.sources]
        is_conv = step.op in (Op.CONV, Op.LOGIT)
        values[step.name] = conv(step, sources[0]) if is_conv else _move(step.op, sources)
    return keras.Model(inputs, values[topology.steps[-1].name])


def _move(op: Op, sources: list[Any]) -> Any:
    if op is Op.JOIN:
        return keras.layers.Concatenate()(sources)
    if op is Op.UP:
        return keras.layers.UpSampling2D(2)(sources[0])
    if op is Op.POOL:
        return keras.layers.MaxPooling2D(2)(sources[0])
    return Spread()(sources[0])


def folded(model: keras.Model, topology: Topology) -> dict[str, FloatConv]:
    """The float model's convolutions with their batch norms multiplied in."""
    convs = {}
    for step in topology.steps:
        if step.op is Op.LOGIT:
            convs[step.name] = FloatConv(*model.get_layer(step.name).get_weights())
        elif step.op is Op.CONV:
            convs[step.name] = _fold(model, step.name)
    return convs


def _fold(model: keras.Model, name: str) -> FloatConv:
    (kernel,) = model.get_layer(name).get_weights()
    norm = model.get_layer(f"{name}.norm")
    gamma, beta, mean, variance = norm.get_weights()
    factor = gamma / np.sqrt(variance + norm.epsilon)
    return FloatConv(kernel * factor, beta - mean * factor)


def weight_exponents(kernel: Float) -> npt.NDArray[np.int64]:
    """Per output channel the smallest e with |w| <= 63 * 2^e, so that shifts never become negative."""
    largest = np.maximum(np.abs(kernel).max(axis=(0, 1, 2)), 2.0**-12)
    exponents: npt.NDArray[np.int64] = np.ceil(np.log2(largest / WEIGHT_MAX)).astype(np.int64)
    return np.minimum(exponents, 0)


def integers(model: keras.Model, topology: Topology) -> dict[str, Conv]:
    """The integers that the quantised model computes with."""
    return {
        step.name: _integers(model.get_layer(step.name))
        for step in topology.steps
        if step.op in (Op.CONV, Op.LOGIT)
    }


def _integers(layer: QuantisedConv) -> Conv:
    kernel, bias = layer.get_weights()
    weights = np.clip(np.floor(kernel / layer.step + 0.5), -WEIGHT_MAX, WEIGHT_MAX)
    whole = np.floor(bias / layer.bias_step + 0.5).astype(np.int32)
    if layer.op is Op.LOGIT:
        return Conv(weights.astype(np.int8), whole, np.zeros(len(whole), np.uint8))
    shift = layer.source_bits - ACTIVATION_BITS - layer.exponent
    half = np.where(shift > 0, 2 ** np.maximum(shift - 1, 0), 0)
    return Conv(weights.astype(np.int8), whole + half.astype(np.int32), shift.astype(np.uint8))
