"""What is declared is exported, what is exported is declared, and the figures are those of the parts."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest

import blessmark.types
from dicom_node import keys, metrics
from dicom_node.audit.store import Store
from dicom_node.config import Config
from dicom_node.errors import LedgerUnavailable
from dicom_node.exporter import Exporter, Parts, Standing
from dicom_node.ledger import Ledger
from dicom_node.metrics import CAPACITY, STAGE_SECONDS, STORES, NetworkRun, Reading
from dicom_node.reloading import Reloads
from tests.certificates import Authority
from tests.ledgers import Clock, arrival, blob, outcome, send, work


def config(folder: Path, **sections: Any) -> Config:
    return Config.model_validate(
        {
            "node": {"id": "n", "ae_title": "NODE"},
            "storage": {"folder": folder},
            "keys": {"ring": folder / "ring"},
            "destinations": {
                name: {"ae_title": name.upper(), "host": "127.0.0.1", "port": 104} for name in ("pacs", "vna")
            },
            "routes": (
                {
                    "name": "ct",
                    "match": {"calling_ae": ("CT1", "MR*")},
                    "role": "protect",
                    "destinations": ("pacs", "vna"),
                },
                {"name": "back", "match": {"calling_ae": ("WS",)}, "role": "verify"},
                {"name": "rest", "role": "pass", "destinations": ("pacs",)},
            ),
        }
        | sections,
        strict=False,
    )


class Node:
    """Every part that an exporter asks but the ledger."""

    configured, alive, ready = 3, 2, 1
    open_associations = 4
    spool_bytes: int | None = 1000
    named_pids: Mapping[str, int] = {"worker-0": os.getpid(), "worker-1": 2**22 + 1}
    networks = (
        NetworkRun("vessels/1-0123456789ab", "tensorflow", "ok"),
        NetworkRun("vessels/1-0123456789ab", "numpy", "differs"),
        NetworkRun("vessels/1-0123456789ab", "tensorflow", "ok"),
    )

    def __init__(self, made: Config, book: Ledger) -> None:
        node = cast(Any, self)
        self.standing = Standing(node, None, True, None)
        self.parts = Parts(
            made, book, *(node for _ in range(4)), self.checks, Reloads(), None, lambda: self.standing
        )

    def checks(self) -> dict[str, bool]:
        return {"spool": False, "ledger": True}

    def closed(self) -> list[str]:
        return ["pacs"]

    def failed_over(self) -> list[str]:
        return ["vna"]

    def free_bytes(self) -> int:
        return 2000

    def page(self) -> dict[str, float]:
        registry = CollectorRegistry()
        registry.register(Exporter(self.parts))
        text = generate_latest(registry).decode()
        samples = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in samples}


@pytest.fixture
def node(tmp_path: Path, book: Ledger) -> Node:
    return Node(config(tmp_path), book)


def test_what_is_collected_is_what_is_declared(node: Node) -> None:
    collected = [family.name for family in Exporter(node.parts).collect()]
    assert collected == [declaration.name for declaration in metrics.DECLARATIONS]


def test_registering_asks_nobody(tmp_path: Path) -> None:
    made = Parts(config(tmp_path), *(cast(Any, None) for _ in range(9)))
    assert [family.name for family in Exporter(made).describe()] == [
        declaration.name for declaration in metrics.DECLARATIONS
    ]


def test_figures_are_those_of_the_ledger(node: Node, book: Ledger, clock: Clock) -> None:
    held = send(book)
    clock.now += 5
    book.retry(held, clock.now + 100, "no-answer", result="silent")
    book.add(arrival("1.9"), blob("9"), 1, [Reading(STORES, ("CT1", "0000"))])
    book.add(arrival("1.9"), blob("9"), 1, [Reading(STORES, ("CT1", "0000"))])
    book.add(arrival("1.9"), blob("10"), 1)
    book.went_down("vna", clock.now - 60)
    book.pause("vna")
    clock.now += 2
    page = node.page()
    assert page['dicom_node_instances{reason="",result="protected",state="ready"}'] == 1
    assert page['dicom_node_instances{reason="",result="",state="received"}'] == 2
    assert page["dicom_node_unprocessed_oldest_seconds"] == 2
    assert page['dicom_node_deliveries{destination="pacs",state="queued"}'] == 1
    assert page['dicom_node_queue_oldest_seconds{destination="pacs"}'] == 7
    assert page['dicom_node_queue_oldest_seconds{destination="vna"}'] == 0
    assert page['dicom_node_delivery_attempts_total{destination="pacs"}'] == 1
    assert page['dicom_node_delivery_results_total{destination="pacs",result="silent"}'] == 1
    assert page['dicom_node_store_requests_total{peer="CT1",status="0000"}'] == 2
    assert page["dicom_node_repeated_arrivals_total"] == 1
    assert page["dicom_node_conflicting_arrivals_total"] == 1
    assert page['dicom_node_destination_down_seconds{destination="vna"}'] == 62
    assert page['dicom_node_destination_paused{destination="vna"}'] == 1


def test_figures_are_those_of_the_living_parts(node: Node) -> None:
    page = node.page()
    assert page["dicom_node_open_associations"] == 4
    assert page['dicom_node_destination_closed{destination="pacs"}'] == 1
    assert page['dicom_node_destination_failed_over{destination="vna"}'] == 1
    assert page["dicom_node_spool_bytes"] == 1000
    assert page["dicom_node_spool_free_bytes"] == 2000
    assert page["dicom_node_spool_reserve_bytes"] == node.parts.config.storage.reserve_bytes
    assert [
        page[f'dicom_node_workers{{state="{state}"}}'] for state in ("configured", "running", "ready")
    ] == [
        3,
        2,
        1,
    ]
    assert page['dicom_node_worker_resident_memory_bytes{worker="worker-0"}'] > 1e6
    assert page['dicom_node_worker_cpu_seconds_total{worker="worker-0"}'] > 0
    assert not any('worker="worker-1"' in name for name in page), "it is gone"
    network = 'network="vessels/1-0123456789ab"'
    assert page[f'dicom_node_network_workers{{engine="tensorflow",{network},outcome="ok"}}'] == 2
    assert page[f'dicom_node_network_workers{{engine="numpy",{network},outcome="differs"}}'] == 1
    assert page['dicom_node_problem{problem="spool"}'] == 1
    assert page['dicom_node_problem{problem="ledger"}'] == 0
    assert sum(value for name, value in page.items() if name.startswith("dicom_node_build_info")) == 1


def test_a_spool_that_nobody_has_weighed_yet_has_no_weight(node: Node) -> None:
    node.spool_bytes = None
    assert "dicom_node_spool_bytes" not in node.page()


def test_what_the_configuration_names_is_there_from_the_start(node: Node) -> None:
    page = node.page()
    for peer in ("CT1", "MR*", "WS", "other"):
        assert page[f'dicom_node_store_requests_total{{peer="{peer}",status="0000"}}'] == 0
        assert page[f'dicom_node_store_requests_total{{peer="{peer}",status="a700"}}'] == 0
        assert page[f'dicom_node_associations_total{{peer="{peer}",reason="",result="accepted"}}'] == 0
        reason = "unknown-called-ae"
        assert (
            page[f'dicom_node_associations_total{{peer="{peer}",reason="{reason}",result="rejected"}}'] == 0
        )
    for stage in metrics.STAGES:
        assert page[f'dicom_node_stage_seconds_count{{stage="{stage}"}}'] == 0
    for name in ("pacs", "vna"):
        assert page[f'dicom_node_deliveries{{destination="{name}",state="dead"}}'] == 0
        assert page[f'dicom_node_delivery_results_total{{destination="{name}",result="delivered"}}'] == 0
        assert page[f'dicom_node_delivery_delay_seconds_count{{destination="{name}"}}'] == 0
    for finding in ("authentic", "not-judged", *blessmark.types.Finding):
        assert page[f'dicom_node_verdicts_total{{finding="{finding}",route="back"}}'] == 0
    assert not any("dicom_node_verdicts" in name and 'route="ct"' in name for name in page)
    assert page["dicom_node_embedding_psnr_decibels_count"] == 0
    assert page["dicom_node_lost_leases_total"] == 0


def test_a_bucket_holds_those_below_it(node: Node, book: Ledger) -> None:
    for seconds in (0.0005, 0.02, 0.02, 400.0):
        book.count_soon(Reading(STAGE_SECONDS, ("embed",), seconds))
    book.count_soon(Reading(CAPACITY, (), 5000.0))
    page = node.page()
    shown = {
        le: page[f'dicom_node_stage_seconds_bucket{{le="{le}",stage="embed"}}']
        for le in ("0.001", "0.01", "0.025", "300.0", "+Inf")
    }
    assert shown == {"0.001": 1, "0.01": 1, "0.025": 3, "300.0": 3, "+Inf": 4}
    assert page['dicom_node_stage_seconds_count{stage="embed"}'] == 4
    assert page['dicom_node_stage_seconds_sum{stage="embed"}'] == pytest.approx(400.0405)
    assert page['dicom_node_embedding_capacity_bytes_bucket{le="8192.0"}'] == 1


def test_what_an_older_version_counted_under_other_bounds_is_not_lost(node: Node, book: Ledger) -> None:
    with book._writing() as connection:
        connection.exec_driver_sql(
            "INSERT INTO tallies VALUES ('dicom_node_embedding_capacity_bytes', '[]', '3000.0', 6)"
        )
    page = node.page()
    assert page['dicom_node_embedding_capacity_bytes_bucket{le="2048.0"}'] == 0
    assert page['dicom_node_embedding_capacity_bytes_bucket{le="4096.0"}'] == 6
    assert page["dicom_node_embedding_capacity_bytes_count"] == 6


def test_nothing_is_shown_that_is_not_on_disk(
    node: Node, book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a counter would fall when the process is killed, and `rate` would take that for a new start."""
    name = 'dicom_node_store_requests_total{peer="CT1",status="a900"}'
    book.count_soon(Reading(STORES, ("CT1", "a900")))

    def refuse() -> None:
        raise LedgerUnavailable("full")

    with monkeypatch.context() as patched:
        patched.setattr(book, "settle", refuse)
        assert name not in node.page()
    assert node.page()[name] == 1
    assert book.snapshot().total(STORES, "CT1", "a900") == 1


