"""What a signature says: every part of the statement counts, and only the right key makes it hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from blessmark.payload import crypto, signature
from blessmark.payload.signature import LAYER_KEY, SHARDS, Instance, PublicKey, Signature, SigningKey
from blessmark.types import Frame
from tests.phantoms import body_in_air, frame

#: RFC 8032, section 7.1, test 1
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
KEY = SigningKey(SEED)
OTHER = SigningKey(bytes(32))
INSTANCE = Instance("2.25.42", 3)
IMAGE = replace(frame(body_in_air((64, 64))), number=2)
MADE = signature.sign(IMAGE, INSTANCE, 1_790_000_000, KEY)


def holds(image: Frame = IMAGE, instance: Instance = INSTANCE, made: Signature = MADE) -> bool:
    return signature.holds(made, image, instance, PublicKey(PUBLIC))


def test_the_public_half_is_that_of_the_rfc() -> None:
    assert KEY.public == PUBLIC
    assert MADE.key == PublicKey(PUBLIC).id == signature.key_id(PUBLIC)
    assert len(MADE.key) == 8


def test_it_holds_and_is_the_same_again() -> None:
    assert holds()
    assert signature.sign(IMAGE, INSTANCE, 1_790_000_000, KEY) == MADE


def test_padding_of_the_uid_does_not_count() -> None:
    assert holds(instance=Instance("2.25.42\0", 3))


def one_sample_more() -> Frame:
    samples = IMAGE.samples.copy()
    samples[0, 63, 63] += 1
    return IMAGE.with_samples(samples)


@pytest.mark.parametrize(
    "other",
    [
        {"image": one_sample_more()},
        {"image": replace(IMAGE, number=1)},
        {"image": replace(IMAGE, hi=8191)},
        {"image": replace(IMAGE, samples=np.ascontiguousarray(IMAGE.samples[:, :32]))},
        {"instance": Instance("2.25.43", 3)},
        {"instance": Instance("2.25.42", 4)},
        {"made": replace(MADE, time_s=1_790_000_001)},
        {"made": replace(MADE, value=bytes(64))},
        {"made": signature.sign(IMAGE, INSTANCE, 1_790_000_000, OTHER)},
    ],
    ids=["sample", "number", "range", "shape", "instance", "frames", "time", "value", "key"],
)
def test_anything_else_does_not_hold(other: dict[str, object]) -> None:
    assert not holds(**other)  # type: ignore[arg-type]


def test_a_signature_travels_as_77_bytes_with_zeros_behind() -> None:
    content = MADE.to_bytes()
    assert len(content) == 77
    assert Signature.from_bytes(content + b"\0\0\0") == MADE


@pytest.mark.parametrize(
    "content", [b"", MADE.to_bytes()[:-1], MADE.to_bytes() + b"\1", b"\2" + MADE.to_bytes()[1:]]
)
def test_anything_else_is_no_signature(content: bytes) -> None:
    assert Signature.from_bytes(content) is None


def test_the_message_is_whole_shards_and_open_to_all() -> None:
    message = signature.seal(MADE, IMAGE)
    assert len(message) == 6 * SHARDS == 96
    assert signature.unseal(message, IMAGE) == MADE


def test_the_key_of_the_layer_is_the_documented_one() -> None:
    assert LAYER_KEY.secret.hex() == "8b6d70345212a4ea3aa492e0896d7839b497695d2006171fc322dc4360b3d513"


def test_the_message_belongs_to_its_place() -> None:
    message = signature.seal(MADE, IMAGE)
    assert signature.unseal(message, replace(IMAGE, number=1)) is None
    keys = crypto.derive(LAYER_KEY)
    record = crypto.seal_message(keys, MADE.to_bytes(), crypto.context(IMAGE))
    assert signature.unseal(record, IMAGE) is None, "a record is no signature"


@pytest.mark.parametrize("make", [SigningKey, PublicKey])
def test_keys_are_32_bytes(make: type) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        make(bytes(31))


def test_no_secret_in_a_repr() -> None:
    assert SEED.hex() not in repr(KEY)
    assert repr(SEED) not in repr(KEY)
