"""A dry run finds what would not work, all of it, and changes nothing."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from benchmarks.stand import free_port
from dicom_node import dry_run, keys, signers, stores
from dicom_node.config import Config
from dicom_node.dimse.probe import Answer
from dicom_node.dry_run import Found, Grade
from dicom_node.errors import PeerError
from dicom_node.ledger import Ledger


def config(folder: Path, **sections: Any) -> Config:
    return Config.model_validate(
        {
            "node": {"id": "n", "ae_title": "NODE", "bind": "127.0.0.1", "port": free_port()},
            "storage": {"folder": folder / "state", "reserve_mb": 16},
            "keys": {"ring": folder / "keyring"},
            "destinations": {"pacs": {"ae_title": "PACS", "host": "localhost", "port": 104}},
            "routes": ({"name": "all", "role": "protect", "destinations": ("pacs",)},),
            "http": {"port": None},
        }
        | sections,
        strict=False,
    )


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> dict[str, Answer | PeerError]:
    """What each destination answers; unless told otherwise, that all is well."""
    answers: dict[str, Answer | PeerError] = {}

    def probed(name: str, *_: object) -> Answer:
        said = answers.get(name, Answer(0x0000, (), uncompressed_only=False))
        if isinstance(said, PeerError):
            raise said
        return said

    monkeypatch.setattr("dicom_node.dimse.probe.probe", probed)
    return answers


def found(made: Config) -> dict[str, Found]:
    return {each.what: each for each in dry_run.dry_run(made)}


@pytest.mark.usefixtures("answer")
def test_where_all_is_well_everything_is_good_and_nothing_has_changed(tmp_path: Path) -> None:
    keys.generate(tmp_path / "keyring")
    results = found(config(tmp_path))
    assert {each.grade for each in results.values()} == {Grade.GOOD}
    assert list(results) == [
        "keys",
        "storage",
        "ledger",
        "node.port",
        "segmenter anatomy",
        "segmenter vessels",
        "destination pacs",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["keyring"]


@pytest.mark.usefixtures("answer")
def test_a_ring_that_is_not_there_says_how_to_make_it(tmp_path: Path) -> None:
    missing = found(config(tmp_path))["keys"]
    assert missing.grade is Grade.PROBLEM
    assert "dicom-node keys new" in missing.said


@pytest.mark.usefixtures("answer")
def test_a_node_that_signs_needs_its_signing_key(tmp_path: Path) -> None:
    keys.generate(tmp_path / "keyring")
    held = {"ring": tmp_path / "keyring", "signing": tmp_path / "signing"}
    made = config(tmp_path, keys=held, watermark={"sign": True})
    assert "keys new-signing" in found(made)["keys"].said
    signer = signers.generate(tmp_path / "signing")
    assert signer.name in found(made)["keys"].said
    signers.revoke(tmp_path / "signing", 1)
    assert found(made)["keys"].grade is Grade.PROBLEM


@pytest.mark.usefixtures("answer")
def test_a_ring_that_systemd_will_hand_over_cannot_be_seen_from_a_shell(tmp_path: Path) -> None:
    ring = found(config(tmp_path, keys={"ring": "credential:keyring"}))["keys"]
    assert (ring.grade, "not seen from here" in ring.said) == (Grade.WARNING, True)


@pytest.mark.usefixtures("answer")
@pytest.mark.parametrize(("times", "grade"), [(0.9, Grade.PROBLEM), (1.5, Grade.WARNING), (3, Grade.GOOD)])
def test_room_is_held_against_the_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: float, grade: Grade
) -> None:
    made = config(tmp_path)
    usage = type("Usage", (), {"free": int(times * made.storage.reserve_bytes)})
    monkeypatch.setattr(dry_run.shutil, "disk_usage", lambda _folder: usage)
    assert found(made)["storage"].grade is grade


@pytest.mark.usefixtures("answer")
def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run.os, "access", lambda *_: False)
    assert "run the check as the service's user" in found(config(tmp_path))["storage"].said


@pytest.mark.usefixtures("answer")
def test_a_ledger_is_asked(tmp_path: Path) -> None:
    made = config(tmp_path)
    made.storage.folder.mkdir()
    Ledger(made.storage.ledger_path).close()
    assert "answers" in found(made)["ledger"].said
    made.storage.ledger_path.write_bytes(b"not a database" * 100)
    assert found(made)["ledger"].grade is Grade.PROBLEM


@pytest.mark.usefixtures("answer")
def test_a_port_that_is_taken_may_be_the_nodes_own(tmp_path: Path) -> None:
    made = config(tmp_path)
    with socket.create_server(("127.0.0.1", made.node.port)):
        taken = found(made)["node.port"]
    assert taken.grade is Grade.WARNING
    assert "if the node runs already" in taken.said


@pytest.mark.usefixtures("answer")
def test_a_segmenter_that_nobody_knows(tmp_path: Path) -> None:
    unknown = found(config(tmp_path, watermark={"segmenter": "livers"}))["segmenter livers"]
    assert unknown.grade is Grade.PROBLEM
    assert "anatomy" in unknown.said


@pytest.mark.parametrize(
    ("said", "grade", "words"),
    [
        (
            PeerError("destination pacs (PACS) cannot be reached at x:1"),
            Grade.PROBLEM,
            "PACS cannot be reached",
        ),
        (Answer(None, (), uncompressed_only=False), Grade.WARNING, "does not answer C-ECHO"),
        (Answer(0x0122, (), uncompressed_only=False), Grade.WARNING, "answers C-ECHO with 0122"),
        (Answer(0, ("MG", "PDF"), uncompressed_only=False), Grade.WARNING, "does not take MG, PDF"),
        (Answer(0, (), uncompressed_only=True), Grade.WARNING, "sent uncompressed"),
    ],
)
def test_what_a_destination_answers(
    tmp_path: Path, answer: dict[str, Answer | PeerError], said: Answer | PeerError, grade: Grade, words: str
) -> None:
    answer["pacs"] = said
    result = found(config(tmp_path))["destination pacs"]
    assert result.grade is grade
    assert words in result.said


def test_what_cannot_be_converted_becomes_a_dead_letter(
    tmp_path: Path, answer: dict[str, Answer | PeerError]
) -> None:
    answer["pacs"] = Answer(0, (), uncompressed_only=True)
    peer = {"ae_title": "PACS", "host": "localhost", "port": 104, "transcode": "never"}
    assert "dead letters" in found(config(tmp_path, destinations={"pacs": peer}))["destination pacs"].said


def _in_a_cluster(folder: Path, **cluster: Any) -> Config:
    section = {
        "name": "site",
        "database": {"url": "postgresql://node@127.0.0.1:1/dicom_node"},
        "broker": {"url": "amqp://node@127.0.0.1:1/dicom-node"},
        "blobs": {"kind": "directory", "directory": folder / "blobs"},
    }
    return config(folder, cluster=section | cluster)


def test_servers_of_a_cluster_that_are_not_there_are_found_one_by_one(tmp_path: Path) -> None:
    found = {each.what: each for each in dry_run.dry_run(_in_a_cluster(tmp_path))}
    assert found["ledger"].grade is Grade.PROBLEM
    assert found["cluster.broker"].grade is Grade.PROBLEM
    assert "is not reached" in found["cluster.broker"].said
    assert found["cluster.blobs"].grade is Grade.WARNING
    assert not (tmp_path / "blobs").exists(), "nothing is made"


def test_a_store_that_is_a_clusters_is_good(tmp_path: Path) -> None:
    made = _in_a_cluster(tmp_path)
    store: Any = stores.open_spool(made)
    store.claim("")
    found = {each.what: each for each in dry_run.dry_run(made)}
    assert found["cluster.blobs"].grade is Grade.GOOD


def test_without_a_broker_none_is_asked_for(tmp_path: Path) -> None:
    found = [each.what for each in dry_run.dry_run(_in_a_cluster(tmp_path, broker=None))]
    assert "cluster.broker" not in found
    assert "cluster.blobs" in found
