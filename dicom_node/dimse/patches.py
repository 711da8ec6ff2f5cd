"""Repairs of pynetdicom 3.0 that no subclass can make.

Applied once per process; for another version skipped with a warning.

what stock 3.0.4 does                                   what it does here
reads a PDU in pieces of 4 096 bytes                    reads it whole, into one buffer; from who sends
                                                          objects, what is there in one go (see `inbox`)
believes any PDU length, up to 4 GiB                    aborts when it is longer than announced
waits for ever for the rest of a PDU (and so does        gives up after the network time-out of the
  everything that waits for its thread)                   association
copies the rest of a PDU at every partial send          sends it in slices, with the same time-out
keeps an object in memory, copied six times, or in a     hands its pieces to a `Sink` as they come, without
  file of its own choosing, which an abort leaves there    a copy
ends the association when that file cannot be written,   lets the sink decide
  or a UID is too long
believes any length of a command set or identifier       ends the association beyond a limit
reads on while requests wait for their answer            leaves further requests in the network, but for the
                                                          first kilobytes of the next
waits as long for the rest of an object as between two   has a limit for either; an object has to arrive at
  objects, and for ever if it comes in crumbs              a least speed
leaves Nagle and delayed acknowledgement on             TCP_NODELAY, TCP_QUICKACK re-armed before each read
  (measured: 5.6 s for 100 x 0.5 MB)                      (0.8-0.9 s, no change at the peer)
lets its loop take the answer that a sender waits for    closes the gate first (then 0 of 519)
  (measured beside two busy threads: 14 of 303)
hands an answer through two threads that look for it a   lets the thread that sends have the connection for
  thousand times a second                                  itself
looks a thousand times a second, in two threads,         fifty times a second once it has been quiet for a
  whether there is something to do                        second (measured: 1.7 % of a core, then 0.3 %);
                                                          waits until there is, where answers are direct
hands a C-STORE request to another thread, and its       reads, keeps and answers it in one (see `direct`)
  answer back
answers garbage after an abort with more aborts         drops it
leaves a socket open that the peer has reset            closes it
ends every association when the clock is put forward,   has timers that nobody sets
  and no idle one for as long as it was put back
takes a timer that ran out just before it was stopped    has only timers run out that run: whose request came
  for one that runs out, again and again                   in the same moment is let in
takes what TLS says to itself for data, and waits for    asks whether there is data
  the data (session tickets after a handshake)
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import pynetdicom
from pynetdicom import _config, evt, timer
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import _MESSAGE_TYPES, DIMSEMessage
from pynetdicom.dsutils import decode
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AddressInformation, AssociationSocket

from dicom_node import log
from dicom_node.dimse.direct import Answer, Inflow, Line
from dicom_node.dimse.inbox import HEADER
from dicom_node.dimse.tls_socket import TlsSocket

SUPPORTED = "3.0."
#: largest PDU that is not P-DATA, in bytes: an A-ASSOCIATE-RQ with 128 contexts of 57 syntaxes is 0.3 MB
LARGEST_CONTROL_PDU = 1 << 20

#: largest command set; one of a C-STORE is 0.2 kB
LARGEST_COMMAND = 1 << 16
#: largest data set kept in memory, of any request but C-STORE: a Storage Commitment of 500 000 instances
LARGEST_IDENTIFIER = 1 << 26
#: a peer that sends an object slower than this is given up, bytes per second
SLOWEST_BYTES_S = 1 << 10

_LOG = logging.getLogger(__name__)
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
_P_DATA = 0x04
# events of the state machine (PS3.8 table 9-10): P-DATA came; transport connection closed; invalid PDU
_DATA_CAME, _CLOSED, _INVALID = "Evt10", "Evt17", "Evt19"
# the state in which data is exchanged
_OPEN = "Sta6"
_LONGEST_UID, _NO_UID = 64, "0"
_C_STORE_RQ, _NO_DATA_SET = 0x0001, 0x0101
_REFUSED = "_dicom_node_refused"
_CONDUCT = "_dicom_node_conduct"
_READER_GATE = "_dicom_node_gate"
_PDU_KINDS = range(0x01, 0x08)
#: length and context id of a fragment
_VALUE = struct.Struct(">LB")
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


class Sink(Protocol):
    """Where the data sets of an association's C-STORE requests go instead of into memory."""

    def begin(self, sop_class_uid: str, sop_instance_uid: str, context_id: int) -> Inflow:
        """A command set is here, and its data set follows; an exception ends the association."""

    def complete(self, inflow: Any) -> None:
        """The last piece is here; the request is about to be handed to its handler."""

    def take(self, inflow: Any) -> None:
        """The handler has it."""

    def answering_ended(self) -> None:
        """No handler will be called any more."""


