"""Every metric, declared once, and the collector that fills them.

The ledger is the only memory: figures are read from it when somebody asks, so they survive a crash, count
every process and can never disagree with what the queue commands show. Only what a worker runs is told by the
workers that are alive, because it dies with them.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Kind(enum.StrEnum):
    """How a figure moves."""

    COUNTER = "counter"  #: only up; exported with `_total`
    GAUGE = "gauge"  #: up and down


@dataclass(frozen=True, slots=True)
class Declaration:
    """One metric: its exported name without `_total`, how it moves, its unit, its labels, what it says."""

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    help: str


INSTANCES = Declaration(
    "dicom_node_instances",
    Kind.GAUGE,
    "",
    ("state", "result", "reason"),
    "Instances received, by where they are now and what became of them.",
)
DELIVERIES = Declaration(
    "dicom_node_deliveries",
    Kind.GAUGE,
    "",
    ("destination", "state"),
    "Deliveries (one instance for one destination), by where they are now.",
)
ATTEMPTS = Declaration(
    "dicom_node_delivery_attempts",
    Kind.COUNTER,
    "",
    ("destination",),
    "Attempts to deliver, successful or not.",
)
QUEUE_OLDEST = Declaration(
    "dicom_node_queue_oldest_seconds",
    Kind.GAUGE,
    "seconds",
    ("destination",),
    "How long the oldest undelivered instance has been waiting for this destination.",
)
UNPROCESSED_OLDEST = Declaration(
    "dicom_node_unprocessed_oldest_seconds",
    Kind.GAUGE,
    "seconds",
    (),
    "How long the oldest instance that no worker has finished has been waiting.",
)
REPEATS = Declaration(
    "dicom_node_repeated_arrivals",
    Kind.COUNTER,
    "",
    (),
    "Arrivals acknowledged without effect because the same bytes were here already.",
)
CONFLICTS = Declaration(
    "dicom_node_conflicting_arrivals",
    Kind.COUNTER,
    "",
    (),
    "Arrivals whose SOP Instance UID had come before with other content.",
)
LOST = Declaration(
    "dicom_node_lost_leases",
    Kind.COUNTER,
    "",
    (),
    "Instances whose worker died or fell silent.",
)
NETWORK_WORKERS = Declaration(
    "dicom_node_network_workers",
    Kind.GAUGE,
    "",
    ("network", "engine", "outcome"),
    "Living workers that evaluate this network on this engine, by the outcome of its self-test at the start.",
)
RESULTS = Declaration(
    "dicom_node_delivery_results",
    Kind.COUNTER,
    "",
    ("destination", "result"),
    "Attempts by the destination that was asked and how they ended.",
)
DOWN = Declaration(
    "dicom_node_destination_down_seconds",
    Kind.GAUGE,
    "seconds",
    ("destination",),
    "How long a destination has been silent or busy; absent while it is there.",
)
CLOSED = Declaration(
    "dicom_node_destination_closed",
    Kind.GAUGE,
    "",
    ("destination",),
    "1 for a destination outside its windows; absent otherwise.",
)
FAILED_OVER = Declaration(
    "dicom_node_destination_failed_over",
    Kind.GAUGE,
    "",
    ("destination",),
    "1 for a destination whose deliveries go to its fail-over; absent otherwise.",
)
COMMITMENTS = Declaration(
    "dicom_node_commitments",
    Kind.GAUGE,
    "",
    ("destination", "state"),
    "Deliveries to a destination that is asked for storage commitment, by what it said.",
)
COMMITMENTS_OLDEST = Declaration(
    "dicom_node_commitment_oldest_seconds",
    Kind.GAUGE,
    "seconds",
    ("destination",),
    "How long the oldest delivery has been waiting for the commitment of this destination.",
)
PROMISES = Declaration(
    "dicom_node_commitment_requests",
    Kind.GAUGE,
    "",
    ("state", "result"),
    "Requests of peers for storage commitment, by where they are now and what was answered.",
)
PROMISES_OLDEST = Declaration(
    "dicom_node_commitment_request_oldest_seconds",
    Kind.GAUGE,
    "seconds",
    (),
    "How long the oldest request of a peer has been waiting for its answer.",
)
PAUSED = Declaration(
    "dicom_node_destination_paused",
    Kind.GAUGE,
    "",
    ("destination",),
    "1 for a destination that an operator has paused; absent otherwise.",
)
VERDICTS = Declaration(
    "dicom_node_verdicts",
    Kind.COUNTER,
    "",
    ("route", "finding"),
    "Objects judged by routes that recover or verify, by what was found; not-judged: holds no watermark.",
)
SPOOL_BYTES = Declaration("dicom_node_spool_bytes", Kind.GAUGE, "bytes", (), "Bytes of all kept objects.")
SPOOL_FREE = Declaration(
    "dicom_node_spool_free_bytes",
    Kind.GAUGE,
    "bytes",
    (),
    "Bytes free on the file system of the spool.",
)

DECLARATIONS = (
    INSTANCES,
    DELIVERIES,
    ATTEMPTS,
    QUEUE_OLDEST,
    UNPROCESSED_OLDEST,
    REPEATS,
    CONFLICTS,
    LOST,
    NETWORK_WORKERS,
    RESULTS,
    DOWN,
    CLOSED,
    FAILED_OVER,
    PAUSED,
    COMMITMENTS,
    COMMITMENTS_OLDEST,
    PROMISES,
    PROMISES_OLDEST,
    VERDICTS,
    SPOOL_BYTES,
    SPOOL_FREE,
)


@dataclass(frozen=True, slots=True)
class InstanceTally:
    """How many instances are in a state with a result and reason."""

    state: str
    result: str
    reason: str
    count: int


@dataclass(frozen=True, slots=True)
class DeliveryTally:
    """How many deliveries to a destination are in a state, and how often they were tried."""

    destination: str
    state: str
    count: int
    attempts: int


@dataclass(frozen=True, slots=True)
class QueueAge:
    """How long the oldest object of a destination has waited: to be delivered, or committed to; seconds."""

    destination: str
    oldest_s: float


@dataclass(frozen=True, slots=True)
class CommitmentTally:
    """How many deliveries to a destination are in a state of storage commitment."""

    destination: str
    state: str
    count: int


@dataclass(frozen=True, slots=True)
class PromiseTally:
    """How many requests of peers for storage commitment are in a state with a result."""

    state: str
    result: str
    count: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The ledger at one moment, as bounded figures: no UID, no AE title, no path."""

    instances: tuple[InstanceTally, ...]
    deliveries: tuple[DeliveryTally, ...]
    ages: tuple[QueueAge, ...]
    #: age of the oldest instance that no worker has finished, seconds
    oldest_unprocessed_s: float
    #: arrivals of bytes that were here already
    repeats: int
    #: instances whose UID had come before with other content
    conflicts: int
    #: leases lost by workers
    lost: int
    #: attempts of deliveries that were purged since, by destination
    purged_attempts: tuple[tuple[str, int], ...] = ()
    #: destinations that an operator has paused
    paused: tuple[str, ...] = ()
    commitments: tuple[CommitmentTally, ...] = ()
    commitment_ages: tuple[QueueAge, ...] = ()
    promises: tuple[PromiseTally, ...] = ()
    #: age of the oldest request for storage commitment whose answer has not been taken, seconds
    oldest_promise_s: float = 0.0


