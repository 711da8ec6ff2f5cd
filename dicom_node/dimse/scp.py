"""The receiver: accept, keep, record, answer; no other logic.

Rules that bind here:
1. 0x0000 is answered only after the bytes are in the spool and the row is in the ledger, both on disk.
2. The data set is kept as it came, byte for byte, and no value but its two UIDs is ever decoded.
3. Nothing off the wire names a file, is logged as it is, or is believed before it was checked.
4. A bad peer costs its own association and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from socketserver import BaseServer
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.pdu_primitives import SOPClassCommonExtendedNegotiation, UserIdentityNegotiation
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.transport import ThreadedAssociationServer

from dicom_node import log, security
from dicom_node.audit.auditor import Auditor
from dicom_node.audit.events import Objects, Outcome, Party, Study, Transferred
from dicom_node.blobs.port import BlobStore
from dicom_node.config import Config, Role
from dicom_node.dimse import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, direct, patches, secure
from dicom_node.dimse.admission import (
    Admission,
    Identities,
    Identity,
    Peer,
    Rejection,
    rejection,
    stranger,
)
from dicom_node.dimse.contexts import (
    SERVICES,
    STORAGE_CLASSES,
    STORAGE_COMMITMENT,
    VERIFICATION,
    choose_syntax,
    is_accepted_class,
    is_storage,
)
from dicom_node.dimse.reception import NO_ROOM, Intake, Reception, Refusal, error_refusal
from dicom_node.dimse.visits import Visit
from dicom_node.errors import NodeError, OutputError
from dicom_node.jobs import PASSED, Arrival, InstanceState
from dicom_node.metrics import ASSOCIATIONS, RECEIVED_BYTES, STAGE_SECONDS, STORES, Declaration, Reading
from dicom_node.spool import Blob

if TYPE_CHECKING:  # who asks an archive listens here too, and has no ledger
    from dicom_node.ledger import Added, Ledger

_LOG = logging.getLogger(__name__)

#: the Storage Service Class (PS3.4 annex B), under which private classes are served
_STORAGE_SERVICE = "1.2.840.10008.4.2"
_IMPLICIT_LITTLE = "1.2.840.10008.1.2"
#: connections that have not asked for an association yet, beyond `max_associations`; and those of one address
_SPARE_CONNECTIONS, _SPARE_OF_ADDRESS = 500, 250
#: seconds that such a connection may take to ask; before that, as many for the handshake of TLS
ASK_S = 10.0
_POLL_S = 0.1
#: seconds without a poll after which the loop that takes connections is stuck
_STUCK_S = 30.0
#: what accepting a connection fails of while the machine has no room for it, and seconds until the next try
_EXHAUSTED, _RECOVER_S = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM), 0.5
#: seconds between two collections of ended associations, which are cycles that hold buffers
_COLLECT_S = 30.0
#: PS3.7 table D.3-14: the identity is a user name and a passcode
_USER_AND_PASSCODE = 2
#: PS3.8 table 9-21: a transient rejection by the ACSE provider, without a reason
_FAULT = (2, 2, 1)
#: PS3.7 annex C.5: the VR of Error Comment is LO
_COMMENT_LENGTH = 64

SUCCESS = 0x0000


class Receiver:
    """The storage and verification SCP of a node.

    Parameters
    ----------
    config : where to listen, whom to accept
    spool, ledger : where objects and their jobs are kept
    on_arrival : called after every object that was kept and waits for a worker, from the thread of its
        association
    on_queued : called after every other, with the name of each destination that it waits for
    services : events of pynetdicom with their handlers, for what `contexts.SERVICES` has beyond Verification
    auditor : is told what was refused; None without an audit trail
    """

    def __init__(
        self,
        config: Config,
        spool: BlobStore,
        ledger: Ledger,
        *,
        on_arrival: Callable[[], object] = lambda: None,
        on_queued: Callable[[str], object] = lambda _destination: None,
        services: Sequence[tuple[Any, Callable[[Any], Any]]] = (),
        auditor: Auditor | None = None,
    ) -> None:
        self._config = config
        self._spool = spool
        self._ledger = ledger
        self._on_arrival = on_arrival
        self._on_queued = on_queued
        self._auditor = auditor
        self._servers: list[Server] = []
        self._services = tuple(services)
        self._admission = Admission(config.node.max_associations, config.node.max_associations_per_peer)
        self._identities = Identities(config.access)
        self._storing: set[Any] = set()
        self._visits: dict[Any, Visit] = {}
        self._open: set[Any] = set()
        #: association -> name of the route that its objects take, to its end
        self._routes: dict[Any, str] = {}
        self._lock = threading.Lock()

    @property
    def port(self) -> int | None:
        """The port that is listened on in the clear; None is none."""
        return self._port_of(False, self._config.node.port)

    @property
    def tls_port(self) -> int | None:
        """The port that is listened on with TLS; None is none."""
        return self._port_of(True, self._config.node.tls_port)

    def _port_of(self, secured: bool, configured: int | None) -> int | None:
        ports = [int(server.server_address[1]) for server in self._servers if bool(server.door) is secured]
        return ports[0] if ports else configured

    @property
    def listening(self) -> bool:
        """Whether associations are being accepted."""
        return bool(self._servers)

    @property
    def associations(self) -> list[Any]:
        """Every connection that has not ended, asked for an association or not."""
        return [association for server in self._servers for association in server.active_associations]

    @property
    def alive(self) -> bool:
        """Whether every loop that takes connections goes round."""
        oldest = min((server.turned_at for server in self._servers), default=0.0)
        return bool(self._servers) and time.monotonic() - oldest < _STUCK_S

    @property
    def open_associations(self) -> int:
        """How many associations are open."""
        return len(self._open)

    def start(self) -> None:
        """Listen; returns at once.

        Raises OutputError when an address cannot be bound, TlsError when a file for TLS is no good.
        """
        patches.apply()
        node, tls = self._config.node, self._config.tls
        door = None if node.tls_port is None else secure.Door(tls, node.tls_clients)
        wanted = [(node.port, None), (node.tls_port, door)]
        with contextlib.ExitStack() as undo:
            for port, behind in wanted:
                if port is not None:
                    server = self._listen(port, behind)
                    undo.callback(server.server_close)
                    self._servers.append(server)
            undo.pop_all()
        for server in self._servers:
            serve = threading.Thread(
                target=server.serve_forever, args=(_POLL_S,), name="receiver", daemon=True
            )
            serve.start()

    def _listen(self, port: int, door: secure.Door | None) -> Server:
        bind = self._config.node.bind
        try:
            server = self._entity().make_server(
                (bind, port),
                contexts=[build_context(VERIFICATION)],
                evt_handlers=[
                    (evt.EVT_REQUESTED, self._on_requested),
                    (evt.EVT_SOP_COMMON, serve_unregistered),
                    (evt.EVT_C_STORE, self._on_store),
                    (evt.EVT_ESTABLISHED, self._on_established),
                    *self._services,
                ],
                server_class=Server,
            )
        except OSError as error:
            raise OutputError(
                f"cannot listen on {bind}:{port}: {error.strerror}; is another program there?"
            ) from error
        assert isinstance(server, Server)
        server.turned_at = time.monotonic()
        server.connection_limit = self._config.node.max_associations + _SPARE_CONNECTIONS
        server.door = door
        return server

    def adopt(self, config: Config) -> None:
        """Take the next associations by another configuration; those that are open keep route and terms.

        Raises TlsError or KeyFileError when a file that it names is no good; nothing has changed then. What
        it does not change goes on with what was read last: its files may be no good at this moment.
        """
        node, before = config.node, self._config
        same_door = (config.tls, node.tls_clients) == (before.tls, before.node.tls_clients)
        doors = [
            server.door if same_door or server.door is None else secure.Door(config.tls, node.tls_clients)
            for server in self._servers
        ]
        if config.access != before.access:  # else who is locked out stays so
            self._identities = Identities(config.access)
        self._admission.resize(node.max_associations, node.max_associations_per_peer)
        self._config = config
        for server, door in zip(self._servers, doors, strict=True):
            server.ae.network_timeout = node.idle_s
            server.connection_limit = node.max_associations + _SPARE_CONNECTIONS
            server.door = door

    def stop(self, drain_s: float = 10.0) -> None:
        """Accept no more, give objects under way `drain_s` seconds to arrive, then hang up."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.shutdown()
        deadline = time.monotonic() + drain_s
        while (left := _established(servers)) and time.monotonic() < deadline:
            for association in left:
                if not self._is_receiving(association):
                    association.abort(block=False)
            time.sleep(0.02)
        for server in servers:
            for association in server.active_associations:
                patches.hang_up(association)

    def _entity(self) -> Any:
        entity = AE(ae_title=self._config.node.ae_title)
        entity.maximum_pdu_size = self._config.node.max_pdu
        entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        entity.acse_timeout = ASK_S
        entity.network_timeout = self._config.node.idle_s
        # the library counts connections that never asked for an association; `Admission` counts the rest
        entity.maximum_associations = 1_000_000
        return entity

    def _is_receiving(self, association: Any) -> bool:
        return association in self._storing or patches.is_receiving(association)

    def _on_requested(self, event: Any) -> None:
        """Let a peer in or not. The library would swallow a fault in here and let it in unexamined."""
        association = event.assoc
        try:
            self._receive(association, association.requestor.primitive)
        except Exception as error:
            log.event(_LOG, "association-fault", level=logging.ERROR, error=error)
            association.acse.send_reject(*_FAULT)
            association.kill()

    def _receive(self, association: Any, request: Any) -> None:
        peer = Peer(request.calling_ae_title.strip(), association.requestor.address)
        called_ae = request.called_ae_title.strip()
        verdict = self._verdict(association, peer, called_ae)
        if verdict is not None:
            self._count(ASSOCIATIONS, peer.calling_ae, "rejected", verdict.word)
            _reject(association, verdict, peer, called_ae)
            return
        self._visits[association] = Visit(association, peer, called_ae)
        intake = Intake(
            lambda *said: self._begin(association, *said),
            lambda: self._on_ended(association, peer.calling_ae),
        )
        patches.conduct(
            association,
            intake,
            self._config.node.stall_s,
            lambda reception, send: self._answer(association, reception, send),
        )
        route = self._config.route_for(peer.calling_ae, called_ae)
        if route is not None:
            with self._lock:
                self._routes[association] = route.name
        # without a route there is nothing to store; the peer may still answer a request of ours
        accepts = SERVICES.__contains__ if route is None else is_accepted_class
        negotiate(association, request.presentation_context_definition_list, accepts)

    def _verdict(self, association: Any, peer: Peer, called_ae: str) -> Rejection | None:
        """Why an association is rejected, the cheapest question first; None when it has its place."""
        proof = secure.proof_of(association.dul.socket.socket)
        return (
            rejection(self._config, peer.calling_ae, called_ae)
            or stranger(self._config.access, peer, proof)
            or self._admission.admit(association, peer)
            or self._identity_rejection(association, peer)
        )

    def _identity_rejection(self, association: Any, peer: Peer) -> Rejection | None:
        if not self._identities.required(peer):
            return None
        offered = association.requestor.user_identity
        verdict = self._identities.rejection(peer, _identity(offered))
        if verdict is None and offered.positive_response_requested:
            association.acceptor.add_negotiation_item(_positive_response())
        return verdict

    def _on_established(self, event: Any) -> None:
        patches.install_gate(event.assoc)
        with self._lock:
            self._open.add(event.assoc)
        self._count(ASSOCIATIONS, event.assoc.requestor.ae_title, "accepted", "")

    def _on_ended(self, association: Any, calling_ae: str) -> None:
        visit = self._visits.pop(association, None)
        if visit is not None:
            visit.ended()
        with self._lock:
            was_open = association in self._open
            self._open.discard(association)
            self._routes.pop(association, None)
        if was_open:
            end = "released" if association.is_released else "aborted"
            self._count(ASSOCIATIONS, calling_ae, end, "")

    def _count(self, metric: Declaration, calling_ae: str, *labels: str) -> None:
        """Count what leaves no row; only the names of the configuration are told apart."""
        self._ledger.count_soon(Reading(metric, (self._config.peer(calling_ae), *labels)))

    def _begin(self, association: Any, sop_class: str, sop_instance: str, context_id: int) -> Reception:
        """Start to receive what a command announces; KeyError for a context that was not accepted."""
        context = association._accepted_cx[context_id]
        arrival = self._arrival(association, sop_class, sop_instance, str(context.transfer_syntax[0]))
        return Reception(arrival, str(context.abstract_syntax), self._spool)

    def _answer(self, association: Any, reception: Reception, send: direct.Send) -> None:
        """Keep an object and send the status; who works on it is woken when the sender has its answer."""
        with self._receiving(association):
            outcome = self._conclude(association, reception)
            if isinstance(outcome, Refusal):
                send(outcome.status, outcome.comment[:_COMMENT_LENGTH])
            else:
                send(SUCCESS, "")
        if not isinstance(outcome, Refusal):
            self._ring(outcome)

    def _on_store(self, event: Any) -> int | Dataset:
        """Answer a request that the library took: out of the ordinary, or in a queue behind another."""
        with self._receiving(event.assoc):
            outcome = self._conclude(event.assoc, self._reception(event))
        patches.busy(event.assoc)
        if isinstance(outcome, Refusal):
            return _refuse(outcome)
        self._ring(outcome)
        return SUCCESS

    def _conclude(self, association: Any, reception: Reception) -> Refusal | Added:
        """Keep what has arrived, or say why not; told to whoever wants to know."""
        arrived = time.monotonic()
        outcome = reception.finish()
        size = outcome.size if isinstance(outcome, Blob) else 0
        recorded: Refusal | Added
        if isinstance(outcome, Blob):
            took = (arrived - reception.started, time.monotonic() - arrived)
            recorded = self._record(reception, outcome, took, association.requestor.address)
        else:
            recorded = outcome
        visit = self._visits.get(association)
        if isinstance(recorded, Refusal):
            if visit is not None:
                visit.refused()
            self._tell_refused(association, reception, recorded)
            self._count(STORES, reception.arrival.calling_ae, f"{recorded.status:04x}")
            _log_refused(reception.arrival, recorded)
        elif visit is not None:
            visit.kept(size)
        return recorded

    def _reception(self, event: Any) -> Reception:
        """What has arrived with a request; from memory if the library is not repaired."""
        reception: Reception | None = patches.take_inflow(event.assoc, event.request)
        if reception is None:
            request = event.request
            said = (str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID))
            reception = self._begin(event.assoc, *said, event.context.context_id)
            with event.request.DataSet.getbuffer() as data_set:
                reception.write(data_set)
        return reception

    def _record(
        self, reception: Reception, blob: Blob, took: tuple[float, float], address: str
    ) -> Refusal | Added:
        """Write the row of an object whose bytes are kept; from then on it may be acknowledged.

        `took` are the seconds in which it came, and in which it was kept.
        """
        arrival = reception.arrival
        readings = _readings(self._config.peer(arrival.calling_ae), blob, *took)
        route = self._config.route(arrival.route)
        straight = route if route is not None and route.role is Role.PASS else None
        try:
            added = self._ledger.add(
                arrival,
                blob.name,
                blob.size,
                readings,
                straight_to=() if straight is None else straight.destinations,
                priority=0 if straight is None else straight.priority,
            )
        except Exception as error:
            level = logging.ERROR if isinstance(error, NodeError) else logging.CRITICAL
            log.event(_LOG, "not-kept", level=level, error=error)
            return error_refusal(error)
        if self._auditor is not None and not added.duplicate:
            self._auditor.heard(added.id, address)
        if added.conflict or _LOG.isEnabledFor(logging.DEBUG):
            _log_kept(reception, added, blob.size)
        return added

    def _ring(self, added: Added) -> None:
        """Wake who works on an object that was kept, or those who send it."""
        for destination in added.queued_for:
            self._on_queued(destination)
        if not added.queued_for:
            self._on_arrival()

    def _tell_refused(self, association: Any, reception: Reception, refused: Refusal) -> None:
        if self._auditor is None:
            return
        outcome = Outcome.MINOR if refused == NO_ROOM else Outcome.SERIOUS
        # of the class that was agreed on: a refused command may say anything, and something new each time
        sop_class = reception.negotiated_class
        told = Transferred(
            time.time(),
            Party(reception.arrival.calling_ae, association.requestor.address),
            Party(reception.arrival.called_ae, self._auditor.origin.host),
            Objects(Study(), ((sop_class, 1),)),
            outcome=outcome,
            why=f"{refused.status:04X} {refused.comment}",
        )
        self._auditor.tell(told)

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

    def _arrival(self, association: Any, sop_class: str, sop_instance: str, transfer_syntax: str) -> Arrival:
        calling_ae = association.requestor.ae_title.strip()
        called_ae = association.requestor.primitive.called_ae_title.strip()
        return Arrival(
            sop_class_uid=sop_class,
            sop_instance_uid=sop_instance,
            transfer_syntax_uid=transfer_syntax,
            calling_ae=calling_ae,
            called_ae=called_ae,
            # without one no context for storage was accepted
            route=self._routes[association],
        )


