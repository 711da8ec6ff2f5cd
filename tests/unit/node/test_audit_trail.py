"""What a node says at its start and its stop, and what it notices has changed since."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dicom_node import keys, security
from dicom_node.audit.events import Party
from dicom_node.audit.trail import AuditTrail, auditor_of, fingerprints, refusals
from dicom_node.config import Config, Destination
from dicom_node.ledger import Ledger
from dicom_node.spool import Spool
from tests.audit_trails import Sink, Told
from tests.waiting import wait_until


def config(folder: Path, sink: Sink, **changes: Any) -> Config:
    return Config.model_validate(
        {
            "node": {"id": "n", "ae_title": "NODE"},
            "storage": {"folder": folder / "node", "reserve_mb": 16},
            "keys": {"ring": folder / "keyring"},
            "routes": ({"name": "all", "role": "verify"},),
            "audit": {"host": "localhost", "port": sink.port, "transport": "tcp", **changes},
        },
        strict=False,
    )


def one_run(folder: Path, sink: Sink, **changes: Any) -> list[Told]:
    """Start and stop a trail; what it told."""
    made = config(folder, sink, **changes)
    auditor = auditor_of(made, b"salt")
    assert auditor is not None
    before = len(sink.messages)
    ledger = Ledger(made.storage.ledger_path)
    trail = AuditTrail(made, auditor, ledger, Spool(made.storage.spool_dir, 0), None)
    trail.start()
    with security.listening(refusals(auditor)):
        security.tell(security.Occurrence("association-rejected", "unknown-calling-ae", "10.0.0.7", "EVIL"))
    trail.stop()
    ledger.close()
    if sink.listens:
        wait_for_the_end(sink, before)
    return sink.told[before:]


def wait_for_the_end(sink: Sink, before: int = 0) -> None:
    """Until a repository that reads slowly has what comes last, behind so many messages."""
    wait_until(lambda: [each.type for each in sink.told[before:]][-1:] == ["Application Stop"])


def test_without_a_host_there_is_no_trail(scratch: Path) -> None:
    assert auditor_of(config(scratch, Sink(), host=None), b"") is None
    assert not (scratch / "node" / "audit").exists()


def test_a_run_is_told_from_start_to_stop_with_who_was_refused(scratch: Path) -> None:
    with Sink() as sink:
        told = one_run(scratch, sink)
    assert [each.type for each in told] == ["Application Start", "Node Authentication", "Application Stop"]
    assert told[1].users == [("NODE", True), ("EVIL", False)]
    assert told[1].addresses[1] == "10.0.0.7"
    assert told[1].outcome == 8


def test_a_changed_configuration_and_new_keys_are_told_at_the_next_start(scratch: Path) -> None:
    with Sink() as sink:
        one_run(scratch, sink)
        assert [each.type for each in one_run(scratch, sink)].count("Software Configuration") == 0
        keys.generate(scratch / "keyring")
        assert "Security Configuration" in [each.type for each in one_run(scratch, sink)]
        told = [each.type for each in one_run(scratch, sink, enterprise_site="north")]
    assert "Software Configuration" in told
    assert "Security Configuration" not in told


def test_a_reload_is_told_and_names_peers_as_it_does(scratch: Path) -> None:
    with Sink() as sink:
        made = config(scratch, sink)
        auditor = auditor_of(made, b"salt")
        assert auditor is not None
        ledger = Ledger(made.storage.ledger_path)
        trail = AuditTrail(made, auditor, ledger, Spool(made.storage.spool_dir, 0), None)
        trail.start()
        trail.adopt(made)
        vault = Destination(ae_title="VAULT", host="vault.example", port=104)
        trail.adopt(made.model_copy(update={"destinations": {"vault": vault}}))
        known = trail._clerk._site.destinations
        trail.stop()
        ledger.close()
        wait_for_the_end(sink)
    assert known["vault"] == Party("VAULT", "vault.example")
    assert set(known) == {"vault", *made.destinations}
    assert [each.type for each in sink.told].count("Software Configuration") == 1


def test_a_repository_that_is_away_holds_nothing_up_and_is_told_later(scratch: Path) -> None:
    sink = Sink()
    assert one_run(scratch, sink) == []
    with sink:
        told = one_run(scratch, sink)
    assert [each.type for each in told].count("Application Start") == 2


def test_fingerprints_hold_no_secret(scratch: Path) -> None:
    made = config(scratch, Sink())
    before = fingerprints(made)
    keys.generate(scratch / "keyring")
    after = fingerprints(made)
    assert before["configuration"] == after["configuration"]
    assert before["keys"] != after["keys"]
    secret = (scratch / "keyring").read_text().split()[-3]
    assert secret not in str(after)


@pytest.mark.parametrize("policy", ["none", "hash", "id"])
def test_every_policy_can_be_told(scratch: Path, policy: str) -> None:
    with Sink() as sink:
        assert len(one_run(scratch, sink, patient=policy)) == 3