@dataclass(frozen=True, slots=True)
class NetworkRun:
    """What a worker runs a network on, and how its self-test ended (`blessmark.segment.engine.Outcome`)."""

    network: str
    engine: str
    outcome: str


class LedgerFigures(Protocol):
    """What the collector asks of the ledger."""

    def snapshot(self) -> Snapshot:
        """The ledger at this moment."""

    def results(self) -> dict[tuple[str, str], int]:
        """(destination, result) -> attempts that ended so."""

    def verdicts(self) -> dict[tuple[str, str], int]:
        """(route, finding) -> judgements that ended so."""

    def down_s(self) -> dict[str, float]:
        """Destination -> seconds for which it has been down."""


class SpoolFigures(Protocol):
    """What the collector asks of the spool."""

    def used_bytes(self) -> int:
        """Bytes of all objects."""

    def free_bytes(self) -> int:
        """Bytes still free."""


class WorkerFigures(Protocol):
    """What the collector asks of the workers."""

    @property
    def networks(self) -> Sequence[NetworkRun]:
        """What every living worker runs."""


class LaneFigures(Protocol):
    """What the collector asks of the forwarder."""

    def closed(self) -> list[str]:
        """Destinations outside their windows."""

    def failed_over(self) -> list[str]:
        """Destinations whose deliveries go to another one."""