def test_the_key_has_an_age_where_a_route_needs_one(node: Node, tmp_path: Path, book: Ledger) -> None:
    assert not any("key_created" in name for name in node.page()), "there is no ring"
    keys.generate(tmp_path / "ring")
    keys.generate(tmp_path / "ring")
    page = node.page()
    assert page['dicom_node_key_created_timestamp_seconds{key="2"}'] > 1.7e9
    assert not any('key="1"' in name for name in page)
    passing = Node(config(tmp_path, routes=({"name": "a", "role": "pass", "destinations": ("pacs",)},)), book)
    assert not any("key_created" in name for name in passing.page())


def test_what_tls_needs_says_when_it_runs_out(tmp_path: Path, book: Ledger) -> None:
    authority = Authority(tmp_path / "authority")
    own = authority.issue("node", "127.0.0.1", days=10)
    tls = {
        "certificate": own.certificate,
        "key": own.key,
        "ca": authority.file,
        "crl": authority.crl(),
    }
    page = Node(config(tmp_path, tls=tls), book).page()
    ends = {
        file: page[f'dicom_node_certificate_end_timestamp_seconds{{file="{file}"}}']
        for file in ("certificate", "ca", "crl")
    }
    assert 9.9 < (ends["certificate"] - time.time()) / 86400 < 10.1
    assert 6.9 < (ends["crl"] - time.time()) / 86400 < 7.1
    assert ends["ca"] > time.time()
    own.certificate.unlink()
    assert not any("certificate_end" in name for name in Node(config(tmp_path, tls=tls), book).page())


