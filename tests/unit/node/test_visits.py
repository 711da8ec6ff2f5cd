"""An association is one line: who came, how it ended, what it brought."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from dicom_node import log
from dicom_node.dimse.admission import Peer
from dicom_node.dimse.visits import Visit


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    log.setup("json", "info", salt=b"site", stream=stream)
    yield stream
    root.handlers[:], root.level = before[0], before[1]


@pytest.mark.parametrize(
    ("released", "aborted", "result"),
    [(True, False, "released"), (False, True, "aborted"), (False, False, "broken-off")],
)
def test_a_visit_is_one_line(lines: io.StringIO, released: bool, aborted: bool, result: str) -> None:
    association = SimpleNamespace(is_released=released, is_aborted=aborted)
    visit = Visit(association, Peer("CT1", "10.0.0.7"), "NODE")
    visit.kept(100)
    visit.kept(50)
    visit.refused()
    visit.ended()
    (line,) = [json.loads(each) for each in lines.getvalue().splitlines()]
    assert line.pop("total_s") >= 0
    assert line.pop("time")
    assert line == {
        "level": "info",
        "event": "association",
        "peer": "10.0.0.7",
        "calling_ae": "CT1",
        "called_ae": "NODE",
        "result": result,
        "count": 2,
        "refusals": 1,
        "bytes": 150,
    }
