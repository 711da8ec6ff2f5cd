"""Passcodes are kept as hashes, and guessing has an end."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node import users
from dicom_node.errors import KeyFileError
from dicom_node.users import FAILURES, WITHIN_S, Failures, Users


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "users"
    path.write_text(f"# modalities\n\n{users.entry('ct1', 'sesame')}\n{users.entry('mr1', 'päß')}\n")
    path.chmod(0o600)
    return path


def test_a_passcode_is_known_by_its_hash_alone(file: Path) -> None:
    known = Users(file)
    assert known.knows("ct1", b"sesame")
    assert known.knows("mr1", "päß".encode())
    assert not known.knows("ct1", b"sesame ")
    assert not known.knows("mr1", b"sesame")
    assert not known.knows("nobody", b"sesame")
    assert "sesame" not in file.read_text()
    assert users.entry("ct1", "sesame") != users.entry("ct1", "sesame")  # salted


def test_a_changed_file_counts_at_once(file: Path) -> None:
    known = Users(file)
    file.write_text(users.entry("ct1", "other"))
    assert known.knows("ct1", b"other")
    assert not known.knows("ct1", b"sesame")


def test_what_is_no_good_is_told_without_quoting_it(file: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="dicom-node access user"):
        Users(tmp_path / "absent").load()
    file.write_text("user ct1 sesame\n")
    with pytest.raises(KeyFileError, match="users:1") as caught:
        Users(file).load()
    assert "sesame" not in str(caught.value)
    file.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        Users(file).load()
    for name in ("", "two words", "x" * 65, "ä"):
        with pytest.raises(KeyFileError, match="1 to 64 characters"):
            users.entry(name, "sesame")


def test_who_fails_too_often_is_not_listened_to_for_a_while() -> None:
    time = 0.0
    failures = Failures(lambda: time)
    for _ in range(FAILURES):
        assert not failures.locked("10.0.0.1")
        failures.note("10.0.0.1")
        time += 1
    assert failures.locked("10.0.0.1")
    assert not failures.locked("10.0.0.2")
    time = WITHIN_S + 0.5  # the first of them is forgotten
    assert not failures.locked("10.0.0.1")
    failures.note("10.0.0.1")
    assert failures.locked("10.0.0.1")
    time += 2 * WITHIN_S
    assert not failures.locked("10.0.0.1")


def test_an_attacker_with_many_addresses_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "_MOST_ADDRESSES", 10)
    failures = Failures(lambda: 0.0)
    for number in range(100):
        failures.note(f"10.0.0.{number}")
    assert len(failures._times) == 10
    assert "10.0.0.99" in failures._times
