"""What Prometheus gets: the declarations of `metrics`, filled when somebody scrapes; nothing is kept here.

Counters and histograms come from the ledger and from nowhere else, written there before they are shown: so no
counter falls when a process dies. A label set that the configuration names is there from the start, at 0, or
the first increment would not be seen by `rate`.
"""

from __future__ import annotations

import contextlib
import platform
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from dicom_node import __version__, keys, metrics
from dicom_node.audit.auditor import Auditor
from dicom_node.blobs.port import BlobStore
from dicom_node.config import Config, Finding, Role
from dicom_node.dimse import secure
from dicom_node.dimse.admission import REJECTIONS
from dicom_node.dimse.reception import NO_ROOM
from dicom_node.dimse.scp import SUCCESS, Receiver
from dicom_node.errors import AuditError, KeyFileError, LedgerError
from dicom_node.forwarder import Forwarder
from dicom_node.housekeeping import Housekeeper
from dicom_node.jobs import AUTHENTIC, NOT_JUDGED, DeliveryState
from dicom_node.ledger import Ledger
from dicom_node.metrics import Counted, Declaration, Kind, QueueAge, Snapshot
from dicom_node.processes import usage
from dicom_node.reloading import Reloads
from dicom_node.worker import Workers

#: what a reader may say of an object
_FINDINGS = (AUTHENTIC, NOT_JUDGED, *(str(finding) for finding in Finding if finding is not Finding.OTHER))
Sample = tuple[tuple[str, ...], float]
#: (labels, bound) -> value, of one metric
Values = Mapping[tuple[tuple[str, ...], str], float]


@dataclass(frozen=True, slots=True)
class Standing:
    """What a node is in its cluster at this moment; without a cluster it leads itself.

    `leading` is None where it never leads, `connected` where there is no broker; `tells` says whether its
    page shows what the common ledger knows.
    """

    housekeeper: Housekeeper | None
    leading: bool | None
    tells: bool
    connected: bool | None


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a running node that are asked; `checks` tells what is fine and what is not."""

    config: Config
    ledger: Ledger
    spool: BlobStore
    workers: Workers | None
    forwarder: Forwarder | None
    receiver: Receiver | None
    checks: Callable[[], Mapping[str, bool]]
    reloads: Reloads
    auditor: Auditor | None
    standing: Callable[[], Standing]


class Exporter(Collector):
    """Asks the parts of a node whenever somebody scrapes."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._expected = expected(parts.config)

    def describe(self) -> Iterable[Metric]:
        """The declarations without samples, so that registering asks nobody."""
        return [_family(declaration, ()) for declaration in metrics.DECLARATIONS]

    def collect(self) -> Iterator[Metric]:
        """One family for each declaration; raises LedgerError and SpoolError when they cannot be read."""
        ledger, standing = self._parts.ledger, self._parts.standing()
        with contextlib.suppress(LedgerError):  # it stays in memory, and what is on disk is shown
            ledger.settle()
        alive = live(self._parts, standing)
        if not standing.tells:  # the leader's page does, and what two pages show is counted twice
            yield from (_family(declaration, alive[declaration]) for declaration in metrics.LIVE)
            return
        snapshot = ledger.snapshot()
        counted = _by_metric(snapshot.counted)
        for declaration in metrics.COUNTED:
            values, labels = counted[declaration.name], self._expected.get(declaration, [()])
            make = _histogram if declaration.kind is Kind.HISTOGRAM else _counter
            yield make(declaration, values, () if declaration.labels and labels == [()] else labels)
        filled = kept(snapshot, ledger.down_s(), self._parts.config) | alive
        for declaration in (*metrics.KEPT, *metrics.LIVE):
            yield _family(declaration, filled[declaration])


