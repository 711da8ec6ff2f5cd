"""The golden vectors of signature layers, by the engine and by a reader made from the document."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blessmark import selftest
from blessmark.payload.signature import Instance, SigningKey
from blessmark.signing import check, peel, sign
from blessmark.types import Frame
from tests.vectors import second_reader, second_signature_reader
from tools.vector_signatures import release_of

CONTENT: dict[str, Any] = json.loads((Path(__file__).parent / "signature" / "layers.json").read_text("utf-8"))
VECTORS = {vector["id"]: vector for vector in CONTENT["vectors"]}
COUNT = 15
WRITTEN = [id_ for id_, vector in VECTORS.items() if vector["write"] is not None]


def arrives(vector: dict[str, Any]) -> Frame:
    original = selftest.original_frame(vector)
    return selftest.received_frame({**vector, "read": {"frame": {}}}, original)


def test_no_vector_is_missing() -> None:
    assert CONTENT["count"] == len(VECTORS) == COUNT
    assert CONTENT["sha256"] == selftest.content_hash(CONTENT["vectors"])
    states = {vector["expect"]["state"] for vector in VECTORS.values()}
    assert states == {"valid", "none", "unknown-key", "revoked", "invalid"}


@pytest.mark.parametrize("id_", VECTORS)
def test_the_engine_reads(id_: str) -> None:
    vector = VECTORS[id_]
    frame = arrives(vector)
    assert selftest.digest(frame.samples) == vector["received"]["sha256"]
    found = check(frame, [selftest.segmenter_of(vector)], release_of(vector["read"]))
    assert {"state": found.state, "key": found.key.hex(), "time_s": found.time_s} == vector["expect"]


@pytest.mark.parametrize("id_", WRITTEN)
def test_the_engine_signs_it_again(id_: str) -> None:
    vector, write = VECTORS[id_], VECTORS[id_]["write"]
    original = selftest.original_frame(vector)
    done = selftest.written({**vector, "write": write["record"]}, original)
    signed = sign(
        original,
        done,
        selftest.segmenter_of(vector),
        Instance(write["sop_instance_uid"], write["frames"]),
        write["time_s"],
        SigningKey(bytes.fromhex(write["seed"])),
        max_change=write["max_change"],
    )
    assert selftest.digest(signed.done.frame.samples) == vector["received"]["sha256"]
    assert signed.signature.to_bytes().hex() == write["signature"]
    found = peel(signed.done.frame, [selftest.segmenter_of(vector)])
    assert found is not None
    assert selftest.digest(found.frame.samples) == write["below_sha256"]


@cache
def second(id_: str) -> second_signature_reader.Layer | None:
    vector = VECTORS[id_]
    frame = second_reader.received({**vector, "read": {"frame": {}, "number": vector["frame"]["number"]}})
    blocks = np.array([[block == "#" for block in row] for row in vector["map"]["blocks"]])
    return second_signature_reader.read(frame, blocks)


@pytest.mark.parametrize("id_", VECTORS)
def test_the_second_reader_says_the_same(id_: str) -> None:
    vector, layer = VECTORS[id_], second(id_)
    reading = vector["read"]
    said = second_signature_reader.state(
        layer, reading["keys"], reading["frames"], reading["sop_instance_uid"]
    )
    assert said == vector["expect"]["state"]
    if vector["write"] is not None:
        assert layer is not None
        assert layer.message.hex() == vector["write"]["message"]
        below = hashlib.sha256(layer.below.x.astype("<i4").tobytes()).hexdigest()
        assert below == vector["write"]["below_sha256"]


def test_both_framings_and_both_lattices_occur() -> None:
    receipts = [VECTORS[id_]["write"]["record"]["receipt"] for id_ in WRITTEN]
    assert {receipt["framing"] for receipt in receipts} == {"tile", "global"}
    assert {receipt["lattice"] for receipt in receipts} == {"quarter", "quincunx"}
