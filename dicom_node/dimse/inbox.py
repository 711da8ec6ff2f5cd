"""Bytes of a connection as they come, for a reader who takes them PDU by PDU.

A header and then a body, each asked for by itself, were two waits, two reads and twice an acknowledgement
re-armed for every PDU. Here what is there is read in one go, the beginning of the next PDU too.

Rules that bind here:
1. Every byte that was read is given on, in order: to who takes PDUs, or to who reads by himself (`give`).
2. A PDU that has begun has the time-out of its reader to come whole.
3. No more is held than one PDU of the length that was agreed, and a few kilobytes; a quiet connection keeps
   no buffer.
"""

from __future__ import annotations

import os
import select
import socket
import time
from struct import Struct
from typing import Any

from dicom_node.dimse.tls_socket import TlsSocket

#: type and length of a PDU (PS3.8 section 9.3)
HEADER = Struct(">BxL")
#: bytes beyond the PDU at hand that are read with it
_AHEAD = 1 << 14
#: a buffer holds a PDU of this size, until one comes that is longer
_USUAL = 1 << 17
#: seconds without a byte after which the buffer goes: many associations are open and quiet
_QUIET_S = 1.0
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)


class Inbox:
    """What has come over one connection and has not been dealt with; for one thread."""

    def __init__(self) -> None:
        self._view: memoryview | None = None
        #: what is held lies between these in the buffer
        self._start = self._end = 0
        self._quiet_since = 0.0
        self._over = False
        self._poll: select.poll | None = None

    @property
    def held(self) -> int:
        """How many bytes were read and not taken."""
        return self._end - self._start

    def arrives(self, connection: Any, wait_s: float) -> bool:
        """Whether something of a PDU is here, or its end, or comes within `wait_s`; OSError as of a read."""
        if self._end > self._start or self._over:
            return True
        if isinstance(connection, TlsSocket):
            came = connection.readable() or (self._is_rung(connection, wait_s) and connection.readable())
        else:
            came = (self._view is not None and self._read(connection, self._view)) or self._is_rung(
                connection, wait_s
            )
        if not came:
            self._rest()
        return came

    def header(self, connection: Any, patience_s: float) -> tuple[int, int] | None:
        """Type and length of the next PDU, which is not taken by that; None at the end of the connection."""
        if not self._fill(connection, HEADER.size, patience_s):
            return None
        assert self._view is not None
        kind, length = HEADER.unpack_from(self._view, self._start)
        return kind, length

    def body(self, connection: Any, length: int, patience_s: float) -> memoryview | None:
        """Take the next PDU, whose body is so long; None if the connection ends within it.

        What is returned is valid until the next call.
        """
        whole = HEADER.size + length
        if not self._fill(connection, whole, patience_s):
            return None
        assert self._view is not None
        body = self._view[self._start + HEADER.size : self._start + whole]
        self._start += whole
        return body

    def give(self, view: memoryview) -> int:
        """Give what is held to who reads by himself, as far as it fits; the number of bytes."""
        count = min(len(view), self.held)
        if count:
            assert self._view is not None
            view[:count] = self._view[self._start : self._start + count]
            self._start += count
        return count

    def drop(self) -> bool:
        """Forget what is held; whether that was anything."""
        held, self._start, self._end = self.held, 0, 0
        return held > 0

    def _fill(self, connection: Any, wanted: int, patience_s: float) -> bool:
        """Hold so many bytes; False if the connection ends before. TimeoutError after `patience_s`."""
        if self._end - self._start >= wanted:
            return True
        view = self._room(wanted)
        deadline = time.monotonic() + patience_s
        while self._end - self._start < wanted and not self._over:
            left_s = max(deadline - time.monotonic(), 0.001)
            if isinstance(connection, TlsSocket):
                connection.settimeout(left_s)
                self._came(connection.recv_into(view[self._end :]))
            elif not self._read(connection, view) and not self._is_rung(connection, left_s):
                raise TimeoutError("the rest of a PDU did not come")
        return self._end - self._start >= wanted

    def _room(self, wanted: int) -> memoryview:
        """The buffer, with room for so many bytes from where the next PDU begins."""
        view, held = self._view, self._end - self._start
        if view is None or len(view) < wanted:
            new = memoryview(bytearray(max(wanted, _USUAL + HEADER.size) + _AHEAD))
        elif len(view) - self._start >= wanted:
            return view
        else:
            new = view
        if view is not None:
            new[:held] = view[self._start : self._end]
        self._view, self._start, self._end = new, 0, held
        return new

    def _read(self, connection: Any, view: memoryview) -> bool:
        """Read what is there, if the buffer has room for it; whether there was anything, or the end."""
        if self._start == self._end:
            self._start = self._end = 0
        if connection.gettimeout() is None:
            connection.setblocking(False)
        try:
            # the socket's own method would ask first whether it is readable
            self._came(os.readv(connection.fileno(), [view[self._end :]]))
        except BlockingIOError:
            return False
        return True

    def _came(self, count: int) -> None:
        self._over = not count
        self._end += count
        self._quiet_since = 0.0

    def _is_rung(self, connection: Any, wait_s: float) -> bool:
        """Whether the connection can be read within that time; `select` stops at descriptor 1024."""
        if self._poll is None:
            poll = select.poll()
            try:
                poll.register(connection.fileno(), select.POLLIN)
            except ValueError as error:  # another thread has closed it
                raise ConnectionError("the connection is closed") from error
            self._poll = poll
        if _QUICKACK is not None:
            # what was read is acknowledged at once: a peer may wait for that before it sends the rest
            connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        return bool(self._poll.poll(wait_s * 1000))

    def _rest(self) -> None:
        now = time.monotonic()
        self._quiet_since = self._quiet_since or now
        if now - self._quiet_since > _QUIET_S:
            self._view, self._start, self._end = None, 0, 0
