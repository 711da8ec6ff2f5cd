"""The whole node: what is started, in which order it ends, and what it tells the service manager."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from benchmarks.stand import free_port
from dicom_node import housekeeping, keys, security, service, users
from dicom_node.config import Access, Caller, Config, Destination, Keys, Role, Route, Tls
from dicom_node.errors import (
    ConfigError,
    LedgerUnavailable,
    NodeError,
    OutputError,
    ReloadError,
    SpoolError,
)
from dicom_node.jobs import Arrival
from dicom_node.ledger import Ledger
from dicom_node.metrics import OCCURRENCES, STORES, Reading
from dicom_node.service import Service, log_salt, serve, take_up
from dicom_node.spool import Spool
from tests.certificates import Authority
from tests.waiting import wait_until


def config(folder: Path, **sections: Any) -> Config:
    return Config.model_validate(
        {
            "node": {"id": "n", "ae_title": "NODE", "bind": "127.0.0.1", "port": free_port()},
            "storage": {"folder": folder, "reserve_mb": 16},
            "workers": {"count": 1},
            "destinations": {"pacs": {"ae_title": "PACS", "host": "127.0.0.1", "port": free_port()}},
            "routes": ({"name": "all", "role": "pass", "destinations": ["pacs"]},),
            "http": {"port": free_port()},
        }
        | sections,
        strict=False,
    )


def get(port: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=60).close()
    except OSError:
        return False
    return True


def test_a_node_starts_answers_and_stops(tmp_path: Path) -> None:
    made = config(tmp_path)
    assert made.http.port is not None
    node = Service(made)
    node.start()
    try:
        assert node.dead_parts() == []
        assert is_open(made.node.port)
        wait_until(lambda: node.problems() == [])
        assert get(made.http.port, "/healthz") == (200, "alive\n")
        assert get(made.http.port, "/readyz") == (200, "ready\n")
        assert "The node works, and everything" in get(made.http.port, "/")[1]
        assert "dicom_node_spool_free_bytes" in get(made.http.port, "/metrics")[1]
        node.spool.reserve_bytes = 1 << 60
        assert get(made.http.port, "/readyz") == (503, "spool\n")
    finally:
        node.stop()
    assert not is_open(made.node.port)
    assert not is_open(made.http.port)
    assert node.workers.alive == 0


def test_nothing_is_accepted_when_the_self_test_fails(tmp_path: Path) -> None:
    made = config(tmp_path)

    def fail() -> None:
        raise NodeError("this machine computes something else")

    with pytest.raises(NodeError, match="computes something else"):
        Service(made, self_test=fail).start()
    assert not is_open(made.node.port)


def test_what_was_started_is_stopped_when_a_later_part_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[str] = []
    for name in ("Workers", "Forwarder", "Receiver"):
        part = getattr(service, name)
        monkeypatch.setattr(part, "start", lambda _self: None)
        monkeypatch.setattr(part, "stop", lambda _self, name=name: stopped.append(name))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        made = config(tmp_path, http={"port": taken.getsockname()[1]})
        with pytest.raises(OutputError, match="cannot serve HTTP"):
            Service(made).start()
    assert stopped == ["Receiver", "Forwarder", "Workers"]


def test_http_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.Workers, "start", lambda _self: None)
    monkeypatch.setattr(service.Workers, "stop", lambda _self: None)
    node = Service(config(tmp_path, http={"port": None}))
    node.start()
    assert not hasattr(node, "http")
    assert node.dead_parts() == ["workers"], "nobody replaces those that die"
    assert node.problems() == ["workers"]
    node.stop()


@pytest.mark.parametrize("part", ["receiver", "workers", "forwarder", "committer", "housekeeper"])
def test_a_thread_that_has_ended_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setattr(service.Workers, "_start", lambda _self, _slot: None)
    monkeypatch.setattr(service.Workers, "_look_after", lambda _self, _slot: None)
    node = Service(config(tmp_path, http={"port": None}))
    node.start()
    try:
        assert node.dead_parts() == []
        _end(node, part)
        wait_until(lambda: node.dead_parts() == [part])
        assert part in node.problems()
    finally:
        node.stop()


def _end(node: Service, part: str) -> None:
    """End one of the threads that everything hangs on."""
    match part:
        case "receiver":
            (server,) = node.receiver._servers
            server.service_actions = lambda: None  # type: ignore[method-assign]
            server.turned_at -= 60.0
        case "workers":
            node.workers._stopping.set()
        case "forwarder":
            node.forwarder._lanes[0].stopping.set()
        case "committer":
            node.committer._promiser.stopping.set()
        case "housekeeper":
            node.housekeeper._stopping.set()


def test_a_clock_that_is_set_back_keeps_nobody_at_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.Workers, "start", lambda _self: None)
    monkeypatch.setattr(service.Workers, "stop", lambda _self: None)
    monkeypatch.setattr(service.Service, "worker_count", 3)
    monkeypatch.setattr(housekeeping, "_LOOK_S", 3600.0)  # nobody looks but this test
    node = Service(config(tmp_path, http={"port": None}))
    node.start()
    try:
        roused: list[tuple[int, dict[str, int]]] = []
        monkeypatch.setattr(node._bells, "rouse_all", lambda *whom: roused.append(whom))
        node.housekeeper._ahead_s += 3600.0
        node.housekeeper.look()
        lanes = {name: each.associations for name, each in node._config.destinations.items()}
        assert roused == [(3, lanes)]
    finally:
        node.stop()


def test_what_was_only_counted_is_written_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.Workers, "start", lambda _self: None)
    monkeypatch.setattr(service.Workers, "stop", lambda _self: None)
    node = Service(config(tmp_path, http={"port": None}))
    node.start()
    node.ledger.count_soon(Reading(STORES, ("other", "a700")))
    node.stop()
    again = Ledger(tmp_path / "ledger.sqlite")
    assert again.snapshot().total(STORES, "other", "a700") == 1
    again.close()


def test_who_was_not_let_in_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.Workers, "start", lambda _self: None)
    monkeypatch.setattr(service.Workers, "stop", lambda _self: None)
    node = Service(config(tmp_path, http={"port": None}))
    node.start()
    security.tell(security.Occurrence("handshake-failed", "certificate-expired", "192.0.2.7"))
    node.ledger.settle()
    assert node.ledger.snapshot().total(OCCURRENCES, "handshake-failed", "certificate-expired") == 1
    node.stop()
    security.tell(security.Occurrence("handshake-failed", "certificate-expired", "192.0.2.7"))


def test_leases_of_a_crash_are_taken_back_at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recovered: list[object] = []
    recover = Ledger.recover
    monkeypatch.setattr(Ledger, "recover", lambda self: recovered.append(self) or recover(self))
    monkeypatch.setattr(service.Workers, "start", lambda self: recovered.append(self))
    monkeypatch.setattr(service.Workers, "stop", lambda _self: None)
    node = Service(config(tmp_path, http={"port": None}))
    node.start()
    node.stop()
    assert [type(item).__name__ for item in recovered] == ["Ledger", "Workers"]


def test_what_nobody_needs_is_cleaned_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned = threading.Event()
    monkeypatch.setattr(service.Housekeeper, "clean", lambda _self: cleaned.set())
    node = Service(config(tmp_path, http={"port": None}))
    node.start()
    assert cleaned.wait(60)
    node.stop()


def test_a_node_whose_spool_is_not_mounted_does_not_start(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.add(Arrival("1", "1.2.3", "1", "A", "B", "all"), "a" * 64, 1)
    ledger.close()
    with pytest.raises(SpoolError, match="mount its disk"):
        Service(config(tmp_path)).start()
    assert not (tmp_path / "spool").exists(), "or the second start would take it for an empty one"


def test_a_row_without_bytes_is_quarantined_before_anybody_works(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "dicom_node.service")
    Spool(tmp_path / "spool", 0)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.add(Arrival("1", "1.2.3", "1", "A", "B", "all"), "a" * 64, 1)
    node = Service(config(tmp_path, http={"port": None}))
    node.start()
    node.stop()
    (kept,) = ledger.held()
    assert kept.reason == "bytes-missing"
    assert not ledger.begin_run("the next boot"), "it was stopped in good order"
    ledger.close()
    (line,) = [record.dicom_node_event for record in caplog.records if record.msg == "recovered"]
    assert (line["checked"], line["lost"]) == (1, 1)


def test_a_start_asks_the_service_manager_for_patience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(service, "notify", told.append)
    node = Service(config(tmp_path, http={"port": None}))
    node.start()
    node.stop()
    assert told == ["EXTEND_TIMEOUT_USEC=600000000"]


def test_the_salt_of_the_log_is_made_once_and_kept_to_ourselves(tmp_path: Path) -> None:
    made = config(tmp_path)
    salt = log_salt(made)
    assert len(salt) == 32
    assert log_salt(made) == salt
    assert log_salt(config(tmp_path / "other")) != salt
    assert stat.S_IMODE((tmp_path / "log-salt").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["log-salt"]


def test_the_salt_is_read_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node killed on a full disk must be able to start again."""
    made = config(tmp_path)
    salt = log_salt(made)
    monkeypatch.setattr(service, "_create", lambda *_: pytest.fail("there is a salt"))
    assert log_salt(made) == salt


