"""Several nodes as a cluster, with a PostgreSQL, a RabbitMQ and a place for bytes of their own."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import postgresql, rabbit
from benchmarks.postgresql import NODE, PASSWORD, Server
from benchmarks.rabbit import Rabbit
from benchmarks.stand import Node, Peer, Setup, wait_until

_START_S = 120.0
#: name -> parts: two of each, and one that leads
SPREAD: Mapping[str, tuple[str, ...]] = {
    "receive-1": ("receive",),
    "receive-2": ("receive",),
    "work-1": ("work",),
    "work-2": ("work",),
    "forward-1": ("forward",),
    "forward-2": ("forward", "lead"),
    "lead": ("lead",),
}


def installed() -> bool:
    """Whether this machine has the servers."""
    return rabbit.installed() and postgresql.is_installed()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a member runs: the address that it listens at, and the program that puts it there."""

    host: str = "127.0.0.1"
    under: tuple[str, ...] = ()


@dataclass
class Servers:
    """A PostgreSQL and a RabbitMQ that several clusters use, one after the other; found at `host`."""

    database: Server
    broker: Rabbit | None
    host: str = "127.0.0.1"


@contextlib.contextmanager
def servers(
    *,
    with_broker: bool = True,
    on_disk: bool = False,
    network: tuple[str, str] | None = None,
    settings: Sequence[str] = (),
) -> Iterator[Servers]:
    """A PostgreSQL and a RabbitMQ until the end of the block; what is asked of them as of `Server`."""
    host = network[1] if network else "127.0.0.1"
    with contextlib.ExitStack() as undo:
        database = Server(settings, on_disk=on_disk, network=network)
        undo.callback(database.remove)
        database.make()
        broker = None
        if with_broker:
            broker = Rabbit(host)
            undo.callback(broker.close)
            broker.start()
        yield Servers(database, broker, host)


class Member(Node):
    """One node of a cluster; without the part `receive` it has no port to wait for."""

    def __init__(self, folder: Path, setup: Setup, parts: Sequence[str], under: Sequence[str] = ()) -> None:
        self.parts, self._under = tuple(parts), tuple(under)
        super().__init__(folder, setup)

    def begin(self) -> Member:
        """Start, without waiting for anything."""
        self.start(ready=False, under=self._under)
        return self

    def await_health(self) -> None:
        """Wait until it works; AssertionError with the end of its log when it ends instead."""
        wait_until(lambda: self.page("/healthz")[0] == 200 or not self.running, _START_S, "health")
        assert self.running, self.said()[-3000:]

    @property
    def leads(self) -> bool:
        """Whether its page is the leader's."""
        return self.metric("dicom_node_leading") == 1


@dataclass
class Cluster:
    """What is started, and stopped, together.

    `blobs` is the section of that name; None is a directory. Without `servers` it has its own; `places`
    are those of members that do not run like everything else.
    """

    folder: Path
    destinations: Mapping[str, Peer]
    role: str = "pass"
    spread: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: SPREAD)
    workers: int = 1
    blobs: Mapping[str, object] | None = None
    with_broker: bool = True
    servers: Servers | None = None
    name: str = "test"
    places: Mapping[str, Place] = field(default_factory=dict)
    sections: Mapping[str, object] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)

    @contextlib.contextmanager
    def running(self) -> Iterator[Cluster]:
        """Servers and members, until the end of the block; nothing outlives it."""
        with contextlib.ExitStack() as undo:
            self._serve(self.servers or undo.enter_context(servers(with_broker=self.with_broker)))
            cluster = self._section()
            for name, parts in self.spread.items():
                place = self.places.get(name, Place())
                sections = {**self.sections, "cluster": {**cluster, "parts": list(parts)}}
                setup = Setup(self.destinations, self.role, self.workers, sections=sections, host=place.host)
                self.members[name] = Member(self.folder / name, setup, parts, place.under)
                undo.callback(_end, self.members[name])
            self._share_keys()
            for member in self.members.values():
                member.begin()
            for member in self.members.values():
                member.await_health()
            yield self

    def _serve(self, found: Servers) -> None:
        self.database, self._found_at = found.database, found.host
        if self.with_broker:
            assert found.broker is not None
            self.broker = found.broker

    def _section(self) -> dict[str, object]:
        address = self.database.database()
        #: its name on the server
        self.ledger = str(address.database)
        section: dict[str, object] = {
            "name": self.name,
            "database": {
                "url": f"postgresql://{NODE}@{self._found_at}:{address.port}/{address.database}",
                "password_file": self._secret("database", PASSWORD),
            },
            "blobs": self.blobs or {"kind": "directory", "directory": str(self.folder / "blobs")},
            "reconcile_s": 2.0,
        }
        if self.with_broker:
            password = self._secret("broker", self.broker.password)
            section["broker"] = {"url": self.broker.url, "password_file": password}
        return section

    def _secret(self, name: str, content: str) -> str:
        path = self.folder / name
        path.write_text(content, "ascii")
        path.chmod(0o600)
        return str(path)

    def _share_keys(self) -> None:
        """All work with one key ring."""
        if self.role == "pass":
            return
        first, *others = self.members.values()
        for member in others:
            member.keys.write_bytes(first.keys.read_bytes())

    def of(self, part: str) -> list[Member]:
        """The members that do this."""
        return [member for member in self.members.values() if part in member.parts]

    def leader(self) -> Member:
        """Who leads now; waits until somebody does."""
        found: list[Member] = []

        def somebody() -> bool:
            found[:] = [member for member in self.of("lead") if member.leads]
            return bool(found)

        wait_until(somebody, 60.0, "a leader")
        return found[0]

    def metric(self, name: str, **labels: str) -> float:
        """What the common ledger says, which the leader's page shows; 0 while nobody leads."""
        leaders = [member for member in self.of("lead") if member.leads]
        return leaders[0].metric(name, **labels) if leaders else 0.0

    def kill(self, name: str) -> None:
        """SIGKILL to a member, to the database or to the broker, and start it again."""
        if name == "database":
            self.database.stop(signal.SIGKILL)
            self.database.start()
        elif name == "broker":
            self.broker.kill()
            self.broker.start()
        else:
            self.members[name].kill()
            self.members[name].begin()


def _end(member: Member) -> None:
    if member.running:
        member.kill()
