"""One object on its way: what is kept, what is refused, and that nothing else stays."""

from __future__ import annotations

import struct
import threading
from pathlib import Path
from typing import Any

import pytest

from dicom_node.dimse import reception
from dicom_node.dimse.reception import (
    BAD_UID,
    BROKEN,
    CANNOT,
    NO_CLASS,
    NO_DATA_SET,
    NO_INSTANCE,
    NO_ROOM,
    OTHER_CLASS,
    OTHER_CONTEXT,
    OTHER_INSTANCE,
    Intake,
    Reception,
    Refusal,
    part10_head,
)
from dicom_node.errors import SpoolError, SpoolFull
from dicom_node.jobs import Arrival
from dicom_node.spool import Blob, Spool
from tests.data_sets import EXPLICIT, Writer, simple

CT, MR, ONE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.3.4"
PRIVATE = "1.3.46.670589.11.0.0.12.4"
W = Writer(EXPLICIT)


def arrival(**changes: str) -> Arrival:
    values = {
        "sop_class_uid": CT,
        "sop_instance_uid": ONE,
        "transfer_syntax_uid": EXPLICIT,
        "calling_ae": "MODALITY",
        "called_ae": "NODE",
        "route": "all",
    }
    return Arrival(**(values | changes))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", 1_000_000)


def received(spool: Spool, data: bytes, said: Arrival | None = None, negotiated: str = "") -> Blob | Refusal:
    said = said or arrival()
    coming = Reception(said, negotiated or said.sop_class_uid, spool)
    for at in range(0, len(data), 1000):
        coming.write(memoryview(data)[at : at + 1000])
    return coming.finish()


def left(spool: Spool) -> list[Path]:
    """What is in the spool: objects, and what is being written."""
    return [path for path in spool.folder.rglob("*/*") if path.is_file()]


def test_what_came_is_kept_behind_a_head_under_its_hash(spool: Spool) -> None:
    data = simple(CT, ONE, pixels=50_000)
    kept = received(spool, data)
    assert isinstance(kept, Blob)
    assert spool.path(kept.name).read_bytes() == part10_head(arrival()) + data
    spool.verify(kept.name)
    assert left(spool) == [spool.path(kept.name)]


@pytest.mark.parametrize(
    ("said", "negotiated", "why"),
    [
        (arrival(sop_instance_uid="../../x"), CT, BAD_UID),
        (arrival(sop_instance_uid=""), CT, BAD_UID),
        (arrival(sop_instance_uid="1" * 65), CT, BAD_UID),
        (arrival(sop_class_uid=MR), CT, OTHER_CONTEXT),
    ],
)
def test_what_the_command_rules_out_writes_nothing(
    spool: Spool, said: Arrival, negotiated: str, why: Refusal
) -> None:
    coming = Reception(said, negotiated, spool)
    coming.write(memoryview(simple(CT, ONE)))
    assert left(spool) == []
    assert coming.finish() is why


@pytest.mark.parametrize(
    ("data", "said", "why"),
    [
        (b"", arrival(), NO_DATA_SET),
        (simple(CT, ONE)[:-1], arrival(), BROKEN),
        (b"no data set at all", arrival(), BROKEN),
        (simple(CT, "1.2.5"), arrival(), OTHER_INSTANCE),
        (simple(MR, ONE), arrival(), OTHER_CLASS),
        (simple(PRIVATE, "1.2.5"), arrival(sop_class_uid=PRIVATE), OTHER_INSTANCE),
        (W.element(0x00080018, "UI", b"1.2.3.4\0"), arrival(), NO_CLASS),
        (W.element(0x00080016, "UI", CT.encode() + b"\0"), arrival(), NO_INSTANCE),
        (W.identity(CT, ""), arrival(), NO_INSTANCE),
    ],
)
def test_what_the_data_set_rules_out_leaves_nothing(
    spool: Spool, data: bytes, said: Arrival, why: Refusal
) -> None:
    assert received(spool, data, said) is why
    assert left(spool) == []


