"""kill -9 of a whole node around storage commitment: one answer for each request, no byte gone too early.

Everything is on disk before it is said; so wherever the node dies, the next start goes on from there.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.stand import free_port
from tests.commitment_peers import Archive, Modality, part10
from tests.interop import peers
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.slow,
    # the peers here are pynetdicom's: it leaves the sockets of killed associations to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

KILLS = 5


class Site:
    """A node that is killed and started again, between a modality and an archive that live on."""

    def __init__(self, folder: Path, answer_s: float) -> None:
        self.folder = folder
        self.port = free_port()
        self.modality = Modality(self.port).start()
        self.archive = Archive(self.port).start()
        peer = f"{{ae_title: MODALITY, host: 127.0.0.1, port: {self.modality.port}}}"
        self.sections = (
            f"commitment: {{requesters: [{peer}], retry: {{first_s: 0.5, cap_s: 1.0}},"
            f" ask: {{collect_s: 0.3, answer_s: {answer_s}}}}}\n"
        )

    @contextlib.contextmanager
    def node(self) -> Iterator[peers.RunningNode]:
        with peers.node(
            self.folder,
            {"archive": ("ARCHIVE", self.archive.port)},
            role="pass",
            port=self.port,
            options=", commitment: true",
            more=self.sections,
        ) as running:
            yield running

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        path = self.folder / "state" / "ledger.sqlite"
        with contextlib.closing(sqlite3.connect(path, timeout=30)) as ledger:
            return ledger.execute(query).fetchall()

    def close(self) -> None:
        self.modality.stop()
        self.archive.stop()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with contextlib.closing(Site(tmp_path / "node", 5.0)) as made:
        yield made


def kill(node: peers.RunningNode) -> None:
    """The node and, through their lifelines, its workers."""
    os.kill(node.pid, signal.SIGKILL)
    wait_until(lambda: not peers.listens(node.port))


def test_killed_between_the_response_and_the_answer(site: Site) -> None:
    with site.node() as running:
        site.modality.send(part10(site.folder / "in", "1.2.1"))
        wait_until(lambda: site.rows("SELECT state FROM commitments") == [("committed",)])
        association = site.modality.associate()
        transaction, status = site.modality.ask_on(association, "1.2.1", "1.2.99")
        kill(running)
        association.abort()
    assert status == 0x0000
    assert site.rows("SELECT state FROM promises") == [("waiting",)], "killed before it was decided"
    assert site.modality.heard == []
    with site.node():
        wait_until(lambda: site.rows("SELECT state FROM promises") == [("reported",)])
    with site.node():
        time.sleep(2.5)
    assert site.modality.answers(transaction) == [{"1.2.1": 0, "1.2.99": 0x0112}]


def test_killed_between_the_decision_and_the_answer(site: Site) -> None:
    with site.node() as running:
        site.modality.stop()
        site.modality.send(part10(site.folder / "in", "1.2.1"))
        transaction, _ = site.modality.ask("1.2.1")
        wait_until(lambda: site.rows("SELECT state FROM promises WHERE attempts > 0") == [("decided",)])
        kill(running)
    site.modality.start()
    with site.node():
        wait_until(lambda: site.rows("SELECT state FROM promises") == [("reported",)])
    assert site.modality.answers(transaction) == [{"1.2.1": 0}]


def test_killed_again_and_again_while_it_asks_and_is_asked(site: Site) -> None:
    """Every instance ends committed, every request has its answer, and no answer is a lie."""
    rng = random.Random(5)
    asked: list[tuple[str, str]] = []
    sent: Counter[str] = Counter()
    for number in range(KILLS):
        with site.node() as running:
            for index in range(6):
                uid = f"1.2.{number}.{index + 1}"
                with contextlib.suppress(Exception):
                    site.modality.send(part10(site.folder / "in", uid))
                    sent[uid] += 1
                    transaction, status = site.modality.ask(uid)
                    if status == 0x0000:
                        asked.append((transaction, uid))
            time.sleep(rng.uniform(0.0, 3.0))
            kill(running)
    assert len(asked) == len(sent) == KILLS * 6
    with site.node():
        wait_until(lambda: site.rows("SELECT DISTINCT state FROM commitments") == [("committed",)])
        wait_until(lambda: site.rows("SELECT DISTINCT state FROM promises") == [("reported",)])
    answers = {transaction: site.modality.answers(transaction) for transaction, _ in asked}
    # a crash between the peer's yes and its row makes the node say the same once more
    assert [said[:1] for said in answers.values()] == [[{uid: 0}] for _, uid in asked]
    assert all(later == said[0] for said in answers.values() for later in said)
    assert sum(len(said) - 1 for said in answers.values()) <= KILLS
    assert set(site.archive.stored) == set(sent)
    transactions = [transaction for transaction, _ in site.archive.requests]
    assert len(set(transactions)) == len(transactions)


def test_the_bytes_outlive_a_crash_until_the_archive_commits(site: Site) -> None:
    """The spool of a killed node still has what the archive has not committed to, for another sending."""
    site.archive.channel = "never"
    with site.node() as running:
        site.modality.send(part10(site.folder / "in", "1.2.1"))
        wait_until(lambda: site.archive.requests)
        kill(running)
    ((blob,),) = site.rows("SELECT out_blob FROM instances")
    assert (site.folder / "state" / "spool" / blob[:2] / blob).exists()
    site.archive.stored.clear()
    site.archive.channel = "new"
    with site.node():
        wait_until(lambda: site.rows("SELECT state FROM commitments") == [("committed",)])
    assert set(site.archive.stored) == {"1.2.1"}, "the archive had lost it, said so, and got it again"
