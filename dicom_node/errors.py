"""Everything the node can raise, with what each means to an operator, a peer and the retry policy.

    NodeError                exit 1
    ├── UsageError           exit 2      the command line is wrong
    ├── ConfigError          exit 1      the configuration cannot be used; carries every problem at once
    ├── ReloadError          exit 1      a running node cannot take up a configuration; the old one stays
    ├── InputError           exit 1      a file or data set cannot be used (truncated, not DICOM, ...)   C000
    │   └── DataSetError     exit 1      a data set on its way in is cut off, or not in its syntax       C000
    ├── OutputError          exit 1      a result cannot be written
    ├── KeyFileError         exit 1      the key ring cannot be read, or is readable by others
    ├── TlsError             exit 1      certificates, keys or lists for TLS cannot be used
    ├── SpoolFull            exit 1      no room to keep another object                                  A700
    ├── SpoolError           exit 1      the spool cannot be written or read                             A700
    │   └── BlobsUnavailable exit 1      the shared store of objects does not answer; later it may       A700
    ├── LedgerError          exit 1      the ledger refuses                                              A700
    │   ├── LedgerUnavailable exit 1     the database refuses now (full disk, lock); the same again may work
    │   │   └── LedgerCollision exit 1   another write was in the way; the ledger itself tries some times
    │   └── StaleLease       exit 1      somebody else holds this job now; drop the result
    ├── AuditError           exit 1      the audit trail cannot be written or read
    │   └── AuditFull        exit 1      so many audit messages wait that no more are taken
    ├── BrokerError          exit 1      the broker of a cluster cannot be used
    ├── IllegalTransition    exit 1      a job was asked to move where its table does not lead
    ├── ConversionError      exit 1      an object cannot be put into another transfer syntax
    └── PeerError            exit 1      a peer refused, failed or vanished; `retryable` tells which

A finding ("tampered", "wrong key", "no watermark") is a value (`blessmark.Verdict`), never an exception;
commands that report findings exit with 3. No message names a patient.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_DONE = 0
EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_FINDING = 3


class NodeError(Exception):
    """Root of the node's errors; the message says what happened, to what, and what to do next."""

    exit_code: ClassVar[int] = EXIT_ERROR
    #: C-STORE status that answers this error (PS3.4 Table B.2-1)
    dimse_status: ClassVar[int] = 0xC000
    retryable: bool = False


class UsageError(NodeError):
    """The command line is wrong."""

    exit_code = EXIT_USAGE


class ConfigError(NodeError):
    """The configuration cannot be used; `problems` lists every one with file, line and remedy."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class ReloadError(NodeError):
    """A configuration cannot be taken up by the running node, which goes on with the one before."""


class InputError(NodeError):
    """A file or data set cannot be used."""


class DataSetError(InputError):
    """A data set on its way in is not whole, or not what its transfer syntax says.

    `reason` is a bounded word; `position` counts bytes from the start of the data set.
    """

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(f"the data set is broken at byte {position}: {reason}; send the object again")
        self.reason = reason
        self.position = position


class OutputError(NodeError):
    """A result cannot be written."""


class KeyFileError(NodeError):
    """The key ring cannot be read, or others can read it."""


class TlsError(NodeError):
    """Certificates, keys or revocation lists for TLS cannot be used."""


class SpoolFull(NodeError):  # noqa: N818 - the name a reader of the ledger sees
    """No room to keep another object; the sender should try again later."""

    dimse_status = 0xA700
    retryable = True


class SpoolError(NodeError):
    """The spool cannot be written or read."""

    dimse_status = 0xA700
    retryable = True


class BlobsUnavailable(SpoolError):  # noqa: N818
    """The store of objects that machines share does not answer, or refuses; the same may work later."""


class LedgerError(NodeError):
    """The ledger refuses."""

    dimse_status = 0xA700
    retryable = True


class LedgerUnavailable(LedgerError):  # noqa: N818
    """The database refuses now; the same write again may work."""


class LedgerCollision(LedgerUnavailable):
    """Another write was in the way; the ledger itself tries some times before anybody hears of it."""


class StaleLease(LedgerError):  # noqa: N818
    """Somebody else holds this job now; the result must be dropped."""


class BrokerError(NodeError):
    """The broker of a cluster is not reached, does not let the node in, or has queues of another kind."""


class AuditError(NodeError):
    """The audit trail cannot be written or read."""


class AuditFull(AuditError):  # noqa: N818
    """So many audit messages wait for their repository, or the disk is so short, that no more are taken."""


class IllegalTransition(NodeError):  # noqa: N818
    """A job was asked to move where its table does not lead."""


class ConversionError(NodeError):
    """An object cannot be put into another transfer syntax; `reason` is a bounded word."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class PeerError(NodeError):
    """A peer refused, failed or vanished; `reason` is a bounded word for the ledger and the metrics."""

    def __init__(
        self, message: str, *, status: int | None = None, retryable: bool = True, reason: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retryable = retryable
        self.reason = reason