@dataclass(slots=True)
class _Conduct:
    """How an association is to behave, and what it has in hand."""

    sink: Sink
    stall_s: float
    #: of the message that is arriving: when it began, when its last piece came, how many bytes there were
    began: float = 0.0
    last: float = 0.0
    received: int = 0
    inflow: Inflow | None = field(default=None)
    direct: Line | None = None

    def note(self, count: int, *, anew: bool) -> None:
        """So many bytes of a message came; `anew` if they are its first."""
        self.last = time.monotonic()
        if anew:
            self.began, self.received = self.last, 0
        self.received += count

    def overdue(self, now: float) -> bool:
        """Whether the message that is arriving takes too long."""
        pause, whole = now - self.last, now - self.began
        return pause > self.stall_s or whole > self.stall_s + self.received / SLOWEST_BYTES_S


def conduct(association: Any, sink: Sink, stall_s: float, answer: Answer | None = None) -> None:
    """Have the data sets of an accepted association go to `sink`; call it before the association is accepted.

    `stall_s` is for how many seconds a PDU may take, an object may pause, and an answer wait to be taken.
    With `answer`, requests are answered by the thread that reads, instead of by a handler of EVT_C_STORE; one
    that is out of the ordinary is not, so there must be such a handler too.
    """
    if _applied:
        own = _Conduct(sink, stall_s)
        if answer is not None:
            own.direct = Line(association, sink.begin, answer)
        setattr(association, _CONDUCT, own)


def is_receiving(association: Any) -> bool:
    """Whether a message is on its way in, or waits for its answer."""
    own = _conduct(association)
    return (
        (own is not None and own.direct is not None and own.direct.requests.busy)
        or association.dimse.message is not None
        or not association.dimse.msg_queue.empty()
    )


def take_inflow(association: Any, request: Any) -> Any:
    """What the sink made of a C-STORE request, the caller's from now on; None if no data set went there."""
    own, inflow = _conduct(association), request._dataset_path
    if own is not None and inflow is not None:
        own.sink.take(inflow)
    return inflow


def busy(association: Any) -> None:
    """Start the idle time of an association anew; call it when a request has been dealt with."""
    association.dul._idle_timer.restart()


