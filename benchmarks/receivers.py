"""How fast a node receives with one, two and four receiver processes, from eight senders at once."""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import senders
from benchmarks.results import Cell, Result, Table
from benchmarks.run import Run
from benchmarks.stand import Node, Setup, objects, wait_until
from dicom_node.processes import usage

_SENDERS, _EDGE = 8, 512
_LIMIT_S = 300.0
_NOTES = (
    "Eight senders, each with its share of the objects, prepared before, in one association, until the last "
    "has its last answer; they run on the same cores and take about a tenth of what the node takes. The only "
    "destination is closed at this hour: nothing is sent on.",
    "One process has threads, and hashes, writes and syncs without the interpreter's lock, so it uses more "
    "than one core. `on one core` is the same node with all of its processes held to one.",
    "The rows take turns, round by round; the median of the rounds is shown. CPU time is that of the node, "
    "in all of its processes, and of it that of the processes that receive.",
)


@dataclass(frozen=True, slots=True)
class _Case:
    """A node with so many receiver processes, and how many cores it may use; 0 all there are."""

    receivers: int
    cores: int = 0

    def __str__(self) -> str:
        return f"{self.receivers}, on one core" if self.cores else str(self.receivers)


_CASES = (_Case(1, cores=1), _Case(1), _Case(2), _Case(4))


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
    taken: dict[_Case, list[_Taken]] = {case: [] for case in _CASES}
    with tempfile.TemporaryDirectory() as folder:
        shares = [
            objects(
                Path(folder) / f"in-{number}", count // _SENDERS, edge=_EDGE, seed=100 * run.seed + number
            )
            for number in range(_SENDERS)
        ]
        for turn in range(rounds):
            for number, (case, found) in enumerate(taken.items()):
                found.append(_round(Path(folder) / f"node-{number}-{turn}", case, shares))
    alone = _rate(taken[_Case(1)], count)
    rows = tuple(_row(case, found, count, alone) for case, found in taken.items())
    columns = (
        "receiver processes",
        "objects/s",
        "of one",
        "CPU ms an object",
        "of it receiving",
        "MB in all",
    )
    parameters: dict[str, Cell] = {"seed": run.seed, "objects": count, "rounds": rounds, "senders": _SENDERS}
    return Result("receivers", "Receiver processes", _NOTES, (Table("Rate", columns, rows),), parameters)


def _rate(found: list[_Taken], count: int) -> float:
    return count / statistics.median(each.wall_s for each in found)


def _row(case: _Case, found: list[_Taken], count: int, alone: float) -> tuple[Cell, ...]:
    return (
        str(case),
        _rate(found, count),
        _rate(found, count) / alone,
        1000 * statistics.median(each.cpu_s for each in found) / count,
        1000 * statistics.median(each.receiving_s for each in found) / count,
        statistics.median(each.resident_mb for each in found),
    )


def _round(folder: Path, case: _Case, shares: list[list[Path]]) -> _Taken:
    node = Node(folder, Setup({}, receivers=case.receivers, sections=_closed())).start()
    try:
        wait_until(
            lambda: node.metric("dicom_node_receivers", state="running") == case.receivers,
            _LIMIT_S,
            "processes",
        )
        if case.cores:
            _hold(node, case.cores)
        before, receiving = _cpu_s(node), _receiving_s(node, case.receivers)
        with senders.ready(node.port, shares) as sending:
            wall_s = senders.sent(sending)
        wait_until(lambda: node.metric("dicom_node_instances", state="received") == 0, _LIMIT_S, "work")
        resident = sum(found.resident_bytes for pid in node.processes() if (found := usage(pid)))
        return _Taken(
            wall_s,
            _cpu_s(node) - before,
            _receiving_s(node, case.receivers) - receiving,
            resident / 1e6,
        )
    finally:
        node.terminate()


def _hold(node: Node, cores: int) -> None:
    """Let every thread of a node, and so every thread that it will start, run on so many cores only."""
    allowed = set(sorted(os.sched_getaffinity(0))[:cores])
    for pid in node.processes():
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # it has ended
                os.sched_setaffinity(int(task.name), allowed)


def _closed() -> dict[str, object]:
    """Sections of a configuration that sends nothing now."""
    hour = time.localtime(time.time() + 6 * 3600).tm_hour
    peer = {"ae_title": "LATER", "host": "127.0.0.1", "port": 104, "windows": [f"{hour:02}:00-{hour:02}:30"]}
    return {
        "destinations": {"later": peer},
        "routes": [{"name": "all", "role": "pass", "destinations": ["later"]}],
    }


def _cpu_s(node: Node) -> float:
    return sum(found.cpu_s for pid in node.processes() if (found := usage(pid)))


def _receiving_s(node: Node, receivers: int) -> float:
    """Of the receiver processes; of the main process, where that one receives."""
    if receivers > 1:
        return node.metric("dicom_node_receiver_cpu_seconds_total")
    found = usage(node.pid)
    return found.cpu_s if found else 0.0