class Server(ThreadedAssociationServer):
    """A listener that one bad peer cannot fill."""

    request_queue_size = 128
    daemon_threads = True
    block_on_close = False
    connection_limit = _SPARE_CONNECTIONS
    collect_at = 0.0
    turned_at = 0.0
    #: what shakes hands with those who connect; None is a port in the clear
    door: secure.Door | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        #: connections whose handshake is under way, and their addresses
        self._shaking: dict[Any, str] = {}
        self._stopped = False
        self._shaking_lock = threading.Lock()
        super().__init__(*arguments, **named)

    def get_request(self) -> tuple[socket.socket, Any]:
        assert self.socket is not None
        try:
            connection, address = self.socket.accept()
        except OSError as error:
            if error.errno in _EXHAUSTED:  # who waits would be announced again at once, and for ever
                log.event(_LOG, "association-fault", level=logging.ERROR, error=error)
                time.sleep(_RECOVER_S)
            raise
        patches.send_at_once(connection)
        patches.keep_alive(connection)
        return connection, address

    def verify_request(self, _connection: Any, address: Any) -> bool:
        present = self.active_associations
        silent = [other for other in present if other.requestor.primitive is None]
        of_address = sum(other.requestor.address == address[0] for other in silent)
        with self._shaking_lock:
            shaking = list(self._shaking.values())
        count, of_address = len(present) + len(shaking), of_address + shaking.count(address[0])
        return count < self.connection_limit and of_address < _SPARE_OF_ADDRESS

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Called in a thread of the connection's own, so that a handshake keeps nobody waiting but itself."""
        if self.door is not None:
            with self._counted(request, client_address[0]):
                connection = self.door.shake(request, client_address, ASK_S)
            if connection is None or self._stopped:
                self.shutdown_request(request)
                if connection is not None:
                    connection.close()
                return
            request.close()
            request = connection
        super().finish_request(request, client_address)

    @contextlib.contextmanager
    def _counted(self, request: Any, address: str) -> Iterator[None]:
        with self._shaking_lock:
            self._shaking[request] = address
        try:
            yield
        finally:
            with self._shaking_lock:
                del self._shaking[request]

    def handle_error(self, _request: Any, _address: Any) -> None:
        """Say that a connection was lost to a fault; the library would print whatever the error quotes."""
        log.event(_LOG, "association-fault", level=logging.ERROR, error=sys.exception())

    def service_actions(self) -> None:
        """Called at every poll; the library would collect garbage at every sixtieth."""
        self.turned_at = time.monotonic()
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
        with self._shaking_lock:
            self._stopped = True
            for connection in self._shaking:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


