"""A key ring only grows, is private, and never shows a secret."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from dicom_node import keys
from dicom_node.errors import KeyFileError
from dicom_node.keys import FileKeyRing


@pytest.fixture
def ring(tmp_path: Path) -> Path:
    path = tmp_path / "keyring"
    keys.generate(path)
    return path


def secrets_in(path: Path) -> list[str]:
    return re.findall(r"[0-9a-f]{64}", path.read_text("ascii"))


def test_a_new_ring_is_private_and_holds_one_current_key(tmp_path: Path) -> None:
    path = tmp_path / "keyring"
    assert keys.generate(path) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    loaded = FileKeyRing.load(path)
    assert [key.id for key in loaded.keys] == [1]
    assert loaded.current.secret.hex() == secrets_in(path)[0]


def test_a_new_ring_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        keys.generate(tmp_path / "keyring")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "keyring").stat().st_mode) == 0o600


def test_rotation_adds_a_current_key_and_keeps_the_old_ones(ring: Path) -> None:
    before = FileKeyRing.load(ring).current
    assert [keys.generate(ring), keys.generate(ring)] == [2, 3]
    loaded = FileKeyRing.load(ring)
    assert loaded.current.id == 3
    assert [key.id for key in loaded.keys] == [3, 2, 1]
    assert loaded.keys[-1] == before
    assert len({key.secret for key in loaded.keys}) == 3


def test_description_tells_ids_dates_and_the_current_one(ring: Path) -> None:
    keys.generate(ring)
    described = keys.describe(ring)
    assert [(info.id, info.current) for info in described] == [(1, False), (2, True)]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", info.created) for info in described)


def test_nothing_printable_shows_a_secret(ring: Path) -> None:
    secret = secrets_in(ring)[0]
    shown = f"{FileKeyRing.load(ring)!r} {FileKeyRing.load(ring).current!r} {keys.describe(ring)!r}"
    assert secret not in shown
    assert bytes.fromhex(secret).hex() not in shown
    assert repr(bytes.fromhex(secret)) not in shown


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o644])
def test_a_ring_that_others_can_touch_is_refused_with_the_remedy(ring: Path, mode: int) -> None:
    ring.chmod(mode)
    for use in (FileKeyRing.load, keys.describe, keys.generate):
        with pytest.raises(KeyFileError, match=f"mode {mode:04o}.*chmod 600 {re.escape(str(ring))}"):
            use(ring)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_ring_of_another_user_is_refused(ring: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(ring, 12345, -1)
    with pytest.raises(KeyFileError, match="another user"):
        FileKeyRing.load(ring)


def test_an_absent_ring_tells_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="dicom-node keys new"):
        FileKeyRing.load(tmp_path / "keyring")
    with pytest.raises(KeyFileError, match="cannot be written"):
        keys.generate(tmp_path / "no-such-folder" / "keyring")


_SECRET = "5e" * 32


@pytest.mark.parametrize(
    "text",
    [
        "",
        "current 1\n",
        f"key 1 2026-01-01T00:00:00Z {_SECRET}\n",
        f"key 1 2026-01-01T00:00:00Z {_SECRET}\ncurrent 2\n",
        f"key 1 2026-01-01T00:00:00Z {_SECRET}\ncurrent 1\ncurrent 1\n",
        f"key 1 2026-01-01T00:00:00Z {_SECRET}\nkey 1 2026-01-01T00:00:00Z {_SECRET}\ncurrent 1\n",
        f"key 0 2026-01-01T00:00:00Z {_SECRET}\ncurrent 0\n",
        f"key 256 2026-01-01T00:00:00Z {_SECRET}\ncurrent 256\n",
        f"key 1 2026-01-01T00:00:00Z {_SECRET[:-1]}\ncurrent 1\n",
        f"key 1 2026-01-01T00:00:00Z {_SECRET} more\ncurrent 1\n",
        f"kee 1 2026-01-01T00:00:00Z {_SECRET}\ncurrent 1\n",
    ],
)
def test_malformed_rings_are_refused_without_quoting_them(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keyring"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(KeyFileError) as caught:
        FileKeyRing.load(path)
    assert _SECRET[:-1] not in str(caught.value)
    with pytest.raises(KeyFileError):
        keys.generate(path)
    assert path.read_text() == text


def test_binary_files_and_folders_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "keyring"
    path.write_bytes(b"\xff\xfe")
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="not a key ring"):
        FileKeyRing.load(path)
    with pytest.raises(KeyFileError, match="cannot be read"):
        FileKeyRing.load(tmp_path)


def test_comments_and_blank_lines_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "keyring"
    path.write_text(f"# a comment\n\n key 7 2026-01-01T00:00:00Z {_SECRET} # why\ncurrent 7\n")
    path.chmod(0o600)
    assert FileKeyRing.load(path).current.id == 7


def test_ids_wrap_to_a_free_one_and_then_run_out(tmp_path: Path) -> None:
    path = tmp_path / "keyring"
    lines = [f"key {number} 2026-01-01T00:00:00Z {number:064x}\n" for number in range(2, 256)]
    path.write_text("".join(lines) + "current 255\n")
    path.chmod(0o600)
    assert keys.generate(path) == 1
    with pytest.raises(KeyFileError, match="255 keys"):
        keys.generate(path)
    assert len(FileKeyRing.load(path).keys) == 255


def test_two_runs_at_once_do_not_lose_a_key(ring: Path) -> None:
    draft = ring.with_name(f".{ring.name}.new")
    draft.touch()
    with pytest.raises(KeyFileError, match="another run"):
        keys.generate(ring)
    draft.unlink()
    assert keys.generate(ring) == 2


def test_a_failed_write_leaves_the_old_ring(ring: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ring.read_text()

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(KeyFileError, match="unchanged"):
        keys.generate(ring)
    assert ring.read_text() == before
    assert [file.name for file in ring.parent.iterdir()] == [ring.name]
