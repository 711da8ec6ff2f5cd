"""The commands of a cluster say what they did, and what to do next."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node import cli, moving, stores
from dicom_node.cli import cluster
from dicom_node.ledger import Counts, Ledger
from dicom_node.moving import Copied, Moved

_NODE = """
node: {{id: n, ae_title: NODE}}
storage: {{folder: {folder}}}
destinations: {{pacs: {{ae_title: PACS, host: pacs, port: 104}}}}
routes: [{{name: all, role: pass, destinations: [pacs]}}]
"""
_CLUSTER = """
cluster:
  name: radiology
  database: {{url: "postgresql://node@db.example/dicom_node"}}
  blobs: {{kind: directory, directory: {folder}}}
"""


@pytest.fixture
def files(scratch: Path) -> tuple[str, str]:
    old, new = scratch / "old.yaml", scratch / "new.yaml"
    old.write_text(_NODE.format(folder=scratch / "old"))
    new.write_text(_NODE.format(folder=scratch / "new") + _CLUSTER.format(folder=scratch / "shared"))
    Ledger(scratch / "old" / "ledger.sqlite").close()
    return str(old), str(new)


@pytest.fixture
def in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    open_ledger = stores.open_ledger
    for module in (stores, moving):
        monkeypatch.setattr(
            module,
            "open_ledger",
            lambda config, **how: open_ledger(config.model_copy(update={"cluster": None}), **how),
        )


def test_a_move_says_what_came_over(
    files: tuple[str, str], in_a_file: None, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = files
    assert cli.main(["cluster", "move", "--from", old, "--config", new]) == 0
    assert "0 objects copied by this command, 0 claims checked" in capsys.readouterr().out
    assert cli.main(["cluster", "check", "--config", new]) == 0
    assert "0 claims, 0 lost" in capsys.readouterr().out
    assert cli.main(["cluster", "move", "--from", old, "--config", new, "--back-out"]) == 0
    assert "the node may start again" in capsys.readouterr().out


def test_what_is_lost_is_an_error(
    files: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster, "check", lambda _config, lose: (7, 2 if lose else 1))
    assert cli.main(["cluster", "check", "--config", files[1], "--lose"]) == 1
    assert "7 claims, 2 lost" in capsys.readouterr().out


def test_what_is_in_which_state_is_shown(
    files: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = Counts({"held": 3, "ready": 0}, {"dead": 1})  # type: ignore[dict-item]
    monkeypatch.setattr(moving.Move, "run", lambda _: Moved(4, 4, counts))
    assert cli.main(["cluster", "move", "--from", files[0], "--config", files[1]]) == 0
    assert capsys.readouterr().out.splitlines()[1:3] == ["held         3", "dead         1"]


def test_a_node_alone_needs_no_check(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cluster", "check", "--config", files[0]]) == 2
    assert "checks its objects at every start" in capsys.readouterr().err


def test_how_far_it_is_is_told_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    telling = cluster._Telling()
    telling(Copied(1, 1, 1))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(cluster, "_TELL_S", 0.0)
    telling = cluster._Telling()
    telling(Copied(500, 20, 3_000_000_000))
    assert capsys.readouterr().err == "500 objects looked at, 20 copied, 3.0 GB\n"
