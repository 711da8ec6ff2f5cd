"""How many peers are answered at once, and who has to go."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from dicom_node.guests import Guests
from tests.waiting import PATIENCE_S


class Peers:
    """Connections that say whether they were sent away."""

    def __init__(self) -> None:
        self.pairs: list[tuple[socket.socket, socket.socket]] = []

    def one(self) -> socket.socket:
        self.pairs.append(socket.socketpair())
        return self.pairs[-1][0]

    def gone(self) -> list[int]:
        """The numbers of those that read the end of their connection."""
        for _, theirs in self.pairs:
            theirs.setblocking(False)
        return [number for number, (_, theirs) in enumerate(self.pairs) if _is_at_its_end(theirs)]


def _is_at_its_end(theirs: socket.socket) -> bool:
    try:
        return theirs.recv(1) == b""
    except BlockingIOError:
        return False


@pytest.fixture
def peers() -> Iterator[Peers]:
    made = Peers()
    yield made
    for ours, theirs in made.pairs:
        ours.close()
        theirs.close()


def test_there_is_room_for_so_many(peers: Peers) -> None:
    guests = Guests(2, 30, 0)
    assert guests.admit(peers.one(), "a")
    assert guests.admit(peers.one(), "b")
    assert peers.gone() == []


def test_of_the_address_with_most_the_oldest_goes(peers: Peers) -> None:
    guests = Guests(4, 30, 0)
    for address in ("a", "b", "c", "b"):
        guests.admit(peers.one(), address)
    assert not guests.admit(peers.one(), "d")  # a thread that does not end keeps its place
    assert peers.gone() == [1]


def test_who_was_sent_away_and_stays_costs_its_own_place_only(peers: Peers) -> None:
    """A thread that waits for the ledger does not hear that its peer is gone."""
    guests = Guests(3, 30, 0)
    made = [peers.one() for _ in range(3)]
    for connection in made:
        guests.admit(connection, "a")
    assert not guests.admit(peers.one(), "b")
    assert not guests.admit(peers.one(), "b")
    assert peers.gone() == [0, 1]
    guests.leave(made[1])
    assert guests.admit(peers.one(), "b")


def test_when_all_were_sent_away_newcomers_wait(peers: Peers) -> None:
    guests = Guests(1, 30, 0)
    guests.admit(peers.one(), "a")
    assert not guests.admit(peers.one(), "b")
    assert not guests.admit(peers.one(), "b")


def test_of_addresses_alike_the_oldest_goes(peers: Peers) -> None:
    guests = Guests(2, 30, 0)
    for address in ("a", "b", "a"):
        guests.admit(peers.one(), address)
    assert peers.gone() == [0]


def test_a_newcomer_waits_for_the_place_of_one_that_was_sent_away(peers: Peers) -> None:
    guests = Guests(1, 30, PATIENCE_S)
    first = peers.one()
    guests.admit(first, "a")

    def serve() -> None:
        first.recv(1)
        guests.leave(first)

    thread = threading.Thread(target=serve)
    thread.start()
    assert guests.admit(peers.one(), "b")
    thread.join()
    assert peers.gone() == [0]


def test_who_stays_too_long_is_sent_away(peers: Peers) -> None:
    now = 0.0
    guests = Guests(3, 30, 0, lambda: now)
    guests.admit(peers.one(), "a")
    now = 20.0
    guests.admit(peers.one(), "b")
    now = 31.0
    guests.send_late_away()
    assert peers.gone() == [0]


def test_who_leaves_without_a_place_takes_none_away(peers: Peers) -> None:
    guests = Guests(1, 30, 0)
    guests.leave(peers.one())
    assert guests.admit(peers.one(), "a")
    assert not guests.admit(peers.one(), "a")


def test_a_peer_that_was_faster_is_no_error(peers: Peers) -> None:
    guests = Guests(1, 30, 0)
    first = peers.one()
    guests.admit(first, "a")
    first.close()
    assert not guests.admit(peers.one(), "a")
