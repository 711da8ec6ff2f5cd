"""Networks on small integers: the arithmetic, its bound, the NumPy runtime and the weight files.

Weights and activations fit 7 bits, so every partial sum of a convolution is an integer below 2^23 and a
float32 holds it exactly, in whatever order a library adds it up. The same logits therefore come out of
every device, batch size, thread count and library version (see `layer arithmetic` below).

    activation  y = clip(floor((acc + b + 0.5) * 2^-s), 0, 127)       s: one shift per output channel
    logit       l = floor(acc + b + 0.5); a pixel is region of interest iff l > 0

`b` already holds the rounding offset 2^(s-1). The additional 0.5 changes no result, for acc and b are
integers; it puts the exact value in the middle of an interval, so that a library that computes a
convolution by Winograd or Fourier transform, and errs by less than a half, still floors to the same
integer. Max-pooling, nearest up-sampling, concatenation and depth-to-space move values and are exact.
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from io import BytesIO
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from blessmark.errors import SegmenterError
from blessmark.types import IntArray

#: largest activation and largest weight magnitude
ACTIVATION_MAX = 127
WEIGHT_MAX = 63
#: below this a float32 represents every integer and every half
EXACT_BOUND = 2**23
INPUT = "input"
#: hex digits of the digest in an id: 48 bits, so that no two networks that anybody trains share one
_ID_DIGITS = 12
#: columns of one GEMM in the NumPy runtime; sized to stay in the second-level cache
_STRIP_PIXELS = 8192

Float = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]
Number = TypeVar("Number", np.float32, np.int64)


class Op(enum.StrEnum):
    """What a step does to its sources, all [n, rows, cols, channels]."""

    CONV = "conv"  #: same-size convolution with zero padding, shift, clip: an activation
    LOGIT = "logit"  #: same-size convolution without shift and clip
    POOL = "pool"  #: maximum over 2 x 2
    UP = "up"  #: every value repeated 2 x 2
    JOIN = "join"  #: channels of all sources one after the other
    SPREAD = "spread"  #: depth to space by 2: four channels become 2 x 2 pixels of one


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of a network; `sources` are names of earlier steps, or `INPUT`."""

    op: Op
    name: str
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Conv:
    """The integers of one convolution.

    Attributes
    ----------
    weights : int8 [kernel rows, kernel cols, channels in, channels out], |w| <= 63
    bias : int32 [channels out], holding 2^(shift - 1) already where shift > 0
    shift : uint8 [channels out]; 0 in a logit layer
    """

    weights: npt.NDArray[np.int8]
    bias: IntArray
    shift: npt.NDArray[np.uint8]

    def worst_case(self, input_max: int) -> int:
        """Largest |accumulator + bias| that inputs of 0..input_max can produce in any channel."""
        sums = np.abs(self.weights.astype(np.int64)).sum(axis=(0, 1, 2)) * input_max
        return int((sums + np.abs(self.bias.astype(np.int64))).max())


@dataclass(frozen=True, slots=True)
class Network:
    """A network and everything its result depends on.

    Attributes
    ----------
    name, version : what people call it; the id that is bound into a watermark has the digest too
    input_max : largest input sample, at most 255
    steps : in order of evaluation; the last one is the result
    convs : step name -> its integers
    logits_sha256 : `logits_digest` of the definition, what every runtime has to reproduce
    card : data, scores, training commit, licence and attribution, as the weight file tells them
    digest : SHA-256 over topology and integers; equal digests give equal logits
    """

    name: str
    version: int
    input_max: int
    steps: tuple[Step, ...]
    convs: Mapping[str, Conv]
    logits_sha256: str
    card: Mapping[str, Any]
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", _weights_digest(self))
        for step in self.steps:
            if step.op in (Op.CONV, Op.LOGIT):
                _require_exact(self, step)

    @property
    def id(self) -> str:
        """`name/version-digest`, with the first 12 hex digits of the digest: other weights, another id."""
        return f"{self.name}/{self.version}-{self.digest[:_ID_DIGITS]}"

    @property
    def channels(self) -> int:
        """Channels of an input."""
        first = next(step for step in self.steps if step.sources == (INPUT,))
        return int(self.convs[first.name].weights.shape[2])

    def probe(self) -> Images:
        """Two fixed images, uint8 [2, 64, 96, channels], dark lines on a grainy ground: for self-tests."""
        return _probe(self.channels, self.input_max)

    @property
    def multiple(self) -> int:
        """Rows and columns of an input must be multiples of this."""
        return int(2 ** sum(step.op is Op.POOL for step in self.steps))

    @property
    def reach(self) -> int:
        """How many input samples away a sample can still influence a logit."""
        return _reach(self)


