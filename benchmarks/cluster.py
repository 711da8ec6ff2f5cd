"""A cluster on one machine, two of each part and the servers that they share, beside one node that does all.

Every repeat visits every layout once, each time with a new ledger and an empty store; the servers go on.
Figures are medians. Ratios are against the one node in the same run, because machines differ and are shared.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import cluster_lan, several, wire
from benchmarks.buckets import S3Server
from benchmarks.results import Cell, Result, Table
from benchmarks.run import Run
from benchmarks.several import Cluster, Servers
from benchmarks.stand import CT, Node, Peer, Setup, free_port, objects, wait_until
from benchmarks.traffic import Senders, Sent, Sink, Usage, spent

SPREAD: Mapping[str, tuple[str, ...]] = {
    "receive-1": ("receive",),
    "receive-2": ("receive",),
    "work-1": ("work",),
    "work-2": ("work",),
    "forward-1": ("forward",),
    "forward-2": ("forward",),
    "lead": ("lead",),
}
_EMBEDDED, _DIRECTORY, _S3, _SILENT = "one node", "cluster, directory", "cluster, S3", "cluster, no broker"
_LAYOUTS = (_EMBEDDED, _DIRECTORY, _S3)
_ROLES = ("pass", "protect")
_LIMIT_S = 300.0
#: of all senders together, half of them to each receiver; and of the node, or of each forwarder, to the sink
_ASSOCIATIONS, _TO_SINK = 4, 2
#: sent before anything is measured: what a process does for the first time takes longer, and here are many
_WARMING = 32
_EXPLICIT = "1.2.840.10008.1.2.1"
_SECTIONS: Mapping[str, object] = {"log": {"level": "warning"}}
_NOTES = (
    "One node: `node.receivers: 2`, `workers.count: 2`, SQLite. Cluster: two nodes that receive, two that "
    "work, two that forward, one that leads, each a program of its own, on PostgreSQL 15 (files on the same "
    "disk, `synchronous_commit=on`), RabbitMQ (quorum queues), and a directory or an S3 (moto, in memory).",
    "Sender: four storescu, in a cluster two for each receiver. Sink: storescp. Everything, the servers too, "
    "is on the same cores: what database, broker and store take is taken from the rate of the cluster.",
    "Each layout has sent 32 objects on before it is measured. "
    "Delivered/s: from the first byte sent to the last arrival at the sink. Milliseconds of CPU an image, of "
    "the processes of node or cluster, of the database, the broker and the store. MB: of all processes "
    "of the node or cluster, what they share counted in each.",
    "Statements: as pg_stat_statements counts, begin, commit and the looks of a cluster at rest included.",
)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: where it receives, its processes, and the ledger's name if it is on a server."""

    ports: tuple[int, ...]
    roots: tuple[int, ...]
    ledger: str | None


@dataclass(frozen=True, slots=True)
class Drawn:
    """What an image draws from the database."""

    statements: float
    commits: float
    log_kb: float
    ledger_kb: float
    connections: int


@dataclass(frozen=True, slots=True)
class Pass:
    """One layout once."""

    received_s: float
    done_s: float
    cpu_ms: float
    #: of database, broker and store
    servers_ms: tuple[float, float, float]
    peak_mb: float
    lost: int
    repeated: int
    drawn: Drawn | None


@dataclass(frozen=True, slots=True)
class Backstage:
    """The servers of a run."""

    servers: Servers
    store: S3Server

    def cpu_s(self) -> tuple[float, float, float]:
        """Of database, broker and store, so far."""
        assert self.servers.broker is not None
        pids = (self.servers.database.pid, self.servers.broker.pid, self.store.pid)
        database, broker, store = (spent(frozenset({pid}))[0] for pid in pids)
        return database, broker, store


