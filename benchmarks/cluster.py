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
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import several, wire
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
_EMBEDDED, _DIRECTORY, _S3 = "one node", "cluster, directory", "cluster, S3"
_LAYOUTS = (_EMBEDDED, _DIRECTORY, _S3)
_ROLES = ("pass", "protect")
_LIMIT_S = 300.0
#: of all senders together, half of them to each receiver; and of the node, or of each forwarder, to the sink
_ASSOCIATIONS, _TO_SINK = 4, 2
#: sent before anything is measured: what a process does for the first time takes longer, and here are many
_WARMING = 32
#: sent after that, at half the pace that was found
_HALF = 60
#: how long a layout is watched at rest, seconds
_REST_S = 3.0
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
    f"Half load: {_HALF} further objects over one association, to each receiver in turn, at half the pace "
    "of the same pass; from the first byte sent to the last byte at the sink. "
    f"At rest: {_REST_S:.0f} s before anything is sent.",
    "Statements: as pg_stat_statements counts, begin, commit and the looks of a cluster at rest included.",
)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: where it receives, its processes, and the ledger's name if it is on a server."""

    ports: tuple[int, ...]
    #: name of a part -> the processes that do it
    parts: Mapping[str, tuple[int, ...]]
    ledger: str | None

    @property
    def roots(self) -> tuple[int, ...]:
        """All its processes."""
        return tuple(pid for pids in self.parts.values() for pid in pids)

    def cpu_s(self) -> Mapping[str, float]:
        """Of each part, so far."""
        return {part: spent(frozenset(pids))[0] for part, pids in self.parts.items()}


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
    #: milliseconds of CPU an image, of each part
    parts_ms: Mapping[str, float]
    #: of database, broker and store
    servers_ms: tuple[float, float, float]
    peak_mb: float
    lost: int
    repeated: int
    #: seconds that objects were on their way at half load, in order
    half: Sequence[float]
    #: percent of a core that node, database and broker take at rest
    rest: tuple[float, float, float]
    drawn: Drawn | None

    @property
    def cpu_ms(self) -> float:
        """Of all parts."""
        return sum(self.parts_ms.values())


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
    """Rates and costs of one node and of a cluster, and how long an object takes at half load."""
    if not several.installed():
        remedy = "sh tools/install_peers.sh postgresql rabbitmq-server"
        raise RuntimeError(f"no PostgreSQL or no RabbitMQ: {remedy}")
    count, repeats = (40, 1) if run.quick else (240, 2)
    found: dict[tuple[str, str], list[Pass]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = objects(folder / "ct", _WARMING + count + _HALF, edge=512, seed=run.seed)
        with _backstage() as backstage:
            for layout, role in _order(repeats, quick=run.quick):
                done = _through(folder, layout, role, files, backstage)
                found.setdefault((role, layout), []).append(done)
    tables = (_rates(found), _parts(found), _half(found), _rest(found), _drawn(found))
    parameters: dict[str, Cell] = {"seed": run.seed, "objects": count, "repeats": repeats, "edge": 512}
    return Result("cluster", "A cluster on one machine", _NOTES, tables, parameters, _summary(found))


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
            _await_workers([node], 2)
            time.sleep(1.0)  # what a start leaves to do is not what is measured
            yield Subject((node.port,), {"node": (node.pid,)}, None)
        finally:
            node.kill()
        return
    blobs = _bucket(place, backstage.store) if layout == _S3 else None
    cluster = Cluster(
        place,
        peers,
        role,
        SPREAD,
        blobs=blobs,
        servers=backstage.servers,
        name=place.name,
        sections=_SECTIONS,
    )
    with cluster.running():
        cluster.leader()
        _await_workers(cluster.of("work"), 1)
        time.sleep(2.0)
        ports = tuple(member.port for member in cluster.of("receive"))
        parts: dict[str, tuple[int, ...]] = {}
        for member in cluster.members.values():
            parts[member.parts[0]] = (*parts.get(member.parts[0], ()), member.pid)
        yield Subject(ports, parts, cluster.ledger)


def _await_workers(nodes: Sequence[Node], count: int) -> None:
    """Wait until every node has so many workers that have loaded what they need."""
    for node in nodes:
        wait_until(partial(_has_workers, node, count), 60, "workers")


def _has_workers(node: Node, count: int) -> bool:
    return node.metric("dicom_node_workers", state="ready") >= count


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
    warming, files, more = files[:_WARMING], files[_WARMING:-_HALF], files[-_HALF:]
    with _place(folder) as (place, sink), _subject(layout, role, place, sink, backstage) as subject:
        rest = _at_rest(subject, backstage)
        _send(subject, place / "warming", warming)
        sink.wait(len(warming))
        drawn = _Drawing(backstage.servers, subject.ledger) if subject.ledger else None
        before, own = backstage.cpu_s(), subject.cpu_s()
        usage = Usage(*subject.roots)
        usage.start()
        sent = _send(subject, place / "senders", files)
        sink.wait(len(warming) + sum(one.answered_at is not None for one in sent.values()))
        usage.finish()
        parts_ms = {part: 1000 * (now - own[part]) / len(files) for part, now in subject.cpu_s().items()}
        servers_ms = tuple(
            1000 * (now - then) / len(files) for now, then in zip(backstage.cpu_s(), before, strict=True)
        )
        used = drawn.per_image(len(files)) if drawn else None
        arrivals = sink.arrivals()
        answered, came, began = _times(files, sent, arrivals)
        done_s = len(came) / (max(came.values()) - began)
        half = _paced(subject, more, sink, done_s / 2)
    return Pass(
        len(answered) / (max(answered.values()) - began),
        done_s,
        parts_ms,
        (servers_ms[0], servers_ms[1], servers_ms[2]),
        usage.peak_mb,
        len(answered) - len(came),
        sum(len(times) - 1 for times in arrivals.values()),
        half,
        rest,
        used,
    )


def _times(
    files: Sequence[Path], sent: Mapping[str, Sent], arrivals: Mapping[str, Sequence[float]]
) -> tuple[Mapping[str, float], Mapping[str, float], float]:
    """When each was answered and when it came, by its UID, and when the first began to be sent."""
    names = {path.name: wire.head_of(path).sop_instance_uid for path in files}
    answered = {names[name]: one.answered_at for name, one in sent.items() if one.answered_at is not None}
    came = {uid: min(arrivals[uid]) for uid in answered if uid in arrivals}
    return answered, came, min(one.at for one in sent.values())


def _paced(subject: Subject, files: Sequence[Path], sink: Sink, rate: float) -> Sequence[float]:
    """Seconds from the first byte sent to the last byte written, of each at so many a second, in order."""
    lines = [wire.call(port, "NODE", "BENCH", [(CT, _EXPLICIT)], 60.0) for port in subject.ports]
    there, began = sink.count(), dict[str, float]()
    first = time.monotonic()
    for number, path in enumerate(files):
        head = wire.head_of(path)
        time.sleep(max(0.0, first + number / rate - time.monotonic()))
        began[head.sop_instance_uid] = time.time()
        if lines[number % len(lines)].store(path, head) != 0:
            raise AssertionError("an object was refused")
    for line in lines:
        line.release()
    sink.wait(there + len(files))
    arrivals = sink.arrivals()
    return sorted(min(arrivals[uid]) - at for uid, at in began.items())


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


def _at_rest(subject: Subject, backstage: Backstage, span_s: float = _REST_S) -> tuple[float, float, float]:
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


Found = dict[tuple[str, str], list[Pass]]


def _median(passes: Sequence[Pass], figure: Callable[[Pass], float]) -> float:
    return statistics.median(figure(one) for one in passes)


def _sorted(found: Found) -> list[tuple[tuple[str, str], list[Pass]]]:
    return sorted(found.items(), key=lambda cell: (cell[0][0], _LAYOUTS.index(cell[0][1])))


def _rates(found: Found) -> Table:
    rows = []
    for (role, layout), passes in _sorted(found):
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


def _parts(found: Found) -> Table:
    rows = []
    for (role, layout), passes in _sorted(found):
        for part in passes[0].parts_ms:
            rows.append((role, layout, part, _median(passes, lambda one, part=part: one.parts_ms[part])))
    return Table("Milliseconds of CPU an image, by part", ("role", "layout", "part", "CPU ms"), tuple(rows))


def _half(found: Found) -> Table:
    rows = []
    for (role, layout), passes in _sorted(found):
        took = sorted(each for one in passes for each in one.half)
        pace = _median(passes, lambda one: one.done_s) / 2
        quantiles = (1000 * took[int(share * (len(took) - 1))] for share in (0.5, 0.95, 1.0))
        rows.append((role, layout, pace, *quantiles))
    columns = ("role", "layout", "objects/s", "p50 ms", "p95 ms", "greatest ms")
    return Table("On the way at half load", columns, tuple(rows))


def _rest(found: Found) -> Table:
    rows = []
    for (role, layout), passes in _sorted(found):
        rows.append((role, layout, *(_median(passes, lambda one, at=at: one.rest[at]) for at in range(3))))
    columns = ("role", "layout", "node", "database", "broker")
    return Table("At rest, CPU in percent of a core", columns, tuple(rows))


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
