"""Store-and-forward beside its peers: storescu -> what is measured -> storescp, all on one machine, one run.

Every repeat visits every peer with every number of associations once, each time from an empty folder, and in
another order; figures are medians. Ratios are against Orthanc in the same run, because machines differ and
are shared.
"""

from __future__ import annotations

import contextlib
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import wire
from benchmarks.results import Cell, Result, Table
from benchmarks.run import Run
from benchmarks.stand import CT, Node, Orthanc, Peer, Program, Setup, free_port, objects, wait_until
from benchmarks.traffic import STORESCP, Senders, Sink, Usage

_ORTHANC, _STORESCP, _MINIMAL = "Orthanc, tuned", "storescp, receives only", "minimal forwarder"
_PASS, _PROTECT = "dicom-node pass", "dicom-node protect"
_PASS_BY_TWO = "dicom-node pass, 2 receivers"
_ASSOCIATIONS = (1, 2, 4)
_LIMIT_S = 300.0
#: associations of the node to its destination
_TO_SINK = 2
_EXPLICIT = "1.2.840.10008.1.2.1"
_NOTES = (
    "Sender: DCMTK storescu, one process for each association, objects one after the other. Sink: DCMTK "
    "storescp --fork, one file for each object. All with TCP_NODELAY=1, all on loopback and one disk.",
    "Every peer but storescp has an object on disk before it answers; storescp never syncs.",
    "Objects/s: to the last arrival at the sink, for storescp to the last answer. Latency: from the first "
    "byte sent to the last byte written at the sink. CPU and memory: the peer's processes alone.",
    "Orthanc: `MaximumPduLength` 131072, `ConcurrentJobs` 4, forwarding by the recipe of the Orthanc Book.",
    "Half load: one sender, objects at half of the rate that the node reached with one association.",
)


@dataclass(frozen=True, slots=True)
class Pass:
    """One peer once: objects a second in and through, seconds, CPU, memory, and what went wrong."""

    received_s: float
    done_s: float
    latencies: tuple[float, ...]
    cpu_ms: float
    peak_mb: float
    lost: int
    repeated: int
    #: milliseconds of an image in each stage, as the node itself counts them; empty for others
    stages: Mapping[str, float]


class Storescp(Program):
    """DCMTK's receiver, which forwards nothing."""

    def start(self, _sink: int) -> Program:
        """Start, and wait until it listens."""
        kept = self.folder / "kept"
        kept.mkdir()
        self.launch(
            [STORESCP, "--fork", "-aet", "NODE", "-pdu", "131072", "-pm", "+xa", "+B", "-od", kept, self.port]
        )
        self.await_port()
        return self


class MinimalForwarder(Program):
    """`benchmarks.minimal` as a program."""

    def start(self, sink: int) -> Program:
        """Start, and wait until it listens."""
        self.launch([sys.executable, "-m", "benchmarks.minimal", self.port, sink, self.folder])
        self.await_port()
        return self


def _node(role: str, receivers: int = 1) -> Callable[[Path, int], Program]:
    def started(folder: Path, sink: int) -> Program:
        setup = Setup(
            {"sink": Peer(sink, associations=_TO_SINK)},
            role=role,
            workers=_WORKERS,
            receivers=receivers,
            sections=_SECTIONS,
        )
        node = Node(folder, setup).start()
        # what starts once in weeks is no part of an image
        wait_until(lambda: node.metric("dicom_node_workers", state="ready") >= _WORKERS, 60.0, "workers")
        return node

    return started


_SECTIONS = {"log": {"level": "warning"}}
_WORKERS = 2
#: beyond what `Orthanc` sets anyway
_TUNED = {"StoreMD5ForAttachments": False, "DicomThreadsCount": 16}

#: what is measured, each started in a folder of its own and sending to a port
PEERS: dict[str, Callable[[Path, int], Program]] = {
    _ORTHANC: lambda folder, sink: Orthanc(folder, sink, _TUNED).start(),
    _STORESCP: lambda folder, sink: Storescp(folder, free_port()).start(sink),
    _MINIMAL: lambda folder, sink: MinimalForwarder(folder, free_port()).start(sink),
    _PASS: _node("pass"),
    _PASS_BY_TWO: _node("pass", receivers=2),
    _PROTECT: _node("protect"),
}


