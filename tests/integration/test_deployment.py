"""The manifests of a cluster, held against the schemas of those who read them and the node's own settings.

What needs Debian's programs is in tests/interop/test_deployment_tools.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from dicom_node import cli, config
from dicom_node.config.words import ClusterPart

_DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
_KUBERNETES = _DEPLOY / "kubernetes"
_MANIFESTS = sorted(
    path for path in _KUBERNETES.glob("*.yaml") if path.stem not in ("kustomization", "dicom-node")
)
_CONFIGURATIONS = [_DEPLOY / "compose" / "dicom-node.yaml", _KUBERNETES / "dicom-node.yaml"]
#: the oldest that is still supported somewhere, and the newest that the schemas know
_VERSIONS = ("1.31", kubernetes_validate.latest_version())


def _documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text("utf-8")) if document]


def _containers() -> list[dict[str, Any]]:
    deployments = [each for path in _MANIFESTS for each in _documents(path) if each["kind"] == "Deployment"]
    return [each["spec"]["template"]["spec"]["containers"][0] for each in deployments]


@pytest.mark.parametrize("version", _VERSIONS)
@pytest.mark.parametrize("path", _MANIFESTS, ids=lambda path: path.stem)
def test_kubernetes_takes_every_manifest(path: Path, version: str) -> None:
    for document in _documents(path):
        kubernetes_validate.validate(document, version, strict=True)


def test_a_manifest_with_a_slip_is_not_taken() -> None:
    document = _documents(_KUBERNETES / "receive.yaml")[0]
    document["spec"]["replica"] = 2

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, _VERSIONS[-1], strict=True)


def test_kustomization_names_every_manifest() -> None:
    named = yaml.safe_load((_KUBERNETES / "kustomization.yaml").read_text("utf-8"))["resources"]

    assert sorted(named) == [path.name for path in _MANIFESTS]


def test_every_deployment_is_selected_by_its_own_labels() -> None:
    for path in _MANIFESTS:
        for document in _documents(path):
            if document["kind"] == "Deployment":
                spec = document["spec"]
                assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]


@pytest.mark.parametrize("path", _CONFIGURATIONS, ids=lambda path: path.parent.name)
def test_the_node_takes_the_configuration(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    loaded = config.load(path)

    assert loaded.cluster is not None
    assert loaded.http.bind == "0.0.0.0"


def test_every_part_of_a_cluster_is_deployed_once() -> None:
    compose = yaml.safe_load((_DEPLOY / "compose" / "compose.yaml").read_text("utf-8"))["services"]
    composed = [service["command"] for service in compose.values() if "--parts" in service.get("command", [])]

    for commands in ([each["args"] for each in _containers()], composed):
        parsed = [cli.parser().parse_args(command) for command in commands]
        assert sorted(part for each in parsed for part in each.parts) == sorted(ClusterPart)
        assert {str(each.config) for each in parsed} == {"/etc/dicom-node/dicom-node.yaml"}


def test_the_secrets_of_the_configuration_are_handed_over() -> None:
    compose = yaml.safe_load((_DEPLOY / "compose" / "compose.yaml").read_text("utf-8"))
    text = (_DEPLOY / "compose" / "dicom-node.yaml").read_text("utf-8")
    wanted = {word.removeprefix("credential:") for word in text.split() if word.startswith("credential:")}

    assert wanted == set(compose["services"]["work"]["secrets"])
    assert wanted <= set(compose["secrets"])
