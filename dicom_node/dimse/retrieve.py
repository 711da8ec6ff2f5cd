"""Fetching from an archive by C-GET or C-MOVE (PS3.4 annex C.4.2 and C.4.3).

Rules that bind here:
1. Bytes are kept as they come, piece by piece; nothing is decoded but what tells which instance it is.
2. Presentation contexts are proposed for the classes that the archive itself reported, one for each transfer
   syntax, so that it can send every object as it has it.
3. Only what was ordered is kept, whoever sends it.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.presentation import PresentationContext, build_context

from dicom_node.config import Query, QueryPeer, Retrieve, Tls, TlsClients
from dicom_node.dimse import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, patches, secure
from dicom_node.dimse.admission import UNKNOWN_CALLED
from dicom_node.dimse.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES, is_accepted_class, is_uid
from dicom_node.dimse.direct import Send
from dicom_node.dimse.query import (
    PENDING,
    SUCCESS,
    Finder,
    answers,
    associate,
    context_of,
    decoded,
    encoded,
    failure,
)
from dicom_node.dimse.reception import Intake, Reception, Refusal
from dicom_node.dimse.scp import Server, negotiate, serve_unregistered
from dicom_node.dimse.store import MAX_CONTEXTS
from dicom_node.errors import OutputError, PeerError
from dicom_node.inquiry import Keys, Level, Order, Row, Told
from dicom_node.jobs import Arrival
from dicom_node.landing import Landing

STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
WARNING = 0xB000

_SYNTAXES = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]
_MEDIUM = 0x0000
#: classes for one association; each then has some thirty transfer syntaxes
_CLASSES = 4
#: instances that are asked for by name in one request
_NAMED = 50
_POLL_S = 0.05
#: the transfer syntaxes of retired processes and video are proposed last
_FIRST = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")
_RARE = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (*range(52, 57), *range(58, 67), 92, 93, 94, 95, 204, 205))
_NO_TLS = Tls()
PROPOSED_SYNTAXES = tuple(
    dict.fromkeys((*_FIRST, *(uid for uid in TRANSFER_SYNTAXES if uid not in _RARE), *_RARE))
)


class DimseArchive:
    """An archive that is asked by C-FIND and sends by C-GET or C-MOVE.

    Parameters
    ----------
    name, peer : which one, and where it is
    query : the AE title of this machine, and where C-MOVE sends to
    tls : what this machine shows and believes where the archive is asked over TLS, and then sends over TLS

    Raises TlsError when a file that `tls` names is missing or no good.
    """

    def __init__(self, name: str, peer: QueryPeer, query: Query, tls: Tls = _NO_TLS) -> None:
        self.name = name
        self.notes: list[str] = []
        self._peer = peer
        self._calling_ae = query.ae_title or "DICOMNODE"
        self._tls = tls
        self._finder = Finder(name, peer, self._calling_ae, self.notes, tls)
        self._berth: Berth | None = None
        if peer.retrieve is Retrieve.MOVE:
            door = secure.Door(tls, TlsClients.REQUIRED) if peer.tls else None
            self._berth = Berth(query, self._calling_ae, door)
        self._idle: list[_Retriever] = []
        self._busy: set[_Retriever] = set()
        self._lock = threading.Lock()

    def find(self, level: Level, keys: Keys, wanted: tuple[str, ...], limit: int | None) -> Iterator[Row]:
        """See `archives.Source`."""
        return self._finder.find(level, keys, wanted, limit)

    def fetch(self, order: Order, landing: Landing) -> Told:
        """See `archives.Source`; an order of many classes, or many names, is several requests."""
        parts = list(_parts(order, by_class=self._berth is None))
        if self._berth is not None:
            self._berth.open(landing)
        return _summed(self._ask(part, landing) for part in parts)

    def close(self) -> None:
        """See `archives.Source`."""
        with self._lock:
            idle, self._idle, busy = self._idle, [], tuple(self._busy)
        for retriever in idle:
            retriever.close()
        for retriever in busy:
            retriever.abort()
        self._finder.close()
        if self._berth is not None:
            self._berth.close()

    def _ask(self, order: Order, landing: Landing) -> Told:
        with self._lock:
            retriever = self._idle.pop() if self._idle else self._new()
            self._busy.add(retriever)
        try:
            return retriever.fetch(order, landing)
        finally:
            with self._lock:
                self._busy.discard(retriever)
                self._idle.append(retriever)

    def _new(self) -> _Retriever:
        return _Retriever(self.name, self._peer, self._calling_ae, self._tls, moves=self._berth is not None)


def _parts(order: Order, *, by_class: bool) -> Iterator[Order]:
    """The requests that an order takes: a few classes in each, and not too many names."""
    groups = list(_grouped(order)) if by_class else [tuple(order.expected)]
    if order.level is not Level.IMAGE and len(groups) == 1:
        yield order
        return
    for group in groups:
        for start in range(0, len(group), _NAMED):
            yield order.of(group[start : start + _NAMED])


def _grouped(order: Order) -> Iterator[tuple[str, ...]]:
    """The instances by groups of so many classes that one association has room for."""
    classes = sorted(set(order.expected.values()))
    for start in range(0, len(classes), _CLASSES):
        group = set(classes[start : start + _CLASSES])
        yield tuple(uid for uid, sop_class in order.expected.items() if sop_class in group)


def proposed(classes: Iterable[str]) -> list[tuple[str, str]]:
    """(SOP class, transfer syntax) of every context that an association for these classes proposes.

    An archive that did not tell the class of something is offered every storage class, each in the transfer
    syntax that every archive can send.
    """
    known = sorted({uid for uid in classes if is_uid(uid)})
    if not known or "" in set(classes):
        every = dict.fromkeys((*known, *_COMMON, *STORAGE_CLASSES))
        return [(uid, _SYNTAXES[0]) for uid in every][: MAX_CONTEXTS - 1]
    room = (MAX_CONTEXTS - 1) // len(known)
    return [(uid, syntax) for uid in known for syntax in PROPOSED_SYNTAXES[:room]]


#: asked for first where the class is not known: CT, MR, CR, DX, MG, US, secondary capture, PET, XA, fundus
_COMMON = tuple(
    f"1.2.840.10008.5.1.4.1.1.{n}"
    for n in ("2", "2.1", "4", "4.1", "1", "1.1", "1.2", "6.1", "3.1", "7", "128", "12.1", "77.1.5.1")
)


def _summed(answers: Iterable[Told]) -> Told:
    """Several answers as one: the worst status, all counts."""
    told = list(answers)
    worst = next((each.status for each in told if each.status != SUCCESS), SUCCESS)
    failures = tuple(itertools.chain.from_iterable(each.failures for each in told))
    return Told(
        worst,
        sum(each.completed for each in told),
        sum(each.failed for each in told),
        sum(each.warning for each in told),
        failures,
    )


class _Retriever:
    """Makes one request after the other over one association, which is opened anew when it must be."""

    def __init__(self, name: str, peer: QueryPeer, calling_ae: str, tls: Tls, *, moves: bool) -> None:
        self._tls = tls
        self._name, self._peer, self._calling_ae, self._moves = name, peer, calling_ae, moves
        self._association: Any = None
        #: the classes that are offered on the present association, latest use last
        self._classes: dict[str, None] = {}
        self._landing: Landing | None = None
        self._message_ids = itertools.cycle(range(1, 0x10000))

    def fetch(self, order: Order, landing: Landing) -> Told:
        """Fetch one order; raises PeerError when the archive is gone or refuses all of it."""
        self._landing = landing
        try:
            told = self._fetched(order, landing)
        except BaseException:  # nothing is asked again over an association on which anything went wrong
            self._association = None
            raise
        if told.status not in (SUCCESS, WARNING):
            raise failure(self._name, "C-MOVE" if self._moves else "C-GET", told.status)
        return told

    def _fetched(self, order: Order, landing: Landing) -> Told:
        model = STUDY_ROOT_MOVE if self._moves else STUDY_ROOT_GET
        association = self._connected(model, order)
        context = context_of(association, model, self._name)
        request = self._request(model, order, context)
        quiet_s, told = self._peer.timeout_s, Told(SUCCESS)
        for answer in answers(association, request, context, self._name, quiet_s, lambda: landing.moved_at):
            if answer.Status != PENDING:
                told = _told(answer, context)
        return told

    def close(self) -> None:
        association, self._association = self._association, None
        if association is not None and association.is_established:
            with contextlib.suppress(RuntimeError):
                association.release()

    def abort(self) -> None:
        """Break the connection under a request; from any thread."""
        if self._association is not None:
            patches.hang_up(self._association)

    def _connected(self, model: str, order: Order) -> Any:
        """An association that has a context for everything ordered."""
        wanted = {} if self._moves else dict.fromkeys(order.expected.values())
        usable = self._association is not None and self._association.is_established
        if usable and wanted.keys() <= self._classes.keys():
            return self._association
        self.close()
        # what was needed before may be needed again: a study alternates between images and reports
        self._classes = dict.fromkeys([*wanted, *reversed(self._classes)][:_CLASSES])
        pairs = [] if self._moves else proposed(self._classes)
        self._association = associate(
            self._name,
            self._peer,
            self._calling_ae,
            [build_context(model, _SYNTAXES), *(build_context(uid, syntax) for uid, syntax in pairs)],
            roles=[build_role(uid, scp_role=True) for uid in dict.fromkeys(uid for uid, _ in pairs)],
            on_established=self._take_in,
            tls=self._tls,
        )
        return self._association

    def _take_in(self, association: Any) -> None:
        """Have what comes over an association of C-GET go to the present landing."""
        if not self._moves:
            association.bind(evt.EVT_C_STORE, on_store)
            intake = Intake(lambda *said: self._begin(association, *said))
            patches.conduct(association, intake, self._peer.timeout_s)

    def _begin(self, association: Any, sop_class: str, instance: str, context_id: int) -> Reception:
        assert self._landing is not None
        return incoming(association, sop_class, instance, context_id, self._landing)

    def _request(self, model: str, order: Order, context: PresentationContext) -> Any:
        request: Any = C_MOVE() if self._moves else C_GET()
        request.MessageID = next(self._message_ids)
        request.AffectedSOPClassUID = model
        request.Priority = _MEDIUM
        if self._moves:
            request.MoveDestination = self._calling_ae
        request.Identifier = encoded(_identifier(order), context)
        return request


def _identifier(order: Order) -> Dataset:
    """Which instances, by unique keys alone (PS3.4 section C.4.2.1.4)."""
    made = Dataset()
    made.QueryRetrieveLevel = order.level.upper()
    made.StudyInstanceUID = order.study
    if order.level is not Level.STUDY:
        made.SeriesInstanceUID = order.series
    if order.level is Level.IMAGE:
        made.SOPInstanceUID = list(order.expected)
    return made


def _told(answer: Any, context: PresentationContext) -> Told:
    found = Dataset() if answer.Identifier is None else decoded(answer.Identifier, context)
    listed = found.get("FailedSOPInstanceUIDList") or ()
    uids = [listed] if isinstance(listed, str) else listed
    return Told(
        int(answer.Status),
        answer.NumberOfCompletedSuboperations or 0,
        answer.NumberOfFailedSuboperations or 0,
        answer.NumberOfWarningSuboperations or 0,
        tuple(str(uid) for uid in uids if is_uid(str(uid))),
    )


# ---- what comes ----


class _Incoming(Reception):
    """An object on its way that shows that the archive is alive."""

    def __init__(self, arrival: Arrival, negotiated_class: str, landing: Landing) -> None:
        uid = arrival.sop_instance_uid
        super().__init__(arrival, negotiated_class, landing.room(lambda _: uid, uid))
        self._landing = landing

    def write(self, data: memoryview) -> None:
        self._landing.touch()
        super().write(data)


def incoming(association: Any, sop_class: str, instance: str, context_id: int, landing: Landing) -> Reception:
    """Start to receive what a C-STORE request announces; KeyError for a context that was not accepted."""
    context = association._accepted_cx[context_id]
    arrival = Arrival(
        sop_class_uid=sop_class,
        sop_instance_uid=instance,
        transfer_syntax_uid=str(context.transfer_syntax[0]),
        calling_ae="",
        called_ae="",
        route="",
    )
    return _Incoming(arrival, str(context.abstract_syntax), landing)


def on_store(event: Any) -> int | Dataset:
    """Answer a C-STORE request of an archive: success once the object is here, whole and wanted."""
    reception = patches.take_inflow(event.assoc, event.request)
    if reception is None:  # a request without a data set
        return _refused(Refusal(0xC000, "the request has no data set"))
    outcome = reception.finish()
    patches.busy(event.assoc)
    return _refused(outcome) if isinstance(outcome, Refusal) else SUCCESS


def _answer(reception: Reception, send: Send) -> None:
    """As `on_store`, in the thread that reads."""
    outcome = reception.finish()
    if isinstance(outcome, Refusal):
        send(outcome.status, outcome.comment)
    else:
        send(SUCCESS, "")


def _refused(refusal: Refusal) -> Dataset:
    status = Dataset()
    status.Status = refusal.status
    status.ErrorComment = refusal.comment
    return status


class Berth:
    """A temporary Storage SCP that takes what C-MOVE sends, while it is open.

    Parameters
    ----------
    query : address and port to listen on
    ae_title : the only one that may be called
    door : shakes hands with who connects, None in the clear
    """

    def __init__(self, query: Query, ae_title: str, door: secure.Door | None = None) -> None:
        self._query, self._ae_title, self._door = query, ae_title, door
        self._landing: Landing | None = None
        self._server: Any = None
        self._lock = threading.Lock()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._query.port if self._server is None else int(self._server.server_address[1])

    def open(self, landing: Landing) -> None:
        """Listen, if it does not yet; raises OutputError when the address cannot be bound."""
        with self._lock:
            self._landing = landing
            if self._server is None:
                self._server = self._listening()

    def close(self) -> None:
        """Listen no more, and hang up on whoever is still there."""
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            for association in server.active_associations:
                patches.hang_up(association)

    def _listening(self) -> Any:
        patches.apply()
        entity = AE(ae_title=self._ae_title)
        entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        entity.maximum_pdu_size = 1 << 17
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_SOP_COMMON, serve_unregistered),
            (evt.EVT_C_STORE, on_store),
            (evt.EVT_ESTABLISHED, lambda event: patches.install_gate(event.assoc)),
        ]
        where = (self._query.bind, self._query.port)
        try:
            server = entity.make_server(
                where, contexts=[build_context(_VERIFICATION)], evt_handlers=handlers, server_class=Server
            )
        except OSError as error:
            raise OutputError(
                f"cannot listen on {where[0]}:{where[1]} for C-MOVE: {error.strerror};"
                " is another program there?"
            ) from error
        assert isinstance(server, Server)
        server.door = self._door
        threading.Thread(target=server.serve_forever, args=(_POLL_S,), name="berth", daemon=True).start()
        return server

    def _on_requested(self, event: Any) -> None:
        association, request = event.assoc, event.assoc.requestor.primitive
        if request.called_ae_title.strip() != self._ae_title:
            association.acse.send_reject(UNKNOWN_CALLED.result, UNKNOWN_CALLED.source, UNKNOWN_CALLED.reason)
            association.kill()
            return
        intake = Intake(lambda *said: self._begin(association, *said))
        patches.conduct(association, intake, _STALL_S, _answer)
        negotiate(association, request.presentation_context_definition_list, is_accepted_class)

    def _begin(self, association: Any, sop_class: str, instance: str, context_id: int) -> Reception:
        if self._landing is None:
            raise PeerError("nothing is being fetched")
        return incoming(association, sop_class, instance, context_id, self._landing)


_VERIFICATION = "1.2.840.10008.1.1"
_STALL_S = 60.0
