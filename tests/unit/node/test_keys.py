"""A key ring only grows, is private, and never shows a secret."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
from collections.abc import Callable
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
    with pytest.raises(KeyFileError, match=r"another user.*run: the command as sudo -u '#12345'$"):
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
    with pytest.raises(KeyFileError, match="not plain ASCII text"):
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


# ---- rotation at a time ----


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the clock of the ring."""

    def set_(moment: str) -> None:
        monkeypatch.setattr(keys, "now", lambda: moment)

    return set_


def test_a_key_may_become_current_later_and_is_read_with_before(
    ring: Path, at: Callable[[str], None]
) -> None:
    at("2027-01-01T00:00:00Z")
    assert keys.generate(ring, "2027-02-01T00:00:00Z") == 2
    assert [key.id for key in FileKeyRing.load(ring).keys] == [1, 2]
    assert [(info.current, info.current_from) for info in keys.describe(ring)] == [
        (True, ""),
        (False, "2027-02-01T00:00:00Z"),
    ]
    at("2027-02-01T00:00:00Z")
    assert [key.id for key in FileKeyRing.load(ring).keys] == [2, 1]
    assert [(info.current, info.current_from) for info in keys.describe(ring)] == [(False, ""), (True, "")]


def test_plans_follow_each_other_and_a_key_for_now_ends_them(ring: Path, at: Callable[[str], None]) -> None:
    at("2027-01-01T00:00:00Z")
    keys.generate(ring, "2027-03-01T00:00:00Z")
    keys.generate(ring, "2027-02-01T00:00:00Z")  # earlier than the plan before, which it ends
    assert [info.current_from for info in keys.describe(ring)] == ["", "", "2027-02-01T00:00:00Z"]
    keys.generate(ring, "2027-04-01T00:00:00Z")
    for moment, current in (("01", 1), ("02", 3), ("03", 3), ("04", 4)):
        at(f"2027-{moment}-02T00:00:00Z")
        assert FileKeyRing.load(ring).current.id == current
    at("2027-01-02T00:00:00Z")
    assert keys.generate(ring) == 5
    assert [info.current_from for info in keys.describe(ring)] == [""] * 5
    at("2028-01-01T00:00:00Z")
    assert FileKeyRing.load(ring).current.id == 5


def test_a_time_that_has_passed_is_now_and_the_first_key_is_always_current(
    tmp_path: Path, at: Callable[[str], None]
) -> None:
    at("2027-01-01T00:00:00Z")
    path = tmp_path / "keyring"
    keys.generate(path, "2027-02-01T00:00:00Z")
    assert FileKeyRing.load(path).current.id == 1
    keys.generate(path, "2026-02-01T00:00:00Z")
    assert FileKeyRing.load(path).current.id == 2
    with pytest.raises(KeyFileError, match="2027-02-15T00:00:00Z"):
        keys.generate(path, "tomorrow")


# ---- revocation ----


def test_a_revoked_key_is_read_with_and_never_written_with(ring: Path) -> None:
    with pytest.raises(KeyFileError, match="make another current first"):
        keys.revoke(ring, 1)
    keys.generate(ring)
    keys.revoke(ring, 1)
    loaded = FileKeyRing.load(ring)
    assert [key.id for key in loaded.keys] == [2, 1]
    assert list(loaded.revoked) == [1]
    assert [bool(info.revoked) for info in keys.describe(ring)] == [True, False]
    before = ring.read_text()
    keys.revoke(ring, 1)  # the first time counts
    assert ring.read_text() == before
    with pytest.raises(KeyFileError, match="holds no key 9"):
        keys.revoke(ring, 9)


def test_a_clock_that_is_put_back_brings_no_revoked_key_back(ring: Path, at: Callable[[str], None]) -> None:
    at("2027-01-01T00:00:00Z")
    keys.generate(ring, "2027-02-01T00:00:00Z")
    at("2027-03-01T00:00:00Z")
    keys.revoke(ring, 1)
    at("2027-01-15T00:00:00Z")
    assert FileKeyRing.load(ring).current.id == 2


def test_a_key_whose_time_is_to_come_is_not_revoked_but_replaced(ring: Path) -> None:
    keys.generate(ring, "2999-01-01T00:00:00Z")
    with pytest.raises(KeyFileError, match="now or from a time to come"):
        keys.revoke(ring, 2)
    keys.generate(ring)
    keys.revoke(ring, 2)
    keys.revoke(ring, 1)
    assert set(FileKeyRing.load(ring).revoked) == {1, 2}


