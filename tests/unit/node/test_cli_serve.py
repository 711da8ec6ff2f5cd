"""`dicom-node serve`: what the command line changes in the configuration."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_node import cli, service
from dicom_node.cli import serve
from dicom_node.config import Config
from dicom_node.config.words import ClusterPart
from dicom_node.errors import EXIT_DONE, EXIT_ERROR, NodeError

_NODE = """
node: {id: test, ae_title: TEST}
storage: {folder: /var/lib/dicom-node}
destinations: {pacs: {ae_title: PACS, host: pacs.example.org, port: 104}}
routes: [{name: all, role: pass, destinations: [pacs]}]
"""
_CLUSTER = """
cluster:
  name: radiology
  database: {url: "postgresql://dicom-node@database.example.org/dicom_node"}
  blobs: {kind: directory, directory: /srv/objects}
"""


def _served(
    monkeypatch: pytest.MonkeyPatch, folder: Path, text: str, *arguments: str
) -> tuple[int, list[Config]]:
    """The exit status, and what the node was started with and would read at a SIGHUP."""
    path, seen = folder / "node.yaml", []
    path.write_text(text, "utf-8")

    def serve(config: Config, **named: object) -> int:
        seen.extend((config, named["reread"]()))  # type: ignore[operator]
        return EXIT_DONE

    monkeypatch.setattr(service, "serve", serve)
    return cli.main(["serve", "--config", str(path), *arguments]), seen


def test_parts_of_the_command_line_take_the_place_of_those_of_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    status, seen = _served(monkeypatch, tmp_path, _NODE + _CLUSTER, "--parts", "work,forward,work")

    assert status == EXIT_DONE
    assert [config.cluster and config.cluster.parts for config in seen] == 2 * [
        (ClusterPart.WORK, ClusterPart.FORWARD)
    ]


def test_without_them_the_file_says_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, seen = _served(monkeypatch, tmp_path, _NODE + _CLUSTER)

    assert [config.cluster and config.cluster.parts for config in seen] == 2 * [tuple(ClusterPart)]


def test_a_node_of_its_own_has_no_parts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, seen = _served(monkeypatch, tmp_path, _NODE, "--parts", "work")

    assert (status, seen) == (EXIT_ERROR, [])
    assert "--parts is for a cluster" in capsys.readouterr().err


def test_a_part_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["serve", "--config", "node.yaml", "--parts", "cook"])

    assert "cook names a part that there is not" in capsys.readouterr().err


def test_the_self_test_runs_in_a_process_of_its_own() -> None:
    code = (
        "import sys\n"
        "import dicom_node.cli.serve as serve\n"
        "if __name__ == '__main__':\n"
        "    print(serve._self_test(), 'numba' in sys.modules)\n"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=300)
    assert made.stdout.decode().split() == ["10", "False"]


def test_a_self_test_that_fails_keeps_the_node_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_reproduced", _does_not_reproduce)
    with pytest.raises(NodeError, match="self-test failed"):
        serve._self_test()


def test_a_self_test_that_is_killed_keeps_the_node_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_reproduced", _dies)
    with pytest.raises(NodeError, match="exit code 7"):
        serve._self_test()


def _does_not_reproduce() -> Callable[[None], int]:
    raise NodeError("self-test failed: another answer")


def _dies() -> Callable[[None], int]:
    return lambda _: os._exit(7)


def test_the_command_line_knows_every_part() -> None:
    assert [*cli.PARTS] == [*ClusterPart]
