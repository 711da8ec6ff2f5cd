"""As much of the DICOM upper layer (PS3.8) and of DIMSE (PS3.7) as a witness needs, on bare sockets.

What is measured must not be measured with itself: the node speaks through pynetdicom, so the peers that count
what it loses do not. Nothing here waits, retries or repairs; whatever goes wrong raises `Broken`.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
C_STORE_RQ, C_STORE_RSP, C_ECHO_RQ, C_ECHO_RSP = 0x0001, 0x8001, 0x0030, 0x8030
VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT_LITTLE = "1.2.840.10008.1.2"
#: bytes of the largest PDU that either side announces here
MAX_PDU = 131072

_APPLICATION = "1.2.840.10008.3.1.1.1"
_NO_DATA_SET = 0x0101
_ITEM_APPLICATION, _ITEM_CONTEXT, _ITEM_CONTEXT_AC, _ITEM_USER = 0x10, 0x20, 0x21, 0x50
_ITEM_ABSTRACT, _ITEM_SYNTAX, _ITEM_MAX, _ITEM_CLASS = 0x30, 0x40, 0x51, 0x52
#: command element (group 0000) -> whether its value is a number
_COMMAND = {
    0x0002: False,
    0x0100: True,
    0x0110: True,
    0x0120: True,
    0x0700: True,
    0x0800: True,
    0x0900: True,
    0x0902: False,
    0x1000: False,
}

Command = dict[int, int | str]
Context = tuple[str, str]


class Broken(Exception):  # noqa: N818 - what happened to the connection
    """The connection is gone, refused, or the peer says something that nobody asked for."""


@dataclass(frozen=True, slots=True)
class Head:
    """What the file meta information (PS3.10 section 7.1) says, and where the data set begins."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    offset: int


def head_of(path: Path) -> Head:
    """Read the file meta information of a Part 10 file."""
    with path.open("rb") as file:
        content = file.read(4096)
    end = 144 + struct.unpack_from("<I", content, 140)[0]
    found, at = {}, 144
    while at < end:
        _, element = struct.unpack_from("<HH", content, at)
        long = content[at + 4 : at + 6] in (b"OB", b"UN")
        size = struct.unpack_from("<I" if long else "<H", content, at + (8 if long else 6))[0]
        at += 12 if long else 8
        found[element] = content[at : at + size].rstrip(b"\0 ").decode("ascii", "replace")
        at += size
    return Head(found[0x0002], found[0x0003], found[0x0010], end)


