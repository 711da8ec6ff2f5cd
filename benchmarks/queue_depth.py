"""What the ledger costs when very much waits in it: claims, arrivals, figures, recovery, memory."""

from __future__ import annotations

import multiprocessing
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import psutil

from benchmarks import postgresql
from benchmarks.results import Cell, Result, Table
from benchmarks.run import Run
from benchmarks.traffic import spent
from dicom_node.jobs import Arrival, DeliveryState, InstanceState, Outcome, Send, Work
from dicom_node.ledger import Ledger

_DEPTHS = (10_000, 100_000, 1_000_000)
#: of a ledger on a server, besides
_SHALLOW = 10
_BATCH = 16
_LEASE_S = 1e9
_SENDERS = 8
_CHUNK = 50_000
_STEPS = (
    "a commit of nothing else",
    "claim work of 16",
    "claim sends of 16",
    "claim, nothing due",
    "delivered",
    "finish",
    "add",
    "metrics",
    "queue list",
)
_NOTES = (
    "A ledger on disk with `depth` instances that wait for a worker and as many deliveries that wait for one "
    "destination, a tenth of them of a higher priority and not due. One thread.",
    "Every call but the last two and `nothing due` ends with a synced commit; what that costs on the disk "
    "of this machine is the first line of a depth.",
    "`check` reads the whole file at a start, `claims` walks over every row that needs bytes, both without "
    "looking at the spool.",
    "Memory is the growth of a process that opens the ledger, claims a hundred batches, lists and counts.",
    "An image's way: an arrival, a claim of one, the end of its work, a claim of one delivery, its receipt, "
    "so that the depth stays. PostgreSQL 15 on the same disk, `synchronous_commit=on`.",
    f"Arrivals: {_SENDERS} threads add at once, sharing commits, against the same with a commit each.",
)


