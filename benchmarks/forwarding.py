"""How fast queued objects leave for a DCMTK receiver, with one, two and four associations.

With `DICOM_NODE_BEFORE`, the folder of another version of this repository, that version is measured too, in
turns with this one, each run in a process of its own; so both see the same machine.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from benchmarks.results import Cell, Result, Table
from benchmarks.run import Run
from benchmarks.stand import free_port
from dicom_node import log
from dicom_node.config import Config
from dicom_node.dimse.reception import part10_head
from dicom_node.forwarder import Forwarder
from dicom_node.jobs import Arrival, InstanceState, Outcome
from dicom_node.ledger import Ledger
from dicom_node.spool import Spool

_STORESCP = "/usr/bin/storescp"
_CT, _EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
_BYTES = 512 * 1024
_LIMIT_S = 300.0
_NOTES = (
    "Spool, ledger and forwarder of the node in one process. Receiver: DCMTK's `storescp --fork --ignore` "
    "with TCP_NODELAY=1 on loopback. The log is written as a node writes it, to nowhere. Of three runs in "
    "turns the one that took the least CPU time.",
    "CPU time is that of the node alone, all threads, user and system; waiting costs none.",
)
_RUNS = 3
_BEFORE = "DICOM_NODE_BEFORE"
_REPOSITORY = Path(__file__).resolve().parent.parent


def measure(run: Run) -> Result:
    """Objects per second of a queue of synthetic CT images of half a megabyte."""
    count, runs = (30, 1) if run.quick else (300, _RUNS)
    versions = {"this version": _REPOSITORY}
    if _BEFORE in os.environ:
        versions = {"before": Path(os.environ[_BEFORE]), **versions}
    rows = tuple(
        (version, associations, *cells)
        for associations in (1, 2, 4)
        for version, cells in _in_turns(versions, associations, count, run.seed, runs).items()
    )
    columns = ("version", "associations", "objects/s", "MB/s", "CPU ms an object")
    parameters: dict[str, Cell] = {"seed": run.seed, "objects": count, "bytes": _BYTES, "runs": runs}
    return Result("forwarding", "Forwarding", _NOTES, (Table("Rate", columns, rows),), parameters)


def _in_turns(
    versions: Mapping[str, Path], associations: int, count: int, seed: int, runs: int
) -> dict[str, list[float]]:
    """Version -> objects and megabytes a second, CPU milliseconds an object, of its cheapest run."""
    found: dict[str, list[list[float]]] = {version: [] for version in versions}
    for _ in range(runs):
        for version, folder in versions.items():
            found[version].append(_measured(folder, associations, count, seed))
    return {version: min(cells, key=lambda each: each[-1]) for version, cells in found.items()}


def _measured(folder: Path, associations: int, count: int, seed: int) -> list[float]:
    """One run by the code in a folder, in a process of its own."""
    order = [sys.executable, str(Path(__file__)), *map(str, (associations, count, seed))]
    search = os.pathsep.join((str(folder), str(folder / "core"), str(_REPOSITORY)))
    environment = os.environ | {"PYTHONPATH": search}
    said = subprocess.run(order, env=environment, check=True, capture_output=True, text=True).stdout
    return [float(word) for word in said.split()]


def _line(associations: int, count: int, seed: int) -> tuple[float, ...]:
    """Objects and megabytes a second, CPU milliseconds an object."""
    with tempfile.TemporaryDirectory() as folder, _receiver() as port:
        config = _config(Path(folder), port, associations)
        spool = Spool(config.storage.spool_dir, config.storage.reserve_bytes)
        with contextlib.closing(Ledger(config.storage.ledger_path)) as ledger:
            _queue(spool, ledger, count, seed)
            wall_s, cpu_s = _drained(config, spool, ledger)
    return count / wall_s, count * _BYTES / wall_s / 1e6, 1000 * cpu_s / count


def _drained(config: Config, spool: Spool, ledger: Ledger) -> tuple[float, float]:
    """Wall and CPU seconds until everything is delivered."""
    forwarder = Forwarder(config, spool, ledger, rest=_nap, wake=lambda _name: None)
    wall, cpu = time.monotonic(), time.process_time()
    forwarder.start()
    try:
        while not ledger.counts().idle:
            if time.monotonic() > wall + _LIMIT_S:
                raise TimeoutError(f"not delivered within {_LIMIT_S:.0f} s")
            time.sleep(0.01)
        return time.monotonic() - wall, time.process_time() - cpu
    finally:
        forwarder.stop()


def _nap(_destination: str, seconds: float) -> None:
    """What a lane does that finds nothing to send: everything is queued, so nobody rings."""
    time.sleep(min(seconds, 0.01))


def _config(folder: Path, port: int, associations: int) -> Config:
    peer = {"ae_title": "PEER", "host": "127.0.0.1", "port": port, "associations": associations}
    return Config.model_validate(
        {
            "node": {"id": "bench", "ae_title": "BENCH"},
            "storage": {"folder": folder, "reserve_mb": 16},
            "destinations": {"peer": peer},
            "routes": ({"name": "all", "role": "pass", "destinations": ("peer",)},),
        },
        strict=False,
    )


def _queue(spool: Spool, ledger: Ledger, count: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).bytes(_BYTES)
    for number in range(count):
        arrival = Arrival(_CT, f"2.25.{number + 1}", _EXPLICIT, "A", "B", "all")
        blob = spool.put([part10_head(arrival), _data_set(arrival.sop_instance_uid, pixels)])
        ledger.add(arrival, blob.name, blob.size)
        (work,) = ledger.claim_work("bench", 1, 60.0)
        done = Outcome(
            InstanceState.READY, "passed", "", blob.name, _CT, arrival.sop_instance_uid, _EXPLICIT, ("peer",)
        )
        ledger.finish(work, done)


def _data_set(instance: str, pixels: bytes) -> bytes:
    """SOP class, SOP instance and pixels, in Explicit VR Little Endian."""
    uids = ((0x0016, _CT), (0x0018, instance))
    values = [(number, uid.encode() + b"\0" * (len(uid) % 2)) for number, uid in uids]
    head = b"".join(struct.pack("<HH2sH", 8, number, b"UI", len(value)) + value for number, value in values)
    return head + struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, len(pixels)) + pixels


@contextlib.contextmanager
def _receiver() -> Iterator[int]:
    """A receiver that throws away what it gets; its port."""
    port = free_port()
    command = [_STORESCP, "--fork", "--ignore", "+xa", str(port)]
    with subprocess.Popen(command, env=os.environ | {"TCP_NODELAY": "1"}) as process:
        try:
            _wait_for(port)
            yield port
        finally:
            process.kill()


def _wait_for(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.05)
    raise TimeoutError(f"{_STORESCP} does not listen")


if __name__ == "__main__":  # one run, by the code that the module path leads to first
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        log.setup("json", "info", stream=nowhere)
        print(*_line(*map(int, sys.argv[1:])))
