"""What is trained is what is exported: the model on the grid equals the integer network bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from blessmark.segment.integer import Network, NumpyRuntime, Op
from training.topologies import block_net, u_net

quantised = pytest.importorskip("training.quantised", exc_type=ImportError)

TOPOLOGIES = {"u-net": u_net(4, 6, 8), "block": block_net(3, 5)}


def random_convs(topology, seed=0):
    """Floats of the size that training leaves behind."""
    rng = np.random.default_rng(seed)
    model = quantised.float_model(topology)
    convs = {}
    for step in topology.steps:
        if step.op in (Op.CONV, Op.LOGIT):
            shape = model.get_layer(step.name).kernel.shape
            width = np.sqrt(2 / np.prod(shape[:3]))
            kernel = rng.normal(0, width, shape).astype(np.float32)
            convs[step.name] = quantised.FloatConv(kernel, rng.normal(0, 0.3, shape[3]).astype(np.float32))
    return convs


@pytest.mark.parametrize("name", TOPOLOGIES)
@pytest.mark.parametrize("seed", range(3))
def test_the_model_on_the_grid_is_the_integer_network(name, seed):
    topology = TOPOLOGIES[name]
    convs = random_convs(topology, seed)
    model = quantised.quantised_model(topology, convs)
    network = Network("made", 1, 255, topology.steps, quantised.integers(model, topology), "", {})
    images = np.random.default_rng(seed).integers(0, 256, (2, 16, 24, 1), dtype=np.uint8)

    trained = model.predict_on_batch(images.astype(np.float32))[..., 0]
    logits = NumpyRuntime(network).logits(images)

    unit = quantised.weight_exponents(convs["out"].kernel).max() - quantised.ACTIVATION_BITS
    assert np.array_equal(trained, logits * 2.0**unit)
    assert len(np.unique(logits)) > 20


def test_the_grid_stays_close_to_the_floats():
    topology = TOPOLOGIES["u-net"]
    convs = random_convs(topology)
    for name in ("a0", "a1"):
        assert np.abs(quantised.weight_exponents(convs[name].kernel)).max() < 20
    float_model = quantised.float_model(topology)
    for name, conv in convs.items():
        if name == "out":
            float_model.get_layer(name).set_weights([conv.kernel, conv.bias])
        else:
            float_model.get_layer(name).set_weights([conv.kernel])
            ones, width = np.ones_like(conv.bias), len(conv.bias)
            norm = float_model.get_layer(f"{name}.norm")
            norm.set_weights([ones, conv.bias, np.zeros(width), ones - norm.epsilon])
    images = np.random.default_rng(1).integers(0, 256, (1, 16, 24, 1)).astype(np.float32)
    exact = float_model.predict_on_batch(images)
    rounded = quantised.quantised_model(topology, convs).predict_on_batch(images)
    assert np.corrcoef(exact.ravel(), rounded.ravel())[0, 1] > 0.98


def test_folding_a_batch_norm_changes_nothing():
    topology = TOPOLOGIES["block"]
    model = quantised.float_model(topology)
    rng = np.random.default_rng(0)
    for step in topology.steps[:-1]:
        norm = model.get_layer(f"{step.name}.norm")
        norm.set_weights([rng.uniform(0.5, 2, each.shape) for each in norm.get_weights()])
    kernel = model.get_layer("c0").kernel.numpy()
    gamma, beta, mean, variance = model.get_layer("c0.norm").get_weights()
    x = rng.normal(size=kernel.shape[:3])
    before = gamma * ((x[..., None] * kernel).sum((0, 1, 2)) - mean) / np.sqrt(variance + 1e-3) + beta
    folded = quantised.folded(model, topology)["c0"]
    after = (x[..., None] * folded.kernel).sum((0, 1, 2)) + folded.bias
    assert np.allclose(before, after, atol=1e-5)


@pytest.mark.parametrize("largest", [1e-9, 0.01, 63 / 64, 1.0, 63.0, 500.0])
def test_weights_fit_their_grid_and_use_it(largest):
    kernel = np.full((1, 1, 1, 1), largest, np.float32)
    exponent = quantised.weight_exponents(kernel)[0]
    assert exponent <= 0
    if 0.01 <= largest <= 63:
        assert 31.5 <= largest / 2.0**exponent <= 63