def test_ten_thousand_hostile_titles_add_one_label(tmp_path: Path, book: Ledger) -> None:
    made = config(tmp_path)
    node = Node(made, book)
    before = len(node.page())
    for number in range(10_000):
        title = f'{number:x}"}}\n\x00{number}'[:16]
        book.count_soon(Reading(STORES, (made.peer(title), "0122")))
    assert len(node.page()) == before + 1
    assert node.page()['dicom_node_store_requests_total{peer="other",status="0122"}'] == 10_000


def test_a_page_grows_with_the_labels_and_not_with_the_rows(node: Node, book: Ledger) -> None:
    before = len(node.page())
    for number in range(30):
        book.finish(work(book, f"1.{number}"), outcome("pacs", uid=f"2.{number}"))
    grown = set(node.page())
    assert len(grown) == before + 1, "instances that are ready"


def test_how_far_the_audit_trail_is_behind(node: Node, tmp_path: Path) -> None:
    assert "dicom_node_audit_messages_waiting" not in node.page()
    store = Store(tmp_path / "audit", 100)
    store.put([b"one", b"two"])
    store.note(lost=7)
    node.parts = replace(node.parts, auditor=cast(Any, SimpleNamespace(store=store)))
    page = node.page()
    assert page["dicom_node_audit_messages_waiting"] == 2
    assert page["dicom_node_audit_events_lost"] == 7


def test_how_the_last_reload_ended(node: Node) -> None:
    assert node.page()["dicom_node_config_last_reload_successful"] == 1
    node.parts.reloads.failed()
    assert node.page()["dicom_node_config_last_reload_successful"] == 0
