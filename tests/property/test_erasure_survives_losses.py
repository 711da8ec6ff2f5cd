"""Law: k shards of any tiles give the message back, and wrong tiles do not take it away while fewer than
half of the surplus shards are wrong."""

from __future__ import annotations

from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from blessmark.payload.erasure import decode, encode


@given(st.integers(1, 60), st.integers(0, 60), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_any_k_shards_are_enough(k: int, surplus: int, random: Random) -> None:
    data = np.array([[random.randrange(65_536) for _ in range(3)] for _ in range(k)], np.uint16)
    points = np.array(random.sample(range(65_536), k + surplus), np.int64)
    kept = np.array(random.sample(range(k + surplus), random.randint(k, k + surplus)))
    shards = encode(data, points)[kept]
    found = list(decode(points[kept], shards, k, groups=points[kept] // 16))
    assert len(found) == 1
    assert (found[0].data == data).all()


@given(st.integers(1, 40), st.integers(1, 80), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_a_minority_of_wrong_shards_is_found_out(k: int, surplus: int, random: Random) -> None:
    data = np.array([[random.randrange(65_536) for _ in range(3)] for _ in range(k)], np.uint16)
    points = np.array(random.sample(range(65_536), k + surplus), np.int64)
    shards = encode(data, points)
    wrong = random.sample(range(k + surplus), random.randint(0, (surplus - 1) // 2))
    for index in wrong:
        shards[index, random.randrange(3)] ^= random.randrange(1, 65_536)
    found = next(decode(points, shards, k, groups=np.arange(k + surplus)))
    assert (found.data == data).all()
    assert np.flatnonzero(~found.agrees).tolist() == sorted(wrong)
