"""Every metric, declared once: its name, how it moves, its labels, what it says.

The ledger is the only memory. What is counted is written there, with the step that it counts where that is
durable, so counters survive a crash, count every process and never fall: not when history is purged either.
A label has a value that the configuration names or one of a closed list; what a peer sends is never one.
`exporter` fills what is declared here, and `make docs` writes docs/metrics.md from it.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass


class Kind(enum.StrEnum):
    """How a figure moves."""

    COUNTER = "counter"  #: only up; exported with `_total`
    GAUGE = "gauge"  #: up and down
    HISTOGRAM = "histogram"  #: how often a value was at most so much; only up


@dataclass(frozen=True, slots=True)
class Declaration:
    """One metric: its exported name without `_total`, how it moves, its unit, its labels, what it says.

    `buckets` are the upper bounds of a histogram, infinity left out.
    """

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """Something that happened: what it adds to a counter, or one value for a histogram."""

    metric: Declaration
    labels: tuple[str, ...] = ()
    value: float = 1.0

    @property
    def bound(self) -> str:
        """The upper bound of the bucket that the value is in, as text; "" for a counter."""
        if self.metric.kind is not Kind.HISTOGRAM:
            return ""
        return str(next((bound for bound in self.metric.buckets if self.value <= bound), math.inf))


#: a peer that no route and no requester names; a modality that is none of `MODALITIES`; one that nobody read
OTHER, UNKNOWN = "other", "unknown"

#: what happens to an object, in the order in which it does; each without what stands beside it here
STAGES = ("receive", "spool", "decode", "segment", "embed", "extract", "encode", "send")

_TERMS = (
    "ANN AR ASMT AU BDUS BI BMD CFM CR CT CTPROTOCOL DG DMS DOC DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL"
    " IVOCT IVUS KER KO LEN LS MG MR M3D NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX"
    " REG RESP RF RG RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF"
    " STAIN TEXTUREMAP TG US VA XA XAPROTOCOL XC"
)
#: PS3.3 section C.7.3.1.1.1, the defined terms that are not retired
MODALITIES = frozenset(_TERMS.split())


def modality_label(modality: str) -> str:
    """A modality as it is counted: a defined term of PS3.3, `other`, or `unknown` for none."""
    word = modality.strip(" \0")
    return (word if word in MODALITIES else OTHER) if word else UNKNOWN


_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_DELAYS = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0, 604800.0)
_ROOM = (32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 65536.0)
_DECIBELS = (30.0, 35.0, 40.0, 45.0, 50.0, 55.0, 60.0, 65.0, 70.0, 75.0, 80.0, 85.0, 90.0, 100.0)

_FRAMES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)

# ---- receiving ----

ASSOCIATIONS = Declaration(
    "dicom_node_associations",
    Kind.COUNTER,
    "",
    ("peer", "result", "reason"),
    "Associations that peers asked for: accepted, or rejected with a reason; and how the accepted ones "
    "ended: released or aborted.",
)
STORES = Declaration(
    "dicom_node_store_requests",
    Kind.COUNTER,
    "",
    ("peer", "status"),
    "C-STORE requests of peers, by the status that they were answered with, 4 hex digits.",
)
RECEIVED_BYTES = Declaration(
    "dicom_node_received_bytes",
    Kind.COUNTER,
    "bytes",
    ("peer",),
    "Bytes of the objects that were received and acknowledged, those that were here already included.",
)
OCCURRENCES = Declaration(
    "dicom_node_security_occurrences",
    Kind.COUNTER,
    "",
    ("event", "reason"),
    "Peers that were not let in or not trusted: associations rejected, handshakes that failed.",
)
OPEN_ASSOCIATIONS = Declaration(
    "dicom_node_open_associations", Kind.GAUGE, "", (), "Associations with peers at this moment."
)

RECEIVERS = Declaration(
    "dicom_node_receivers",
    Kind.GAUGE,
    "",
    ("state",),
    "Processes that receive: configured, and running (accepting associations).",
)
RECEIVER_RESTARTS = Declaration(
    "dicom_node_receiver_restarts",
    Kind.COUNTER,
    "",
    (),
    "Receiver processes that died, hung or could not take up a configuration, and were replaced.",
)
RECEIVER_MEMORY = Declaration(
    "dicom_node_receiver_resident_memory_bytes",
    Kind.GAUGE,
    "bytes",
    ("receiver",),
    "Memory of a receiver process; absent where the main process receives.",
)
RECEIVER_CPU = Declaration(
    "dicom_node_receiver_cpu_seconds",
    Kind.COUNTER,
    "seconds",
    ("receiver",),
    "User and system CPU time of a receiver process; begins anew with every process.",
)

# ---- processing ----

PROCESSED = Declaration(
    "dicom_node_processed_instances",
    Kind.COUNTER,
    "",
    ("modality", "result"),
    "Instances that workers have finished, or that needed none, by Modality (unknown where nobody read it) "
    "and by what became of them.",
)
UNPROTECTED = Declaration(
    "dicom_node_unprotected_instances",
    Kind.COUNTER,
    "",
    ("reason",),
    "Instances of protecting routes that got no watermark, by the reason; what had one is not counted.",
)
STAGE_SECONDS = Declaration(
    "dicom_node_stage_seconds",
    Kind.HISTOGRAM,
    "seconds",
    ("stage",),
    "Time that one object took in a stage, other stages within it left out.",
    _SECONDS,
)
CAPACITY = Declaration(
    "dicom_node_embedding_capacity_bytes",
    Kind.HISTOGRAM,
    "bytes",
    (),
    "Room that a frame offered to its record.",
    _ROOM,
)
PSNR = Declaration(
    "dicom_node_embedding_psnr_decibels",
    Kind.HISTOGRAM,
    "decibels",
    (),
    "How near a marked frame is to the original; frames of which no sample changed are not counted.",
    _DECIBELS,
)
BATCH_FRAMES = Declaration(
    "dicom_node_network_batch_frames",
    Kind.HISTOGRAM,
    "",
    (),
    "Frames that went through a network together, of each request to the batcher.",
    _FRAMES,
)
BATCH_WAIT = Declaration(
    "dicom_node_network_batch_wait_seconds",
    Kind.HISTOGRAM,
    "seconds",
    (),
    "Time that a request to the batcher waited for others and for its turn.",
    _SECONDS,
)
BATCH_SELF = Declaration(
    "dicom_node_network_batcher_misses",
    Kind.COUNTER,
    "",
    (),
    "Requests that a worker evaluated by itself, because the batcher did not answer.",
)
DELIVERY_DELAY = Declaration(
    "dicom_node_delivery_delay_seconds",
    Kind.HISTOGRAM,
    "seconds",
    ("destination",),
    "Time from when an object was ready for its destination until it had been delivered.",
    _DELAYS,
)

# ---- where everything is ----

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
    "Attempts to deliver, successful or not, by the destination that they were for.",
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
SPOOL_BYTES = Declaration(
    "dicom_node_spool_bytes",
    Kind.GAUGE,
    "bytes",
    (),
    "Bytes of all kept objects, as they were found a moment ago: minutes where there are millions.",
)
SPOOL_FREE = Declaration(
    "dicom_node_spool_free_bytes",
    Kind.GAUGE,
    "bytes",
    (),
    "Bytes free on the file system of the spool.",
)
SPOOL_RESERVE = Declaration(
    "dicom_node_spool_reserve_bytes",
    Kind.GAUGE,
    "bytes",
    (),
    "`storage.reserve_mb`: with less free, objects are answered A700.",
)

# ---- the node itself ----

WORKERS = Declaration(
    "dicom_node_workers",
    Kind.GAUGE,
    "",
    ("state",),
    "Worker processes: configured, running, and ready (with everything loaded that they need).",
)
WORKER_MEMORY = Declaration(
    "dicom_node_worker_resident_memory_bytes",
    Kind.GAUGE,
    "bytes",
    ("worker",),
    "Memory of a worker process; that of the main process is process_resident_memory_bytes.",
)
WORKER_CPU = Declaration(
    "dicom_node_worker_cpu_seconds",
    Kind.COUNTER,
    "seconds",
    ("worker",),
    "User and system CPU time of a worker process; begins anew with every process.",
)
PROBLEM = Declaration(
    "dicom_node_problem",
    Kind.GAUGE,
    "",
    ("problem",),
    "1 for each thing that keeps the node from doing its work, as /readyz names it; 0 otherwise.",
)
KEY_CREATED = Declaration(
    "dicom_node_key_created_timestamp_seconds",
    Kind.GAUGE,
    "seconds",
    ("key",),
    "When the key that new watermarks are written with was made.",
)
CERTIFICATE_END = Declaration(
    "dicom_node_certificate_end_timestamp_seconds",
    Kind.GAUGE,
    "seconds",
    ("file",),
    "When the first certificate or list in `tls.certificate`, `tls.ca` or `tls.crl` runs out.",
)
AUDIT_WAITING = Declaration(
    "dicom_node_audit_messages_waiting",
    Kind.GAUGE,
    "",
    (),
    "Messages of the audit trail that the repository has not taken yet; absent without an audit trail.",
)
AUDIT_LOST = Declaration(
    "dicom_node_audit_events_lost",
    Kind.GAUGE,
    "",
    (),
    "Events that the audit trail could not be told, until a message in it says so; absent without one.",
)
RELOADED = Declaration(
    "dicom_node_config_last_reload_successful",
    Kind.GAUGE,
    "",
    (),
    "1 if the last reload of the configuration was taken up, or none was asked for; 0 if it was refused.",
)
CONFIGURED_AT = Declaration(
    "dicom_node_config_last_reload_success_timestamp_seconds",
    Kind.GAUGE,
    "seconds",
    (),
    "When a configuration was last taken up, seconds since 1970-01-01 UTC.",
)
RINGS_LOST = Declaration(
    "dicom_node_rings_lost",
    Kind.COUNTER,
    "",
    (),
    "Rings for other machines of a cluster that its broker did not take. Nothing is lost by it: who would "
    "have been woken looks into the ledger within a second.",
)
BROKER = Declaration(
    "dicom_node_broker_connected",
    Kind.GAUGE,
    "",
    (),
    "1 while the broker of the cluster is heard and takes messages; absent without one.",
)
LEADING = Declaration(
    "dicom_node_leading",
    Kind.GAUGE,
    "",
    (),
    "1 on the machine of a cluster that leads, whose page alone shows what the common ledger knows; 0 on "
    "those that would; absent elsewhere.",
)
BUILD = Declaration(
    "dicom_node_build_info", Kind.GAUGE, "", ("version", "python"), "1, with what this node runs."
)

#: written to the ledger by `Reading`s; the rest is read from where it is
COUNTED = (
    ASSOCIATIONS,
    OCCURRENCES,
    RECEIVER_RESTARTS,
    STORES,
    RECEIVED_BYTES,
    REPEATS,
    CONFLICTS,
    PROCESSED,
    UNPROTECTED,
    VERDICTS,
    LOST,
    STAGE_SECONDS,
    CAPACITY,
    PSNR,
    BATCH_FRAMES,
    BATCH_WAIT,
    BATCH_SELF,
    ATTEMPTS,
    RESULTS,
    DELIVERY_DELAY,
    RINGS_LOST,
)
#: what the ledger is asked for when somebody scrapes
KEPT = (
    INSTANCES,
    UNPROCESSED_OLDEST,
    DELIVERIES,
    QUEUE_OLDEST,
    DOWN,
    PAUSED,
    COMMITMENTS,
    COMMITMENTS_OLDEST,
    PROMISES,
    PROMISES_OLDEST,
)
#: what the living parts of the node are asked for
LIVE = (
    OPEN_ASSOCIATIONS,
    RECEIVERS,
    RECEIVER_MEMORY,
    RECEIVER_CPU,
    CLOSED,
    FAILED_OVER,
    SPOOL_BYTES,
    SPOOL_FREE,
    SPOOL_RESERVE,
    WORKERS,
    WORKER_MEMORY,
    WORKER_CPU,
    NETWORK_WORKERS,
    KEY_CREATED,
    CERTIFICATE_END,
    PROBLEM,
    AUDIT_WAITING,
    AUDIT_LOST,
    RELOADED,
    CONFIGURED_AT,
    BROKER,
    LEADING,
    BUILD,
)
DECLARATIONS = (*COUNTED, *KEPT, *LIVE)


@dataclass(frozen=True, slots=True)
class InstanceTally:
    """How many instances are in a state with a result and reason."""

    state: str
    result: str
    reason: str
    count: int


@dataclass(frozen=True, slots=True)
class DeliveryTally:
    """How many deliveries to a destination are in a state."""

    destination: str
    state: str
    count: int


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted of a metric under some labels: a counter, the sum of a histogram, or one bucket of it.

    `bound` is the upper bound of a bucket, by itself and not of those below; "" for counters and sums.
    """

    metric: str
    labels: tuple[str, ...]
    bound: str
    value: float


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
    #: everything that was ever counted
    counted: tuple[Counted, ...] = ()
    #: destinations that an operator has paused
    paused: tuple[str, ...] = ()
    commitments: tuple[CommitmentTally, ...] = ()
    commitment_ages: tuple[QueueAge, ...] = ()
    promises: tuple[PromiseTally, ...] = ()
    #: age of the oldest request for storage commitment whose answer has not been taken, seconds
    oldest_promise_s: float = 0.0

    def total(self, metric: Declaration, *labels: str) -> float:
        """What a counter stands at, or the number of values of a histogram, over all labels that begin so."""
        return sum(
            each.value
            for each in self.counted
            if each.metric == metric.name
            and each.labels[: len(labels)] == labels
            and bool(each.bound) is (metric.kind is Kind.HISTOGRAM)
        )


@dataclass(frozen=True, slots=True)
class NetworkRun:
    """What a worker runs a network on, and how its self-test ended (`blessmark.segment.engine.Outcome`)."""

    network: str
    engine: str
    outcome: str