class Connection:
    """One TCP connection that carries PDUs."""

    def __init__(self, sock: socket.socket, timeout_s: float) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(timeout_s)
        self._sock, self._file = sock, sock.makefile("rb", 1 << 18)
        #: what the peer takes in one PDU, bytes
        self.peer_max = 16384

    def read(self) -> tuple[int, bytes]:
        """The kind and body of the next PDU."""
        try:
            head = self._file.read(6)
            kind, size = struct.unpack(">BxI", head)
            body = self._file.read(size)
        except (OSError, struct.error, ValueError) as error:
            raise Broken("the connection ended") from error
        if len(body) < size:
            raise Broken("the connection ended within a PDU")
        return kind, body

    def send(self, kind: int, *parts: bytes | memoryview) -> None:
        """Send one PDU."""
        self.write(_pdu(kind, *parts))

    def write(self, content: bytes | bytearray) -> None:
        """Send whole PDUs."""
        try:
            self._sock.sendall(content)
        except OSError as error:
            raise Broken("the connection ended") from error

    def command(self, context: int, command: Command) -> None:
        """Send a command set."""
        self.write(_command_pdu(context, command))

    def fragments(self) -> Iterator[tuple[int, int, memoryview]]:
        """(context, control byte, content) of every fragment, until the peer releases; Broken otherwise."""
        while True:
            kind, body = self.read()
            if kind == RELEASE_RQ:
                self.send(RELEASE_RP, bytes(4))
                return
            if kind != P_DATA:
                raise Broken(f"a PDU of type {kind} instead of data")
            view, at = memoryview(body), 0
            while at < len(view):
                size, context, control = struct.unpack_from(">IBB", view, at)
                yield context, control, view[at + 6 : at + 4 + size]
                at += 4 + size

    def close(self) -> None:
        """Close, whatever is under way; from any thread."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


def _pdu(kind: int, *parts: bytes | memoryview) -> bytes:
    return struct.pack(">BxI", kind, sum(map(len, parts))) + b"".join(parts)


def _command_pdu(context: int, command: Command) -> bytes:
    coded = b"".join(_element(number, value) for number, value in sorted(command.items()))
    body = struct.pack("<HHII", 0, 0, 4, len(coded)) + coded
    return _pdu(P_DATA, struct.pack(">IBB", len(body) + 2, context, 3), body)


def _data_pdus(context: int, path: Path, offset: int, room: int) -> Iterator[bytes]:
    """What is behind `offset` in a file as the fragments of a data set, a buffer at a time."""
    with path.open("rb") as file:
        file.seek(offset)
        piece = file.read(room)
        while piece:
            following = file.read(room)
            yield _pdu(P_DATA, struct.pack(">IBB", len(piece) + 2, context, 0 if following else 2), piece)
            piece = following


def _element(number: int, value: int | str) -> bytes:
    if isinstance(value, int):
        content = struct.pack("<H", value)
    else:
        content = value.encode("ascii") + b"\0" * (len(value) % 2)
    return struct.pack("<HHI", 0, number, len(content)) + content


def parse_command(content: bytes) -> Command:
    """The elements of a command set (Implicit VR Little Endian) that matter here."""
    found: Command = {}
    at = 0
    while at < len(content):
        _, number, size = struct.unpack_from("<HHI", content, at)
        value = content[at + 8 : at + 8 + size]
        if number in _COMMAND:
            text = value.rstrip(b"\0 ").decode("ascii", "replace")
            found[number] = struct.unpack("<H", value)[0] if _COMMAND[number] else text
        at += 8 + size
    return found


def call(
    port: int, called_ae: str, calling_ae: str, contexts: list[Context], timeout_s: float
) -> Association:
    """Open an association with a peer at a loopback port; Broken when there is none to be had."""
    try:
        sock = socket.create_connection(("127.0.0.1", port), timeout_s)
    except OSError as error:
        raise Broken("nobody listens") from error
    connection = Connection(sock, timeout_s)
    proposed = b"".join(
        _item(
            _ITEM_CONTEXT,
            bytes([2 * index + 1, 0, 0, 0]) + _item(_ITEM_ABSTRACT, uid) + _item(_ITEM_SYNTAX, syntax),
        )
        for index, (uid, syntax) in enumerate(contexts)
    )
    titles = struct.pack(
        ">HH16s16s32x", 1, 0, called_ae.ljust(16).encode("ascii"), calling_ae.ljust(16).encode("ascii")
    )
    try:
        connection.send(ASSOCIATE_RQ, titles, _item(_ITEM_APPLICATION, _APPLICATION), proposed, _user())
        kind, body = connection.read()
        if kind != ASSOCIATE_AC:
            raise Broken(f"a PDU of type {kind} instead of an association")
    except Broken:
        connection.close()
        raise
    accepted = {}
    for item, value in _items(body[68:]):
        if item == _ITEM_CONTEXT_AC and value[2] == 0:
            accepted[contexts[value[0] // 2]] = value[0]
        elif item == _ITEM_USER:
            connection.peer_max = _maximum(value)
    return Association(connection, accepted)


class Association:
    """The calling side of an association."""

    def __init__(self, connection: Connection, accepted: dict[Context, int]) -> None:
        self._connection = connection
        self._accepted = accepted
        self._message = 0

    def store(self, path: Path, head: Head) -> int:
        """Send one Part 10 file, its data set as it is; the status of the answer."""
        return self.ask(self.request(path, head))

    def ask(self, request: Iterable[bytes]) -> int:
        """Send a request that was made before; the status of the answer."""
        for pdus in request:
            self._connection.write(pdus)
        return self._status()

    def request(self, path: Path, head: Head) -> Iterator[bytes]:
        """The PDUs of a C-STORE request for a Part 10 file, one by one."""
        context = self._accepted.get((head.sop_class_uid, head.transfer_syntax_uid))
        if context is None:
            raise Broken("the presentation context was not accepted")
        request: Command = {
            0x0002: head.sop_class_uid,
            0x0100: C_STORE_RQ,
            0x0110: self._next(),
            0x0700: 0,
            0x0800: 1,
            0x1000: head.sop_instance_uid,
        }
        yield _command_pdu(context, request)
        room = min(self._connection.peer_max or MAX_PDU, MAX_PDU) - 6
        yield from _data_pdus(context, path, head.offset, room)

    def echo(self) -> int:
        """C-ECHO; the status of the answer."""
        context = self._accepted[VERIFICATION, IMPLICIT_LITTLE]
        request: Command = {
            0x0002: VERIFICATION,
            0x0100: C_ECHO_RQ,
            0x0110: self._next(),
            0x0800: _NO_DATA_SET,
        }
        self._connection.command(context, request)
        return self._status()

    def release(self) -> None:
        """End in peace."""
        with contextlib.suppress(Broken):
            self._connection.send(RELEASE_RQ, bytes(4))
            self._connection.read()
        self._connection.close()

    def close(self) -> None:
        """End at once."""
        self._connection.close()

    def _next(self) -> int:
        self._message = self._message % 0xFFFF + 1
        return self._message

    def _status(self) -> int:
        content = bytearray()
        for _, control, piece in self._connection.fragments():
            content += piece
            if control & 2:
                return int(parse_command(bytes(content))[0x0900])
        raise Broken("released instead of answered")


def accept(connection: Connection, body: bytes) -> None:
    """Answer an A-ASSOCIATE-RQ: every context in the first transfer syntax proposed."""
    contexts = b""
    for item, value in _items(body[68:]):
        if item == _ITEM_CONTEXT:
            syntax = next(inner for kind, inner in _items(value[4:]) if kind == _ITEM_SYNTAX)
            contexts += _item(
                _ITEM_CONTEXT_AC, bytes([value[0], 0, 0, 0]) + _item(_ITEM_SYNTAX, syntax.decode("ascii"))
            )
        elif item == _ITEM_USER:
            connection.peer_max = _maximum(value)
    connection.send(ASSOCIATE_AC, body[:68], _item(_ITEM_APPLICATION, _APPLICATION), contexts, _user())


def reject(connection: Connection) -> None:
    """Answer an A-ASSOCIATE-RQ: transient, local limit exceeded (PS3.8 table 9-21)."""
    connection.send(ASSOCIATE_RJ, bytes([0, 2, 3, 2]))


def _user() -> bytes:
    content = _item(_ITEM_MAX, struct.pack(">I", MAX_PDU)) + _item(_ITEM_CLASS, "2.25.302116571")
    return _item(_ITEM_USER, content)


def _maximum(user: bytes) -> int:
    return next((struct.unpack(">I", value)[0] for kind, value in _items(user) if kind == _ITEM_MAX), 16384)


def _item(kind: int, content: bytes | str) -> bytes:
    body = content.encode("ascii") if isinstance(content, str) else content
    return struct.pack(">BxH", kind, len(body)) + body


def _items(content: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(content):
        kind, size = struct.unpack_from(">BxH", content, at)
        yield kind, content[at + 4 : at + 4 + size]
        at += 4 + size