def test_a_reload_while_the_ledger_is_away_ends_no_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_arguments: object) -> None:
        raise LedgerUnavailable("the database is away")

    made = config(tmp_path)
    node = Service(made)
    node.start()
    try:
        for name in ("_reading", "_transaction"):
            monkeypatch.setattr(node.ledger, name, away)
        with pytest.raises(ReloadError, match="the database is away; nothing has been changed"):
            node.reload(made.model_copy(update={"log": made.log.model_copy(update={"level": "debug"})}))
        assert is_open(made.node.port)
        assert node.dead_parts() == []
        monkeypatch.undo()
        wait_until(lambda: node.problems() == [])
    finally:
        node.stop()


def test_machines_of_a_cluster_take_the_salt_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file stands for the common ledger here."""
    monkeypatch.setattr(service.log, "_salt", b"")
    section = {
        "name": "c",
        "database": {"url": "postgresql://u@h/d"},
        "blobs": {"kind": "directory", "directory": tmp_path},
    }
    ledger = Ledger(tmp_path / "ledger.sqlite")
    alone, first, second = (
        Service(config(tmp_path / name, **({} if name == "alone" else {"cluster": section})))
        for name in ("alone", "first", "second")
    )
    for node in (alone, first, second):
        node.ledger = ledger
    own = {name: log_salt(config(tmp_path / name)) for name in ("alone", "first", "second")}
    assert len(set(own.values())) == 3
    assert alone._agreed_salt() == own["alone"]
    assert first._agreed_salt() == own["first"]
    assert service.log._salt == b"", "what it was told is right"
    assert second._agreed_salt() == own["first"]
    assert service.log._salt == own["first"]
    assert log_salt(config(tmp_path / "second")) == own["first"], "for commands, and after a reload"
    assert stat.S_IMODE((tmp_path / "second" / "log-salt").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "second").iterdir()] == ["log-salt"]
    ledger.close()


def test_serve_ends_with_sigterm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(service, "notify", told.append)
    monkeypatch.setattr(service.log, "setup", lambda *_arguments, **_options: None)
    monkeypatch.setattr(service.log, "silence_warnings", lambda: None)
    monkeypatch.setattr(service.Workers, "start", lambda _self: None)
    monkeypatch.setattr(service.Workers, "stop", lambda _self: None)
    monkeypatch.setattr(service.threading, "excepthook", threading.excepthook)
    before = signal.getsignal(signal.SIGTERM)
    _when(lambda: "READY=1" in told, lambda: os.kill(os.getpid(), signal.SIGTERM))
    made = config(tmp_path, http={"port": None})
    assert serve(made, reread=lambda: pytest.fail("nobody asked")) == 0
    assert told == ["EXTEND_TIMEOUT_USEC=600000000", "READY=1", "STOPPING=1"]
    assert signal.getsignal(signal.SIGTERM) == before


def _when(ready: Callable[[], bool], act: Callable[[], None]) -> None:
    def wait() -> None:
        wait_until(ready)
        act()

    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def running(made: Config) -> Iterator[Service]:
    node = Service(made)
    node.start()
    try:
        yield node
    finally:
        node.stop()


def with_destination(made: Config, name: str, **more: Any) -> Config:
    """The same node with one destination, for everything."""
    return made.model_copy(
        update={
            "destinations": {name: Destination(ae_title="A", host="127.0.0.1", port=free_port())},
            "routes": (made.routes[0].model_copy(update={"destinations": (name,)}),),
            **more,
        }
    )


def test_another_configuration_is_taken_up(tmp_path: Path) -> None:
    first = config(tmp_path)
    second = with_destination(first, "vault", storage=first.storage.model_copy(update={"reserve_mb": 32}))
    with running(first) as node:
        receiver, workers = node.receiver, node.workers
        node.reload(second)
        assert node.receiver is receiver, "the listener stays"
        assert node.workers is not workers
        assert workers.alive == 0
        assert node.spool.reserve_bytes == 32_000_000
        assert node.dead_parts() == []
        wait_until(lambda: node.problems() == [])
        assert first.http.port is not None
        assert 'destination="vault"' in get(first.http.port, "/metrics")[1]


def test_a_reload_that_is_taken_back_lets_go_of_no_commitment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = config(tmp_path)
    asked = made.destinations["pacs"].model_copy(update={"commitment": True})
    first = made.model_copy(update={"destinations": {"pacs": asked}})
    with running(first) as node, socket.create_server(("127.0.0.1", 0)) as taken:
        kept: list[frozenset[str]] = []
        monkeypatch.setattr(node.ledger, "waive_commitments", lambda names: kept.append(names) or 0)
        http = first.http.model_copy(update={"port": taken.getsockname()[1]})
        with pytest.raises(ReloadError, match="cannot serve HTTP"):
            node.reload(made.model_copy(update={"http": http}))
        assert kept == [{"pacs"}]
        node.reload(made)
        assert kept == [{"pacs"}, set()]


def test_a_reload_is_in_the_audit_trail(tmp_path: Path) -> None:
    first = config(tmp_path, audit={"host": "127.0.0.1", "port": free_port(), "transport": "tcp"})
    with running(first) as node:
        assert node.auditor is not None
        node.reload(with_destination(first, "vault"))
        store = node.auditor.store
        told = [store.read(number) or b"" for number in store.waiting()]
        assert sum(b"Software Configuration" in message for message in told) == 1


def test_what_only_a_start_can_change_is_refused_by_name(tmp_path: Path) -> None:
    first = config(tmp_path)
    moved = first.model_copy(update={"node": first.node.model_copy(update={"port": free_port()})})
    with running(first) as node:
        workers = node.workers
        with pytest.raises(ReloadError, match=r"only a restart can change node\.port; nothing"):
            node.reload(moved)
        assert node.workers is workers
        assert is_open(first.node.port or 0)


def test_a_part_that_cannot_be_started_puts_the_old_configuration_back(tmp_path: Path) -> None:
    first = config(tmp_path)
    with running(first) as node, socket.create_server(("127.0.0.1", 0)) as taken:
        unusable = with_destination(
            first, "vault", http=first.http.model_copy(update={"port": taken.getsockname()[1]})
        )
        with pytest.raises(ReloadError, match=r"the old configuration stays.*cannot serve HTTP"):
            node.reload(unusable)
        wait_until(lambda: node.problems() == [])
        assert first.http.port is not None
        assert "vault" not in get(first.http.port, "/metrics")[1]


def test_a_reload_that_fails_is_told_and_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(service, "notify", lambda state: told.append(state.partition("=")[0]))
    made = config(tmp_path)

    def bad() -> Config:
        raise ConfigError(("node.yaml:3: nodes: is unknown here",))

    with running(made) as node:
        wait_until(lambda: node.problems() == [])
        take_up(node, bad)
        assert not node.reloads.successful
        assert made.http.port is not None
        assert "dicom_node_config_last_reload_successful 0.0" in get(made.http.port, "/metrics")[1]
        assert node.problems() == []
    (line,) = [record for record in caplog.records if record.msg == "reload-refused"]
    assert line.exc_info is not None
    assert "is unknown here" in str(line.exc_info[1])
    assert told[-2:] == ["RELOADING", "READY"]


def _half_renewed(folder: Path) -> tuple[Path, dict[str, Any]]:
    authority = Authority(folder / "ca")
    own = authority.issue("node", "localhost")
    tls = Tls(certificate=own.certificate, key=own.key, ca=authority.file)
    peer = Destination(ae_title="PACS", host="127.0.0.1", port=free_port(), tls=True)
    return own.certificate, {"tls": tls, "destinations": {"pacs": peer}}


def _ring(folder: Path) -> tuple[Path, dict[str, Any]]:
    keys.generate(folder / "ring")
    route = Route(name="all", role=Role.PROTECT, destinations=("pacs",))
    return folder / "ring", {"keys": Keys(ring=folder / "ring"), "routes": (route,)}


def _users(folder: Path) -> tuple[Path, dict[str, Any]]:
    file = folder / "users"
    file.write_text(users.entry("a", "b"))
    file.chmod(0o600)
    return file, {"access": Access(callers=(Caller(ae_title="A", users=("a",)),), users=file)}


@pytest.mark.parametrize("named", [_half_renewed, _ring, _users])
def test_a_file_that_is_no_good_at_a_reload_stops_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    named: Callable[[Path], tuple[Path, dict[str, Any]]],
) -> None:
    """A certificate's renewal that is half done, say, and the reload that its hook asks for."""
    monkeypatch.setattr(service.Workers, "start", lambda _self: None)
    monkeypatch.setattr(service.Workers, "stop", lambda _self: None)
    file, sections = named(tmp_path)
    made = config(tmp_path / "state").model_copy(update=sections)
    with running(made) as node:
        forwarder, content = node.forwarder, file.read_bytes()
        file.write_text("half")
        take_up(node, lambda: made)
        assert node.forwarder is forwarder
        assert forwarder.alive
        assert not node.reloads.successful
        assert "reload-refused" in caplog.text
        file.write_bytes(content)
        take_up(node, lambda: made)
        assert node.reloads.successful


@pytest.mark.parametrize(
    "error", [LedgerUnavailable("database is locked"), OSError(24, "Too many open files")]
)
def test_what_passes_is_waited_for_before_a_reload_ends_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(service, "_PUT_BACK_S", (0.01, 0.01))
    monkeypatch.setattr(service.Workers, "start", lambda _self: None)
    monkeypatch.setattr(service.Workers, "stop", lambda _self: None)
    made = config(tmp_path)
    stock, refusals = service.Forwarder, iter((True, True))

    def forwarder(*arguments: Any, **named: Any) -> Any:
        if next(refusals, False):
            raise error
        return stock(*arguments, **named)

    with running(made) as node:
        monkeypatch.setattr(service, "Forwarder", forwarder)
        with pytest.raises(ReloadError, match="the old configuration stays"):
            node.reload(made)
        assert node.forwarder.alive
