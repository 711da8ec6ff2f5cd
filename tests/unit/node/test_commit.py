"""Storage commitment on the wire: what is read, what is written, what is refused."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom.presentation import build_context

from benchmarks.stand import free_port
from dicom_node.commitment import Ask, Due, Reference, Report, Request, Taken
from dicom_node.config import Destination, Requester
from dicom_node.dimse import commit
from dicom_node.dimse.commit import Desk, Inquirer
from dicom_node.errors import LedgerError, PeerError
from tests.commitment_peers import CT, PUSH_INSTANCE, Archive, Modality, references
from tests.waiting import failing, wait_until

YES, NO = Reference(CT, "1.2.1"), Reference(CT, "1.2.2")


class Books:
    """Stands in for the ledger behind a desk."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.reports: list[Report] = []
        self.taken: Taken | Exception | None = Taken.NEW
        self.known = True
        self.desk = Desk(self._request, self._report)

    def _request(self, request: Request) -> Taken | None:
        if isinstance(self.taken, Exception):
            raise self.taken
        self.requests.append(request)
        return self.taken

    def _report(self, report: Report) -> bool:
        self.reports.append(report)
        return self.known


class Association:
    """What a handler looks at of an association."""

    def __init__(self) -> None:
        self.requestor = SimpleNamespace(ae_title="CT1 ", primitive=SimpleNamespace(called_ae_title="NODE "))
        self.is_established = True


def event(data_set: Dataset | bytes | None, kind: int = 1, instance: str = PUSH_INSTANCE) -> Any:
    """What the library hands to a handler, for either primitive."""

    def decoded() -> Dataset:
        if isinstance(data_set, bytes):
            raise ValueError("Doe^Jane")
        assert data_set is not None
        return data_set

    class Event:
        request = SimpleNamespace(
            RequestedSOPInstanceUID=instance,
            AffectedSOPInstanceUID=instance,
            ActionInformation=None if data_set is None else io.BytesIO(b"x"),
            EventInformation=None if data_set is None else io.BytesIO(b"x"),
        )
        action_type = event_type = kind
        assoc = Association()
        action_information = property(lambda _self: decoded())
        event_information = action_information

    return Event()


def asked(*uids: str, transaction: Any = "2.25.1", sop_class: str = CT) -> Dataset:
    made = Dataset()
    made.TransactionUID = transaction
    made.ReferencedSOPSequence = references(uids, sop_class)
    return made


def status(answer: tuple[int | Dataset, None]) -> tuple[int, str]:
    said = answer[0]
    return (said, "") if isinstance(said, int) else (int(said.Status), str(said.ErrorComment))


@pytest.fixture
def books() -> Books:
    return Books()


def test_a_request_is_taken_as_it_stands(books: Books) -> None:
    assert status(books.desk.on_action(event(asked("1.2.1", "1.2.2", "1.2.1")))) == (0x0000, "")
    assert books.requests == [Request("2.25.1", "CT1", "NODE", (YES, NO))]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (event(asked("1.2.1"), instance="1.2.3"), 0x0112),
        (event(asked("1.2.1"), kind=2), 0x0123),
        (event(None), 0x0115),
        (event(b"garbage"), 0x0212),
        (event(asked()), 0x0115),
        (event(Dataset()), 0x0115),
        (event(asked("1.2.1", transaction="../../x")), 0x0115),
        (event(asked("1.2.1", transaction=["1.2", "1.3"])), 0x0115),
        (event(asked("../../x")), 0x0115),
        (event(asked("1.2.1", sop_class="")), 0x0115),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_request_that_is_none_is_refused_and_not_kept(books: Books, said: Any, expected: int) -> None:
    code, comment = status(books.desk.on_action(said))
    assert code == expected
    assert 0 < len(comment) <= 64
    assert "Doe" not in comment
    assert books.requests == []


def test_too_many_references_are_refused(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "MAX_REFERENCES", 2)
    assert status(books.desk.on_action(event(asked("1.1", "1.2", "1.3"))))[0] == 0x0213
    assert books.requests == []


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        (Taken.NEW, 0x0000),
        (Taken.REPEATED, 0x0000),
        (Taken.DUPLICATE, 0x0115),
        (None, 0x0124),
        (LedgerError("the disk is full"), 0x0213),
        (ValueError("Doe^Jane"), 0x0110),
    ],
)
def test_the_response_is_what_the_ledger_says(
    books: Books, taken: Taken | Exception | None, expected: int
) -> None:
    books.taken = taken
    code, comment = status(books.desk.on_action(event(asked("1.2.1"))))
    assert code == expected
    assert len(comment) <= 64
    assert "Doe" not in comment


