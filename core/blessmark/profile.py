"""Every number that defines watermark format v1. Frozen: a change here is a new profile, never an edit.

The prose specification is docs/format/v1.md; the two are held together by the golden vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

from blessmark.types import Lattice


@dataclass(frozen=True, slots=True)
class Profile:
    """One version of the format; `id` is written into every record and every key derivation."""

    id: int
    #: side of a map block, pixels
    block_px: int
    #: side of a tile, pixels
    tile_px: int
    #: a partial tile at the right or bottom edge counts if it has at least this side, pixels
    min_tile_px: int
    #: expansion factors T that a tile packet or a global header may use
    expansions: tuple[int, ...]
    #: Z = T << 0 .. T << (shift_doublings - 1)
    shift_doublings: int
    #: shards a packet may hold, ascending; a packet is 8 + 48 * shards + 32 bits
    shards_per_packet: tuple[int, ...]
    shard_bytes: int
    mac_bytes: int
    #: evaluation points: (tile mod point_tiles) * points_per_tile + shard
    points_per_tile: int
    point_tiles: int
    #: most data shards of one message; bounded by the packet's count byte
    max_shards: int
    #: the predictor of tile packets and of the global header, per lattice
    quarter_predictor: int
    quincunx_predictor: int
    #: at most this many cells of the localisation grid
    max_cells: int

    def predictor(self, lattice: Lattice) -> int:
        """The predictor that needs no header."""
        return self.quarter_predictor if lattice is Lattice.QUARTER else self.quincunx_predictor

    def packet_bits(self, shards: int) -> int:
        """Length of a packet that holds `shards` shards."""
        return 8 * (1 + self.shard_bytes * shards + self.mac_bytes)


V1 = Profile(
    id=1,
    block_px=8,
    tile_px=64,
    min_tile_px=16,
    expansions=(1, 2, 4),
    shift_doublings=7,
    shards_per_packet=(1, 2, 4, 8, 16),
    shard_bytes=6,
    mac_bytes=4,
    points_per_tile=16,
    point_tiles=4096,
    max_shards=255,
    quarter_predictor=3,
    quincunx_predictor=0,
    max_cells=64,
)
