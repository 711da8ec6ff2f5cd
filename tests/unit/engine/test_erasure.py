"""The field, the code and the search among contradicting shards."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from blessmark.payload.erasure import Decoded, decode, encode


def multiply(a: int, b: int) -> int:
    """Schoolbook product in GF(2)[x] / 0x1100B."""
    product = 0
    for bit in range(16):
        if b >> bit & 1:
            product ^= a << bit
    for bit in range(30, 15, -1):
        if product >> bit & 1:
            product ^= 0x1100B << (bit - 16)
    return product


def evaluate(coefficients: list[int], point: int) -> int:
    """Horner's rule."""
    value = 0
    for coefficient in reversed(coefficients):
        value = multiply(value, point) ^ coefficient
    return value


def product(a: int, x: int) -> int:
    """a * x as the module multiplies: the value of the polynomial a x at x."""
    return int(encode(np.array([[0] * 3, [a] * 3], np.uint16), np.array([x]))[0, 0])


def random_data(seed: int, k: int) -> npt.NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(0, 65_536, (k, 3)).astype(np.uint16)


def only(candidates: list[Decoded]) -> Decoded:
    assert len(candidates) == 1
    return candidates[0]


def test_the_product_is_the_fields() -> None:
    random = np.random.default_rng(1)
    pairs = [*random.integers(0, 65_536, (200, 2)).tolist(), [0, 5], [5, 0], [1, 65_535], [65_535, 65_535]]
    assert [product(a, x) for a, x in pairs] == [multiply(a, x) for a, x in pairs]


def test_two_generates_every_element_but_zero() -> None:
    powers = {1}
    value = 2
    while value not in powers:
        powers.add(value)
        value = multiply(value, 2)
    assert len(powers) == 65_535


@pytest.mark.parametrize("k", [1, 2, 7, 40])
def test_shards_are_values_of_the_data_polynomials(k: int) -> None:
    data = random_data(k, k)
    data[k // 2] = 0
    points = np.array([0, 1, 2, 17, 4096, 65_535])
    expected = [[evaluate(data[:, c].tolist(), x) for c in range(3)] for x in points.tolist()]
    assert encode(data, points).tolist() == expected


def test_the_shard_at_zero_is_the_first_data_shard() -> None:
    data = random_data(3, 9)
    assert encode(data, np.array([0])).tolist() == data[:1].tolist()


def test_without_contradiction_there_is_one_candidate() -> None:
    data, points = random_data(4, 25), np.arange(100, dtype=np.int64)
    found = only(list(decode(points, encode(data, points), 25, groups=points // 16)))
    assert (found.data == data).all()
    assert found.agrees.all()


@pytest.mark.parametrize(("points", "k"), [([], 1), ([3], 2), ([3, 3, 3], 2), ([1, 2], 0)])
def test_too_few_distinct_points_give_nothing(points: list[int], k: int) -> None:
    array = np.array(points, np.int64)
    assert list(decode(array, encode(random_data(5, 3), array), k, groups=array)) == []


def test_a_repeated_point_is_welcome() -> None:
    data, points = random_data(6, 5), np.array([9, 9, 8, 7, 6, 5, 9])
    found = only(list(decode(points, encode(data, points), 5, groups=np.arange(7))))
    assert (found.data == data).all()


def test_a_point_that_contradicts_itself_is_settled_by_the_others() -> None:
    data, points = random_data(7, 5), np.array([9, 9, 8, 7, 6, 5, 4, 3, 2])
    shards = encode(data, points)
    shards[0] ^= 1
    found = next(decode(points, shards, 5, groups=np.arange(9)))
    assert (found.data == data).all()
    assert found.agrees.tolist() == [False] + [True] * 8


@pytest.mark.parametrize(("surplus", "wrong"), [(2, 0), (3, 1), (20, 9), (41, 20)])
def test_fewer_wrong_shards_than_half_the_surplus_never_hide_the_message(surplus: int, wrong: int) -> None:
    k, random = 24, np.random.default_rng(surplus)
    data = random_data(8, k)
    points = random.choice(65_536, k + surplus, replace=False)
    shards = encode(data, points)
    hit = random.choice(len(points), wrong, replace=False)
    shards[hit, random.integers(0, 3)] ^= 1
    found = next(decode(points, shards, k, groups=np.arange(len(points))))
    assert (found.data == data).all()
    assert np.flatnonzero(~found.agrees).tolist() == sorted(hit.tolist())


def test_wrong_tiles_beyond_half_are_left_out_whole() -> None:
    """Twelve of twenty tiles hold noise: no unique decoding, but four right tiles are enough."""
    k, data = 24, random_data(9, 24)
    points = np.arange(160, dtype=np.int64)
    tiles = points // 8
    shards = encode(data, points)
    noise = tiles >= 8
    shards[noise] = random_data(10, 160)[noise]
    found = next(decode(points, shards, k, groups=tiles))
    assert (found.data == data).all()
    assert (found.agrees == ~noise).all()


def test_two_messages_come_in_the_order_of_their_evidence() -> None:
    """Tiles of another image are a code word of their own: both are candidates, the likelier first."""
    ours, theirs, points = random_data(11, 24), random_data(12, 24), np.arange(240, dtype=np.int64)
    tiles = points // 8
    pasted = tiles % 10 < 6
    shards = np.where(pasted[:, None], encode(theirs, points), encode(ours, points))
    candidates = list(decode(points, shards, 24, groups=tiles))
    assert [candidate.data.tobytes() for candidate in candidates[:2]] == [theirs.tobytes(), ours.tobytes()]
    assert len({candidate.data.tobytes() for candidate in candidates}) == len(candidates)


def test_the_search_is_deterministic() -> None:
    points = np.arange(64, dtype=np.int64)
    shards = random_data(13, 64)
    runs = [[c.data.tobytes() for c in decode(points, shards, 20, groups=points // 4)] for _ in range(2)]
    assert runs[0] == runs[1]
