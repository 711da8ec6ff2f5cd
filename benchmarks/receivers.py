"""How fast a node receives with one, two and four receiver processes, from eight DCMTK senders at once."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.results import Cell, Result, Table
from benchmarks.run import Run
from benchmarks.stand import Node, Setup, objects, wait_until
from dicom_node.processes import usage

_STORESCU = "/usr/bin/storescu"
_SENDERS, _EDGE = 8, 512
_LIMIT_S = 300.0
_NOTES = (
    "From the start of eight `storescu` with TCP_NODELAY=1, each with its share of the objects in one "
    "association, until the last has its last answer; they run on the same cores. The only destination is "
    "closed at this hour: one worker takes each object, nothing is sent on.",
    "The counts of processes take turns, round by round; the median of the rounds is shown. CPU time is that "
    "of the node, in all of its processes, and of it that of the processes that receive.",
)


@dataclass(frozen=True, slots=True)
class _Taken:
    """What one round took: seconds on the clock, CPU seconds of the node and of its receivers, bytes."""

    wall_s: float
    cpu_s: float
    receiving_s: float
    resident_mb: float


def measure(run: Run) -> Result:
    """Objects per second, and CPU time of an object, of synthetic CT images of half a megabyte."""
    count, rounds = (80, 1) if run.quick else (400, 5)
    taken: dict[int, list[_Taken]] = {1: [], 2: [], 4: []}
    with tempfile.TemporaryDirectory() as folder:
        shares = [
            objects(
                Path(folder) / f"in-{number}", count // _SENDERS, edge=_EDGE, seed=100 * run.seed + number
            )
            for number in range(_SENDERS)
        ]
        for turn in range(rounds):
            for receivers, found in taken.items():
                found.append(_round(Path(folder) / f"node-{receivers}-{turn}", receivers, shares))
    rows = tuple(_row(receivers, found, count) for receivers, found in taken.items())
    columns = ("receiver processes", "objects/s", "CPU ms an object", "of it receiving", "MB in all")
    parameters: dict[str, Cell] = {"seed": run.seed, "objects": count, "rounds": rounds, "senders": _SENDERS}
    return Result("receivers", "Receiver processes", _NOTES, (Table("Rate", columns, rows),), parameters)


def _row(receivers: int, found: list[_Taken], count: int) -> tuple[Cell, ...]:
    return (
        receivers,
        count / statistics.median(each.wall_s for each in found),
        1000 * statistics.median(each.cpu_s for each in found) / count,
        1000 * statistics.median(each.receiving_s for each in found) / count,
        statistics.median(each.resident_mb for each in found),
    )


def _round(folder: Path, receivers: int, shares: list[list[Path]]) -> _Taken:
    node = Node(folder, Setup({}, receivers=receivers, sections=_closed())).start()
    try:
        wait_until(
            lambda: node.metric("dicom_node_receivers", state="running") == receivers, _LIMIT_S, "processes"
        )
        before, receiving = _cpu_s(node), _receiving_s(node, receivers)
        began = time.monotonic()
        senders = [_sender(node.port, share) for share in shares]
        for sender in senders:
            if sender.wait(_LIMIT_S):
                raise RuntimeError(f"storescu ended with {sender.returncode}")
        wall_s = time.monotonic() - began
        wait_until(lambda: node.metric("dicom_node_instances", state="received") == 0, _LIMIT_S, "work")
        resident = sum(found.resident_bytes for pid in node.processes() if (found := usage(pid)))
        return _Taken(
            wall_s, _cpu_s(node) - before, _receiving_s(node, receivers) - receiving, resident / 1e6
        )
    finally:
        node.terminate()


def _closed() -> dict[str, object]:
    """Sections of a configuration that sends nothing now."""
    hour = time.localtime(time.time() + 6 * 3600).tm_hour
    peer = {"ae_title": "LATER", "host": "127.0.0.1", "port": 104, "windows": [f"{hour:02}:00-{hour:02}:30"]}
    return {
        "destinations": {"later": peer},
        "routes": [{"name": "all", "role": "pass", "destinations": ["later"]}],
    }


def _sender(port: int, share: list[Path]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [_STORESCU, "-aec", "NODE", "127.0.0.1", str(port), *map(str, share)],
        env={**os.environ, "TCP_NODELAY": "1"},
    )


def _cpu_s(node: Node) -> float:
    return sum(found.cpu_s for pid in node.processes() if (found := usage(pid)))


def _receiving_s(node: Node, receivers: int) -> float:
    """Of the receiver processes; of the main process, where that one receives."""
    if receivers > 1:
        return node.metric("dicom_node_receiver_cpu_seconds_total")
    found = usage(node.pid)
    return found.cpu_s if found else 0.0
