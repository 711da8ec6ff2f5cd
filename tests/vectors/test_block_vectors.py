"""The golden vectors of the carrier `dct`: read by the engine and by a reader made from the document."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blessmark import selftest
from tests.vectors import second_block_reader, second_reader

HERE = Path(__file__).parent
COUNT = 14
CONTENT: dict[str, Any] = json.loads((HERE / "dct" / "blocks.json").read_text("utf-8"))
VECTORS = {vector["id"]: vector for vector in CONTENT["vectors"]}
POSITIVE = [id_ for id_, vector in VECTORS.items() if "positive" in vector["flags"]]
#: the second reader has no networks
SECOND = [id_ for id_ in VECTORS if VECTORS[id_]["map"]["segmenter"] != "vessels/1"]


def test_no_vector_is_missing() -> None:
    assert CONTENT["count"] == len(VECTORS) == COUNT
    assert CONTENT["sha256"] == selftest.content_hash(CONTENT["vectors"])
    assert {VECTORS[id_]["write"]["blocks"]["side"] for id_ in POSITIVE} == {6, 8, 10}
    assert {VECTORS[id_]["write"]["receipt"]["tier"] for id_ in POSITIVE} == {"full", "core", "seal"}


@pytest.mark.parametrize("id_", VECTORS)
def test_the_engine_writes_and_reads(id_: str) -> None:
    selftest.check(VECTORS[id_])


@pytest.mark.parametrize("id_", POSITIVE)
def test_restoring_is_not_near_a_border_of_what_the_seal_tells(id_: str) -> None:
    """The figure in the seal comes from floats; half a decibel is wide enough for all machines."""
    vector = VECTORS[id_]
    original = selftest.original_frame(vector)
    receipt = selftest.written(vector, original).receipt
    assert receipt.restored_psnr_db is not None
    assert 0.02 < (2 * receipt.restored_psnr_db) % 1 < 0.98


@cache
def second(id_: str) -> second_block_reader.BlockReading | None:
    vector = VECTORS[id_]
    frame = second_reader.received(vector)
    blocks = np.array([[block == "#" for block in row] for row in vector["map"]["blocks"]])
    secret = bytes.fromhex(vector["read"]["keys"][0]["secret"])
    return second_block_reader.read(frame, vector["map"]["segmenter"], blocks, secret)


@pytest.mark.parametrize("id_", [id_ for id_ in POSITIVE if id_ in SECOND])
def test_the_second_reader_reads(id_: str) -> None:
    vector, reading = VECTORS[id_], second(id_)
    assert reading is not None
    assert reading.side == vector["write"]["blocks"]["side"]
    assert reading.carriers == vector["map"]["carriers"]
    assert reading.threshold == vector["write"]["threshold"]
    assert reading.message.hex() == vector["write"]["message"]
    assert reading.record == vector["expect"]["record"]
    assert (reading.detector, reading.half_db) == (vector["write"]["detector"], vector["write"]["half_db"])
    assert reading.intact


@pytest.mark.parametrize("id_", [id_ for id_ in VECTORS if id_ not in POSITIVE])
def test_the_second_reader_is_not_deceived(id_: str) -> None:
    """Intact where the engine says authentic or header altered, and no record where it finds none."""
    finding, reading = VECTORS[id_]["expect"]["finding"], second(id_)
    assert (reading is not None and reading.intact) == (finding in {"authentic", "header-altered"})
    assert (reading is None) == (VECTORS[id_]["expect"]["record"] is None)
    if finding == "pixels-altered":
        cols = -(-VECTORS[id_]["plane"]["cols"] // 64)
        assert [list(divmod(cell, cols)) for cell in reading.altered] == VECTORS[id_]["expect"][
            "altered_tiles"
        ]


def test_the_patterns_are_those_of_the_document() -> None:
    text = (HERE.parents[1] / "docs" / "format" / "dct.md").read_text("utf-8")
    stated = dict(re.findall(r"m = (\d+) `([0-9a-f]{64})`", text))
    for side in (6, 8, 10):
        first = second_block_reader.pattern(side)
        table = np.concatenate([first.ravel(), first.T.ravel()]).astype("<i8").tobytes()
        assert hashlib.sha256(table).hexdigest() == stated[str(side)]
