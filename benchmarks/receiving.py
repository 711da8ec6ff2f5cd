"""How fast a node takes objects from DCMTK's storescu, beside DCMTK's own receiver; nothing is sent on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.results import Cell, Result, Table
from benchmarks.run import Run
from benchmarks.stand import free_port, listens, objects, wait_until
from dicom_node.config import Node
from dicom_node.ledger import Ledger

_STORESCP, _STORESCU = "/usr/bin/storescp", "/usr/bin/storescu"
_EDGE = 512
_SENDERS = (1, 4, 8)
_LIMIT_S = 600.0
#: seconds of processor time within half a second, below which a receiver rests
_REST_S = 0.03
#: DCMTK leaves Nagle's algorithm on: some 40 ms for every object
_NO_DELAY = {"TCP_NODELAY": "1"}
_SYNCED = ("storescp, synced", "storescp, synced as the node")
_NOTES = (
    "Senders: DCMTK's storescu with TCP_NODELAY=1 on loopback, one association each; CT images of 512 x 512. "
    "The node passes on to a destination that is paused: an object is kept, its row and delivery committed, "
    "and it is answered.",
    "storescp with `--fork +B`; it syncs nothing. `synced` has each file synced before it is closed, so "
    "before the answer, by a library put in front of it. `synced as the node` has the folder synced too, and "
    "a record of 4 kB in a common journal: what has to be on disk before the node answers.",
    "CPU time is that of every process of the receiver. The rates of a line come from the same minute, each "
    "the median of interleaved runs.",
)
#: syncs whatever was written before it is closed; with JOURNAL, its folder and a record too
_SYNCING = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
static void keep_record(const char *folder, const char *journal) {
    static char record[4096];
    int handle = open(folder, O_RDONLY | O_DIRECTORY);
    fsync(handle);
    close(handle);
    handle = open(journal, O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (write(handle, record, sizeof record) != sizeof record || fdatasync(handle)) abort();
    close(handle);
}
int fclose(FILE *file) {
    int (*really)(FILE *) = (int (*)(FILE *))dlsym(RTLD_NEXT, "fclose");
    struct stat what;
    int handle = fileno(file), mode = handle < 0 ? -1 : fcntl(handle, F_GETFL);
    if (mode >= 0 && (mode & O_ACCMODE) != O_RDONLY && !fstat(handle, &what) && S_ISREG(what.st_mode)) {
        const char *folder = getenv("FOLDER"), *journal = getenv("JOURNAL");
        fflush(file);
        fsync(handle);
        if (folder && journal) keep_record(folder, journal);
    }
    return really(file);
}
"""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a receiver took: objects a second, and milliseconds of processor time for each."""

    rate: float
    cpu_ms: float


#: starts a receiver in a folder; its port and its process
Start = Callable[[Path], tuple[int, subprocess.Popen[bytes]]]


def measure(run: Run) -> Result:
    """Every receiver with one, four and eight senders, interleaved."""
    count, repeats = (24, 1) if run.quick else (300, 3)
    with tempfile.TemporaryDirectory() as folder:
        paths = objects(Path(folder) / "in", count, edge=_EDGE, seed=run.seed)
        receivers = _receivers(Path(folder))
        taken: dict[tuple[str, int], list[Taken]] = {}
        for _ in range(repeats):
            for senders in _SENDERS:
                for name, start in receivers.items():
                    taken.setdefault((name, senders), []).append(_taken(start, paths, senders))
    rows = tuple((name, senders, *_figures(taken, name, senders)) for name, senders in taken)
    columns = ("receiver", "senders", "objects/s", "CPU ms an object", *(f"of {name}" for name in _SYNCED))
    parameters: dict[str, Cell] = {"seed": run.seed, "objects": count, "repeats": repeats}
    return Result("receiving", "Receiving", _NOTES, (Table("Rate", columns, rows),), parameters)


def _figures(taken: Mapping[tuple[str, int], list[Taken]], name: str, senders: int) -> tuple[Cell, ...]:
    rate, cpu_ms = (
        _median([each.rate for each in taken[name, senders]]),
        _median([each.cpu_ms for each in taken[name, senders]]),
    )
    synced = [taken.get((name, senders), []) for name in _SYNCED]
    return rate, cpu_ms, *(rate / _median([each.rate for each in them]) if them else None for them in synced)


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _receivers(folder: Path) -> dict[str, Start]:
    """Those that there are on this machine, by name."""
    found: dict[str, Start] = {"storescp": lambda place: _storescp(place, {})}
    library = _syncing(folder)
    if library is not None:
        preload = {"LD_PRELOAD": str(library)}
        found[_SYNCED[0]] = lambda place: _storescp(place, preload)
        found[_SYNCED[1]] = lambda place: _storescp(place, preload | _journal(place))
    found["node"] = lambda place: _node(place, {})
    if "receivers" in Node.model_fields:
        found["node, 2 receivers"] = lambda place: _node(place, {"receivers": 2})
    return found


def _syncing(folder: Path) -> Path | None:
    """The library that has a program sync its files; None without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    source, library = folder / "syncing.c", folder / "syncing.so"
    source.write_text(_SYNCING, "ascii")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def _journal(place: Path) -> dict[str, str]:
    return {"FOLDER": str(place), "JOURNAL": str(place / "journal")}


