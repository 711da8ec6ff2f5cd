"""The connection to the audit record repository: TLS (RFC 5425), TCP in the clear, or UDP (RFC 5426).

Syslog has no answers: that a message was written to a connection proves nothing. So the courier keeps what it
sent until the connection has outlived it for a while, or has ended in good order: the repository's end closes
after it has read everything.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import ssl
import sys
import termios
from collections.abc import Callable, Iterator
from typing import Protocol

from dicom_node.audit.syslog import framed
from dicom_node.config import Audit, AuditTransport
from dicom_node.errors import PeerError, TlsError

#: seconds that the repository may take to read the rest and to close, when the node closes
_CLOSE_S = 3.0
_READ_BYTES = 4096

Context = Callable[[], ssl.SSLContext]


class Repository(Protocol):
    """Somebody who is told messages; every method raises PeerError when he is not there."""

    def open(self) -> None:
        """Connect; harmless when connected."""

    def send(self, message: bytes) -> None:
        """Tell one message, in its frame."""

    def check(self) -> bool:
        """Raise unless the connection still stands; whether the other machine has all that was sent."""

    def close(self) -> bool:
        """Hang up; whether it is certain that everything was read."""


class Stream:
    """A repository at the other end of TLS or TCP.

    Parameters
    ----------
    settings : where it is, and how patient to be
    context : gives the TLS settings for each connection, so that a renewed certificate is used; None for
        TCP in the clear
    """

    def __init__(self, settings: Audit, context: Context | None) -> None:
        self._settings = settings
        self._context = context
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Connect and, with TLS, prove who both are. Raises PeerError."""
        if self._socket is None:
            with self._failures("cannot be reached"):
                self._socket = self._connected()

    def _connected(self) -> socket.socket:
        host, port = str(self._settings.host), self._settings.port
        plain = socket.create_connection((host, port), self._settings.timeout_s)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            # acknowledged by nobody for so long, the connection is broken and not merely slow
            patience_ms = int(self._settings.timeout_s * 1000)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience_ms)
            if self._context is None:
                return plain
            name = self._settings.tls_name or host
            return self._context().wrap_socket(plain, server_hostname=name)
        except BaseException:
            plain.close()
            raise

    def send(self, message: bytes) -> None:
        """Write one message. Raises PeerError."""
        self.open()
        assert self._socket is not None
        with self._failures("takes no messages"):
            self._socket.sendall(framed(message))

    def check(self) -> bool:
        """Raise PeerError if the repository has hung up; what it says is read and forgotten."""
        if self._socket is None:
            return False
        with self._failures("has hung up"):
            self._hear(self._socket)
            return self._unacknowledged(self._socket) == 0

    def _unacknowledged(self, connection: socket.socket) -> int:
        """Bytes that the other machine has not acknowledged (tcp(7), SIOCOUTQ)."""
        return int.from_bytes(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)), sys.byteorder)

    def _hear(self, connection: socket.socket) -> None:
        """Take what is there without waiting; a repository says nothing, but TLS has things of its own."""
        connection.settimeout(0.0)
        try:
            while connection.recv(_READ_BYTES):
                pass
            raise ConnectionResetError("it closed the connection")
        except (BlockingIOError, ssl.SSLWantReadError):
            connection.settimeout(self._settings.timeout_s)

    def close(self) -> bool:
        """Say that nothing follows, and wait until the repository has read all and closes too."""
        connection, self._socket = self._socket, None
        if connection is None:
            return False
        with contextlib.closing(connection), contextlib.suppress(OSError, ValueError):
            connection.settimeout(_CLOSE_S)
            if isinstance(connection, ssl.SSLSocket):
                connection = connection.unwrap()
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(_READ_BYTES):
                pass
            return True
        return False

    @contextlib.contextmanager
    def _failures(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, TlsError) as error:
            self._drop()
            raise _failure(self._settings, what, error) from error

    def _drop(self) -> None:
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()


class Datagrams:
    """A repository that listens to UDP: nobody knows what arrives, only sometimes that nothing does."""

    def __init__(self, settings: Audit) -> None:
        self._settings = settings
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Find the address. Raises PeerError."""
        if self._socket is not None:
            return
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                self._settings.host, self._settings.port, type=socket.SOCK_DGRAM
            )[0]
            self._socket = socket.socket(family, kind, protocol)
            self._socket.settimeout(self._settings.timeout_s)
            self._socket.connect(address)
        except OSError as error:
            self.close()
            raise _failure(self._settings, "cannot be found", error) from error

    def send(self, message: bytes) -> None:
        """Send one message as one datagram. Raises PeerError when the other machine refused the last one."""
        self.open()
        assert self._socket is not None
        try:
            self._socket.send(message)
        except OSError as error:
            self.close()
            raise _failure(self._settings, "takes no messages", error) from error

    def check(self) -> bool:
        """Raise PeerError if the other machine has said that nobody listens there."""
        if self._socket is not None:
            error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                self.close()
                raise _failure(self._settings, "takes no messages", OSError(error, "nobody listens"))
        return True

    def close(self) -> bool:
        """Let go of the socket; nothing is certain, and waiting would not make it so."""
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()
        return True


def repository_of(settings: Audit, context: Context | None) -> Repository:
    """The repository that a configuration names; `context` where it is spoken to over TLS."""
    return Datagrams(settings) if settings.transport is AuditTransport.UDP else Stream(settings, context)


def _failure(settings: Audit, what: str, error: Exception) -> PeerError:
    said = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
    if isinstance(error, TlsError):
        said = str(error)
    return PeerError(
        f"the audit repository {settings.host}:{settings.port} {what}: {said}", reason="audit-repository"
    )