def keep_alive(sock: socket.socket) -> None:
    """Have the system notice, within two minutes, that the machine at the other end is gone."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


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

    def __init__(self, loop: Any) -> None:
        super().__init__()
        self.set()
        self._loop = loop
        #: held by the loop from gate to gate
        self._through = threading.Lock()
        self._is_through = False

    def wait(self, timeout: float | None = None) -> bool:
        """Called by the loop only."""
        if self._is_through:
            self._is_through = False
            self._through.release()
        self._nap()
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
        loop = self._loop
        while loop.is_alive() and loop is not threading.current_thread():
            if self._through.acquire(timeout=_GATE_S):
                self._through.release()
                return

    def _nap(self) -> None:
        line = _line(self._loop)
        if line is not None:
            line.rest()
        elif _is_quiet(self._loop.dul):
            time.sleep(_NAP_S)


class _ReaderGate(_Gate):
    """The gate before the thread that reads and writes for an association; it naps by itself.

    That thread runs when the gate is put up, and may have passed the place already: it would read the answer
    to the first request. So the gate counts it as let through until it comes by.
    """

    def __init__(self, loop: Any) -> None:
        super().__init__(loop)
        self._through.acquire()
        self._is_through = True

    def _nap(self) -> None:
        pass


def install_gate(association: Any) -> None:
    """Give an association a gate that works; to be called when EVT_ESTABLISHED is triggered."""
    if _applied:
        association._reactor_checkpoint = _Gate(association)


def install_gates(association: Any) -> None:
    """As `install_gate`, and one before the thread that reads and writes: see `take_connection`."""
    install_gate(association)
    if _applied:
        setattr(association.dul, _READER_GATE, _ReaderGate(association.dul))


def take_connection(association: Any) -> bool:
    """Have both threads of an association stand still: its connection is the caller's until it is given back.

    False, and nothing is taken, if the association is over or the peer has said something already; the
    library's threads deal with that as ever.
    """
    dul = association.dul
    gate = getattr(dul, _READER_GATE, None)
    if gate is None:
        return False
    association._reactor_checkpoint.clear()
    gate.clear()
    queues = (dul.event_queue, dul.to_user_queue, dul.to_provider_queue, association.dimse.msg_queue)
    if (
        association.is_established
        and dul.state_machine.current_state == _OPEN
        and all(each.empty() for each in queues)
    ):
        return True
    give_connection_back(association)
    return False


def give_connection_back(association: Any) -> None:
    """Let the threads of an association go on, from any thread; once more is harmless."""
    dul = association.dul
    dul._idle_timer.restart()  # it stood still, or the association would be ended for having been idle
    gate = getattr(dul, _READER_GATE, None)
    if gate is not None:
        gate.set()
    association._reactor_checkpoint.set()


def _is_quiet(dul: Any) -> bool:
    last_read = dul._idle_timer._start_time
    return last_read is not None and time.monotonic() - last_read > _QUIET_S


def _run_loop_delay(self: Any) -> float:
    line = _line(self.assoc)
    if line is not None and self.state_machine.current_state == _OPEN:
        return _POLL_S if line.handed or line.speaking else 0.0  # it waits for the network instead
    return _NAP_S if _is_quiet(self) else _POLL_S


_stock_create_socket = AssociationSocket._create_socket


def _create_socket(self: Any, address: AddressInformation) -> socket.socket:
    sock: socket.socket = _stock_create_socket(self, address)
    send_at_once(sock)
    return sock


_stock_ready = AssociationSocket.ready


def _ready(self: Any) -> bool:
    line, connection = _line(self.assoc), self.socket
    if line is not None and line.inbox.held:
        return True
    if not isinstance(connection, TlsSocket) or not self._is_connected:
        return bool(_stock_ready.__get__(self))
    try:
        return connection.readable()
    except OSError:
        self.event_queue.put(_CLOSED)
        return False


def _recv(self: Any, nr_bytes: int) -> bytearray:
    buffer = bytearray(nr_bytes)
    del buffer[_fill(self, memoryview(buffer)) :]
    return buffer


def _conduct(association: Any) -> _Conduct | None:
    found: _Conduct | None = getattr(association, _CONDUCT, None)
    return found


def _line(association: Any) -> Line | None:
    own = _conduct(association)
    return None if own is None else own.direct


def _patience(association: Any) -> float | None:
    """Seconds that reading or writing may take at most."""
    own = _conduct(association)
    if own is not None:
        return own.stall_s
    # who has not been let in yet has the time for asking, else a thread would wait for it
    timeout: float | None = (
        association.acse_timeout if association.is_acceptor else association.network_timeout
    )
    return timeout


def _fill(self: Any, view: memoryview) -> int:
    """Read until `view` is full or the peer closes; the number of bytes read."""
    sock, patience, line = self.socket, _patience(self.assoc), _line(self.assoc)
    deadline = None if patience is None else time.monotonic() + patience
    done = 0 if line is None else line.inbox.give(view)
    with view:
        while done < len(view):
            # as a rule what is wanted comes at once, and the socket waits so long already
            if deadline is not None and (done or sock.gettimeout() != patience):
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
    line = _line(self.assoc)
    if line is not None and line.inbox.drop():
        return None
    with contextlib.suppress(OSError):
        if self.socket.socket.recv(_DISCARD_BYTES):
            return None
    return _CLOSED


def _read_pdu(self: Any) -> str | None:
    """Read one PDU and name the event that it is (PS3.8 section 9.2.3); None if it was dealt with."""
    line = _line(self.assoc)
    if line is not None and self.state_machine.current_state == _OPEN:
        return _read_directly(self, line)
    return _read_whole(self)


def _read_whole(self: Any) -> str:
    """Read one PDU for the library."""
    try:
        header = self.socket.recv(HEADER.size)
        kind, length = HEADER.unpack(header)
        if kind in _PDU_KINDS and length <= largest_pdu(self.assoc, kind):
            return _read_body(self, header, length)
    except (OSError, struct.error):
        return _CLOSED
    return _refused(kind, length)


def _refused(kind: int, length: int) -> str:
    log.event(_LOG, "pdu-refused", level=logging.WARNING, reason=f"type-{kind}", bytes=length)
    return _INVALID


def _read_directly(self: Any, line: Line) -> str | None:
    """Read one PDU, and those behind it until a request has been answered and no other follows at once."""
    event = _read_one(self, line)
    while event is None and _goes_on(self, line) and _arrives(self, line, _NAP_S):
        self._idle_timer.restart()
        event = _read_one(self, line)
    return event


def _goes_on(self: Any, line: Line) -> bool:
    """Whether the next PDU is to be read, and nobody else has anything to do or to say."""
    if line.requests.busy:
        return not _is_overdue(self)
    # the library's own loop, which would ask the same, sleeps at every turn
    return (
        not (line.handed or line.speaking or self._kill_thread)
        and self.assoc.dimse.message is None
        and self.to_provider_queue.empty()
        and self.event_queue.empty()
    )


def _read_one(self: Any, line: Line) -> str | None:
    own = _conduct(self.assoc)
    assert own is not None
    try:
        connection = _connection(self)
        header = line.inbox.header(connection, own.stall_s)
        if header is None:
            return _CLOSED
        kind, length = header
        if kind != _P_DATA:
            return _read_whole(self)
        if length > _most_data(self.assoc, line):
            return _refused(kind, length)
        body = line.inbox.body(connection, length, own.stall_s)
    except OSError:
        return _CLOSED
    return _CLOSED if body is None else _take_values(self.assoc.dimse, own, line, body)


def _connection(self: Any) -> Any:
    """The socket under an association; OSError once it is closed."""
    connection = None if self.socket is None else self.socket.socket
    if connection is None:
        raise ConnectionError("the connection is closed")
    return connection


def _most_data(association: Any, line: Line) -> int:
    """As `largest_pdu`, which the library looks up in a list every time; here data has been agreed upon."""
    if not line.largest_data:
        line.largest_data = largest_pdu(association, _P_DATA)
    return line.largest_data


def _take_values(dimse: Any, own: _Conduct, line: Line, body: memoryview) -> str | None:
    """Deal with the fragments in a PDU, or leave them to the library."""
    requests = line.requests
    try:
        for value in _values(body):
            busy = requests.busy
            own.note(len(value[1]), anew=not busy and dimse.message is None)
            # an answer of the library's that has not gone out yet comes before ours
            free = busy or (dimse.message is None and not line.handed and dimse.dul.to_provider_queue.empty())
            if not (free and requests.take(*value)):
                _stock_receive_primitive(dimse, _primitive([value]))
    except Exception as error:
        log.event(_LOG, "message-refused", level=logging.WARNING, error=error)
        return _INVALID
    return None


def _values(body: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Context id, and control header with content, of each fragment of a P-DATA PDU (PS3.8 table 9-22)."""
    at, end = 0, len(body)
    while at < end:
        length, context_id = _VALUE.unpack_from(body, at)
        start, at = at + _VALUE.size, at + 4 + length
        # a context id, a control header, and nothing beyond the PDU
        if length < 2 or at > end:
            raise ValueError("a presentation data value does not fit its PDU")
        yield context_id, body[start:at]


