"""Messages stay in order and survive whatever happens between two of them."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from pathlib import Path

import pytest

from dicom_node.audit.store import State, Store
from dicom_node.errors import AuditError, AuditFull


@pytest.fixture
def store(scratch: Path) -> Store:
    return Store(scratch / "audit", 10)


def contents(store: Store) -> list[bytes | None]:
    return [store.read(number) for number in store.waiting()]


def test_messages_wait_in_the_order_in_which_they_were_put(store: Store) -> None:
    store.put([b"a", b"b"])
    store.put([b"c"])
    assert contents(store) == [b"a", b"b", b"c"]
    store.remove(store.waiting()[:2])
    assert contents(store) == [b"c"]


def test_two_processes_share_the_order(store: Store) -> None:
    other = Store(store.folder, 10)
    for each, content in ((store, b"1"), (other, b"2"), (store, b"3"), (other, b"4")):
        each.put([content])
    store.remove(store.waiting()[:2])
    other.put([b"5"])
    assert contents(store) == [b"3", b"4", b"5"]


def test_threads_share_the_order(scratch: Path) -> None:
    store = Store(scratch / "audit", 1000)
    threads = [
        threading.Thread(target=lambda n=n: [store.put([b"%d" % n]) for _ in range(20)]) for n in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.waiting() == list(range(1, 101))


def test_a_number_that_a_power_cut_took_back_is_not_given_out_twice(store: Store) -> None:
    store.put([b"a", b"b"])
    (store.folder / "lock").write_bytes(b"")
    (store.folder / "messages" / "3.part").write_bytes(b"half")
    again = Store(store.folder, 10)
    again.put([b"c"])
    assert contents(again) == [b"a", b"b", b"c"]


def test_the_bound_keeps_the_oldest_and_leaves_room_to_say_so(store: Store) -> None:
    store.put([b"x"] * 10)
    with pytest.raises(AuditFull, match=r"audit\.keep_messages"):
        store.put([b"y"])
    store.put([b"full"], beyond=True)
    assert contents(store) == [b"x"] * 10 + [b"full"]


def test_a_short_disk_is_left_to_images(scratch: Path) -> None:
    with pytest.raises(AuditFull, match="make room"):
        Store(scratch / "audit", 10, spare_bytes=1 << 60).put([b"x"])


def test_nobody_else_may_read(store: Store) -> None:
    store.put([b"x"])
    (message,) = (store.folder / "messages").iterdir()
    for path, mode in ((store.folder, 0o700), (message.parent, 0o700), (message, 0o600)):
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_state_is_kept_and_a_broken_one_is_the_beginning(store: Store) -> None:
    assert store.state() == State()
    store.note(told_to=7)
    store.note(lost=2, lost_since=1.5, seen={"keys": "x"})
    assert Store(store.folder, 10).state() == State(7, 2, 1.5, {"keys": "x"})
    (store.folder / "state.json").write_text("{")
    assert store.state() == State()


def test_what_is_gone_is_gone(store: Store) -> None:
    assert store.read(1) is None
    assert store.written_at(1) is None
    store.remove([1])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_says_so(scratch: Path) -> None:
    (scratch / "closed").mkdir(mode=0o500)
    with pytest.raises(AuditError, match="check folder and disk"):
        Store(scratch / "closed" / "audit", 10)


def test_a_folder_that_is_a_file_says_so(scratch: Path) -> None:
    (scratch / "audit").write_bytes(b"")
    with pytest.raises(AuditError, match="check folder and disk"):
        Store(scratch / "audit", 10)


def test_what_somebody_else_left_in_the_folder_is_left_alone(store: Store) -> None:
    store.put([b"one"])
    (store.folder / "messages" / ".nfs0001").write_bytes(b"")
    again = Store(store.folder, 100)
    again.put([b"two"])
    assert [again.read(number) for number in again.waiting()] == [b"one", b"two"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be led astray")
@pytest.mark.parametrize(
    "link", ["lock", "state.part", "messages/1.part", "messages", "hard-lock"], ids=lambda each: each
)
def test_root_is_not_led_out_of_a_folder_that_is_not_its_own(scratch: Path, link: str) -> None:
    """Whoever has taken over the service must not get root's files by what root does beside it."""
    victim, folder = scratch / "victim", scratch / "audit"
    (victim / "messages").mkdir(parents=True)
    (victim / "file").write_bytes(b"secret")
    (folder / "messages").mkdir(parents=True)
    os.chown(folder, 12345, 12345)
    if link == "hard-lock":
        os.link(victim / "file", folder / "lock")
    elif link == "messages":
        (folder / "messages").rmdir()
        (folder / "messages").symlink_to(victim / "messages")
    else:
        (folder / link).symlink_to(victim / "file")
    with contextlib.suppress(AuditError):
        store = Store(folder, 100)
        store.put([b"message"])
        store.note(lost=1)
    assert (victim / "file").stat().st_uid == 0
    assert (victim / "file").read_bytes() == b"secret"
    assert list((victim / "messages").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_writes_belongs_to_the_service(scratch: Path) -> None:
    folder = scratch / "state"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    store = Store(folder / "audit", 100)
    store.put([b"message"])
    store.note(lost=1)
    assert {path.stat().st_uid for path in (folder / "audit", *(folder / "audit").rglob("*"))} == {12345}
