"""Storage commitment with peers of every habit: what is answered is true, and answered once."""

from __future__ import annotations

import contextlib
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.stand import free_port
from dicom_node import committer, service
from dicom_node.config import Config
from dicom_node.jobs import passed
from dicom_node.ledger import Ledger, promises
from dicom_node.service import Service
from tests.commitment_peers import MR, Archive, Modality, part10
from tests.waiting import wait_until

ASKED = {"commitment": True}
_MEMORY = Path("/dev/shm")


class Passers:
    """Stands in for the worker processes, whose start takes longer than a test of this file."""

    def __init__(self, config: Config, ledger: Ledger, bells: Any, **_options: Any) -> None:
        self._config, self._ledger, self._bells = config, ledger, bells
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.alive = 1

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(0.02):
            for work in self._ledger.claim_work("passer", 16, 60.0):
                route = self._config.route(work.arrival.route)
                assert route is not None
                self._ledger.finish(work, passed(work, route, "passed"))
                for name in route.destinations:
                    self._bells.ring_sends(name)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer, "POLL_S", 0.05)
    monkeypatch.setattr(promises, "_LOOK_S", (0.1, 0.1))
    monkeypatch.setattr(service, "Workers", Passers)


class Site:
    """A node between a modality and an archive, all in this process."""

    def __init__(self, folder: Path, destination: dict[str, Any], commitment: dict[str, Any]) -> None:
        port = free_port()
        self.folder = folder
        self.modality = Modality(port).start()
        self.archive = Archive(port).start()
        self.config = self._configured(port, destination, commitment)
        self.service = Service(self.config)

    def _configured(self, port: int, destination: dict[str, Any], commitment: dict[str, Any]) -> Config:
        """The node at a port, with what a test changes in its destination and its promises."""
        archive = {
            "ae_title": "ARCHIVE",
            "host": "127.0.0.1",
            "port": self.archive.port,
            "timeout_s": 60.0,
            "associations": 1,
            "retry": {"first_s": 0.1, "cap_s": 0.2},
        }
        requester = {
            "ae_title": "MODALITY",
            "host": "127.0.0.1",
            "port": self.modality.port,
            "timeout_s": 60.0,
        }
        promises = {
            "requesters": (requester,),
            "retry": {"first_s": 0.1, "cap_s": 0.3, "refusals": 2},
            "ask": {"collect_s": 0.1},
        }
        route = {
            "name": "all",
            "match": {"calling_ae": ("MODALITY",)},
            "role": "pass",
            "destinations": ("archive",),
        }
        return Config.model_validate(
            {
                "node": {"id": "n", "ae_title": "NODE", "bind": "127.0.0.1", "port": port},
                "storage": {"folder": self.folder / "node", "reserve_mb": 16},
                "workers": {"count": 1},
                "destinations": {"archive": archive | destination},
                "routes": (route,),
                "commitment": promises | commitment,
                "http": {"port": None},
            },
            strict=False,
        )

    def send(self, *uids: str) -> None:
        self.modality.send(*(part10(self.folder / "in", uid) for uid in uids))

    def commitments(self) -> dict[str, int]:
        return {tally.state: tally.count for tally in self.service.ledger.snapshot().commitments}

    def delivered(self) -> bool:
        return self.service.ledger.counts().idle

    def told(self, uid: str) -> list[str]:
        """What the ledger recorded of an instance about commitment."""
        steps = self.service.ledger.trace(uid)
        return [
            " ".join(filter(None, (step.what, step.reason)))
            for step in steps
            if re.search("commit|promise", str(step))
        ]

    def tried_to_report(self) -> bool:
        """Whether an answer was on its way to a peer, and did not arrive."""
        busy = self.service.ledger.due_reports((), 10)
        return any(due.attempts > 1 for due in busy)

    def spooled(self) -> int:
        """Objects that would survive a clean-up of the spool at this moment, whatever their age."""
        spool = self.service.spool
        names = [path.name for path in spool.folder.glob("??/*")]
        return len(self.service.ledger.needed(names))


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where possible: these tests are about what is said, not about the disk's speed."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as made:
        yield Path(made)


@pytest.fixture
def site(folder: Path) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(destination: dict[str, Any] | None = None, *, start: bool = True, **commitment: Any) -> Site:
        made.append(Site(folder, destination or {}, commitment))
        if start:
            made[-1].service.start()
        return made[-1]

    yield make
    for one in made:
        one.modality.stop()
        one.archive.stop()
        with contextlib.suppress(AttributeError):
            one.service.stop()


# ---- peers ask the node ----


