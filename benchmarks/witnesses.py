"""The peers of a node under fault: senders that know what was acknowledged, archives that know what came.

The evidence is kept in the memory of the process that does not die; a status counts as acknowledged only when
its response was read to the end, an object as arrived only when its last fragment was.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import wire
from benchmarks.wire import Broken, Command, Connection

SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA700
STORESCU = "/usr/bin/storescu"
#: seconds that a sender waits for an answer, and rests after a failure
_PATIENCE_S, _REST_S = 60.0, 0.05

#: what an archive answers to an object: its UID and how often it came so far (from 1); None is never
Answer = Callable[[str, int], int | None]


def always(_uid: str, _times: int) -> int:
    """Everything is welcome."""
    return SUCCESS


def data_set_digest(path: Path) -> str:
    """SHA-256 of the data set of a Part 10 file, without its file meta information."""
    with path.open("rb") as file:
        file.seek(wire.head_of(path).offset)
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class Delivered:
    """One object as an archive received and took it: its UID, SHA-256 of the data set, monotonic time."""

    sop_instance_uid: str
    digest: str
    at: float


@dataclass(slots=True)
class Archive:
    """A storage SCP at a loopback port that keeps a list of what it took, and misbehaves on request."""

    port: int
    answer: Answer = always
    #: refuse every association with a transient reject
    refusing: bool = False
    #: accept connections and say nothing
    silent: bool = False
    delivered: list[Delivered] = field(default_factory=list)
    attempts: Counter[str] = field(default_factory=Counter)
    _listener: socket.socket | None = None
    _open: set[Connection] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> Archive:
        """Listen; after `stop` again at the same port."""
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Go away, with every connection."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for connection in tuple(self._open):
            connection.close()

    def digests(self) -> dict[str, list[str]]:
        """UID -> the digest of every time that it was taken."""
        found: dict[str, list[str]] = {}
        for one in tuple(self.delivered):
            found.setdefault(one.sop_instance_uid, []).append(one.digest)
        return found

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            connection = Connection(sock, 600.0)
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        try:
            with contextlib.suppress(Broken):
                self._associate(connection)
        finally:
            connection.close()
            self._open.discard(connection)

    def _associate(self, connection: Connection) -> None:
        kind, body = connection.read()
        if kind != wire.ASSOCIATE_RQ:
            return
        if self.silent:
            connection.read()  # until the other side has had enough
        elif self.refusing:
            wire.reject(connection)
        else:
            wire.accept(connection, body)
            self._receive(connection)

    def _receive(self, connection: Connection) -> None:
        command, digest = bytearray(), hashlib.sha256()
        request: Command = {}
        for context, control, piece in connection.fragments():
            if control & 1:
                command += piece
                if control & 2:
                    request = wire.parse_command(bytes(command))
                    command, digest = bytearray(), hashlib.sha256()
            else:
                digest.update(piece)
            echo = request.get(0x0100) == wire.C_ECHO_RQ
            if control == (3 if echo else 2) and request:
                status = SUCCESS if echo else self._take(str(request[0x1000]), digest.hexdigest())
                if status is None:
                    connection.read()
                    return
                connection.command(context, _response(request, status))

    def _take(self, uid: str, digest: str) -> int | None:
        with self._lock:
            self.attempts[uid] += 1
            status = self.answer(uid, self.attempts[uid])
            if status == SUCCESS:
                self.delivered.append(Delivered(uid, digest, time.monotonic()))
            return status


def _response(request: Command, status: int) -> Command:
    echo = request[0x0100] == wire.C_ECHO_RQ
    response: Command = {
        0x0002: request[0x0002],
        0x0100: wire.C_ECHO_RSP if echo else wire.C_STORE_RSP,
        0x0120: request[0x0110],
        0x0800: 0x0101,
        0x0900: status,
    }
    return response if echo else response | {0x1000: request[0x1000]}


class Modality(threading.Thread):
    """Sends files one after the other over one association, and again until each has been acknowledged.

    Parameters
    ----------
    port : of the node
    paths : Part 10 files
    persistent : whether to try again after a broken connection or A700; else every file gets one attempt
    """

    def __init__(self, port: int, paths: Sequence[Path], *, persistent: bool = True) -> None:
        super().__init__(name="modality", daemon=True)
        self.giving_up = threading.Event()
        #: UID -> monotonic time of its 0x0000
        self.acknowledged: dict[str, float] = {}
        #: every other status: how often
        self.refused: Counter[int] = Counter()
        #: UID -> monotonic time at which its sending began, the last time
        self.began: dict[str, float] = {}
        self._port = port
        self._heads = {path: wire.head_of(path) for path in paths}
        self._persistent = persistent

    def run(self) -> None:
        """Until everything is acknowledged, or `giving_up` is set."""
        pending = list(self._heads)
        while pending and not self.giving_up.is_set():
            pending = self._round(pending)
            if not self._persistent:
                return
            if pending:
                self.giving_up.wait(_REST_S)

    def _round(self, pending: list[Path]) -> list[Path]:
        """One association; what is still to be sent."""
        left = list(pending)
        contexts = sorted({(head.sop_class_uid, head.transfer_syntax_uid) for head in self._heads.values()})
        association = None
        with contextlib.suppress(Broken):
            association = wire.call(self._port, "NODE", "MODALITY", contexts, _PATIENCE_S)
            for path in pending:
                if self.giving_up.is_set():
                    break
                if self._send(association, path):
                    left.remove(path)
            association.release()
        if association is not None:
            association.close()
        return left

    def _send(self, association: wire.Association, path: Path) -> bool:
        head = self._heads[path]
        self.began[head.sop_instance_uid] = time.monotonic()
        status = association.store(path, head)
        if status == SUCCESS:
            self.acknowledged[head.sop_instance_uid] = time.monotonic()
            return True
        self.refused[status] += 1
        if self._persistent:
            self.giving_up.wait(_REST_S)
        return False


class DcmtkModality(threading.Thread):
    """The same with DCMTK's storescu, started again with what is left whenever it fails."""

    _LINE = re.compile(r"^I: (?:Sending file: (?P<path>.+)|Received Store Response \((?P<said>.*)\))$", re.M)

    def __init__(self, port: int, paths: Sequence[Path]) -> None:
        super().__init__(name="storescu", daemon=True)
        self.giving_up = threading.Event()
        self.acknowledged: dict[str, float] = {}
        self._port = port
        self._uids = {str(path): wire.head_of(path).sop_instance_uid for path in paths}

    def run(self) -> None:
        """Until everything is acknowledged, or `giving_up` is set."""
        while (
            pending := [path for path, uid in self._uids.items() if uid not in self.acknowledged]
        ) and not self.giving_up.is_set():
            self._round(pending)
            self.giving_up.wait(_REST_S)

    def _round(self, pending: list[str]) -> None:
        command = [STORESCU, "-v", "-R", "-xe", "-to", "5", "-ta", "60", "-td", "60", "-aec", "NODE"]
        with subprocess.Popen(
            [*command, "127.0.0.1", str(self._port), *pending],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"TCP_NODELAY": "1"},
        ) as child:
            assert child.stdout is not None
            sending = ""
            for line in child.stdout:
                said = self._LINE.match(line.rstrip("\n"))
                if said is not None and said["path"]:
                    sending = said["path"]
                elif said is not None and said["said"] == "Success":
                    self.acknowledged[self._uids[sending]] = time.monotonic()


@dataclass(frozen=True, slots=True)
class Account:
    """What became of what was sent, at one archive: acknowledged objects that came once, more often, never.

    `changed` counts UIDs that arrived with more than one content; `resent` all arrivals beyond the first.
    """

    sent: int
    accepted: int
    once: int
    more: int
    never: int
    resent: int
    changed: int


def account(sent: int, acknowledged: Mapping[str, float], archive: Archive) -> Account:
    """Balance the books of a sender and an archive."""
    came = archive.digests()
    times = {uid: len(came.get(uid, ())) for uid in acknowledged}
    return Account(
        sent,
        len(acknowledged),
        sum(count == 1 for count in times.values()),
        sum(count > 1 for count in times.values()),
        sum(count == 0 for count in times.values()),
        sum(len(digests) - 1 for digests in came.values()),
        sum(len(set(digests)) > 1 for digests in came.values()),
    )
