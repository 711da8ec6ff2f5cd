"""One object on its way from the wire into the spool, and everything that it may be refused for.

Rules that bind here:
1. What the command alone rules out is read and dropped; nothing is written.
2. Bytes go into the spool as they come, so an object of any size takes the memory of one PDU.
3. Whatever goes wrong on the way becomes a status. The rest of the object is read and dropped, so that the
   sender hears the status instead of losing its association.
4. A reception that was not kept leaves nothing, whichever thread ends first.
"""

from __future__ import annotations

import logging
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from dicom_node import log
from dicom_node.dimse import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.dimse.contexts import LONGEST_UID, STORAGE_CLASSES, is_uid
from dicom_node.dimse.structure import Found, StructureWalk
from dicom_node.errors import DataSetError, InputError, NodeError
from dicom_node.jobs import Arrival
from dicom_node.spool import Blob, Writer

Result = TypeVar("Result")

_LOG = logging.getLogger(__name__)
#: bytes after which a growing object has to show again that there is room for it
_ROOM_BYTES = 16_000_000


@dataclass(frozen=True, slots=True)
class Refusal:
    """A C-STORE status other than success, and why: at most 64 characters, longer comments break peers."""

    status: int
    comment: str


BAD_UID = Refusal(0x0117, "the SOP Instance UID breaks the rules for UIDs")
OTHER_CONTEXT = Refusal(0x0122, "the SOP class is not that of the presentation context")
NO_ROOM = Refusal(0xA700, "out of resources; send it again later")
OTHER_CLASS = Refusal(0xA900, "the SOP Class UID in the data set is another")
OTHER_INSTANCE = Refusal(0xA900, "the SOP Instance UID in the data set is another")
NO_DATA_SET = Refusal(0xC000, "the request has no data set")
NO_CLASS = Refusal(0xC000, "the data set has no SOP Class UID")
NO_INSTANCE = Refusal(0xC000, "the data set has no SOP Instance UID")
BROKEN = Refusal(0xC000, "the data set is cut off or not in its transfer syntax")
CANNOT = Refusal(0xC000, "cannot process; see the log of the node")

#: everything that a C-STORE may be answered with besides success
REFUSALS = (
    BAD_UID,
    OTHER_CONTEXT,
    NO_ROOM,
    OTHER_CLASS,
    OTHER_INSTANCE,
    NO_DATA_SET,
    NO_CLASS,
    NO_INSTANCE,
    BROKEN,
    CANNOT,
)


def command_refusal(arrival: Arrival, negotiated_class: str) -> Refusal | None:
    """Why a C-STORE request cannot be kept whatever its data set is, or None."""
    if not is_uid(arrival.sop_instance_uid):
        return BAD_UID
    if arrival.sop_class_uid != negotiated_class:
        return OTHER_CONTEXT
    return None


def data_set_refusal(arrival: Arrival, found: Found) -> Refusal | None:
    """Why a data set does not go with its command (PS3.4 table B.2-1), or None.

    A private or unregistered class may leave the UIDs out of its data set; a standard one may not. Of a UID
    that is too long the command has the first 64 characters, as DCMTK sends it.
    """
    if arrival.sop_class_uid in STORAGE_CLASSES and not found.sop_class_uid:
        return NO_CLASS
    if arrival.sop_class_uid in STORAGE_CLASSES and not found.sop_instance_uid:
        return NO_INSTANCE
    if found.sop_class_uid not in ("", arrival.sop_class_uid):
        return OTHER_CLASS
    instance = found.sop_instance_uid
    if len(arrival.sop_instance_uid) == LONGEST_UID:
        instance = instance[:LONGEST_UID]
    if instance not in ("", arrival.sop_instance_uid):
        return OTHER_INSTANCE
    return None


def error_refusal(error: Exception) -> Refusal:
    """The answer to something that went wrong; what exactly is for the log, not for the peer."""
    if isinstance(error, DataSetError):
        return BROKEN
    if isinstance(error, NodeError) and error.dimse_status == NO_ROOM.status:
        return NO_ROOM
    return CANNOT


def part10_head(arrival: Arrival) -> bytes:
    """Preamble and file meta information (PS3.10 section 7.1) of what arrived.

    The same object gives the same bytes whenever and from whomever it comes, so that the hash of the file
    tells whether it came before: no time, no AE title, no version of this software.
    """
    elements = b"".join(
        (
            _element(0x0001, b"OB\0\0", b"\0\1"),
            _element(0x0002, b"UI", _uid(arrival.sop_class_uid)),
            _element(0x0003, b"UI", _uid(arrival.sop_instance_uid)),
            _element(0x0010, b"UI", _uid(arrival.transfer_syntax_uid)),
            _element(0x0012, b"UI", _uid(IMPLEMENTATION_CLASS_UID)),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode()),
        )
    )
    return bytes(128) + b"DICM" + _element(0x0000, b"UL", struct.pack("<I", len(elements))) + elements


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    """An element of group 0002, Explicit VR Little Endian; a VR of four bytes has a long length field."""
    value += b" " * (len(value) % 2) if vr == b"SH" else b"\0" * (len(value) % 2)
    return (
        struct.pack("<HH", 0x0002, number)
        + vr
        + struct.pack("<I" if len(vr) == 4 else "<H", len(value))
        + value
    )


