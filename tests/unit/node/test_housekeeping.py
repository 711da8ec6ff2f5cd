"""Spool and ledger agree after a start, and only what nobody needs goes."""

from __future__ import annotations

import itertools
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node import housekeeping, log
from dicom_node.config import Config
from dicom_node.errors import LedgerError, LedgerUnavailable, SpoolError
from dicom_node.housekeeping import Found, Housekeeper, reconcile
from dicom_node.jobs import DeliveryState, InstanceState, Outcome, Receipt
from dicom_node.ledger import Ledger
from dicom_node.metrics import STORES, Reading
from dicom_node.spool import Blob, Spool
from tests.ledgers import Clock, arrival, outcome


@pytest.fixture
def spool(scratch: Path) -> Spool:
    return Spool(scratch / "spool", 0, keep_s=0.0)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[dict[str, object]]]:
    """What was logged, as shown; filled at the end of the block that reads it."""
    shown: list[dict[str, object]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            shown.append(json.loads(json.dumps(log.line(record))))

    handler = Keep()
    logger = logging.getLogger("dicom_node.housekeeping")
    logger.addHandler(handler)
    caplog.set_level(logging.DEBUG, logger.name)
    yield shown
    logger.removeHandler(handler)


def arrive(spool: Spool, book: Ledger, content: bytes, uid: str = "1.2.3") -> Blob:
    blob = spool.put([content])
    book.add(arrival(uid), blob.name, blob.size)
    return blob


def leave(spool: Spool, book: Ledger, content: bytes, output: bytes, uid: str = "1.2.3") -> tuple[Blob, Blob]:
    """An object that arrived, was marked, and waits for pacs."""
    came, left = arrive(spool, book, content, uid), spool.put([output])
    (work,) = book.claim_work("w", 1, 10.0)
    ready = Outcome(
        InstanceState.READY,
        "protected",
        blob=left.name,
        size=left.size,
        sop_instance_uid="2.25.1",
        destinations=("pacs",),
    )
    book.finish(work, ready)
    return came, left


def spoil(spool: Spool, blob: Blob, content: bytes) -> None:
    spool.path(blob.name).write_bytes(content)


# what a start finds


def test_rows_and_bytes_in_step_are_left_alone(spool: Spool, book: Ledger) -> None:
    leave(spool, book, b"came", b"leaves")
    arrive(spool, book, b"another", "1.9")
    assert reconcile(spool, book, "boot") == Found(checked=2, lost=0, remade=0)
    assert book.held() == []
    assert len(book.claim_work("w", 8, 10.0)) == 1


def test_a_long_start_gives_signs_of_life(
    spool: Spool, book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "_PROGRESS", 2)
    for number in range(5):
        arrive(spool, book, str(number).encode(), f"1.{number}")
    signs: list[int] = []
    assert reconcile(spool, book, "boot", progress=lambda: signs.append(1)) == Found(5, 0, 0)
    assert len(signs) == 2


@pytest.mark.parametrize(("left", "reason"), [(None, "bytes-missing"), (b"cam", "bytes-changed")])
def test_what_arrived_and_is_gone_is_quarantined_aloud(
    spool: Spool, book: Ledger, lines: list[dict[str, object]], left: bytes | None, reason: str
) -> None:
    blob = arrive(spool, book, b"came")
    spool.path(blob.name).unlink()
    if left is not None:
        spoil(spool, blob, left)
    assert reconcile(spool, book, "boot") == Found(1, 1, 0)
    (kept,) = book.held()
    assert (kept.state, kept.reason) == (InstanceState.QUARANTINED, reason)
    (line,) = [line for line in lines if line["event"] == "bytes-lost"]
    assert (line["level"], line["job"], line["reason"]) == ("error", 1, reason)
    assert reconcile(spool, book, "boot") == Found(0, 0, 0), "it is told once"
    arrive(spool, book, b"came")
    assert len(book.claim_work("w", 8, 10.0)) == 1, "sent again, it goes its way"


def test_what_was_to_leave_is_made_again_from_what_arrived(
    spool: Spool, book: Ledger, lines: list[dict[str, object]]
) -> None:
    _, left = leave(spool, book, b"came", b"leaves")
    spool.path(left.name).unlink()
    assert reconcile(spool, book, "boot") == Found(1, 1, 1)
    assert [line["event"] for line in lines] == ["made-again"]
    (work,) = book.claim_work("w", 8, 10.0)
    spool.put([b"leaves"])
    book.finish(work, Outcome(InstanceState.READY, "protected", blob=left.name, destinations=("pacs",)))
    (send,) = book.claim_sends("pacs", 8, 10.0)
    spool.verify(send.blob)


@pytest.mark.parametrize("source", [None, b"cAme", b"ca"])
def test_what_cannot_be_made_again_is_a_dead_letter(spool: Spool, book: Ledger, source: bytes | None) -> None:
    came, left = leave(spool, book, b"came", b"leaves")
    spool.path(left.name).unlink()
    spool.path(came.name).unlink()
    if source is not None:
        spoil(spool, came, source)
    assert reconcile(spool, book, "boot") == Found(1, 1, 0)
    assert [letter.reason for letter in book.dead_letters()] == ["bytes-missing"]
    assert book.claim_work("w", 8, 10.0) == []


def test_contents_are_compared_only_after_the_machine_fell(
    spool: Spool, scratch: Path, lines: list[dict[str, object]]
) -> None:
    book = Ledger(scratch / "now.sqlite")
    assert reconcile(spool, book, "boot-1") == Found(0, 0, 0)
    blob = arrive(spool, book, b"came")
    spoil(spool, blob, b"CAME")
    assert reconcile(spool, book, "boot-1") == Found(1, 0, 0), "the node was killed; the disk kept its word"
    assert reconcile(spool, book, "boot-2") == Found(1, 1, 0)
    assert [line["reason"] for line in lines] == ["bytes-changed"]
    book.close()


def test_old_objects_are_not_read_again_after_a_fall(spool: Spool, scratch: Path) -> None:
    book = Ledger(scratch / "now.sqlite")
    reconcile(spool, book, "boot-1")
    blob = arrive(spool, book, b"came")
    spoil(spool, blob, b"CAME")
    os.utime(spool.path(blob.name), (1.0, 1.0))
    assert reconcile(spool, book, "boot-2") == Found(1, 0, 0)
    book.close()


def test_a_spool_that_is_not_mounted_is_not_taken_for_an_empty_one(scratch: Path, book: Ledger) -> None:
    housekeeping.require_spool(scratch / "spool", book)
    spool = Spool(scratch / "spool", 0)
    arrive(spool, book, b"came")
    housekeeping.require_spool(scratch / "spool", book)
    (scratch / "spool").rename(scratch / "elsewhere")
    with pytest.raises(SpoolError, match="mount its disk"):
        housekeeping.require_spool(scratch / "spool", book)


def test_what_waits_for_nobody_is_told_at_start(
    book: Ledger, lines: list[dict[str, object]], scratch: Path
) -> None:
    book.add(arrival(), "a" * 64, 1)
    book.finish(book.claim_work("w", 1, 10.0)[0], outcome("gone", "pacs", "settled"))
    book.delivered(book.claim_sends("settled", 1, 10.0)[0], 0)
    book.pause("pacs")
    housekeeping.warn_of_strangers(book, _config(scratch))
    assert [(line["event"], line["level"], line["destination"], line.get("count")) for line in lines] == [
        ("unknown-destination", "warning", "gone", 1),
        ("paused", "warning", "pacs", None),
    ]


def _config(folder: Path) -> Config:
    return Config.model_validate(
        {
            "node": {"id": "n", "ae_title": "NODE"},
            "storage": {"folder": folder, "history_days": 2},
            "destinations": {"pacs": {"ae_title": "PACS", "host": "pacs", "port": 104}},
            "routes": ({"name": "all", "role": "pass", "destinations": ("pacs",)},),
        },
        strict=False,
    )


# what may go


def deliver(book: Ledger) -> None:
    book.delivered(book.claim_sends("pacs", 1, 10.0)[0], 0)


def test_what_was_delivered_goes_with_its_bytes_and_the_audit_counts_it(
    spool: Spool, book: Ledger, clock: Clock, lines: list[dict[str, object]]
) -> None:
    leave(spool, book, b"came", b"leaves")
    keeper = Housekeeper(spool, book, 100.0)
    keeper.clean()
    assert spool.used_bytes() == len(b"leaves"), "not yet delivered"
    deliver(book)
    clock.now = time.time()
    keeper.clean()
    assert spool.used_bytes() == 0
    assert book.trace("1.2.3") == [], "its last event is older than the history"
    (line,) = [line for line in lines if line["event"] == "purged"]
    assert (line["level"], line["count"]) == ("info", 1)
    assert not {"uid", "job", "delivery"} & set(line)


def test_bytes_go_when_no_power_cut_can_have_them_needed_again(
    spool: Spool, book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(spool, book, b"came", b"leaves")
    keeper = Housekeeper(spool, book, 1e9)
    taken = Receipt(book.claim_sends("pacs", 1, 10.0)[0], 0)
    book.claim_sends("pacs", 1, 10.0, receipts=[taken], awaits_disk=False)
    mark = book.mark()

    def refuses() -> None:
        raise LedgerUnavailable("the ledger refuses")

    with monkeypatch.context() as patch:
        patch.setattr(book, "sync", refuses)
        with pytest.raises(LedgerUnavailable):
            keeper.clean()
    assert spool.used_bytes()
    keeper.clean()
    assert book.is_on_disk(mark)
    assert spool.used_bytes() == 0


def test_history_is_kept_as_long_as_configured(spool: Spool, book: Ledger, clock: Clock) -> None:
    clock.now = time.time()
    leave(spool, book, b"came", b"leaves")
    deliver(book)
    Housekeeper(spool, book, 100.0).clean()
    assert len(book.trace("1.2.3")) == 4
    Housekeeper(spool, book, -1.0).clean()
    assert book.trace("1.2.3") == []


def test_history_is_configured_in_days(scratch: Path) -> None:
    assert housekeeping.history_s(_config(scratch)) == 2 * 86400.0


def test_orphans_go_but_not_those_that_a_replaced_ledger_may_have_known(
    spool: Spool, book: Ledger, lines: list[dict[str, object]]
) -> None:
    old, young = spool.put([b"from before the ledger"]), spool.put([b"a crash between bytes and row"])
    os.utime(spool.path(old.name), (1.0, 1.0))
    Housekeeper(spool, book, 100.0).clean()
    assert spool.look(young.name) is None
    assert spool.look(old.name) is not None
    assert [line["count"] for line in lines if line["event"] == "unknown-objects"] == [1]


def test_old_objects_that_the_ledger_knows_and_needs_no_more_go(spool: Spool, book: Ledger) -> None:
    blobs = leave(spool, book, b"came", b"leaves")
    deliver(book)
    for blob in blobs:
        os.utime(spool.path(blob.name), (1.0, 1.0))
    Housekeeper(spool, book, 1e10).clean()
    assert spool.used_bytes() == 0


def test_the_housekeeper_cleans_at_once_survives_errors_and_stops(
    spool: Spool, book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleaned = threading.Semaphore(0)
    monkeypatch.setattr(housekeeping, "_EVERY_S", 0.01)
    errors = itertools.cycle((LedgerError("disk full"), ValueError("unforeseen")))

    def clean(_self: Housekeeper) -> None:
        cleaned.release()
        raise next(errors)

    monkeypatch.setattr(Housekeeper, "clean", clean)
    keeper = Housekeeper(spool, book, 100.0)
    keeper.start()
    for _ in range(3):
        assert cleaned.acquire(timeout=60)
    keeper.stop()
    assert not keeper.is_alive()


def test_dead_letters_keep_their_bytes_until_they_are_dropped(spool: Spool, book: Ledger) -> None:
    _, left = leave(spool, book, b"came", b"leaves")
    (send,) = book.claim_sends("pacs", 1, 10.0)
    book.dead(send, "refused")
    keeper = Housekeeper(spool, book, 1e10)
    keeper.clean()
    spool.verify(left.name)
    book.drop(send.id)
    keeper.clean()
    assert spool.look(left.name) is None
    assert book.counts().deliveries[DeliveryState.DROPPED] == 1


# a disk that runs short


def delivered(book: Ledger) -> None:
    for send in book.claim_sends("pacs", 16, 10.0):
        book.delivered(send, 0)


def test_a_short_disk_gives_up_what_is_delivered_before_its_time(
    scratch: Path, book: Ledger, lines: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_long = Spool(scratch / "spool", 0, keep_s=86400.0)
    monkeypatch.setattr(housekeeping, "_PRESSED_KEEP_S", 0.0)
    done = leave(kept_long, book, b"came", b"left")
    delivered(book)
    waiting = leave(kept_long, book, b"came too", b"waits", "1.2.4")
    unnamed = kept_long.put([b"made by a worker whose row cannot be written yet"])
    keeper = Housekeeper(kept_long, book, float(1 << 40))

    keeper.clean()
    assert all(kept_long.look(blob.name) for blob in done)

    keeper.relieve()
    assert not any(kept_long.look(blob.name) for blob in done)
    assert kept_long.look(waiting[1].name), "not delivered yet"
    assert kept_long.look(unnamed.name)
    assert [line["count"] for line in lines if line["event"] == "relieved"] == [3]


@pytest.mark.parametrize(
    ("before_s", "removed", "took_s", "expected"),
    [
        (30.0, 5, 0.1, 30.0),
        (30.0, 0, 0.1, 60.0),
        (480.0, 0, 0.1, 960.0),
        (960.0, 0, 0.1, 960.0),
        (960.0, 1, 0.1, 30.0),
        (30.0, 1, 90.0, 1800.0),
    ],
)
def test_a_disk_that_stays_short_is_looked_through_ever_less_often(
    before_s: float, removed: int, took_s: float, expected: float
) -> None:
    assert housekeeping.relief_wait_s(before_s, removed, took_s) == expected


def test_only_when_it_is_short_and_due(scratch: Path, book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    now, short, relieved = [1000.0], [True], []
    monkeypatch.setattr(housekeeping.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Spool, "is_short", lambda _self: short[0])
    monkeypatch.setattr(Housekeeper, "relieve", lambda _self: relieved.append(now[0]) or 0)
    keeper = Housekeeper(Spool(scratch / "spool", 0), book, 100.0)
    for _ in range(30):
        keeper.look()
        now[0] += 5.0
    assert relieved == [1000.0, 1060.0], "after 30 s doubled, then after 120 s"
    short[0] = False
    keeper.look()
    short[0] = True
    keeper.look()
    assert len(relieved) == 3, "a disk that was not short in between is looked through at once"


def test_the_spool_is_weighed_now_and_then(
    spool: Spool, book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(housekeeping.time, "monotonic", lambda: now[0])
    keeper = Housekeeper(spool, book, 100.0)
    assert keeper.spool_bytes is None
    spool.put([b"12345"])
    keeper.look()
    assert keeper.spool_bytes == 5
    spool.put([b"678"])
    keeper.look()
    assert keeper.spool_bytes == 5
    now[0] += 31.0
    keeper.look()
    assert keeper.spool_bytes == 8


def test_what_was_only_counted_is_written_every_few_seconds(spool: Spool, book: Ledger) -> None:
    book.count_soon(Reading(STORES, ("other", "a700")))
    Housekeeper(spool, book, 100.0).look()
    assert book.snapshot().total(STORES) == 1


def test_what_came_a_moment_ago_stays_even_then(scratch: Path, book: Ledger) -> None:
    kept_long = Spool(scratch / "spool", 0, keep_s=86400.0)
    done = leave(kept_long, book, b"came", b"left")
    delivered(book)
    Housekeeper(kept_long, book, 86400.0).relieve()
    assert all(kept_long.look(blob.name) for blob in done)


def test_a_stop_does_not_wait_for_a_clearance(
    scratch: Path, book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "_PRESSED_KEEP_S", 0.0)
    done = leave(spool := Spool(scratch / "spool", 0, keep_s=0.0), book, b"came", b"left")
    delivered(book)
    keeper = Housekeeper(spool, book, 86400.0)
    keeper.start()
    keeper.stop()
    spool.put([b"left"])
    keeper.relieve()
    keeper.clean()
    assert spool.look(done[1].name)


def test_a_housekeeper_looks_whether_the_disk_is_short(
    scratch: Path, book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "_LOOK_S", 0.01)
    relieved = threading.Event()
    short = Spool(scratch / "spool", 1 << 62, keep_s=86400.0)
    keeper = Housekeeper(short, book, 86400.0)
    monkeypatch.setattr(keeper, "relieve", relieved.set)
    keeper.start()
    assert relieved.wait(60)
    keeper.stop()


# the clock


def test_a_start_after_the_clock_was_set_back_finds_what_waits(
    spool: Spool, book: Ledger, clock: Clock
) -> None:
    arrive(spool, book, b"came")
    clock.now -= 3600.0
    reconcile(spool, book, "boot")
    assert book.behind_s() == 0.0
    assert len(book.claim_work("w", 8, 10.0)) == 1


def test_a_clock_that_is_set_back_while_the_node_runs_is_followed(
    spool: Spool, book: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch, lines: list[dict[str, object]]
) -> None:
    """Once, by as much as it was; and a clock that is put forward, or a little back, by nothing."""
    ahead_s = 1_000_000.0
    monkeypatch.setattr(housekeeping, "_ahead_s", lambda: ahead_s)
    roused: list[int] = []
    keeper = Housekeeper(spool, book, 1e9, rouse=lambda: roused.append(1))
    arrive(spool, book, b"came")
    for step, found in [(0.0, 0), (7200.0, 0), (-0.5, 0), (-3600.0, 1), (0.0, 1)]:
        ahead_s += step
        clock.now += min(step, -0.0)
        keeper.look()
        assert [line["event"] for line in lines].count("clock-set-back") == found
        assert len(roused) == found, "who rests does so until a time of day"
    clock.now += 1.0
    assert len(book.claim_work("w", 8, 10.0)) == 1