Sample = tuple[tuple[str, ...], float]


class LedgerCollector(Collector):
    """Reads ledger, spool, forwarder and workers whenever somebody scrapes; keeps nothing itself."""

    def __init__(
        self, ledger: LedgerFigures, spool: SpoolFigures, lanes: LaneFigures, workers: WorkerFigures
    ) -> None:
        self._ledger = ledger
        self._spool = spool
        self._lanes = lanes
        self._workers = workers

    def describe(self) -> Iterable[Metric]:
        """The declarations without samples, so that registering opens no database."""
        return [_family(declaration, ()) for declaration in DECLARATIONS]

    def collect(self) -> Iterator[Metric]:
        """One family for each declaration."""
        snapshot = self._ledger.snapshot()
        yield _family(INSTANCES, _instance_samples(snapshot))
        yield _family(DELIVERIES, _delivery_samples(snapshot))
        yield _family(ATTEMPTS, _attempt_samples(snapshot))
        yield _family(QUEUE_OLDEST, _age_samples(snapshot.ages))
        yield _family(UNPROCESSED_OLDEST, [((), snapshot.oldest_unprocessed_s)])
        yield _family(REPEATS, [((), snapshot.repeats)])
        yield _family(CONFLICTS, [((), snapshot.conflicts)])
        yield _family(LOST, [((), snapshot.lost)])
        yield _family(NETWORK_WORKERS, _network_samples(self._workers))
        yield _family(RESULTS, list(self._ledger.results().items()))
        yield _family(DOWN, [((name,), seconds) for name, seconds in self._ledger.down_s().items()])
        yield _family(CLOSED, [((name,), 1) for name in self._lanes.closed()])
        yield _family(FAILED_OVER, [((name,), 1) for name in self._lanes.failed_over()])
        yield _family(PAUSED, [((destination,), 1) for destination in snapshot.paused])
        yield _family(COMMITMENTS, _commitment_samples(snapshot))
        yield _family(COMMITMENTS_OLDEST, _age_samples(snapshot.commitment_ages))
        yield _family(PROMISES, _promise_samples(snapshot))
        yield _family(PROMISES_OLDEST, [((), snapshot.oldest_promise_s)])
        yield _family(VERDICTS, list(self._ledger.verdicts().items()))
        yield _family(SPOOL_BYTES, [((), self._spool.used_bytes())])
        yield _family(SPOOL_FREE, [((), self._spool.free_bytes())])


def _instance_samples(snapshot: Snapshot) -> list[Sample]:
    return [((tally.state, tally.result, tally.reason), tally.count) for tally in snapshot.instances]


def _delivery_samples(snapshot: Snapshot) -> list[Sample]:
    return [((tally.destination, tally.state), tally.count) for tally in snapshot.deliveries]


def _age_samples(ages: Iterable[QueueAge]) -> list[Sample]:
    return [((age.destination,), age.oldest_s) for age in ages]


def _commitment_samples(snapshot: Snapshot) -> list[Sample]:
    return [((tally.destination, tally.state), tally.count) for tally in snapshot.commitments]


def _promise_samples(snapshot: Snapshot) -> list[Sample]:
    return [((tally.state, tally.result), tally.count) for tally in snapshot.promises]


def _attempt_samples(snapshot: Snapshot) -> list[Sample]:
    attempts = dict(snapshot.purged_attempts)
    for tally in snapshot.deliveries:
        attempts[tally.destination] = attempts.get(tally.destination, 0) + tally.attempts
    return [((destination,), count) for destination, count in attempts.items()]


def _network_samples(workers: WorkerFigures) -> list[Sample]:
    runs = Counter(workers.networks)
    return [((run.network, run.engine, run.outcome), count) for run, count in runs.items()]


def _family(declaration: Declaration, samples: Iterable[Sample]) -> Metric:
    kind = CounterMetricFamily if declaration.kind is Kind.COUNTER else GaugeMetricFamily
    family = kind(declaration.name, declaration.help, labels=declaration.labels, unit=declaration.unit)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family
