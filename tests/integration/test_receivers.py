"""A node that receives on two processes: TLS, users and storage commitment work as they do on one."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.presentation import build_context

from dicom_node import committer, service, users
from dicom_node.config import Access, Caller, Tls
from dicom_node.fleet import Receivers
from dicom_node.ledger import Ledger, promises
from dicom_node.metrics import OCCURRENCES
from dicom_node.service import Service
from dicom_node.spool import Spool
from tests.certificates import Authority
from tests.integration.test_over_tls import ECHO, context_of, identity, listening
from tests.integration.test_storage_commitment import Passers
from tests.integration.test_storage_commitment import Site as OneProcess
from tests.unit.node.test_fleet import config
from tests.waiting import wait_until
from tests.wire import CT


class Site(OneProcess):
    """The same node between the same peers, on two processes."""

    def __init__(self, folder: Path, commitment: dict[str, Any]) -> None:
        super().__init__(folder, {}, commitment)
        node = self.config.node.model_copy(update={"receivers": 2})
        self.config = self.config.model_copy(update={"node": node})
        self.service = Service(self.config)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(committer, "POLL_S", 0.05)
    monkeypatch.setattr(promises, "_LOOK_S", (0.1, 0.1))
    monkeypatch.setattr(service, "Workers", Passers)
    made = Site(tmp_path, {"same_association": True})
    made.service.start()
    yield made
    made.service.stop()
    made.modality.stop()
    made.archive.stop()


def test_commitment_is_asked_and_answered(site: Site) -> None:
    """Over a new association; over the same one, which some process has, where there is no other; once."""
    site.send("1.2.1", "1.2.2")
    transaction, status = site.modality.ask("1.2.1", "1.2.2")
    assert status == 0x0000
    wait_until(lambda: site.modality.heard)
    assert site.modality.heard[0][0] == "new"
    assert site.modality.answers(transaction) == [{"1.2.1": 0, "1.2.2": 0}]

    site.modality.stop()
    for number in range(3):
        association = site.modality.associate()
        transaction, _ = site.modality.ask_on(association, "1.2.1")
        wait_until(lambda n=number: len(site.modality.heard) == 2 + n)  # type: ignore[misc]
        association.release()
        assert site.modality.heard[-1][0] == "same"
        assert site.modality.answers(transaction) == [{"1.2.1": 0}]
    receiver = site.service.receiver
    assert (receiver.alive, receiver.listening) == (True, True)


def test_certificates_and_user_names_are_asked_for_and_lockouts_hold_for_all(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("node", "localhost", "127.0.0.1")
    tls = Tls(certificate=issued.certificate, key=issued.key, ca=authority.file)
    modality = context_of(authority, "ct1", "ct1.example")
    file = tmp_path / "users"
    file.write_text(users.entry("ct1", "sesame"))
    file.chmod(0o600)
    callers = (
        Caller(ae_title="MOD1", certificates=("ct1.example",), users=("ct1",)),
        Caller(ae_title="MOD2", certificates=("ct1.example",)),
        Caller(ae_title="MOD3", certificates=("mr1.example",)),
    )
    made = listening(config(tmp_path / "node"), tls, access=Access(callers=callers, users=file))
    Spool(made.storage.spool_dir, 0)
    ledger = Ledger(made.storage.ledger_path)
    receivers = Receivers(made, ledger, on_arrival=lambda: None, on_queued=lambda _name: None)
    receivers.start()

    def asked(calling: str, passcode: str | None = None) -> bool:
        return _is_let_in(receivers.tls_port, modality, calling, passcode)

    try:
        assert asked("MOD1", "sesame")
        assert asked("MOD2")
        assert not asked("MOD3")
        assert not asked("MOD1")
        assert [asked("MOD1", "guess") for _ in range(users.FAILURES)] == [False] * users.FAILURES
        assert [asked("MOD1", "sesame") for _ in range(4)] == [False] * 4, "by none of them"
        # each process writes down by and by what it has counted
        wait_until(lambda: _told(ledger, "user-identity-locked") == 4)
        wait_until(lambda: _told(ledger, "user-identity-refused") == users.FAILURES)
        wait_until(lambda: _told(ledger, "certificate-not-allowed") == 1)
    finally:
        receivers.stop(1.0)
        ledger.close()


def _is_let_in(port: int | None, context: ssl.SSLContext, calling: str, passcode: str | None) -> bool:
    assert port is not None
    entity = AE(ae_title=calling)
    entity.acse_timeout = entity.network_timeout = 60
    association = entity.associate(
        "127.0.0.1",
        port,
        contexts=[build_context(ECHO), build_context(CT)],
        tls_args=(context, "localhost"),
        ext_neg=[] if passcode is None else [identity("ct1", passcode)],
    )
    if not association.is_established:
        return False
    assert association.send_c_echo().Status == 0x0000
    association.release()
    time.sleep(0.05)
    return True


def _told(ledger: Ledger, reason: str) -> float:
    return ledger.snapshot().total(OCCURRENCES, "association-rejected", reason)
