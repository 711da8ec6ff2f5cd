"""C-STORE requests and their answers over one association, by the thread that sends and no other.

pynetdicom hands every answer through two threads and three queues, each looked at a thousand times a second.
Once an association is open, the sender takes its connection for itself (`patches.take_connection`), writes
requests and reads answers as they come, and gives it back to be released, or broken.

Rules that bind here:
1. Whoever takes less than `SLOWEST_BYTES_S` is given up within one batch, not at the end of the object.
2. Whatever is not the answer to the request in hand ends the exchange; nothing is skipped.
3. While the peer works, the caller may do something else (`meanwhile`), but the answer is read as soon as
   that returns, however late it is.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from dicom_node.dimse import patches, stream
from dicom_node.dimse.answers import Answers
from dicom_node.dimse.tls_socket import TlsSocket

#: a peer that takes less than this many bytes per second is given up
SLOWEST_BYTES_S = 1 << 16
#: a peer may need a second for every so many bytes before it answers
SLOWEST_ANSWER_BYTES_S = 1 << 20

_READ_BYTES = 1 << 12
_SHORTEST_S = 0.001
_P_DATA = 0x04
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
#: bytes that wait in the system for a peer that answers within `_NEAR_US`. It would take a whole image, which
#: has left the processor's cache when the peer reads it
_NEAR_BYTES, _NEAR_US = 1 << 17, 500
_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)
#: where Linux tells the shortest time that the peer took to answer, microseconds (linux/tcp.h, tcp_info)
_MIN_RTT = struct.Struct("148xI")

#: called once the request is out, and again after as many seconds as it returns, until the answer comes
Meanwhile = Callable[[], float | None]


def nothing_else() -> None:
    """What a sender does while the peer works, if there is nothing to do."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """An object that is about to be sent, its first PDUs in memory already."""

    out: stream.Outgoing
    context_id: int
    first: memoryview
    rest: Iterator[memoryview]
    memory: bytearray


class Exchange:
    """An open association in the hands of one thread.

    Raises ConnectionError if the association is over, or the peer has begun to talk.
    """

    def __init__(self, association: Any) -> None:
        if not patches.take_connection(association):
            raise ConnectionError("the association is over")
        self._association = association
        try:
            wrapper = association.dul.socket
            if wrapper is None or wrapper.socket is None:
                raise ConnectionError("the association has no connection any more")
            # an own handle: the library closes its own when it likes, and the number may be given away
            self._connection = wrapper.socket.dup()
        except BaseException:
            patches.give_connection_back(association)
            raise
        if _is_near(self._connection):
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _NEAR_BYTES)
        self._fragment = stream.fragment_size(association.dimse.maximum_pdu_size)
        self._answers = Answers(patches.largest_pdu(association, _P_DATA))
        self._buffer = bytearray(_READ_BYTES)
        #: one for the object that goes out, one for the next
        self._memory = [stream.room(self._fragment)]

    @property
    def usable(self) -> bool:
        """Whether the next request may go out: the peer has said nothing that is not an answer."""
        return not self._answers.waiting and not self._readable()

    def load(self, out: stream.Outgoing, context_id: int) -> Loaded:
        """Read the first batch of an object; raises SpoolError if it cannot be read."""
        memory = self._memory.pop() if self._memory else stream.room(self._fragment)
        rest = stream.batches(out, context_id, self._fragment, memory)
        try:
            return Loaded(out, context_id, next(rest), rest, memory)
        except BaseException:
            self._memory.append(memory)
            raise

    def unload(self, loaded: Loaded) -> None:
        """Have the memory of an object back, sent or not."""
        self._memory.append(loaded.memory)

    def store(
        self,
        request: stream.Request,
        loaded: Loaded,
        timeout_s: float,
        meanwhile: Meanwhile = nothing_else,
    ) -> int | None:
        """Send one object and return the status of the peer; None without an answer in time, or to this.

        Raises
        ------
        OSError : the connection broke, or took too little for `timeout_s` seconds (TimeoutError), or the peer
            said something else
        SpoolError : the file cannot be read; the message on the wire is then incomplete
        """
        command = stream.command(request, loaded.context_id, self._fragment)
        first = stream.led(command, loaded.first, loaded.memory)
        for batch in itertools.chain(first, loaded.rest):
            self._connection.settimeout(timeout_s + len(batch) / SLOWEST_BYTES_S)
            self._connection.sendall(batch)
        return self._answer(request, timeout_s + loaded.out.data.size / SLOWEST_ANSWER_BYTES_S, meanwhile)

    def close(self) -> None:
        """Give the connection back to the library."""
        self.let_go()
        self._connection.close()

    def let_go(self) -> None:
        """Let the library's threads go on, so that they can end; from any thread."""
        patches.give_connection_back(self._association)

    def _answer(self, request: stream.Request, patience_s: float, meanwhile: Meanwhile) -> int | None:
        deadline = time.monotonic() + patience_s
        again_s = meanwhile()
        while True:
            left_s = deadline - time.monotonic()
            # what is here is read, however late it is
            wait_s = max(left_s if again_s is None else min(left_s, again_s), _SHORTEST_S)
            data = self._received(wait_s)
            if data is None and left_s <= wait_s:
                return None
            if data is None:
                again_s = meanwhile()
                continue
            answer = self._answers.take(data)
            if answer is not None:
                return answer.status if answer.message_id == request.message_id else None
            if left_s < -patience_s:  # it talks on and on, and never answers
                return None

    def _received(self, wait_s: float) -> memoryview | None:
        """What came within `wait_s` seconds; None if nothing did."""
        self._connection.settimeout(wait_s)
        if _QUICKACK is not None:
            with contextlib.suppress(OSError):  # no TCP in between
                self._connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        try:
            count = self._connection.recv_into(self._buffer)
        except TimeoutError:
            return None
        if not count:
            raise ConnectionError("the association ended instead of an answer")
        return memoryview(self._buffer)[:count]

    def _readable(self) -> bool:
        """Whether a read would return at once; an error counts."""
        connection = self._connection
        if hasattr(connection, "readable"):  # TLS
            try:
                return bool(connection.readable())
            except OSError:
                return True
        poll = select.poll()
        try:
            poll.register(connection, select.POLLIN)
        except ValueError:  # closed by another thread
            return True
        return bool(poll.poll(0))


def _is_near(connection: socket.socket | TlsSocket) -> bool:
    """Whether the peer is on this machine or in this building; False where the system does not say."""
    if _TCP_INFO is None or sys.platform != "linux":
        return False
    try:
        known = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _MIN_RTT.size)
    except OSError:  # no TCP in between
        return False
    return len(known) == _MIN_RTT.size and _MIN_RTT.unpack(known)[0] < _NEAR_US
