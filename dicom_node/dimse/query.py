"""Asking an archive by C-FIND (PS3.4 annex C), and what every question over DIMSE shares.

Rules that bind here:
1. Silence is what ends a question: an archive that still sends anything is waited for.
2. What a status means is told with what to do about it; comments of the archive are not, for they may name
   whoever was asked for.
3. Where enough was found the archive is told so (C-CANCEL). One that goes on nevertheless is hung up on.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO
from typing import Any, cast

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_CANCEL, C_FIND, C_STORE
from pynetdicom.dsutils import decode, encode
from pynetdicom.presentation import PresentationContext, build_context

from dicom_node.config import QueryPeer, Tls
from dicom_node.dimse import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, patches, secure
from dicom_node.errors import PeerError, UsageError
from dicom_node.inquiry import Keys, Level, Row, identifier, row_of

PATIENT_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.1.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"

SUCCESS, CANCELLED = 0x0000, 0xFE00
PENDING, PENDING_KEYS_IGNORED = 0xFF00, 0xFF01

_SYNTAXES = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]
_MEDIUM = 0x0000
#: seconds between two looks at whether the other side is still there
_LOOK_S = 0.5
#: answers and seconds after a C-CANCEL until an archive that goes on is hung up on
_CANCEL_ANSWERS, _CANCEL_S = 1000, 5.0
_NO_TLS = Tls()
_IGNORED = "it ignores some of the keys, so there may be matches that do not fit"

#: status, last status of a range, what to do about it
_REMEDIES = (
    (0x0117, 0x0117, "it knows no such instance"),
    (0x0122, 0x0122, "it does not offer this service; see the conformance statement of the archive"),
    (0x0124, 0x0124, "it does not allow this machine to ask; enter this AE title there"),
    (0xA700, 0xA702, "it is out of resources; ask for less at once, or later"),
    (
        0xA801,
        0xA801,
        "it does not know where to send to; enter AE title, host and query.port of this machine there",
    ),
    (0xA900, 0xA900, "it does not take this question as it is asked; try fewer keys, or another level"),
    (0xB000, 0xB000, "some instances could not be sent"),
    (0xFE00, 0xFE00, "it stopped as asked"),
)


def associate(
    name: str,
    peer: QueryPeer,
    calling_ae: str,
    contexts: Sequence[PresentationContext],
    *,
    roles: Sequence[Any] = (),
    on_established: Callable[[Any], object] = lambda _: None,
    tls: Tls = _NO_TLS,
) -> Any:
    """An open association with an archive; the one place that opens one to ask.

    `on_established` is called with it before anything is sent over it; `tls` is what this machine shows and
    believes, where the archive is asked over TLS.

    Raises
    ------
    PeerError : it is away, not to be trusted, refuses, or takes none of `contexts`
    TlsError : what it would be shown is no good
    """
    patches.apply()
    client = secure.Client(tls, peer)

    def established(event: Any) -> None:
        patches.install_gate(event.assoc)
        on_established(event.assoc)

    try:
        association = _entity(peer, calling_ae).associate(
            peer.host,
            peer.port,
            contexts=list(contexts),
            ae_title=peer.ae_title,
            ext_neg=list(roles),
            tls_args=client.arguments,
            evt_handlers=[
                (evt.EVT_ABORTED, lambda event: patches.hang_up(event.assoc)),
                (evt.EVT_ESTABLISHED, established),
            ],
        )
    except OSError as error:
        raise PeerError(f"archive {name} cannot be found at {peer.host}: {error.strerror}") from error
    if association.is_established:
        return association
    raise _not_established(name, peer, association, client.failure())


def _entity(peer: QueryPeer, calling_ae: str) -> Any:
    entity = AE(ae_title=calling_ae)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.maximum_pdu_size = 1 << 17
    entity.connection_timeout = entity.acse_timeout = peer.timeout_s
    entity.network_timeout = None
    return entity


def _not_established(
    name: str, peer: QueryPeer, association: Any, distrust: tuple[str, str] | None
) -> PeerError:
    if distrust is not None:
        said = f"archive {name} at {peer.host}:{peer.port} is not to be trusted: {distrust[1]}"
        return PeerError(said, reason=distrust[0])
    if association.is_rejected:
        answer = association.acceptor.primitive
        said = f"archive {name} refuses the association: {answer.result_str}, {answer.reason_str}"
        return PeerError(f"{said}; are the AE titles those that it knows?", retryable=answer.result == 0x02)
    if association.rejected_contexts:
        return PeerError(
            f"archive {name} does not offer this service; see its conformance statement", retryable=False
        )
    return PeerError(f"archive {name} cannot be reached at {peer.host}:{peer.port}")


def answers(
    association: Any,
    request: Any,
    context: PresentationContext,
    name: str,
    quiet_s: float,
    moved_at: Callable[[], float] = lambda: 0.0,
) -> Iterator[Any]:
    """Send a request and yield its responses until the last one; C-STORE requests between them are served.

    `moved_at` is when something last came that is no response yet, or came on another association.

    Raises
    ------
    PeerError : the association ended, or nothing came for `quiet_s` seconds
    """
    gate = association._reactor_checkpoint
    gate.clear()
    try:
        while not association._is_paused and association.is_alive():
            time.sleep(0.0001)
        association.dimse_timeout = min(_LOOK_S, quiet_s)
        association.dimse.send_msg(request, context.context_id)
        heard = time.monotonic()
        while True:
            _, message = association.dimse.get_msg(block=True)
            if message is None:
                _check_there(association, name, max(heard, moved_at()), quiet_s)
                continue
            if isinstance(message, C_STORE):
                association._c_store_scp(message)
            elif _answers(message, request):
                yield message
                if message.Status not in (PENDING, PENDING_KEYS_IGNORED):
                    return
            else:
                raise PeerError(f"archive {name} answers what it was not asked", retryable=False)
            heard = time.monotonic()
    except BaseException:  # a generator that is closed half-way leaves answers nobody waits for
        patches.hang_up(association)
        raise
    finally:
        gate.set()


def _answers(message: Any, request: Any) -> bool:
    same = getattr(message, "MessageIDBeingRespondedTo", None) == request.MessageID
    return same and isinstance(message, type(request)) and message.Status is not None


def _check_there(association: Any, name: str, heard: float, quiet_s: float) -> None:
    """Raise PeerError unless an answer may still come."""
    if association.acse.is_aborted() or not association.dul.is_alive() or not association.is_alive():
        said = f"archive {name} broke off the association instead of answering"
        raise PeerError(f"{said}; some do so to an AE title that they do not know")
    if association.acse.is_release_requested():
        raise PeerError(f"archive {name} ended the association instead of answering")
    if time.monotonic() - heard > quiet_s:
        raise PeerError(
            f"archive {name} has sent nothing for {quiet_s:.0f} s; if it needs longer, raise timeout_s"
        )


def context_of(association: Any, sop_class: str, name: str) -> PresentationContext:
    """The accepted presentation context of a service; raises PeerError if it was refused."""
    for context in association.accepted_contexts:
        if context.abstract_syntax == sop_class:
            return cast(PresentationContext, context)
    service = UID(sop_class).name
    raise PeerError(
        f"archive {name} does not offer {service}; see its conformance statement", retryable=False
    )


def encoded(data_set: Dataset, context: PresentationContext) -> BytesIO:
    """An Identifier in the transfer syntax of its context; raises UsageError for a value that cannot be."""
    syntax = context.transfer_syntax[0]
    try:
        written = encode(data_set, syntax.is_implicit_VR, syntax.is_little_endian)
    except Exception:
        written = None
    if written is None:
        raise UsageError("a value that is asked for cannot be written as its key wants it; check the numbers")
    return BytesIO(written)


def decoded(found: Any, context: PresentationContext) -> Dataset:
    """The data set of a response; an empty one where there is none, or none that can be read."""
    syntax = context.transfer_syntax[0]
    with contextlib.suppress(Exception):
        return decode(found, syntax.is_implicit_VR, syntax.is_little_endian)
    return Dataset()


def failure(name: str, what: str, status: int) -> PeerError:
    """The error that a final status is, with what to do."""
    remedy = next(
        (said for first, last, said in _REMEDIES if first <= status <= last), "see the log of the archive"
    )
    retryable = 0xA700 <= status <= 0xA7FF
    return PeerError(
        f"archive {name}: {what} ended with status {status:04X}: {remedy}", status=status, retryable=retryable
    )


class Finder:
    """Asks one archive by C-FIND; one question after the other, each to its end.

    Parameters
    ----------
    name, peer : whom to ask
    calling_ae : the AE title of this machine
    notes : takes what the archive does that is worth telling
    tls : what this machine shows and believes, where the archive is asked over TLS
    """

    def __init__(
        self, name: str, peer: QueryPeer, calling_ae: str, notes: list[str], tls: Tls = _NO_TLS
    ) -> None:
        self._tls = tls
        self._name, self._peer, self._calling_ae, self._notes = name, peer, calling_ae, notes
        self._association: Any = None
        self._message_ids = itertools.cycle(range(1, 0x10000))

    def find(self, level: Level, keys: Keys, wanted: Sequence[str], limit: int | None) -> Iterator[Row]:
        """Matches at one level, at most `limit`; raises PeerError."""
        model = PATIENT_ROOT_FIND if level is Level.PATIENT else STUDY_ROOT_FIND
        association = self._connected()
        context = context_of(association, model, self._name)
        request = C_FIND()
        request.MessageID = next(self._message_ids)
        request.AffectedSOPClassUID = model
        request.Priority = _MEDIUM
        request.Identifier = encoded(identifier(level, keys, wanted), context)
        found = self._answers(association, request, context)
        try:
            for count, data_set in enumerate(found, 1):
                yield row_of(level, data_set, wanted)
                if count == limit:
                    self._cancel(association, request, context, found)
                    return
        except BaseException:  # nothing is asked again over an association on which anything went wrong
            self._association = None
            raise

    def close(self) -> None:
        """End the association; from any thread."""
        association, self._association = self._association, None
        if association is not None and association.is_established:
            with contextlib.suppress(RuntimeError):
                association.release()

    def _connected(self) -> Any:
        if self._association is None or not self._association.is_established:
            models = (build_context(model, _SYNTAXES) for model in (STUDY_ROOT_FIND, PATIENT_ROOT_FIND))
            self._association = associate(
                self._name, self._peer, self._calling_ae, tuple(models), tls=self._tls
            )
        return self._association

    def _answers(self, association: Any, request: Any, context: PresentationContext) -> Iterator[Dataset]:
        """The data sets of pending responses; raises PeerError unless the last one says success."""
        for answer in answers(association, request, context, self._name, self._peer.timeout_s):
            if answer.Status in (PENDING, PENDING_KEYS_IGNORED):
                if answer.Status == PENDING_KEYS_IGNORED and _IGNORED not in self._notes:
                    self._notes.append(_IGNORED)
                yield decoded(answer.Identifier, context)
            elif answer.Status not in (SUCCESS, CANCELLED):
                raise failure(self._name, "the query", answer.Status)

    def _cancel(
        self, association: Any, request: Any, context: PresentationContext, rest: Iterable[Dataset]
    ) -> None:
        """Have the archive stop, and hear it out for a while."""
        cancel = C_CANCEL()
        cancel.MessageIDBeingRespondedTo = request.MessageID
        association.dimse.send_msg(cancel, context.context_id)
        deadline = time.monotonic() + _CANCEL_S
        with contextlib.suppress(PeerError):
            for count, _ in enumerate(rest):
                if count > _CANCEL_ANSWERS or time.monotonic() > deadline:
                    patches.hang_up(association)
                    self._association = None
                    return
