"""The file of signing keys, and the public keys that readers trust."""

from __future__ import annotations

from pathlib import Path

import pytest

from blessmark.payload.signature import PublicKey
from dicom_node import signers
from dicom_node.errors import KeyFileError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "signing-keys"


def test_a_new_key_is_current_and_the_old_ones_stay(path: Path) -> None:
    first, second = signers.generate(path), signers.generate(path)
    held = signers.describe(path)
    assert [(signer.id, signer.current) for signer in held] == [(1, False), (2, True)]
    assert first.public == held[0].public
    assert signers.load(path).public == second.public.raw
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(first.name) == 16


def test_no_secret_is_shown(path: Path) -> None:
    signers.generate(path)
    seed = signers.load(path).seed
    shown = repr(signers.describe(path)) + signers.pem(signers.describe(path)[0]) + repr(signers.load(path))
    assert seed.hex() not in shown
    assert repr(seed) not in shown


def test_public_keys_travel_as_pem_and_as_digits(path: Path, tmp_path: Path) -> None:
    made = [signers.generate(path), signers.generate(path)]
    for form in (signers.pem, signers.raw):
        exported = tmp_path / "public"
        exported.write_text("".join(form(signer) for signer in signers.describe(path)), "ascii")
        assert signers.trusted([exported]) == tuple(signer.public for signer in made)


def test_pem_is_what_openssl_writes(tmp_path: Path) -> None:
    """Keys of RFC 8410, section 10.1, may come from anywhere."""
    exported = tmp_path / "other.pem"
    body = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="
    exported.write_text(f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n", "ascii")
    raw = "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1"
    assert signers.trusted([exported]) == (PublicKey(bytes.fromhex(raw)),)


@pytest.mark.parametrize("form", [signers.pem, signers.raw])
def test_a_revocation_is_of_one_key_and_travels_with_it(path: Path, tmp_path: Path, form: object) -> None:
    signers.generate(path)
    signers.generate(path)
    before = tmp_path / "before"
    before.write_text("".join(form(s) for s in signers.describe(path)), "ascii")  # type: ignore[operator]
    gone = signers.revoke(path, 1)
    assert gone.revoked
    assert signers.revoke(path, 1).revoked == gone.revoked, "the first one counts"
    after = tmp_path / "after"
    after.write_text("".join(form(s) for s in signers.describe(path)), "ascii")  # type: ignore[operator]
    for files in ([after], [before, after], [after, before]):
        assert [key.revoked for key in signers.trusted(files)] == [True, False]


def test_nothing_is_signed_with_a_revoked_key(path: Path) -> None:
    signers.generate(path)
    signers.revoke(path, 1)
    with pytest.raises(KeyFileError, match="new-signing"):
        signers.load(path)
    second = signers.generate(path)
    assert signers.load(path).public == second.public.raw
    assert signers.describe(path)[0].revoked, "a revocation is never lost"


def test_there_is_no_key_of_that_number(path: Path) -> None:
    signers.generate(path)
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match="holds no signing key 2"):
        signers.revoke(path, 2)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


SEED = "11" * 32
ENTRY = f"signing 1 2026-01-31T09:00:00Z {SEED}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ENTRY, "current ID"),
        ("current 1\n", "current ID"),
        (ENTRY + "current 2\n", "current ID"),
        (ENTRY + ENTRY + "current 1\n", "twice"),
        (ENTRY + "current 1\ncurrent 1\n", "neither"),
        (ENTRY + f"key 1 2026 {SEED}\ncurrent 1\n", "neither"),
    ],
)
def test_malformed_files_are_refused_without_a_secret(path: Path, text: str, said: str) -> None:
    path.write_text(text, "ascii")
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match=said) as error:
        signers.load(path)
    assert SEED not in str(error.value)


def test_a_file_that_others_can_read_is_refused(path: Path) -> None:
    signers.generate(path)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        signers.load(path)


def test_a_missing_file_says_how_to_make_one(path: Path) -> None:
    with pytest.raises(KeyFileError, match="keys new-signing"):
        signers.load(path)


RSA = "MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf9Cnzj4p4WGeKLs1Pt8QuKUpRKfFLfRYC9AIKjbJTWit+CqvjWYzvQwECAwEAAQ=="  # noqa: E501


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no Ed25519 public key"),
        (b"\xff", "not plain ASCII"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no public key"),
        (f"-----BEGIN PUBLIC KEY-----\n{RSA}\n-----END PUBLIC KEY-----\n".encode(), "another kind"),
        (ENTRY.encode(), "no Ed25519 public key"),
    ],
)
def test_what_is_no_public_key_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    exported = tmp_path / "public"
    exported.write_bytes(content)
    with pytest.raises(KeyFileError, match=said):
        signers.trusted([exported])


def test_a_public_key_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot be read"):
        signers.trusted([tmp_path / "nothing"])
