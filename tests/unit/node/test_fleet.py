"""Several receiver processes behind one port: to peers and node one receiver, whichever of them dies."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dicom_node import fleet
from dicom_node.audit.events import SecurityAlert, Transferred
from dicom_node.audit.message import Origin
from dicom_node.config import Config
from dicom_node.errors import KeyFileError, OutputError
from dicom_node.fleet import Receivers, receiver_count
from dicom_node.ledger import Ledger
from dicom_node.metrics import ASSOCIATIONS, OCCURRENCES, RECEIVER_RESTARTS, STORES
from dicom_node.spool import Spool
from tests.data_sets import simple
from tests.waiting import wait_until
from tests.wire import ACCEPTED, CT, REJECTED, Wire, pdu

ORIGIN = Origin("n", "NODE", "host", 1)


def config(folder: Path, port: int = 0, receivers: Any = 2, **sections: Any) -> Config:
    node = {"id": "n", "ae_title": "NODE", "bind": "127.0.0.1", "receivers": receivers}
    made = Config.model_validate(
        {
            "node": node | sections.pop("node", {}),
            "storage": {"folder": folder, "reserve_mb": 16},
            "destinations": {"pacs": {"ae_title": "PACS", "host": "127.0.0.1", "port": 104}},
            "routes": (
                {
                    "name": "all",
                    "match": {"calling_ae": ("MOD*",)},
                    "role": "protect",
                    "destinations": ("pacs",),
                },
            ),
        }
        | sections,
        strict=False,
    )
    # the models take no port 0, so it is put in behind their back
    return made.model_copy(update={"node": made.node.model_copy(update={"port": port})})


class Auditor:
    """Writes down what it is told."""

    origin = ORIGIN

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.came: dict[int, str] = {}

    def tell(self, event: Any) -> None:
        self.told.append(event)

    def heard(self, job: int, address: str) -> None:
        self.came[job] = address


class Site:
    """Receiver processes and what they keep."""

    def __init__(self, folder: Path, made: Config, *, audited: bool = False) -> None:
        self.spool = Spool(made.storage.spool_dir, 16_000_000)
        self.ledger = Ledger(made.storage.ledger_path)
        self.auditor = Auditor()
        self.rung = threading.Semaphore(0)
        self.queued: list[str] = []
        auditor: Any = self.auditor if audited else None
        self.receivers = Receivers(
            made,
            self.ledger,
            on_arrival=self.rung.release,
            on_queued=self.queued.append,
            auditor=auditor,
            log_salt=b"salt",
        )
        self.folder = folder

    @property
    def port(self) -> int:
        assert self.receivers.port
        return self.receivers.port

    def parts(self) -> list[Path]:
        return list((self.spool.folder / "tmp").iterdir())

    def home_of(self, act: Callable[[], None]) -> str:
        """The name of the process that an association comes to, which `act` opens."""
        before = {slot.name: slot.row.open_associations for slot in self.receivers._slots}
        act()
        grown: list[str] = []

        def seen() -> bool:
            grown[:] = [s.name for s in self.receivers._slots if s.row.open_associations > before[s.name]]
            return bool(grown)

        wait_until(seen)
        return grown[0]

    def kill(self, name: str) -> Callable[[], bool]:
        """Kill a process; what this returns tells whether all of them run again, another in its place."""
        pid = self.receivers.named_pids[name]
        os.kill(pid, signal.SIGKILL)
        receivers = self.receivers
        return lambda: (
            receivers.named_pids.get(name, pid) != pid and receivers.running == receivers.configured
        )


@contextlib.contextmanager
def running(folder: Path, made: Config, *, audited: bool = False) -> Iterator[Site]:
    site = Site(folder, made, audited=audited)
    site.receivers.start()
    try:
        yield site
    finally:
        site.receivers.stop(2.0)
        site.ledger.close()


def store(wire: Wire, uid: str) -> int:
    return wire.store(CT, uid, simple(CT, uid))


def test_eight_senders_are_shared_and_one_process_dies_among_them(tmp_path: Path) -> None:
    """Its associations break, those of the other go on; its half of an object goes, and it is replaced."""
    with running(tmp_path, config(tmp_path), audited=True) as site, contextlib.ExitStack() as open_wires:
        assert site.receivers.running == site.receivers.configured == 2
        homes: dict[str, list[Wire]] = {"receiver-0": [], "receiver-1": []}
        numbers = itertools.count()
        # a few more where the machine lets one process stand still for as long as the other gives way
        while (number := next(numbers)) < 8 or (not all(homes.values()) and number < 64):
            wire = open_wires.enter_context(Wire(site.port))
            home = site.home_of(lambda w=wire, n=number: w.associate(calling=f"MOD{n}"))  # type: ignore[misc]
            homes[home].append(wire)
            assert store(wire, f"1.2.3.{number}") == 0x0000
        assert min(map(len, homes.values())) >= 1
        assert site.receivers.open_associations == number
        for _ in range(number):
            assert site.rung.acquire(timeout=60)
        wait_until(lambda: len(site.auditor.came) == number)
        assert set(site.auditor.came.values()) == {"127.0.0.1"}

        torn = homes["receiver-0"][0]
        torn.begin_store(CT, "1.2.3.99")
        torn.data([bytes(5000)], last=False)
        wait_until(lambda: len(site.parts()) == 1)
        replaced = site.kill("receiver-0")
        for wire in homes["receiver-0"]:
            assert wire.hung_up()
        for index, wire in enumerate(homes["receiver-1"]):
            assert store(wire, f"1.2.4.{index}") == 0x0000
        wait_until(replaced)
        assert site.parts() == []
        assert site.receivers.open_associations == len(homes["receiver-1"])
        works = site.ledger.claim_work("test", 100, 60.0)
        assert len(works) == number + len(homes["receiver-1"])
        for work in works:
            site.spool.verify(work.blob)
        site.ledger.settle()
        snapshot = site.ledger.snapshot()
        assert snapshot.total(RECEIVER_RESTARTS) == 1
        assert snapshot.total(STORES, "other", "0000") + snapshot.total(STORES, "MOD*", "0000") == len(works)


def test_places_are_those_of_all_together(tmp_path: Path) -> None:
    """Who finds none is told so by any process; a place comes back when an association ends or dies."""
    made = config(tmp_path, node={"max_associations": 4, "max_associations_per_peer": 2})
    with running(tmp_path, made, audited=True) as site, contextlib.ExitStack() as open_wires:
        answers: list[int] = []

        def ask(calling: str) -> tuple[Wire, int]:
            wire = open_wires.enter_context(Wire(site.port))
            answers.append(wire.associate(calling=calling))
            return wire, answers[-1]

        first, answer = ask("MOD1")
        assert answer == ACCEPTED
        assert ask("MOD1")[1] == ACCEPTED
        assert [ask("MOD1")[1] for _ in range(3)] == [REJECTED] * 3
        assert [ask("MOD2")[1] for _ in range(2)] == [ACCEPTED] * 2
        assert [ask("MOD3")[1] for _ in range(2)] == [REJECTED] * 2
        first.send(pdu(5, bytes(4)))
        assert first.hung_up()
        wait_until(lambda: ask("MOD3")[1] == ACCEPTED)
        refused = answers.count(REJECTED)
        # counted where it happened, told to the auditor of the node
        assert len([told for told in site.auditor.told if isinstance(told, SecurityAlert)]) == refused
        wait_until(lambda: site.ledger.snapshot().total(OCCURRENCES, "association-rejected") == refused)
        wait_until(lambda: site.ledger.snapshot().total(ASSOCIATIONS, "MOD*", "rejected") == refused)

        wait_until(lambda: site.receivers.open_associations == 4)
        whose = next(slot for slot in site.receivers._slots if slot.row.open_associations)
        freed = len(whose.row.marks())
        wait_until(site.kill(whose.name))
        assert [ask(f"MOD{number}")[1] for number in range(5, 5 + freed)] == [ACCEPTED] * freed


def test_another_configuration_is_taken_up_by_all(tmp_path: Path) -> None:
    """Associations go on; who cannot take it up is replaced, and who would not start leaves the old one."""
    made = config(tmp_path)
    with running(tmp_path, made, audited=True) as site, Wire(site.port) as wire:
        wire.associate(calling="MOD1")
        with Wire(site.port) as stranger:
            assert stranger.associate(calling="OTHER") == REJECTED
        after = config(
            tmp_path, site.port, routes=({"name": "new", "role": "pass", "destinations": ("pacs",)},)
        )
        site.receivers.adopt(after)
        for _ in range(4):
            with Wire(site.port) as stranger:
                assert stranger.associate(calling="OTHER") == ACCEPTED
        assert store(wire, "1.2.3.1") == 0x0000
        assert site.rung.acquire(timeout=60), "by the route that took the association"
        with Wire(site.port) as other:
            other.associate(calling="OTHER")
            assert store(other, "1.2.3.2") == 0x0000
        wait_until(lambda: site.queued == ["pacs"])

        bad = config(tmp_path, site.port, access={"users": tmp_path / "none", "callers": ()})
        with pytest.raises(KeyFileError):
            site.receivers.adopt(bad)
        assert site.receivers.running == 2

        before = dict(site.receivers.named_pids)
        slot = site.receivers._slots[0]
        site.receivers._replace(slot, "cannot")
        wait_until(lambda: site.receivers.named_pids.get(slot.name, before[slot.name]) != before[slot.name])
        wait_until(lambda: site.receivers.running == 2)
        (refused,) = [told for told in site.auditor.told if isinstance(told, SecurityAlert)]
        assert "unknown-calling-ae" in refused.what


def test_a_refused_object_is_told_to_the_auditor_of_the_node(tmp_path: Path) -> None:
    with running(tmp_path, config(tmp_path, receivers=2), audited=True) as site, Wire(site.port) as wire:
        wire.associate(calling="MOD1")
        assert wire.store(CT, "1.2.3.1", b"\x08\x00") == 0xC000
        (told,) = site.auditor.told
        assert isinstance(told, Transferred)


def test_a_stop_lets_an_object_finish_and_waits_for_nobody_who_is_silent(tmp_path: Path) -> None:
    with contextlib.ExitStack() as held:
        site = Site(tmp_path, config(tmp_path))
        site.receivers.start()
        port = site.port
        for _ in range(6):
            held.enter_context(Wire(port))
        idle, busy = (held.enter_context(Wire(port)) for _ in range(2))
        assert idle.associate(calling="MOD1") == busy.associate(calling="MOD2") == ACCEPTED
        data = simple(CT, "1.2.3.4")
        busy.begin_store(CT, "1.2.3.4")
        busy.data([data[:100]], last=False)
        wait_until(lambda: len(site.parts()) == 1)
        pids = list(site.receivers.named_pids.values())
        stopping = threading.Thread(target=site.receivers.stop, args=(150.0,))
        began = time.monotonic()
        stopping.start()
        assert idle.hung_up()
        busy.data([data[100:]])
        assert busy.status() == 0x0000
        stopping.join(180)
        assert time.monotonic() - began < 140, "nobody had to be killed"
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
        assert (site.receivers.listening, site.receivers.open_associations) == (False, 0)
        with pytest.raises(OSError, match="refused"):
            Wire(port)
        site.ledger.close()


def test_who_hangs_is_killed_and_who_is_left_behind_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fleet, "_ANSWER_S", 0.5)
    with running(tmp_path, config(tmp_path)) as site:
        pid = site.receivers.named_pids["receiver-1"]
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: all(state == "T" for state in states(pid)))
        with Wire(site.port) as wire:
            assert wire.associate(calling="MOD1") == ACCEPTED, "the other one is there"
            assert site.receivers.carry(None, 0.1) is None  # type: ignore[arg-type]
        hung = site.receivers._slots[1]

        def replaced() -> bool:
            now = site.receivers.named_pids.get("receiver-1", pid)
            if now == pid:
                hung.silent = fleet._SILENT  # as after half a minute; a sign of life would undo it
            return now != pid

        wait_until(replaced)
        wait_until(lambda: site.receivers.running == 2)
        assert "receiver-stuck" in [record.msg for record in caplog.records]
        # what a process of a dead node sees: the line closes
        other = site.receivers._slots[0]
        process = other.process  # whoever watches forgets it when it has ended
        assert process is not None
        assert other.line is not None
        other.ending = "left behind"
        with other.sending:
            os.close(os.dup(other.line.fileno()))
            socket.socket(fileno=os.dup(other.line.fileno())).shutdown(socket.SHUT_RDWR)
        wait_until(lambda: process.exitcode is not None)  # whoever waits for it second is told nothing
        assert process.exitcode == 0


def states(pid: int) -> list[str]:
    """What every thread of a process does, in the letters of /proc."""
    stats = [(each / "stat").read_text() for each in Path(f"/proc/{pid}/task").iterdir()]
    return [stat.rpartition(")")[2].split()[0] for stat in stats]


def test_a_port_that_is_taken_starts_nobody(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        site = Site(tmp_path, config(tmp_path, taken.getsockname()[1]))
        with pytest.raises(OutputError, match="another program"):
            site.receivers.start()
    assert site.receivers.named_pids == {}
    assert not site.receivers.alive
    site.ledger.close()


def test_processes_that_do_not_come_up_are_no_receiver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path, config(tmp_path))
    # what a process finds, and the node did not: here a ledger that is none
    monkeypatch.setattr(fleet, "_UP_S", 30.0)
    order = site.receivers._order
    broken = config(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "ledger.sqlite").write_bytes(b"no database" * 1000)

    def misled(slot: Any) -> Any:
        return type(order(slot))(
            **{name: getattr(order(slot), name) for name in order(slot).__slots__} | {"config": broken}
        )

    monkeypatch.setattr(site.receivers, "_order", misled)
    with pytest.raises(OutputError, match="no receiver process came up"):
        site.receivers.start()
    assert site.receivers.named_pids == {}
    site.ledger.close()


def test_who_looks_while_a_dead_process_is_forgotten() -> None:
    class Forgotten:
        looks = iter((SimpleNamespace(is_alive=lambda: False),))
        process = property(lambda self: next(self.looks, None))

    alive: Any = fleet._Slot.alive
    assert alive.fget(Forgotten()) is False


def test_how_many_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert receiver_count(config(tmp_path, receivers=3)) == 3
    for cores, wanted in ((1, 1), (3, 3), (64, 4)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid, cores=cores: set(range(cores)))
        assert receiver_count(config(tmp_path, receivers="auto")) == wanted


def test_what_a_dead_process_was_asked_is_answered_while_others_ask(tmp_path: Path) -> None:
    with running(tmp_path, config(tmp_path)) as site:
        receivers, asking = site.receivers, threading.Event()
        one, other = receivers._slots
        silent = receivers._ask(one, lambda _number: None)

        def ask() -> None:
            while not asking.is_set():
                receivers._ask(other, lambda _number: None)

        thread = threading.Thread(target=ask)
        thread.start()
        assert one.process is not None
        one.process.kill()
        assert silent.wait(60.0) is None
        asking.set()
        thread.join()
        assert [each for each in receivers._asked.values() if each.slot is one] == []
        assert receivers.alive


def test_a_process_that_nobody_could_hear_is_ended_and_another_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock, refused = threading.Thread.start, []

    def start(thread: threading.Thread) -> None:
        if thread.name == "receiver-0" and len(refused) == 1:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        if thread.name == "receiver-0":
            refused.append(thread)
        stock(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with running(tmp_path, config(tmp_path)) as site:
        os.kill(site.receivers.named_pids["receiver-0"], signal.SIGKILL)
        wait_until(lambda: len(refused) == 3 and site.receivers.running == 2)
        assert site.receivers.alive