def test_what_was_delivered_is_promised_over_a_new_association_as_scp(site: Callable[..., Site]) -> None:
    made = site()
    made.send("1.2.1", "1.2.2")
    transaction, status = made.modality.ask("1.2.1", "1.2.2")
    assert status == 0x0000
    wait_until(lambda: made.modality.heard)
    assert made.modality.answers(transaction) == [{"1.2.1": 0, "1.2.2": 0}]
    assert made.modality.heard[0][0] == "new"
    assert made.modality.roles == [(False, True)]
    wait_until(lambda: made.told("1.2.1") == ["promise-asked", "promised", "promise-reported"])


def test_unknown_instances_and_other_classes_fail_beside_the_good_ones(site: Callable[..., Site]) -> None:
    made = site()
    made.send("1.2.1")
    wait_until(made.delivered)
    mixed, _ = made.modality.ask("1.2.1", "1.2.99")
    other, _ = made.modality.ask("1.2.1", sop_class=MR)
    wait_until(lambda: len(made.modality.heard) == 2)
    assert made.modality.answers(mixed) == [{"1.2.1": 0x0000, "1.2.99": 0x0112}]
    assert made.modality.answers(other) == [{"1.2.1": 0x0119}]


def test_an_answer_waits_for_what_is_under_way(site: Callable[..., Site]) -> None:
    made = site()
    made.archive.stop()
    made.send("1.2.1")
    transaction, _ = made.modality.ask("1.2.1")
    time.sleep(0.7)
    assert made.modality.heard == []
    made.archive.start()
    wait_until(lambda: made.modality.heard)
    assert made.modality.answers(transaction) == [{"1.2.1": 0}]


def test_what_is_still_under_way_when_time_is_up_has_failed(site: Callable[..., Site]) -> None:
    made = site(wait_s=1.0)
    made.archive.stop()
    made.send("1.2.1")
    transaction, _ = made.modality.ask("1.2.1")
    wait_until(lambda: made.modality.heard)
    assert made.modality.answers(transaction) == [{"1.2.1": 0x0110}]


def test_spooled_is_enough_where_that_is_the_promise(site: Callable[..., Site]) -> None:
    made = site(promise="spooled")
    made.archive.stop()
    made.send("1.2.1")
    transaction, _ = made.modality.ask("1.2.1")
    wait_until(lambda: made.modality.heard)
    assert made.modality.answers(transaction) == [{"1.2.1": 0}]


def test_a_destination_that_commits_is_waited_for(site: Callable[..., Site]) -> None:
    """The chain: the modality hears yes only when the archive said yes to the node."""
    made = site(ASKED, start=False)
    made.archive.channel = "never"
    made.service.start()
    made.send("1.2.1")
    wait_until(lambda: made.archive.requests)
    transaction, _ = made.modality.ask("1.2.1")
    time.sleep(0.7)
    assert made.modality.heard == []
    made.archive.report(made.archive.report_of(made.archive.requests[0][0], [("1.2", "1.2.1")]))
    wait_until(lambda: made.modality.heard)
    assert made.modality.answers(transaction) == [{"1.2.1": 0}]


def test_over_the_same_association_where_there_is_no_address(site: Callable[..., Site]) -> None:
    made = site(requesters=(), same_association=True)
    made.send("1.2.1")
    association = made.modality.associate()
    transaction, status = made.modality.ask_on(association, "1.2.1")
    assert status == 0x0000
    wait_until(lambda: made.modality.heard)
    association.release()
    assert made.modality.heard[0][0] == "same"
    assert made.modality.answers(transaction) == [{"1.2.1": 0}]


def test_over_the_same_association_where_a_new_one_cannot_be_had(site: Callable[..., Site]) -> None:
    made = site(same_association=True)
    made.modality.stop()
    made.send("1.2.1")
    association = made.modality.associate()
    transaction, _ = made.modality.ask_on(association, "1.2.1")
    wait_until(lambda: made.modality.heard)
    association.release()
    assert made.modality.heard[0][0] == "same"
    assert made.modality.answers(transaction) == [{"1.2.1": 0}]


def test_who_cannot_be_answered_is_told_at_once(site: Callable[..., Site]) -> None:
    made = site(requesters=())
    made.send("1.2.1")
    assert made.modality.ask("1.2.1")[1] == 0x0124


