"""DICOM over TLS with DCMTK, Orthanc and openssl, each as whoever they can be."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pydicom
import pytest

from benchmarks.stand import free_port
from tests.builders import ct, file_bytes
from tests.certificates import Authority, Issued
from tests.interop import peers

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), rsa_keys=True)


@pytest.fixture(scope="module")
def own(authority: Authority) -> Issued:
    return authority.issue("node", "127.0.0.1", "localhost")


@pytest.fixture(scope="module")
def modality(authority: Authority) -> Issued:
    return authority.issue("ct1", "ct1.example")


def tls_section(authority: Authority, own: Issued, more: str = "") -> str:
    return f"tls: {{certificate: {own.certificate}, key: {own.key}, ca: {authority.file}{more}}}\n"


def image(folder: Path, uid: str = "1.2.826.0.1.8.1") -> Path:
    made = ct()
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = uid
    folder.mkdir(exist_ok=True)
    path = folder / f"{uid}.dcm"
    path.write_bytes(file_bytes(made))
    return path


def dcmtk(
    tool: str,
    port: int,
    authority: Authority,
    shown: Issued | None,
    *options: str | Path,
    calling: str = "CT1",
) -> int:
    """Exit status of a tool of DCMTK that speaks TLS."""
    secured: list[str | Path] = ["+tla"] if shown is None else ["+tls", shown.key, shown.certificate]
    command = [f"/usr/bin/{tool}", *secured, "+cf", authority.file, "-aet", calling, "-aec", "NODE"]
    done = subprocess.run(
        [*command, "127.0.0.1", str(port), *options],
        capture_output=True,
        env=peers.ENVIRONMENT,
        check=False,
        timeout=120,
    )
    return done.returncode


def test_dcmtk_sends_over_tls_and_receives_over_tls(
    tmp_path: Path, authority: Authority, own: Issued, modality: Issued
) -> None:
    """storescu +tls -> node -> storescp +tls; the image arrives marked, and verifies."""
    archive = authority.issue("archive", "127.0.0.1")
    port, secure_port = free_port(), free_port()
    received = tmp_path / "received"
    received.mkdir()
    command = ("/usr/bin/storescp", "--fork", "+xa", "+tls", archive.key, archive.certificate)
    options = ("+cf", authority.file, "--output-directory", received, str(port))
    with (
        peers.process(*command, *options, log=tmp_path / "storescp.log"),
        peers.node(
            tmp_path / "node",
            {"archive": ("ARCHIVE", port)},
            more=tls_section(authority, own)
            + "access: {callers: [{ae_title: CT1, certificates: [ct1.example]}]}\n",
            options=", tls: true",
            node_keys=f", tls_port: {secure_port}",
        ) as node,
    ):
        assert dcmtk("echoscu", secure_port, authority, modality) == 0
        sent = image(tmp_path / "in")
        assert dcmtk("storescu", secure_port, authority, modality, sent) == 0
        peers.wait_until(lambda: any(received.iterdir()), 60, "the archive has it")
        # nobody else: another certificate, none, another title, and the port in the clear
        other = authority.issue("mr1", "mr1.example")
        assert dcmtk("echoscu", secure_port, authority, other) != 0
        assert dcmtk("echoscu", secure_port, authority, None) != 0
        assert dcmtk("echoscu", secure_port, authority, modality, calling="MR1") != 0
        clear = ["/usr/bin/echoscu", "-aet", "CT1", "-aec", "NODE", "127.0.0.1", str(node.port)]
        assert subprocess.run(clear, capture_output=True, check=False, timeout=60).returncode != 0
        log = node.log.read_text()
    for reason in ("certificate-not-allowed", "no-certificate", "caller-not-listed"):
        assert f"reason={reason}" in log
    (arrived,) = received.iterdir()
    done = peers.dicom_node("verify", str(arrived), "--keys", str(node.keys))
    assert done.returncode == 0, done.stdout + done.stderr
    assert pydicom.dcmread(arrived).SOPInstanceUID == "1.2.826.0.1.8.1"


def test_orthanc_is_destination_and_source_over_tls(
    tmp_path: Path, authority: Authority, own: Issued
) -> None:
    shown = authority.issue("orthanc", "127.0.0.1")
    secure_port = free_port()
    settings = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(shown.certificate),
        "DicomTlsPrivateKey": str(shown.key),
        "DicomTlsTrustedCertificates": str(authority.file),
        "DicomModalities": {
            "node": {"AET": "NODE", "Host": "127.0.0.1", "Port": secure_port, "UseDicomTls": True}
        },
    }
    with (
        peers.orthanc(tmp_path / "orthanc", **settings) as orthanc,
        peers.node(
            tmp_path / "node",
            {"orthanc": ("ORTHANC", orthanc.dicom_port)},
            more=tls_section(authority, own),
            options=", tls: true",
            node_keys=f", tls_port: {secure_port}",
        ) as node,
    ):
        identity = orthanc.store(image(tmp_path / "in").read_bytes())
        orthanc.post("/modalities/node/store", json.dumps([identity]).encode())
        # it goes back to where it came from
        peers.wait_until(lambda: " delivered " in node.log.read_text(), 60, "Orthanc has it back")


@pytest.mark.parametrize("secured", [True, False])
def test_orthanc_is_asked_over_tls_and_moves_over_tls(
    tmp_path: Path, authority: Authority, own: Issued, secured: bool
) -> None:
    """C-MOVE comes back over TLS; if the archive was not told to use it, nothing comes in the clear."""
    shown, move_port = authority.issue("orthanc", "127.0.0.1"), free_port()
    settings = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(shown.certificate),
        "DicomTlsPrivateKey": str(shown.key),
        "DicomTlsTrustedCertificates": str(authority.file),
        "DicomAlwaysAllowMove": True,
        "DicomAlwaysAllowFind": True,
        "DicomModalities": {
            "us": {"AET": "AUDITOR", "Host": "127.0.0.1", "Port": move_port, "UseDicomTls": secured}
        },
    }
    with peers.orthanc(tmp_path / "orthanc", **settings) as orthanc:
        orthanc.store(image(tmp_path / "in").read_bytes())
        config = tmp_path / "workstation.yaml"
        config.write_text(
            tls_section(authority, own)
            + f"query:\n  ae_title: AUDITOR\n  bind: 127.0.0.1\n  port: {move_port}\n  peers:\n"
            + f"    a: {{ae_title: ORTHANC, host: 127.0.0.1, port: {orthanc.dicom_port}, tls: true,"
            + " retrieve: move, timeout_s: 20.0}\n"
        )
        out = tmp_path / "out"
        done = peers.dicom_node(
            "query", "fetch", "--peer", "a", "--all", "--out", str(out), "--config", str(config)
        )
    assert (done.returncode == 0) is secured, done.stderr
    assert len(list(out.glob("*.dcm"))) == secured


def test_openssl_is_refused_with_what_is_old(tmp_path: Path, authority: Authority, own: Issued) -> None:
    secure_port = free_port()
    with (
        peers.storescp(tmp_path / "dcmtk") as archive,
        peers.node(
            tmp_path / "node",
            {"archive": ("ARCHIVE", archive.port)},
            more=tls_section(authority, own),
            node_keys=f", tls_port: {secure_port}, tls_clients: none",
        ) as node,
    ):
        assert openssl(secure_port, authority, "-tls1_2")
        assert openssl(secure_port, authority, "-tls1_3")
        assert openssl(secure_port, authority, "-tls1_2", "-cipher", "ECDHE-RSA-AES256-GCM-SHA384")
        assert not openssl(secure_port, authority, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
        assert not openssl(secure_port, authority, "-tls1", "-cipher", "ALL:@SECLEVEL=0")
        assert not openssl(secure_port, authority, "-tls1_2", "-cipher", "AES256-GCM-SHA384")  # no DH
        assert not openssl(secure_port, authority, "-tls1_2", "-cipher", "ECDHE-RSA-AES256-SHA384")  # CBC
        log = node.log.read_text()
    assert "reason=tls-too-old" in log
    assert "reason=no-shared-cipher" in log


def openssl(port: int, authority: Authority, *options: str) -> bool:
    """Whether `openssl s_client` gets a connection that it believes."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", authority.file]
    done = subprocess.run(
        [*command, "-verify_return_error", "-verify_ip", "127.0.0.1", *options],
        input=b"",
        capture_output=True,
        check=False,
        timeout=60,
    )
    return done.returncode == 0 and b"Verification: OK" in done.stdout


def test_two_hundred_silent_clients_do_not_keep_echoscu_waiting(
    tmp_path: Path,
    authority: Authority,
    own: Issued,
    modality: Issued,
    record_property: Callable[[str, object], None],
) -> None:
    secure_port = free_port()
    with (
        peers.storescp(tmp_path / "dcmtk") as archive,
        peers.node(
            tmp_path / "node",
            {"archive": ("ARCHIVE", archive.port)},
            more=tls_section(authority, own),
            node_keys=f", tls_port: {secure_port}",
        ),
        ExitStack() as held,
    ):
        peers.wait_until(lambda: peers.listens(secure_port), 20, "the TLS port listens")
        for _ in range(200):
            held.enter_context(socket.create_connection(("127.0.0.1", secure_port), 10))
        started = time.monotonic()
        assert dcmtk("echoscu", secure_port, authority, modality) == 0
        record_property("seconds_beside_200", round(time.monotonic() - started, 2))
