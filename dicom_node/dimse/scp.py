"""The receiver: accept, keep, record, answer; no other logic.

Rules that bind here:
1. 0x0000 is answered only after the bytes are in the spool and the row is in the ledger, both on disk.
2. The data set is kept as it came, byte for byte, and is never decoded.
3. Nothing off the wire names a file, is logged as it is, or is believed before it was checked.
4. A bad peer costs its own association and nothing else.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from socketserver import BaseServer
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.pdu_primitives import SOPClassCommonExtendedNegotiation
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.transport import ThreadedAssociationServer

from dicom_node import log
from dicom_node.config import CalledAE, Config, Match
from dicom_node.dimse import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, patches
from dicom_node.dimse.contexts import (
    SERVICES,
    STORAGE_CLASSES,
    STORAGE_COMMITMENT,
    VERIFICATION,
    choose_syntax,
    is_accepted_class,
    is_storage,
    is_uid,
)
from dicom_node.errors import NodeError, OutputError
from dicom_node.jobs import Arrival
from dicom_node.ledger import Ledger
from dicom_node.spool import Spool

_LOG = logging.getLogger(__name__)

#: the Storage Service Class (PS3.4 annex B), under which private classes are served
_STORAGE_SERVICE = "1.2.840.10008.4.2"
_IMPLICIT_LITTLE = "1.2.840.10008.1.2"
#: connections that have not asked for an association yet, beyond `max_associations`
_SPARE_CONNECTIONS = 400
#: seconds that such a connection may take to ask
_ASK_S = 10.0
_POLL_S = 0.1
#: seconds between two collections of ended associations, which are cycles that hold buffers
_COLLECT_S = 30.0
_CANNOT = "cannot process; see the log of the node"
_COMMENTS = {0xA700: "out of resources; send it again later"}

SUCCESS = 0x0000


@dataclass(frozen=True, slots=True)
class Rejection:
    """An A-ASSOCIATE-RJ: result, source and reason of PS3.8 table 9-21, and a word for the log."""

    result: int
    source: int
    reason: int
    word: str


UNKNOWN_CALLER = Rejection(1, 1, 3, "unknown-calling-ae")
UNKNOWN_CALLED = Rejection(1, 1, 7, "unknown-called-ae")
TOO_MANY = Rejection(2, 3, 2, "too-many-associations")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A C-STORE status other than success, and why: at most 64 characters, longer comments break peers."""

    status: int
    comment: str


def rejection(config: Config, calling_ae: str, called_ae: str) -> Rejection | None:
    """Why an association is not for us, or None when it is."""
    if config.node.accept_called_ae is CalledAE.OWN and called_ae != config.node.ae_title:
        return UNKNOWN_CALLED
    if config.route_for(calling_ae, called_ae) is not None or config.answers_commitment(calling_ae):
        return None
    known = any(Match(calling_ae=route.match.calling_ae).takes(calling_ae, "") for route in config.routes)
    return UNKNOWN_CALLED if known else UNKNOWN_CALLER


def refusal(arrival: Arrival, negotiated_class: str, size: int) -> Refusal | None:
    """Why a C-STORE request cannot be kept, or None when it can; `size` is that of its data set in bytes."""
    if not is_uid(arrival.sop_instance_uid):
        return Refusal(0x0117, "the SOP Instance UID breaks the rules for UIDs")
    if arrival.sop_class_uid != negotiated_class:
        return Refusal(0x0122, "the SOP class is not that of the presentation context")
    if not size:
        return Refusal(0xC000, "the request has no data set")
    return None


def part10_head(arrival: Arrival) -> bytes:
    """Preamble and file meta information (PS3.10 section 7.1) of what arrived.

    The same object gives the same bytes whenever and from whomever it comes, so that the hash of the file
    tells whether it came before: no time, no AE title, no version of this software.
    """
    elements = b"".join(
        (
            _element(0x0001, b"OB\0\0", b"\0\1"),
            _element(0x0002, b"UI", _uid(arrival.sop_class_uid)),
            _element(0x0003, b"UI", _uid(arrival.sop_instance_uid)),
            _element(0x0010, b"UI", _uid(arrival.transfer_syntax_uid)),
            _element(0x0012, b"UI", _uid(IMPLEMENTATION_CLASS_UID)),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode()),
        )
    )
    return bytes(128) + b"DICM" + _element(0x0000, b"UL", struct.pack("<I", len(elements))) + elements


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    """An element of group 0002, Explicit VR Little Endian; a VR of four bytes has a long length field."""
    value += b" " * (len(value) % 2) if vr == b"SH" else b"\0" * (len(value) % 2)
    return (
        struct.pack("<HH", 0x0002, number)
        + vr
        + struct.pack("<I" if len(vr) == 4 else "<H", len(value))
        + value
    )


def _uid(uid: str) -> bytes:
    return uid.encode("ascii")


