"""What a storage peer answers, as bytes, spelled here and nowhere in the node."""

from __future__ import annotations

import struct

ABORT = bytes.fromhex("07000000000400000200")
RELEASE = bytes.fromhex("05000000000400000000")


def response(message_id: int, status: int, *, fragment: int = 1000, context: int = 1) -> bytes:
    """A C-STORE response (PS3.7 table 9.3-2) in P-DATA PDUs of `fragment` bytes of the command set."""
    elements = b"".join(
        struct.pack("<HHI", 0, number, len(value)) + value
        for number, value in (
            (0x0002, b"1.2.840.10008.5.1.4.1.1.2\0"),
            (0x0100, b"\x01\x80"),
            (0x0120, struct.pack("<H", message_id)),
            (0x0800, b"\x01\x01"),
            (0x0900, struct.pack("<H", status)),
            (0x1000, b"1.2.3\0"),
        )
    )
    command = struct.pack("<HHII", 0, 0, 4, len(elements)) + elements
    parts = [command[at : at + fragment] for at in range(0, len(command), fragment)]
    return b"".join(
        struct.pack(">BxIIBB", 4, len(part) + 6, len(part) + 2, context, 3 if number + 1 == len(parts) else 1)
        + part
        for number, part in enumerate(parts)
    )
