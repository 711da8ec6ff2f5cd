"""The story of one object, by the UID that the operator typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dicom_node import cli
from dicom_node.ledger import Ledger
from tests.ledgers import send


@pytest.fixture
def config(scratch: Path) -> Path:
    path = scratch / "node.yaml"
    path.write_text(
        f"node: {{id: n, ae_title: NODE}}\nstorage: {{folder: {scratch}}}\n"
        "routes:\n  - {name: all, role: verify}\n"
    )
    return path


def trace(config: Path, *arguments: str) -> int:
    return cli.main(["trace", *arguments, "--config", str(config)])


def test_every_change_is_told_with_its_time(
    book: Ledger, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    book.dead(send(book), "status-c000")
    assert trace(config, "1.2.3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["time", "job", "what", "destination", "reason"]
    assert [line.split() for line in lines[1:5]] == [
        ["1970-01-12T13:46:40.000Z", "1", "received", "-", "-"],
        ["1970-01-12T13:46:40.000Z", "1", "ready", "-", "-"],
        ["1970-01-12T13:46:40.000Z", "1", "queued", "pacs", "-"],
        ["1970-01-12T13:46:40.000Z", "1", "dead", "pacs", "status-c000"],
    ]
    assert lines[-2:] == ["job 1 is ready now", "  d1 to pacs is dead (status-c000)"]


def test_the_same_as_json_under_the_uid_that_was_sent(
    book: Ledger, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    book.dead(send(book), "status-c000")
    assert trace(config, "2.25.1", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["uid"] == "2.25.1"
    (instance,) = document["instances"]
    assert (instance["job"], instance["state"]) == (1, "ready")
    assert [event["what"] for event in instance["events"]] == ["received", "ready", "queued", "dead"]
    assert instance["deliveries"] == [
        {"delivery": 1, "destination": "pacs", "state": "dead", "attempts": 1, "reason": "status-c000"}
    ]
    assert "1.2.3" not in json.dumps(document), "only what was typed is echoed"


def test_what_never_came_is_an_error(book: Ledger, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trace(config, "1.2.99") == 1
    assert "nothing is known of 1.2.99" in capsys.readouterr().err
