"""A cluster whose members are in network namespaces, where the links are the limit and not the cores."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import several, wire
from benchmarks.lan import Lan, lan
from benchmarks.results import Cell, Result, Table
from benchmarks.run import Run
from benchmarks.several import Cluster, Servers
from benchmarks.stand import Peer, free_port, objects, wait_until
from benchmarks.traffic import Senders, Sink

#: megabits a second of a link, each way: an image of 525 kB takes a tenth of a second
_PACE = 40
_LIMIT_S = 300.0
#: seconds for which the links are cut
_CUT_S = 8.0
#: receivers and forwarders
_LAYOUTS = ((1, 1), (2, 1), (1, 2), (2, 2))
_PEERS = 2
NOTES = (
    f"Links: every receiver and forwarder is in a network namespace, whose link to a bridge takes {_PACE} "
    "Mbit/s each way (tbf, without delay). Senders, sink, database, broker and the directory are at the "
    "bridge: over the links goes DICOM, and what the ledger and the rings need. A link passes at most 9.5 "
    "images of 525 kB a second.",
    f"Cut: the links of one receiver and one forwarder are taken down for {_CUT_S:.0f} s once a third of the "
    "images has arrived.",
)


@dataclass(frozen=True, slots=True)
class _Seen:
    """One run over links."""

    received_s: float
    done_s: float
    lost: int
    repeated: int


def measure(run: Run) -> Result:
    """Rates with one and two receivers and forwarders, and with a cut; no table where it is not allowed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tables = _tables(folder, objects(folder / "ct", 30 if run.quick else 200, edge=512, seed=run.seed))
    parameters: dict[str, Cell] = {"seed": run.seed, "edge": 512}
    return Result("cluster-links", "A cluster over links of a LAN", NOTES, tuple(tables), parameters)


def _tables(folder: Path, files: Sequence[Path]) -> list[Table]:
    rows: list[tuple[Cell, ...]] = []
    with lan(_PACE) as made:
        if made is None:
            print("no network namespaces here (they need root, iproute2 and tbf): no table of links")
            return []
        with several.servers(on_disk=True, network=(made.network, made.host)) as servers:
            for receivers, forwarders in _LAYOUTS:
                seen = _through(folder, files, made, servers, receivers, forwarders)
                rows.append((receivers, forwarders, "", *_cells(seen)))
            seen = _through(folder, files, made, servers, 2, 2, cut=True)
            rows.append((2, 2, "receive-2, forward-2", *_cells(seen)))
    columns = ("receivers", "forwarders", "cut", "answered/s", "delivered/s", "lost", "repeated")
    return [Table(f"Links of {_PACE} Mbit/s, role pass", columns, tuple(rows))]


def _cells(seen: _Seen) -> tuple[Cell, ...]:
    return seen.received_s, seen.done_s, seen.lost, seen.repeated


def _through(
    folder: Path,
    files: Sequence[Path],
    made: Lan,
    servers: Servers,
    receivers: int,
    forwarders: int,
    *,
    cut: bool = False,
) -> _Seen:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        sink = Sink(place / "sink", free_port())
        try:
            with _cluster(place, sink, made, servers, receivers, forwarders) as cluster:
                senders = [
                    Senders(place / f"senders-{n}", member.port, files[n::receivers], 2, member.host)
                    for n, member in enumerate(cluster.of("receive"))
                ]
                if cut:
                    _cut(made, sink, len(files) // 3)
                for each in senders:
                    each.wait(_LIMIT_S)
                sent = {path: one for each in senders for path, one in each.sent().items()}
                sink.wait(sum(one.answered_at is not None for one in sent.values()))
                arrivals = sink.arrivals()
        finally:
            sink.close()
    uids = {path.name: wire.head_of(path).sop_instance_uid for path in files}
    answered = {uids[path]: one.answered_at for path, one in sent.items() if one.answered_at is not None}
    began = min(one.at for one in sent.values())
    came = {uid: min(arrivals[uid]) for uid in answered if uid in arrivals}
    return _Seen(
        len(answered) / (max(answered.values()) - began),
        len(came) / (max(came.values()) - began),
        len(answered) - len(came),
        sum(len(times) - 1 for times in arrivals.values()),
    )


def _cut(made: Lan, sink: Sink, after: int) -> None:
    """Two links down, once so many images have come, and up again."""
    wait_until(lambda: sink.count() >= after, _LIMIT_S, "a third of the images")
    for name in ("receive-2", "forward-2"):
        made.cut(name)
    time.sleep(_CUT_S)
    for name in ("receive-2", "forward-2"):
        made.mend(name)


@contextlib.contextmanager
def _cluster(
    place: Path, sink: Sink, made: Lan, servers: Servers, receivers: int, forwarders: int
) -> Iterator[Cluster]:
    spread: dict[str, tuple[str, ...]] = {f"receive-{n + 1}": ("receive",) for n in range(receivers)}
    spread |= {f"forward-{n + 1}": ("forward",) for n in range(forwarders)}
    spread |= {"work": ("work",), "lead": ("lead",)}
    places: Mapping[str, several.Place] = {
        name: made.join(name) for name in spread if name not in ("work", "lead")
    }
    peers = {"sink": Peer(sink.port, associations=_PEERS, host=made.host)}
    sections = {"log": {"level": "warning"}}
    cluster = Cluster(
        place,
        peers,
        "pass",
        spread,
        servers=servers,
        name=f"lan-{len(spread)}-{sink.port}",
        places=places,
        sections=sections,
    )
    with cluster.running():
        cluster.leader()
        time.sleep(2.0)
        yield cluster
