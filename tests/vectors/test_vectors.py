"""The golden vectors: complete, well-formed, and read alike by the engine and by an independent reader."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blessmark import selftest
from blessmark.payload import crypto, packets, record
from blessmark.payload.erasure import encode
from blessmark.segment.anatomy import Anatomy
from blessmark.types import Frame, Lattice, Tier
from blessmark.view import invariant_view
from tests import phantoms
from tests.vectors import second_reader
from tools import make_vectors

HERE = Path(__file__).parent
#: every file and how many vectors it holds: what is missing must be missed
FILES = {"tile": 16, "global": 10, "tampering": 27, "identity": 19}
KEY = bytes(range(32))


def _load(name: str) -> dict[str, Any]:
    return json.loads((HERE / "v1" / f"{name}.json").read_text("utf-8"))


VECTORS = {vector["id"]: vector for name in FILES for vector in _load(name)["vectors"]}
POSITIVE = [id_ for id_, vector in VECTORS.items() if "positive" in vector["flags"]]
NEGATIVE = [id_ for id_, vector in VECTORS.items() if "negative" in vector["flags"]]


def test_no_vector_is_missing() -> None:
    assert {path.stem for path in (HERE / "v1").glob("*.json")} == FILES.keys()
    for name, count in FILES.items():
        content = _load(name)
        assert content["count"] == len(content["vectors"]) == count
        assert content["sha256"] == selftest.content_hash(content["vectors"])
    assert len(VECTORS) == sum(FILES.values()) == len(POSITIVE) + len(NEGATIVE)
    assert len(NEGATIVE) >= len(POSITIVE)


@pytest.mark.parametrize("name", FILES)
def test_files_follow_the_schema(name: str) -> None:
    schema = json.loads((HERE / "schema.json").read_text("utf-8"))
    assert list(_violations(_load(name), schema, schema["$defs"], name)) == []


def test_the_schema_check_can_fail() -> None:
    schema = json.loads((HERE / "schema.json").read_text("utf-8"))
    content = _load("global")
    content["vectors"][0]["extra"] = 1
    content["vectors"][1]["plane"]["rows"] = "many"
    content["vectors"][2]["expect"]["finding"] = "fine"
    del content["vectors"][3]["id"]
    assert len(list(_violations(content, schema, schema["$defs"], ""))) == 4


_TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "null": type(None)}


def _violations(value: Any, schema: dict[str, Any], defs: dict[str, Any], at: str):
    """Where a value breaks a schema; knows the keywords that schema.json uses."""
    if "$ref" in schema:
        yield from _violations(value, defs[schema["$ref"].rpartition("/")[2]], defs, at)
    if "oneOf" in schema and sum(not list(_violations(value, one, defs, at)) for one in schema["oneOf"]) != 1:
        yield f"{at}: not one of the alternatives"
    kind = schema.get("type")
    if kind and (not isinstance(value, _TYPES[kind]) or (kind == "integer" and isinstance(value, bool))):
        yield f"{at}: no {kind}"
        return
    if value not in schema.get("enum", [value]) or value != schema.get("const", value):
        yield f"{at}: {value!r} is not allowed"
    yield from _violations_in_parts(value, schema, defs, at)


def _violations_in_parts(value: Any, schema: dict[str, Any], defs: dict[str, Any], at: str):
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        yield f"{at}: does not match {schema['pattern']}"
    if isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{at}: {value} is out of range"
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            yield f"{at}: {len(value)} items"
        for number, item in enumerate(value):
            yield from _violations(item, schema.get("items", {}), defs, f"{at}[{number}]")
    if isinstance(value, dict):
        known, other = schema.get("properties", {}), schema.get("additionalProperties", {})
        yield from (f"{at}.{name}: missing" for name in schema.get("required", ()) if name not in value)
        for name, item in value.items():
            if name not in known and other is False:
                yield f"{at}.{name}: unknown"
            yield from _violations(name, schema.get("propertyNames", {}), defs, f"{at}.{name} (name)")
            yield from _violations(item, known.get(name, other or {}), defs, f"{at}.{name}")


@pytest.mark.parametrize("id_", VECTORS)
def test_the_engine_writes_and_reads(id_: str) -> None:
    selftest.check(VECTORS[id_])


@pytest.mark.parametrize("id_", [i for i in POSITIVE if "packets" in VECTORS[i]["write"]])
def test_the_engine_seals_that_message(id_: str) -> None:
    """The record of the verdict, encoded and sealed again, is the message that is in the pixels."""
    vector = VECTORS[id_]
    original = selftest.original_frame(vector)
    found = selftest.read(vector, selftest.received_frame(vector, original)).record
    keys = crypto.derive(selftest.key_of(vector["write"]["key"]))
    message = crypto.seal_message(keys, record.encode(found), crypto.context(original))
    assert message.hex() == vector["write"]["message"]


def _second_reading(id_: str) -> second_reader.Reading | None:
    """Vectors that differ in their headers alone are read once."""
    parts = {part: VECTORS[id_][part] for part in ("plane", "frame", "map", "received", "read")}
    parts["read"] = {**parts["read"], "header": None, "hinted_keys": []}
    return _second_reading_of(json.dumps(parts))


@cache
def _second_reading_of(parts: str) -> second_reader.Reading | None:
    vector = json.loads(parts)
    frame = second_reader.received(vector)
    rows, cols = (side // 8 for side in frame.x.shape[1:])
    blocks = np.array([[block == "#" for block in row] for row in vector["map"]["blocks"]])[:rows, :cols]
    maps = {second_reader.QUARTER: blocks, second_reader.QUINCUNX: blocks}
    sealed = bytes.fromhex(vector["read"]["sealed"] or "") or None
    secrets = (bytes.fromhex(key["secret"]) for key in vector["read"]["keys"])
    readings = (second_reader.read(frame, maps, secret, sealed) for secret in secrets)
    return next((reading for reading in readings if reading is not None), None)


@pytest.mark.parametrize("id_", POSITIVE)
def test_the_second_reader_reads(id_: str) -> None:
    vector = VECTORS[id_]
    reading = _second_reading(id_)
    assert reading is not None
    assert reading.exact
    assert np.array_equal(reading.restored, second_reader.generate(vector["plane"]))
    assert reading.message.hex() == vector["write"].get("message", vector["write"].get("sealed"))
    assert reading.record == vector["expect"]["record"]
    lattice = None if reading.lattice is None else Lattice(reading.lattice).name.lower()
    assert lattice == vector["expect"]["lattice"]
    assert (reading.header is not None) == (vector["expect"]["framing"] == "global")
    carried = [[packet.row, packet.column, len(packet.shards)] for packet in reading.packets]
    assert carried == vector["write"].get("packets", [])
    assert all(
        shard == second_reader.evaluate(reading.message, 16 * (packet.tile % 4096) + i)
        for packet in reading.packets
        for i, shard in enumerate(packet.shards)
    )


@pytest.mark.parametrize("id_", [i for i in POSITIVE if VECTORS[i]["expect"]["record"]["digests"]])
def test_the_second_reader_finds_the_same_cells(id_: str) -> None:
    vector = VECTORS[id_]
    frame = second_reader.received(vector)
    frame.x = second_reader.generate(vector["plane"])
    keys = second_reader.derive(bytes.fromhex(vector["write"]["key"]["secret"]))
    assert second_reader.cell_digests(frame, keys) == vector["expect"]["record"]["digests"]


@pytest.mark.parametrize("id_", NEGATIVE)
def test_the_second_reader_is_not_deceived(id_: str) -> None:
    """It is exact where the engine is, and finds no record where the engine finds none."""
    vector = VECTORS[id_]
    reading = _second_reading(id_)
    assert (reading is not None and reading.exact) == vector["expect"]["exact"]
    if vector["expect"]["record"] is None:
        assert reading is None
    elif reading is not None:
        assert reading.record == vector["expect"]["record"]


def test_every_part_of_the_format_occurs() -> None:
    readings = [_second_reading(id_) for id_ in POSITIVE]
    packets_ = [packet for reading in readings for packet in reading.packets]
    headers = [reading.header for reading in readings if reading.header is not None]
    assert {len(packet.shards) for packet in packets_} == {1, 2, 4, 8, 16}
    assert {packet.t for packet in packets_} == {1, 2, 4}
    assert len({packet.z // packet.t for packet in packets_}) >= 4
    assert len({header.predictor for header in headers}) >= 3
    assert {header.u == 0 for header in headers} == {True, False}
    assert {header.d is None for header in headers} == {True, False}
    assert any(header.t > 1 for header in headers)
    assert any(header.zu != header.zd for header in headers)
    assert {reading.record["tier"] for reading in readings} == {"full", "core", "seal"}
    assert {reading.lattice for reading in readings} == {None, 0, 1}


def _views() -> dict[str, Frame]:
    """Everything that `anatomy/1` decides about."""
    shape = (160, 200)
    body = phantoms.body_in_air(shape)
    white = np.where(phantoms.body(shape), phantoms.noise(shape, 300) + 500, 4095).astype(np.int32)
    clean = np.where(phantoms.body(shape), body, 0).astype(np.int32)
    disc = phantoms.circular_ct((160, 160))
    hounsfield = {"lo": -32768, "hi": 32767}
    return {
        "body in air": phantoms.frame(body),
        "saturated surround": phantoms.frame(white),
        "synthetic surround": phantoms.frame(clean),
        "disc": phantoms.frame(disc, **hounsfield),
        "disc of padding": phantoms.frame(disc, padding=(-2000, -2000), **hounsfield),
        "padding elsewhere": phantoms.frame(np.where(body < 25, 0, body), padding=(0, 3)),
        "colour": phantoms.frame(body // 16, body // 20, body // 24 + 9, hi=255),
        "odd sides": phantoms.frame(body[:149, :187]),
        "nothing but noise": phantoms.frame(phantoms.noise(shape, 4096)),
        "constant": phantoms.frame(np.full(shape, 7, np.int32)),
        "no whole block": phantoms.frame(body[:7, :50]),
        "two blocks": phantoms.frame(body[:8, :16]),
    }


@pytest.mark.parametrize("name", _views())
def test_anatomy_is_the_documented_one(name: str) -> None:
    frame = _views()[name]
    for lattice in Lattice:
        view = invariant_view(frame, lattice)
        other = second_reader.Frame(frame.samples.astype(np.int64), frame.lo, frame.hi, frame.padding, 1)
        assert np.array_equal(second_reader.view(other, lattice), view.samples)
        mine = Anatomy().roi_blocks(view)
        theirs = second_reader.anatomy(view.samples.astype(np.int64), frame.lo, frame.hi, frame.padding)
        assert np.array_equal(mine, theirs)


def test_the_phantoms_take_every_path_of_anatomy() -> None:
    maps = [Anatomy().roi_blocks(invariant_view(frame, Lattice.QUARTER)) for frame in _views().values()]
    outside = [blocks.size > 0 and not blocks.all() for blocks in maps]
    assert sum(outside) >= 5
    assert not all(outside)


def test_worked_values_of_the_document() -> None:
    """Section 17 of docs/format/v1.md, by both readers."""
    key = selftest.key_of({"id": 0, "secret": KEY.hex()})
    keys, other = crypto.derive(key), second_reader.derive(KEY)
    stated = _worked_values()
    for name in ("message", "order", "packet", "mask", "header", "cells", "element"):
        assert getattr(keys, name) == other[name]
        assert other[name][:8].hex() == stated[name]
    assert crypto.fingerprint(key) == other["fingerprint"] == bytes.fromhex(stated["fingerprint"])
    words = crypto.order_words(keys, 5, Lattice.QUINCUNX, 3, 4)
    frame = second_reader.Frame(np.zeros((1, 3, 4), np.int64), 0, 4095, None, 5)
    assert words.tolist() == second_reader.order_words(other, frame, 1).tolist()
    assert f"{words[0, 0]} {words[0, 1]}" == stated["ord"]
    assert crypto.packet_masks(keys, 5, Lattice.QUINCUNX, 3)[2, :8].tobytes().hex() == stated["msk"]
    assert crypto.header_mask(keys, 5, Lattice.QUINCUNX, 17)[:8].tobytes().hex() == stated["hdr"]
    assert crypto.context(Frame(frame.x.astype(np.int32), 0, 4095, number=5)).hex() == stated["context"]
    data = packets.shards_of(b"watermarking")
    assert encode(data, np.array([35])).astype(">u2").tobytes().hex() == stated["shard"]
    assert second_reader.evaluate(b"watermarking", 35).hex() == stated["shard"]
    assert record.decode(bytes.fromhex(stated["record"]), 5).tier is Tier.CORE
    decoded = second_reader.decode_record(bytes.fromhex(stated["record"]), 5)
    assert decoded["fields"] == {"00100010": b"Doe^Jane".hex(), "00100040": b"F ".hex()}


def _worked_values() -> dict[str, str]:
    text = (HERE.parents[1] / "docs" / "format" / "v1.md").read_text("utf-8")
    table = text.partition("## 17")[2]
    return dict(re.findall(r"^\| `(\w+)` \|.*\| `([0-9a-f ]+)` \|$", table, re.MULTILINE))


def test_frozen_vectors_are_not_overwritten(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frozen, fresh = tmp_path / "frozen.json", tmp_path / "deep" / "fresh.json"
    frozen.write_text("old", "utf-8")
    monkeypatch.setattr(make_vectors, "REPOSITORY", tmp_path)
    monkeypatch.setattr(make_vectors, "files", lambda: {frozen: "new", fresh: "new"})
    assert make_vectors.main([]) == 1
    assert "frozen.json" in capsys.readouterr().err
    assert frozen.read_text("utf-8") == "old"
    assert not fresh.exists()
    assert make_vectors.main(["--format-not-yet-released"]) == 0
    assert frozen.read_text("utf-8") == fresh.read_text("utf-8") == "new"
    assert make_vectors.main([]) == 0


@pytest.mark.slow
def test_the_vectors_are_what_their_maker_makes() -> None:
    for path, text in make_vectors.files().items():
        assert path.read_text("utf-8") == text