@pytest.mark.parametrize(
    "lines",
    [
        "current 1\nrevoked 1 2026-01-01T00:00:00Z\n",
        "current 1\nrevoked 2 2026-01-01T00:00:00Z\n",
        "current 1\nrevoked 1 yesterday\n",
        "current 1 from 2026-01-01T00:00:00Z\n",
        "current 1\ncurrent 1 from 2026-01-01\n",
        "current 1\ncurrent 2 from 2026-01-01T00:00:00Z\n",
        "current 1\ncurrent 1 from 2026-01-01T00:00:00Z\ncurrent 1 from 2026-01-01T00:00:00Z\n",
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path: Path, lines: str) -> None:
    path = tmp_path / "keyring"
    path.write_text(f"key 1 2026-01-01T00:00:00Z {_SECRET}\n{lines}")
    path.chmod(0o600)
    with pytest.raises(KeyFileError):
        FileKeyRing.load(path)


# ---- a ring in use ----


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def test_a_ring_in_use_follows_its_file_and_the_clock(ring: Path, at: Callable[[str], None]) -> None:
    at("2027-01-01T00:00:00Z")
    clock = Clock()
    present = keys.PresentRing(ring, clock)
    first = present.now()
    keys.generate(ring, "2027-02-01T00:00:00Z")
    assert present.now() is first  # it does not look at every image
    clock.time += 2
    assert [key.id for key in present.now().keys] == [1, 2]
    second = present.now()
    at("2027-02-01T00:00:00Z")
    clock.time += 2
    assert [key.id for key in present.now().keys] == [2, 1]
    assert [key.id for key in second.keys] == [1, 2]  # whoever holds it holds what it was


def test_a_ring_that_becomes_no_good_stays_as_it_was(ring: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    present = keys.PresentRing(ring, clock)
    first, good = present.now(), ring.read_text()
    ring.write_text("nothing")
    for _ in range(3):
        clock.time += 2
        assert present.now() is first
    assert [record.message for record in caplog.records] == ["keys-not-reloaded"]
    ring.write_text(good)
    clock.time += 2
    assert present.now() == first


# ---- merging ----


def test_a_ring_takes_the_keys_of_another(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for _ in range(3):
        keys.generate(one)
    keys.revoke(one, 1)
    assert keys.merge(two, keys.text_of(one), "export") == (1, 2, 3)
    assert keys.text_of(two) == keys.text_of(one)
    assert stat.S_IMODE(two.stat().st_mode) == 0o600
    keys.generate(one)
    assert keys.merge(two, keys.text_of(one), "export") == (4,)
    assert FileKeyRing.load(two).current.id == 3  # what comes in is for reading
    assert keys.merge(two, keys.text_of(one), "export") == ()


def test_a_ring_with_another_key_of_the_same_id_is_not_mixed_in(ring: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    keys.generate(other)
    before = ring.read_text()
    with pytest.raises(KeyFileError, match="key 1 of export is another key than key 1"):
        keys.merge(ring, keys.text_of(other), "export")
    with pytest.raises(KeyFileError, match="none of `key ID"):
        keys.merge(ring, "rubbish\n", "export")
    assert ring.read_text() == before


def test_the_keys_of_two_sites_fit_into_the_ring_of_one_reader(ring: Path, tmp_path: Path) -> None:
    """Every ring begins with key 1; what a mark names is the fingerprint, so the id may be another here."""
    other = tmp_path / "other"
    for _ in range(2):
        keys.generate(other)
    theirs = {key.secret: keys.fingerprint(key) for key in FileKeyRing.load(other).keys}
    with pytest.raises(KeyFileError, match="--renumber"):
        keys.merge(ring, keys.text_of(other), "export")
    assert keys.merge(ring, keys.text_of(other), "export", renumber=True) == (3, 2)
    merged = FileKeyRing.load(ring)
    assert merged.current.id == 1
    assert theirs.items() <= {key.secret: keys.fingerprint(key) for key in merged.keys}.items()
    # the same again, and what that site did since, follows the keys and not their ids
    keys.generate(other)
    keys.revoke(other, 1)
    assert keys.merge(ring, keys.text_of(other), "export", renumber=True) == (4,)
    revoked = FileKeyRing.load(ring).revoked
    by_id = {key.id: key.secret for key in FileKeyRing.load(ring).keys}
    first = next(key.secret for key in FileKeyRing.load(other).keys if key.id == 1)
    assert [by_id[identity] for identity in revoked] == [first]


def test_a_current_key_that_the_other_ring_has_revoked_is_not_taken_over(ring: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    keys.merge(other, keys.text_of(ring), "export")
    keys.generate(other)
    keys.revoke(other, 1)
    with pytest.raises(KeyFileError, match="revoked cannot be current"):
        keys.merge(ring, keys.text_of(other), "export")


def test_what_the_service_manager_hands_over_is_read_and_never_written(
    ring: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(ring.parent))
    ring.chmod(0o440)  # systemd guards it by a list that looks like this
    assert FileKeyRing.load(ring).current.id == 1
    for change in (lambda: keys.generate(ring), lambda: keys.revoke(ring, 1)):
        with pytest.raises(KeyFileError, match="LoadCredential"):
            change()


def test_a_fingerprint_names_a_key_in_public(ring: Path) -> None:
    (key,) = FileKeyRing.load(ring).keys
    assert re.fullmatch("[0-9a-f]{8}", keys.fingerprint(key))
    assert keys.fingerprint(key) not in key.secret.hex()


def test_runs_at_the_same_time_lose_no_key(ring: Path) -> None:
    """Those that are too late are told, and change nothing."""
    done: list[int] = []

    def make() -> None:
        with contextlib.suppress(KeyFileError):
            done.append(keys.generate(ring))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert done
    assert sorted(done) == [info.id for info in keys.describe(ring)][1:]