def measure(run: Run) -> Result:
    """Every depth in its own ledger; the arrivals of several threads in an empty one."""
    depths = _DEPTHS[:1] if run.quick else _DEPTHS
    repeats = 20 if run.quick else 200
    times: list[tuple[Cell, ...]] = []
    ways: list[tuple[Cell, ...]] = []
    whole: list[tuple[Cell, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        for depth in depths:
            path = Path(folder) / f"{depth}.sqlite"
            _fill(path, depth)
            ways.append(("SQLite", depth, *_way(Ledger(path), repeats, lambda: 0.0)))
            times += [(step, depth, *figures) for step, figures in _steps(path, repeats).items()]
            whole.append((depth, *_whole(path, depth)))
        if postgresql.is_installed():
            ways += _on_a_server((_SHALLOW, *depths), repeats)
        added = _arrivals(Path(folder), 20 if run.quick else 100)
    times.sort(key=lambda row: _STEPS.index(str(row[0])))
    columns = ("call", "depth", "p50 ms", "p95 ms", "p50 CPU ms")
    tables = (
        Table("Times per call", columns, tuple(times)),
        Table("An image's way through a queue of this depth, one thread", _WAY, tuple(ways)),
        Table("The whole ledger", _WHOLE, tuple(whole)),
        Table("Arrivals, instances/s", ("senders", "one commit each", "shared commits", "ratio"), added),
    )
    return Result("queue-depth", "Queue depth", _NOTES, tables, {"repeats": repeats})


_WAY = ("ledger", "depth", "images/s", "p50 ms", "p95 ms", "CPU ms", "CPU ms of the server")
_WHOLE = ("depth", "file MB", "bytes per instance", "check s", "claims s", "memory growth MB")


def _fill(path: Path, depth: int) -> None:
    """`depth` instances received, and `depth` ready with a delivery queued."""
    Ledger(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA synchronous = OFF")
        for start in range(1, 2 * depth + 1, _CHUNK):
            numbers = range(start, min(start + _CHUNK, 2 * depth + 1))
            raw.executemany(_INSTANCE, (_instance(number, depth) for number in numbers))
            raw.executemany(
                _DELIVERY, ((n, int(n % 10 == 0), 1e12 * (n % 10 == 0)) for n in numbers if n > depth)
            )
            raw.executemany(_EVENT, ((number,) for number in numbers))
            raw.commit()
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    raw.close()


_INSTANCE = (
    "INSERT INTO instances (id, sop_class_uid, sop_instance_uid, transfer_syntax_uid, calling_ae, called_ae,"
    " route, blob, size, received_at, state, next_at, result, out_blob, out_sop_class_uid,"
    " out_sop_instance_uid, out_transfer_syntax_uid, out_size)"
    " VALUES (?, ?, ?, '1.2.840.10008.1.2.1', 'CT1', 'NODE', 'protect', ?, 500000, ?, ?, ?, ?, ?, ?, ?,"
    " '1.2.840.10008.1.2.1', 500000)"
)
_DELIVERY = (
    "INSERT INTO deliveries (instance_id, destination, priority, queued_at, state, next_at)"
    " VALUES (?, 'pacs', ?, 0, 'queued', ?)"
)
_EVENT = "INSERT INTO events (at, instance_id, what) VALUES (0, ?, 'received')"
_CT = "1.2.840.10008.5.1.4.1.1.2"


def _instance(number: int, depth: int) -> tuple[object, ...]:
    ready = number > depth
    return (
        number,
        _CT,
        f"1.2.826.0.1.3680043.8.498.{number:040d}",
        # spread as hashes are, so that the indexes on them grow as they do in life
        f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}{number:048x}",
        float(number),
        "ready" if ready else "received",
        float(number),
        "protected" if ready else "",
        f"{number * 0xC2B2AE3D27D4EB4F % 2**64:016x}{number:048x}" if ready else "",
        _CT if ready else "",
        f"2.25.{number:038d}" if ready else "",
    )


#: the same rows as `_fill` makes; the text is only SQL for the depth
_DEEP = """
SET session_replication_role = replica;
INSERT INTO instances (id, sop_class_uid, sop_instance_uid, transfer_syntax_uid, calling_ae, called_ae, route,
    blob, size, received_at, state, next_at, result, out_blob, out_sop_class_uid, out_sop_instance_uid,
    out_transfer_syntax_uid, out_size)
SELECT n, '1.2.840.10008.5.1.4.1.1.2', '1.2.826.0.1.3680043.8.498.' || lpad(n::text, 40, '0'),
    '1.2.840.10008.1.2.1', 'CT1', 'NODE', 'protect', md5(n::text) || md5('a' || n), 500000, n,
    CASE WHEN n > {0} THEN 'ready' ELSE 'received' END, n, '', md5('b' || n) || md5('c' || n), '1.2',
    '2.25.' || n, '1.2.840.10008.1.2.1', 500000
FROM generate_series(1, 2 * {0}) AS n;
INSERT INTO deliveries (instance_id, destination, priority, queued_at, state, next_at)
SELECT n, 'pacs', (n % 10 = 0)::int, 0, 'queued', CASE n % 10 WHEN 0 THEN 1e12 ELSE 0 END
FROM generate_series({0} + 1, 2 * {0}) AS n;
INSERT INTO events (at, instance_id, what) SELECT 0, n, 'received' FROM generate_series(1, 2 * {0}) AS n;
SELECT setval('instances_id_seq', 2 * {0});
ANALYZE;
"""


def _on_a_server(depths: Sequence[int], repeats: int) -> list[tuple[Cell, ...]]:
    """An image's way through a ledger on a server, for each depth in a database of its own."""
    server = postgresql.Server(on_disk=True)
    rows: list[tuple[Cell, ...]] = []
    try:
        server.make()
        for depth in depths:
            place = server.database()
            book = Ledger(place)
            server.execute(_DEEP.format(depth), str(place.database))
            server.execute("CHECKPOINT")
            way = _way(book, repeats, lambda: spent(frozenset({server.pid}))[0])
            rows.append(("PostgreSQL", depth, *way))
    finally:
        server.remove()
    return rows


def _way(book: Ledger, repeats: int, server_s: Callable[[], float]) -> tuple[float, ...]:
    """Images a second; median and 95th percentile of an image, CPU time of process and server, ms."""
    numbers = iter(range(10**9, 2 * 10**9))

    def one() -> None:
        book.add(_arrival(next(numbers)), "f" * 64, 1)
        for work in book.claim_work("w", 1, _LEASE_S):
            book.finish(work, _OUTCOME)
        for send in book.claim_sends("pacs", 1, _LEASE_S):
            book.delivered(send, 0)

    for _ in range(20):  # what is done for the first time takes longer
        one()
    began = server_s()
    wall, cpu = zip(*(_timed(one) for _ in range(repeats)), strict=True)
    of_server = 1000 * (server_s() - began) / repeats
    book.close()
    return (
        round(1000 * repeats / sum(wall)),
        round(statistics.median(wall), 2),
        round(sorted(wall)[int(0.95 * (repeats - 1))], 2),
        round(statistics.median(cpu), 2),
        round(of_server, 2),
    )


def _steps(path: Path, repeats: int) -> dict[str, tuple[float, float, float]]:
    """Median and 95th percentile of the time of every step, and the median of its CPU time, ms."""
    book = Ledger(path)
    works: list[Work] = []
    sends: list[Send] = []
    numbers = iter(range(10**9))
    calls: dict[str, Callable[[], object]] = {
        "a commit of nothing else": lambda: book.pause("nobody") or book.resume("nobody"),
        "claim work of 16": lambda: works.extend(book.claim_work("w", _BATCH, _LEASE_S)),
        "claim sends of 16": lambda: sends.extend(book.claim_sends("pacs", _BATCH, _LEASE_S)),
        "claim, nothing due": lambda: book.claim_sends("nobody", _BATCH, _LEASE_S),
        "delivered": lambda: book.delivered(sends.pop(), 0),
        "finish": lambda: book.finish(works.pop(), _OUTCOME),
        "add": lambda: book.add(_arrival(next(numbers)), "f" * 64, 1),
        "metrics": book.snapshot,
        "queue list": book.queues,
    }
    found = {}
    for step in _STEPS:
        rounds = repeats if step not in ("metrics", "queue list") else min(repeats, 5)
        pairs = [_timed(calls[step]) for _ in range(rounds)]
        wall, cpu = sorted(pair[0] for pair in pairs), sorted(pair[1] for pair in pairs)
        last = min(rounds - 1, int(rounds * 0.95))
        found[step] = (round(wall[rounds // 2], 2), round(wall[last], 2), round(cpu[rounds // 2], 2))
    book.close()
    return found


_OUTCOME = Outcome(
    InstanceState.READY, "protected", "", "f" * 64, _CT, "2.25.1", "1.2.840.10008.1.2.1", ("pacs", "vna")
)


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    """Wall clock and CPU time of a call, ms."""
    started, used = time.perf_counter(), time.process_time()
    call()
    return 1000 * (time.perf_counter() - started), 1000 * (time.process_time() - used)


def _whole(path: Path, depth: int) -> tuple[Cell, ...]:
    size = path.stat().st_size
    book = Ledger(path)
    check = _timed(book.check)[0] / 1000
    claims = _timed(lambda: sum(1 for _ in book.claims()))[0] / 1000
    book.close()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        grown = pool.submit(_growth, path).result()
    return round(size / 1e6, 1), size // (2 * depth), round(check, 2), round(claims, 2), round(grown, 1)


def _growth(path: Path) -> float:
    """Memory that working on a ledger takes, MB; measured after the libraries are loaded."""
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as folder:
        Ledger(Path(folder) / "empty.sqlite").close()
    before = process.memory_info().rss
    book = Ledger(path)
    for _ in range(100):
        book.claim_work("w", _BATCH, _LEASE_S)
        book.claim_sends("pacs", _BATCH, _LEASE_S)
    book.parcels("pacs", DeliveryState.QUEUED, 1000)
    book.snapshot()
    for _ in book.claims():
        pass
    grown = (process.memory_info().rss - before) / 1e6
    book.close()
    return grown


def _arrivals(folder: Path, each: int) -> tuple[tuple[Cell, ...], ...]:
    """Instances a second by one thread and by several, alone and together; best of three, interleaved."""
    best: dict[tuple[int, bool], float] = {}
    for attempt in range(3):
        for senders in (1, _SENDERS):
            for shared in (False, True):
                rate = _rate(folder / f"{attempt}-{senders}-{shared}.sqlite", senders, each, shared=shared)
                best[senders, shared] = max(rate, best.get((senders, shared), 0.0))
    return tuple(
        (
            senders,
            round(best[senders, False]),
            round(best[senders, True]),
            best[senders, True] / best[senders, False],
        )
        for senders in (1, _SENDERS)
    )


def _rate(path: Path, senders: int, each: int, *, shared: bool) -> float:
    book = Ledger(path)

    def alone(number: int) -> None:
        with book._writing() as connection:
            book._add(connection, _arrival(number), "f" * 64, 1)

    def send(first: int) -> None:
        for number in range(first, first + each):
            book.add(_arrival(number), "f" * 64, 1) if shared else alone(number)

    threads = [threading.Thread(target=send, args=(sender * each,)) for sender in range(senders)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - started
    book.close()
    return senders * each / taken


def _arrival(number: int) -> Arrival:
    return Arrival(_CT, f"1.2.840.1.{number}", "1.2.840.10008.1.2.1", "CT1", "NODE", "protect")