def _read_body(self: Any, header: bytearray, length: int) -> str:
    """Read and decode the rest of a PDU, queue it, and name the event that it is."""
    header += self.socket.recv(length)
    if len(header) != 6 + length:
        return _CLOSED
    try:
        pdu, event = _decode_data(self, header) if header[0] == _P_DATA else self._decode_pdu(header)
    except Exception as error:
        log.event(_LOG, "pdu-refused", level=logging.WARNING, reason="undecodable", error=error)
        return _INVALID
    self._recv_pdu.put(pdu)
    return str(event)


def _decode_data(self: Any, pdu: bytearray) -> tuple[Any, str]:
    evt.trigger(self.assoc, evt.EVT_DATA_RECV, {"data": pdu})
    return _Data(pdu), _DATA_CAME


class _Data:
    """A P-DATA-TF PDU (PS3.8 table 9-22) whose values are views of the bytes that were read."""

    def __init__(self, pdu: bytearray) -> None:
        with memoryview(pdu) as view:
            self._values = list(_values(view[HEADER.size :]))

    def to_primitive(self) -> P_DATA:
        """What the library makes of a PDU; the name is the library's."""
        return _primitive(self._values)


def _primitive(values: Any) -> P_DATA:
    """A P-DATA primitive; its own setter would ask for bytes."""
    primitive = P_DATA()
    primitive._presentation_data_value_list = values
    return primitive


