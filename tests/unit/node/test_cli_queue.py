"""An operator sees what waits and decides it, on the live ledger, and no patient is shown."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from dicom_node import cli, jobs
from dicom_node.cli.live import login
from dicom_node.jobs import DeliveryState, InstanceState, Outcome
from dicom_node.ledger import Ledger
from dicom_node.spool import Spool
from tests.ledgers import arrival

_UID = "1.2.826.0.1.3680043.8.498.4711"


@dataclass
class Site:
    """A node's state folder with its configuration, and the command on it."""

    config: Path
    book: Ledger
    spool: Spool
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """What a command printed; its audit lines are in `told`."""
        found = cli.main(["queue", *arguments, "--config", str(self.config)])
        out, self.told = self.capsys.readouterr()
        assert found == code, self.told
        assert _UID not in out + self.told
        return out

    told: str = ""
    queued: int = 0

    def arrive(self, uid: str = _UID, content: bytes = b"came") -> int:
        blob = self.spool.put([content])
        return self.book.add(arrival(uid, route="all"), blob.name, blob.size).id

    def end(self, state: InstanceState, *destinations: str) -> None:
        """Bring the next instance to an end."""
        (work,) = self.book.claim_work("w", 1, 10.0)
        blob = self.spool.put([b"leaves"]) if destinations else None
        self.book.finish(
            work,
            Outcome(
                state,
                str(state),
                "because",
                blob="" if blob is None else blob.name,
                sop_instance_uid=f"{_UID}.1",
                destinations=destinations,
            ),
        )

    def queue(self, *destinations: str) -> None:
        self.queued += 1
        self.arrive(f"{_UID}.{self.queued}", str(self.queued).encode())
        self.end(InstanceState.READY, *destinations)

    def kill(self, destination: str = "pacs") -> int:
        """Let a delivery die; its number."""
        (send,) = self.book.claim_sends(destination, 1, 10.0)
        self.book.dead(send, "status-c000")
        return send.id


@pytest.fixture
def site(scratch: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    config = scratch / "node.yaml"
    config.write_text(
        f"node: {{id: n, ae_title: NODE}}\nstorage: {{folder: {scratch}}}\n"
        "destinations:\n  pacs: {ae_title: PACS, host: pacs, port: 104}\n"
        "routes:\n  - {name: all, role: pass, destinations: [pacs]}\n"
    )
    made = Site(config, Ledger(scratch / "ledger.sqlite"), Spool(scratch / "spool", 0), capsys)
    yield made
    made.book.close()


# list


def test_an_empty_queue_is_an_empty_list(site: Site) -> None:
    assert site("list").split() == ["where", "state", "count", "oldest"]
    assert json.loads(site("list", "--json"))["queues"] == []


def test_queues_are_listed_with_counts_ages_and_remarks(site: Site) -> None:
    site.queue("pacs", "gone")
    site.queue("pacs")
    site.book.pause("pacs")
    site.arrive()
    lines = site("list").splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        ["(this", "node)", "received"],
        ["(this", "node)", "ready"],
        ["gone", "queued", "1"],
        ["pacs", "queued", "2"],
    ]
    assert "NOT IN THE CONFIGURATION" in lines[3]
    assert "PAUSED since 20" in lines[4]
    assert " s " in lines[4]


def test_a_paused_destination_is_listed_although_nothing_waits_for_it(site: Site) -> None:
    site("pause", "pacs")
    assert "PAUSED" in site("list")


def test_a_destination_that_is_down_closed_or_replaced_says_so(site: Site) -> None:
    """Its window is an hour that is not now."""
    hour = (datetime.now().hour + 2) % 24
    text = site.config.read_text().replace(
        "port: 104}", f'port: 104, windows: ["{hour:02}:00-{hour:02}:30"]}}'
    )
    plain = site.config.read_text()
    site.queue("pacs")
    site.config.write_text(text)
    assert "CLOSED until 20" in site("list")
    site.config.write_text(
        plain.replace("port: 104}", "port: 104, failover: vna}\n  vna: {ae_title: V, host: v, port: 104}")
    )
    site.book.went_down("pacs", time.time() - 601.0)
    site.book.went_down("vna", time.time())
    listed = site("list")
    assert "DOWN since 20" in listed.splitlines()[-2]
    assert listed.splitlines()[-2].endswith(", goes to vna")
    assert "DOWN since 20" in listed.splitlines()[-1]
    (pacs, vna) = json.loads(site("list", "--json"))["destinations"]
    assert (pacs["goes_to"], vna["goes_to"], pacs["closed_until"]) == ("vna", None, None)
    assert pacs["down_since"] < vna["down_since"]


