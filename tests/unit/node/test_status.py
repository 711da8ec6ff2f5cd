"""The status of a node: what waits, what is wrong, what needs a decision, and nothing of a patient."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dicom_node import log
from dicom_node.errors import SpoolError
from dicom_node.ledger import Ledger
from dicom_node.pages import status
from dicom_node.pages.status import StatusPage, span
from dicom_node.spool import Spool
from tests import busy


class Tables(HTMLParser):
    """The rows of the tables of a page, cell by cell, and its one heading of the first order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.verdict = ""
        self._in_cell = self._in_verdict = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self._in_cell = self._in_cell or tag in ("td", "th")
        self._in_verdict = tag == "h1"

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("td", "th")
        self._in_verdict = self._in_verdict and tag != "h1"

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.rows[-1][-1] += data
        if self._in_verdict:
            self.verdict += data


@dataclass
class Node:
    """A node whose page is asked for; time stands still for the page's own cache."""

    book: Ledger
    spool: Spool
    folder: Path
    problems: list[str] = field(default_factory=list)

    def page(self) -> str:
        return StatusPage(busy.config(self.folder), self.book, self.spool, lambda: self.problems)()

    def tables(self) -> Tables:
        return Tables(self.page())

    def row(self, name: str) -> list[str]:
        (found,) = [row for row in self.tables().rows if row[0] == name]
        return [cell.strip() for cell in found]


@pytest.fixture
def node(scratch: Path) -> Iterator[Node]:
    book = Ledger(scratch / "ledger.sqlite")
    yield Node(book, Spool(scratch / "spool", 0), scratch)
    book.close()


def test_all_is_well_when_nothing_waits(node: Node) -> None:
    assert node.tables().verdict == "The node works, and everything that arrived is on its way."
    assert "Nothing waits for a decision." in node.page()
    assert "Nothing was given up." in node.page()


def test_what_is_wrong_comes_first_and_says_what_to_do(node: Node) -> None:
    node.problems = ["spool", "something new"]
    page = node.page()
    assert Tables(page).verdict == "The node cannot do all of its work."
    assert "senders hear A700" in page
    assert "something new" in page


def test_every_destination_stands_with_its_queue(node: Node) -> None:
    busy.fill(node.book)
    assert node.row(busy.PACS)[1] == "✗ down for 2 h, spare takes its place"
    assert node.row(busy.PACS)[2] == "23"
    assert node.row(busy.ARCHIVE)[1].startswith("! paused for ")
    assert [node.row(busy.ARCHIVE)[n] for n in (2, 5)] == ["8", "3"]
    assert node.row(busy.NIGHT)[1].startswith("! closed until ")
    assert node.row("no-more")[1] == "✗ not in the configuration"
    assert node.row("spare")[1:3] == ["✓ open", "0"]
    assert node.tables().verdict == "The node works; it does not reach no-more or pacs."


def test_what_waits_for_a_decision_is_named_so_that_queue_show_goes_on(node: Node) -> None:
    busy.fill(node.book)
    page = node.page()
    for kept in node.book.held():
        assert f"<td>{kept.reason}</td>" in page
        assert f'class="mono">{kept.id}</th>' in page
    (letter, *_) = node.book.dead_letters()
    row = node.row(f"d{letter.id}")
    assert row[1:3] == [busy.ARCHIVE, "status-a900"]
    assert row[-1] == log.uid_hash(letter.sop_instance_uid)


def test_the_last_verdicts(node: Node) -> None:
    busy.fill(node.book)
    found = [row[1].strip() for row in node.tables().rows if len(row) == 5 and row[0].isdigit()]
    assert len(found) == 10
    assert {"✗ Pixels altered", "✓ Authentic", "! Damaged"} == set(found)


def test_nothing_of_a_patient_and_no_uid(node: Node) -> None:
    busy.fill(node.book)
    page = node.page()
    assert not [uid for uid in busy.UIDS if uid in page]


def test_a_reason_is_text_and_nothing_else(node: Node) -> None:
    busy.fill(node.book)
    config = busy.config(node.folder)
    page = StatusPage(config, node.book, node.spool, lambda: ["<script>alert(1)</script>"])()
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_spool_that_cannot_be_asked_is_no_reason_to_show_nothing(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(_: Spool) -> int:
        raise SpoolError("gone")

    monkeypatch.setattr(Spool, "free_bytes", refuses)
    assert "unknown" in node.page()


def test_it_is_made_at_most_every_two_seconds(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    page = StatusPage(busy.config(node.folder), node.book, node.spool, lambda: node.problems)
    now = time.monotonic()
    monkeypatch.setattr(status.time, "monotonic", lambda: now)
    before = page()
    node.problems = ["spool"]
    assert page() == before
    now += 2
    assert page() != before


def test_lists_end_after_twenty_rows(node: Node) -> None:
    busy.fill(node.book)
    for uid in busy.UIDS[50:120]:
        busy.hold(node.book, uid)
    page = node.page()
    assert "The oldest of 82." in page
    assert len([row for row in Tables(page).rows if len(row) == 6 and row[1] == "held"]) == 20


def test_it_renews_itself_and_runs_nothing(node: Node) -> None:
    page = node.page()
    assert '<meta http-equiv="refresh" content="30">' in page
    assert "<script" not in page


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-3, "0 s"), (40, "40 s"), (120, "2 min"), (7200, "2 h"), (172800, "2 days"), (1e7, "116 days")],
)
def test_spans_are_told_in_one_unit(seconds: float, said: str) -> None:
    assert span(seconds) == said
