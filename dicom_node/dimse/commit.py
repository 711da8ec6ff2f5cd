"""Storage commitment on the wire (PS3.4 annex J): N-ACTION and N-EVENT-REPORT, in both roles and directions.

Rules that bind here:
1. A request is answered with success only after the ledger has it; so is an answer of a destination.
2. Nothing off the wire is believed before it was checked: UIDs are UIDs, and there is an end to their number.
3. An answer of ours goes over an association of its own, on which we are the SCP by role selection. Only
   where the configuration allows it may the association of the request carry it: the peer is free to end that
   one, and the library takes whatever the peer says next on it for the response.
4. One association, one request: an answer that comes on it is then never taken for a response.
"""

from __future__ import annotations

import contextlib
import logging
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.presentation import build_context

from dicom_node import log
from dicom_node.commitment import Answer, Ask, Due, Reference, Report, Request, Taken
from dicom_node.config import Destination, Requester, Tls
from dicom_node.dimse import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, patches, secure
from dicom_node.dimse.contexts import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, is_uid
from dicom_node.errors import NodeError, PeerError, TlsError

_LOG = logging.getLogger(__name__)

#: more instances in one request or answer are refused; a large study has ten thousand
MAX_REFERENCES = 50_000
#: associations to one destination that are kept open for an answer on the same one
MAX_LINGERING = 4

_NO_TLS = Tls()
_SYNTAXES = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]
_REQUEST, _ALL_COMMITTED, _FAILURES_EXIST = 1, 1, 2

SUCCESS = 0x0000
_PROCESSING_FAILURE = 0x0110
_NO_SUCH_INSTANCE = 0x0112
_NO_SUCH_EVENT = 0x0113
_INVALID_ARGUMENT = 0x0115
_NO_SUCH_ACTION = 0x0123
_NOT_AUTHORISED = 0x0124
_MISTYPED_ARGUMENT = 0x0212
_RESOURCE_LIMITATION = 0x0213


class _Refused(Exception):  # noqa: N818 - it is no error of ours
    """A request or answer that is not taken: its DIMSE status, and a comment of at most 64 characters."""

    def __init__(self, status: int, comment: str) -> None:
        super().__init__(comment)
        self.status = status
        self.comment = comment


def desk_handlers(desk: Callable[[], Desk]) -> list[tuple[Any, Callable[[Any], tuple[int | Dataset, None]]]]:
    """What a listener binds; `desk` gives the one that is in charge at that moment."""
    return [
        (evt.EVT_N_ACTION, lambda event: desk().on_action(event)),
        (evt.EVT_N_EVENT_REPORT, lambda event: desk().on_event_report(event)),
    ]


class Desk:
    """Takes what peers say on associations that they opened: requests to us, and answers to our requests.

    Parameters
    ----------
    take_request : records a request, or says with None that this peer could not be answered
    take_report : records an answer; False when there was no such request
    """

    def __init__(
        self, take_request: Callable[[Request], Taken | None], take_report: Callable[[Report], bool]
    ) -> None:
        self._take_request = take_request
        self._take_report = take_report
        #: the associations that brought the requests, as long as they live
        self._origins: weakref.WeakValueDictionary[tuple[str, str], Any] = weakref.WeakValueDictionary()

    def origin(self, due: Due) -> Any:
        """The association that brought the request of an answer, if it is still open; else None."""
        association = self._origins.get((due.peer, due.report.transaction_uid))
        return association if association is not None and association.is_established else None

    def carry(self, due: Due, timeout_s: float) -> int | None:
        """Give a peer its answer over the association of its request; None if that is not open any more.

        Else the status of the peer; raises PeerError, as `deliver`.
        """
        origin = self.origin(due)
        return None if origin is None else deliver_on(due, origin, timeout_s)

    def on_action(self, event: Any) -> tuple[int | Dataset, None]:
        """Answer an N-ACTION: success once the request is in the ledger."""
        return _guarded("commitment-request-refused", event, self._on_action), None

    def on_event_report(self, event: Any) -> tuple[int | Dataset, None]:
        """Answer an N-EVENT-REPORT: success once the answer is in the ledger."""
        return _guarded("commitment-answer-refused", event, self._on_event_report), None

    def _on_action(self, event: Any) -> None:
        request = request_of(event)
        taken = self._take_request(request)
        if taken is None:
            raise _Refused(_NOT_AUTHORISED, "no address to report to is configured for this AE title")
        if taken is Taken.DUPLICATE:
            raise _Refused(_INVALID_ARGUMENT, "duplicate Transaction UID (0131H); use a new one")
        self._origins[request.peer, request.transaction_uid] = event.assoc
        log.event(
            _LOG,
            "commitment-requested",
            transaction=log.uid_hash(request.transaction_uid),
            calling_ae=request.peer,
            count=len(request.references),
            duplicate=taken is Taken.REPEATED,
        )

    def _on_event_report(self, event: Any) -> None:
        if not self._take_report(report_of(event)):
            raise _Refused(_INVALID_ARGUMENT, "no request was made under this Transaction UID")


