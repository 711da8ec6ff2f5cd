"""Golden vectors of the signature layer: marks of v1, signed, and what may befall them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from blessmark.payload import signature
from blessmark.payload.signature import Instance, PublicKey, SigningKey
from blessmark.selftest import digest, original_frame, segmenter_of, written
from blessmark.signing import Release, check, sign
from blessmark.types import Frame, IntArray
from tools.vector_making import Vector, received

#: RFC 8032, section 7.1, tests 1 and 2
SEED = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
OTHER_SEED = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"
UID = "2.25.197400521845217938154290834417552098764"
TIME_S = 1_790_000_000
#: grey levels that record and layer may move a sample together
MAX_CHANGE = 24
SIGNED = (
    "tile-grey12",
    "tile-signed-padding",
    "tile-quincunx",
    "tile-rgb",
    "tile-forced-roi",
    "global-quarter",
)


def signature_vectors(made: Mapping[str, Vector]) -> list[Vector]:
    """Signed marks, then what happens to the first of them; `made` are the marks by id."""
    positive = [_signed(made[id_]) for id_ in SIGNED]
    return [*positive, *_attacked(positive[0], made[SIGNED[0]])]


def frame_of(vector: Vector, received_: IntArray | None = None) -> Frame:
    """The frame that arrives."""
    original = original_frame(vector)
    return original if received_ is None else original.with_samples(received_)


def release_of(reading: Mapping[str, Any]) -> Release:
    """How a vector is read."""
    keys = [PublicKey(bytes.fromhex(key["raw"]), key["revoked"]) for key in reading["keys"]]
    return Release(Instance(reading["sop_instance_uid"], reading["frames"]), keys)


def _signed(base: Vector) -> Vector:
    original = original_frame(base)
    done = written(base, original)
    signed = sign(
        original,
        done,
        segmenter_of(base),
        Instance(UID, 1),
        TIME_S,
        SigningKey(bytes.fromhex(SEED)),
        max_change=MAX_CHANGE,
    )
    assert not signed.beside, base["id"]
    vector: Vector = {"id": f"signed-{base['id']}", "comment": f"{base['comment']}, signed", "of": base["id"]}
    vector |= {part: base[part] for part in ("plane", "frame", "map")}
    vector["write"] = {
        "record": base["write"],
        "seed": SEED,
        "sop_instance_uid": UID,
        "frames": 1,
        "time_s": TIME_S,
        "max_change": MAX_CHANGE,
        "below_sha256": digest(done.frame.samples),
        "signature": signed.signature.to_bytes().hex(),
        "message": signature.seal(signed.signature, done.frame).hex(),
    }
    return _read(vector, signed.done.frame.samples, "valid")


def _read(vector: Vector, samples: IntArray, state: str, **reading: Any) -> Vector:
    """The vector with what arrives, how it is read, and the state that its author expects."""
    vector["received"] = received(original_frame(vector), samples, None)
    public = SigningKey(bytes.fromhex(SEED)).public.hex()
    vector["read"] = {
        "keys": [{"raw": public, "revoked": False}],
        "sop_instance_uid": UID,
        "frames": 1,
        **reading,
    }
    found = check(frame_of(vector, samples), [segmenter_of(vector)], release_of(vector["read"]))
    assert found.state == state, (vector["id"], found)
    vector["expect"] = {"state": str(found.state), "key": found.key.hex(), "time_s": found.time_s}
    return vector


def _attacked(base: Vector, mark: Vector) -> Iterator[Vector]:
    def other(id_: str, comment: str, samples: IntArray, state: str, **reading: Any) -> Vector:
        vector: Vector = {"id": id_, "comment": comment, "of": base["id"]}
        vector |= {part: base[part] for part in ("plane", "frame", "map")}
        return _read({**vector, "write": None}, samples, state, **reading)

    original = original_frame(base)
    key = SigningKey(bytes.fromhex(SEED))
    signed = _samples(original, mark, key)
    public, revoked = key.public.hex(), [{"raw": key.public.hex(), "revoked": True}]
    stranger = SigningKey(bytes.fromhex(OTHER_SEED))
    yield other("unsigned", "the mark below", written(mark, original).frame.samples, "none")
    yield other("site-changed", "a carrier pixel", _added(signed, 21, 13), "invalid")
    yield other("roi-changed", "a pixel of the region of interest", _added(signed, 100, 56), "invalid")
    yield other("other-uid", "another instance", signed, "invalid", sop_instance_uid="2.25.1")
    yield other("other-frames", "another number of frames", signed, "invalid", frames=2)
    yield other("no-key", "no public key was given", signed, "unknown-key", keys=[])
    yield other("revoked-key", "the key is trusted no more", signed, "revoked", keys=revoked)
    forged = _samples(original, mark, stranger)
    yield other("stranger", "signed by somebody else", forged, "unknown-key")
    both = [{"raw": public, "revoked": False}, {"raw": stranger.public.hex(), "revoked": False}]
    yield other("either-key", "two keys are trusted", forged, "valid", keys=both)


def _samples(original: Frame, mark: Vector, key: SigningKey) -> IntArray:
    done = written(mark, original)
    instance = Instance(UID, 1)
    signed = sign(original, done, segmenter_of(mark), instance, TIME_S, key, max_change=MAX_CHANGE)
    return signed.done.frame.samples


def _added(samples: IntArray, row: int, col: int) -> IntArray:
    result = np.array(samples)
    result[0, row, col] += 1
    return result
