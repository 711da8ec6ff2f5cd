"""Every test that a document names as its proof exists, and every numbered promise names one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.architecture.repository import ROOT, files

_PROOF = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_PROMISE = re.compile(r"^- \*\*S(\d+)\*\* (.*(?:\n  .*)*)", re.M)
_BEHAVIOUR = ROOT / "docs" / "server-behaviour.md"


def proofs_in(path: Path) -> set[str]:
    """The test functions at the top of a test file; empty if there is no such file."""
    if not path.is_file():
        return set()
    body = ast.parse(path.read_text("utf-8")).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def unproven(text: str) -> list[str]:
    """The proofs that a text names and that do not exist."""
    named = sorted(set(_PROOF.findall(text)))
    return [f"{file}::{test}" for file, test in named if test not in proofs_in(ROOT / file)]


@pytest.mark.parametrize(
    "document", sorted(path for path in files() if path.suffix == ".md"), ids=lambda path: path.name
)
def test_every_proof_exists(document: Path) -> None:
    assert unproven(document.read_text("utf-8")) == []


def test_the_promises_are_numbered_and_each_names_a_proof() -> None:
    promises = _PROMISE.findall(_BEHAVIOUR.read_text("utf-8"))
    assert [int(number) for number, _ in promises] == list(range(1, len(promises) + 1))
    assert len(promises) > 10
    assert [number for number, text in promises if not _PROOF.search(text)] == []


def test_a_proof_that_is_gone_is_noticed() -> None:
    here = "tests/architecture/test_promises.py"
    text = (
        f"`{here}::test_every_proof_exists` `{here}::test_nothing` `tests/none.py::test_every_proof_exists`"
    )
    assert unproven(text) == [f"{here}::test_nothing", "tests/none.py::test_every_proof_exists"]