def _guarded(refused: str, event: Any, act: Callable[[Any], None]) -> int | Dataset:
    """Do it, and turn whatever goes wrong into a status."""
    error: Exception | None = None
    try:
        act(event)
    except _Refused as refusal:
        failure = refusal
    except NodeError as caught:
        failure, error = _Refused(_RESOURCE_LIMITATION, "cannot keep it; see the log of the node"), caught
    except Exception as caught:
        failure, error = _Refused(_PROCESSING_FAILURE, "cannot process; see the log of the node"), caught
    else:
        return SUCCESS
    log.event(
        _LOG,
        refused,
        level=logging.WARNING if error is None else logging.ERROR,
        error=error,
        calling_ae=_calling_ae(event),
        status=f"{failure.status:04x}",
        reason=failure.comment,
    )
    status = Dataset()
    status.Status = failure.status
    status.ErrorComment = failure.comment
    return status


# ---- what is said, as records ----


def request_of(event: Any) -> Request:
    """The request in an N-ACTION (PS3.4 table J.3-1); raises _Refused."""
    if event.request.RequestedSOPInstanceUID != STORAGE_COMMITMENT_INSTANCE:
        raise _Refused(_NO_SUCH_INSTANCE, "not the Storage Commitment Push Model instance")
    if event.action_type != _REQUEST:
        raise _Refused(_NO_SUCH_ACTION, "the action type is not 1")
    transaction, said = _decoded(event.request.ActionInformation, lambda: event.action_information)
    references = tuple(said)
    if not references:
        raise _Refused(_INVALID_ARGUMENT, "no instance is referenced")
    called_ae = event.assoc.requestor.primitive.called_ae_title.strip()
    return Request(transaction, _calling_ae(event), called_ae, references)


def report_of(event: Any) -> Report:
    """The answer in an N-EVENT-REPORT (PS3.4 table J.3-2); raises _Refused."""
    if event.request.AffectedSOPInstanceUID != STORAGE_COMMITMENT_INSTANCE:
        raise _Refused(_NO_SUCH_INSTANCE, "not the Storage Commitment Push Model instance")
    if event.event_type not in (_ALL_COMMITTED, _FAILURES_EXIST):
        raise _Refused(_NO_SUCH_EVENT, "the event type is neither 1 nor 2")
    return Report(*_decoded(event.request.EventInformation, lambda: event.event_information))


def _calling_ae(event: Any) -> str:
    return str(event.assoc.requestor.ae_title).strip()


def _decoded(raw: Any, decode: Callable[[], Dataset]) -> tuple[str, dict[Reference, int]]:
    """Transaction UID, and what is said of each instance; in a request, that all are meant."""
    if raw is None:
        raise _Refused(_INVALID_ARGUMENT, "there is no data set")
    try:
        data_set = decode()
        transaction = str(data_set.get("TransactionUID", ""))
        said = {reference: int(answer) for reference, answer in _items(data_set)}
    except _Refused:
        raise
    except Exception as error:  # the library decodes late, and anything may be in there
        raise _Refused(_MISTYPED_ARGUMENT, "the data set cannot be decoded") from error
    if not is_uid(transaction):
        raise _Refused(_INVALID_ARGUMENT, "the Transaction UID is missing or breaks the rules for UIDs")
    if not all(is_uid(uid) for one in said for uid in (one.sop_class_uid, one.sop_instance_uid)):
        raise _Refused(_INVALID_ARGUMENT, "a referenced UID is missing or breaks the rules for UIDs")
    return transaction, said