class Receiver:
    """The storage and verification SCP of a node.

    Parameters
    ----------
    config : where to listen, whom to accept
    spool, ledger : where objects and their jobs are kept
    on_arrival : called after every object that was kept, from the thread of its association
    services : events of the library and what answers them, for what is served beside storage
    """

    def __init__(
        self,
        config: Config,
        spool: Spool,
        ledger: Ledger,
        *,
        on_arrival: Callable[[], object] = lambda: None,
        services: Sequence[tuple[Any, Callable[[Any], Any]]] = (),
    ) -> None:
        self._config = config
        self._spool = spool
        self._ledger = ledger
        self._on_arrival = on_arrival
        self._services = services
        self._server: _Server | None = None
        self._admitted: set[Any] = set()
        self._storing: set[Any] = set()
        self._lock = threading.Lock()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._config.node.port if self._server is None else int(self._server.server_address[1])

    @property
    def listening(self) -> bool:
        """Whether associations are being accepted."""
        return self._server is not None

    def start(self) -> None:
        """Listen; returns at once. Raises OutputError when the address cannot be bound."""
        patches.apply()
        node = self._config.node
        try:
            self._server = self._entity().make_server(
                (node.bind, node.port),
                contexts=[build_context(VERIFICATION)],
                evt_handlers=[
                    (evt.EVT_REQUESTED, self._on_requested),
                    (evt.EVT_SOP_COMMON, self._on_common_extended),
                    (evt.EVT_C_STORE, self._on_store),
                    (evt.EVT_ESTABLISHED, lambda event: patches.install_gate(event.assoc)),
                    (evt.EVT_CONN_CLOSE, _on_closed),
                    *self._services,
                ],
                server_class=_Server,
            )
        except OSError as error:
            raise OutputError(
                f"cannot listen on {node.bind}:{node.port}: {error.strerror}; is another program there?"
            ) from error
        self._server.connection_limit = node.max_associations + _SPARE_CONNECTIONS
        serve = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="receiver", daemon=True
        )
        serve.start()

    def stop(self, drain_s: float = 10.0) -> None:
        """Accept no more, give objects under way `drain_s` seconds to arrive, then hang up."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.shutdown()
        deadline = time.monotonic() + drain_s
        while server.established() and time.monotonic() < deadline:
            for association in server.established():
                if not self._is_receiving(association):
                    association.abort(block=False)
            time.sleep(0.02)
        for association in server.active_associations:
            patches.hang_up(association)

    def _entity(self) -> Any:
        entity = AE(ae_title=self._config.node.ae_title)
        entity.maximum_pdu_size = self._config.node.max_pdu
        entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        entity.acse_timeout = _ASK_S
        # the library counts connections that never asked for an association; `_admit` counts associations
        entity.maximum_associations = 1_000_000
        return entity

    def _is_receiving(self, association: Any) -> bool:
        return (
            association in self._storing
            or association.dimse.message is not None
            or not association.dimse.msg_queue.empty()
        )

    def _on_requested(self, event: Any) -> None:
        request = event.assoc.requestor.primitive
        calling_ae, called_ae = request.calling_ae_title.strip(), request.called_ae_title.strip()
        verdict = self._admit(event.assoc, calling_ae, called_ae)
        if verdict is not None:
            log.event(_LOG, "association-rejected", level=logging.WARNING, reason=verdict.word)
            event.assoc.acse.send_reject(verdict.result, verdict.source, verdict.reason)
            event.assoc.kill()
        else:
            # without a route there is nothing to store; it may still answer a request of ours
            stores = self._config.route_for(calling_ae, called_ae) is not None
            accepts = is_accepted_class if stores else SERVICES.__contains__
            _negotiate(event.assoc, request.presentation_context_definition_list, accepts)

    def _admit(self, association: Any, calling_ae: str, called_ae: str) -> Rejection | None:
        verdict = rejection(self._config, calling_ae, called_ae)
        if verdict is not None:
            return verdict
        with self._lock:
            self._admitted = {other for other in self._admitted if other.is_alive()}
            if len(self._admitted) >= self._config.node.max_associations:
                return TOO_MANY
            self._admitted.add(association)
        return None

    def _on_common_extended(self, event: Any) -> dict[str, SOPClassCommonExtendedNegotiation]:
        """Serve private and unregistered classes as storage; the library would abort at the first object."""
        proposed = event.assoc.requestor.primitive.presentation_context_definition_list
        classes = {str(context.abstract_syntax) for context in proposed}
        return {uid: _as_storage(uid) for uid in classes if uid not in STORAGE_CLASSES and is_storage(uid)}

    def _on_store(self, event: Any) -> int | Dataset:
        arrival = self._arrival(event)
        with self._receiving(event.assoc), event.request.DataSet.getbuffer() as data_set:
            refused = refusal(arrival, event.context.abstract_syntax, len(data_set))
            refused = refused or self._attempt(arrival, data_set)
        if refused is not None:
            log.event(
                _LOG,
                "refused",
                level=logging.WARNING,
                uid=log.uid_hash(arrival.sop_instance_uid),
                route=arrival.route,
                calling_ae=arrival.calling_ae,
                status=f"{refused.status:04x}",
                reason=refused.comment,
            )
            return _status(refused)
        self._on_arrival()
        return SUCCESS

    def _attempt(self, arrival: Arrival, data_set: memoryview) -> Refusal | None:
        """Keep an object, and turn whatever goes wrong into an answer."""
        try:
            self._keep(arrival, data_set)
        except NodeError as error:
            log.event(_LOG, "not-kept", level=logging.ERROR, error=error)
            return Refusal(error.dimse_status, _COMMENTS.get(error.dimse_status, _CANNOT))
        except Exception as error:
            log.event(_LOG, "not-kept", level=logging.CRITICAL, error=error)
            return Refusal(0xC000, _CANNOT)
        return None

    def _keep(self, arrival: Arrival, data_set: memoryview) -> None:
        """Room, bytes, row: the lines between a C-STORE request and its answer."""
        started = time.monotonic()
        self._spool.check_room()
        blob = self._spool.put((part10_head(arrival), data_set))
        added = self._ledger.add(arrival, blob.name, blob.size)
        log.event(
            _LOG,
            "received",
            job=added.id,
            uid=log.uid_hash(arrival.sop_instance_uid),
            sop_class=arrival.sop_class_uid,
            transfer_syntax=arrival.transfer_syntax_uid,
            route=arrival.route,
            calling_ae=arrival.calling_ae,
            bytes=blob.size,
            duplicate=added.duplicate,
            conflict=added.conflict,
            receive_s=time.monotonic() - started,
        )

    @contextlib.contextmanager
    def _receiving(self, association: Any) -> Iterator[None]:
        """Mark an association as busy, so that `stop` lets it finish."""
        with self._lock:
            self._storing.add(association)
        try:
            yield
        finally:
            with self._lock:
                self._storing.discard(association)

    def _arrival(self, event: Any) -> Arrival:
        calling_ae = event.assoc.requestor.ae_title.strip()
        called_ae = event.assoc.requestor.primitive.called_ae_title.strip()
        route = self._config.route_for(calling_ae, called_ae)
        assert route is not None  # or the association would have been rejected
        return Arrival(
            sop_class_uid=str(event.request.AffectedSOPClassUID),
            sop_instance_uid=str(event.request.AffectedSOPInstanceUID),
            transfer_syntax_uid=str(event.context.transfer_syntax),
            calling_ae=calling_ae,
            called_ae=called_ae,
            route=route.name,
        )


class _Server(ThreadedAssociationServer):
    """A listener that one bad peer cannot fill."""

    request_queue_size = 128
    daemon_threads = True
    block_on_close = False
    connection_limit = _SPARE_CONNECTIONS
    collect_at = 0.0

    def get_request(self) -> tuple[socket.socket, Any]:
        assert self.socket is not None
        connection, address = self.socket.accept()
        patches.send_at_once(connection)
        return connection, address

    def verify_request(self, *_connection: Any) -> bool:
        return len(self.active_associations) < self.connection_limit

    def service_actions(self) -> None:
        """Called at every poll; the library would collect garbage at every sixtieth."""
        if time.monotonic() > self.collect_at:
            gc.collect()
            self.collect_at = time.monotonic() + _COLLECT_S

    def established(self) -> list[Any]:
        """The associations that were accepted and have not ended."""
        return [association for association in self.active_associations if association.is_established]

    def shutdown(self) -> None:
        """Stop accepting and close the listening socket; associations live on."""
        BaseServer.shutdown(self)
        self.server_close()


def _negotiate(association: Any, proposed: list[PresentationContext], accepts: Callable[[str], bool]) -> None:
    """Decide every proposed context by our table, then let the library spell the answer.

    The library knows one list of transfer syntaxes per SOP class and lets *our* order decide. So the proposal
    is cut down to what was chosen, context by context, and what was chosen is declared as supported.
    """
    supported: dict[str, list[str]] = {}
    for context in proposed:
        uid = str(context.abstract_syntax)
        if accepts(uid):
            chosen = choose_syntax(uid, context.transfer_syntax)
            if chosen is not None:
                context.transfer_syntax = [chosen]
            # Implicit Little Endian stands for "none of those": where it was proposed, something was chosen
            supported.setdefault(uid, []).append(chosen or _IMPLICIT_LITTLE)
    contexts = [build_context(uid, chosen) for uid, chosen in supported.items()]
    for context in contexts:
        if (
            context.abstract_syntax == STORAGE_COMMITMENT
        ):  # asked of us, and answered to us (PS3.4 section J.3.3)
            context.scu_role = context.scp_role = True
    association.acceptor.supported_contexts = contexts


def _on_closed(event: Any) -> None:
    """End the thread of a connection that closed without a request; it would wait half a minute."""
    if event.assoc.requestor.primitive is None:
        event.assoc.dul.to_user_queue.put(None)


def _as_storage(sop_class_uid: str) -> SOPClassCommonExtendedNegotiation:
    item = SOPClassCommonExtendedNegotiation()
    item.sop_class_uid = sop_class_uid
    item.service_class_uid = _STORAGE_SERVICE
    return item


def _status(refused: Refusal) -> Dataset:
    status = Dataset()
    status.Status = refused.status
    status.ErrorComment = refused.comment
    return status
