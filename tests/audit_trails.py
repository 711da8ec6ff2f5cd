"""Audit messages in the hands of a test: their schema, and a repository that takes them."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import ssl
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lxml import etree

from benchmarks.stand import free_port
from tests.certificates import Issued
from tests.waiting import PATIENCE_S, wait_until

_SCHEMA = Path(__file__).parent / "audit_messages" / "dicom.rng"
_HEADER = re.compile(
    rb"<(?P<pri>\d{1,3})>1 (?P<time>\S+Z) (?P<host>\S+) dicom-node (?P<pid>\d+) (?P<id>\S+) - \xef\xbb\xbf"
)


@lru_cache
def _schema() -> Any:
    return etree.RelaxNG(etree.parse(_SCHEMA))


@dataclass(frozen=True)
class Told:
    """One audit message, as an auditor reads it."""

    root: Any
    pri: int = 0
    message_id: str = ""

    @property
    def text(self) -> bytes:
        return bytes(etree.tostring(self.root))

    @property
    def event(self) -> str:
        return self.root.find("EventIdentification/EventID").get("originalText")

    @property
    def type(self) -> str:
        found = self.root.find("EventIdentification/EventTypeCode")
        return "" if found is None else found.get("originalText")

    @property
    def action(self) -> str:
        return self.root.find("EventIdentification").get("EventActionCode")

    @property
    def outcome(self) -> int:
        return int(self.root.find("EventIdentification").get("EventOutcomeIndicator"))

    @property
    def why(self) -> str:
        return self.root.findtext("EventIdentification/EventOutcomeDescription") or ""

    @property
    def users(self) -> list[tuple[str, bool]]:
        found = self.root.findall("ActiveParticipant")
        return [(each.get("UserID"), each.get("UserIsRequestor") == "true") for each in found]

    @property
    def addresses(self) -> list[str | None]:
        return [each.get("NetworkAccessPointID") for each in self.root.findall("ActiveParticipant")]

    @property
    def things(self) -> dict[str, str]:
        """Kind of identifier -> identifier."""
        return {
            each.find("ParticipantObjectIDTypeCode").get("originalText"): each.get("ParticipantObjectID")
            for each in self.root.findall("ParticipantObjectIdentification")
        }

    @property
    def described(self) -> str:
        """What an alert is about."""
        return base64.b64decode(self.root.find(".//ParticipantObjectDetail").get("value")).decode()

    @property
    def instances(self) -> int:
        return sum(int(each.get("NumberOfInstances")) for each in self.root.iter("SOPClass"))

    @property
    def short(self) -> tuple[str, str, int]:
        """Event or type, action, outcome."""
        return self.type or self.event, self.action, self.outcome


def parsed(xml: bytes) -> Told:
    """A document that is valid by the schema of PS3.15."""
    root = etree.fromstring(xml)
    schema = _schema()
    assert schema.validate(root), f"{schema.error_log}\n{xml.decode()}"
    return Told(root)


def received(message: bytes) -> Told:
    """A message of syslog whose header is right and whose document is valid."""
    head = _HEADER.match(message)
    assert head is not None, message[:200]
    told = parsed(message[head.end() :])
    return Told(told.root, int(head["pri"]), head["id"].decode())


class Sink:
    """An audit record repository at localhost: mutual TLS where it has a certificate, else TCP.

    `stop` and `start` make it go away and come back at the same port.
    """

    def __init__(self, own: Issued | None = None, ca: Path | None = None) -> None:
        self.messages: list[bytes] = []
        self._context: ssl.SSLContext | None = None
        if own is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(own.certificate, own.key)
            self._context.load_verify_locations(ca)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._connections: list[socket.socket] = []
        self.port = free_port()
        self._server: socket.socket | None = None

    def start(self) -> None:
        self._server = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, args=(self._server,), daemon=True).start()

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._connections.clear()

    def __enter__(self) -> Sink:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def listens(self) -> bool:
        return self._server is not None

    @property
    def told(self) -> list[Told]:
        return [received(message) for message in list(self.messages)]

    def wait_for(self, count: int, limit_s: float = PATIENCE_S) -> list[Told]:
        """So many messages, each valid."""
        self.wait_for_bytes(count, limit_s)
        return self.told

    def wait_for_bytes(self, count: int, limit_s: float = PATIENCE_S) -> None:
        wait_until(lambda: len(self.messages) >= count, limit_s)

    def _serve(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = server.accept()
                threading.Thread(target=self._listen, args=(plain, server), daemon=True).start()

    def _listen(self, plain: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            connection = plain
            if self._context is not None:
                connection = self._context.wrap_socket(plain, server_side=True)
            self._connections.append(connection)
            if self._server is not server:  # who stopped it meanwhile has not seen this one
                connection.close()
            with connection, connection.makefile("rb") as stream:
                while length := _length(stream):
                    message = stream.read(length)
                    if len(message) == length:
                        self.messages.append(message)
                if isinstance(connection, ssl.SSLSocket):
                    connection.unwrap()


def _length(stream: Any) -> int:
    digits = b""
    while (byte := stream.read(1)) not in (b"", b" "):
        digits += byte
    return int(digits) if digits else 0