def measure(run: Run) -> Result:
    """Rates and costs of one node and of a cluster, latency at low load, a cluster over links of a LAN."""
    if not several.installed():
        remedy = "sh tools/install_peers.sh postgresql rabbitmq-server"
        raise RuntimeError(f"no PostgreSQL or no RabbitMQ: {remedy}")
    count, repeats, single = (40, 1, 4) if run.quick else (300, 3, 30)
    found: dict[tuple[str, str], list[Pass]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = objects(folder / "ct", count + _WARMING, edge=512, seed=run.seed)
        with _backstage() as backstage:
            for layout, role in _order(repeats, quick=run.quick):
                done = _through(folder, layout, role, files, backstage)
                found.setdefault((role, layout), []).append(done)
            calm = _calm(folder, files[:single], backstage, run.seed)
        tables = [_rates(found), _drawn(found), *calm]
        tables += cluster_lan.measure(folder, files[: 30 if run.quick else 200])
    parameters: dict[str, Cell] = {"seed": run.seed, "objects": count, "repeats": repeats, "edge": 512}
    notes = (*_NOTES, *cluster_lan.NOTES)
    return Result("cluster", "A cluster on one machine", notes, tuple(tables), parameters, _summary(found))


@contextlib.contextmanager
def _backstage() -> Iterator[Backstage]:
    settings = ("shared_preload_libraries=pg_stat_statements", "max_connections=200")
    with several.servers(on_disk=True, settings=settings) as servers:
        servers.database.execute("CREATE EXTENSION pg_stat_statements")
        store = S3Server()
        try:
            yield Backstage(servers, store)
        finally:
            store.stop()


def _order(repeats: int, *, quick: bool) -> Iterator[tuple[str, str]]:
    """Every layout and role `repeats` times, each time beginning elsewhere."""
    cells = [(layout, role) for role in _ROLES for layout in _LAYOUTS]
    if quick:
        cells.remove((_S3, "protect"))
    for repeat in range(repeats):
        turn = repeat * len(cells) // repeats
        yield from cells[turn:] + cells[:turn]


@contextlib.contextmanager
def _subject(layout: str, role: str, place: Path, sink: Sink, backstage: Backstage) -> Iterator[Subject]:
    """A layout, started and at rest."""
    peers = {"sink": Peer(sink.port, associations=_TO_SINK)}
    if layout == _EMBEDDED:
        node = Node(place / "node", Setup(peers, role, workers=2, receivers=2, sections=_SECTIONS)).start()
        try:
            wait_until(lambda: node.metric("dicom_node_receivers", state="running") == 2, 60, "receivers")
            time.sleep(1.0)  # what a start leaves to do is not what is measured
            yield Subject((node.port,), (node.pid,), None)
        finally:
            node.kill()
        return
    blobs = _bucket(place, backstage.store) if layout == _S3 else None
    silent = layout == _SILENT
    servers = replace(backstage.servers, broker=None) if silent else backstage.servers
    cluster = Cluster(
        place,
        peers,
        role,
        SPREAD,
        blobs=blobs,
        with_broker=not silent,
        servers=servers,
        name=place.name,
        sections=_SECTIONS,
    )
    with cluster.running():
        cluster.leader()
        time.sleep(2.0)
        ports = tuple(member.port for member in cluster.of("receive"))
        yield Subject(ports, tuple(member.pid for member in cluster.members.values()), cluster.ledger)


def _bucket(place: Path, store: S3Server) -> Mapping[str, object]:
    """The section `blobs` for a new bucket."""
    bucket = store.bucket(f"objects-{place.name}", place)
    return {
        "kind": "s3",
        "bucket": bucket.name,
        "endpoint_url": bucket.endpoint_url,
        "region": bucket.region,
        "credentials_file": str(bucket.credentials_file),
    }


@contextlib.contextmanager
def _place(folder: Path) -> Iterator[tuple[Path, Sink]]:
    """A folder whose name may be that of a cluster and of a bucket, and an empty sink."""
    place = folder / f"c{random.randrange(1 << 40):010x}"
    place.mkdir()
    sink = Sink(place / "sink", free_port())
    try:
        yield place, sink
    finally:
        sink.close()


def _through(folder: Path, layout: str, role: str, files: Sequence[Path], backstage: Backstage) -> Pass:
    """Send all files through a layout, and look at what came out and what it took."""
    with _place(folder) as (place, sink), _subject(layout, role, place, sink, backstage) as subject:
        warming, files = files[:_WARMING], files[_WARMING:]
        _send(subject, place / "warming", warming)
        sink.wait(len(warming))
        drawn = _Drawing(backstage.servers, subject.ledger) if subject.ledger else None
        before = backstage.cpu_s()
        usage = Usage(*subject.roots)
        usage.start()
        sent = _send(subject, place / "senders", files)
        sink.wait(len(warming) + sum(one.answered_at is not None for one in sent.values()))
        cpu_s = usage.finish()
        servers_ms = tuple(
            1000 * (now - then) / len(files) for now, then in zip(backstage.cpu_s(), before, strict=True)
        )
        arrivals = sink.arrivals()
        used = drawn.per_image(len(files)) if drawn else None
    names = {path.name: wire.head_of(path).sop_instance_uid for path in files}
    answered = {names[name]: one.answered_at for name, one in sent.items() if one.answered_at is not None}
    began = min(one.at for one in sent.values())
    came = {uid: min(arrivals[uid]) for uid in answered if uid in arrivals}
    return Pass(
        len(answered) / (max(answered.values()) - began),
        len(came) / (max(came.values()) - began),
        1000 * cpu_s / len(files),
        (servers_ms[0], servers_ms[1], servers_ms[2]),
        usage.peak_mb,
        len(answered) - len(came),
        sum(len(times) - 1 for times in arrivals.values()),
        used,
    )


def _send(subject: Subject, place: Path, files: Sequence[Path]) -> Mapping[str, Sent]:
    """Send files, spread over all ports, until each is answered; what was sent, by file name."""
    ports = subject.ports
    senders = [
        Senders(place / f"{port}", port, files[number :: len(ports)], _ASSOCIATIONS // len(ports))
        for number, port in enumerate(ports)
    ]
    for each in senders:
        each.wait(_LIMIT_S)
    return {name: one for each in senders for name, one in each.sent().items()}


class _Drawing:
    """What a ledger on a server takes from now on."""

    def __init__(self, servers: Servers, ledger: str) -> None:
        self._server, self._ledger = servers.database, ledger
        self._server.execute("SELECT pg_stat_statements_reset()")
        self._log, self._size = self._sizes()

    def _sizes(self) -> tuple[float, float]:
        query = f"SELECT pg_current_wal_lsn() - '0/0', pg_database_size('{self._ledger}')"
        [(log, size)] = self._server.execute(query)
        return float(str(log)), float(str(size))

    def _calls(self, which: str = "true") -> int:
        query = (
            "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements"
            f" JOIN pg_database d ON dbid = d.oid WHERE datname = '{self._ledger}' AND {which}"
        )
        return int(str(self._server.execute(query)[0][0]))

    def per_image(self, images: int) -> Drawn:
        """Since it was made."""
        log, size = self._sizes()
        query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{self._ledger}'"
        return Drawn(
            self._calls() / images,
            self._calls("query = 'COMMIT'") / images,
            (log - self._log) / images / 1000,
            (size - self._size) / images / 1000,
            int(str(self._server.execute(query)[0][0])),
        )


def _calm(folder: Path, files: Sequence[Path], backstage: Backstage, seed: int) -> list[Table]:
    """What a layout takes at rest, and how long single objects are on their way."""
    rows, rest = [], []
    for layout in (_EMBEDDED, _DIRECTORY, _SILENT):
        with (
            _place(folder) as (place, sink),
            _subject(layout, "protect", place, sink, backstage) as subject,
        ):
            rest.append((layout, *_at_rest(subject, backstage)))
            took = sorted(_single(subject.ports[0], files, sink, random.Random(seed)))
        quantiles = (took[int(share * (len(took) - 1))] for share in (0.5, 0.95, 1.0))
        rows.append((layout, len(took), *(1000 * each for each in quantiles)))
    columns = ("layout", "objects", "p50 ms", "p95 ms", "greatest ms")
    return [
        Table(
            "One object at a time, protected, to the last byte at the sink",
            columns,
            tuple(rows),
        ),
        Table("At rest, CPU in percent of a core", ("layout", "node", "database", "broker"), tuple(rest)),
    ]


def _at_rest(subject: Subject, backstage: Backstage, span_s: float = 5.0) -> tuple[float, float, float]:
    before, roots = backstage.cpu_s(), frozenset(subject.roots)
    own = spent(roots)[0]
    time.sleep(span_s)
    after = backstage.cpu_s()
    share = 100 / span_s
    return (
        share * (spent(roots)[0] - own),
        share * (after[0] - before[0]),
        share * (after[1] - before[1]),
    )


def _single(port: int, files: Sequence[Path], sink: Sink, rng: random.Random) -> Iterator[float]:
    """Seconds that each took, sent when the one before has long been through."""
    association = wire.call(port, "NODE", "BENCH", [(CT, _EXPLICIT)], 60.0)
    for path in files:
        head = wire.head_of(path)
        began = time.time()
        if association.store(path, head) != 0:
            raise AssertionError("an object was refused")
        wait_until(lambda uid=head.sop_instance_uid: uid in _arrived(sink), 60.0, "its arrival")
        yield min(sink.arrivals()[head.sop_instance_uid]) - began
        time.sleep(rng.uniform(0.3, 1.3))  # not in step with whoever looks once a second
    association.release()


def _arrived(sink: Sink) -> Mapping[str, object]:
    """What has come whole; what is just being written may not be readable."""
    try:
        return sink.arrivals()
    except (ValueError, OSError, EOFError):
        return {}


Found = dict[tuple[str, str], list[Pass]]


def _median(passes: Sequence[Pass], figure: Callable[[Pass], float]) -> float:
    return statistics.median(figure(one) for one in passes)


def _rates(found: Found) -> Table:
    rows = []
    for role, layout in sorted(found, key=lambda cell: (cell[0], _LAYOUTS.index(cell[1]))):
        passes = found[role, layout]
        rows.append(
            (
                role,
                layout,
                _median(passes, lambda one: one.received_s),
                _median(passes, lambda one: one.done_s),
                f"{min(one.done_s for one in passes):.0f}-{max(one.done_s for one in passes):.0f}",
                _ratio(found, role, layout),
                _median(passes, lambda one: one.cpu_ms),
                *(_median(passes, lambda one, at=at: one.servers_ms[at]) for at in range(3)),
                _median(passes, lambda one: one.peak_mb),
                sum(one.lost for one in passes),
                sum(one.repeated for one in passes),
            )
        )
    columns = ("role", "layout", "answered/s", "delivered/s", "spread", "of one node", "CPU ms")
    columns += ("database ms", "broker ms", "store ms", "MB", "lost", "repeated")
    return Table("CT 512 x 512, medians", columns, tuple(rows))


def _ratio(found: Found, role: str, layout: str) -> float:
    own, one = (_median(found[role, each], lambda each: each.done_s) for each in (layout, _EMBEDDED))
    return own / one


def _drawn(found: Found) -> Table:
    rows = []
    for (role, layout), passes in found.items():
        drawn = [one.drawn for one in passes if one.drawn]
        if drawn:
            rows.append(
                (
                    role,
                    layout,
                    statistics.median(one.statements for one in drawn),
                    statistics.median(one.commits for one in drawn),
                    statistics.median(one.log_kb for one in drawn),
                    statistics.median(one.ledger_kb for one in drawn),
                    max(one.connections for one in drawn),
                )
            )
    columns = ("role", "layout", "statements", "commits", "log kB", "ledger kB", "connections in all")
    return Table("What an image takes of the database", columns, tuple(rows))


def _summary(found: Found) -> Mapping[str, Cell]:
    """A line of the history: rates over those of one node, and CPU of an image."""
    line: dict[str, Cell] = {}
    for role, layout in found:
        if layout != _EMBEDDED:
            line[f"{role}, {layout}/one node"] = _ratio(found, role, layout)
            line[f"{role}, {layout}, CPU ms"] = _median(
                found[role, layout], lambda one: one.cpu_ms + sum(one.servers_ms)
            )
    return line