def _uid(uid: str) -> bytes:
    return uid.encode("ascii")


class Room(Protocol):
    """Where an object goes: the spool of a node, or the folder of who asked an archive for it."""

    def check_room(self) -> None:
        """Raise when there is none, now that the object begins or has grown."""

    def writer(self) -> Writer:
        """The file that it is written into."""


class Reception:
    """An object that is arriving: written to by the thread that reads, ended by the one that answers.

    Parameters
    ----------
    arrival : what its command says
    negotiated_class : the SOP class of the presentation context it comes in
    spool : where its bytes go
    """

    def __init__(self, arrival: Arrival, negotiated_class: str, spool: Room) -> None:
        self.arrival = arrival
        self.negotiated_class = negotiated_class
        self.started = time.monotonic()
        #: bytes of its data set so far
        self.size = 0
        self.refused = command_refusal(arrival, negotiated_class)
        self._spool = spool
        self._walk = StructureWalk(arrival.transfer_syntax_uid)
        self._writer: Writer | None = None
        self._room_until = _ROOM_BYTES
        if self.refused is None:
            self._attempt(self._open)

    def write(self, data: memoryview) -> None:
        """Take the next piece of the data set; never raises."""
        self.size += len(data)
        if self.refused is None:
            self._attempt(lambda: self._take(data))

    def finish(self) -> Blob | Refusal:
        """Judge the object now that it is here, and keep it in the spool or say why not; never raises."""
        blob = self._attempt(self._keep) if self.refused is None else None
        self.discard()
        return blob or self.refused or CANNOT

    def discard(self) -> None:
        """Leave nothing of an object that was not kept."""
        if self._writer is not None:
            self._writer.discard()

    def _open(self) -> None:
        self._spool.check_room()
        self._writer = self._spool.writer()
        self._writer.write(part10_head(self.arrival))

    def _take(self, data: memoryview) -> None:
        assert self._writer is not None
        if self.size > self._room_until:
            self._room_until += _ROOM_BYTES
            self._spool.check_room()
        self._walk.feed(data)
        self._writer.write(data)

    def _keep(self) -> Blob | None:
        assert self._writer is not None
        found = self._walk.close() if self.size else None
        self.refused = NO_DATA_SET if found is None else data_set_refusal(self.arrival, found)
        return self._writer.keep() if self.refused is None else None

    def _attempt(self, step: Callable[[], Result]) -> Result | None:
        """The result of a step; whatever goes wrong in it becomes the refusal."""
        try:
            return step()
        except Exception as error:
            self.refused = error_refusal(error)
            log.event(_LOG, "not-kept", level=_level(error), error=error)
            self.discard()
            return None


class Intake:
    """The receptions of one association; where two threads read and answer, between them.

    A reception belongs to the reading thread until it is complete, then to whoever takes it: nobody closes a
    file that another thread may be writing to.

    Parameters
    ----------
    start : makes a reception of the SOP class and instance in a command, and of its presentation context
    ended : called when the association has ended, however it did
    """

    def __init__(
        self, start: Callable[[str, str, int], Reception], ended: Callable[[], object] = lambda: None
    ) -> None:
        self.begin = start
        self._ended = ended
        self._lock = threading.Lock()
        self._waiting: set[Reception] = set()
        self._answering = True

    def complete(self, reception: Reception) -> None:
        """The last piece is here; called by the reading thread."""
        with self._lock:
            if self._answering:
                self._waiting.add(reception)
                return
        reception.discard()

    def take(self, reception: Reception) -> None:
        """The caller, the answering thread, will finish `reception`."""
        with self._lock:
            self._waiting.discard(reception)

    def answering_ended(self) -> None:
        """Nobody will answer any more: what is complete goes, and so does what is yet to be."""
        with self._lock:
            self._answering = False
            left, self._waiting = self._waiting, set()
        for reception in left:
            reception.discard()
        self._ended()


def _level(error: Exception) -> int:
    """How loud: a peer's slip, trouble with our own disk, or a fault of ours."""
    if isinstance(error, InputError):
        return logging.WARNING
    return logging.ERROR if isinstance(error, NodeError) else logging.CRITICAL
