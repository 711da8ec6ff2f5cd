"""A digital signature made before the node verifies again after recovery: a third party's proof."""

from __future__ import annotations

import datetime
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydicom import uid

from blessmark import pixels
from tests.builders import Encoding, dataset, file_bytes, mr, phantom
from tests.interop import peers

pytestmark = pytest.mark.interop

_DCMSIGN = "/usr/bin/dcmsign"
_PATIENT = {"PatientName": "Phantom^Test", "PatientID": "P-1", "StudyDate": "20260921"}


def credentials(folder: Path) -> tuple[Path, Path]:
    """A key and a certificate that say nothing about anybody."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "signer")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    paths = folder / "key.pem", folder / "certificate.pem"
    paths[0].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    paths[1].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return paths


def verifies(path: Path, folder: Path) -> bool:
    """Whether every signature holds, its certificate being trusted."""
    return dcmsign("--verify", "--add-cert-file", folder / "certificate.pem", path).returncode == 0


def dcmsign(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [_DCMSIGN, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian])
@pytest.mark.parametrize("room", ["in the pixels", "in the header"])
def test_it_verifies_again(tmp_path, syntax, room):
    samples = mr(256, 256, **_PATIENT)
    if room == "in the header":
        samples = dataset(phantom(32, 32), Encoding(syntax=syntax), **_PATIENT)
    samples.file_meta.TransferSyntaxUID = syntax
    plain, signed = tmp_path / "plain.dcm", tmp_path / "signed.dcm"
    plain.write_bytes(file_bytes(samples))
    done = dcmsign("+s", *credentials(tmp_path), plain, signed)
    assert done.returncode == 0, done.stderr
    assert verifies(signed, tmp_path)

    keys, marked, back = tmp_path / "keyring", tmp_path / "marked.dcm", tmp_path / "back.dcm"
    peers.dicom_node("keys", "new", "--keys", str(keys))
    done = peers.dicom_node("protect", str(signed), "--out", str(marked), "--keys", str(keys))
    assert done.returncode == 0, done.stderr
    assert "signature-removed" in done.stdout
    assert "DigitalSignaturesSequence" not in pixels.read(marked)
    done = peers.dicom_node("recover", str(marked), "--out", str(back), "--keys", str(keys))
    assert done.returncode == 0, done.stdout + done.stderr
    assert verifies(back, tmp_path)
    damaged = bytearray(back.read_bytes())
    damaged[-9] ^= 1
    back.write_bytes(damaged)
    assert not verifies(back, tmp_path), "a signature that nothing breaks proves nothing"
