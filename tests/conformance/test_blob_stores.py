"""What every store of objects does, the spool of one machine and those that several share."""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.buckets import S3Server, free_port
from dicom_node.blobs import asking, directory, s3, shared
from dicom_node.blobs.asking import Bucket
from dicom_node.blobs.directory import DirectoryStore
from dicom_node.blobs.port import BlobStore, Guard
from dicom_node.blobs.s3 import S3Store
from dicom_node.blobs.shared import SharedStore
from dicom_node.errors import BlobsUnavailable, SpoolError, SpoolFull
from dicom_node.ledger import Ledger
from dicom_node.spool import Blob, Spool
from tests.buckets import between
from tests.ledgers import arrival

_SPAWN = multiprocessing.get_context("spawn")
#: the server that stands for S3 takes its time
_S3 = pytest.param("s3", marks=pytest.mark.slow)
_EVERY = ("spool", "directory", _S3)
_SHARED = ("directory", _S3)


@dataclass(frozen=True)
class Made:
    """How a store is opened, in any process; `machine` tells machines apart."""

    kind: str
    scratch: Path
    bucket: Bucket | None = None
    reserve_bytes: int = 0
    young_s: float = 0.0
    keep_s: float = 0.0
    part_bytes: int = 64 << 20

    def open(self, machine: str = "one", guard: Callable[[], Guard] | None = None) -> BlobStore:
        folder = self.scratch / machine
        if self.kind == "spool":
            return Spool(self.scratch / "spool", self.reserve_bytes, keep_s=self.keep_s)
        guarded = guard or (lambda: Ledger(self.scratch / "ledger.sqlite", existing=True))
        if self.kind == "directory":
            return DirectoryStore(
                self.scratch / "shared",
                self.reserve_bytes,
                guarded,
                self.keep_s,
                young_s=self.young_s,
                machine=machine,
            )
        assert self.bucket is not None
        return S3Store(
            self.bucket,
            folder,
            self.reserve_bytes,
            guarded,
            self.keep_s,
            cache_bytes=100_000_000,
            boot="this",
            young_s=self.young_s,
            part_bytes=self.part_bytes,
        )


@pytest.fixture
def make(scratch: Path, request: pytest.FixtureRequest, book: Ledger) -> Callable[..., Made]:
    def made(kind: str, **more: Any) -> Made:
        bucket = None
        if kind == "s3":
            server: S3Server = request.getfixturevalue("s3")
            bucket = server.bucket(f"b{time.time_ns()}", scratch, url=more.pop("url", None))
        how = Made(kind, scratch, bucket, **more)
        store = how.open()
        if isinstance(store, SharedStore):
            store.claim("")
        return how

    return made


def bring_to(how: Made, machine: str, content: bytes, times: int) -> None:
    store = how.open(machine)
    for _ in range(times):
        store.put([content])


def write_and_die(how: Made) -> None:
    store = how.open("dying")
    writer = store.writer()
    writer.write(b"half of it")
    os.kill(os.getpid(), signal.SIGKILL)


def run(target: Callable[..., None], *args: object) -> int | None:
    process = _SPAWN.Process(target=target, args=args)
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.parametrize("kind", ["spool", "directory", "s3"])
def test_bytes_come_back_under_their_hash(kind: str, make: Callable[..., Made]) -> None:
    store = make(kind).open()
    blob = store.put([b"abc", memoryview(b"def"), b""])
    assert blob == Blob(hashlib.sha256(b"abcdef").hexdigest(), 6)
    assert store.path(blob.name).read_bytes() == b"abcdef"
    with store.open(blob.name) as file:
        assert file.read() == b"abcdef"
    store.verify(blob.name)
    seen = store.look(blob.name)
    assert seen is not None
    assert (seen.size, abs(seen.put_at - time.time()) < 60) == (6, True)
    assert store.used_bytes() == 6
    assert store.free_bytes() > 0


