"""`dicom-node serve`: what the command line changes in the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node import cli, service
from dicom_node.config import Config
from dicom_node.config.words import ClusterPart
from dicom_node.errors import EXIT_DONE, EXIT_ERROR

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


def test_the_command_line_knows_every_part() -> None:
    assert [*cli.PARTS] == [*ClusterPart]