_stock_receive_primitive = DIMSEServiceProvider.receive_primitive
_stock_is_transport_event = DULServiceProvider._is_transport_event


def _receive_primitive(self: Any, primitive: P_DATA) -> None:
    """Take the fragments of a PDU one by one: the library would drop what follows the end of a message."""
    try:
        for value in primitive.presentation_data_value_list:
            _note_progress(self, len(value[1]))
            _stock_receive_primitive(self, _primitive([value]))
    except Exception as error:
        log.event(_LOG, "message-refused", level=logging.WARNING, error=error)
        self.dul.event_queue.put(_INVALID)


_stock_send_msg = DIMSEServiceProvider.send_msg


def _send_msg(self: Any, primitive: Any, context_id: int) -> None:
    line = _line(self.assoc)
    with contextlib.nullcontext() if line is None else line.saying():
        _stock_send_msg(self, primitive, context_id)


def _note_progress(dimse: Any, count: int) -> None:
    own = _conduct(dimse.assoc)
    if own is not None:
        own.note(count, anew=dimse.message is None)


def _decode_msg(self: Any, primitive: Any, assoc: Any = None) -> bool:
    """Take one fragment (PS3.8 annex E.2); True when it was the last of its message."""
    ((context_id, data),) = primitive.presentation_data_value_list
    control = data[0]
    if control & 1:
        return (
            _take_command(self, context_id, data[1:], assoc) if control & 2 else _add_command(self, data[1:])
        )
    if context_id != self.context_id:
        raise ValueError("a data set without its command")
    own = _conduct(assoc)
    inflow = None if own is None else own.inflow
    if inflow is not None:
        inflow.write(data[1:])
    elif self.command_set.CommandField != _C_STORE_RQ and self.data_set.tell() > LARGEST_IDENTIFIER:
        raise ValueError("a data set that is too large for its kind of request")
    else:
        self.data_set.write(data[1:])
    if control & 2 and own is not None and inflow is not None:
        own.inflow = None
        own.sink.complete(inflow)
    return bool(control & 2)


def _add_command(message: Any, data: memoryview) -> bool:
    if message.context_id is not None or message.encoded_command_set.tell() + len(data) > LARGEST_COMMAND:
        raise ValueError("a command set too many, or one that is too large")
    message.encoded_command_set.write(data)
    return False


def _take_command(message: Any, context_id: int, data: memoryview, association: Any) -> bool:
    """Read the command set whose last fragment is `data`; True when no data set follows."""
    _add_command(message, data)
    message.context_id = context_id
    message.command_set = decode(message.encoded_command_set, True, True)
    message.__class__ = _MESSAGE_TYPES[message.command_set.CommandField][1]
    if message.command_set.CommandDataSetType == _NO_DATA_SET:
        return True
    own = _conduct(association)
    if own is not None and message.command_set.CommandField == _C_STORE_RQ:
        # the library's own field for a data set that is not in memory; it hands it on to the handler
        command = message.command_set
        message._data_set_path = own.inflow = own.sink.begin(
            str(command.AffectedSOPClassUID), str(command.AffectedSOPInstanceUID), context_id
        )
        # the library would end the association for a longer one, and never answer an empty one; the sink has
        # seen it as it came
        uid = str(message.command_set.AffectedSOPInstanceUID or "")
        message.command_set.AffectedSOPInstanceUID = uid[:_LONGEST_UID] or _NO_UID
    return False


