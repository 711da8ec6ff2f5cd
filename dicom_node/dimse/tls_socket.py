"""A socket as pynetdicom and this package use one, with TLS inside.

Python's own `ssl.SSLSocket` does not do for an association: one thread reads while another writes, which an
SSL object does not bear; a writer needs a handle of its own (`dup`), which an SSLSocket has not; and `select`
says "readable" for what holds no data (session tickets), so that whoever then reads waits for a peer that
waits for him. Here TLS happens in memory under a lock, the network outside it.

Rules that bind here:
1. No lock is held while the network is waited for, but the one that keeps records in their order.
2. `readable` is true only if a read returns at once: plain bytes, the end, or an error.
3. Every wait has an end: the time-out of the socket is that of the whole call, not of each piece.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

#: what is read from the network at once: a few records (RFC 8446 section 5.1: 16 kB each)
_READ_BYTES = 1 << 17
#: what is encrypted at once, so that a slow peer costs no more memory than a fast one
_WRITE_BYTES = 1 << 17
_RECORD_BYTES = 1 << 14

Bytes = bytes | bytearray | memoryview
Failed = Callable[[OSError], None]


@dataclass(slots=True)
class _Session:
    """What all handles of one connection share."""

    context: ssl.SSLContext
    failed: Failed
    incoming: ssl.MemoryBIO = field(default_factory=ssl.MemoryBIO)
    outgoing: ssl.MemoryBIO = field(default_factory=ssl.MemoryBIO)
    #: held for every use of the SSL object
    state: threading.Lock = field(default_factory=threading.Lock)
    #: held from encrypting to sending, so that records leave in their order
    order: threading.Lock = field(default_factory=threading.Lock)
    #: decrypted, not yet asked for
    plain: bytearray = field(default_factory=bytearray)
    tls: ssl.SSLObject | None = None
    #: whether anything at all came from the peer
    heard: bool = False

    def ready(self) -> ssl.SSLObject:
        """The SSL object; OSError before the connection is one."""
        if self.tls is None:
            raise ConnectionError("the connection is not open")
        return self.tls


class TlsSocket:
    """One handle of a TLS connection.

    Parameters
    ----------
    raw : the TCP socket; this handle's own from now on
    session : shared by the handles that `dup` makes
    """

    def __init__(self, raw: socket.socket, session: _Session, server_hostname: str | None = None) -> None:
        self._raw = raw
        self._session = session
        self._hostname = server_hostname
        self._timeout = raw.gettimeout()

    # ---- opening ----

    @classmethod
    def accept(cls, raw: socket.socket, context: ssl.SSLContext, deadline_s: float) -> TlsSocket:
        """Shake hands as the server, within `deadline_s` seconds in all; OSError, which has ssl.SSLError."""
        made = cls(raw, _Session(context, _ignore))
        made.settimeout(deadline_s)
        made._shake(server_side=True)
        return made

    @classmethod
    def unconnected(
        cls, raw: socket.socket, context: ssl.SSLContext, hostname: str, failed: Failed
    ) -> TlsSocket:
        """A client's; `connect` shakes hands. `failed` is told what the peer has against us, even later."""
        return cls(raw, _Session(context, failed), hostname)

    def connect(self, address: Any) -> None:
        """Connect and shake hands within the time-out, in all; raises OSError, which has ssl.SSLError."""
        deadline = self._deadline()
        try:
            self._raw.settimeout(self._timeout)
            self._raw.connect(address)
            self._shake(server_side=False, deadline=deadline)
        except OSError as error:
            self._session.failed(error)
            raise

    def _shake(self, *, server_side: bool, deadline: float | None = None) -> None:
        session, deadline = self._session, deadline or self._deadline()
        with session.state:
            session.tls = session.context.wrap_bio(
                session.incoming, session.outgoing, server_side=server_side, server_hostname=self._hostname
            )
        while True:
            try:
                with session.state:
                    session.tls.do_handshake()
                self._flush(deadline)
                return
            except ssl.SSLWantReadError:
                self._flush(deadline)
                self._take(self._received(deadline))
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._flush(deadline)  # the alert that says why
                raise

    @property
    def heard(self) -> bool:
        """Whether the peer has sent anything at all."""
        return self._session.heard

    def certificate(self) -> tuple[dict[str, Any], bytes]:
        """The verified certificate of the peer, as `ssl.SSLObject.getpeercert` has it, and its DER."""
        with self._session.state:
            tls = self._session.ready()
            return dict(tls.getpeercert() or {}), tls.getpeercert(binary_form=True) or b""

    def version(self) -> str | None:
        """The protocol that was agreed: `TLSv1.2`, `TLSv1.3`."""
        return self._session.ready().version()

    # ---- reading; by one thread at a time ----

    def readable(self) -> bool:
        """Whether a read would return at once; OSError where it would raise that."""
        while not self._decrypt():
            if not self._at_once(select.POLLIN):
                return False
            data = self._raw.recv(_READ_BYTES)
            self._take(data)
            if not data:
                return True
        return True

    def recv_into(self, buffer: Bytes) -> int:
        """Read what is there, at most what fits; 0 at the end of the connection."""
        deadline = self._deadline()
        with memoryview(buffer) as view:
            while True:
                count = self._read(view)
                if count is not None:
                    return count
                self._take(self._received(deadline))

    def recv(self, count: int) -> bytes:
        """Read what is there, at most `count` bytes; b"" at the end of the connection."""
        buffer = bytearray(count)
        del buffer[self.recv_into(buffer) :]
        return bytes(buffer)

    def _read(self, view: memoryview) -> int | None:
        """Plain bytes into `view`: how many, 0 at the end, None while there are none."""
        session = self._session
        if session.plain:
            count = min(len(view), len(session.plain))
            view[:count] = session.plain[:count]
            del session.plain[:count]
            return count
        return self._decrypted(lambda tls: int(tls.read(len(view), view)))

    def _decrypt(self) -> bool:
        """Whether plain bytes, or the end, wait to be read; at most one record is decrypted for it."""
        session = self._session
        if session.plain:
            return True

        def read(tls: ssl.SSLObject) -> int:
            session.plain += tls.read(_RECORD_BYTES)
            return len(session.plain)

        return self._decrypted(read) is not None

    def _decrypted(self, read: Callable[[ssl.SSLObject], int]) -> int | None:
        try:
            with self._session.state:
                return read(self._session.ready())
        except ssl.SSLWantReadError:
            self._answer()
            return None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return 0
        except ssl.SSLError as error:
            self._session.failed(error)
            self._answer()
            raise

    def _received(self, deadline: float | None) -> bytes:
        self._raw.settimeout(_left(deadline))
        return self._raw.recv(_READ_BYTES)

    def _take(self, data: bytes) -> None:
        with self._session.state:
            if data:
                self._session.heard = True
                self._session.incoming.write(data)
            else:
                self._session.incoming.write_eof()

    def _answer(self) -> None:
        """Send what reading has made to be sent (alerts, key updates), unless a writer is at it and will."""
        session = self._session
        if session.outgoing.pending and session.order.acquire(blocking=False):
            try:
                self._say()
            finally:
                session.order.release()

    def _say(self) -> None:
        """Send what TLS has to say for itself, a few bytes, if the network takes them at once."""
        with contextlib.suppress(OSError):
            if self._at_once(select.POLLOUT):
                self._raw.send(self._encrypted())

    def _at_once(self, what: int) -> bool:
        """Whether the network would not keep us waiting; `select` stops at descriptor 1024."""
        poll = select.poll()
        try:
            poll.register(self._raw, what)
        except ValueError as error:  # another thread has closed it
            raise ConnectionError("the connection is closed") from error
        return bool(poll.poll(0))

    # ---- writing ----

    def sendall(self, data: Bytes) -> None:
        """Send everything within the time-out, in all; TimeoutError leaves the connection useless."""
        deadline, session = self._deadline(), self._session
        left = _left(deadline)
        if not session.order.acquire(timeout=-1 if left is None else left):
            raise TimeoutError("another thread has not finished sending")
        try:
            with memoryview(data) as view:
                for start in range(0, len(view), _WRITE_BYTES):
                    with session.state:
                        session.ready().write(view[start : start + _WRITE_BYTES])
                    self._raw.settimeout(_left(deadline))
                    self._raw.sendall(self._encrypted())
        finally:
            session.order.release()

    def send(self, data: Bytes) -> int:
        """As `sendall`; the number of bytes."""
        self.sendall(data)
        return memoryview(data).nbytes

    def _encrypted(self) -> bytes:
        with self._session.state:
            return self._session.outgoing.read()

    def _flush(self, deadline: float | None) -> None:
        with self._session.order:
            self._raw.settimeout(_left(deadline))
            self._raw.sendall(self._encrypted())

    # ---- closing, and what a socket has besides ----

    def shutdown(self, how: int) -> None:
        """Take leave (close_notify) if that needs no waiting, then shut down; from any thread."""
        session = self._session
        if session.tls is not None and session.order.acquire(blocking=False):
            try:
                with contextlib.suppress(OSError, ValueError), session.state:
                    session.tls.unwrap()
                self._say()
            finally:
                session.order.release()
        self._raw.shutdown(how)

    def dup(self) -> TlsSocket:
        """Another handle of the same connection, closed on its own and with a time-out of its own."""
        return TlsSocket(self._raw.dup(), self._session, self._hostname)

    def close(self) -> None:
        """Close this handle."""
        self._raw.close()

    def fileno(self) -> int:
        """The number of the descriptor; what `select` says of it is not what `readable` says."""
        return self._raw.fileno()

    def settimeout(self, seconds: float | None) -> None:
        """Set how long a call may take in all; None is for ever."""
        self._timeout = seconds

    def gettimeout(self) -> float | None:
        """What `settimeout` set."""
        return self._timeout

    def setsockopt(self, level: int, option: int, value: int) -> None:
        """As of the TCP socket."""
        self._raw.setsockopt(level, option, value)

    def getsockopt(self, level: int, option: int, count: int = 0) -> Any:
        """As of the TCP socket: a number, or, where a count is given, so many bytes at most."""
        return self._raw.getsockopt(level, option, count) if count else self._raw.getsockopt(level, option)

    def getsockname(self) -> Any:
        """As of the TCP socket."""
        return self._raw.getsockname()

    def getpeername(self) -> Any:
        """As of the TCP socket."""
        return self._raw.getpeername()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _deadline(self) -> float | None:
        return None if self._timeout is None else time.monotonic() + self._timeout


def _left(deadline: float | None) -> float | None:
    """The rest of the time; never 0, which means "do not wait" to a socket."""
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _ignore(_error: OSError) -> None:
    """The server tells failures by what it raises."""
