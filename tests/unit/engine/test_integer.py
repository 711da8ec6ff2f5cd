"""The arithmetic of the networks, against the written definition and against its own limits."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from blessmark.errors import SegmenterError
from blessmark.segment.integer import (
    Conv,
    Network,
    NumpyRuntime,
    Op,
    Step,
    dump,
    load,
    logits_by_definition,
    logits_digest,
    parse,
    scaled_kernel,
)
from tests.unit.engine.small_networks import images, random_network

#: version and digest of every packaged network
PACKAGED = {
    "vessels": (1, "32d886903be33c6738f9dfccd19fe9557526fd23c3bc04e615cda9dc5665373b"),
    "blessmark-block-6": (1, "e2372346118e9c3ef4821f1316bf4b5cb455f2b6c8774bc0d029a69ef46d91d0"),
    "blessmark-block-8": (1, "2659fbfc41da81db05c705e9caf56db484a933d555fee007752ae4660aa821f8"),
    "blessmark-block-10": (1, "d02c85d6002261941ae8ec88ddda7f0ac160e74a3bc03aa025b744a79abdab84"),
    "anatomy-net": (1, "c58a242d4f1b083d1044fec8d31de795e599e19b113fd8e589d305ba7d01700b"),
}


def one_conv(weights: list[int], bias: int, shift: int, op: Op = Op.CONV) -> Network:
    """A 1 x 1 convolution over len(weights) input channels, followed by an identity logit."""
    kernel = np.array(weights, np.int8).reshape(1, 1, -1, 1)
    conv = Conv(kernel, np.array([bias], np.int32), np.array([shift], np.uint8))
    identity = Conv(np.ones((1, 1, 1, 1), np.int8), np.zeros(1, np.int32), np.zeros(1, np.uint8))
    if op is Op.LOGIT:
        return Network("one", 1, 255, (Step(op, "a", ("input",)),), {"a": conv}, "", {})
    steps = (Step(Op.CONV, "a", ("input",)), Step(Op.LOGIT, "out", ("a",)))
    return Network("one", 1, 255, steps, {"a": conv, "out": identity}, "", {})


@pytest.mark.parametrize(
    ("sample", "weight", "bias", "shift", "activation"),
    [
        (10, 3, 8, 4, (30 + 8) >> 4),
        (8, 1, 8, 4, 1),  # exactly a half rounds up
        (7, 1, 8, 4, 0),  # just below a half rounds down
        (255, 63, 0, 1, 127),  # clipped above
        (255, -63, 0, 1, 0),  # clipped below
        (200, -1, 199, 1, 0),  # -1 >> 1 is -1, not 0, before the clip
    ],
)
def test_an_activation_is_shifted_rounded_and_clipped(
    sample: int, weight: int, bias: int, shift: int, activation: int
) -> None:
    image = np.full((1, 2, 2, 1), sample, np.uint8)
    network = one_conv([weight], bias, shift)
    assert (NumpyRuntime(network).logits(image) == activation).all()
    assert (logits_by_definition(network, image) == activation).all()


def test_a_logit_is_neither_shifted_nor_clipped() -> None:
    network = one_conv([-63], -5, 0, Op.LOGIT)
    assert (NumpyRuntime(network).logits(np.full((1, 1, 3, 1), 255, np.uint8)) == -63 * 255 - 5).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [(2, 2), (6, 10), (40, 34)])
def test_numpy_gives_the_logits_of_the_definition(seed: int, size: tuple[int, int]) -> None:
    network = random_network(seed)
    batch = images(seed, 2, *size)
    got = NumpyRuntime(network).logits(batch)
    assert got.shape == (2, 2 * size[0], 2 * size[1])
    assert got.dtype == np.int32
    assert np.array_equal(got, logits_by_definition(network, batch))
    assert len(np.unique(got)) > min(50, got.size // 4)


def test_strips_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    network, batch = random_network(3), images(3, 1, 24, 16)
    expected = NumpyRuntime(network).logits(batch)
    monkeypatch.setattr("blessmark.segment.integer._STRIP_PIXELS", 40)
    assert np.array_equal(NumpyRuntime(network).logits(batch), expected)


def test_folding_the_shift_into_the_kernel_is_exact() -> None:
    conv = random_network(1).convs["b"]
    kernel, bias = scaled_kernel(conv)
    scale = 2.0 ** conv.shift.astype(np.float64)
    assert np.array_equal(kernel.astype(np.float64) * scale, conv.weights)
    assert np.array_equal(bias.astype(np.float64) * scale, conv.bias + 0.5)


def test_the_worst_case_is_reached_by_the_worst_input() -> None:
    weights = np.array([63, -63, 10], np.int8).reshape(1, 1, 3, 1)
    conv = Conv(weights, np.array([-7], np.int32), np.array([0], np.uint8))
    assert conv.worst_case(255) == (63 + 63 + 10) * 255 + 7


@pytest.mark.parametrize(
    ("weights", "bias", "op"),
    [([64], 0, Op.CONV), ([1], 2**23, Op.CONV), ([63] * 600, 0, Op.CONV)],
)
def test_a_layer_outside_the_exact_range_is_refused(weights: list[int], bias: int, op: Op) -> None:
    with pytest.raises(SegmenterError, match="exact range"):
        one_conv(weights, bias, 4, op)


def test_the_bound_is_strict_at_two_to_the_23() -> None:
    one_conv([1], 2**23 - 256, 4)
    with pytest.raises(SegmenterError):
        one_conv([1], 2**23 - 255, 4)


def test_a_logit_layer_must_not_shift() -> None:
    with pytest.raises(SegmenterError, match="must not shift"):
        one_conv([1], 0, 1, Op.LOGIT)


def test_reach_is_what_a_changed_sample_shows() -> None:
    network = random_network(2)
    batch = images(2, 1, 32, 32)
    changed = batch.copy()
    changed[0, 16, 16] ^= 255
    differs = NumpyRuntime(network).logits(batch) != NumpyRuntime(network).logits(changed)
    cells = np.argwhere(differs[0].reshape(32, 2, 32, 2).any(axis=(1, 3)))
    assert 1 <= np.abs(cells - 16).max() <= network.reach


def test_a_network_survives_its_files() -> None:
    network = random_network(4)
    again = parse(*dump(network))
    assert again.digest == network.digest
    assert again.id == f"random/1-{network.digest[:12]}" == network.id
    assert logits_digest(NumpyRuntime(again)) == network.logits_sha256


def test_one_changed_weight_is_noticed() -> None:
    network = random_network(4)
    convs = {**network.convs, "b": replace(network.convs["b"], weights=-network.convs["b"].weights)}
    changed = replace(network, convs=convs)
    assert changed.digest != network.digest
    with pytest.raises(SegmenterError, match="do not match"):
        parse(dump(changed)[0], dump(network)[1])


def test_unknown_weights_are_a_segmenter_error() -> None:
    with pytest.raises(SegmenterError, match="no weights"):
        load("nonesuch")


@pytest.mark.parametrize("name", PACKAGED)
def test_other_weights_are_another_version(name: str) -> None:
    """Two networks share an id only if they give the same map for every view."""
    network = load(name)
    assert (network.version, network.digest) == PACKAGED[name]


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_weights_reproduce_their_logits(name: str) -> None:
    network = load(name)
    assert logits_digest(NumpyRuntime(network)) == network.logits_sha256
    small = network.probe()[:1, :16, :24]
    assert np.array_equal(NumpyRuntime(network).logits(small), logits_by_definition(network, small))


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_weights_tell_their_origin(name: str) -> None:
    card = load(name).card
    assert card["data"]
    assert "CC BY" in card["licence"]
    assert card["training"]["commit"]
    assert card["scores"]


def test_the_reference_does_not_import_a_framework() -> None:
    program = (
        "import sys, json; import blessmark.segment.vessels as v; v.packaged();"
        "print(json.dumps([m for m in ('tensorflow', 'keras', 'jax', 'torch') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
