"""Archives from above: asked from the top down, fetched in the background, everything accounted for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dicom_node import archives
from dicom_node.archives import Collection, Missed, found, opened, orders
from dicom_node.config import Query, QueryPeer, RetrieveLevel
from dicom_node.dimse.retrieve import DimseArchive
from dicom_node.errors import InputError, PeerError
from dicom_node.inquiry import UNIQUE, Inquiry, Keys, Level, Order, Row, Told
from dicom_node.landing import Landed, Landing
from dicom_node.web import WebArchive
from tests.waiting import wait_until

TREE = {"1.1": {"1.1.1": ["1.1.1.1", "1.1.1.2"], "1.1.2": ["1.1.2.1"]}, "1.2": {"1.2.1": ["1.2.1.1"]}}


class Paper:
    """An archive on paper; `sends` decides what comes of an order."""

    def __init__(self) -> None:
        self.name = "paper"
        self.notes: list[str] = []
        self.asked: list[tuple[Level, dict[str, str]]] = []
        self.orders: list[Order] = []
        self.closed = threading.Event()
        self.lost: set[str] = set()
        self.failing: list[PeerError] = []
        self.odd: list[Row] = []
        #: what it says of those that are lost
        self.named: list[str] = []
        self.warned = 0

    def find(self, level: Level, keys: Keys, wanted: Sequence[str], limit: int | None) -> Iterator[Row]:
        self.asked.append((level, dict(keys)))
        study, series = keys.get("StudyInstanceUID"), keys.get("SeriesInstanceUID")
        if level is Level.STUDY:
            uids = list(TREE)
        elif level is Level.SERIES:
            uids = list(TREE[str(study)])
        else:
            uids = TREE[str(study)][str(series)]
        yield from self.odd
        yield from (Row(level, {UNIQUE[level]: uid, "SOPClassUID": "ct"}) for uid in uids[:limit])

    def fetch(self, order: Order, landing: Landing) -> Told:
        self.orders.append(order)
        if self.failing:
            raise self.failing.pop(0)
        for uid in order.expected:
            if uid not in self.lost:
                writer = landing.room(lambda _, uid=uid: uid, uid).writer()  # type: ignore[misc]
                writer.write(uid.encode())
                writer.keep()
        failed = len(self.lost & set(order.expected))
        status = 0xB000 if failed else 0
        return Told(status, len(order.expected) - failed, failed, self.warned, tuple(self.named))

    def close(self) -> None:
        self.closed.set()


def every(paper: Paper, level: RetrieveLevel = RetrieveLevel.SERIES) -> Iterator[Order]:
    return orders(found(paper, Inquiry(Level.IMAGE)), level)


def collected(paper: Paper, folder: Path, threads: int = 1) -> list[Landed | Missed]:
    with Collection(paper, folder, every(paper), threads, durable=False) as collection:
        return list(collection)


def test_an_archive_is_of_the_kind_of_its_peer() -> None:
    dimse = opened("a", QueryPeer(ae_title="A", host="h", port=1), Query())
    web = opened("b", QueryPeer(dicomweb="http://h/d"), Query())
    assert (type(dimse), type(web)) == (DimseArchive, WebArchive)


# finding


def test_every_level_is_asked_below_the_one_above() -> None:
    paper = Paper()
    rows = list(found(paper, Inquiry(Level.IMAGE, {"PatientID": "P"})))
    assert [row.unique for row in rows] == ["1.1.1.1", "1.1.1.2", "1.1.2.1", "1.2.1.1"]
    assert rows[-1].get("SeriesInstanceUID") == "1.2.1"
    assert paper.asked[0] == (Level.STUDY, {"PatientID": "P"})
    assert paper.asked[2] == (Level.IMAGE, {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1"})


def test_a_limit_is_one_of_the_whole_answer() -> None:
    paper = Paper()
    assert len(list(found(paper, Inquiry(Level.IMAGE), 3))) == 3
    assert Level.SERIES not in [level for level, _ in paper.asked[4:]]


def test_rows_that_cannot_be_used_are_left_out_with_a_note() -> None:
    paper = Paper()
    paper.odd = [
        Row(Level.STUDY, {}),
        Row(Level.STUDY, {"StudyInstanceUID": "../x"}),
        Row(Level.STUDY, {"StudyInstanceUID": "9.9"}),
    ]
    rows = list(found(paper, Inquiry(Level.STUDY, {"StudyInstanceUID": "1.1"})))
    assert [row.unique for row in rows] == ["1.1"]
    assert len(paper.notes) == 2


def test_an_answer_without_an_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_MOST_ROWS", 1)
    with pytest.raises(PeerError, match="more than 1 rows"):
        list(found(Paper(), Inquiry(Level.STUDY)))


def test_orders_follow_the_level_of_retrieval() -> None:
    by_series = list(every(Paper()))
    assert [(order.study, order.series, len(order.expected)) for order in by_series] == [
        ("1.1", "1.1.1", 2),
        ("1.1", "1.1.2", 1),
        ("1.2", "1.2.1", 1),
    ]
    by_study = list(every(Paper(), RetrieveLevel.STUDY))
    assert [(order.level, order.series, len(order.expected)) for order in by_study] == [
        (Level.STUDY, "", 3),
        (Level.STUDY, "", 1),
    ]


# fetching


@pytest.mark.parametrize("threads", [1, 3])
def test_everything_comes(threads: int, tmp_path: Path) -> None:
    paper = Paper()
    came = collected(paper, tmp_path, threads)
    assert {one.uid for one in came if isinstance(one, Landed)} == {
        "1.1.1.1",
        "1.1.1.2",
        "1.1.2.1",
        "1.2.1.1",
    }
    assert paper.closed.is_set()


def test_what_is_missing_is_asked_for_once_more_by_name_and_then_told(tmp_path: Path) -> None:
    paper = Paper()
    paper.lost = {"1.1.1.2"}
    came = collected(paper, tmp_path)
    (missed,) = [one for one in came if isinstance(one, Missed)]
    assert (missed.uid, missed.why) == ("1.1.1.2", "the archive could not send it (status B000)")
    assert [order.level for order in paper.orders] == [Level.SERIES, Level.IMAGE, Level.SERIES, Level.SERIES]
    assert list(paper.orders[1].expected) == ["1.1.1.2"]
    assert len(came) == 4


def test_an_archive_that_broke_off_once_is_asked_again(tmp_path: Path) -> None:
    paper = Paper()
    paper.failing = [PeerError("gone")]
    assert all(isinstance(one, Landed) for one in collected(paper, tmp_path))


def test_an_archive_that_is_gone_is_not_asked_for_ever(tmp_path: Path) -> None:
    paper = Paper()
    paper.failing = [PeerError("gone") for _ in range(100)]
    with pytest.raises(PeerError, match="gone"):
        collected(paper, tmp_path)
    assert len(paper.orders) == 4


def test_refusals_of_single_requests_are_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    paper = Paper()
    paper.failing = [PeerError("refused", status=0xA900), PeerError("refused", status=0xA900)]
    came = collected(paper, tmp_path)
    assert [one.why for one in came if isinstance(one, Missed)] == ["refused", "refused"]
    assert len([one for one in came if isinstance(one, Landed)]) == 2


def test_an_error_while_finding_reaches_the_caller(tmp_path: Path) -> None:
    def broken() -> Iterator[Order]:
        yield next(every(Paper()))
        raise InputError("broken")

    with (
        pytest.raises(InputError, match="broken"),
        Collection(Paper(), tmp_path, broken(), 2, durable=False) as all_,
    ):
        list(all_)


def test_no_more_than_a_few_wait_for_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_WAITING", 2)
    monkeypatch.setattr(archives, "_LET_IN_S", 30.0)
    with Collection(Paper(), tmp_path, every(Paper()), 1, durable=False) as collection:
        wait_until(lambda: len(list(tmp_path.glob("*.dcm"))) == 3)  # two wait, one knocks
        time.sleep(0.2)
        assert len(list(tmp_path.glob("*.dcm"))) == 3
        assert len(list(collection)) == 4


def test_one_more_is_let_in_where_the_caller_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_WAITING", 1)
    monkeypatch.setattr(archives, "_LET_IN_S", 0.01)
    with Collection(Paper(), tmp_path, every(Paper()), 1, durable=False) as collection:
        wait_until(lambda: len(list(tmp_path.glob("*.dcm"))) == 4)
        assert len(list(collection)) == 4


def test_a_caller_who_leaves_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_WAITING", 1)
    paper = Paper()
    with Collection(paper, tmp_path, every(paper), 1, durable=False) as collection:
        next(iter(collection))
    assert not any(thread.is_alive() for thread in collection._threads)


def test_a_uid_in_two_places_is_told_and_comes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TREE, "1.2", {"1.2.1": ["1.1.1.1", "1.2.1.1"]})
    came = collected(Paper(), tmp_path)
    (missed,) = [one for one in came if isinstance(one, Missed)]
    assert (missed.uid, missed.series) == ("1.1.1.1", "1.2.1")
    assert "two places" in missed.why
    assert len(came) == 5


def test_one_uid_under_two_entries_is_gone_into_once() -> None:
    """An archive that has one study under many patients would else be asked for every pair of them."""
    paper = Paper()
    paper.odd = [Row(Level.STUDY, {"StudyInstanceUID": "1.1", "PatientID": "other"})]
    rows = list(found(paper, Inquiry(Level.SERIES)))
    assert [row.unique for row in rows if row.level is Level.SERIES] == ["1.1.1", "1.1.2", "1.2.1"]
    assert any("one UID" in note for note in paper.notes)


def test_what_the_archive_itself_names_as_failed_is_told_as_such(tmp_path: Path) -> None:
    paper = Paper()
    paper.lost, paper.named, paper.warned = {"1.1.1.2"}, ["1.1.1.2"], 1
    (missed,) = [one for one in collected(paper, tmp_path) if isinstance(one, Missed)]
    assert missed.why == "the archive lists it among those that it could not send (status B000)"
    assert paper.notes == ["it reported warnings about some of what it sent"]
