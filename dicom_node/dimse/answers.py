"""What a peer says while an object of ours waits for its answer: bytes in, the C-STORE response out; pure.

    what comes                                          what it is
    P-DATA with fragments of a command set              collected; the last makes the answer
    P-DATA with a data set, or one that does not fit    ConnectionError: such a peer is not understood
      or is longer than was announced
    A-ABORT, A-RELEASE-RQ, any other PDU                ConnectionError: there will be no answer

Rules that bind here:
1. Nothing is believed that does not fit: lengths are held against each other and against limits.
2. No text holds a byte that came from the peer.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

#: largest command set; a C-STORE response has 0.2 kB, an error comment of any sense included
LARGEST_COMMAND = 1 << 16

_PDU = struct.Struct(">BxI")
_ITEM = struct.Struct(">IBB")
_ELEMENT = struct.Struct("<HHI")
_P_DATA, _RELEASE, _ABORT = 0x04, 0x05, 0x07
_SAID = {_RELEASE: "asked for release", _ABORT: "aborted"}
_IS_COMMAND, _IS_LAST = 0x01, 0x02
_STORE_RESPONSE, _NO_DATA_SET = 0x8001, 0x0101
_FIELD, _RESPONDS_TO, _DATA_SET_TYPE, _STATUS = 0x0100, 0x0120, 0x0800, 0x0900


@dataclass(frozen=True, slots=True)
class Answer:
    """One response or request of a peer; `status` is None unless it is a C-STORE response that has one."""

    message_id: int | None
    status: int | None


@dataclass(slots=True)
class Answers:
    """Puts together what comes in pieces.

    Attributes
    ----------
    largest : bytes that a P-DATA PDU may claim, as we announced it
    """

    largest: int
    _bytes: bytearray = field(default_factory=bytearray)
    _command: bytearray = field(default_factory=bytearray)

    @property
    def waiting(self) -> bool:
        """Whether something came that is not part of any answer that was given out."""
        return bool(self._bytes or self._command)

    def take(self, data: bytes | memoryview) -> Answer | None:
        """Take the next bytes; the answer as soon as it is complete. Raises ConnectionError."""
        self._bytes += data
        answer = None
        while answer is None and len(self._bytes) >= _PDU.size:
            kind, length = _PDU.unpack_from(self._bytes)
            if kind != _P_DATA:
                raise ConnectionError(f"the peer {_SAID.get(kind, 'sent no PDU that belongs here')}")
            if length > self.largest:
                raise ConnectionError("the peer sent a PDU that is longer than was agreed")
            end = _PDU.size + length
            if len(self._bytes) < end:
                break
            pdu = bytes(self._bytes[_PDU.size : end])
            del self._bytes[:end]
            answer = self._fragments(pdu)
        return answer

    def _fragments(self, pdu: bytes) -> Answer | None:
        """Take the values of one P-DATA PDU (PS3.8 section 9.3.5, annex E.2)."""
        at, answer = 0, None
        while at < len(pdu):
            if answer is not None or at + _ITEM.size > len(pdu):
                raise ConnectionError("the peer sent more than an answer in one PDU")
            length, _, control = _ITEM.unpack_from(pdu, at)
            end = at + 4 + length
            if length < 2 or end > len(pdu):
                raise ConnectionError("the peer sent a value that does not fit its PDU")
            if not control & _IS_COMMAND:
                raise ConnectionError("the peer sent a data set instead of an answer")
            self._command += pdu[at + _ITEM.size : end]
            if len(self._command) > LARGEST_COMMAND:
                raise ConnectionError("the peer sent a command that is too long")
            if control & _IS_LAST:
                answer = _answer(bytes(self._command))
                self._command.clear()
            at = end
        return answer


def _answer(command: bytes) -> Answer:
    """What a command set says: Implicit VR Little Endian, group 0000 only (PS3.7 section 6.3.1)."""
    numbers: dict[int, int] = {}
    at = 0
    while at < len(command):
        if at + _ELEMENT.size > len(command):
            raise ConnectionError("the peer sent a command set that is cut off")
        group, element, length = _ELEMENT.unpack_from(command, at)
        at += _ELEMENT.size
        if group != 0 or at + length > len(command):
            raise ConnectionError("the peer sent something that is no command set")
        if length == 2:
            numbers.setdefault(element, int.from_bytes(command[at : at + 2], "little"))
        at += length
    is_response = numbers.get(_FIELD) == _STORE_RESPONSE
    if is_response and numbers.get(_DATA_SET_TYPE, _NO_DATA_SET) != _NO_DATA_SET:
        raise ConnectionError("the peer sent an answer with a data set")
    return Answer(numbers.get(_RESPONDS_TO), numbers.get(_STATUS) if is_response else None)
