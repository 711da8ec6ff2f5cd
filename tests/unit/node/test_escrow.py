"""A ring leaves encrypted, and comes back by this program or by openssl."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from dicom_node import escrow, keys
from dicom_node.errors import KeyFileError
from tests.certificates import Authority, Issued


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), rsa_keys=True)


@pytest.fixture(scope="module")
def safe(authority: Authority) -> Issued:
    return authority.issue("safe")


@pytest.fixture
def text(tmp_path: Path) -> str:
    keys.generate(tmp_path / "ring")
    return keys.text_of(tmp_path / "ring")


def test_it_opens_for_its_recipient_and_for_nobody_else(
    text: str, safe: Issued, authority: Authority
) -> None:
    sealed = escrow.sealed(text, safe.certificate)
    assert escrow.is_sealed(sealed)
    assert not escrow.is_sealed(text.encode())
    assert b"key 1" not in sealed
    assert escrow.opened(sealed, safe.certificate, safe.key, None) == text
    other = authority.issue("other")
    for certificate, key in ((other.certificate, other.key), (safe.certificate, other.key)):
        with pytest.raises(KeyFileError, match=r"not sealed for|damaged"):
            escrow.opened(sealed, certificate, key, None)


def test_it_opens_with_openssl_alone(text: str, safe: Issued, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl")
    export = tmp_path / "ring.p7m"
    export.write_bytes(escrow.sealed(text, safe.certificate))
    done = subprocess.run(
        [openssl, "cms", "-decrypt", "-inform", "PEM", "-in", export, "-inkey", safe.key],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert escrow.checked(done.stdout) == text
    assert keys.merge(tmp_path / "new", escrow.checked(done.stdout), "export") == (1,)


def test_damage_is_noticed(text: str, safe: Issued) -> None:
    plain = f"# sha256 {'0' * 64}\n{text}".encode()
    with pytest.raises(KeyFileError, match="sum"):
        escrow.checked(plain)
    with pytest.raises(KeyFileError, match="no text"):
        escrow.checked(b"\xff\xfe")
    assert escrow.checked(text.encode()) == text
    sealed = bytearray(escrow.sealed(text, safe.certificate))
    at = len(sealed) // 2
    sealed[at] = ord("A") if sealed[at] != ord("A") else ord("B")
    with pytest.raises(KeyFileError, match="damaged"):
        escrow.opened(bytes(sealed), safe.certificate, safe.key, None)


def test_what_cannot_be_encrypted_to_is_named(text: str, safe: Issued, tmp_path: Path) -> None:
    elliptic = Authority(tmp_path).issue("elliptic")
    with pytest.raises(KeyFileError, match="no RSA certificate"):
        escrow.sealed(text, elliptic.certificate)
    with pytest.raises(KeyFileError, match="no certificate in PEM form"):
        escrow.sealed(text, safe.key)
    with pytest.raises(KeyFileError, match=r"absent\.pem cannot be read"):
        escrow.sealed(text, tmp_path / "absent.pem")
    sealed = escrow.sealed(text, safe.certificate)
    with pytest.raises(KeyFileError, match="cannot be read as PEM"):
        escrow.opened(sealed, safe.key, safe.key, None)
    with pytest.raises(KeyFileError, match=r"absent\.key cannot be read"):
        escrow.opened(sealed, safe.certificate, tmp_path / "absent.key", None)
    with pytest.raises(KeyFileError, match="no RSA key"):
        escrow.opened(sealed, safe.certificate, elliptic.key, None)
