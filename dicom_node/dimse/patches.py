"""Repairs of pynetdicom 3.0 that no subclass can make.

Applied once per process; for another version skipped with a warning.

what stock 3.0.4 does                                   what it does here
reads a PDU in pieces of 4 096 bytes                    reads it whole, into one buffer
believes any PDU length, up to 4 GiB                    aborts when it is longer than announced
waits for ever for the rest of a PDU (and so does        gives up after the network time-out of the
  everything that waits for its thread)                   association
copies the rest of a PDU at every partial send          sends it in slices, with the same time-out
leaves Nagle and delayed acknowledgement on             TCP_NODELAY, TCP_QUICKACK re-armed before each read
  (measured: 5.6 s for 100 x 0.5 MB)                      (0.8-0.9 s, no change at the peer)
lets its loop take the answer that a sender waits for    closes the gate first (then 0 of 519)
  (measured beside two busy threads: 14 of 303)
looks a thousand times a second, in two threads,         fifty times a second once it has been quiet for a
  whether there is something to do                        second (measured: 1.7 % of a core, then 0.3 %)
answers garbage after an abort with more aborts         drops it
leaves a socket open that the peer has reset            closes it
loses a thread to a malformed request and keeps the     ends the association
  connection, unwatched, for as long as the peer likes
logs PDUs, identifiers, values off the wire             logs none: any of them may hold a patient
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import pynetdicom
from pynetdicom import _config, evt
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.transport import AddressInformation, AssociationSocket

from dicom_node import log

SUPPORTED = "3.0."
#: largest PDU that is not P-DATA, in bytes: an A-ASSOCIATE-RQ with 128 contexts of 57 syntaxes is 0.3 MB
LARGEST_CONTROL_PDU = 1 << 20

_LOG = logging.getLogger(__name__)
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
_P_DATA = 0x04
# events of the state machine (PS3.8 table 9-10): transport connection closed; unrecognised or invalid PDU
_CLOSED, _INVALID = "Evt17", "Evt19"
_REFUSED = "_dicom_node_refused"
_PDU_KINDS = range(0x01, 0x08)
_POLL_S, _NAP_S, _QUIET_S, _GATE_S = 0.001, 0.02, 1.0, 0.1
_SEND_BYTES = 1 << 17
_DISCARD_BYTES = 1 << 16
_lock = threading.Lock()
_applied = False


def apply() -> bool:
    """Repair pynetdicom in this process; True when it is (or was already) repaired."""
    global _applied
    with _lock:
        if not _applied and pynetdicom.__version__.startswith(SUPPORTED):
            _replace()
            _applied = True
        elif not _applied:
            log.event(_LOG, "library-not-repaired", level=logging.WARNING, version=pynetdicom.__version__)
        return _applied


def _replace() -> None:
    for owner, name, repaired in _REPAIRS:
        setattr(owner, name, repaired)
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    # send_c_store(path) then sends the bytes of the file as they are, and never decodes them
    _config.STORE_SEND_CHUNKED_DATASET = True
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)


def send_at_once(sock: socket.socket) -> None:
    """Switch Nagle's algorithm off: a DIMSE response is two small writes."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def hang_up(association: Any) -> None:
    """Close the connection under an association; its threads notice and end. From any thread."""
    wrapper = association.dul.socket
    connection = None if wrapper is None else wrapper.socket
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def largest_pdu(association: Any, kind: int) -> int:
    """Bytes that a PDU of this kind may claim; for P-DATA what we announced (PS3.8 annex D.1)."""
    own = association.acceptor if association.is_acceptor else association.requestor
    announced = int(own.maximum_length or 0)
    return announced if kind == _P_DATA and announced else LARGEST_CONTROL_PDU


class _Gate(threading.Event):
    """The gate that an association's loop passes at every turn, and that a sender closes.

    The stock gate is an event: a loop that was just let through still runs, to the queue where the sender
    expects its answer, and now and then takes it; the sender then waits for ever. Here whoever closes the
    gate gets on only when the loop stands before it. Before an idle loop the gate naps.
    """

    def __init__(self, association: Any) -> None:
        super().__init__()
        self.set()
        self._association = association
        #: held by the loop from gate to gate
        self._through = threading.Lock()
        self._is_through = False

    def wait(self, timeout: float | None = None) -> bool:
        """Called by the loop only."""
        if self._is_through:
            self._is_through = False
            self._through.release()
        if _is_quiet(self._association.dul):
            time.sleep(_NAP_S)
        while super().wait(timeout):
            self._through.acquire()
            if self.is_set():
                self._is_through = True
                return True
            self._through.release()
        return False

    def clear(self) -> None:
        """Close, and wait until the loop has come to the gate or ended."""
        super().clear()
        loop = self._association
        while loop.is_alive() and loop is not threading.current_thread():
            if self._through.acquire(timeout=_GATE_S):
                self._through.release()
                return