def test_who_resumes_or_retries_wants_the_destination_asked_at_once(site: Site) -> None:
    site.queue("pacs")
    site.book.went_down("pacs", 1.0)
    assert not site.book.take_hurry("pacs")
    site("resume", "pacs")
    assert site.book.take_hurry("pacs")
    assert not site.book.take_hurry("pacs")
    site("retry", "d1")
    assert site.book.take_hurry("pacs")


def test_rows_are_listed_on_demand_and_no_more_than_asked_for(site: Site) -> None:
    for _ in range(3):
        site.queue("pacs")
    dead = site.kill()
    assert "d1" not in site("list")
    found = json.loads(site("list", "--json", "--state", "dead"))
    assert [(row["id"], row["destination"], row["reason"]) for row in found["rows"]] == [
        (f"d{dead}", "pacs", "status-c000")
    ]
    assert len(json.loads(site("list", "--json", "--destination", "pacs"))["rows"]) == 3
    assert len(json.loads(site("list", "--json", "--limit", "2"))["rows"]) == 2
    assert f"d{dead}" in site("list", "--state", "dead")


def test_held_instances_are_listed_by_their_number(site: Site) -> None:
    number = site.arrive()
    site.end(InstanceState.HELD)
    (row,) = json.loads(site("list", "--json", "--state", "held"))["rows"]
    assert (row["id"], row["reason"]) == (number, "because")


def test_json_says_what_is_configured_and_paused(site: Site) -> None:
    site.queue("gone")
    site("pause", "pacs")
    gone, pacs = json.loads(site("list", "--json"))["destinations"]
    assert (gone["name"], gone["configured"], gone["paused_since"]) == ("gone", False, None)
    assert (pacs["name"], pacs["configured"]) == ("pacs", True)
    assert pacs["paused_since"].endswith("Z")


def test_the_states_of_the_parser_are_those_of_the_ledger() -> None:
    assert [*cli.STATES] == [*jobs.InstanceState, *jobs.DeliveryState]


# show


def test_an_instance_is_shown_with_its_deliveries_under_either_number(site: Site) -> None:
    site.queue("pacs", "gone")
    dead = site.kill()
    shown = json.loads(site("show", "1", "--json"))
    assert shown == json.loads(site("show", f"d{dead}", "--json"))
    assert (shown["job"], shown["state"], shown["route"]) == (1, "ready", "all")
    assert [row["destination"] for row in shown["deliveries"]] == ["pacs", "gone"]
    text = site("show", "1")
    assert "status-c000" in text
    assert shown["uid"] in text


@pytest.mark.parametrize("number", ["99", "d99"])
def test_what_is_not_there_is_an_error(site: Site, number: str) -> None:
    site("show", number, code=1)
    assert f"there is no {number}" in site.told


@pytest.mark.parametrize("text", ["x", "d", "-1", "1.5", "17d"])
def test_what_is_no_number_is_a_usage_error(site: Site, text: str) -> None:
    with pytest.raises(SystemExit) as ended:
        site("show", text)
    assert ended.value.code == 2


# retry


def test_dead_letters_are_queued_again_by_number_instance_or_destination(site: Site) -> None:
    site.queue("pacs", "gone")
    first, second = site.kill("pacs"), site.kill("gone")
    assert site("retry", f"d{first}") == "1 queued again\n"
    assert [letter.id for letter in site.book.dead_letters()] == [second]
    assert " requeued " in site.told
    assert f"delivery={first}" in site.told
    site.kill("pacs")
    assert site("retry", "1") == "2 queued again\n"
    site.kill("pacs")
    site.kill("gone")
    assert site("retry", "--dead", "--destination", "pacs") == "1 queued again\n"
    assert site("retry", "--dead") == "1 queued again\n"
    assert site.book.counts().deliveries[DeliveryState.QUEUED] == 2


def test_poison_is_let_out_by_its_number_only(site: Site) -> None:
    number = site.arrive()
    for worker in ("a", "b"):
        site.book.claim_work(worker, 1, 10.0)
        site.book.worker_died(worker)
    assert "killed-its-worker" in site("list", "--state", "quarantined")
    assert site("retry", "--held") == "0 queued again\n"
    assert site("retry", str(number)) == "1 queued again\n"
    assert [work.id for work in site.book.claim_work("c", 8, 10.0)] == [number]