@pytest.mark.parametrize("kind", _EVERY)
def test_every_machine_sees_what_one_has_put(kind: str, make: Callable[..., Made]) -> None:
    how = make(kind)
    blob = how.open("one").put([b"abc"])
    assert how.open("two").path(blob.name).read_bytes() == b"abc"


@pytest.mark.parametrize("kind", _EVERY)
def test_what_is_absent_is_absent(kind: str, make: Callable[..., Made]) -> None:
    store = make(kind).open()
    assert store.look("ab" * 32) is None
    assert not store.remove("ab" * 32)
    with pytest.raises(SpoolError, match="ab" * 32):
        store.open("ab" * 32)


@pytest.mark.parametrize("kind", _EVERY)
@pytest.mark.parametrize("name", ["", "../../etc/passwd", "AB" * 32, "ab" * 31, "ab" * 32 + "\n"])
def test_only_hashes_are_names(kind: str, name: str, make: Callable[..., Made]) -> None:
    store = make(kind).open()
    for ask in (store.path, store.look, store.open, store.remove):
        with pytest.raises(SpoolError, match="64 hex digits"):
            ask(name)


@pytest.mark.parametrize("kind", _EVERY)
def test_many_processes_put_the_same(kind: str, make: Callable[..., Made]) -> None:
    how = make(kind)
    content = os.urandom(100_000)
    processes = [
        _SPAWN.Process(target=bring_to, args=(how, f"machine{number % 2}", content, 10))
        for number in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    store = how.open("reader")
    store.verify(hashlib.sha256(content).hexdigest())
    assert store.used_bytes() == len(content)


@pytest.mark.parametrize("kind", _EVERY)
def test_who_is_killed_in_the_middle_leaves_nothing_that_counts(kind: str, make: Callable[..., Made]) -> None:
    how = make(kind)
    assert run(write_and_die, how) == -signal.SIGKILL
    store = how.open("dying")
    assert store.used_bytes() == 0
    time.sleep(0.01)
    assert how.open("dying").sweep() == 1
    assert how.open("dying").sweep() == 0


@pytest.mark.parametrize("kind", _SHARED)
def test_who_starts_sweeps_nothing_of_another_machine(kind: str, make: Callable[..., Made]) -> None:
    how = make(kind)
    assert run(write_and_die, how) == -signal.SIGKILL
    assert how.open("other").sweep() == 0


@pytest.mark.parametrize("kind", _EVERY)
def test_only_what_nobody_needs_is_discarded(kind: str, make: Callable[..., Made]) -> None:
    store = make(kind).open()
    stays, goes = store.put([b"stays"]).name, store.put([b"goes"]).name
    time.sleep(1.1)  # S3 knows whole seconds
    assert store.discard(lambda names: frozenset(names) & {stays}) == 1
    assert (store.look(goes), store.look(stays) is not None) == (None, True)


@pytest.mark.parametrize("kind", _EVERY)
def test_what_is_young_stays(kind: str, make: Callable[..., Made]) -> None:
    store = make(kind, keep_s=1000.0).open()
    blob = store.put([b"abc"])
    assert not store.remove(blob.name)
    assert store.discard(lambda _: frozenset()) == 0
    store.verify(blob.name)


@pytest.mark.parametrize("kind", _EVERY)
def test_storing_again_heals_what_was_changed_in_the_store(kind: str, make: Callable[..., Made]) -> None:
    how = make(kind)
    blob = how.open().put([b"abc"])
    change(how, blob.name, b"xyz")
    with pytest.raises(SpoolError, match="changed"):
        how.open("two").verify(blob.name)
    assert how.open().put([b"abc"]) == blob
    how.open("two").verify(blob.name)


def change(how: Made, name: str, content: bytes) -> None:
    """As a disk or a person might."""
    if how.bucket is not None:
        key = f"{how.bucket.prefix}{name[:2]}/{name}"
        asking.client(how.bucket).put_object(Bucket=how.bucket.name, Key=key, Body=content)
    else:
        folder = "spool" if how.kind == "spool" else "shared"
        (how.scratch / folder / name[:2] / name).write_bytes(content)


@pytest.mark.slow
def test_what_was_changed_in_a_bucket_is_given_to_nobody(make: Callable[..., Made]) -> None:
    how = make("s3")
    blob = how.open().put([b"abc"])
    change(how, blob.name, b"xyz")
    with pytest.raises(SpoolError, match="has changed in bucket"):
        how.open("two").path(blob.name)
    assert how.open("two").sweep() == 0


@pytest.mark.parametrize("kind", _EVERY)
def test_without_room_for_it_nothing_begins(kind: str, make: Callable[..., Made]) -> None:
    how = make(kind, reserve_bytes=1 << 60)
    store = how.open()
    with pytest.raises(SpoolFull, match="make room"):
        store.check_room()
    blob = store.put([b"abc"])
    with pytest.raises(SpoolFull):
        store.check_room_to_work(blob.name)


# whose store it is


@pytest.mark.parametrize("kind", _SHARED)
def test_a_store_is_known_by_its_id(kind: str, make: Callable[..., Made]) -> None:
    how = make(kind)
    store = how.open()
    assert isinstance(store, SharedStore)
    known = store.claim("")
    assert store.claim(known) == known
    with pytest.raises(SpoolError, match="another store"):
        store.claim("0" * 32)


def test_an_empty_mount_point_is_no_empty_store(make: Callable[..., Made]) -> None:
    how = make("directory")
    store = how.open()
    assert isinstance(store, SharedStore)
    known = store.claim("")
    blob = store.put([b"abc"])
    (how.scratch / "shared").rename(how.scratch / "elsewhere")
    (how.scratch / "shared").mkdir()
    for ask in (store.look, store.path, store.verify):
        with pytest.raises(BlobsUnavailable):
            ask(blob.name)
    with pytest.raises(BlobsUnavailable):
        store.discard(lambda _: frozenset())
    with pytest.raises(BlobsUnavailable):
        store.put([b"def"])
    with pytest.raises(SpoolError, match="mount its file system"):
        how.open("again").claim(known)  # type: ignore[attr-defined]
    assert list((how.scratch / "shared").iterdir()) == []


@pytest.mark.slow
def test_a_bucket_that_is_not_there_is_no_empty_store(make: Callable[..., Made]) -> None:
    how = make("s3")
    elsewhere = Made("s3", how.scratch, Bucket("nobodys", "", *list_of(how))).open("two")
    for ask in (elsewhere.look, elsewhere.path, elsewhere.verify):
        with pytest.raises(BlobsUnavailable):
            ask("ab" * 32)
    with pytest.raises(BlobsUnavailable):
        elsewhere.put([b"abc"])


def list_of(how: Made) -> tuple[str | None, str | None, Path | None]:
    assert how.bucket is not None
    return how.bucket.endpoint_url, how.bucket.region, how.bucket.credentials_file


# an object arrives again while it is removed


@pytest.mark.parametrize("kind", _SHARED)
def test_an_arrival_waits_for_the_removal_and_is_kept(
    kind: str, make: Callable[..., Made], book: Ledger
) -> None:
    """Step by step: the object is there and old; it is put again between the announcement and the removal."""
    how = make(kind)
    remover, receiver = how.open("one", lambda: book), how.open("two", lambda: book)
    blob = remover.put([b"abc"])
    time.sleep(1.1)
    putting = threading.Thread(target=lambda: receiver.put([b"abc"]))
    asked = []

    def needed(names: list[str]) -> frozenset[str]:
        asked.append(names)
        if len(asked) == 2:  # announced by now
            putting.start()
            time.sleep(0.3)
            assert putting.is_alive()
        return book.needed(names)

    assert remover.discard(needed) == 1
    putting.join()
    how.open("three").verify(blob.name)


@pytest.mark.parametrize("kind", _SHARED)
def test_what_was_put_again_is_not_removed_before_its_row_is_written(
    kind: str, make: Callable[..., Made], book: Ledger
) -> None:
    how = make(kind, keep_s=1.0)
    blob = how.open().put([b"abc"])
    time.sleep(2.1)
    began = time.monotonic()
    assert how.open("two").put([b"abc"]) == blob  # pinned for a second from now on
    removed = how.open().remove(blob.name, keep_s=0.0)
    assert not removed or time.monotonic() - began > 1.0
    time.sleep(1.1)
    assert removed or how.open().remove(blob.name, keep_s=0.0)


#: who lays is paused for so long: more than half of what is young below, and the seconds that S3 leaves out
_PAUSE_S = 2.1


@pytest.mark.parametrize("kind", _SHARED)
def test_what_took_long_to_lay_is_not_removed_before_its_row_is_written(
    kind: str, make: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is as old as its first part, and nobody has announced it yet."""
    how = make(kind, keep_s=1000.0, young_s=1.0)
    receiver = how.open("two")
    laid_then(receiver, lambda: time.sleep(_PAUSE_S), monkeypatch)
    blob = receiver.put([b"abc"])
    assert not how.open().remove(blob.name, keep_s=0.0)
    how.open("three").verify(blob.name)


@pytest.mark.parametrize("kind", _SHARED)
def test_what_was_removed_before_whoever_laid_it_went_on_is_laid_again(
    kind: str, make: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    how = make(kind, keep_s=1000.0, young_s=1.0)
    receiver, name = how.open("two"), hashlib.sha256(b"abc").hexdigest()
    removed = []

    def remove() -> None:
        time.sleep(_PAUSE_S)
        removed.append(how.open().remove(name, keep_s=0.0))

    laid_then(receiver, remove, monkeypatch)
    receiver.put([b"abc"])
    assert removed == [True]
    how.open("three").verify(name)
    assert not how.open().remove(name, keep_s=0.0)


def laid_then(store: BlobStore, step: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have something happen when an object was first laid, before the store hears of it."""
    assert isinstance(store, SharedStore)
    lay, steps = store._lay, iter([step])

    def slowly(part: Path, name: str) -> bool:
        laid = lay(part, name)
        next(steps, lambda: None)()
        return laid

    monkeypatch.setattr(store, "_lay", slowly)


def test_an_object_is_as_old_as_its_name(make: Callable[..., Made]) -> None:
    """Whatever a mount that hangs does between the last write and the name."""
    how = make("directory")
    store = how.open()
    writer = store.writer()
    writer.write(b"abc")
    (part,) = (how.scratch / "shared").glob("*/one/tmp/*")
    os.utime(part, (1.0, 1.0))
    seen = store.look(writer.keep().name)
    assert seen is not None
    assert seen.put_at > time.time() - 60.0


@pytest.mark.slow
def test_a_removal_that_came_between_is_no_failure(
    make: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Amazon's 409: there was something under the name, and now there is not."""
    how = make("s3")
    store = how.open()
    assert isinstance(store, S3Store)
    send, refusals = store._send, iter([asking.Taken()])

    def refused_once(*parts: Any) -> None:
        for refusal in refusals:
            raise refusal
        send(*parts)

    monkeypatch.setattr(store, "_send", refused_once)
    how.open("two").verify(store.put([b"abc"]).name)


@pytest.mark.parametrize("kind", _SHARED)
def test_no_removal_begins_that_was_announced_long_ago(
    kind: str, make: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader's machine sleeps between its last question and the removal; others may put meanwhile."""
    store, slept = make(kind).open(), [0.0]
    assert isinstance(store, SharedStore)
    blob = store.put([b"abc"])
    time.sleep(1.1)
    for module in (shared, directory, s3):
        monkeypatch.setattr(module, "boottime", lambda: time.monotonic() + slept[0])
    drop = store._drop

    def asleep(*names: Any) -> int:
        slept[0] += 3600.0
        return drop(*names)

    monkeypatch.setattr(store, "_drop", asleep)
    assert not store.remove(blob.name)
    store.verify(blob.name)
    monkeypatch.setattr(store, "_drop", drop)
    assert store.remove(blob.name)


#: what is removed is at least so old: with 0 nothing is young and all is pinned; S3 leaves out seconds, twice
_YOUNG_S = (
    pytest.param("directory", 0.0, id="directory-pinned"),
    pytest.param("directory", 2.0, id="directory-young"),
    pytest.param("s3", 0.0, marks=pytest.mark.slow, id="s3-pinned"),
    pytest.param("s3", 6.0, marks=pytest.mark.slow, id="s3-young"),
)


@pytest.mark.parametrize(("kind", "young_s"), _YOUNG_S)
def test_arrivals_and_removals_at_once_lose_nothing(
    kind: str, young_s: float, make: Callable[..., Made], book: Ledger
) -> None:
    """The same few objects come again and again while whatever no row needs is removed."""
    how = make(kind, keep_s=1.0, young_s=young_s)
    contents = [bytes([number]) * 1000 for number in range(8)]
    done = threading.Event()
    removed: list[int] = []

    def remove() -> None:
        store = how.open("leader", lambda: book)
        while not done.is_set():
            removed.append(store.discard(book.needed, keep_s=0.0))

    remover = threading.Thread(target=remove)
    remover.start()
    try:
        store, turns = how.open("receiver", lambda: book), itertools.count()
        until = time.monotonic() + 120.0
        while sum(removed) < 12 and time.monotonic() < until:
            turn, began = next(turns), time.monotonic()
            blob = store.put([contents[turn % 8]])
            time.sleep(0.1)  # the leader goes on meanwhile
            book.add(arrival(uid=f"1.2.{turn}"), blob.name, blob.size)
            seen = store.look(blob.name)
            # whoever takes longer than it is kept for to write its row was promised nothing
            assert seen is not None or time.monotonic() - began > 1.0
            book.reject(book_hold(book), "test")
            if turn % 16 == 15:  # longer than they are pinned, so that removals meet arrivals
                time.sleep(0.5)
    finally:
        done.set()
        remover.join()
    assert sum(removed) >= 12


def book_hold(book: Ledger) -> int:
    """Take the one instance that waits and hold it: rejected, it needs its bytes no more."""
    from dicom_node.jobs import InstanceState, Outcome

    (work,) = book.claim_work("w", 1, 60.0)
    book.finish(work, Outcome(InstanceState.HELD, "held", reason="test"))
    return work.id


# a store that is away


@pytest.mark.slow
def test_a_server_that_is_away_refuses_and_comes_back(make: Callable[..., Made], s3: S3Server) -> None:
    with between(s3.url) as door:
        how = make("s3", url=door.url)
        store = how.open()
        before = store.put([b"before"])
        door.refusal = 503
        with pytest.raises(BlobsUnavailable, match="status 503") as caught:
            store.put([b"abc"])
        assert (caught.value.retryable, caught.value.dimse_status) == (True, 0xA700)
        with pytest.raises(BlobsUnavailable):
            how.open("two").path(before.name)
        with pytest.raises(BlobsUnavailable):
            store.look("ab" * 32)
        door.refusal = 403
        with pytest.raises(BlobsUnavailable, match="credentials"):
            store.put([b"abc"])
        door.refusal = None
        blob = store.put([b"abc"])
        how.open("two").verify(blob.name)
        assert store.sweep() == 0


@pytest.mark.slow
def test_a_server_that_never_answers_is_not_waited_for_for_ever(
    make: Callable[..., Made], s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = make("s3")
    monkeypatch.setattr(asking, "_READ_S", 0.2)
    store = how.open("two")
    s3.freeze()
    try:
        with pytest.raises(BlobsUnavailable, match="cannot be reached"):
            store.put([b"abc"])
    finally:
        s3.thaw()
    how.open("three").verify(how.open().put([b"abc"]).name)


@pytest.mark.slow
def test_a_full_disk_gives_up_the_cache_first(
    make: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make("s3").open()
    blob = store.put([b"abc"])
    cached = store.path(blob.name)
    os.utime(cached, (1.0, 1.0))
    store.adopt(1000, 0.0)
    monkeypatch.setattr(Spool, "check_room", lambda _: _full(cached))
    store.check_room()
    assert not cached.exists()
    store.path(blob.name)
    with pytest.raises(SpoolFull):
        store.check_room()  # what is in use stays


def _full(cached: Path) -> None:
    if cached.exists():
        raise SpoolFull("full")


@pytest.mark.slow
def test_a_server_that_nobody_answers_for(make: Callable[..., Made]) -> None:
    how = make("s3")
    assert how.bucket is not None
    away = Bucket("b", "", f"http://127.0.0.1:{free_port()}", "us-east-1", how.bucket.credentials_file)
    with pytest.raises(BlobsUnavailable, match="cannot be reached") as caught:
        Made("s3", how.scratch, away).open("two").put([b"abc"])
    assert "127.0.0.1" not in str(caught.value)


@pytest.mark.slow
def test_a_server_that_does_not_know_conditions(
    make: Callable[..., Made], s3: S3Server, book: Ledger
) -> None:
    """It puts over what is there; so an object is asked for first, and an old one is pinned all the same."""
    with between(s3.url) as door:
        door.without = frozenset({"If-None-Match"})
        how = make("s3", url=door.url, keep_s=1000.0)
        name = hashlib.sha256(b"abc").hexdigest()
        change(how, name, b"abc")  # nobody has pinned it
        time.sleep(1.1)
        assert how.open("two").put([b"abc"]).name == name
        assert not book.doom([name], 100.0)


# large objects, and the cache


@pytest.mark.slow
def test_a_large_object_goes_in_parts(make: Callable[..., Made], book: Ledger) -> None:
    how = make("s3", part_bytes=5 << 20)
    content = os.urandom((12 << 20) + 17)
    store = how.open()
    blob = store.put([content[:1000], content[1000:]])
    assert how.open("two").path(blob.name).read_bytes() == content
    time.sleep(1.1)
    assert store.put([content]) == blob
    assert how.bucket is not None
    left = asking.client(how.bucket).list_multipart_uploads(Bucket=how.bucket.name)
    assert left.get("Uploads", []) == []


@pytest.mark.slow
def test_an_upload_that_has_ended_is_tried_again_by_the_sender(
    make: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to its end was lost, and of the second request the server knows no upload any more."""
    store = make("s3", part_bytes=5 << 20).open()
    assert isinstance(store, S3Store)
    ask, content = store._ask, os.urandom((5 << 20) + 1)

    def lost(operation: str, *names: Any, **more: Any) -> Any:
        answer = ask(operation, *names, **more)
        if operation == "complete_multipart_upload":
            raise asking.Absent
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(store, "_ask", lost)
        with pytest.raises(BlobsUnavailable, match="has ended already"):
            store.put([content])
    store.verify(store.put([content]).name)


@pytest.mark.slow
def test_one_object_is_fetched_once(make: Callable[..., Made]) -> None:
    how = make("s3")
    blob = how.open().put([b"abc" * 1000])
    store = how.open("two")
    fetched = []
    assert isinstance(store, S3Store)
    fetch = store._fetch
    store._fetch = lambda name: fetched.append(name) or fetch(name)  # type: ignore[method-assign,func-returns-value]
    threads = [threading.Thread(target=store.path, args=(blob.name,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fetched == [blob.name]