def install_gate(association: Any) -> None:
    """Give an association a gate that works; to be called when EVT_ESTABLISHED is triggered."""
    if _applied:
        association._reactor_checkpoint = _Gate(association)


def _is_quiet(dul: Any) -> bool:
    last_read = dul._idle_timer._start_time
    return last_read is not None and time.time() - last_read > _QUIET_S


def _run_loop_delay(self: Any) -> float:
    return _NAP_S if _is_quiet(self) else _POLL_S


_stock_create_socket = AssociationSocket._create_socket


def _create_socket(self: Any, address: AddressInformation) -> socket.socket:
    sock: socket.socket = _stock_create_socket(self, address)
    send_at_once(sock)
    return sock


def _recv(self: Any, nr_bytes: int) -> bytearray:
    buffer = bytearray(nr_bytes)
    del buffer[_fill(self, memoryview(buffer)) :]
    return buffer


def _fill(self: Any, view: memoryview) -> int:
    """Read until `view` is full or the peer closes; the number of bytes read."""
    sock, patience = self.socket, self.assoc.network_timeout
    deadline = None if patience is None else time.monotonic() + patience
    done = 0
    with view:
        while done < len(view):
            if deadline is not None:
                sock.settimeout(max(deadline - time.monotonic(), 0.001))
            if _QUICKACK is not None:
                sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            with view[done:] as rest:
                count = sock.recv_into(rest)
            if not count:
                break
            done += count
    return done


def _read_pdu_data(self: Any) -> None:
    # Sta13 (PS3.8 table 9-10): our verdict is out and the peer is to hang up. What it still sends is dropped,
    # not answered, or every six bytes of garbage would earn it an A-ABORT. The mark holds until we get there.
    over = self.state_machine.current_state == "Sta13" or hasattr(self, _REFUSED)
    event = _discard(self) if over else _read_pdu(self)
    if event == _INVALID:
        setattr(self, _REFUSED, True)
    if event is not None:
        self.event_queue.put(event)


def _discard(self: Any) -> str | None:
    with contextlib.suppress(OSError):
        if self.socket.socket.recv(_DISCARD_BYTES):
            return None
    return _CLOSED


def _read_pdu(self: Any) -> str:
    """Read one PDU and name the event that it is (PS3.8 section 9.2.3)."""
    try:
        header = self.socket.recv(6)
        kind, length = struct.unpack(">BxL", header)
        if kind in _PDU_KINDS and length <= largest_pdu(self.assoc, kind):
            return _read_body(self, header, length)
    except (OSError, struct.error):
        return _CLOSED
    log.event(_LOG, "pdu-refused", level=logging.WARNING, reason=f"type-{kind}", bytes=length)
    return _INVALID


def _read_body(self: Any, header: bytearray, length: int) -> str:
    """Read and decode the rest of a PDU, queue it, and name the event that it is."""
    header += self.socket.recv(length)
    if len(header) != 6 + length:
        return _CLOSED
    try:
        pdu, event = self._decode_pdu(header)
    except Exception as error:
        log.event(_LOG, "pdu-refused", level=logging.WARNING, reason="undecodable", error=error)
        return _INVALID
    self._recv_pdu.put(pdu)
    return str(event)


def _send(self: Any, bytestream: bytes) -> None:
    try:
        self.socket.settimeout(self.assoc.network_timeout)
        with memoryview(bytestream) as view:
            for start in range(0, len(view), _SEND_BYTES):
                self.socket.sendall(view[start : start + _SEND_BYTES])
        evt.trigger(self.assoc, evt.EVT_DATA_SENT, {"data": bytestream})
    except (OSError, AttributeError):  # AttributeError: closed meanwhile, so there is no socket
        self.event_queue.put(_CLOSED)


def _shutdown_socket(self: Any) -> None:
    with contextlib.suppress(OSError, AttributeError):
        self.socket.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError, AttributeError):
        self.socket.close()


def _contained(run: Callable[[Any], None]) -> Callable[[Any], None]:
    """A thread's body whose fault ends its connection too, which nobody would watch over any more."""

    def contained(self: Any) -> None:
        try:
            run(self)
        except Exception as error:
            log.event(_LOG, "association-fault", level=logging.WARNING, error=error)
            association = self if isinstance(self, Association) else self.assoc
            association.dimse.msg_queue.put((None, None))  # whoever waits for an answer need wait no longer
            hang_up(association)

    return contained


_REPAIRS: tuple[tuple[type, str, Any], ...] = (
    (AssociationSocket, "recv", _recv),
    (AssociationSocket, "send", _send),
    (AssociationSocket, "_create_socket", _create_socket),
    (AssociationSocket, "_shutdown_socket", _shutdown_socket),
    (Association, "run_reactor", _contained(Association.run_reactor)),
    (DULServiceProvider, "run_reactor", _contained(DULServiceProvider.run_reactor)),
    (DULServiceProvider, "_read_pdu_data", _read_pdu_data),
    (DULServiceProvider, "_run_loop_delay", property(_run_loop_delay, lambda _self, _stock: None)),
)
