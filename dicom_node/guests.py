"""Who is being answered over HTTP: so many at once, and nobody for ever.

A connection has a thread, and a peer that sends half a request, or reads nothing of its answer, would keep
it. So one that comes when all places are taken gets the place of another: of the address that holds most of
them, the oldest. Who asks and reads at once, as a scrape does, is seldom that one.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class _Guest:
    connection: socket.socket
    address: str
    since: float


class Guests:
    """The open connections of a server; safe with many threads.

    Parameters
    ----------
    most : how many there may be at once, at least 1
    longest_s : how long one may stay, seconds
    patience_s : how long a newcomer waits for the place of one that was sent away, seconds
    clock : seconds that never go back
    """

    def __init__(
        self, most: int, longest_s: float, patience_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._longest_s, self._patience_s, self._clock = most, longest_s, patience_s, clock
        self._free = threading.Condition()
        #: oldest first
        self._here: dict[int, _Guest] = {}
        #: those among them that were sent away; whose thread does not end yet keeps its place
        self._going: set[int] = set()

    def admit(self, connection: socket.socket, address: str) -> bool:
        """Give it a place, another's if need be; False when none became free in time."""
        with self._free:
            if len(self._here) >= self._most:
                self._send_one_away()
                if not self._free.wait_for(lambda: len(self._here) < self._most, self._patience_s):
                    return False
            self._here[id(connection)] = _Guest(connection, address, self._clock())
            return True

    def leave(self, connection: socket.socket) -> None:
        """Its place is free; call this before it is closed. No matter if it has none."""
        with self._free:
            self._going.discard(id(connection))
            if self._here.pop(id(connection), None) is not None:
                self._free.notify()

    def send_late_away(self) -> None:
        """Break off with those that stay too long; their threads then end and give the places back."""
        with self._free:
            for guest in self._here.values():
                if self._clock() - guest.since > self._longest_s:
                    _send_away(guest)

    def _send_one_away(self) -> None:
        """Another for each newcomer, for the thread of the last may be busy with something else for long."""
        staying = [guest for key, guest in self._here.items() if key not in self._going]
        if staying:
            guest = _next_to_go(staying)
            self._going.add(id(guest.connection))
            _send_away(guest)


def _next_to_go(guests: list[_Guest]) -> _Guest:
    """Of the address with the most connections the oldest; `guests` are ordered by age, oldest first."""
    held = Counter(guest.address for guest in guests)
    return max(guests, key=lambda guest: held[guest.address])


def _send_away(guest: _Guest) -> None:
    """End what its thread waits for; the thread itself closes the connection."""
    with contextlib.suppress(OSError):  # the peer was faster
        guest.connection.shutdown(socket.SHUT_RDWR)
