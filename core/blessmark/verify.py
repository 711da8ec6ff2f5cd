"""Extract, compare, judge: is this the image that was protected, and if not, where does it differ?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from blessmark import signing
from blessmark.carrier import tile_framing
from blessmark.carrier.block_maps import maps_for
from blessmark.embed import allowed_change
from blessmark.extract import Extraction, TileAt, extract, read_again
from blessmark.extract_dct import BlockExtraction, extract_dct
from blessmark.fidelity import psnr_db
from blessmark.payload import crypto, record
from blessmark.payload.signature import LAYER_ID
from blessmark.profile import V1
from blessmark.roi import Maps, pixel_mask
from blessmark.signing import Release
from blessmark.types import (
    Evidence,
    Finding,
    Frame,
    Framing,
    KeyRing,
    Record,
    Segmenter,
    TileState,
    Verdict,
)

#: how often at most tiles in doubt are looked at again
_LOOKS = 4
_NOTHING_KNOWN = Release()

_SPECIFIC_CHARACTER_SET, _SOP_INSTANCE_UID = 0x00080005, 0x00080018
_ESCAPE = b"\x1b"


def verify(
    frame: Frame,
    ring: KeyRing,
    segmenters: Sequence[Segmenter],
    *,
    header: Mapping[int, bytes] | None = None,
    sealed: bytes | None = None,
    hinted_keys: Sequence[bytes] = (),
    hinted_segmenters: Sequence[str] = (),
    release: Release = _NOTHING_KNOWN,
) -> Verdict:
    """Judge one frame; a signature layer over its record is taken off first, and judged beside it.

    Parameters
    ----------
    frame : as received
    ring : every key of it is tried
    segmenters : tried in this order; the one that drew the map must be among them
    header : tag -> value bytes as received, for the fields of the record; None skips the comparison.
        Tags of the record that `header` lacks count as altered.
    sealed : the sealed record from the header element, if there is one
    hinted_keys : key fingerprints that the header claims; a hint, never trusted for anything but telling
        `wrong-key` from `unmarked`
    hinted_segmenters : ids of segmenters that the header claims; a hint as well, which tells
        `unknown-segmenter` from `damaged`
    release : what is needed to check a signature; it never changes the finding
    """
    judge = partial(
        _judge,
        ring=ring,
        segmenters=segmenters,
        header=header,
        sealed=sealed,
        hinted_keys=hinted_keys,
        hinted_segmenters=[claimed for claimed in hinted_segmenters if claimed != LAYER_ID],
    )
    verdict, layer = _below(frame, segmenters, judge, hinted=release.hinted)
    return replace(verdict, signature=signing.judged(layer, frame, release))


def _below(
    frame: Frame, segmenters: Sequence[Segmenter], judge: Callable[[Frame, Maps], Verdict], *, hinted: bool
) -> tuple[Verdict, signing.Peeled | None]:
    """The verdict on what is below the signature layer, and the layer, None where there is none.

    A frame that is proven as it arrived has none.
    """
    maps = Maps(frame)
    layer = signing.peel(frame, segmenters, maps) if hinted else None
    verdict = judge(frame, maps) if layer is None else judge(layer.frame, maps.below(layer.frame))
    if layer is None and not hinted and not _proven(verdict):
        layer = signing.peel(frame, segmenters, maps)
        verdict = verdict if layer is None else judge(layer.frame, maps.below(layer.frame))
    if layer is not None and not _proven(verdict):
        closer = signing.peel_again(layer)
        if closer is not layer:
            layer, verdict = closer, judge(closer.frame, maps.below(closer.frame))
    return (verdict if layer is None else _under(layer, _as_received(verdict, frame))), layer


def _proven(verdict: Verdict) -> bool:
    return verdict.exact or verdict.approximate


def _under(layer: signing.Peeled, verdict: Verdict) -> Verdict:
    """The verdict on a frame as it arrived, by that on what is below its layer.

    Everybody can write a layer. A signer's lies over a record in a lattice alone, and outside the region of
    interest of its map; any other is a change of the pixels, though taking it off gives a genuine frame.
    """
    touched = (layer.received.samples != layer.frame.samples).any(axis=0)
    roi = verdict.evidence.roi
    if roi is not None:
        touched &= pixel_mask(roi, layer.frame.rows, layer.frame.cols)
    if not (_proven(verdict) and touched.any()):
        return verdict
    grid = tile_framing.TileGrid(layer.frame.rows, layer.frame.cols)
    windows = (grid.window(tile) for tile in range(len(grid)))
    hit = [touched[each.top : each.bottom, each.left : each.right].any() for each in windows]
    tiles = tuple(divmod(tile, grid.shape[1]) for tile in np.flatnonzero(hit).tolist())
    states = (
        np.zeros(grid.shape, np.uint8) if verdict.evidence.tiles is None else verdict.evidence.tiles.copy()
    )
    _mark(states, set(tiles), TileState.ALTERED)
    evidence = replace(
        verdict.evidence, tiles=states, altered_tiles=tiles, proven_tiles=tiles, restored_psnr_db=None
    )
    return replace(verdict, finding=Finding.PIXELS_ALTERED, evidence=evidence, exact=False, approximate=False)


def _as_received(verdict: Verdict, frame: Frame) -> Verdict:
    """The verdict with what restoring changes counted from the frame as it arrived, its layer included."""
    if verdict.restored is None:
        return verdict
    evidence = replace(
        verdict.evidence,
        changed_samples=int(np.count_nonzero(verdict.restored.samples != frame.samples)),
        psnr_db=psnr_db(verdict.restored, frame.samples),
    )
    return replace(verdict, evidence=evidence)


def _judge(
    frame: Frame,
    maps: Maps,
    *,
    ring: KeyRing,
    segmenters: Sequence[Segmenter],
    header: Mapping[int, bytes] | None,
    sealed: bytes | None,
    hinted_keys: Sequence[bytes],
    hinted_segmenters: Sequence[str],
) -> Verdict:
    """The verdict on a frame without signature layer."""
    known = _known_maps(segmenters)
    unknown = [claimed for claimed in hinted_segmenters if claimed not in known]
    found = extract(frame, ring, segmenters, maps)
    if found is not None and found.record is not None:
        return _judge_found(frame, found, header, known, unknown)
    by_seal = None if sealed is None else _judge_sealed(frame, ring, sealed, header)
    if by_seal is not None and by_seal.exact:
        return by_seal
    in_blocks = extract_dct(frame, ring, segmenters)
    if in_blocks is not None and in_blocks.record is not None:
        return _judge_blocks(frame, in_blocks, header)
    if found is not None:
        return _judge_found(frame, found, header, known, unknown)
    if by_seal is not None:
        return by_seal
    if in_blocks is not None:
        return _judge_blocks(frame, in_blocks, header)
    finding = _nothing_found(ring, hinted_keys, unknown)
    claimed = ", ".join(unknown) if finding is Finding.UNKNOWN_SEGMENTER else ""
    return Verdict(finding, Evidence(frame.number, segmenter=claimed))


def _known_maps(segmenters: Sequence[Segmenter]) -> set[str]:
    """The ids of every map that these segmenters give, by either carrier."""
    return {segmenter.id for segmenter in segmenters} | {each.id for each in maps_for(segmenters)}


def _nothing_found(ring: KeyRing, hinted_keys: Sequence[bytes], unknown: Sequence[str]) -> Finding:
    """The header may claim a key or a segmenter that this reader lacks; if neither, the watermark is gone."""
    if not hinted_keys:
        return Finding.UNMARKED
    held = {crypto.fingerprint(key) for key in ring.keys}
    if not held & set(hinted_keys):
        return Finding.WRONG_KEY
    return Finding.UNKNOWN_SEGMENTER if unknown else Finding.DAMAGED


def _judge_found(
    frame: Frame,
    found: Extraction,
    header: Mapping[int, bytes] | None,
    known: AbstractSet[str],
    unknown: Sequence[str],
) -> Verdict:
    restored = found.restored
    if found.record is None:
        if unknown:
            return _not_to_judge(frame, found, restored, ", ".join(unknown))
        evidence = _evidence(frame, found, restored, _states(frame, found, altered=frozenset()), ())
        return Verdict(Finding.DAMAGED, evidence, None, restored)
    sent = found.record
    exact = record.pixel_digest(restored) == sent.pixel_digest
    if not exact:
        found = _closer(frame, found, sent)
        restored = found.restored
        exact = record.pixel_digest(restored) == sent.pixel_digest
    if not exact and sent.segmenter and sent.segmenter not in known:
        return _not_to_judge(frame, found, restored, sent.segmenter, altered_fields(sent, header))
    if exact:
        found = replace(found, foreign=frozenset())  # of an earlier watermark, and part of the original
    altered = frozenset() if exact else _suspects(found, sent)
    fields = altered_fields(sent, header)
    evidence = _evidence(frame, found, restored, _states(frame, found, altered), fields)
    return Verdict(_finding(exact, fields), evidence, sent, restored, exact)


def _not_to_judge(
    frame: Frame, found: Extraction, restored: Frame, segmenter: str, fields: tuple[int, ...] = ()
) -> Verdict:
    """Some packets were read by the map of another segmenter; where the two differ nothing can be said."""
    states = _states(frame, found, altered=frozenset())
    evidence = replace(
        _evidence(frame, found, restored, states, fields),
        segmenter=segmenter,
        localisation="none",
        altered_tiles=(),
    )
    return Verdict(Finding.UNKNOWN_SEGMENTER, evidence, found.record, restored)


def _closer(frame: Frame, found: Extraction, sent: Record) -> Extraction:
    """The same after closer looks at the tiles in doubt; every one that a look clears helps the next look."""
    for _ in range(_LOOKS):
        again = read_again(frame, found, _suspects(found, sent))
        if len(again.authentic) == len(found.authentic):
            return again
        found = again
    return found


def _judge_sealed(
    frame: Frame, ring: KeyRing, sealed: bytes, header: Mapping[int, bytes] | None
) -> Verdict | None:
    """The verdict on a frame whose record travels in the header, None when no key opens it."""
    for key in ring.keys:
        keys = crypto.derive(key)
        plaintext = crypto.open_element(keys, sealed, crypto.context(frame))
        if plaintext is None:
            continue
        sent = record.decode(plaintext, frame.number)
        exact = record.pixel_digest(frame) == sent.pixel_digest
        fields = altered_fields(sent, header)
        states = np.zeros(tile_framing.TileGrid(frame.rows, frame.cols).shape, np.uint8)
        altered: AbstractSet[TileAt] = (
            set() if exact else _tiles_of_cells(frame, _wrong_cells(keys, sent, frame))
        )
        _mark(states, altered, TileState.ALTERED)
        evidence = Evidence(
            frame=frame.number,
            key_id=key.id,
            framing=Framing.HEADER,
            tier=sent.tier,
            segmenter=sent.segmenter,
            localisation="exact",
            tiles=states,
            altered_tiles=tuple(sorted(altered)),
            altered_fields=fields,
            proven_tiles=_of_single_cells(frame, altered),
        )
        return Verdict(_finding(exact, fields), evidence, sent, frame, exact)
    return None


def _judge_blocks(frame: Frame, found: BlockExtraction, header: Mapping[int, bytes] | None) -> Verdict:
    """The verdict on a frame that the `dct` carrier marked: its seal proves the frame as it was released.

    Restoring is approximate, so the hash of the original decides only whether it came out exact after all.
    """
    sent, seal = found.record, found.seal
    restored = frame.with_samples(found.restored)
    intact = sent is not None and seal is not None and seal.intact
    wrong = [] if seal is None or intact or sent is None else list(seal.wrong_cells)
    altered = frozenset(_tiles_of_cells(frame, wrong))
    states = np.zeros(tile_framing.TileGrid(frame.rows, frame.cols).shape, np.uint8)
    _mark(states, altered, TileState.ALTERED)
    evidence = Evidence(
        frame=frame.number,
        key_id=found.key.id,
        framing=Framing.BLOCKS,
        tier=None if sent is None else sent.tier,
        segmenter=found.block_map.id,
        changed_samples=int(np.count_nonzero(restored.samples != frame.samples)),
        psnr_db=psnr_db(restored, frame.samples),
        localisation="none" if sent is None or seal is None else "exact",
        tiles=states,
        altered_tiles=tuple(sorted(altered)),
        proven_tiles=_of_single_cells(frame, altered),
        altered_fields=() if sent is None else altered_fields(sent, header),
        block_px=found.block_map.side,
        restored_psnr_db=seal.psnr_db if intact and seal is not None else None,
    )
    if sent is None:
        return Verdict(Finding.DAMAGED, evidence)
    exact = intact and record.pixel_digest(restored) == sent.pixel_digest
    finding = _finding(intact, evidence.altered_fields)
    return Verdict(finding, evidence, sent, restored, exact, approximate=intact and not exact)


def _finding(exact: bool, fields: tuple[int, ...]) -> Finding:
    if not exact:
        return Finding.PIXELS_ALTERED
    return Finding.HEADER_ALTERED if fields else Finding.AUTHENTIC


def altered_fields(sent: Record, header: Mapping[int, bytes] | None) -> tuple[int, ...]:
    """Tags of the record whose value bytes differ from the header's, padding apart (PS3.5 section 6.2).

    The SOP Instance UID is always among them: a record without it, a seal, still holds its digest. So is the
    Specific Character Set where any value is more than ASCII: in another one the same bytes are another name.
    """
    if header is None:
        return ()
    altered = {tag for tag, value in sent.fields.items() if _bare(header, tag) != value.strip(b" \0")}
    uid = _bare(header, _SOP_INSTANCE_UID).decode("ascii", "replace")
    if _SOP_INSTANCE_UID not in sent.fields and record.uid_digest(uid) != sent.uid_digest:
        altered.add(_SOP_INSTANCE_UID)
    charset = _bare(header, _SPECIFIC_CHARACTER_SET)
    if any(map(_needs_charset, sent.fields.values())) and charset != sent.charset.strip(b" \0"):
        altered.add(_SPECIFIC_CHARACTER_SET)
    return tuple(sorted(altered))


def _bare(header: Mapping[int, bytes], tag: int) -> bytes:
    return header.get(tag, b"").strip(b" \0")


def _needs_charset(value: bytes) -> bool:
    """Whether what a value says depends on the character set (PS3.5 section 6.1)."""
    return not value.isascii() or _ESCAPE in value


def _suspects(found: Extraction, sent: Record) -> frozenset[TileAt]:
    """Tiles whose pixels are not the original ones.

    Two witnesses: a packet belongs to another image; a cell of the localisation grid does not match, or,
    in a record without a grid, a tile that embedding would have used is silent. A packet of this image
    clears its own tile whatever the coarser grid says.
    """
    keys, restored = crypto.derive(found.key), found.restored
    if sent.digests or found.framing is Framing.GLOBAL:
        suspects = _tiles_of_cells(restored, _wrong_cells(keys, sent, restored))
    else:
        suspects = _silent_tiles(found, restored, keys)
    return frozenset((suspects | found.foreign) - found.authentic)


def _silent_tiles(found: Extraction, restored: Frame, keys: crypto.DerivedKeys) -> set[TileAt]:
    """Tiles without an authentic packet although embedding would have used them."""
    plan = tile_framing.plan(
        restored, found.roi, found.lattice, keys, allowed_change(restored, found.lattice)
    )
    usable = {divmod(tile, plan.grid.shape[1]) for tile in plan.tiles}
    return usable - found.authentic


def _wrong_cells(keys: crypto.DerivedKeys, sent: Record, restored: Frame) -> list[int]:
    """Cells of the localisation grid whose digest differs; none when the record had no room for digests."""
    actual = record.cell_digests(keys, restored)
    if len(actual) != len(sent.digests):
        return []
    return [cell for cell, (a, b) in enumerate(zip(actual, sent.digests, strict=True)) if a != b]


def _tiles_of_cells(frame: Frame, cells: list[int]) -> set[TileAt]:
    """Every tile that the given cells of the localisation grid cover."""
    grid = record.Grid.of(frame.rows, frame.cols)
    tiles: set[TileAt] = set()
    for cell in cells:
        row, col = divmod(cell, -(-grid.tile_cols // grid.step))
        top, left = row * grid.step, col * grid.step
        tiles |= {
            (r, c)
            for r in range(top, min(top + grid.step, grid.tile_rows))
            for c in range(left, min(left + grid.step, grid.tile_cols))
        }
    return tiles


def _states(frame: Frame, found: Extraction, altered: frozenset[TileAt]) -> npt.NDArray[np.uint8]:
    states = np.zeros(tile_framing.TileGrid(frame.rows, frame.cols).shape, np.uint8)
    _mark(states, found.authentic, TileState.PACKET)
    _mark(states, altered, TileState.ALTERED)
    _mark(states, found.foreign, TileState.FOREIGN)
    return states


def _mark(states: npt.NDArray[np.uint8], tiles: AbstractSet[TileAt], state: TileState) -> None:
    for tile in tiles:
        states[tile] = state


def _evidence(
    frame: Frame,
    found: Extraction,
    restored: Frame,
    states: npt.NDArray[np.uint8],
    fields: tuple[int, ...],
) -> Evidence:
    bad = np.argwhere((states == TileState.ALTERED) | (states == TileState.FOREIGN))
    return Evidence(
        frame=frame.number,
        key_id=found.key.id,
        framing=found.framing,
        lattice=found.lattice,
        tier=None if found.record is None else found.record.tier,
        segmenter=found.segmenter.id,
        packets=len(found.authentic),
        shards_needed=found.shards_needed,
        changed_samples=int(np.count_nonzero(restored.samples != frame.samples)),
        psnr_db=psnr_db(restored, frame.samples),
        localisation=_localisation(found),
        tiles=states,
        altered_tiles=tuple((int(row), int(col)) for row, col in bad),
        altered_fields=fields,
        proven_tiles=_proven_tiles(restored, found, [(int(row), int(col)) for row, col in bad]),
        roi=found.roi,
    )


def _proven_tiles(restored: Frame, found: Extraction, listed: Sequence[TileAt]) -> tuple[TileAt, ...]:
    """Those of the listed tiles whose pixels are certainly not the original ones.

    A digest must differ that covers this tile alone, and nothing beside the tile may have silenced it: it
    holds the packet of another image, or no other tile is listed that its map depends on (`reach_px`).
    """
    sent, reach = found.record, found.segmenter.reach_px
    if not listed or sent is None or record.Grid.of(restored.rows, restored.cols).step > 1:
        return ()
    wrong = _tiles_of_cells(restored, _wrong_cells(crypto.derive(found.key), sent, restored))
    away = None if reach is None else -(-reach // V1.tile_px)
    return tuple(
        tile
        for tile in listed
        if tile in wrong and (tile in found.foreign or (away is not None and _alone(tile, listed, away)))
    )


def _of_single_cells(frame: Frame, altered: AbstractSet[TileAt]) -> tuple[TileAt, ...]:
    """Tiles of wrong cells, where a cell is one tile and covers it as it arrived."""
    return tuple(sorted(altered)) if record.Grid.of(frame.rows, frame.cols).step == 1 else ()


def _alone(tile: TileAt, listed: Sequence[TileAt], away: int) -> bool:
    """Whether no other of the listed tiles is within so many tiles."""
    near = (other for other in listed if max(abs(other[0] - tile[0]), abs(other[1] - tile[1])) <= away)
    return all(other == tile for other in near)


def _localisation(found: Extraction) -> str:
    """How far the located tiles can be trusted.

    With a segmenter of finite reach, damage stays where it was done. A global one may redraw its map and
    silence tiles that nobody touched; then they are an upper bound.
    """
    if found.record is None:
        return "none"
    return "indicative" if found.segmenter.reach_px is None else "exact"
