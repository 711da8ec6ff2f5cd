"""What is declared is exported, what is exported is declared, and the figures are the ledger's."""

from __future__ import annotations

import re
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest

from dicom_node import metrics
from dicom_node.metrics import (
    CommitmentTally,
    DeliveryTally,
    InstanceTally,
    LedgerCollector,
    NetworkRun,
    PromiseTally,
    QueueAge,
    Snapshot,
)

_SNAPSHOT = Snapshot(
    instances=(InstanceTally("ready", "protected", "", 5), InstanceTally("held", "held", "no-room", 1)),
    deliveries=(
        DeliveryTally("pacs", "delivered", 4, 6),
        DeliveryTally("pacs", "queued", 1, 3),
        DeliveryTally("vna", "dead", 2, 6),
    ),
    ages=(QueueAge("pacs", 12.5),),
    oldest_unprocessed_s=3.0,
    repeats=7,
    conflicts=8,
    lost=9,
    purged_attempts=(("pacs", 100), ("old", 5)),
    paused=("vna",),
    commitments=(CommitmentTally("pacs", "asked", 3), CommitmentTally("pacs", "committed", 1)),
    commitment_ages=(QueueAge("pacs", 99.5),),
    promises=(PromiseTally("reported", "partly", 2), PromiseTally("waiting", "", 1)),
    oldest_promise_s=4.0,
)


@dataclass
class Source:
    asked: int = 0
    networks = (
        NetworkRun("vessels/1-0123456789ab", "tensorflow", "ok"),
        NetworkRun("vessels/1-0123456789ab", "numpy", "differs"),
        NetworkRun("vessels/1-0123456789ab", "tensorflow", "ok"),
    )

    def snapshot(self) -> Snapshot:
        self.asked += 1
        return _SNAPSHOT

    def results(self) -> dict[tuple[str, str], int]:
        return {("pacs", "delivered"): 4, ("vna", "refused"): 6}

    def verdicts(self) -> dict[tuple[str, str], int]:
        return {("back", "authentic"): 11, ("back", "wrong-key"): 12}

    def down_s(self) -> dict[str, float]:
        return {"vna": 60.0}

    def closed(self) -> list[str]:
        return ["pacs"]

    def failed_over(self) -> list[str]:
        return ["vna"]

    def used_bytes(self) -> int:
        return 1000

    def free_bytes(self) -> int:
        return 2000


def scrape(source: Source) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(LedgerCollector(source, source, source, source))
    assert source.asked == 0, "registering must not open the database"
    text = generate_latest(registry).decode()
    samples = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in samples}


def test_figures_are_those_of_ledger_and_spool() -> None:
    assert scrape(Source()) == {
        'dicom_node_instances{reason="",result="protected",state="ready"}': 5,
        'dicom_node_instances{reason="no-room",result="held",state="held"}': 1,
        'dicom_node_deliveries{destination="pacs",state="delivered"}': 4,
        'dicom_node_deliveries{destination="pacs",state="queued"}': 1,
        'dicom_node_deliveries{destination="vna",state="dead"}': 2,
        'dicom_node_delivery_attempts_total{destination="pacs"}': 109,
        'dicom_node_delivery_attempts_total{destination="old"}': 5,
        'dicom_node_destination_paused{destination="vna"}': 1,
        'dicom_node_delivery_attempts_total{destination="vna"}': 6,
        'dicom_node_queue_oldest_seconds{destination="pacs"}': 12.5,
        "dicom_node_unprocessed_oldest_seconds": 3,
        "dicom_node_repeated_arrivals_total": 7,
        "dicom_node_conflicting_arrivals_total": 8,
        "dicom_node_lost_leases_total": 9,
        'dicom_node_delivery_results_total{destination="pacs",result="delivered"}': 4,
        'dicom_node_delivery_results_total{destination="vna",result="refused"}': 6,
        'dicom_node_verdicts_total{finding="authentic",route="back"}': 11,
        'dicom_node_verdicts_total{finding="wrong-key",route="back"}': 12,
        'dicom_node_destination_down_seconds{destination="vna"}': 60,
        'dicom_node_destination_closed{destination="pacs"}': 1,
        'dicom_node_destination_failed_over{destination="vna"}': 1,
        'dicom_node_network_workers{engine="tensorflow",network="vessels/1-0123456789ab",outcome="ok"}': 2,
        'dicom_node_network_workers{engine="numpy",network="vessels/1-0123456789ab",outcome="differs"}': 1,
        'dicom_node_commitments{destination="pacs",state="asked"}': 3,
        'dicom_node_commitments{destination="pacs",state="committed"}': 1,
        'dicom_node_commitment_oldest_seconds{destination="pacs"}': 99.5,
        'dicom_node_commitment_requests{result="partly",state="reported"}': 2,
        'dicom_node_commitment_requests{result="",state="waiting"}': 1,
        "dicom_node_commitment_request_oldest_seconds": 4,
        "dicom_node_spool_bytes": 1000,
        "dicom_node_spool_free_bytes": 2000,
    }


def test_what_is_collected_is_what_is_declared() -> None:
    source = Source()
    collected = [family.name for family in LedgerCollector(source, source, source, source).collect()]
    assert collected == [declaration.name for declaration in metrics.DECLARATIONS]
    assert len(set(collected)) == len(collected)


def test_names_follow_the_rules_of_prometheus() -> None:
    for declaration in metrics.DECLARATIONS:
        assert re.fullmatch(r"dicom_node_[a-z_]+", declaration.name)
        assert declaration.name.endswith(declaration.unit)
        assert not declaration.name.endswith("_total")
        assert declaration.help.endswith(".")


def test_every_scrape_asks_again() -> None:
    source = Source()
    collector = LedgerCollector(source, source, source, source)
    list(collector.collect())
    list(collector.collect())
    assert source.asked == 2