def _identity(item: Any) -> Identity | None:
    """The user name and passcode of a User Identity item; None for every other kind, or none."""
    if item is None or item.user_identity_type != _USER_AND_PASSCODE:
        return None
    return Identity(bytes(item.primary_field).decode("utf-8", "replace"), bytes(item.secondary_field or b""))


def _positive_response() -> UserIdentityNegotiation:
    """Says that the identity was believed; its only field is empty for passcodes (PS3.7 table D.3-15)."""
    item = UserIdentityNegotiation()
    item.server_response = b""
    return item


def _established(servers: Sequence[Server]) -> list[Any]:
    return [association for server in servers for association in server.established()]


def _reject(association: Any, verdict: Rejection, peer: Peer, called_ae: str) -> None:
    security.tell(
        security.Occurrence("association-rejected", verdict.word, peer.address, peer.calling_ae, called_ae)
    )
    association.acse.send_reject(verdict.result, verdict.source, verdict.reason)
    association.kill()


def negotiate(association: Any, proposed: list[PresentationContext], accepts: Callable[[str], bool]) -> None:
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
        # asked of us, and answered to us (PS3.4 section J.3.3)
        if context.abstract_syntax == STORAGE_COMMITMENT:
            context.scu_role = context.scp_role = True
    association.acceptor.supported_contexts = contexts