def _items(data_set: Dataset) -> Iterable[tuple[Reference, int]]:
    committed = data_set.get("ReferencedSOPSequence") or ()
    failed = data_set.get("FailedSOPSequence") or ()
    if len(committed) + len(failed) > MAX_REFERENCES:
        raise _Refused(_RESOURCE_LIMITATION, f"more than {MAX_REFERENCES} instances; ask in parts")
    # what is in both has failed
    for item in committed:
        yield _reference(item), Answer.COMMITTED
    for item in failed:
        yield _reference(item), item.get("FailureReason") or Answer.PROCESSING_FAILURE


def _reference(item: Dataset) -> Reference:
    return Reference(
        str(item.get("ReferencedSOPClassUID", "")), str(item.get("ReferencedSOPInstanceUID", ""))
    )


def action_information(ask: Ask) -> Dataset:
    """The data set of a request (PS3.4 table J.3-1)."""
    made = Dataset()
    made.TransactionUID = ask.transaction_uid
    made.ReferencedSOPSequence = [_item(reference) for reference in ask.references]
    return made


def event_information(report: Report) -> Dataset:
    """The data set of an answer (PS3.4 table J.3-2): every instance of the request, committed or failed."""
    made = Dataset()
    made.TransactionUID = report.transaction_uid
    committed = [one for one, answer in report.answers.items() if answer == Answer.COMMITTED]
    if committed:
        made.ReferencedSOPSequence = [_item(one) for one in committed]
    if report.failures:
        made.FailedSOPSequence = [
            _item(one, answer) for one, answer in report.answers.items() if answer != Answer.COMMITTED
        ]
    return made