def expected(config: Config) -> dict[Declaration, list[tuple[str, ...]]]:
    """The label sets that are there from the start."""
    peers, destinations = config.peers(), list(config.destinations)
    ends = [(end, "") for end in ("accepted", "released", "aborted")]
    ends += [("rejected", rejection.word) for rejection in REJECTIONS]
    return {
        metrics.ASSOCIATIONS: [(peer, *end) for peer in peers for end in ends],
        metrics.STORES: [(peer, f"{status:04x}") for peer in peers for status in (SUCCESS, NO_ROOM.status)],
        metrics.RECEIVED_BYTES: [(peer,) for peer in peers],
        metrics.VERDICTS: [
            (route.name, finding)
            for route in config.routes
            if route.role in (Role.RECOVER, Role.VERIFY)
            for finding in _FINDINGS
        ],
        metrics.STAGE_SECONDS: [(stage,) for stage in metrics.STAGES],
        metrics.ATTEMPTS: [(name,) for name in destinations],
        metrics.RESULTS: [(name, "delivered") for name in destinations],
        metrics.DELIVERY_DELAY: [(name,) for name in destinations],
        metrics.QUEUE_OLDEST: [(name,) for name in destinations],
    }


def kept(
    snapshot: Snapshot, down_s: Mapping[str, float], config: Config
) -> dict[Declaration, Iterable[Sample]]:
    """What the ledger knows, ready to be shown."""
    none = {(name, str(state)): 0 for name in config.destinations for state in DeliveryState}
    ages = [QueueAge(name, 0.0) for name in config.destinations] + list(snapshot.ages)
    return {
        metrics.INSTANCES: [((row.state, row.result, row.reason), row.count) for row in snapshot.instances],
        metrics.UNPROCESSED_OLDEST: [((), snapshot.oldest_unprocessed_s)],
        metrics.DELIVERIES: list(
            (none | {(row.destination, row.state): row.count for row in snapshot.deliveries}).items()
        ),
        metrics.QUEUE_OLDEST: _ages(ages),
        metrics.DOWN: [((name,), seconds) for name, seconds in down_s.items()],
        metrics.PAUSED: [((name,), 1) for name in snapshot.paused],
        metrics.COMMITMENTS: [((row.destination, row.state), row.count) for row in snapshot.commitments],
        metrics.COMMITMENTS_OLDEST: _ages(snapshot.commitment_ages),
        metrics.PROMISES: [((row.state, row.result), row.count) for row in snapshot.promises],
        metrics.PROMISES_OLDEST: [((), snapshot.oldest_promise_s)],
    }


def live(parts: Parts, standing: Standing) -> dict[Declaration, Iterable[Sample]]:
    """What the parts of the node know at this moment; nothing of a part that it does not have."""
    forwarder, receiver = parts.forwarder, parts.receiver
    weight = None if standing.housekeeper is None else standing.housekeeper.spool_bytes
    return {
        metrics.OPEN_ASSOCIATIONS: [] if receiver is None else [((), receiver.open_associations)],
        metrics.CLOSED: [] if forwarder is None else [((name,), 1) for name in forwarder.closed()],
        metrics.FAILED_OVER: [] if forwarder is None else [((name,), 1) for name in forwarder.failed_over()],
        metrics.SPOOL_BYTES: _if_known(weight),
        metrics.SPOOL_FREE: [((), parts.spool.free_bytes())],
        metrics.SPOOL_RESERVE: [((), parts.config.storage.reserve_bytes)],
        **_workers(parts.workers),
        metrics.KEY_CREATED: _key_created(parts.config),
        metrics.CERTIFICATE_END: _certificate_ends(parts.config),
        metrics.PROBLEM: [((name,), not fine) for name, fine in parts.checks().items()],
        **_audit(parts.auditor),
        metrics.RELOADED: [((), parts.reloads.successful)],
        metrics.CONFIGURED_AT: [((), parts.reloads.taken_up_at)],
        metrics.BROKER: _if_known(standing.connected),
        metrics.LEADING: _if_known(standing.leading),
        metrics.BUILD: [((__version__, platform.python_version()), 1)],
    }


def _if_known(value: float | None) -> list[Sample]:
    return [] if value is None else [((), value)]


