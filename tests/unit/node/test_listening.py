"""One listening socket for several: who waits in its queue is served by whoever is there."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from dicom_node.dimse import listening
from dicom_node.dimse.board import Board
from dicom_node.dimse.listening import SharedSocket, listen
from dicom_node.errors import OutputError


@pytest.fixture
def bound() -> Iterator[socket.socket]:
    with listen("127.0.0.1", 0) as made:
        yield made


def shared(bound: socket.socket, board: Board, number: int) -> SharedSocket:
    return SharedSocket(bound.dup(), board.row(number))


def test_who_comes_too_late_finds_nothing(bound: socket.socket) -> None:
    board = Board(2)
    with shared(bound, board, 0) as one, shared(bound, board, 1) as two:
        with socket.create_connection(bound.getsockname()) as peer:
            accepted, address = one.accept()
            assert address == peer.getsockname()
            assert accepted.gettimeout() is None, "what is accepted waits for its bytes"
            accepted.close()
            with pytest.raises(BlockingIOError):
                two.accept()
        assert (board.row(0).connections, board.row(1).connections) == (1, 0)
    board.close()


def test_who_is_done_leaves_the_queue_to_the_others(bound: socket.socket) -> None:
    board = Board(2)
    with shared(bound, board, 0) as one, shared(bound, board, 1) as two:
        with socket.create_connection(bound.getsockname()):
            one.shutdown(socket.SHUT_RDWR)
            one.close()
            two.accept()[0].close()
        with socket.create_connection(bound.getsockname()):
            two.accept()[0].close()
    board.close()


def test_who_has_more_gives_way(bound: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(listening, "time", SimpleNamespace(sleep=waited.append))
    board = Board(2)
    board.row(0).say(0, 3, 1.0)
    board.row(1).say(0, 1, 1.0)
    with shared(bound, board, 0) as one, socket.create_connection(bound.getsockname()):
        one.accept()[0].close()
    assert waited == [pytest.approx(0.04)]
    with shared(bound, board, 1) as two, socket.create_connection(bound.getsockname()):
        two.accept()[0].close()
    assert len(waited) == 1
    board.close()


def test_a_port_that_is_taken(bound: socket.socket) -> None:
    with pytest.raises(OutputError, match=r"cannot listen on 127\.0\.0\.1:\d+: .*another program"):
        listen("127.0.0.1", bound.getsockname()[1])


def test_a_name_that_nobody_has() -> None:
    with pytest.raises(OutputError, match="cannot listen on no-such-host"):
        listen("no-such-host.invalid", 0)


def test_ipv6() -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("no IPv6 here")
    with listen("::1", 0) as made:
        assert made.family is socket.AF_INET6
