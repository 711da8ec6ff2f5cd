"""The page, the rules and the dashboard as a real Prometheus reads them."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.stand import Node, Peer, Setup, free_port, objects
from benchmarks.witnesses import Archive, Modality
from tests.architecture.repository import ROOT
from tests.interop.peers import process, wait_until
from tools import make_dashboard

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(shutil.which("promtool") is None, reason="Debian's prometheus is not installed"),
]

_MONITORING = ROOT / "monitoring"
#: what a node has only when something is wrong, or switched on
_MAY_BE_EMPTY = (
    "dicom_node_destination_",
    "dicom_node_security_",
    "dicom_node_verdicts_",
    "dicom_node_certificate_",
    "dicom_node_commitment",
    "dicom_node_network_workers",
    # of machines in a cluster only
    "dicom_node_broker_connected",
    "dicom_node_leading",
    "dicom_node_unprotected",
    "dicom_node_instances",
    'status!="0000"',
    'result!~"delivered|warning"',
)


@dataclass(frozen=True)
class Site:
    """A node under load, and the Prometheus that scrapes it every second."""

    node: Node
    port: int

    def ask(self, path: str, **query: str) -> Any:
        address = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=30) as answer:
            said = json.load(answer)
        assert said["status"] == "success"
        return said["data"]

    def value(self, expression: str) -> list[Any]:
        return list(self.ask("query", query=expression)["result"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("prometheus")
    paths = objects(folder / "in", 24, edge=128)
    archive = Archive(free_port()).start()
    # nobody listens there, so there is a trail that waits
    audit = {"audit": {"host": "127.0.0.1", "port": free_port(), "transport": "tcp"}}
    setup = Setup({"archive": Peer(archive.port)}, "protect", workers=1, receivers=2, sections=audit)
    node = Node(folder / "node", setup).start()
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(_MONITORING / name) for name in ("recording.yml", "alerts.yml")],
        "scrape_configs": [
            {"job_name": "dicom-node", "static_configs": [{"targets": [f"127.0.0.1:{node.http_port}"]}]}
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = (
        "/usr/bin/prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )
    try:
        with process(*command, log=folder / "prometheus.log"):
            made = Site(node, port)
            wait_until(lambda: _scraped(made), 30, "the first scrape")
            for part in (paths[:8], paths[8:16], paths[16:]):
                modality = Modality(node.port, part)
                modality.start()
                modality.join(60)
                time.sleep(1.2)
            wait_until(lambda: node.metric("dicom_node_deliveries", state="delivered") == 24, 60, "delivery")
            wait_until(
                lambda: bool(made.value("dicom_node:delivery_delay_seconds:p95_rate1h >= 0")), 60, "rules"
            )
            yield made
    finally:
        node.kill()
        archive.stop()


def _scraped(site: Site) -> bool:
    try:
        return bool(site.value('up{job="dicom-node"} == 1'))
    except OSError:
        return False


def test_the_page_has_nothing_that_promtool_minds(site: Site) -> None:
    page = site.node.page("/metrics")[1]
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, text=True, check=False, timeout=60
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_prometheus_counts_what_the_node_counts(site: Site) -> None:
    for name, expected in (
        ('dicom_node_store_requests_total{peer="other",status="0000"}', 24),
        ("sum(dicom_node_processed_instances_total)", 24),
        ('dicom_node_delivery_results_total{destination="archive",result="delivered"}', 24),
        ("sum(dicom_node_embedding_psnr_decibels_count)", 24),
        ('dicom_node_stage_seconds_count{stage="send"}', 24),
    ):
        wait_until(lambda n=name, e=expected: _number(site, n) == e, 20, f"{name} is {expected}")


def _number(site: Site, expression: str) -> float:
    (sample,) = site.value(expression)
    return float(sample["value"][1])


def test_every_rule_is_evaluated_without_an_error(site: Site) -> None:
    rules = [rule for group in site.ask("rules")["groups"] for rule in group["rules"]]
    assert len(rules) > 25
    assert [
        (rule["name"], rule["health"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"
    ] == []


@pytest.mark.parametrize("expression", make_dashboard.expressions())
def test_every_picture_of_the_dashboard_shows_something(site: Site, expression: str) -> None:
    found = site.value(expression.replace("$instance", ".*"))
    assert found or any(part in expression for part in _MAY_BE_EMPTY)


def test_a_healthy_node_raises_nothing(site: Site) -> None:
    raised = site.ask("alerts")["alerts"]
    assert [alert["labels"]["alertname"] for alert in raised if alert["state"] == "firing"] == []


@pytest.mark.parametrize("name", ["recording.yml", "alerts.yml"])
def test_promtool_takes_the_rules(name: str) -> None:
    command = ["promtool", "check", "rules", str(_MONITORING / name)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_is_raised_when_it_should_be_and_else_silent() -> None:
    command = ["promtool", "test", "rules", "alerts_test.yml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=_MONITORING)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_test_of_the_alerts_can_fail(tmp_path: Path) -> None:
    for path in _MONITORING.glob("*.yml"):
        (tmp_path / path.name).write_text(path.read_text("utf-8").replace("> 900", "> 90000"), "utf-8")
    command = ["promtool", "test", "rules", "alerts_test.yml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)
    assert done.returncode != 0