def test_held_instances_are_worked_on_again(site: Site) -> None:
    site.arrive()
    site.end(InstanceState.HELD)
    assert site("retry", "--held") == "1 queued again\n"
    assert len(site.book.claim_work("w", 1, 10.0)) == 1


@pytest.mark.parametrize(
    "arguments", [(), ("1", "--dead"), ("--destination", "pacs"), ("--held", "--destination", "pacs")]
)
def test_retry_wants_to_know_what(site: Site, arguments: tuple[str, ...]) -> None:
    site("retry", *arguments, code=2)
    assert "name IDs" in site.told


def test_what_does_not_wait_is_not_retried_and_nothing_else_is_either(site: Site) -> None:
    site.queue("pacs")
    site.kill()
    site.arrive()
    site("retry", "1", "2", code=1)
    assert "nothing of it is held" in site.told
    assert len(site.book.dead_letters()) == 1, "all or nothing"


# drop


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_dropping_asks_first(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.queue("pacs")
    site("drop", "d1", code=2)
    assert "--yes" in site.told
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    site("drop", "d1", code=1)
    assert site.book.counts().deliveries[DeliveryState.QUEUED] == 1
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert site("drop", "d1") == "1 dropped\n"
    assert site.book.counts().deliveries[DeliveryState.DROPPED] == 1


def test_dropping_leaves_an_audit_line_and_a_trace(site: Site) -> None:
    number = site.arrive()
    site.end(InstanceState.HELD)
    assert site("drop", str(number), "--yes") == "1 dropped\n"
    assert " dropped " in site.told
    assert f"job={number}" in site.told
    assert "uid=" in site.told
    last = site.book.trace(_UID)[-1]
    assert (last.what, last.reason) == ("rejected", f"operator {login()}")


def test_everything_of_a_destination_that_is_gone_can_be_dropped(site: Site) -> None:
    for _ in range(3):
        site.queue("pacs", "gone")
    site.kill("gone")
    assert site("drop", "--destination", "gone", "--yes") == "3 dropped\n"
    assert "count=3" in site.told
    assert site.book.counts().deliveries[DeliveryState.QUEUED] == 3
    site("drop", "d1", "--destination", "gone", "--yes", code=2)


# pause, resume


def test_a_pause_holds_until_it_is_ended(site: Site) -> None:
    site.queue("pacs")
    assert site("pause", "pacs") == "pacs is paused\n"
    assert "paused" in site.told
    assert site("pause", "pacs") == "pacs is paused already\n"
    assert site.book.claim_sends("pacs", 1, 10.0) == []
    assert site("resume", "pacs") == "pacs is resumed\n"
    assert site("resume", "pacs") == "pacs was not paused\n"
    assert len(site.book.claim_sends("pacs", 1, 10.0)) == 1


def test_a_destination_of_which_nothing_is_known_is_a_usage_error(site: Site) -> None:
    site("pause", "pasc", code=2)
    assert "there are pacs" in site.told


def test_a_destination_that_left_the_configuration_can_be_paused(site: Site) -> None:
    site.queue("gone")
    site("pause", "gone")
    assert set(site.book.paused()) == {"gone"}


# export


def test_an_object_is_written_as_it_arrived_or_as_it_is_sent(site: Site, scratch: Path) -> None:
    site.arrive(content=b"came")
    site.end(InstanceState.READY, "pacs")
    assert "as it arrived" in site("export", "1", "--out", str(scratch / "in.dcm"))
    assert (scratch / "in.dcm").read_bytes() == b"came"
    assert "as it is sent" in site("export", "d1", "--out", str(scratch / "out.dcm"))
    assert (scratch / "out.dcm").read_bytes() == b"leaves"
    assert " exported " in site.told
    assert [event.what for event in site.book.trace(_UID)][-2:] == ["exported", "exported"]


def test_a_changed_object_is_not_exported(site: Site, scratch: Path) -> None:
    site.arrive(content=b"came")
    item = site.book.item(1)
    assert item is not None
    site.spool.path(item.blob).write_bytes(b"CAME")
    site("export", "1", "--out", str(scratch / "in.dcm"), code=1)
    assert "has changed on disk" in site.told
    assert not (scratch / "in.dcm").exists()


# the ledger of a node


def test_without_a_ledger_there_is_nothing_to_see_and_none_is_made(
    scratch: Path, capsys: pytest.CaptureFixture[str], site: Site
) -> None:
    site.book.close()
    (scratch / "ledger.sqlite").unlink()
    site("list", code=1)
    assert "has the node been started" in site.told
    assert not (scratch / "ledger.sqlite").exists()