def serve_unregistered(event: Any) -> dict[str, SOPClassCommonExtendedNegotiation]:
    """Serve private and unregistered classes as storage; the library would abort at the first object."""
    proposed = event.assoc.requestor.primitive.presentation_context_definition_list
    classes = {str(context.abstract_syntax) for context in proposed}
    return {uid: _as_storage(uid) for uid in classes if uid not in STORAGE_CLASSES and is_storage(uid)}


def _as_storage(sop_class_uid: str) -> SOPClassCommonExtendedNegotiation:
    item = SOPClassCommonExtendedNegotiation()
    item.sop_class_uid = sop_class_uid
    item.service_class_uid = _STORAGE_SERVICE
    return item


def _readings(peer: str, blob: Blob, receive_s: float, spool_s: float) -> tuple[Reading, ...]:
    """What is counted of an object with its row."""
    return (
        Reading(STORES, (peer, f"{SUCCESS:04x}")),
        Reading(RECEIVED_BYTES, (peer,), blob.size),
        Reading(STAGE_SECONDS, ("receive",), receive_s),
        Reading(STAGE_SECONDS, ("spool",), spool_s),
    )


def _log_kept(reception: Reception, added: Added, size: int) -> None:
    """What it was part of, and what becomes of it, is told elsewhere; this is for whoever looks closer."""
    arrival, uid = reception.arrival, log.uid_hash(reception.arrival.sop_instance_uid)
    if added.conflict:
        log.event(
            _LOG,
            "same-uid-other-content",
            level=logging.WARNING,
            job=added.id,
            uid=uid,
            route=arrival.route,
            calling_ae=arrival.calling_ae,
        )
    seconds = time.monotonic() - reception.started
    log.event(
        _LOG,
        "received",
        level=logging.DEBUG,
        job=added.id,
        uid=uid,
        route=arrival.route,
        sop_class=arrival.sop_class_uid,
        transfer_syntax=arrival.transfer_syntax_uid,
        calling_ae=arrival.calling_ae,
        bytes=size,
        duplicate=added.duplicate,
        conflict=added.conflict,
        receive_s=seconds,
    )
    if added.queued_for:  # the line of a worker, who had nothing to do
        log.event(
            _LOG,
            "processed",
            level=logging.DEBUG,
            job=added.id,
            uid=uid,
            route=arrival.route,
            state=InstanceState.READY,
            result=PASSED,
            total_s=seconds,
        )


def _log_refused(arrival: Arrival, refused: Refusal) -> None:
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


def _refuse(refused: Refusal) -> Dataset:
    """The answer of a handler to a request that is not kept."""
    status = Dataset()
    status.Status = refused.status
    status.ErrorComment = refused.comment[:_COMMENT_LENGTH]
    return status
