"""The manifests of a cluster, read by those that they are for: kubectl, docker-compose, HAProxy."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.interop

_ROOT = Path(__file__).resolve().parents[2]
_DEPLOY, _INSTALLER = _ROOT / "deploy", _ROOT / "tools" / "install_peers.sh"


def _run(program: str, package: str, *arguments: str | Path) -> str:
    if shutil.which(program) is None:
        subprocess.run(["sh", _INSTALLER, package], check=True, timeout=600)
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kubectl_puts_the_manifests_together() -> None:
    made = list(yaml.safe_load_all(_run("kubectl", "kubernetes-client", "kustomize", _DEPLOY / "kubernetes")))

    kinds = [document["kind"] for document in made]
    assert kinds.count("Deployment") == 4
    configuration = next(document for document in made if document["kind"] == "ConfigMap")
    mounted = {
        volume["configMap"]["name"]
        for document in made
        if document["kind"] == "Deployment"
        for volume in document["spec"]["template"]["spec"]["volumes"]
        if "configMap" in volume
    }
    assert mounted == {configuration["metadata"]["name"]}


def test_docker_compose_reads_the_services() -> None:
    path = _DEPLOY / "compose" / "compose.yaml"

    made = yaml.safe_load(_run("docker-compose", "docker-compose", "-f", path, "config"))

    assert {"receive", "work", "forward", "lead", "database", "broker", "objects"} <= set(made["services"])


def test_haproxy_takes_its_configuration() -> None:
    _run("haproxy", "haproxy", "-c", "-f", _DEPLOY / "compose" / "haproxy.cfg")
