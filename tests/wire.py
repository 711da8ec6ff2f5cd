"""A sender on a bare socket, which does exactly what it is told to, right or wrong.

with Wire(port) as wire:
    wire.associate()
    wire.store(CT, "1.2.3", data)      the status
    wire.send(pdu(4, b"..."))          anything else
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import Iterable, Sequence
from types import TracebackType

CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
VERIFICATION = "1.2.840.10008.1.1"
REQUEST, ACCEPTED, REJECTED, DATA, RELEASE, RELEASED, ABORT = range(1, 8)
COMMAND, LAST = 1, 2
#: how a connection that the peer has ended shows, in the clear and over TLS, while reading and while sending
ENDED = (ConnectionError, ssl.SSLError)


def pdu(kind: int, body: bytes, length: int | None = None) -> bytes:
    """A PDU (PS3.8 section 9.3) that claims `length`."""
    return struct.pack(">BxL", kind, len(body) if length is None else length) + body


def item(kind: int, body: bytes) -> bytes:
    """An item of an association request."""
    return struct.pack(">BxH", kind, len(body)) + body


def context(number: int, abstract: str, *syntaxes: str) -> bytes:
    """A proposed presentation context (PS3.8 table 9-13)."""
    inner = item(0x30, abstract.encode()) + b"".join(item(0x40, syntax.encode()) for syntax in syntaxes)
    return item(0x20, bytes((number, 0, 0, 0)) + inner)


def request(*contexts: bytes, calling: str = "MODALITY", called: str = "NODE") -> bytes:
    """An A-ASSOCIATE-RQ (PS3.8 table 9-11)."""
    user = item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3"))
    titles = called.encode().ljust(16) + calling.encode().ljust(16)
    application = item(0x10, b"1.2.840.10008.3.1.1.1")
    proposed = b"".join(contexts or (context(1, CT, EXPLICIT),))
    return pdu(REQUEST, struct.pack(">Hxx", 1) + titles + bytes(32) + application + proposed + user)


def value(data: bytes, control: int, number: int = 1) -> bytes:
    """A presentation data value (PS3.8 table 9-23): command or data set, last fragment or not."""
    return struct.pack(">LBB", len(data) + 2, number, control) + data


def command(**fields: int | str) -> bytes:
    """A command set (PS3.7 annex E); fields by the names below."""
    elements = b"".join(_field(_TAGS[name], content) for name, content in fields.items())
    return _field(0x0000, len(elements), 4) + elements


_TAGS = {
    "sop_class": 0x0002,
    "field": 0x0100,
    "message_id": 0x0110,
    "priority": 0x0700,
    "data_set": 0x0800,
    "sop_instance": 0x1000,
}


def _field(element: int, content: int | str, width: int = 2) -> bytes:
    raw = content.to_bytes(width, "little") if isinstance(content, int) else content.encode()
    raw += b"\0" * (len(raw) % 2)
    return struct.pack("<HHI", 0, element, len(raw)) + raw


def store_command(sop_class: str, sop_instance: str, message_id: int = 1) -> bytes:
    """The command set of a C-STORE request with a data set."""
    return command(
        sop_class=sop_class,
        field=0x0001,
        message_id=message_id,
        priority=0,
        data_set=0x0001,
        sop_instance=sop_instance,
    )


class Wire:
    """A connection to a port on this machine."""

    def __init__(self, port: int, timeout: float = 60.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, payload: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(payload)

    def try_to_send(self, payload: bytes) -> None:
        """Send bytes to a peer that may have hung up."""
        with contextlib.suppress(*ENDED):
            self.send(payload)

    def read(self) -> tuple[int, bytes]:
        """The next PDU: its kind and body; kind 0 when the peer has hung up."""
        head = self._exactly(6)
        if len(head) < 6:
            return 0, b""
        kind, length = struct.unpack(">BxL", head)
        return kind, self._exactly(length)

    def associate(self, *contexts: bytes, calling: str = "MODALITY", called: str = "NODE") -> int:
        """Ask for an association; the kind of the answer."""
        self.send(request(*contexts, calling=calling, called=called))
        return self.read()[0]

    def begin_store(self, sop_class: str, sop_instance: str, message_id: int = 1, number: int = 1) -> None:
        """Send the command of a C-STORE request in a context, and nothing of its data set."""
        asked = store_command(sop_class, sop_instance, message_id)
        self.send(pdu(DATA, value(asked, COMMAND | LAST, number)))

    def data(self, pieces: Iterable[bytes], *, last: bool = True, number: int = 1) -> None:
        """Send fragments of a data set, one PDU each."""
        fragments: Sequence[bytes] = list(pieces)
        for sent, piece in enumerate(fragments, start=1):
            end = LAST if last and sent == len(fragments) else 0
            self.send(pdu(DATA, value(piece, end, number)))

    def store(
        self, sop_class: str, sop_instance: str, data: bytes, piece: int = 16000, number: int = 1
    ) -> int:
        """Send an object in a context; the status that answers it."""
        self.begin_store(sop_class, sop_instance, number=number)
        self.data((data[at : at + piece] for at in range(0, len(data), piece)), number=number)
        return self.status()

    def status(self) -> int:
        """The status of the next response, -1 if something else came."""
        told = self.response().get(0x0900)
        return -1 if told is None else int.from_bytes(told, "little")

    def response(self) -> dict[int, bytes]:
        """The command set of the next response by element number; empty if something else came."""
        kind, body = self.read()
        if kind != DATA:
            return {}
        fields, at = {}, 6
        while at < len(body):
            element, length = struct.unpack_from("<HI", body, at + 2)
            fields[element] = body[at + 8 : at + 8 + length]
            at += 8 + length
        return fields

    def hung_up(self) -> bool:
        """Wait until the peer hangs up, whatever it says before."""
        with contextlib.suppress(*ENDED):
            while self.socket.recv(4096):
                pass
        return True

    def _exactly(self, count: int) -> bytes:
        got = b""
        with contextlib.suppress(*ENDED):
            while len(got) < count and (chunk := self.socket.recv(count - len(got))):
                got += chunk
        return got
