"""Nodes and archives of these tests; none outlives its test, however that ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.stand import Node, Setup, free_port
from benchmarks.witnesses import Archive

Nodes = Callable[[Setup], Node]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """Makes a node, below `tmp_path`, that is not started yet."""
    made: list[Node] = []

    def make(setup: Setup) -> Node:
        made.append(Node(tmp_path / f"node-{len(made)}", setup))
        return made[-1]

    yield make
    for node in made:
        if node.running:
            node.kill()


@pytest.fixture
def archives() -> Iterator[Callable[[], Archive]]:
    """Makes archives that listen."""
    made: list[Archive] = []

    def make() -> Archive:
        made.append(Archive(free_port()).start())
        return made[-1]

    yield make
    for archive in made:
        archive.stop()


@pytest.fixture
def archive(archives: Callable[[], Archive]) -> Archive:
    """One of them."""
    return archives()
