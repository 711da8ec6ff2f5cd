"""Whatever is cut off, and wherever, a name in the spool stands for complete bytes that hash to it."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.errors import SpoolError, SpoolFull
from dicom_node.spool import Blob, Spool

_MEMORY = Path("/dev/shm")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory where possible: these tests are about what survives a process, not about the disk's speed."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", 0, keep_s=0.0)


def objects(spool: Spool) -> list[str]:
    return sorted(file.name for file in spool.folder.glob("??/*"))


def parts(spool: Spool) -> list[Path]:
    return list((spool.folder / "tmp").iterdir())


def assert_sound(spool: Spool) -> None:
    """Rule 1 for every file, and nothing half-written."""
    for name in objects(spool):
        spool.verify(name)
    assert parts(spool) == []


def test_bytes_come_back_under_their_hash(spool: Spool) -> None:
    blob = spool.put([b"abc", memoryview(b"def"), bytearray(b"ghi"), b""])
    assert blob == Blob(hashlib.sha256(b"abcdefghi").hexdigest(), 9)
    with spool.open(blob.name) as file:
        assert file.read() == b"abcdefghi"
    assert spool.path(blob.name).read_bytes() == b"abcdefghi"
    assert_sound(spool)


def test_size_counts_bytes_not_items(spool: Spool) -> None:
    assert spool.put([memoryview(b"abcdefgh").cast("I")]).size == 8


def test_the_same_content_is_the_same_object(spool: Spool) -> None:
    assert spool.put([b"ab", b"c"]) == spool.put([b"abc"])
    assert len(objects(spool)) == 1
    assert spool.used_bytes() == 3


def test_an_object_is_looked_at_without_being_opened(spool: Spool) -> None:
    blob = spool.put([b"abc"])
    seen = spool.look(blob.name)
    assert seen is not None
    assert (seen.size, abs(seen.put_at - time.time()) < 60) == (3, True)
    assert spool.look("0" * 64) is None
    with pytest.raises(SpoolError, match="64 hex digits"):
        spool.look("../../x")


def test_storing_again_heals_a_damaged_object(spool: Spool) -> None:
    blob = spool.put([b"abc"])
    spool.path(blob.name).write_bytes(b"xyz")
    with pytest.raises(SpoolError, match="changed on disk"):
        spool.verify(blob.name)
    spool.put([b"abc"])
    spool.verify(blob.name)


def test_an_absent_object_is_an_error_that_names_it(spool: Spool) -> None:
    with pytest.raises(SpoolError, match="ab" * 32):
        spool.open("ab" * 32)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "AB" * 32, "ab" * 31, "ab" * 32 + "\n", "/" * 64])
def test_only_hashes_are_names(spool: Spool, name: str) -> None:
    with pytest.raises(SpoolError, match="64 hex digits"):
        spool.path(name)


def test_nothing_is_readable_by_others(spool: Spool) -> None:
    blob = spool.put([b"abc"])
    for path in (spool.folder, spool.path(blob.name).parent, spool.path(blob.name)):
        assert path.stat().st_mode & 0o077 == 0


class PeerVanishedError(Exception):
    pass


def vanishing() -> Iterator[bytes]:
    yield b"half"
    raise PeerVanishedError


def test_a_source_that_breaks_leaves_nothing(spool: Spool) -> None:
    with pytest.raises(PeerVanishedError):
        spool.put(vanishing())
    assert objects(spool) == []
    assert_sound(spool)


@pytest.mark.parametrize("call", ["write", "fdatasync", "fsync"])
@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, SpoolFull),
        (errno.EDQUOT, SpoolFull),
        (errno.EIO, SpoolError),
        (errno.EROFS, SpoolError),
    ],
)
def test_a_failing_disk_is_told_and_leaves_nothing_half_written(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, call: str, number: int, error: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(error, match=os.strerror(number)):
            spool.put([b"abc"])
    assert_sound(spool)
    spool.put([b"abc"])


def test_short_writes_are_continued(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: whole(handle, memoryview(data)[:3]))
    spool.verify(spool.put([b"0123456789"]).name)


def test_a_size_limit_of_the_process_is_told_as_no_room(spool: Spool) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(SpoolFull):
            spool.put([b"x" * 3000, b"x" * 3000])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert objects(spool) == []
    assert_sound(spool)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("cannot mount a small file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_really_full_disk(small_disk: Path) -> None:
    spool = Spool(small_disk / "spool", 1_000_000, keep_s=0.0)
    kept = spool.put([b"k" * 100_000]).name
    with pytest.raises(SpoolFull):
        spool.put(iter([os.urandom(1_000_000)] * 5))
    assert not (small_disk / "spool" / "reserve").exists(), "the reserve must have been given back"
    assert_sound(spool)
    filler = [spool.put([os.urandom(900_000)]).name for _ in range(4)]
    with pytest.raises(SpoolFull, match="reserve is 1000000"):
        spool.check_room()
    for name in filler:
        spool.remove(name)
    spool.check_room()
    assert (small_disk / "spool" / "reserve").exists(), "the reserve must be taken again"
    spool.verify(kept)


def test_arrivals_stop_before_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path / "spool", 0)
    spool.check_room()
    spool.reserve_bytes = spool.free_bytes() * 2
    with pytest.raises(SpoolFull, match="make room"):
        spool.check_room()


def test_work_stops_when_its_output_would_take_half_of_the_reserve(spool: Spool) -> None:
    name = spool.put([bytes(1000)]).name
    spool.reserve_bytes = spool.free_bytes()
    spool.check_room_to_work(name)
    spool.reserve_bytes = 3 * spool.free_bytes()
    with pytest.raises(SpoolFull, match="make room"):
        spool.check_room_to_work(name)


def test_arrivals_stop_before_inodes_run_out(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(spool.folder)
    fields = list(real)
    fields[7] = 3  # f_favail
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(fields))
    with pytest.raises(SpoolFull, match="inodes"):
        spool.check_room()


def test_an_unusable_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError):
        Spool(tmp_path / "file" / "spool", 0)


def test_removal(spool: Spool) -> None:
    name = spool.put([b"abc"]).name
    assert spool.remove(name)
    assert not spool.remove(name)
    assert objects(spool) == []


def test_a_fresh_object_is_not_removed_even_if_nothing_needs_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 0, keep_s=60.0)
    name = spool.put([b"abc"]).name
    assert not spool.remove(name)
    long_ago = time.time() - 61.0
    os.utime(spool.path(name), (long_ago, long_ago))
    spool.put([b"abc"])
    assert not spool.remove(name), "the same object put again is fresh again"
    os.utime(spool.path(name), (long_ago, long_ago))
    assert spool.remove(name)


def test_discard_removes_what_is_old_and_not_needed(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 0, keep_s=60.0)
    names = [spool.put([bytes([number])]).name for number in range(6)]
    long_ago = time.time() - 61.0
    for name in names[:4]:
        os.utime(spool.path(name), (long_ago, long_ago))
    assert spool.discard(lambda batch: frozenset(batch) & {names[0]}) == 3
    assert set(objects(spool)) == {names[0], names[4], names[5]}


def test_sweep_removes_what_crashed_writers_left(spool: Spool) -> None:
    (spool.folder / "tmp" / "1-2-3-dead").write_bytes(b"half")
    long_ago = time.time() - 60.0
    os.utime(spool.folder / "tmp" / "1-2-3-dead", (long_ago, long_ago))
    kept = spool.put([b"abc"]).name
    assert Spool(spool.folder, 0).sweep() == 1
    assert parts(spool) == []
    spool.verify(kept)


def test_sweep_leaves_living_writers_alone(spool: Spool) -> None:
    def slowly() -> Iterator[bytes]:
        yield b"first"
        (part,) = parts(spool)
        long_ago = time.time() - 60.0
        os.utime(part, (long_ago, long_ago))
        assert Spool(spool.folder, 0).sweep() == 0
        yield b"second"

    spool.verify(spool.put(slowly()).name)


def test_many_threads_store_the_same_and_different_things(spool: Spool) -> None:
    failures: list[BaseException] = []

    def store(seed: int) -> None:
        try:
            for number in range(20):
                spool.put([b"shared", str(number).encode()])
                spool.put([str(seed).encode(), b"own", str(number).encode()])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=store, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(objects(spool)) == 20 + 4 * 20
    assert_sound(spool)


def test_storing_and_discarding_race_without_losing_a_fresh_object(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 0, keep_s=60.0)
    lost: list[str] = []

    def store() -> None:
        for _ in range(60):
            name = spool.put([b"contended"]).name
            if not spool.path(name).exists():
                lost.append(name)
            os.utime(spool.path(name), (1.0, 1.0))

    def discard() -> None:
        while storing.is_alive():
            spool.discard(lambda _: frozenset())

    storing = threading.Thread(target=store)
    storing.start()
    discard()
    storing.join()
    assert lost == []


_CHILD = """
import os, signal, sys
from pathlib import Path
from dicom_node.spool import Spool