def test_the_association_of_a_request_is_known_as_long_as_it_is_open(books: Books) -> None:
    said = event(asked("1.2.1"))
    books.desk.on_action(said)
    due = Due(1, "CT1", "NODE", 1, Report("2.25.1", {YES: 0}))
    assert books.desk.origin(due) is said.assoc
    assert books.desk.origin(Due(1, "CT2", "NODE", 1, due.report)) is None
    said.assoc.is_established = False
    assert books.desk.origin(due) is None


def test_a_report_is_read_as_it_is_written(books: Books) -> None:
    report = Report("2.25.1", {YES: 0x0000, NO: 0x0112})
    assert status(books.desk.on_event_report(event(commit.event_information(report), kind=2))) == (0, "")
    assert books.reports == [report]


def test_a_failure_without_a_reason_and_an_instance_that_is_in_both_lists(books: Books) -> None:
    said = asked("1.2.1", "1.2.2")
    said.FailedSOPSequence = references(["1.2.2", "1.2.3"])
    books.desk.on_event_report(event(said, kind=2))
    third = Reference(CT, "1.2.3")
    assert books.reports == [Report("2.25.1", {YES: 0, NO: 0x0110, third: 0x0110})]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (event(asked("1.2.1"), instance="1.2.3"), 0x0112),
        (event(asked("1.2.1"), kind=3), 0x0113),
        (event(None), 0x0115),
        (event(b"garbage"), 0x0212),
    ],
)
def test_a_report_that_is_none_is_refused(books: Books, said: Any, expected: int) -> None:
    assert status(books.desk.on_event_report(said))[0] == expected
    assert books.reports == []


def test_a_report_on_nothing_is_refused(books: Books) -> None:
    books.known = False
    assert status(books.desk.on_event_report(event(asked("1.2.1"))))[0] == 0x0115


def test_no_sequence_is_written_empty() -> None:
    """Type 1C of PS3.4 table J.3-2: there if and only if there is something in it."""
    assert "FailedSOPSequence" not in commit.event_information(Report("2.25.1", {YES: 0}))
    assert "ReferencedSOPSequence" not in commit.event_information(Report("2.25.1", {NO: 0x0112}))


# ---- with real peers ----


def requester(port: int, timeout_s: float = 60.0) -> Requester:
    return Requester(ae_title="MODALITY", host="127.0.0.1", port=port, timeout_s=timeout_s)


def due(answers: dict[Reference, int] | None = None) -> Due:
    return Due(1, "MODALITY", "THENODE", 1, Report(generate_uid(), answers or {YES: 0}))


@pytest.fixture
def modality() -> Iterator[Modality]:
    with contextlib.closing(_Stopped(Modality(0))) as made:
        yield made.peer


@pytest.fixture
def archive() -> Iterator[Archive]:
    with contextlib.closing(_Stopped(Archive(0))) as made:
        yield made.peer


class _Stopped:
    def __init__(self, peer: Any) -> None:
        self.peer = peer.start()

    def close(self) -> None:
        self.peer.stop()


def test_an_answer_over_an_association_of_its_own(modality: Modality) -> None:
    said = due({YES: 0, NO: 0x0112})
    assert commit.deliver(said, requester(modality.port)) == 0x0000
    assert modality.answers(said.report.transaction_uid) == [{"1.2.1": 0, "1.2.2": 0x0112}]
    assert modality.roles == [(False, True)]


def test_the_status_of_the_peer_is_told(modality: Modality) -> None:
    modality.statuses = [0x0213]
    assert commit.deliver(due(), requester(modality.port)) == 0x0213


def test_a_peer_that_is_away_and_one_that_does_not_offer_it(modality: Modality) -> None:
    with pytest.raises(PeerError, match="cannot be reached") as away:
        commit.deliver(due(), requester(free_port()))
    assert away.value.retryable
    modality.stop()
    modality.contexts = lambda: [build_context(CT)]  # type: ignore[method-assign]
    modality.start()
    with pytest.raises(PeerError, match="does not offer") as other:
        commit.deliver(due(), requester(modality.port))
    assert not other.value.retryable