def test_a_requester_that_is_down_gets_its_answer_when_it_is_back_and_once(site: Callable[..., Site]) -> None:
    made = site()
    made.modality.stop()
    made.send("1.2.1")
    transaction, _ = made.modality.ask("1.2.1")
    wait_until(lambda: made.tried_to_report())
    made.modality.start()
    wait_until(lambda: made.modality.heard)
    time.sleep(0.5)
    assert made.modality.answers(transaction) == [{"1.2.1": 0}]


def test_a_report_that_is_refused_is_tried_again_with_the_same_answer(site: Callable[..., Site]) -> None:
    made = site()
    made.modality.statuses = [0x0110]
    made.send("1.2.1")
    transaction, _ = made.modality.ask("1.2.1")
    wait_until(lambda: made.modality.heard)
    assert made.modality.answers(transaction) == [{"1.2.1": 0}]
    assert made.modality.statuses == []


def test_a_repeated_request_is_one_request_and_a_reused_uid_is_refused(site: Callable[..., Site]) -> None:
    made = site()
    made.archive.stop()
    made.send("1.2.1")
    transaction, _ = made.modality.ask("1.2.1")
    assert made.modality.ask("1.2.1", transaction=transaction)[1] == 0x0000
    assert made.modality.ask("1.2.2", transaction=transaction)[1] == 0x0115
    made.archive.start()
    wait_until(lambda: made.modality.heard)
    # it is closed once the node has it on record that the answer was taken
    wait_until(lambda: made.modality.ask("1.2.1", transaction=transaction)[1] == 0x0115)
    time.sleep(0.5)
    assert made.modality.answers(transaction) == [{"1.2.1": 0}]


