"""Arrays go to another process whole, in memory that leaves nothing behind."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dicom_node.shared_arrays import is_ours, receive, send


def open_handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield one, other
    one.close()
    other.close()


@pytest.mark.parametrize("shape", [(1, 3, 5, 1), (4, 300, 200, 2), (0, 4, 4, 1)])
@pytest.mark.parametrize("kind", ["u1", "<i4"])
def test_an_array_comes_as_it_went(pair: Pair, shape: tuple[int, ...], kind: str) -> None:
    array = np.random.default_rng(1).integers(0, 200, shape).astype(kind)
    before = open_handles()
    send(pair[0], {"network": "x/1"}, array)
    words, found = receive(pair[1])
    assert words == {"network": "x/1"}
    assert found is not None
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)
    assert not found.flags.writeable or found.size == 0
    del found
    assert open_handles() == before


def test_words_may_come_alone(pair: Pair) -> None:
    send(pair[0], {"error": "MemoryError"})
    assert receive(pair[1]) == ({"error": "MemoryError"}, None)


def test_an_end_is_told_from_a_packet(pair: Pair) -> None:
    pair[0].close()
    with pytest.raises(EOFError):
        receive(pair[1])


@pytest.mark.parametrize(
    ("kind", "shape"), [("|u1", [5000]), ("|O", [1]), ("|u1", [-1]), ("|u1", ["9"]), ("|u1", [1 << 40])]
)
def test_what_claims_more_than_it_brings_is_refused(pair: Pair, kind: str, shape: list[object]) -> None:
    handle = os.memfd_create("short")
    os.ftruncate(handle, 4096)
    socket.send_fds(pair[0], [json.dumps({"type": kind, "shape": shape}).encode()], [handle])
    os.close(handle)
    with pytest.raises(ValueError, match="array"):
        receive(pair[1])


def test_a_process_of_this_user_is_known(pair: Pair) -> None:
    assert is_ours(pair[0])
