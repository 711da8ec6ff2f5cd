"""Every action of a node is one message at the audit repository, valid by the standard's schema, in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.presentation import build_context

from benchmarks.stand import free_port
from blessmark.payload.record import FULL_FIELDS
from blessmark.segment import segmenter
from dicom_node import keys
from dicom_node.config import Config
from dicom_node.keys import FileKeyRing
from dicom_node.protect import Site, protect
from dicom_node.service import Service
from tests.audit_trails import Sink, Told
from tests.builders import file_bytes, mr
from tests.certificates import Authority
from tests.integration.test_store_and_forward import Archive
from tests.waiting import wait_until

SYNTAX = uid.ExplicitVRLittleEndian
CONTEXT = build_context(uid.MRImageStorage, SYNTAX)
#: of one patient, in one study
STUDY, PATIENT = "1.2.826.0.1.3680043.9.1", "P-4711"


class Keeper(Archive):
    """An archive for MR images that can be told to refuse them."""

    contexts = (CONTEXT,)
    status = 0x0000

    def _store(self, event: Any) -> int:
        return self.status or super()._store(event)


@pytest.fixture
def archive() -> Iterator[Keeper]:
    made = Keeper(free_port())
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keyring"
    keys.generate(path)
    return path


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    """A repository over TLS that asks for a certificate; what the node needs lies in `tmp_path`."""
    authority = Authority(tmp_path)
    authority.issue("node", "localhost")
    with Sink(authority.issue("repository", "localhost"), authority.file) as made:
        yield made


def config(folder: Path, ring: Path, to: int, sink: Sink, **route: object) -> Config:
    return Config.model_validate(
        {
            "node": {"id": "n1", "ae_title": "NODE", "bind": "127.0.0.1", "port": free_port()},
            "storage": {"folder": folder / "node", "reserve_mb": 16},
            "keys": {"ring": ring},
            "workers": {"count": 1},
            # altered pixels have every network drawn, and what draws them is proven elsewhere
            "networks": {"engine": "numpy"},
            "destinations": {
                "pacs": {
                    "ae_title": "PACS",
                    "host": "127.0.0.1",
                    "port": to,
                    "timeout_s": 60.0,
                    "associations": 1,
                    "retry": {"first_s": 0.2, "cap_s": 0.5, "refusals": 1},
                }
            },
            "routes": (
                {"name": "all", "match": {"calling_ae": ("MODALITY",)}, "destinations": ("pacs",), **route},
            ),
            "http": {"port": None},
            "audit": {
                "host": "localhost",
                "port": sink.port,
                "aggregate_s": 3600.0,
            },
            "tls": {
                "ca": folder / "ca.pem",
                "certificate": folder / "node.pem",
                "key": folder / "node.key",
            },
        },
        strict=False,
    )


def image(number: int, **attributes: Any) -> Dataset:
    return mr(
        128,
        96,
        seed=number,
        **{
            "StudyInstanceUID": STUDY,
            "PatientID": PATIENT,
            "PatientName": "Audited^Person",
            "SOPInstanceUID": f"{STUDY}.{number}",
            **attributes,
        },
    )


def send(service: Service, folder: Path, *images: Dataset | bytes, calling: str = "MODALITY") -> list[int]:
    """Send data sets in one association; the statuses, or none where it was refused."""
    association = AE(ae_title=calling).associate("127.0.0.1", service.receiver.port, contexts=[CONTEXT])
    if not association.is_established:
        return []
    statuses = []
    for number, each in enumerate(images):
        path = folder / f"sent-{number}.dcm"
        path.write_bytes(each if isinstance(each, bytes) else file_bytes(each))
        statuses.append(int(association.send_c_store(path).Status))
    association.release()
    return statuses


def only(told: list[Told], event: str, **facts: object) -> Told:
    """The one message about an event."""
    found = [each for each in told if event in (each.event, each.type)]
    found = [each for each in found if all(getattr(each, name) == value for name, value in facts.items())]
    assert len(found) == 1, [each.short for each in told]
    return found[0]


def run(folder: Path, made: Config, act: Any) -> None:
    service = Service(made)
    service.start()
    try:
        act(service)
    finally:
        service.stop()


def test_a_study_that_is_protected_and_sent(tmp_path: Path, ring: Path, sink: Sink, archive: Keeper) -> None:
    def act(service: Service) -> None:
        assert send(service, tmp_path, image(1), image(2), image(3)) == [0, 0, 0]
        wait_until(lambda: len(archive.data_sets) == 3)
        wait_until(lambda: service.ledger.counts().deliveries["delivered"] == 3)

    run(tmp_path, config(tmp_path, ring, archive.port, sink, role="protect"), act)
    told = sink.wait_for(6)
    assert [each.short for each in told] == [
        ("Application Start", "E", 0),
        ("DICOM Instances Transferred", "C", 0),
        ("DICOM Instances Accessed", "U", 0),
        ("Begin Transferring DICOM Instances", "E", 0),
        ("DICOM Instances Transferred", "C", 0),
        ("Application Stop", "E", 0),
    ]
    came, embedded, _, went = told[1:5]
    assert came.users == [("MODALITY", True), ("ANY-SCP", False)]
    assert came.addresses[0] == "127.0.0.1"
    assert went.users == [("NODE", True), ("PACS", False)]
    assert {came.instances, embedded.instances, went.instances} == {3}
    assert all(each.things["Study Instance UID"] == STUDY for each in (came, embedded, went))
    assert {(each.pri, each.message_id) for each in told} == {(85, "DICOM+RFC3881")}
    assert not any(secret in b"".join(sink.messages) for secret in (b"4711", b"Audited"))


def test_what_a_destination_refuses(tmp_path: Path, ring: Path, sink: Sink, archive: Keeper) -> None:
    archive.status = 0xA900

    def act(service: Service) -> None:
        send(service, tmp_path, image(1))
        wait_until(lambda: service.ledger.counts().deliveries["dead"] == 1)

    run(tmp_path, config(tmp_path, ring, archive.port, sink, role="pass"), act)
    failed = only(sink.wait_for(5), "DICOM Instances Transferred", outcome=8)
    assert failed.users == [("NODE", True), ("PACS", False)]
    assert failed.why == "status-a900"


def test_what_the_node_refuses(tmp_path: Path, ring: Path, sink: Sink, archive: Keeper) -> None:
    def act(service: Service) -> None:
        cut_off = file_bytes(image(1))[:-500]
        for _ in range(3):
            assert send(service, tmp_path, cut_off) == [0xC000]

    run(tmp_path, config(tmp_path, ring, archive.port, sink, role="pass"), act)
    told = sink.wait_for(3)
    assert [each.short for each in told][1:-1] == [("DICOM Instances Transferred", "C", 8)] * 2
    assert [each.instances for each in told[1:-1]] == [1, 2]
    assert told[1].users[0] == ("MODALITY", True)


def test_who_is_not_let_in(tmp_path: Path, ring: Path, sink: Sink, archive: Keeper) -> None:
    def act(service: Service) -> None:
        assert send(service, tmp_path, image(1), calling="STRANGER") == []

    run(tmp_path, config(tmp_path, ring, archive.port, sink, role="pass"), act)
    refused = only(sink.wait_for(3), "Node Authentication")
    assert (refused.event, refused.outcome) == ("Security Alert", 8)
    assert refused.users == [("NODE", True), ("STRANGER", False)]
    assert "unknown-calling-ae" in refused.described


@pytest.mark.parametrize(
    ("role", "tampered"),
    [("verify", True), ("recover", False), pytest.param("recover", True, marks=pytest.mark.slow)],
)
def test_what_was_marked_is_judged_or_given_back(
    tmp_path: Path, ring: Path, sink: Sink, archive: Keeper, role: str, tampered: bool
) -> None:
    marked = image(1)
    protect(marked, Site("n0", FileKeyRing.load(ring), segmenter("anatomy"), FULL_FIELDS), 1_790_000_000)
    if tampered:
        samples = bytearray(marked.PixelData)
        samples[40 * 96 * 2 : 56 * 96 * 2] = bytes(16 * 96 * 2)
        marked.PixelData = bytes(samples)
    content = file_bytes(marked)

    def act(service: Service) -> None:
        assert send(service, tmp_path, content) == [0]
        wait_until(lambda: service.ledger.counts().idle)

    run(tmp_path, config(tmp_path, ring, archive.port, sink, role=role), act)
    held = role == "recover" and tampered
    told = sink.wait_for(4 + tampered + (role == "recover" and not tampered) + 2 * (not held))
    accessed = only(told, "DICOM Instances Accessed")
    assert (accessed.action, accessed.outcome) == ("R" if role == "verify" else "U", 4 if held else 0)
    alerts = [each.type for each in told if each.event == "Security Alert"]
    if tampered:
        assert alerts == ["Object Security Attributes Changed"]
        assert "the watermark says" in only(told, "Security Alert").described
    else:
        assert alerts == ([] if role == "verify" else ["Use of Restricted Function"])


def test_a_repository_that_was_away_over_restarts_is_told_everything_in_order(
    tmp_path: Path, ring: Path, sink: Sink, archive: Keeper
) -> None:
    sink.stop()
    made = config(tmp_path, ring, archive.port, sink, role="pass")
    for number in range(3):

        def act(service: Service, number: int = number) -> None:
            assert send(service, tmp_path, image(number, StudyInstanceUID=f"1.2.{number}")) == [0]
            wait_until(lambda: service.ledger.counts().deliveries["delivered"] == number + 1)

        run(tmp_path, made, act)
    assert sink.messages == []
    sink.start()
    run(tmp_path, made, lambda service: sink.wait_for_bytes(16))
    told = sink.wait_for(17)
    starts = [each.type for each in told if each.event == "Application Activity"]
    assert starts == ["Application Start", "Application Stop"] * 4
    studies = [each.things["Study Instance UID"] for each in told if each.action == "C"]
    assert studies == [f"1.2.{number}" for number in (0, 0, 1, 1, 2, 2)]
