"""The self-test passes here, and fails where anything at all is different."""

from __future__ import annotations

import copy
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blessmark import selftest as module
from blessmark.errors import SelfTestError
from blessmark.selftest import check, content_hash, generate, load, rehearse, selftest

GOLDEN = Path(__file__).parents[2] / "vectors" / "v1"


@pytest.fixture
def vectors() -> list[dict[str, Any]]:
    return [dict(vector) for vector in load(module._PACKAGED)]


def written(path: Path, vectors: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"vectors": vectors, "sha256": content_hash(vectors)}), "utf-8")
    return path


def named(vectors: list[dict[str, Any]], id_: str) -> dict[str, Any]:
    return copy.deepcopy(next(vector for vector in vectors if vector["id"] == id_))


def test_this_machine_reproduces_the_vectors(vectors: list[dict[str, Any]]) -> None:
    assert selftest() == len(vectors) == 10


def test_a_rehearsal_is_a_test_too(
    vectors: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rehearse()
    vectors[0]["plane"]["sha256"] = "00"
    monkeypatch.setattr(module, "_PACKAGED", written(tmp_path / "v1.json", vectors))
    with pytest.raises(SelfTestError, match="the generator gives another plane"):
        rehearse()


def test_a_rehearsal_leaves_no_loop_of_a_usual_image_to_be_loaded() -> None:
    code = """
import numpy as np
from blessmark import jit
from blessmark.portrait import portrait
from blessmark.segment import segmenter
from blessmark.selftest import rehearse
from blessmark.types import Frame, Lattice
from blessmark.view import invariant_view
rehearse()
before = {loop: len(loop.signatures) for loop in jit.LOOPS}
plane = np.zeros((1, 256, 256), np.int32)
plane[0, 64:192, 64:192] = 1000 + np.arange(128)
frame = Frame(plane, 0, 4095)
portrait(frame)
segmenter("anatomy").roi_blocks(invariant_view(frame, Lattice.QUARTER))
print([loop.py_func.__name__ for loop in jit.LOOPS if len(loop.signatures) != before.get(loop, 0)])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_stays_small() -> None:
    assert module._PACKAGED.stat().st_size < 64 * 1024


def test_the_packaged_vectors_are_golden_ones_of_every_kind(vectors: list[dict[str, Any]]) -> None:
    golden = [vector for path in GOLDEN.glob("*.json") for vector in load(path)]
    assert all(vector in golden for vector in vectors)
    flags = {flag for vector in vectors for flag in vector["flags"]}
    assert flags >= {"positive", "negative", "tile", "global", "header", "quarter", "quincunx", "damaged"}
    assert {vector["map"]["segmenter"] for vector in vectors} == {"anatomy/1", "given/1", "whole/1"}


def test_a_missing_file_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_PACKAGED", tmp_path / "v1.json")
    with pytest.raises(SelfTestError, match=r"v1\.json cannot be read \(FileNotFoundError\)"):
        selftest()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"vectors": 3, "sha256": ""}', '{"vectors": []}'])
def test_a_garbled_file_is_an_error(content: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "v1.json"
    path.write_text(content, "utf-8")
    monkeypatch.setattr(module, "_PACKAGED", path)
    with pytest.raises(SelfTestError, match=r"v1\.json cannot be read"):
        selftest()


def test_a_changed_file_is_an_error(vectors: list[dict[str, Any]], tmp_path: Path) -> None:
    path = written(tmp_path / "v1.json", vectors)
    path.write_text(path.read_text("utf-8").replace("pixels-altered", "authentic", 1), "utf-8")
    with pytest.raises(SelfTestError, match="hash does not match"):
        load(path)


def test_a_lost_vector_is_an_error(
    vectors: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "_PACKAGED", written(tmp_path / "v1.json", vectors[1:]))
    with pytest.raises(SelfTestError, match="holds 9 vectors, not 10"):
        selftest()


@pytest.mark.parametrize(
    ("part", "name", "value", "message"),
    [
        ("plane", "sha256", "00", "the generator gives another plane"),
        ("plane", "seed", "other", "the generator gives another plane"),
        ("received", "sha256", "00", "embedding gives another plane; the changes lead to another plane"),
        ("expect", "finding", "unmarked", "finding is 'authentic' instead of 'unmarked'"),
        ("expect", "restored_sha256", "00", "restored_sha256"),
        ("read", "number", 2, "finding is 'unmarked'"),
        ("map", "blocks", ["#" * 24] * 24, "CapacityError"),
        ("map", "segmenter", "unheard/1", "SegmenterError"),
        ("plane", "layers", [{}], "KeyError"),
        ("frame", "lo", 4096, "ValueError"),
    ],
)
def test_whatever_differs_is_told(
    vectors: list[dict[str, Any]], part: str, name: str, value: Any, message: str
) -> None:
    vector = named(vectors, "tile-small")
    vector[part][name] = value
    with pytest.raises(SelfTestError, match=f"vector tile-small: .*{message}"):
        check(vector)


def test_a_receipt_or_element_that_differs_is_told(vectors: list[dict[str, Any]]) -> None:
    vector = named(vectors, "tile-small")
    vector["write"]["receipt"]["changed_samples"] += 1
    with pytest.raises(SelfTestError, match="changed_samples is"):
        check(vector)
    vector = named(vectors, "header-element")
    vector["write"]["about"]["time_s"] += 1
    with pytest.raises(SelfTestError, match="the sealed header element differs"):
        check(vector)


def test_what_a_vector_does_not_state_is_not_compared(vectors: list[dict[str, Any]]) -> None:
    vector = named(vectors, "rows-cut")
    del vector["expect"]["packets"]
    check(vector)


def test_an_error_names_the_part_that_differs(vectors: list[dict[str, Any]]) -> None:
    vector = named(vectors, "tile-small")
    vector["expect"]["record"]["fields"]["00100040"] = "4d20"
    with pytest.raises(SelfTestError) as raised:
        check(vector)
    assert str(raised.value) == "vector tile-small: record.fields.00100040 is '4620' instead of '4d20'"


def test_planes_are_as_documented() -> None:
    """tests/vectors/README.md, pixel by pixel."""
    base = {"base": [5, 7], "slope": [-3, 2], "shift": 1, "levels": 10}
    everywhere = {"shape": "rectangle", "at": [0, 0, 9, 9], "outside": False}
    ring = {"shape": "ellipse", "at": [2, 2, 1, 2], "outside": True}
    layers = [{"area": everywhere, **base}, {"area": ring, **base, "base": [100, 200], "levels": 1}]
    samples = generate({"channels": 2, "rows": 5, "cols": 6, "seed": "s", "layers": layers})
    assert samples.dtype == np.int32
    for channel, row, col in np.ndindex(2, 5, 6):
        slope = (-3 * row + 2 * col) >> 1
        number, place = divmod(6 * row + col, 16)
        block = hashlib.sha256(f"s/0/{channel}/{number}".encode()).digest()
        inside = (row - 2) ** 2 * 4 + (col - 2) ** 2 <= 4
        noisy = (5, 7)[channel] + slope + int.from_bytes(block[2 * place : 2 * place + 2]) % 10
        assert samples[channel, row, col] == (noisy if inside else (100, 200)[channel] + slope)