def _item(reference: Reference, failure: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    if failure is not None:
        item.FailureReason = failure
    return item


# ---- our answers to peers ----


def deliver(due: Due, requester: Requester, tls: Tls = _NO_TLS) -> int:
    """Give a peer its answer over an association of its own; the status that it answered.

    Raises PeerError when it is away, refuses, does not offer the service or does not answer.
    """
    try:
        peer = _Peer(f"requester {requester.ae_title}", requester, due.called_ae, tls)
    except TlsError as error:
        raise PeerError(str(error), reason="tls-files") from error
    association = peer.associate([build_role(STORAGE_COMMITMENT, scp_role=True)])
    try:
        return _deliver_on(association, due.report, peer)
    finally:
        if association.is_established:
            association.release()


def deliver_on(due: Due, association: Any, timeout_s: float) -> int:
    """Give a peer its answer over the association of its request; as `deliver`."""
    association.dimse_timeout = timeout_s
    return _deliver_on(association, due.report, None)


def _deliver_on(association: Any, report: Report, peer: _Peer | None) -> int:
    event_type = _FAILURES_EXIST if report.failures else _ALL_COMMITTED
    answer = _exchange(
        lambda: association.send_n_event_report(
            event_information(report), event_type, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
        )
    )
    if answer is None:
        patches.hang_up(association)
        raise PeerError(f"{peer.name if peer else 'the requester'} did not take the answer")
    return answer


# ---- our requests to destinations ----


class Inquirer:
    """Asks one destination; not for use by two threads, except `abort`.

    Parameters
    ----------
    name, destination : whom to ask
    calling_ae : the AE title of this node, to which the destination reports
    desk : takes answers that come on the same association
    linger_s : seconds for which an association is kept open for that
    tls : what this node shows and believes, where the destination is spoken to over TLS
    """

    def __init__(
        self,
        name: str,
        destination: Destination,
        calling_ae: str,
        desk: Desk,
        linger_s: float,
        tls: Tls = _NO_TLS,
    ) -> None:
        self._peer = _Peer(f"destination {name}", destination, calling_ae, tls)
        self._desk = desk
        self._linger_s = linger_s
        #: association -> when it is closed, on the clock of `time.monotonic`
        self._lingering: dict[Any, float] = {}

    def ask(self, ask: Ask) -> int:
        """Make a request; the N-ACTION status of the destination. Raises PeerError, as `deliver`."""
        association = self._peer.associate(handlers=[(evt.EVT_N_EVENT_REPORT, self._desk.on_event_report)])
        self._lingering[association] = time.monotonic() + self._linger_s
        status = _exchange(
            lambda: association.send_n_action(
                action_information(ask), _REQUEST, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
            )
        )
        if status is None:
            patches.hang_up(association)
            raise PeerError(f"{self._peer.name} did not answer a request for storage commitment")
        if status != SUCCESS:
            self._lingering[association] = 0.0
        self.tidy()
        return status

    def tidy(self) -> None:
        """Release the associations that have been open for long enough, or are too many."""
        now = time.monotonic()
        spare = len(self._lingering) - MAX_LINGERING
        for number, (association, until) in enumerate(list(self._lingering.items())):
            if now >= until or number < spare or not association.is_established:
                del self._lingering[association]
                _release(association)

    def close(self) -> None:
        """Release every association."""
        while self._lingering:
            _release(self._lingering.popitem()[0])

    def abort(self) -> None:
        """Break the connections under a request that hangs; from any thread."""
        self._peer.abort()


class _Peer:
    """Opens associations for storage commitment to one address."""

    def __init__(self, name: str, where: Destination | Requester, calling_ae: str, tls: Tls) -> None:
        patches.apply()
        self._client = secure.Client(tls, where)
        self.name = name
        self._where = where
        self._entity: Any = AE(ae_title=calling_ae)
        self._entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        self._entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        self._entity.connection_timeout = self._entity.acse_timeout = where.timeout_s
        self._entity.network_timeout = self._entity.dimse_timeout = where.timeout_s
        self._association: Any = None

    def associate(self, roles: list[Any] | None = None, handlers: Iterable[tuple[Any, Any]] = ()) -> Any:
        """An open association on which storage commitment was accepted; raises PeerError."""
        where = self._where
        try:
            association = self._entity.associate(
                where.host,
                where.port,
                contexts=[build_context(STORAGE_COMMITMENT, _SYNTAXES)],
                ae_title=where.ae_title,
                ext_neg=roles,
                tls_args=self._client.arguments,
                evt_handlers=[
                    (evt.EVT_ABORTED, lambda event: patches.hang_up(event.assoc)),
                    (evt.EVT_ESTABLISHED, lambda event: patches.install_gate(event.assoc)),
                    *handlers,
                ],
            )
        except OSError as error:
            raise PeerError(f"{self.name} cannot be found at {where.host}: {error.strerror}") from error
        self._association = association
        if association.is_established:
            return association
        if association.is_rejected:
            answer = association.acceptor.primitive
            raise PeerError(f"{self.name} refuses the association: {answer.result_str}, {answer.reason_str}")
        failure = self._client.failure()
        if failure is not None:
            said = f"{self.name} at {where.host}:{where.port} is not to be trusted: {failure[1]}"
            raise PeerError(said, reason=failure[0])
        if association.rejected_contexts:
            raise PeerError(f"{self.name} does not offer storage commitment", retryable=False)
        raise PeerError(f"{self.name} cannot be reached at {where.host}:{where.port}")

    def abort(self) -> None:
        """Break the connection of the latest association; from any thread."""
        if self._association is not None:
            patches.hang_up(self._association)


def _exchange(send: Callable[[], tuple[Dataset, object]]) -> int | None:
    """The status of a response; None when there was none, or none that could be read."""
    try:
        status, _reply = send()
    except (RuntimeError, ValueError):  # the association ended, or the context was not accepted in our role
        return None
    return int(status.Status) if "Status" in status else None


def _release(association: Any) -> None:
    if association.is_established:
        with contextlib.suppress(RuntimeError):
            association.release()
