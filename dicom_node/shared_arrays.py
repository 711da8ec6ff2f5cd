"""Arrays handed to another process of this node, in memory without a name.

    a packet of a few words (JSON)  +  a memory file (memfd_create(2)) that holds the array

Nothing is pickled, no pixel is copied through a socket, and nothing can be left behind: the memory goes with
the last process that has it, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import socket
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Words = Mapping[str, Any]
Array = npt.NDArray[Any]

#: most bytes of the words; types that are handed over; most bytes of an array
_LONGEST = 1 << 16
_TYPES = ("|u1", "<i4")
_LIMIT_BYTES = 1 << 32
_CREDENTIALS = struct.Struct("3i")


def send(connection: socket.socket, words: Words, array: Array | None = None) -> None:
    """One packet with an array, or without. Raises OSError when nobody is there."""
    if array is None:
        connection.send(json.dumps(words).encode())
        return
    told = {**words, "type": array.dtype.str, "shape": array.shape}
    handle = os.memfd_create("dicom-node-array", os.MFD_CLOEXEC)
    try:
        os.ftruncate(handle, max(1, array.nbytes))
        if array.nbytes:
            with mmap.mmap(handle, array.nbytes) as memory:
                np.frombuffer(memory, array.dtype, array.size).reshape(array.shape)[...] = array
        socket.send_fds(connection, [json.dumps(told).encode()], [handle])
    finally:
        os.close(handle)


def receive(connection: socket.socket) -> tuple[dict[str, Any], Array | None]:
    """The next packet, its array to be read only.

    Raises
    ------
    EOFError : the other side is gone
    ValueError : no such packet
    OSError : the connection failed
    """
    content, handles, _, _ = socket.recv_fds(connection, _LONGEST, 1)
    with contextlib.ExitStack() as stack:
        for handle in handles:
            stack.callback(os.close, handle)
        if not content:
            raise EOFError("the other side is gone")
        words = json.loads(content)
        return words, _mapped(handles[0], words) if handles else None


def _mapped(handle: int, words: dict[str, Any]) -> Array:
    kind, shape = words.pop("type"), tuple(words.pop("shape"))
    if kind not in _TYPES or not all(isinstance(length, int) and length >= 0 for length in shape):
        raise ValueError("no array that is handed over")
    size = np.dtype(kind).itemsize * math.prod(shape)
    if size > _LIMIT_BYTES or os.fstat(handle).st_size < size:
        raise ValueError("an array is larger than its memory")
    if not size:
        return np.zeros(shape, kind)
    memory = mmap.mmap(handle, size, prot=mmap.PROT_READ)
    return np.frombuffer(memory, kind).reshape(shape)


def is_ours(connection: socket.socket) -> bool:
    """Whether the process at the other end runs as this user; names of such sockets are free to all."""
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(told)[1] == os.geteuid())