def die(*_): os.kill(os.getpid(), signal.SIGKILL)
spool = Spool(Path(sys.argv[1]), 0)
point = sys.argv[2]
if point == "half-written":
    def chunks():
        yield b"half"
        die()
    spool.put(chunks())
if point == "written":
    os.fdatasync = die
if point == "synced":
    os.rename = die
if point == "renamed":
    os.fsync = die
spool.put([b"half", b"whole"])
print("acknowledged", flush=True)
die()
"""


@pytest.mark.parametrize("point", ["half-written", "written", "synced", "renamed", "returned"])
def test_a_killed_writer_leaves_all_or_nothing(spool: Spool, point: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(spool.folder), point], capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    for part in parts(spool):
        os.utime(part, (1.0, 1.0))
    Spool(spool.folder, 0).sweep()
    assert_sound(spool)
    whole = hashlib.sha256(b"halfwhole").hexdigest()
    assert objects(spool) == ([whole] if point in ("renamed", "returned") else [])
    assert (b"acknowledged" in done.stdout) == (point == "returned")


def test_an_output_leaves_half_of_the_reserve_however_large_it_becomes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decompressed, an object is many times what was looked at before the work began."""
    spool = Spool(tmp_path, 8_000_000)
    monkeypatch.setattr(Spool, "free_bytes", lambda _self: 6_000_000 - sum_of_parts(tmp_path))
    assert spool.put_output([bytes(1_900_000)]).size == 1_900_000
    with pytest.raises(SpoolFull, match="too few to work on"):
        spool.put_output(bytes([number]) * 100_000 for number in range(40))
    assert list((tmp_path / "tmp").iterdir()) == []


def sum_of_parts(folder: Path) -> int:
    return sum(part.stat().st_size for part in (folder / "tmp").iterdir())
