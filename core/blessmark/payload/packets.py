"""What one tile carries: packet = k (1 byte) | shards (6 bytes each) | MAC (4 bytes).

k is the number of data shards of the whole message, the same in every packet. The carrier appends the MAC,
because it covers pixels; masks the whole; and turns bytes into bits, most significant first.
"""

from __future__ import annotations

import numpy as np

from blessmark.errors import RecordError
from blessmark.jit import compiled
from blessmark.payload.erasure import Points, Symbols
from blessmark.payload.record import padded_plaintext_length
from blessmark.profile import V1

__all__ = ["message_of", "padded_plaintext_length", "points", "shards_in", "shards_of"]

_COLUMNS = V1.shard_bytes // 2
_POINT_TILES, _POINTS_PER_TILE = V1.point_tiles, V1.points_per_tile


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
    return shards_in(message)


def shards_in(content: bytes) -> Symbols:
    """uint16 [n, 3]: the shards that one or more packets hold, one after the other."""
    return np.frombuffer(content, ">u2").astype(np.uint16).reshape(-1, _COLUMNS)


def message_of(data: Symbols) -> bytes:
    """The message whose data shards these are."""
    return data.astype(">u2").tobytes()


def points(tiles: Points, counts: Points) -> Points:
    """int64: where the shards of packets in `tiles` are evaluated, `counts` of each; both int64 [n]."""
    found: Points = _points(tiles, counts)
    return found


@compiled
def _points(tiles: Points, counts: Points) -> Points:
    found, at = np.empty(counts.sum(), np.int64), 0
    for n in range(len(tiles)):
        for i in range(counts[n]):
            found[at + i] = tiles[n] % _POINT_TILES * _POINTS_PER_TILE + i
        at += counts[n]
    return found
