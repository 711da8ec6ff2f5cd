"""What one tile carries: packet = k (1 byte) | shards (6 bytes each) | MAC (4 bytes).

k is the number of data shards of the whole message, the same in every packet. The carrier appends the MAC,
because it covers pixels; masks the whole; and turns bytes into bits, most significant first.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from blessmark.errors import RecordError
from blessmark.payload.erasure import Points, Symbols
from blessmark.payload.record import padded_plaintext_length
from blessmark.profile import V1

__all__ = ["message_of", "pack", "padded_plaintext_length", "points", "shards_of", "unpack"]

_COLUMNS = V1.shard_bytes // 2


def shards_of(message: bytes) -> Symbols:
    """uint16 [k, 3]: the data shards of a message, big-endian.

    Raises RecordError when the message is not made of whole shards or of more than the count byte can say.
    """
    count, rest = divmod(len(message), V1.shard_bytes)
    if rest or not 1 <= count <= V1.max_shards:
        raise RecordError(
            f"a message of {len(message)} bytes is not 1 to {V1.max_shards} shards of {V1.shard_bytes}; "
            "choose fewer fields"
        )
    return np.frombuffer(message, ">u2").astype(np.uint16).reshape(count, _COLUMNS)


def message_of(data: Symbols) -> bytes:
    """The message whose data shards these are."""
    return data.astype(">u2").tobytes()


def points(tile: int, count: int) -> Points:
    """int64 [count]: where the shards of a tile are evaluated."""
    return (tile % V1.point_tiles) * V1.points_per_tile + np.arange(count, dtype=np.int64)


def pack(count: int, shards: Symbols) -> npt.NDArray[np.uint8]:
    """uint8 [1 + 6 j]: a packet without its MAC; `count` is k, `shards` uint16 [j, 3]."""
    content = np.frombuffer(shards.astype(">u2").tobytes(), np.uint8)
    return np.concatenate((np.array([count], np.uint8), content))


def unpack(packet: npt.NDArray[np.uint8]) -> tuple[int, Symbols]:
    """k and the shards, uint16 [j, 3], of an unmasked packet without its MAC."""
    shards = np.frombuffer(packet[1:].tobytes(), ">u2").astype(np.uint16)
    return int(packet[0]), shards.reshape(-1, _COLUMNS)
