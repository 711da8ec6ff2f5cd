"""Law: whatever the weights and the image, float32 matrix products give the integers of the definition."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from blessmark.segment.integer import NumpyRuntime, dump, load, logits_by_definition, parse
from tests.unit.engine.small_networks import images, random_network

SIDES = st.integers(1, 12).map(lambda half: 2 * half)


@given(
    seed=st.integers(0, 2**32 - 1),
    weight_max=st.integers(1, 63),
    rows=SIDES,
    cols=SIDES,
    extreme=st.sampled_from((None, 0, 255)),
)
@settings(max_examples=25, deadline=None)
def test_float_and_integer_arithmetic_agree(
    seed: int, weight_max: int, rows: int, cols: int, extreme: int | None
) -> None:
    network = random_network(seed, weight_max)
    batch = images(seed, 2, rows, cols)
    if extreme is not None:
        batch[:] = extreme
    got = NumpyRuntime(network).logits(batch)
    assert np.array_equal(got, logits_by_definition(network, batch))
    assert np.array_equal(got[1], NumpyRuntime(network).logits(batch[1:])[0])


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 6), cols=st.integers(1, 6))
@settings(max_examples=6, deadline=None)
def test_the_packaged_network_agrees_on_noise(seed: int, rows: int, cols: int) -> None:
    network = load("vessels")
    batch = images(seed, 1, 4 * rows, 4 * cols)
    assert np.array_equal(NumpyRuntime(network).logits(batch), logits_by_definition(network, batch))


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=8, deadline=None)
def test_files_keep_every_integer(seed: int) -> None:
    network = random_network(seed)
    assert parse(*dump(network)).digest == network.digest