def measure(run: Run) -> Result:
    """Rates and costs of every peer; latency of the node at half load; what a large radiograph costs."""
    count, repeats = (40, 1) if run.quick else (300, 3)
    found: dict[tuple[str, int], list[Pass]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = objects(folder / "ct", count, edge=512, seed=run.seed)
        for peer, associations in _order(repeats):
            done = through(PEERS[peer], folder, files, associations, forwards=peer != _STORESCP)
            found.setdefault((peer, associations), []).append(done)
        calm = _half_load(folder, files, found)
        large = _radiographs(folder, 3 if run.quick else 10, run.seed)
    tables = (_rates(found), _ratios(found), calm, large, _stages(found))
    parameters: dict[str, Cell] = {"seed": run.seed, "objects": count, "repeats": repeats, "edge": 512}
    return Result("store-and-forward", "Store-and-forward", _NOTES, tables, parameters, _summary(found))


def _order(repeats: int) -> Iterator[tuple[str, int]]:
    """Every peer and number of associations `repeats` times, each time beginning elsewhere."""
    cells = [(peer, associations) for associations in _ASSOCIATIONS for peer in PEERS]
    for repeat in range(repeats):
        turn = repeat * len(cells) // repeats
        yield from cells[turn:] + cells[:turn]


def through(
    start: Callable[[Path, int], Program],
    folder: Path,
    files: Sequence[Path],
    associations: int,
    *,
    forwards: bool = True,
) -> Pass:
    """Send all files through a peer that is started anew, and look at what came out."""
    with _stand(start, folder) as (subject, sink, place):
        usage = Usage(subject.pid)
        usage.start()
        senders = Senders(place / "senders", subject.port, files, associations)
        senders.wait(_LIMIT_S)
        sent = senders.sent()
        if forwards:
            sink.wait(sum(one.answered_at is not None for one in sent.values()))
        cpu_s = usage.finish()
        arrivals = sink.arrivals()
        stages = _stage_ms(subject, len(sent))
    names = {path.name: wire.head_of(path).sop_instance_uid for path in files}
    answered = {name: one for name, one in sent.items() if one.answered_at is not None}
    began = min(one.at for one in sent.values())
    received_s = max(one.answered_at or 0.0 for one in answered.values()) - began
    came = {name: min(arrivals[uid]) for name in answered if (uid := names[name]) in arrivals}
    return Pass(
        len(answered) / received_s,
        len(came) / (max(came.values()) - began) if came else 0.0,
        tuple(sorted(at - sent[name].at for name, at in came.items())),
        1000 * cpu_s / len(answered),
        usage.peak_mb,
        len(answered) - len(came) if forwards else 0,
        sum(len(times) - 1 for times in arrivals.values()),
        stages,
    )


def _stage_ms(subject: Program, images: int) -> Mapping[str, float]:
    """What the node says of its stages: milliseconds of wall-clock time an image."""
    if not isinstance(subject, Node):
        return {}
    sums = re.findall(
        r'^dicom_node_stage_seconds_sum{stage="([^"]+)"} (\S+)$', subject.page("/metrics")[1], re.M
    )
    return {stage: 1000 * float(seconds) / images for stage, seconds in sums}


@contextlib.contextmanager
def _stand(start: Callable[[Path, int], Program], folder: Path) -> Iterator[tuple[Program, Sink, Path]]:
    """A peer and a sink, both with nothing in them, and a folder."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        sink = Sink(place / "sink", free_port())
        try:
            subject = start(place / "subject", sink.port)
            time.sleep(1.0)  # what a start leaves to do is not what is measured
            try:
                yield subject, sink, place
            finally:
                subject.kill()
        finally:
            sink.close()


Found = dict[tuple[str, int], list[Pass]]


def _rates(found: Found) -> Table:
    rows = []
    for (peer, associations), passes in sorted(
        found.items(), key=lambda item: (item[0][1], list(PEERS).index(item[0][0]))
    ):
        spread = [one.done_s or one.received_s for one in passes]
        rows.append(
            (
                peer,
                associations,
                statistics.median(one.received_s for one in passes),
                statistics.median(one.done_s for one in passes) or None,
                f"{min(spread):.0f}-{max(spread):.0f}",
                _latency(passes, 0.5),
                _latency(passes, 0.95),
                statistics.median(one.cpu_ms for one in passes),
                statistics.median(one.peak_mb for one in passes),
                sum(one.lost for one in passes),
                sum(one.repeated for one in passes),
            )
        )
    columns = (
        "peer",
        "associations",
        "answered/s",
        "delivered/s",
        "spread",
        "p50 s",
        "p95 s",
        "CPU ms",
        "RSS MB",
        "lost",
        "repeated",
    )
    return Table("CT 512 x 512, medians", columns, tuple(rows))


def _latency(passes: Sequence[Pass], share: float) -> float | None:
    values = [
        one.latencies[min(len(one.latencies) - 1, int(share * len(one.latencies)))]
        for one in passes
        if one.latencies
    ]
    return statistics.median(values) if values else None


def _ratio(found: Found, peer: str, associations: int, figure: Callable[[Pass], float]) -> float:
    """The median of a peer's figure, over Orthanc's."""
    own, other = (
        statistics.median(figure(one) for one in found[name, associations]) for name in (peer, _ORTHANC)
    )
    return own / other


def _ratios(found: Found) -> Table:
    rows = tuple(
        (
            peer,
            associations,
            _ratio(found, peer, associations, lambda one: one.done_s),
            _ratio(found, peer, associations, lambda one: one.cpu_ms),
            statistics.median(one.received_s for one in found[peer, associations])
            / statistics.median(one.received_s for one in found[_STORESCP, associations]),
        )
        for associations in _ASSOCIATIONS
        for peer in (_PASS, _PASS_BY_TWO, _PROTECT, _MINIMAL)
    )
    return Table(
        "Against Orthanc and storescp in the same run",
        ("peer", "associations", "delivered/s", "CPU an image", "answered/s over storescp"),
        rows,
    )


def _half_load(folder: Path, files: Sequence[Path], found: Found) -> Table:
    """Latency of the node at half of what it can do."""
    rows: list[tuple[Cell, ...]] = []
    for peer in (_PASS, _PROTECT):
        rate = 0.5 * statistics.median(one.done_s for one in found[peer, 1])
        latencies = _paced(PEERS[peer], folder, files, rate)
        rows.append(
            (peer, rate, *(latencies[int(share * (len(latencies) - 1))] for share in (0.5, 0.95, 1.0)))
        )
    return Table("Latency at half load", ("peer", "objects/s", "p50 s", "p95 s", "greatest s"), tuple(rows))


def _paced(
    start: Callable[[Path, int], Program], folder: Path, files: Sequence[Path], rate: float
) -> list[float]:
    """Seconds from the first byte sent to the last byte written, of every file, at so many a second."""
    heads = {path: wire.head_of(path) for path in files}
    began: dict[str, float] = {}
    with _stand(start, folder) as (subject, sink, _):
        association = wire.call(subject.port, "NODE", "BENCH", [(CT, _EXPLICIT)], 60.0)
        first = time.monotonic()
        for number, (path, head) in enumerate(heads.items()):
            time.sleep(max(0.0, first + number / rate - time.monotonic()))
            began[head.sop_instance_uid] = time.time()
            if association.store(path, head) != 0:
                raise AssertionError("an object was refused")
        association.release()
        sink.wait(len(files))
        arrivals = sink.arrivals()
    return sorted(min(arrivals[uid]) - at for uid, at in began.items())


def _radiographs(folder: Path, count: int, seed: int) -> Table:
    """CPU seconds of a 5-megapixel radiograph on a protecting node."""
    files = objects(folder / "cr", count, edge=2240, seed=seed + 1)
    done = through(PEERS[_PROTECT], folder, files, 1)
    columns = ("images", "delivered/s", "CPU s an image", "RSS MB", "lost")
    return Table(
        "5 MP, protect", columns, ((count, done.done_s, done.cpu_ms / 1000, done.peak_mb, done.lost),)
    )


def _stages(found: Found) -> Table:
    """Where an image spends its time in the node: waiting for a disk, a peer or a core included."""
    rows = []
    for peer in (_PASS, _PROTECT):
        passes = found[peer, 1]
        for stage in passes[0].stages:
            rows.append((peer, stage, statistics.median(one.stages.get(stage, 0.0) for one in passes)))
    return Table("Stages, one association, wall-clock ms an image", ("peer", "stage", "ms"), tuple(rows))


def _summary(found: Found) -> Mapping[str, Cell]:
    """A line of the history: rates over Orthanc's with each number of associations, CPU with one."""
    line: dict[str, Cell] = {}
    for word, peer in (("pass", _PASS), ("protect", _PROTECT)):
        for associations in _ASSOCIATIONS:
            line[f"{word}/Orthanc, {associations}"] = _ratio(
                found, peer, associations, lambda one: one.done_s
            )
        line[f"{word} CPU ms"] = statistics.median(one.cpu_ms for one in found[peer, 1])
    line["Orthanc CPU ms"] = statistics.median(one.cpu_ms for one in found[_ORTHANC, 1])
    return line
