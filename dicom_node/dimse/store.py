"""The sender: one file to one peer over an association that stays open, and what the peer answered.

Rules that bind here:
1. The bytes of the data set go out as they are in the file: nothing is decoded, converted or left out.
2. An object's own transfer syntax is proposed first, and what it can be converted to without loss behind it,
   each in a presentation context of its own (PS3.8 section 9.3.2.2). The peer decides; where it takes both,
   the object goes as it is.
3. A peer that takes none of them is told apart from a peer that is not there.
4. An association on which anything went wrong is never used again.
5. While objects follow each other, the connection is this thread's; `rest` leaves it to the library, which
   then hears what the peer has to say.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context

from dicom_node.config import Destination, Tls
from dicom_node.dimse import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    exchange,
    patches,
    secure,
    stream,
)
from dicom_node.dimse.exchange import Exchange, Loaded, Meanwhile, nothing_else
from dicom_node.errors import PeerError, SpoolError
from dicom_node.jobs import Send

#: PS3.8 section 9.3.2.2: context ids are the odd numbers of a byte
MAX_CONTEXTS = 128

Pair = tuple[str, str]
_NO_TLS = Tls()
#: how long the library may take to understand that an association is over, seconds
_NOTICED_S = 0.5


def patience_s(destination: Destination, size: int) -> float:
    """Seconds after which the answer to an object of `size` bytes is overdue, from the first byte sent on."""
    return (
        2 * destination.timeout_s + size / exchange.SLOWEST_BYTES_S + size / exchange.SLOWEST_ANSWER_BYTES_S
    )


class Sender:
    """A C-STORE SCU for one destination; not for use by two threads, except `abort`.

    Parameters
    ----------
    name : the destination's name in the configuration, for messages
    destination : where to send
    calling_ae : the AE title of this node
    tls : what this node shows and believes, where the destination is spoken to over TLS

    Raises TlsError if that is no good.
    """

    def __init__(self, name: str, destination: Destination, calling_ae: str, tls: Tls = _NO_TLS) -> None:
        patches.apply()
        self._client = secure.Client(tls, destination)
        self._name = name
        self._destination = destination
        self._entity = self._make_entity(calling_ae)
        self._association: Any = None
        #: what was accepted on it: (SOP class, transfer syntax) -> id of the presentation context
        self._contexts: dict[Pair, int] = {}
        self._exchange: Exchange | None = None
        #: what is sent next, as `prepare` was told
        self._next: Loaded | None = None
        #: (SOP class, transfer syntax) pairs proposed on the present or next association, oldest use first
        self._proposed: dict[Pair, None] = {}
        self._message_id = 0

    @property
    def connected(self) -> bool:
        """Whether an association is open."""
        return self._association is not None and bool(self._association.is_established)

    def agree(self, send: Send, alternatives: Sequence[str] = ()) -> str:
        """The transfer syntax in which the peer takes an object: its own, else the first of `alternatives`.

        Raises
        ------
        PeerError : retryable when the peer is away, busy or refuses the association; not retryable when it
            takes the object's SOP class in none of the syntaxes
        """
        syntaxes = (send.transfer_syntax_uid, *alternatives)
        self._ensure([(send.sop_class_uid, syntax) for syntax in syntaxes])
        for syntax in syntaxes:
            if (send.sop_class_uid, syntax) in self._contexts:
                return syntax
        raise self._no_context(send, syntaxes)

    def taken(self, pairs: Sequence[Pair]) -> frozenset[Pair]:
        """Which of these SOP classes and transfer syntaxes, 128 at most, the peer takes.

        Raises PeerError when it is away, busy or refuses the association.
        """
        self._ensure(pairs)
        return frozenset(self._contexts.keys() & set(pairs))

    def echo(self) -> int | None:
        """The status of a C-ECHO, None if no answer came; `contexts.VERIFICATION` must have been `taken`."""
        self.rest()
        answer = self._association.send_c_echo()
        return int(answer.Status) if "Status" in answer else None

    def prepare(self, send: Send, path: Path) -> None:
        """Read the beginning of what is likely to be sent next, in its own syntax, while the peer works.

        Whatever is in the way of that is told when it is sent.
        """
        context = self._contexts.get((send.sop_class_uid, send.transfer_syntax_uid))
        self._unload()
        if self._exchange is not None and context is not None:
            with contextlib.suppress(SpoolError):
                self._next = _loaded(self._exchange, path, context)

    def send(self, send: Send, path: Path, syntax: str, meanwhile: Meanwhile = nothing_else) -> int:
        """Send one Part 10 file in `syntax`, which was agreed, and return the status of the peer, 0..0xFFFF.

        `meanwhile` is called when the last byte is out, and again after as many seconds as it returns.

        Raises
        ------
        PeerError : the peer is away, busy, refuses the association or does not answer
        SpoolError : the file cannot be read, is no Part 10 file or not in this transfer syntax
        """
        if (send.sop_class_uid, syntax) not in self._contexts or not self.connected:
            self._ensure([(send.sop_class_uid, syntax)])
        context = self._contexts.get((send.sop_class_uid, syntax))
        if context is None:
            raise self._no_context(send, (syntax,))
        loaded = self._load(path, context)
        try:
            if loaded.out.data.transfer_syntax_uid != syntax:
                raise SpoolError(
                    f"{path.name} is in another transfer syntax than the ledger says; check the disk"
                )
            return self._store(send, loaded, meanwhile)
        finally:
            self._unload(loaded)

    def rest(self) -> None:
        """Nothing is to be sent for now: leave the connection to the library, which listens to the peer."""
        self._unload()
        taken, self._exchange = self._exchange, None
        if taken is not None:
            taken.close()

    def close(self) -> None:
        """Release the association, if one is open."""
        self.is_quiet()
        self.rest()
        association, self._association = self._association, None
        self._contexts = {}
        if association is not None and association.is_established:
            association.release()

    def abort(self) -> None:
        """Break the connection under a send that hangs; from any thread."""
        association, taken = self._association, self._exchange
        if association is not None:
            patches.hang_up(association)
        if taken is not None:
            taken.let_go()

    def forget(self) -> None:
        """Break the connection, and never use the association again, whatever state it is in."""
        try:
            self.abort()
            self.rest()
        finally:
            self._association = self._exchange = self._next = None
            self._contexts = {}

    def _make_entity(self, calling_ae: str) -> Any:
        entity = AE(ae_title=calling_ae)
        entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        entity.connection_timeout = entity.acse_timeout = self._destination.timeout_s
        entity.network_timeout = self._destination.timeout_s
        return entity

    def _ensure(self, pairs: Sequence[Pair]) -> None:
        """Have an association on which every one of `pairs` was proposed."""
        known = all(pair in self._proposed for pair in pairs)
        for pair in pairs:
            self._proposed.pop(pair, None)
            self._proposed[pair] = None
        if self.connected and known and self.is_quiet():
            return
        self.close()
        while len(self._proposed) > MAX_CONTEXTS:
            del self._proposed[next(iter(self._proposed))]
        self._association = self._associate()
        self._contexts = _accepted(self._association)

    def is_quiet(self) -> bool:
        """Whether the peer has said nothing since its last answer; else the association is over."""
        if self._exchange is None or self._exchange.usable:
            return True
        self.rest()  # the library reads what it is: a release, an abort, the end
        deadline = time.monotonic() + _NOTICED_S
        while self.connected and time.monotonic() < deadline:
            time.sleep(0.001)
        if self.connected:
            self.forget()
        return False

    def _associate(self) -> Any:
        where = self._destination
        try:
            association = self._entity.associate(
                where.host,
                where.port,
                contexts=[build_context(uid, syntax) for uid, syntax in self._proposed],
                ae_title=where.ae_title,
                tls_args=self._client.arguments,
                evt_handlers=[
                    # else an abort waits in the queue behind everything that a dead peer does not read
                    (evt.EVT_ABORTED, lambda event: patches.hang_up(event.assoc)),
                    (evt.EVT_ESTABLISHED, lambda event: patches.install_gates(event.assoc)),
                ],
            )
        except OSError as error:
            raise self._failure(
                f"cannot be found at {where.host}: {error.strerror}", "unreachable"
            ) from error
        if association.is_rejected:
            answer = association.acceptor.primitive
            raise self._failure(
                f"refuses the association: {answer.result_str}, {answer.reason_str}",
                "rejected-transient" if answer.result == 0x02 else "rejected-permanent",
            )
        failure = self._client.failure()
        if not association.is_established and failure is not None:
            raise self._failure(
                f"at {where.host}:{where.port} is not to be trusted: {failure[1]}", failure[0]
            )
        if not association.is_established and not association.rejected_contexts:
            raise self._failure(f"cannot be reached at {where.host}:{where.port}", "unreachable")
        return association

    def _load(self, path: Path, context: int) -> Loaded:
        """The object with its first bytes, as it was prepared or read now."""
        ready, self._next = self._next, None
        if ready is not None and ready.out.path == path and ready.context_id == context:
            return ready
        self._unload(ready)
        if self._exchange is None:
            self._exchange = self._taken()
        return _loaded(self._exchange, path, context)

    def _taken(self) -> Exchange:
        try:
            return Exchange(self._association)
        except OSError as error:
            self.forget()
            raise self._failure("closed the association before anything was sent", "closed") from error

    def _unload(self, loaded: Loaded | None = None) -> None:
        """Close an object, else the one that was prepared."""
        if loaded is None:
            loaded, self._next = self._next, None
        if loaded is not None:
            loaded.out.close()
            if self._exchange is not None:
                self._exchange.unload(loaded)

    def _store(self, send: Send, loaded: Loaded, meanwhile: Meanwhile) -> int:
        started = time.monotonic()
        self._message_id = self._message_id % 0xFFFF + 1
        request = stream.Request(self._message_id, send.sop_class_uid, send.sop_instance_uid)
        status: int | None = None
        assert self._exchange is not None, "what is loaded is loaded into it"
        try:
            status = self._exchange.store(request, loaded, self._destination.timeout_s, meanwhile)
            if status is not None:
                return status
            raise self._failure(f"gave no answer within {time.monotonic() - started:.1f} s", "no-answer")
        except TimeoutError as error:
            raise self._failure("takes no more data", "no-answer") from error
        except OSError as error:
            raise self._failure("closed the association instead of answering", "closed") from error
        finally:
            if status is None:
                self.forget()

    def _failure(self, what: str, reason: str) -> PeerError:
        return PeerError(f"destination {self._name} ({self._destination.ae_title}) {what}", reason=reason)

    def _no_context(self, send: Send, syntaxes: Sequence[str]) -> PeerError:
        names = " or ".join(UID(syntax).name for syntax in syntaxes)
        return PeerError(
            f"destination {self._name} ({self._destination.ae_title}): no presentation context"
            f" for {UID(send.sop_class_uid).name} in {names}; let the destination accept it",
            retryable=False,
            reason="no-context",
        )


def _accepted(association: Any) -> dict[Pair, int]:
    """(SOP class, transfer syntax) -> id of the presentation context, of those that the peer accepted."""
    if not association.is_established:  # it accepted the association, but not one context
        return {}
    return {
        (str(context.abstract_syntax), str(context.transfer_syntax[0])): int(context.context_id)
        for context in reversed(association.accepted_contexts)
        if context.as_scu
    }


def _loaded(taken: Exchange, path: Path, context: int) -> Loaded:
    out = stream.Outgoing(path)
    try:
        return taken.load(out, context)
    except BaseException:
        out.close()
        raise
