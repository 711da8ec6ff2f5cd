"""Storage commitment with Orthanc, in both roles."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from benchmarks.stand import free_port
from tests.builders import ct, file_bytes
from tests.interop import peers

pytestmark = pytest.mark.interop

UIDS = ("1.2.826.0.1.7.1", "1.2.826.0.1.7.2", "1.2.826.0.1.7.3")


def images(folder: Path) -> list[Path]:
    """Three synthetic CT images."""
    folder.mkdir()
    paths = [folder / f"{uid}.dcm" for uid in UIDS]
    for path, uid in zip(paths, UIDS, strict=True):
        image = ct()
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = uid
        path.write_bytes(file_bytes(image))
    return paths


def committing(archive: peers.Orthanc, transaction: str) -> str:
    return str(archive.get(f"/storage-commitment/{transaction}")["Status"])


def rows(node: peers.RunningNode, query: str) -> list[Any]:
    with closing(sqlite3.connect(node.folder / "state" / "ledger.sqlite", timeout=30)) as ledger:
        return ledger.execute(query).fetchall()


def test_orthanc_asks_the_node(tmp_path: Path) -> None:
    """Success for what the archive behind the node has; 0112 for what the node never saw."""
    port = free_port()
    with (
        peers.storescp(tmp_path / "dcmtk") as dcmtk,
        peers.orthanc(tmp_path / "orthanc", port) as sender,
        peers.node(
            tmp_path / "node",
            {"dcmtk": ("STORESCP", dcmtk.port)},
            port=port,
            more=f"commitment: {{requesters: [{{ae_title: ORTHANC, host: 127.0.0.1, "
            f"port: {sender.dicom_port}}}]}}\n",
        ) as node,
    ):
        for path in images(tmp_path / "in"):
            sender.post("/instances", path.read_bytes())
        job = sender.post(
            "/modalities/node/store", {"Resources": sender.instances(), "StorageCommitment": True}
        )
        transaction = job["StorageCommitmentTransactionUID"]
        peers.wait_until(lambda: committing(sender, transaction) == "Success", 60, "Orthanc has its answer")
        said = sender.get(f"/storage-commitment/{transaction}")
        assert sorted(one["SOPInstanceUID"] for one in said["Success"]) == sorted(UIDS)
        assert said["Failures"] == []
        assert said["RemoteAET"] == "NODE"
        assert len(dcmtk.files()) == len(UIDS)

        unknown = sender.post(
            "/modalities/node/storage-commitment",
            {
                "DicomInstances": [
                    {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "SOPInstanceUID": "1.2.826.0.1.7.99"},
                    {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4", "SOPInstanceUID": UIDS[0]},
                    {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "SOPInstanceUID": UIDS[1]},
                ]
            },
        )
        transaction = unknown["Path"].rpartition("/")[2]
        peers.wait_until(lambda: committing(sender, transaction) == "Failure", 60, "Orthanc has its answer")
        said = sender.get(f"/storage-commitment/{transaction}")
        assert [one["SOPInstanceUID"] for one in said["Success"]] == [UIDS[1]]
        failures = {one["SOPInstanceUID"]: one["FailureReason"] for one in said["Failures"]}
        assert failures == {"1.2.826.0.1.7.99": 0x0112, UIDS[0]: 0x0119}
    log = node.log.read_text()
    assert "commitment-reported" in log
    assert not any(uid in log for uid in (*UIDS, transaction))


def test_the_node_asks_orthanc_and_keeps_the_bytes_until_it_answers(tmp_path: Path) -> None:
    port = free_port()
    with (
        peers.orthanc(tmp_path / "orthanc", port) as archive,
        peers.node(
            tmp_path / "node",
            {"orthanc": ("ORTHANC", archive.dicom_port)},
            port=port,
            options=", commitment: true",
            more="commitment: {ask: {collect_s: 1.0}}\n",
        ) as node,
    ):
        peers.send(node.port, images(tmp_path / "in"), "-xe")
        peers.wait_until(
            lambda: rows(node, "SELECT state FROM commitments") == [("committed",)] * len(UIDS),
            60,
            f"Orthanc commits; see {node.log}",
        )
        assert len(archive.instances()) == len(UIDS)
        steps = [what for (what,) in rows(node, "SELECT what FROM events WHERE instance_id = 1 ORDER BY id")]
        assert steps[-3:] == ["delivered", "commitment-asked", "committed"]
    assert not any(uid in node.log.read_text() for uid in UIDS)


def test_what_orthanc_has_lost_is_sent_again(tmp_path: Path) -> None:
    """It deletes an instance between taking it and being asked: it says so, and gets it once more."""
    port = free_port()
    with (
        peers.orthanc(tmp_path / "orthanc", port) as archive,
        peers.node(
            tmp_path / "node",
            {"orthanc": ("ORTHANC", archive.dicom_port)},
            port=port,
            options=", commitment: true",
            more="commitment: {ask: {collect_s: 6.0}}\n",
        ) as node,
    ):
        peers.send(node.port, images(tmp_path / "in"), "-xe")
        peers.wait_until(lambda: len(archive.instances()) == len(UIDS), 60, "all at Orthanc")
        archive.delete(f"/instances/{archive.instances()[0]}")
        assert rows(node, "SELECT DISTINCT state FROM commitments") == [("wanted",)]
        peers.wait_until(
            lambda: rows(node, "SELECT state FROM commitments") == [("committed",)] * len(UIDS),
            90,
            f"Orthanc commits; see {node.log}",
        )
        assert len(archive.instances()) == len(UIDS)
        reasons = rows(node, "SELECT reason FROM events WHERE what = 'not-committed'")
        assert reasons == [("commitment-0112",)]