def _is_transport_event(self: Any) -> bool:
    """Whether something was read; nothing is while a request waits, or from a peer that takes too long."""
    gate = getattr(self, _READER_GATE, None)
    if gate is not None:
        gate.wait()
    own = _conduct(self.assoc)
    if own is None or self.state_machine.current_state != _OPEN:
        return bool(_stock_is_transport_event(self))
    waiting = not self.assoc.dimse.msg_queue.empty()
    if waiting and self.assoc.is_alive() and not self.assoc._kill:
        return False
    if _is_overdue(self):
        return False
    if own.direct is None:
        return bool(_stock_is_transport_event(self))
    if own.direct.speaking:
        return False
    if not _arrives(self, own.direct, 0.0 if own.direct.handed else _NAP_S):
        return False
    self._read_pdu_data()
    return True


def _is_overdue(self: Any) -> bool:
    """Whether the peer takes too long for a message; then the connection counts as closed."""
    own = _conduct(self.assoc)
    assert own is not None
    arriving = self.assoc.dimse.message is not None or (own.direct is not None and own.direct.requests.busy)
    if not arriving or not own.overdue(time.monotonic()):
        return False
    log.event(_LOG, "peer-too-slow", level=logging.WARNING, bytes=own.received)
    self.event_queue.put(_CLOSED)
    return True


def _arrives(self: Any, line: Line, wait_s: float) -> bool:
    """Whether something can be read, now or within `wait_s`."""
    wrapper = self.socket
    if wrapper is None or wrapper.socket is None or not wrapper._is_connected:
        time.sleep(wait_s)
        return False
    try:
        return line.inbox.arrives(wrapper.socket, wait_s)
    except (OSError, ValueError):  # closed by another thread
        self.event_queue.put(_CLOSED)
        return False


def _reading_ended(self: Any) -> None:
    if self.assoc.is_acceptor and self.assoc.requestor.primitive is None:
        self.to_user_queue.put(None)  # whoever waits for a request need wait no longer
    own = _conduct(self.assoc)
    if own is not None and own.inflow is not None:
        own.inflow.discard()
    if own is not None and own.direct is not None:
        own.direct.requests.discard()
        own.direct.ring()


def _answering_ended(self: Any) -> None:
    own = _conduct(self)
    if own is not None:
        own.sink.answering_ended()


def _send(self: Any, bytestream: bytes) -> None:
    try:
        patience = _patience(self.assoc)
        if self.socket.gettimeout() != patience:
            self.socket.settimeout(patience)
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


def _contained(run: Callable[[Any], None], ended: Callable[[Any], None]) -> Callable[[Any], None]:
    """A thread's body whose fault ends its connection too, which nobody would watch over any more.

    `ended` clears up behind it.
    """

    def contained(self: Any) -> None:
        try:
            run(self)
        except Exception as error:
            log.event(_LOG, "association-fault", level=logging.WARNING, error=error)
            association = self if isinstance(self, Association) else self.assoc
            association.dimse.msg_queue.put((None, None))  # whoever waits for an answer need wait no longer
            hang_up(association)
        finally:
            ended(self)

    return contained


class _Steady:
    """What the library's timers take for the module `time`."""

    time = staticmethod(time.monotonic)


def _stop(self: Any) -> None:
    self._start_time = self._end_time = None


_REPAIRS: tuple[tuple[Any, str, Any], ...] = (
    (timer, "time", _Steady),
    (timer.Timer, "stop", _stop),
    (DIMSEMessage, "decode_msg", _decode_msg),
    (DIMSEServiceProvider, "receive_primitive", _receive_primitive),
    (DIMSEServiceProvider, "send_msg", _send_msg),
    (AssociationSocket, "recv", _recv),
    (AssociationSocket, "ready", property(_ready)),
    (AssociationSocket, "send", _send),
    (AssociationSocket, "_create_socket", _create_socket),
    (AssociationSocket, "_shutdown_socket", _shutdown_socket),
    (Association, "run_reactor", _contained(Association.run_reactor, _answering_ended)),
    (DULServiceProvider, "run_reactor", _contained(DULServiceProvider.run_reactor, _reading_ended)),
    (DULServiceProvider, "_is_transport_event", _is_transport_event),
    (DULServiceProvider, "_read_pdu_data", _read_pdu_data),
    (DULServiceProvider, "_run_loop_delay", property(_run_loop_delay, lambda _self, _stock: None)),
)
