"""What is small, deflated (zlib, RFC 1950) as `zlib.compress(content, 9)` does it, at a third of its price.

For every stream zlib sets up tables of 260 kB, which takes longer than to deflate a kilobyte. They may be
smaller, and the bytes are the same as long as none can be full: of less than 1024 bytes every symbol fits
into one block, and every earlier place into one chain of the search, whichever others share its hash.
"""

from __future__ import annotations

import zlib

#: contents up to so many bytes are deflated with small tables
_SMALL_BYTES = 1000
#: 1024 symbols a block, 2048 hashes; zlib's `memLevel`
_SMALL_TABLES = 4


def deflated(content: bytes) -> bytes:
    """`content` as one zlib stream; `zlib.decompress` is its inverse."""
    if len(content) > _SMALL_BYTES:
        return zlib.compress(content, 9)
    stream = zlib.compressobj(9, memLevel=_SMALL_TABLES)
    return stream.compress(content) + stream.flush()