def test_a_peer_that_cannot_be_found() -> None:
    nowhere = Requester(ae_title="MODALITY", host="no-such-host.invalid", port=104)
    with pytest.raises(PeerError, match=r"cannot be (found|reached)"):
        commit.deliver(due(), nowhere)


def test_a_peer_that_does_not_answer_is_given_up(modality: Modality) -> None:
    released = threading.Event()
    modality._hear = lambda _how, _event: int(not released.wait(60))  # type: ignore[method-assign]
    try:
        impatient = requester(modality.port, 0.5)
        failing(lambda: commit.deliver(due(), impatient), PeerError, "did not take the answer")
    finally:
        released.set()


@pytest.fixture
def inquirer(archive: Archive, books: Books) -> Iterator[Inquirer]:
    with contextlib.closing(ask_at(archive.port, books)) as made:
        yield made


def ask_at(port: int, books: Books, linger_s: float = 60.0, timeout_s: float = 60.0) -> Inquirer:
    where = Destination(ae_title="ARCHIVE", host="127.0.0.1", port=port, timeout_s=timeout_s)
    return Inquirer("archive", where, "NODE", books.desk, linger_s)


def question(*wanted: Reference) -> Ask:
    return Ask(1, "archive", generate_uid(), wanted or (YES,), 1)


def test_a_request_names_every_instance(archive: Archive, inquirer: Inquirer) -> None:
    archive.channel = "never"
    asked_for = question(YES, NO)
    assert inquirer.ask(asked_for) == 0x0000
    assert archive.requests == [(asked_for.transaction_uid, ("1.2.1", "1.2.2"))]


def test_an_answer_on_the_same_association_is_taken(
    archive: Archive, inquirer: Inquirer, books: Books
) -> None:
    archive.channel, archive.verdict = "same", lambda _uid: 0
    asked_for = question()
    inquirer.ask(asked_for)
    wait_until(lambda: archive.statuses == [0x0000])
    assert books.reports == [Report(asked_for.transaction_uid, {YES: 0})]


def test_a_request_that_is_refused(archive: Archive, inquirer: Inquirer) -> None:
    archive.channel = "refuse"
    assert inquirer.ask(question()) == 0x0110


def test_a_destination_that_is_away(books: Books) -> None:
    with pytest.raises(PeerError, match="destination archive cannot be reached"):
        ask_at(free_port(), books).ask(question())


def test_associations_do_not_pile_up(archive: Archive, books: Books) -> None:
    archive.channel = "never"
    with contextlib.closing(ask_at(archive.port, books)) as inquirer:
        for _ in range(commit.MAX_LINGERING + 3):
            inquirer.ask(question())
        assert len(inquirer._lingering) == commit.MAX_LINGERING
    assert not inquirer._lingering
    wait_until(lambda: not archive._server.active_associations)


def test_an_association_lingers_for_so_long(archive: Archive, books: Books) -> None:
    archive.channel = "never"
    with contextlib.closing(ask_at(archive.port, books, linger_s=0.3)) as inquirer:
        inquirer.ask(question())
        assert len(inquirer._lingering) == 1
        wait_until(lambda: inquirer.tidy() or not inquirer._lingering)


def test_a_request_that_hangs_can_be_broken_off(archive: Archive, books: Books) -> None:
    released = threading.Event()
    archive._requested = lambda _event: (int(not released.wait(60)), None)  # type: ignore[method-assign]
    archive.stop()
    archive.start()
    inquirer = ask_at(archive.port, books, timeout_s=60.0)
    failures: list[PeerError] = []

    def ask() -> None:
        try:
            inquirer.ask(question())
        except PeerError as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: archive._server.active_associations)
    wait_until(lambda: inquirer._lingering)
    inquirer.abort()
    thread.join(120)
    released.set()
    assert not thread.is_alive()
    assert [str(error) for error in failures] == [
        "destination archive did not answer a request for storage commitment"
    ]


def test_the_elements_are_what_the_standard_says() -> None:
    """By tag, so that a mistaken keyword cannot hide in a round trip."""
    made = commit.action_information(question(YES))
    tags = [element.tag for element in made]
    assert tags == [0x00081195, 0x00081199]
    assert [element.tag for element in made.ReferencedSOPSequence[0]] == [0x00081150, 0x00081155]
    failed = commit.event_information(Report("2.25.1", {NO: 0x0112}))
    assert [element.tag for element in failed] == [0x00081195, 0x00081198]
    assert [element.tag for element in failed.FailedSOPSequence[0]] == [0x00081150, 0x00081155, 0x00081197]
