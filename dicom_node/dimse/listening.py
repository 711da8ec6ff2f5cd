"""A listening socket that several processes accept from.

The node's process makes it and keeps it; receiver processes inherit it. So what waits to be accepted waits in
one queue of the kernel: whoever dies or ends takes none of it along, as it would with a socket of its own
(SO_REUSEPORT). Who comes too late to accept finds nothing, which is nobody's error.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import Any

from pynetdicom.transport import AddressInformation

from dicom_node.dimse.board import Row, SharedFailures
from dicom_node.errors import OutputError

#: connections that wait to be accepted
BACKLOG = 128
#: seconds for which a process that has more connections than another lets that one go first, for each of them
#: and at most
_WAIT_S, _LONGEST_WAIT_S = 0.02, 0.1


def listen(bind: str, port: int) -> socket.socket:
    """Listen; accepting waits for nobody. Raises OutputError when the address cannot be bound."""
    made: socket.socket | None = None
    try:
        # the name of a host, an IPv4 or an IPv6 address, as pynetdicom itself takes it
        made = socket.socket(AddressInformation.from_tuple((bind, port)).address_family)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((bind, port))
        made.listen(BACKLOG)
    except OSError as error:
        if made is not None:
            made.close()
        raise OutputError(
            f"cannot listen on {bind}:{port}: {error.strerror}; is another program there?"
        ) from error
    made.setblocking(False)
    return made


class SharedSocket(socket.socket):
    """This process' hold on a listening socket; whoever has more connections than another gives way.

    Without that, the process that wakes first takes them all, and it is often the same.
    """

    __slots__ = ("_row",)

    def __init__(self, inherited: socket.socket, row: Row) -> None:
        super().__init__(inherited.family, inherited.type, inherited.proto, fileno=inherited.detach())
        self.setblocking(False)
        self._row = row

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection; BlockingIOError if another process has it."""
        ahead = self._row.ahead()
        if ahead:
            time.sleep(min(_LONGEST_WAIT_S, ahead * _WAIT_S))
        accepted = super().accept()
        self._row.connected()
        return accepted

    def shutdown(self, how: int) -> None:
        """Nothing: it would end the listening of every process, where only this one is done with it."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What a receiver has in common with those beside it, in other processes.

    Attributes
    ----------
    row : what it says of itself, and where it takes its places
    failures : who failed to log in
    clear, tls : the sockets that it accepts from, None for a port that there is not
    """

    row: Row
    failures: SharedFailures
    clear: socket.socket | None = None
    tls: socket.socket | None = None
