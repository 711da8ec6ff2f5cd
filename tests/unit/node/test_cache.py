"""Objects of a remote store on this machine: as many as may be, none that is in use goes, none is half."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from dicom_node.blobs.cache import Cache
from dicom_node.errors import SpoolError


def name(number: int) -> str:
    return f"{number:02x}" * 32


def admit(cache: Cache, folder: Path, number: int, *, size: int = 100, used_ago_s: float = 0.0) -> Path:
    part = folder / f"part{number}"
    part.write_bytes(bytes(size))
    path = cache.admit(part, name(number))
    os.utime(path, (time.time() - used_ago_s,) * 2)
    return path


@pytest.fixture
def cache(scratch: Path) -> Cache:
    return Cache(scratch / "cache", 1000, "this")


def test_what_was_admitted_is_found(cache: Cache, scratch: Path) -> None:
    assert cache.find(name(1)) is None
    path = admit(cache, scratch, 1)
    assert cache.find(name(1)) == path
    assert cache.used_bytes() == 100
    cache.forget(name(1))
    assert cache.find(name(1)) is None


def test_the_longest_unused_goes_first_and_what_is_in_use_never(cache: Cache, scratch: Path) -> None:
    for number in range(10):
        admit(cache, scratch, number, used_ago_s=5000.0 - number)
    for number in range(10, 13):
        admit(cache, scratch, number)
    cache.evict()
    assert cache.used_bytes() <= 1000
    assert cache.find(name(0)) is None
    assert all(cache.find(name(number)) for number in (9, 10, 11, 12))


def test_a_cache_in_use_may_exceed_its_limit(cache: Cache, scratch: Path) -> None:
    for number in range(20):
        admit(cache, scratch, number)
    assert cache.evict() == 0
    assert cache.used_bytes() == 2000


def test_a_full_disk_takes_all_that_is_not_in_use(cache: Cache, scratch: Path) -> None:
    admit(cache, scratch, 1, used_ago_s=120.0)
    admit(cache, scratch, 2)
    assert cache.evict() == 0
    assert cache.evict(pressed=True) == 100
    assert cache.find(name(2)) is not None


def test_being_asked_for_is_being_used(cache: Cache, scratch: Path) -> None:
    admit(cache, scratch, 1, used_ago_s=5000.0)
    cache.find(name(1))
    assert cache.evict(pressed=True) == 0


def test_it_looks_at_itself_as_it_fills(cache: Cache, scratch: Path) -> None:
    for number in range(30):
        admit(cache, scratch, number, used_ago_s=5000.0)
    assert cache.used_bytes() <= 1100


def test_one_fetches_for_all(cache: Cache, scratch: Path) -> None:
    fetched: list[int] = []

    def fetch() -> Path:
        fetched.append(1)
        time.sleep(0.05)
        part = scratch / "fetched"
        part.write_bytes(b"abc")
        return part

    threads = [threading.Thread(target=cache.get, args=(name(1), fetch)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 1


def test_who_fails_to_fetch_keeps_nobody_from_it(cache: Cache, scratch: Path) -> None:
    def fail() -> Path:
        raise SpoolError("away")

    with pytest.raises(SpoolError, match="away"):
        cache.get(name(1), fail)
    part = scratch / "part"
    part.write_bytes(b"abc")
    assert cache.get(name(1), lambda: part).read_bytes() == b"abc"


@pytest.mark.parametrize(("boot", "kept"), [("this", True), ("next", False), ("", False)])
def test_what_a_fall_of_the_machine_leaves_is_not_relied_on(scratch: Path, boot: str, kept: bool) -> None:
    cache = Cache(scratch / "cache", 1000, "this")
    cache.begin()
    admit(cache, scratch, 1)
    again = Cache(scratch / "cache", 1000, boot)
    again.begin()
    assert (again.find(name(1)) is not None) == kept


def test_a_disk_that_fails_is_an_error_of_ours(scratch: Path) -> None:
    (scratch / "file").write_bytes(b"")
    with pytest.raises(SpoolError, match="check the disk"):
        Cache(scratch / "file", 1000, "this")
