"""How fast a study in an archive is judged: from the question to the last verdict, in one command."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.results import Cell, Result, Table
from benchmarks.run import Run, spread
from benchmarks.stand import ORTHANC, Program, free_port, listens, objects, wait_until
from blessmark import pixels, segment
from dicom_node.config import RECORD_FIELDS, OnUnprotectable
from dicom_node.keys import FileKeyRing
from dicom_node.protect import Site, protect, written

_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_EDGE = 512
_SAMPLE_S = 0.2
_NOTES = (
    "`dicom-node query verify --all` against Debian's Orthanc on loopback, on the same cores: C-FIND down to "
    "the images, then C-GET, C-MOVE or WADO-RS series by series, while as many processes as there are cores "
    "judge. Synthetic CT images of 512 x 512 pixels, all different, each with its record in its pixels.",
    "Seconds are from the start of the command to its end, imports included. Memory is the largest sum of "
    "the resident sets of all processes of the command, Orthanc's not among them, looked at five times a "
    "second; pages that they share are counted for each. CPU time is that of all these processes, start "
    "included: it tells more than seconds where the machine had other work.",
)


def measure(run: Run) -> Result:
    """Instances per second and memory, by every way of fetching."""
    count = 40 if run.quick else 1000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keys = folder / "keyring"
        subprocess.run([sys.executable, "-m", "dicom_node", "keys", "new", "--keys", keys], check=True)
        marked = spread(
            functools.partial(_marked, keys), objects(folder / "in", count, edge=_EDGE, seed=run.seed)
        )
        with _archive(folder) as (orthanc, ways):
            for path in marked:
                _stored(orthanc, path)
            rows = tuple(_judged(way, peer, keys, count) for way, peer in ways.items())
    columns = (
        *("fetched by", "instances", "seconds", "instances/s"),
        *("CPU ms each", "peak memory MB", "processes"),
    )
    return Result(
        "query", "Judging what an archive holds", _NOTES, (Table("Rate", columns, rows),), {"seed": run.seed}
    )


def _marked(keys: Path, path: Path) -> Path:
    """The same file with its record in its pixels."""
    site = Site(
        node="bench",
        ring=FileKeyRing.load(keys),
        segmenter=segment.segmenter("anatomy"),
        record_tags=tuple(RECORD_FIELDS.values()),
        on_unprotectable=OnUnprotectable.HEADER,
    )
    ds = pixels.read(path)
    ds.PatientID = "BENCH"  # one patient, one study, one series
    protect(ds, site, int(time.time()))
    path.write_bytes(written(ds))
    return path


@contextlib.contextmanager
def _archive(folder: Path) -> Iterator[tuple[int, dict[str, list[str]]]]:
    """An Orthanc that anybody may ask: the port of its REST interface, and the ways to ask it."""
    program, http, move = Program(folder / "orthanc", free_port()), free_port(), free_port()
    settings = {
        "DicomAet": "ORTHANC",
        "DicomPort": program.port,
        "HttpPort": http,
        "StorageDirectory": str(folder / "orthanc" / "state"),
        "IndexDirectory": str(folder / "orthanc" / "state"),
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "DicomModalities": {"auditor": ["AUDITOR", "127.0.0.1", move]},
        "Plugins": [str(_PLUGIN)] if _PLUGIN.exists() else [],
    }
    path = folder / "orthanc" / "orthanc.json"
    path.write_text(json.dumps(settings), "utf-8")
    peer = ["--peer", f"ORTHANC@127.0.0.1:{program.port}", "--aet", "AUDITOR"]
    ways = {"C-GET": peer, "C-MOVE": [*peer, "--retrieve", "move", "--port", str(move)]}
    if _PLUGIN.exists():
        ways["WADO-RS"] = ["--peer", f"http://127.0.0.1:{http}/dicom-web"]
    program.launch([ORTHANC, path], os.environ | {"TCP_NODELAY": "1"})
    try:
        wait_until(lambda: listens(program.port) and listens(http), 60.0, "Orthanc listens")
        yield http, ways
    finally:
        program.kill()


def _stored(orthanc: int, path: Path) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{orthanc}/instances", path.read_bytes())
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()


def _judged(way: str, peer: list[str], keys: Path, count: int) -> tuple[Cell, ...]:
    command = [sys.executable, "-m", "dicom_node", "query", "verify", *peer, "--all", "--keys", str(keys)]
    started, before = time.monotonic(), _cpu_s()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        watch = _Watch(process.pid)
        watch.start()
        output = process.stdout.read() if process.stdout else ""
        process.wait()
    seconds = time.monotonic() - started
    if f"{count} authentic" not in output:
        raise AssertionError(f"{way}: not everything is authentic: {output[-300:]}")
    cpu_ms = 1000 * (_cpu_s() - before) / count
    return way, count, seconds, count / seconds, cpu_ms, watch.peak_bytes / 1e6, watch.processes


def _cpu_s() -> float:
    """CPU seconds of every process of this one that has ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


class _Watch(threading.Thread):
    """Looks at the memory of a process and of all that it started, until it is gone."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._root = psutil.Process(pid)
        self.peak_bytes = 0
        self.processes = 0

    def run(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            while self._root.is_running() and self._root.status() != psutil.STATUS_ZOMBIE:
                family = [self._root, *self._root.children(recursive=True)]
                self.peak_bytes = max(self.peak_bytes, sum(map(_resident, family)))
                self.processes = max(self.processes, len(family))
                time.sleep(_SAMPLE_S)


def _resident(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0