def _workers(workers: Workers | None) -> dict[Declaration, Iterable[Sample]]:
    if workers is None:
        return dict.fromkeys(
            (metrics.WORKERS, metrics.WORKER_MEMORY, metrics.WORKER_CPU, metrics.NETWORK_WORKERS), ()
        )
    taken = {name: found for name, pid in workers.named_pids.items() if (found := usage(pid)) is not None}
    return {
        metrics.WORKERS: [
            (("configured",), workers.configured),
            (("running",), workers.alive),
            (("ready",), workers.ready),
        ],
        metrics.WORKER_MEMORY: [((name,), found.resident_bytes) for name, found in taken.items()],
        metrics.WORKER_CPU: [((name,), found.cpu_s) for name, found in taken.items()],
        metrics.NETWORK_WORKERS: [
            ((run.network, run.engine, run.outcome), count)
            for run, count in Counter(workers.networks).items()
        ],
    }


def _audit(auditor: Auditor | None) -> dict[Declaration, Iterable[Sample]]:
    """How far the audit trail is behind; nothing where there is none, or its folder cannot be read."""
    nothing: dict[Declaration, Iterable[Sample]] = {metrics.AUDIT_WAITING: [], metrics.AUDIT_LOST: []}
    if auditor is None:
        return nothing
    try:
        waiting, lost = len(auditor.store.waiting()), auditor.store.state().lost
    except AuditError:
        return nothing
    return {metrics.AUDIT_WAITING: [((), waiting)], metrics.AUDIT_LOST: [((), lost)]}


def _key_created(config: Config) -> list[Sample]:
    """When the current key was made; nothing where no route needs one, or the ring cannot be read."""
    if all(route.role is Role.PASS for route in config.routes):
        return []
    try:
        (current,) = [key for key in keys.describe(config.keys.ring) if key.current]
        made = datetime.fromisoformat(current.created)
    except (KeyFileError, ValueError):
        return []
    return [((str(current.id),), made.timestamp())]


def _certificate_ends(config: Config) -> list[Sample]:
    """When what TLS needs runs out; nothing of files that cannot be read, of which the log tells."""
    try:
        return [((name,), end.timestamp()) for name, end in secure.ends(config.tls).items()]
    except (OSError, ValueError):
        return []


def _ages(ages: Sequence[QueueAge]) -> list[Sample]:
    """The last of each destination counts."""
    return [((name,), seconds) for name, seconds in {age.destination: age.oldest_s for age in ages}.items()]


def _by_metric(counted: Iterable[Counted]) -> Mapping[str, Values]:
    found: dict[str, dict[tuple[tuple[str, ...], str], float]] = defaultdict(dict)
    for each in counted:
        found[each.metric][each.labels, each.bound] = each.value
    return found


def _counter(declaration: Declaration, values: Values, there: Iterable[tuple[str, ...]]) -> Metric:
    samples = dict.fromkeys(there, 0.0) | {labels: value for (labels, _), value in values.items()}
    return _family(declaration, samples.items())


def _histogram(declaration: Declaration, values: Values, there: Iterable[tuple[str, ...]]) -> Metric:
    """Buckets as Prometheus wants them, each with those below it.

    What an older version counted under other bounds goes where it fits: nothing that was counted is lost.
    """
    family = HistogramMetricFamily(
        declaration.name, declaration.help, labels=declaration.labels, unit=declaration.unit
    )
    bounds = (*declaration.buckets, float("inf"))
    for labels in dict.fromkeys((*there, *(labels for labels, _ in values))):
        own = {float(bound): count for (of, bound), count in values.items() if of == labels and bound}
        buckets = [
            (_bound(bound), sum(count for at, count in own.items() if at <= bound)) for bound in bounds
        ]
        family.add_metric(labels, buckets, values.get((labels, ""), 0.0))
    return family


def _bound(bound: float) -> str:
    """A number as Prometheus writes it."""
    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]


def _family(declaration: Declaration, samples: Iterable[Sample]) -> Metric:
    if declaration.kind is Kind.HISTOGRAM:
        return _histogram(declaration, {}, ())
    kind = CounterMetricFamily if declaration.kind is Kind.COUNTER else GaugeMetricFamily
    family = kind(declaration.name, declaration.help, labels=declaration.labels, unit=declaration.unit)
    for labels, value in samples:
        family.add_metric(labels, float(value))
    return family
