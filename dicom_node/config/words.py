"""The words that the file may hold where it offers a choice."""

from __future__ import annotations

import enum


class Role(enum.StrEnum):
    """What a route does to an instance."""

    PROTECT = "protect"  #: watermark it
    RECOVER = "recover"  #: remove the watermark and restore the original
    VERIFY = "verify"  #: judge it and pass it on unchanged
    #: hand it on unchanged
    PASS = "pass"  # noqa: S105


class OnUnprotectable(enum.StrEnum):
    """What happens to an image that has nothing to embed into."""

    HEADER = "header"  #: the sealed record travels in an encrypted private element
    WHOLE_IMAGE = "whole-image"  #: embed without a map, labelled as touching the whole image
    #: send it unprotected
    PASS = "pass"  # noqa: S105
    HOLD = "hold"  #: keep it until an operator decides
    REJECT = "reject"  #: drop it, keep the record


class CarrierName(enum.StrEnum):
    """How bits are put into pixels."""

    LATTICE = "lattice"  #: restored bit for bit
    DCT = "dct"  #: the paper's own method, restored approximately


class OnError(enum.StrEnum):
    """What happens to an instance whose processing failed."""

    HOLD = "hold"
    PASS = "pass"  # noqa: S105
    REJECT = "reject"


class Finding(enum.StrEnum):
    """What a reader says of what is not authentic: the words of `blessmark.types.Finding`, and two more."""

    HEADER_ALTERED = "header-altered"
    PIXELS_ALTERED = "pixels-altered"
    DAMAGED = "damaged"
    UNKNOWN_SEGMENTER = "unknown-segmenter"
    WRONG_KEY = "wrong-key"
    UNMARKED = "unmarked"
    OTHER = "other"  #: each of these that is not named
    NOT_JUDGED = "not-judged"  #: none of them: an object of a kind that holds no watermark


class OnFinding(enum.StrEnum):
    """What happens to an object that a reader did not find authentic."""

    HOLD = "hold"
    #: send it; restored where its pixels are proven, else as it came
    PASS = "pass"  # noqa: S105
    REJECT = "reject"


class Label(enum.StrEnum):
    """Which restored objects say that they were restored, beside those that differ from their original."""

    UNLESS_EXACT = "unless-exact"  #: none: not where every sample is proven
    UNLESS_IDENTICAL = "unless-identical"  #: those whose data set is not proven byte for byte
    ALWAYS = "always"


class Uids(enum.StrEnum):
    """What becomes of the UIDs of the objects of a route."""

    KEEP = "keep"  #: they stay; for a path on which the original goes no other way
    DERIVE = "derive"  #: new ones, the same wherever the key is; references follow


class Profile(enum.StrEnum):
    """How much of what identifies a patient is taken out of a header."""

    NONE = "none"
    BASIC = "basic"  #: Basic Application Level Confidentiality Profile, PS3.15 E.2


class Retain(enum.StrEnum):
    """Options of PS3.15 Annex E that leave something in a de-identified object."""

    UIDS = "uids"  #: E.3.9
    DEVICE = "device"  #: E.3.8
    INSTITUTION = "institution"  #: E.3.11
    PATIENT = "patient"  #: E.3.7, age, sex, size, weight ...


class Dates(enum.StrEnum):
    """What becomes of dates and times in a de-identified object (PS3.15 E.3.6)."""

    REMOVE = "remove"
    MODIFY = "modify"  #: moved back by a number of days that is the same for all objects of a patient
    RETAIN = "retain"


class Descriptors(enum.StrEnum):
    """What becomes of descriptions in a de-identified object (PS3.15 E.3.5)."""

    REMOVE = "remove"
    CLEAN = "clean"  #: the words that are terms of anatomy and imaging stay


class OnContent(enum.StrEnum):
    """What happens to an object whose content may identify the patient and cannot be cleaned."""

    HOLD = "hold"
    #: its header is de-identified, its content leaves as it is
    PASS = "pass"  # noqa: S105


class Transcode(enum.StrEnum):
    """What may be done to an object whose transfer syntax a destination does not take."""

    NEVER = "never"  #: nothing: it becomes a dead letter
    LOSSLESS = "lossless"  #: write the same samples and values in an uncompressed syntax that it takes


class Plain(enum.StrEnum):
    """The transfer syntaxes that an object may be converted to."""

    EXPLICIT = "explicit"  #: Explicit VR Little Endian
    IMPLICIT = "implicit"  #: Implicit VR Little Endian


class CalledAE(enum.StrEnum):
    """Which called AE titles an association may carry."""

    ANY = "any"
    OWN = "own"


class TlsProfile(enum.StrEnum):
    """Which protocols and cipher suites are offered (PS3.15 annex B)."""

    BCP195 = "bcp195"  #: B.12: TLS 1.2 and 1.3, the suites that RFC 9325 recommends
    MODIFIED = "modified"  #: B.13: the same and ChaCha20 and CCM suites


class TlsClients(enum.StrEnum):
    """What the TLS port asks of those who connect."""

    REQUIRED = "required"  #: a certificate that is believed
    OPTIONAL = "optional"  #: one that is shown must be believed; one need not be shown
    NONE = "none"  #: nothing: the connection is encrypted, nobody knows with whom


class Promise(enum.StrEnum):
    """When the node commits to an instance that a peer asks about (PS3.4 annex J)."""

    DELIVERED = "delivered"  #: once every mandatory destination has it
    SPOOLED = "spooled"  #: once it is here


class Engine(enum.StrEnum):
    """What evaluates the networks; every one gives the same integers."""

    AUTO = "auto"
    TENSORFLOW = "tensorflow"
    JAX = "jax"
    TORCH = "torch"
    NUMPY = "numpy"


class Device(enum.StrEnum):
    """Where the networks are evaluated."""

    AUTO = "auto"
    CPU = "cpu"
    GPU = "gpu"


class BatcherKind(enum.StrEnum):
    """Who evaluates the networks."""

    AUTO = "auto"  #: a process where a GPU is to be used, else none
    PROCESS = "process"  #: one process for all workers
    NONE = "none"  #: every worker for itself


class LogFormat(enum.StrEnum):
    TEXT = "text"
    JSON = "json"


class LogLevel(enum.StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class AuditTransport(enum.StrEnum):
    """How audit messages travel."""

    TLS = "tls"  #: RFC 5425
    TCP = "tcp"  #: the same in the clear
    UDP = "udp"  #: RFC 5426: in the clear, and nobody knows whether they arrive


class AuditPatient(enum.StrEnum):
    """How audit messages name a patient."""

    NONE = "none"  #: not at all; the study is named by its UID
    HASH = "hash"  #: by a number that means nothing elsewhere, the same in all messages about a patient
    ID = "id"  #: by the Patient ID


class Retrieve(enum.StrEnum):
    """How objects are fetched from an archive."""

    GET = "get"
    MOVE = "move"


class RetrieveLevel(enum.StrEnum):
    """What one request to an archive fetches."""

    STUDY = "study"
    SERIES = "series"
    IMAGE = "image"


class ClusterPart(enum.StrEnum):
    """What a machine of a cluster does."""

    RECEIVE = "receive"  #: takes associations and keeps what arrives
    WORK = "work"  #: protects, verifies and recovers
    FORWARD = "forward"  #: sends to destinations
    #: housekeeping, storage commitment, audit trail, reconciling: one machine at a time does it
    LEAD = "lead"


class BlobKind(enum.StrEnum):
    """What keeps the bytes of objects for a cluster."""

    DIRECTORY = "directory"  #: a folder on a file system that all machines mount
    S3 = "s3"  #: a bucket
