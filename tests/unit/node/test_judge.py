"""Instances judged by processes: reports in order, files of the way removed, a killed judge."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from dicom_node import keys
from dicom_node.errors import NodeError
from dicom_node.judge import How, Item, Judges, limit_s, lost
from dicom_node.report import InstanceReport, Unreadable
from tests import builders


@pytest.fixture(scope="module")
def how(tmp_path_factory: pytest.TempPathFactory) -> How:
    ring = tmp_path_factory.mktemp("ring") / "keyring"
    keys.generate(ring)
    return How(ring)


def test_paths_and_bytes_are_judged_in_order_and_temporary_files_are_gone(how: How, tmp_path: Path) -> None:
    content = builders.file_bytes(builders.ct(64, 64, InstanceNumber="7"))
    kept, passing = tmp_path / "kept.dcm", tmp_path / "passing.dcm"
    kept.write_bytes(content)
    passing.write_bytes(b"no DICOM")
    items = [
        Item("one", kept),
        Item("two", passing, temporary=True),
        Item("three", None, content),
        Item("four", tmp_path / "nowhere"),
    ]
    with Judges(how, 2) as judges:
        one, two, three, four = judges.judged(items)
    assert isinstance(one, InstanceReport)
    assert isinstance(three, InstanceReport)
    assert (one.source, one.finding, one.place.number, one.place.modality) == ("one", "unmarked", 7, "CT")
    assert len(one.content) == 64
    assert one.content == three.content
    assert isinstance(two, Unreadable)
    assert two.error.startswith("is not a DICOM file")
    assert isinstance(four, Unreadable)
    assert (kept.exists(), passing.exists()) == (True, False)


def test_what_was_on_its_way_is_removed_when_the_judges_are_left(how: How, tmp_path: Path) -> None:
    files = [tmp_path / str(n) for n in range(6)]
    for file in files:
        file.write_bytes(b"no DICOM")
    with Judges(how, 1) as judges:
        judged = judges.judged(Item(file.name, file, temporary=True) for file in files)
        next(judged)
        judged.close()  # type: ignore[attr-defined]
    left = [file for file in files if file.exists()]
    assert left == files[-len(left) :]  # those that were never taken are their owner's


def test_a_judge_that_is_killed_costs_nothing(how: How) -> None:
    content = builders.file_bytes(builders.ct(64, 64))
    with Judges(how, 1) as judges:
        judged = judges.judged([Item("a", None, content), Item("b", None, content), Item("c", None, content)])
        first = next(judged)
        pid = judges._pool._workers[0].process.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert [type(each) for each in (first, *judged)] == [InstanceReport] * 3


def test_an_instance_that_takes_too_long_is_an_error_that_says_so(how: How, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(1 << 30)
    assert limit_s(None) == limit_s(tmp_path / "nowhere") == 600.0
    assert 100_000 < limit_s(large) < 120_000
    assert "too long" in lost("large", None).error
    with Judges(how, 1) as judges:
        assert judges._pool._limit_s(Item("a", large)) == limit_s(large)


def test_a_ring_that_cannot_be_read_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="does not exist"), Judges(How(tmp_path / "ring"), 1) as judges:
        list(judges.judged([Item("a", None, b"")]))