def _storescp(place: Path, extra: Mapping[str, str]) -> tuple[int, subprocess.Popen[bytes]]:
    port = free_port()
    command = [_STORESCP, "--fork", "+B", "-pdu", "131072", "+xa", "-od", place, str(port)]
    environment = os.environ | _NO_DELAY | extra
    return port, subprocess.Popen(command, env=environment, start_new_session=True)


def _node(place: Path, extra: Mapping[str, object]) -> tuple[int, subprocess.Popen[bytes]]:
    port = free_port()
    settings = {
        "node": {"id": "bench", "ae_title": "NODE", "port": port, **extra},
        "storage": {"folder": str(place), "reserve_mb": 16},
        "http": {"port": None},
        "log": {"level": "warning"},
        "workers": {"count": 1},
        "destinations": {"away": {"ae_title": "AWAY", "host": "127.0.0.1", "port": 1}},
        "routes": [{"name": "all", "role": "pass", "destinations": ["away"]}],
    }
    (place / "node.yaml").write_text(json.dumps(settings), "ascii")
    with contextlib.closing(Ledger(place / "ledger.sqlite")) as ledger:
        ledger.pause("away")
    command = [sys.executable, "-m", "dicom_node", "serve", "--config", str(place / "node.yaml")]
    return port, subprocess.Popen(command, start_new_session=True)


def _taken(start: Start, paths: list[Path], senders: int) -> Taken:
    with tempfile.TemporaryDirectory() as folder, _running(start, Path(folder)) as (port, process):
        _settle(process.pid)
        before, begun = _cpu_s(process.pid), time.monotonic()
        sending = [_sender(port, paths[number::senders], number) for number in range(senders)]
        for sender in sending:
            if sender.wait(_LIMIT_S) != 0:
                raise RuntimeError("a sender was not answered with success")
        seconds = time.monotonic() - begun
        return Taken(len(paths) / seconds, 1000 * (_cpu_s(process.pid) - before) / len(paths))


@contextlib.contextmanager
def _running(start: Start, folder: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    port, process = start(folder)
    try:
        wait_until(lambda: listens(port), 60, "the receiver")
        yield port, process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)


def _settle(pid: int) -> None:
    """Return when the processes of a receiver have started and rest."""
    for _ in range(60):
        before = _cpu_s(pid)
        time.sleep(0.5)
        if _cpu_s(pid) - before < _REST_S:
            return


def _sender(port: int, paths: list[Path], number: int) -> subprocess.Popen[bytes]:
    command = [_STORESCU, "-R", "-aet", f"BENCH{number}", "-aec", "NODE", "127.0.0.1", str(port), *paths]
    return subprocess.Popen(command, env=os.environ | _NO_DELAY)


def _cpu_s(pid: int) -> float:
    """Seconds of a process, its living descendants, and those that have ended and were waited for."""
    total = 0.0
    whole = psutil.Process(pid)
    for process in (whole, *whole.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            used = process.cpu_times()
            total += used.user + used.system + used.children_user + used.children_system
    return total
