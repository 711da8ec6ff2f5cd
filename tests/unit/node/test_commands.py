"""Command sets as bytes; the library reads what is written, and writes what is read."""

from __future__ import annotations

import io

import pytest
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.dsutils import decode

from dicom_node.dimse import commands
from dicom_node.dimse.commands import Request
from tests.wire import CT, VERIFICATION, command, store_command

STORE = Request(commands.C_STORE_RQ, 7, CT, "1.2.3")


def read(asked: bytes) -> Request | None:
    return commands.read(memoryview(asked))


def encoded(message: C_STORE_RQ | C_ECHO_RQ, primitive: C_STORE | C_ECHO) -> bytes:
    """A command set as the library writes it."""
    message.primitive_to_message(primitive)
    (pdata, *_) = message.encode_msg(1, 0)
    return bytes(pdata.presentation_data_value_list[0][1][1:])


def test_a_store_request_of_the_library() -> None:
    asked = C_STORE()
    asked.MessageID, asked.AffectedSOPClassUID, asked.AffectedSOPInstanceUID = 7, CT, "1.2.3"
    asked.Priority, asked.DataSet = 2, io.BytesIO(b"x")
    assert read(encoded(C_STORE_RQ(), asked)) == STORE
    asked.MoveOriginatorApplicationEntityTitle, asked.MoveOriginatorMessageID = "MOVER", 3
    assert read(encoded(C_STORE_RQ(), asked)) == STORE


def test_an_echo_request_of_the_library() -> None:
    asked = C_ECHO()
    asked.MessageID, asked.AffectedSOPClassUID = 1, VERIFICATION
    assert read(encoded(C_ECHO_RQ(), asked)) == Request(commands.C_ECHO_RQ, 1, VERIFICATION)


GOOD = {"sop_class": CT, "field": 1, "message_id": 7, "priority": 0, "data_set": 1, "sop_instance": "1.2.3"}


@pytest.mark.parametrize(
    "changes",
    [
        {"field": 0x0020},
        {"data_set": 0x0101},
        {"data_set": "1234"},
        {"priority": 3},
        {"sop_class": "x"},
        {"sop_instance": "../x"},
        {"sop_instance": "1" * 65},
        {"sop_instance": ""},
    ],
)
def test_what_is_odd_is_left_alone(changes: dict[str, int | str]) -> None:
    assert read(command(**GOOD)) == STORE
    assert read(command(**(GOOD | changes))) is None


@pytest.mark.parametrize("name", GOOD)
def test_what_lacks_something_is_left_alone(name: str) -> None:
    assert read(command(**{key: content for key, content in GOOD.items() if key != name})) is None


@pytest.mark.parametrize(
    "asked",
    [
        b"",
        store_command(CT, "1.2.3")[:-1],
        store_command(CT, "1.2.3") + b"\0",
        store_command(CT, "1.2.3") * 2,
        store_command(CT, "1.2.3") + b"\x08\0\x18\0\0\0\0\0",
        store_command(CT, "1.2.3") + b"\0\0\x31\x10\3\0\0\0abc",
        store_command(CT, "1.2.3") + b"\0\0\x30\x10\4\0\0\0a\\bc",
        store_command(CT, "1.2.3") + b"\0\0\x02\x06\2\0\0\0ab",
    ],
)
def test_what_is_no_request_in_order_is_left_alone(asked: bytes) -> None:
    assert read(asked) is None


def parts(pdus: bytes) -> list[tuple[int, int, bytes]]:
    """Context id, control header and content of PDUs of one value each."""
    found, at = [], 0
    while at < len(pdus):
        size = int.from_bytes(pdus[at + 2 : at + 6], "big")
        assert (pdus[at], int.from_bytes(pdus[at + 6 : at + 10], "big")) == (4, size - 4)
        found.append((pdus[at + 10], pdus[at + 11], pdus[at + 12 : at + 6 + size]))
        at += 6 + size
    return found


def test_an_answer_is_what_the_library_reads() -> None:
    ((context_id, control, content),) = parts(commands.answer(STORE, 5, 0xA700, "no room", 16384))
    said = decode(io.BytesIO(content), True, True)
    assert (context_id, control) == (5, 3)
    assert (said.CommandField, said.MessageIDBeingRespondedTo, said.CommandDataSetType) == (0x8001, 7, 0x0101)
    assert (said.AffectedSOPClassUID, said.AffectedSOPInstanceUID) == (CT, "1.2.3")
    assert (said.Status, said.ErrorComment) == (0xA700, "no room")
    assert said.CommandGroupLength == len(content) - 12


def test_an_answer_to_an_echo_names_no_instance() -> None:
    asked = Request(commands.C_ECHO_RQ, 9, VERIFICATION)
    ((_, _, content),) = parts(commands.answer(asked, 1, 0, "", 0))
    said = decode(io.BytesIO(content), True, True)
    assert (said.CommandField, said.Status) == (0x8030, 0)
    assert "AffectedSOPInstanceUID" not in said
    assert "ErrorComment" not in said


def test_an_answer_fits_the_pdus_of_the_peer() -> None:
    whole = parts(commands.answer(STORE, 1, 0, "", 0))[0][2]
    pieces = parts(commands.answer(STORE, 1, 0, "", 51))
    assert [control for _, control, _ in pieces] == [1] * (len(pieces) - 1) + [3]
    assert all(len(content) + 6 <= 51 for _, _, content in pieces)
    assert b"".join(content for _, _, content in pieces) == whole