@pytest.mark.parametrize(
    "data",
    [W.element(0x00991001, "UN", b"1"), W.identity("", ""), W.identity(PRIVATE, "1.2.3.4 ")],
    ids=["no UIDs", "empty UIDs", "padded with a space"],
)
def test_a_private_class_may_do_without_uids(spool: Spool, data: bytes) -> None:
    assert isinstance(received(spool, data, arrival(sop_class_uid=PRIVATE)), Blob)


def test_of_a_uid_that_is_too_long_the_command_may_have_the_start(spool: Spool) -> None:
    long = "1." + "2" * 66
    assert isinstance(received(spool, simple(CT, long), arrival(sop_instance_uid=long[:64])), Blob)
    assert received(spool, simple(CT, long), arrival(sop_instance_uid=long[:63])) is OTHER_INSTANCE
    assert received(spool, simple(CT, long), arrival(sop_instance_uid="1." + "3" * 62)) is OTHER_INSTANCE


def test_the_same_uids_with_other_padding_are_the_same(spool: Spool) -> None:
    data = W.element(0x00080016, "UI", CT.encode() + b" ") + W.element(0x00080018, "UI", b"1.2.3.4 ")
    assert isinstance(received(spool, data), Blob)


@pytest.mark.parametrize(
    ("error", "why"),
    [(SpoolFull("no room"), NO_ROOM), (SpoolError("disk"), NO_ROOM), (ValueError("x"), CANNOT)],
)
def test_an_error_in_the_middle_becomes_a_status_and_the_rest_is_dropped(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, error: Exception, why: Refusal
) -> None:
    data = simple(CT, ONE)
    coming = Reception(arrival(), CT, spool)
    coming.write(memoryview(data)[:1000])
    assert len(left(spool)) == 1

    def fail(_chunk: Any) -> None:
        raise error

    monkeypatch.setattr(coming._writer, "write", fail)
    coming.write(memoryview(data)[1000:2000])
    assert left(spool) == []
    monkeypatch.undo()
    coming.write(memoryview(data)[2000:])
    assert coming.finish() is why
    assert left(spool) == []


def test_no_room_is_known_before_anything_is_written(spool: Spool) -> None:
    spool.reserve_bytes = 1 << 60
    coming = Reception(arrival(), CT, spool)
    assert coming.refused is NO_ROOM
    assert left(spool) == []


def test_a_growing_object_stops_at_the_reserve(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "_ROOM_BYTES", 10_000)
    coming = Reception(arrival(), CT, spool)
    coming.write(memoryview(simple(CT, ONE, pixels=50_000))[:9_000])
    spool.reserve_bytes = 1 << 60
    coming.write(memoryview(bytes(9_000)))
    assert coming.refused is NO_ROOM
    assert left(spool) == []


def test_every_comment_fits_into_what_a_peer_can_read() -> None:
    """LO has at most 64 characters and no backslash (PS3.5 table 6.2-1); longer ones leave peers waiting."""
    refusals = [value for value in vars(reception).values() if isinstance(value, Refusal)]
    assert set(refusals) == set(reception.REFUSALS)
    for refusal in refusals:
        assert 0 < len(refusal.comment) <= 64
        assert refusal.comment.isascii()
        assert "\\" not in refusal.comment


class Gone:
    """A reception that was told to go."""

    def __init__(self) -> None:
        self.discarded = threading.Event()

    def discard(self) -> None:
        self.discarded.set()


def test_what_nobody_answers_any_more_is_discarded() -> None:
    ended: list[None] = []
    intake = Intake(lambda *_said: Gone(), lambda: ended.append(None))
    taken, waiting, late = (intake.begin("", "", 1) for _ in range(3))
    intake.complete(taken)
    intake.take(taken)
    intake.complete(waiting)
    intake.answering_ended()
    assert waiting.discarded.is_set()
    assert not late.discarded.is_set()
    intake.complete(late)
    assert late.discarded.is_set()
    assert not taken.discarded.is_set()
    assert ended == [None]


def test_the_head_of_a_file_is_the_same_for_ever() -> None:
    assert (
        part10_head(arrival()).hex()
        == part10_head(arrival(calling_ae="OTHER", called_ae="X", route="y")).hex()
    )
    assert len(part10_head(arrival())) % 2 == 0
    head = part10_head(arrival(sop_instance_uid="1.2.3"))
    assert struct.unpack_from("<I", head, 140)[0] == len(head) - 144