def test_a_restart_between_request_and_answer_answers_once(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = site()
    made.send("1.2.1")
    wait_until(made.delivered)
    with monkeypatch.context() as patched:
        # nothing is decided any more: as if the node died right after the response
        patched.setattr(committer._Promiser, "turn", lambda _self: 60.0)
        time.sleep(0.2)
        transaction, status = made.modality.ask("1.2.1")
        assert status == 0x0000
        made.service.stop()
    made.service = Service(made.config)
    made.service.start()
    wait_until(lambda: made.modality.heard)
    time.sleep(0.5)
    assert made.modality.answers(transaction) == [{"1.2.1": 0}]


# ---- the node asks a destination ----


@pytest.mark.parametrize("channel", ["new", "same"])
def test_the_bytes_stay_until_the_destination_commits(site: Callable[..., Site], channel: str) -> None:
    made = site(ASKED, start=False)
    made.archive.channel = "never"
    made.service.start()
    made.send("1.2.1", "1.2.2")
    wait_until(lambda: sum(len(uids) for _, uids in made.archive.requests) == 2)
    assert made.commitments() == {"asked": 2}
    assert made.spooled() == 2
    made.archive.channel = channel
    made.send("1.2.3")
    wait_until(lambda: made.commitments().get("committed") == 1)
    assert made.spooled() == 2
    wait_until(lambda: made.archive.statuses == [0x0000])


def test_every_instance_of_a_batch_is_in_one_request(site: Callable[..., Site]) -> None:
    made = site(ASKED, ask={"collect_s": 1.0})  # a machine that stands still makes a second request of it
    uids = [f"1.2.{number}" for number in range(1, 8)]
    made.send(*uids)
    wait_until(lambda: made.commitments() == {"committed": 7})
    assert sorted(uid for _, asked in made.archive.requests for uid in asked) == uids
    assert len(made.archive.requests) < len(uids)
    assert made.spooled() == 0


def test_no_answer_is_asked_for_again_under_a_new_transaction_uid(site: Callable[..., Site]) -> None:
    made = site(ASKED, ask={"collect_s": 0.1, "answer_s": 1.0})
    made.archive.channel = "never"
    made.send("1.2.1")
    wait_until(lambda: len(made.archive.requests) >= 2)
    assert made.spooled() == 1
    made.archive.channel = "new"
    wait_until(lambda: made.commitments() == {"committed": 1})
    transactions = [transaction for transaction, _ in made.archive.requests]
    assert len(set(transactions)) == len(transactions) >= 3
    assert made.archive.stored == {"1.2.1": 1}, "silence is no reason to send again"


def test_a_request_that_is_refused_is_made_again_under_a_new_transaction_uid(
    site: Callable[..., Site],
) -> None:
    made = site(ASKED)
    made.archive.channel = "refuse"
    made.send("1.2.1")
    wait_until(lambda: len(made.archive.requests) >= 2)
    made.archive.channel = "new"
    wait_until(lambda: made.commitments() == {"committed": 1})
    transactions = [transaction for transaction, _ in made.archive.requests]
    assert len(set(transactions)) == len(transactions)


def test_a_late_yes_is_a_yes(site: Callable[..., Site]) -> None:
    made = site(ASKED, ask={"collect_s": 0.1, "answer_s": 1.0})
    made.archive.channel = "never"
    made.send("1.2.1")
    wait_until(lambda: len(made.archive.requests) >= 2)
    first = made.archive.requests[0][0]
    assert made.archive.report(made.archive.report_of(first, [("1.2", "1.2.1")])) == 0x0000
    wait_until(lambda: made.commitments() == {"committed": 1})


def test_what_the_destination_does_not_have_is_sent_again(site: Callable[..., Site]) -> None:
    made = site(ASKED)
    denied = {"1.2.2"}
    made.archive.verdict = lambda uid: 0x0112 if uid in denied and made.archive.stored[uid] < 2 else 0
    made.send("1.2.1", "1.2.2")
    wait_until(lambda: made.commitments() == {"committed": 2})
    assert made.archive.stored == {"1.2.1": 1, "1.2.2": 2}
    assert "not-committed commitment-0112" in made.told("1.2.2")


def test_what_it_never_has_becomes_a_dead_letter_and_its_bytes_stay(site: Callable[..., Site]) -> None:
    made = site(ASKED, ask={"collect_s": 0.0, "refusals": 2})
    made.archive.verdict = lambda uid: 0x0112
    made.send("1.2.1")
    wait_until(lambda: made.service.ledger.dead_letters())
    (letter,) = made.service.ledger.dead_letters()
    assert (letter.destination, letter.reason) == ("archive", "commitment-0112")
    assert made.archive.stored == {"1.2.1": 3}
    assert made.commitments() == {"refused": 1}
    assert made.spooled() == 1
    made.archive.verdict = lambda uid: 0
    made.service.ledger.requeue(letter.id)
    wait_until(lambda: made.commitments() == {"committed": 1})
    assert made.spooled() == 0


def test_an_answer_that_leaves_an_instance_out_does_not_settle_it(site: Callable[..., Site]) -> None:
    made = site(ASKED, ask={"collect_s": 0.1, "answer_s": 1.0})
    left_out: list[str] = []

    def verdict(uid: str) -> int | None:
        if uid == "1.2.1" or left_out:
            return 0
        left_out.append(uid)
        return None

    made.archive.verdict = verdict
    made.send("1.2.1", "1.2.2")
    wait_until(lambda: made.commitments() == {"committed": 2})
    assert left_out == ["1.2.2"]
    assert made.archive.stored == {"1.2.1": 1, "1.2.2": 1}


def test_an_answer_to_nothing_is_refused(site: Callable[..., Site]) -> None:
    made = site(ASKED)
    assert made.archive.report(made.archive.report_of("1.2.3.4.5", [("1.2", "1.2.1")])) == 0x0115


def test_who_may_only_answer_cannot_store(site: Callable[..., Site]) -> None:
    """The archive is on no route: it is let in to report, and with no context to store."""
    made = site(ASKED)
    made.modality.title = "ARCHIVE"
    association = made.modality.associate()
    assert [str(context.abstract_syntax) for context in association.accepted_contexts] == [
        "1.2.840.10008.1.20.1"
    ]
    association.release()


def test_a_restart_keeps_the_bytes_and_takes_the_answer(site: Callable[..., Site]) -> None:
    made = site(ASKED, start=False)
    made.archive.channel = "never"
    made.service.start()
    made.send("1.2.1")
    wait_until(lambda: made.archive.requests)
    made.service.stop()
    assert made.commitments() == {"asked": 1}
    made.service = Service(made.config)
    made.service.start()
    assert made.spooled() == 1
    made.archive.report(made.archive.report_of(made.archive.requests[0][0], [("1.2", "1.2.1")]))
    assert made.commitments() == {"committed": 1}
    assert made.spooled() == 0
    assert len(made.archive.requests) == 1, "what was asked before the restart is not asked again"


def test_a_destination_that_is_not_asked_any_more_lets_go(site: Callable[..., Site]) -> None:
    made = site(ASKED, start=False)
    made.archive.channel = "never"
    made.service.start()
    made.send("1.2.1")
    wait_until(lambda: made.archive.requests)
    made.service.stop()
    assert made.commitments() == {"asked": 1}
    plain = made.config.destinations["archive"].model_copy(update={"commitment": False})
    made.service = Service(made.config.model_copy(update={"destinations": {"archive": plain}}))
    made.service.start()
    assert made.commitments() == {}
    assert made.spooled() == 0
    assert "commitment-waived" in made.told("1.2.1")