class Runtime(Protocol):
    """Evaluates one network; every implementation gives the same integers."""

    @property
    def network(self) -> Network:
        """What is evaluated."""

    @property
    def backend(self) -> str:
        """What evaluates it, `numpy` or `tensorflow`: for logs and metrics."""

    def logits(self, images: Images) -> IntArray:
        """uint8 [n, rows, cols, channels] -> int32 [n, result rows, result cols]."""


#: puts a network on a runtime
RuntimeOf = Callable[[Network], Runtime]


@dataclass(frozen=True, slots=True)
class NumpyRuntime:
    """The reference: matrix products in float32, nothing but NumPy."""

    network: Network
    backend: str = "numpy"

    def logits(self, images: Images) -> IntArray:
        """uint8 [n, rows, cols, channels] -> int32 [n, result rows, result cols]."""
        count = max(1, _STRIP_PIXELS * images.shape[0] // max(1, images[..., 0].size))
        groups = [images[first : first + count] for first in range(0, len(images), count)]
        return np.concatenate([self._group(group) for group in groups])

    def _group(self, images: Images) -> IntArray:
        values: dict[str, Float] = {INPUT: images.astype(np.float32)}
        for index, step in enumerate(self.network.steps):
            sources = [values[name] for name in step.sources]
            values[step.name] = _apply(step, sources, self.network.convs)
            needed = {name for later in self.network.steps[index + 1 :] for name in later.sources}
            values = {name: each for name, each in values.items() if name in needed or name == step.name}
        return np.asarray(values[self.network.steps[-1].name][..., 0], np.int32)


def scaled_kernel(conv: Conv) -> tuple[Float, Float]:
    """Kernel and bias as float32 with the shift folded in: floor(x * kernel + bias) is the layer.

    Multiplying by a power of two is exact and common to all terms of a sum, so sums stay exact.
    """
    scale = np.exp2(-conv.shift.astype(np.float32)).astype(np.float32)
    bias = (conv.bias.astype(np.float32) + np.float32(0.5)) * scale
    return conv.weights.astype(np.float32) * scale, bias.astype(np.float32)


def logits_by_definition(network: Network, images: Images) -> IntArray:
    """The same logits by shifts and sums of int64: slow, without any rounding, the oracle of the runtimes."""
    values: dict[str, npt.NDArray[np.int64]] = {INPUT: images.astype(np.int64)}
    for step in network.steps:
        sources = [values[name] for name in step.sources]
        if step.op in (Op.CONV, Op.LOGIT):
            values[step.name] = _conv_int64(sources[0], network.convs[step.name], step.op)
        else:
            values[step.name] = _move(step.op, sources)
    return values[network.steps[-1].name][..., 0].astype(np.int32)


def _probe(channels: int, input_max: int) -> Images:
    image, row, col, channel = np.ogrid[:2, :64, :96, :channels]
    grain = (row * 1103 ^ col * 7919 ^ image * 389 ^ channel * 211) >> 3 & 31
    line = (3 * row + (2 + 3 * image) * col + 5 * channel) % 41 < 5
    return np.asarray((112 - 56 * line + grain) * input_max // 255, np.uint8)


def logits_digest(runtime: Runtime) -> str:
    """SHA-256 of a runtime's logits on the fixed images; equal on every machine that computes exactly."""
    return _digest(runtime.logits(runtime.network.probe()))


def definition_digest(network: Network) -> str:
    """What `logits_digest` has to be, by definition; export stores it as `logits_sha256`."""
    return _digest(logits_by_definition(network, network.probe()))


def _digest(logits: IntArray) -> str:
    return hashlib.sha256(repr(logits.shape).encode() + logits.astype("<i4").tobytes()).hexdigest()


def load(name: str) -> Network:
    """The packaged network of that name.

    Raises
    ------
    SegmenterError
        there is no such weight file, or it is not the one its description was written for
    """
    folder = files("blessmark.segment") / "weights"
    try:
        arrays, text = (folder / f"{name}.npz").read_bytes(), (folder / f"{name}.json").read_text()
    except OSError as error:
        raise SegmenterError(
            f"no weights for segmenter {name!r}; reinstall the package or choose another segmenter"
        ) from error
    return parse(arrays, text)


def parse(arrays: bytes, description: str) -> Network:
    """A network from the bytes of its `.npz` and the text of its `.json`.

    Raises
    ------
    SegmenterError
        the two do not belong together, or the integers are outside the exact range
    """
    about = json.loads(description)
    with np.load(BytesIO(arrays), allow_pickle=False) as stored:
        convs = {name: _conv_from(stored, name) for name in about["convolutions"]}
    network = Network(
        about["name"],
        about["version"],
        about["input_max"],
        tuple(Step(Op(op), name, tuple(sources)) for op, name, sources in about["steps"]),
        convs,
        about["logits_sha256"],
        about["card"],
    )
    if network.digest != about["sha256"]:
        raise SegmenterError(f"weights of {network.id} do not match their description; reinstall the package")
    return network


def dump(network: Network) -> tuple[bytes, str]:
    """The bytes of the `.npz` and the text of the `.json` that `parse` reads."""
    buffer = BytesIO()
    arrays = {
        f"{name}.{part}": getattr(conv, part)
        for name, conv in network.convs.items()
        for part in ("weights", "bias", "shift")
    }
    np.savez_compressed(buffer, **arrays)
    about = {
        "name": network.name,
        "version": network.version,
        "sha256": network.digest,
        "logits_sha256": network.logits_sha256,
        "input_max": network.input_max,
        "steps": _steps_to_json(network.steps),
        "convolutions": sorted(network.convs),
        "card": dict(network.card),
    }
    return buffer.getvalue(), json.dumps(about, indent=1) + "\n"


def _conv_from(stored: Mapping[str, npt.NDArray[Any]], name: str) -> Conv:
    return Conv(stored[f"{name}.weights"], stored[f"{name}.bias"], stored[f"{name}.shift"])


def _steps_to_json(steps: tuple[Step, ...]) -> list[list[object]]:
    return [[step.op.value, step.name, list(step.sources)] for step in steps]


def _weights_digest(network: Network) -> str:
    sha = hashlib.sha256(json.dumps([network.input_max, _steps_to_json(network.steps)]).encode())
    for name in sorted(network.convs):
        conv = network.convs[name]
        for array in (conv.weights, conv.bias.astype("<i4"), conv.shift):
            sha.update(repr((name, array.shape)).encode() + array.tobytes())
    return sha.hexdigest()


def _require_exact(network: Network, step: Step) -> None:
    conv = network.convs[step.name]
    input_max = network.input_max if step.sources == (INPUT,) else ACTIVATION_MAX
    small = np.abs(conv.weights.astype(np.int32)).max() <= WEIGHT_MAX and 0 <= input_max <= 255
    if not small or conv.worst_case(input_max) >= EXACT_BOUND:
        raise SegmenterError(f"layer {step.name} of {network.id} is outside the exact range; export it again")
    if step.op is Op.LOGIT and conv.shift.any():
        raise SegmenterError(f"logit layer {step.name} of {network.id} must not shift; export it again")


def _reach(network: Network) -> int:
    """Grow (stride, reach) along the steps; a value at p depends on inputs p*stride +- reach only."""
    state = {INPUT: (1, 0)}
    for step in network.steps:
        stride = state[step.sources[0]][0]
        reach = max(state[source][1] for source in step.sources)
        if step.op in (Op.CONV, Op.LOGIT):
            reach += stride * (network.convs[step.name].weights.shape[0] // 2)
        elif step.op is Op.POOL:
            stride *= 2
        elif step.op is Op.UP:
            stride //= 2
            reach += stride
        state[step.name] = (stride, reach)
    return state[network.steps[-1].name][1]


def _apply(step: Step, sources: list[Float], convs: Mapping[str, Conv]) -> Float:
    if step.op not in (Op.CONV, Op.LOGIT):
        return _move(step.op, sources)
    summed = _conv_float(sources[0], convs[step.name])
    np.floor(summed, out=summed)
    return summed if step.op is Op.LOGIT else np.clip(summed, 0, ACTIVATION_MAX, out=summed)


def _move(op: Op, sources: list[npt.NDArray[Number]]) -> npt.NDArray[Number]:
    """The steps without arithmetic, on [..., rows, cols, channels]."""
    first = sources[0]
    if op is Op.JOIN:
        return np.concatenate(sources, axis=-1)
    if op is Op.UP:
        return first.repeat(2, axis=-3).repeat(2, axis=-2)
    if op is Op.POOL:
        rows = np.maximum(first[..., ::2, :, :], first[..., 1::2, :, :])
        return np.maximum(rows[..., ::2, :], rows[..., 1::2, :])
    *batch, rows_in, cols_in, _ = first.shape
    cells = first.reshape(*batch, rows_in, cols_in, 2, 2)
    return np.moveaxis(cells, -2, -3).reshape(*batch, 2 * rows_in, 2 * cols_in, 1)


def _conv_float(images: Float, conv: Conv) -> Float:
    """Convolve [n, rows, cols, channels]; one matrix product a strip, on unrolled patches."""
    kernel, bias = scaled_kernel(conv)
    side, _, channels, width = kernel.shape
    matrix = kernel.reshape(-1, width)
    if side == 1:
        return (images.reshape(-1, channels) @ matrix + bias).reshape(*images.shape[:3], width)
    margin = (side // 2,) * 2
    padded = np.pad(images, ((0, 0), margin, margin, (0, 0)))
    patches = np.moveaxis(np.lib.stride_tricks.sliding_window_view(padded, (side, side), (1, 2)), 3, 5)
    out = np.empty((*images.shape[:3], width), np.float32)
    strip = max(1, _STRIP_PIXELS // (images.shape[0] * images.shape[2]))
    for top in range(0, images.shape[1], strip):
        part = patches[:, top : top + strip]
        summed = part.reshape(-1, matrix.shape[0]) @ matrix + bias
        out[:, top : top + strip] = summed.reshape(*part.shape[:3], width)
    return out


def _conv_int64(images: npt.NDArray[np.int64], conv: Conv, op: Op) -> npt.NDArray[np.int64]:
    side = conv.weights.shape[0]
    _, rows, cols, _ = images.shape
    padded = np.pad(images, ((0, 0), (side // 2,) * 2, (side // 2,) * 2, (0, 0)))
    total = np.tile(conv.bias.astype(np.int64), (*images.shape[:3], 1))
    for row in range(side):
        for col in range(side):
            total += padded[:, row : row + rows, col : col + cols] @ conv.weights[row, col].astype(np.int64)
    if op is Op.LOGIT:
        return total
    return np.asarray(np.clip(total >> conv.shift.astype(np.int64), 0, ACTIVATION_MAX))
