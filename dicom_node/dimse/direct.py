"""Requests that are answered by the thread that reads them: C-STORE and C-ECHO.

The library hands a request from the thread that reads to one that answers, and the answer back, through
queues that either looks into a thousand times a second. Most of the time of a small object was spent there.

Rules that bind here:
1. A message is taken whole or not at all: the first fragment decides whether it is dealt with here.
2. What is not one of the two requests, in one fragment and in order, is not for us.
3. While the library deals with a message of its own, everything is left to it: answers come in the order of
   their requests.
4. One message at a time; the next begins when the answer to the one before has been sent.
5. Nothing is read while the library says something of several fragments, lest an answer goes between them.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from dicom_node import log
from dicom_node.dimse import commands
from dicom_node.dimse.contexts import VERIFICATION, is_storage
from dicom_node.dimse.inbox import Inbox

_LOG = logging.getLogger(__name__)
#: PS3.8 annex E.2: bits of a message control header
_COMMAND, _LAST = 0x01, 0x02
_SUCCESS = 0x0000
#: seconds after which the library's thread looks around although nobody has woken it
_TURN_S = 0.1
#: what the library answers where a handler fails
FAULT = 0xC211


class Inflow(Protocol):
    """The data set of one C-STORE request while it arrives."""

    def write(self, data: memoryview) -> None:
        """Take the next piece; `data` is valid during the call only."""

    def discard(self) -> None:
        """The rest will never come."""


#: starts the data set of a request: its SOP class and instance, and the id of its presentation context
Begin = Callable[[str, str, int], Any]
#: takes a status and a comment, and has sent them when it returns
Send = Callable[[int, str], None]
#: keeps what has arrived whole and sends the status, once
Answer = Callable[[Any, Send], object]


class Direct:
    """The requests of one association, from the fragments of a request to the bytes of the answer.

    Parameters
    ----------
    classes : the SOP class of a presentation context that was accepted, None for any other id
    begin, answer : what is done with objects
    send : writes bytes to the peer
    largest : the longest PDU that the peer takes, 0 any
    """

    def __init__(
        self,
        classes: Callable[[int], str | None],
        begin: Begin,
        answer: Answer,
        send: Callable[[bytes], object],
        largest: Callable[[], int],
    ) -> None:
        self._classes = classes
        self._begin = begin
        self._answer = answer
        self._send = send
        self._largest = largest
        self._request: commands.Request | None = None
        self._context_id = 0
        self._inflow: Any = None
        self._answered = threading.Event()
        self._answered.set()

    @property
    def busy(self) -> bool:
        """Whether a request has begun to arrive and has not been answered."""
        return self._request is not None

    @property
    def answering(self) -> bool:
        """Whether a request is being answered at this moment."""
        return not self._answered.is_set()

    def wait_for_answer(self) -> None:
        """Sleep until the request that is being answered has been; called by another thread."""
        while self.answering:
            self._answered.wait()

    def take(self, context_id: int, value: memoryview) -> bool:
        """Take one fragment, control header first; False if it begins a message that is not for us.

        Raises ValueError for a fragment that does not belong where it is, KeyError as `begin` does.
        """
        control, data = value[0], value[1:]
        if self._request is None:
            return self._take_command(context_id, control, data)
        if control & _COMMAND or context_id != self._context_id:
            raise ValueError("a fragment that does not belong to the data set under way")
        self._inflow.write(data)
        if control & _LAST:
            self._finish()
        return True

    def discard(self) -> None:
        """Nothing more will come."""
        inflow, self._inflow, self._request = self._inflow, None, None
        if inflow is not None:
            inflow.discard()

    def _take_command(self, context_id: int, control: int, data: memoryview) -> bool:
        request = commands.read(data) if control == _COMMAND | _LAST else None
        sop_class = None if request is None else self._classes(context_id)
        if request is None or request.sop_class_uid != sop_class:
            return False
        if request.kind == commands.C_ECHO_RQ:
            if sop_class != VERIFICATION:
                return False
            self._respond(request, context_id, _SUCCESS, "")
            return True
        if not is_storage(sop_class):
            return False
        self._inflow = self._begin(request.sop_class_uid, request.sop_instance_uid, context_id)
        self._request, self._context_id = request, context_id
        return True

    def _finish(self) -> None:
        request, inflow, self._inflow = self._request, self._inflow, None
        assert request is not None
        sent: list[int] = []

        def send(status: int, comment: str) -> None:
            sent.append(status)
            self._respond(request, self._context_id, status, comment)

        self._answered.clear()
        try:
            self._answer(inflow, send)
        except Exception as error:
            log.event(_LOG, "association-fault", level=logging.ERROR, error=error)
            inflow.discard()
            if not sent:
                send(FAULT, "")
        finally:
            self._request = None
            self._answered.set()

    def _respond(self, request: commands.Request, context_id: int, status: int, comment: str) -> None:
        self._send(commands.answer(request, context_id, status, comment, self._largest()))


class Line:
    """An association that a peer has asked for, between its two threads: one reads, one is the library's.

    The library's thread deals with what is handed to it, and sleeps until then.

    Parameters
    ----------
    association : pynetdicom's, not yet accepted
    begin, answer : what is done with objects
    """

    def __init__(self, association: Any, begin: Begin, answer: Answer) -> None:
        self.requests = Direct(
            lambda context_id: _class_of(association, context_id),
            begin,
            answer,
            lambda data: _send(association, data),
            lambda: int(association.dimse.maximum_pdu_size or 0),
        )
        self.inbox = Inbox()
        #: the longest PDU of data that is taken, once it is known
        self.largest_data = 0
        self._handed = False
        #: messages of ours that are being taken apart for the thread that sends
        self._speaking = 0
        self._bell = threading.Event()
        self._letters = association.dimse.msg_queue
        # not other queues in their place: these may be in use already
        self._letters._put = self._noting(self._letters._put)
        association.dul.to_user_queue._put = self._ringing(association.dul.to_user_queue._put)

    def _noting(self, put: Callable[[Any], None]) -> Callable[[Any], None]:
        def noted(item: Any) -> None:  # with the lock of the queue held
            put(item)
            self._handed = True
            self._bell.set()

        return noted

    def _ringing(self, put: Callable[[Any], None]) -> Callable[[Any], None]:
        def rung(item: Any) -> None:
            put(item)
            self._bell.set()

        return rung

    @contextlib.contextmanager
    def saying(self) -> Iterator[None]:
        """While a message of ours is handed to the thread that sends it, fragment by fragment."""
        with self._letters.mutex:
            self._speaking += 1
        try:
            yield
        finally:
            with self._letters.mutex:
                self._speaking -= 1

    @property
    def speaking(self) -> bool:
        """Whether fragments of a message of ours may still be missing from what is to be sent."""
        return self._speaking > 0

    @property
    def handed(self) -> bool:
        """Whether the library's thread has a message to deal with."""
        return self._handed

    def ring(self) -> None:
        """Wake the library's thread."""
        self._bell.set()

    def rest(self) -> None:
        """Called by the library's thread when it has dealt with everything: wait until there is something.

        While a request is being answered it does not look whether the association has been idle for too long.
        """
        with self._letters.mutex:
            self._handed = bool(self._letters.queue)
        self._bell.wait(_TURN_S)
        self.requests.wait_for_answer()
        self._bell.clear()


def _class_of(association: Any, context_id: int) -> str | None:
    context = association._accepted_cx.get(context_id)
    return None if context is None else str(context.abstract_syntax)


def _send(association: Any, data: bytes) -> None:
    wrapper = association.dul.socket
    if wrapper is not None:  # else it was closed meanwhile
        wrapper.send(data)
    # while the library's thread still stands: keeping may have taken longer than an association may be idle
    association.dul._idle_timer.restart()
