"""What `verify` makes of marked images that somebody changed."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.images import OTHER_RING, RING, Sample, chosen, dicom_files, sample
from benchmarks.results import Cell, Result, Table, share
from benchmarks.run import Run, spread
from blessmark.carrier.tile_framing import TileGrid
from blessmark.embed import embed
from blessmark.errors import CapacityError
from blessmark.profile import V1
from blessmark.roi import block_map
from blessmark.segment import segmenter
from blessmark.types import (
    BoolArray,
    Finding,
    Frame,
    Framing,
    IntArray,
    KeyRing,
    Rectangle,
    TileState,
    Verdict,
)
from blessmark.verify import verify

_HIT_PX = 160
_LEAST_HIT_SIDE = 448
_HITS = 4
_FILLS = ("noise", "black")


@dataclass(frozen=True, slots=True)
class _Marked:
    """A marked image, its original, its map, the tiles that carry packets, and how they lie."""

    image: Sample
    frame: Frame
    roi: BoolArray
    packets: BoolArray
    framing: Framing

    @property
    def samples(self) -> IntArray:
        return self.frame.samples


@dataclass(frozen=True, slots=True)
class _Attack:
    """An attacked image; `local` says that only a part was touched, so that it can be located."""

    name: str
    samples: IntArray
    local: bool = True


@dataclass(frozen=True, slots=True)
class _Row:
    """One verdict. `located`: every touched tile is listed; `spurious`: tiles listed beyond them.

    `harmless`: judged authentic, and what is restored is the original bit for bit.
    """

    attack: str
    framing: str
    detected: bool
    harmless: bool
    local: bool = False
    located: bool = False
    spurious: int = 0


@dataclass(frozen=True, slots=True)
class _Hit:
    """One random hit: whether the record could still be read, and all tiles it spared were restored."""

    fill: str
    tiles: int
    readable: bool
    rest_exact: bool
    detected: bool


def measure(run: Run) -> Result:
    """Attack a sample of the images in every way of the table, and hit large ones at random places."""
    files = dicom_files(run.data)
    most = 6 if run.quick else 60
    pairs = [(path, _neighbour(path, files)) for path in chosen(files, most, run.seed)]
    found = spread(functools.partial(_measure, run), pairs)
    rows = [row for rows, _ in found for row in rows]
    hits = [hit for _, hits in found for hit in hits]
    images = sum(bool(rows) for rows, _ in found)
    tables = (_detection(rows), _survival(hits))
    return Result("tampering", "Tampering", _NOTES, tables, {"seed": run.seed, "images": images})


_NOTES = (
    "A random sample of the image folder's `dicom/`, marked by default (segmenter `anatomy`, ladder).",
    "Detected: any finding but authentic, the header being the right one. Located: every tile in which a "
    "sample was changed is among those listed; spurious: tiles listed that nobody touched, per verdict.",
    "Harmless: judged authentic, and rightly: the restored image is the original (a tile of air "
    "replaced by a tile of the same air from another marked image). Missed: neither detected nor harmless.",
    "`anatomy` sees the whole image, so its map may be drawn differently after damage: located tiles are "
    "indicative, as the verdict says.",
    "Hits: random places in tile-framed images of at least 448 x 448 pixels.",
)


def _neighbour(path: Path, files: list[Path]) -> Path:
    """The next file of the same folder, or the one before the last."""
    held = [other for other in files if other.parent == path.parent]
    following = dict(pairwise(held))
    return following.get(path, held[max(0, len(held) - 2)])


def _measure(run: Run, pair: tuple[Path, Path]) -> tuple[list[_Row], list[_Hit]]:
    first = _marked(pair[0])
    if first is None:
        return [], []
    rng = np.random.default_rng([run.seed, sum(pair[0].name.encode())])
    other = _marked(pair[1]) if pair[1] != pair[0] else None
    rows = [_judged(first, attack) for attack in _attacks(first, other, rng)]
    return rows, list(_hits(first, rng)) if _can_be_hit(first) else []


def _marked(path: Path) -> _Marked | None:
    image = sample(path)
    if image is None:
        return None
    try:
        done = embed(image.frame, image.about, RING, segmenter("anatomy"))
    except CapacityError:
        return None
    return _read(image, done.frame, RING)


def _read(image: Sample, frame: Frame, ring: KeyRing) -> _Marked:
    """A frame that was marked under `ring` by the usual map."""
    anatomy = segmenter("anatomy")
    found = verify(frame, ring, (anatomy,)).evidence
    assert found.tiles is not None, "what was marked is read"
    assert found.framing is not None
    assert found.lattice is not None
    roi = block_map(anatomy, image.frame, found.lattice)
    return _Marked(image, frame, roi, np.asarray(found.tiles == TileState.PACKET), found.framing)


def attacks_on(
    first: tuple[Sample, Frame], other: tuple[Sample, Frame], ring: KeyRing, seed: int
) -> dict[str, IntArray]:
    """Every attack of the table on an image marked under `ring`, by name: samples [channels, rows, cols].

    `first` and `other` are originals and the same frames marked; parts of `other` go into `first`.
    """
    rng = np.random.default_rng(seed)
    marked = [_read(image, frame, ring) for image, frame in (first, other)]
    return {attack.name: attack.samples for attack in _attacks(*marked, rng) if attack.name != "none"}


def _attacks(first: _Marked, other: _Marked | None, rng: np.random.Generator) -> Iterator[_Attack]:
    """Every attack that changes this image."""
    candidates = [
        _Attack("none", first.samples, local=False),
        *_patches(first, rng),
        _Attack("32 rows shifted by 1 pixel", _rows_shifted(first.samples, rng)),
        _Attack("everything shifted by 1 row", np.roll(first.samples, 1, axis=1), local=False),
        _Attack("+-1 on 1 % of the samples", _sprinkled(first.frame, rng), local=False),
        _Attack("Gaussian noise, 1 % of the range", _noisy(first.frame, rng), local=False),
        *_embedded_again(first),
        *(_from_another(first, other, rng) if other is not None else ()),
    ]
    for attack in candidates:
        if attack.name == "none" or not np.array_equal(attack.samples, first.samples):
            yield attack


def _patches(first: _Marked, rng: np.random.Generator) -> Iterator[_Attack]:
    if first.packets.any():
        yield _Attack("1 pixel in a used tile", _one_pixel(first, rng))
    for name, blocks in (("ROI", first.roi), ("NROI", ~first.roi)):
        if not blocks.any():
            continue
        row, col = rng.choice(np.argwhere(blocks)) * V1.block_px
        small, large = (_around(first.frame, row, col, side) for side in (16, _HIT_PX))
        yield _Attack(f"16 x 16 noise in {name}", _filled(first.frame, small, "noise", rng))
        yield _Attack(f"160 x 160 from elsewhere in {name}", _copied(first.samples, large, rng))


def _around(frame: Frame, row: int, col: int, side: int) -> Rectangle:
    """A square of that side (less in a small image) about the block at (row, col)."""
    height, width = min(side, frame.rows), min(side, frame.cols)
    top = int(np.clip(row + V1.block_px // 2 - height // 2, 0, frame.rows - height))
    left = int(np.clip(col + V1.block_px // 2 - width // 2, 0, frame.cols - width))
    return Rectangle(top, left, top + height, left + width)


def _part(samples: IntArray, region: Rectangle) -> IntArray:
    return samples[:, region.top : region.bottom, region.left : region.right]


def _one_pixel(first: _Marked, rng: np.random.Generator) -> IntArray:
    """One sample of a tile that carries a packet, one step up or down."""
    frame, samples = first.frame, first.samples.copy()
    grid = TileGrid(frame.rows, frame.cols)
    row, col = rng.choice(np.argwhere(first.packets))
    window = grid.window(int(row) * grid.shape[1] + int(col))
    at = (
        int(rng.integers(frame.channels)),
        int(rng.integers(window.top, window.bottom)),
        int(rng.integers(window.left, window.right)),
    )
    samples[at] += 1 if samples[at] < frame.hi else -1
    return samples


def _filled(frame: Frame, region: Rectangle, fill: str, rng: np.random.Generator) -> IntArray:
    samples = frame.samples.copy()
    part = _part(samples, region)
    low, high = int(samples.min()), int(samples.max())
    part[:] = rng.integers(low, high, part.shape, endpoint=True) if fill == "noise" else low
    return samples


def _copied(samples: IntArray, region: Rectangle, rng: np.random.Generator) -> IntArray:
    """The region overwritten by another part of the image of the same size."""
    height, width = region.bottom - region.top, region.right - region.left
    top = int(rng.integers(0, samples.shape[1] - height, endpoint=True))
    left = int(rng.integers(0, samples.shape[2] - width, endpoint=True))
    result = samples.copy()
    _part(result, region)[:] = _part(samples, Rectangle(top, left, top + height, left + width))
    return result


def _rows_shifted(samples: IntArray, rng: np.random.Generator) -> IntArray:
    result = samples.copy()
    top = int(rng.integers(0, max(1, samples.shape[1] - 32)))
    result[:, top : top + 32] = np.roll(samples[:, top : top + 32], 1, axis=2)
    return result


def _sprinkled(frame: Frame, rng: np.random.Generator) -> IntArray:
    noise = (rng.random(frame.samples.shape) < 0.01) * rng.choice((-1, 1), frame.samples.shape)
    return np.asarray(np.clip(frame.samples + noise, frame.lo, frame.hi), np.int32)


def _noisy(frame: Frame, rng: np.random.Generator) -> IntArray:
    spread_ = max(1.0, (int(frame.samples.max()) - int(frame.samples.min())) / 100)
    noise = np.rint(rng.normal(0, spread_, frame.samples.shape))
    return np.asarray(np.clip(frame.samples + noise, frame.lo, frame.hi), np.int32)


def _embedded_again(first: _Marked) -> Iterator[_Attack]:
    """Somebody with a key of his own marks the marked image."""
    try:
        again = embed(first.frame, first.image.about, OTHER_RING, segmenter("anatomy"))
    except CapacityError:
        return
    yield _Attack("marked again under another key", again.frame.samples, local=False)


def _from_another(first: _Marked, other: _Marked, rng: np.random.Generator) -> Iterator[_Attack]:
    """The watermark, or a part, of another image under the same key."""
    frame, theirs = first.frame, other.frame
    if theirs.samples.shape != frame.samples.shape or (theirs.lo, theirs.hi) != (frame.lo, frame.hi):
        return
    delta = other.samples - other.image.frame.samples
    pasted = np.clip(first.image.frame.samples + delta, frame.lo, frame.hi).astype(np.int32)
    yield _Attack("watermark of another image on the original", pasted, local=False)
    if theirs.number == frame.number and other.packets.any():
        tile = rng.choice(np.argwhere(other.packets)) * V1.tile_px
        result = first.samples.copy()
        region = Rectangle(int(tile[0]), int(tile[1]), int(tile[0]) + V1.tile_px, int(tile[1]) + V1.tile_px)
        _part(result, region)[:] = _part(other.samples, region)
        yield _Attack("a tile of another marked image", result)
    yield _Attack("all pixels of another marked image", other.samples, local=False)


def _judged(first: _Marked, attack: _Attack) -> _Row:
    verdict = _verdict(first, attack.samples)
    framing = str(first.framing)
    detected = verdict.finding is not Finding.AUTHENTIC
    original = first.image.frame.samples
    restored = verdict.restored is not None and np.array_equal(verdict.restored.samples, original)
    harmless = not detected and restored
    if not attack.local:
        return _Row(attack.name, framing, detected, harmless)
    touched = _touched(first.frame, attack.samples)
    listed = set(verdict.evidence.altered_tiles)
    return _Row(attack.name, framing, detected, harmless, True, touched <= listed, len(listed - touched))


def _verdict(first: _Marked, samples: IntArray) -> Verdict:
    frame = replace(first.frame, samples=samples)
    return verify(frame, RING, (segmenter("anatomy"),), header=dict(first.image.about.fields))


def _touched(frame: Frame, samples: IntArray) -> set[tuple[int, int]]:
    """(row, column) of every tile in which a sample differs."""
    places = np.argwhere((frame.samples != samples).any(axis=0)) // V1.tile_px
    return {(int(row), int(col)) for row, col in np.unique(places, axis=0)}


def _can_be_hit(first: _Marked) -> bool:
    frame = first.frame
    large = min(frame.rows, frame.cols) >= _LEAST_HIT_SIDE
    return large and first.framing is Framing.TILE


def _hits(first: _Marked, rng: np.random.Generator) -> Iterator[_Hit]:
    frame, original = first.frame, first.image.frame.samples
    for number in range(_HITS):
        fill = _FILLS[number % 2]
        top = int(rng.integers(0, frame.rows - _HIT_PX, endpoint=True))
        left = int(rng.integers(0, frame.cols - _HIT_PX, endpoint=True))
        samples = _filled(frame, Rectangle(top, left, top + _HIT_PX, left + _HIT_PX), fill, rng)
        if np.array_equal(samples, frame.samples):
            continue
        verdict = _verdict(first, samples)
        spared = np.ones(frame.samples.shape[1:], np.bool_)
        for row, col in _touched(frame, samples):
            spared[row * V1.tile_px : (row + 1) * V1.tile_px, col * V1.tile_px : (col + 1) * V1.tile_px] = (
                False
            )
        restored = verdict.restored
        rest = restored is not None and bool((restored.samples == original)[:, spared].all())
        detected = verdict.finding is not Finding.AUTHENTIC
        yield _Hit(fill, int(first.packets.sum()), verdict.record is not None, rest, detected)


def _spared(frame: Frame, samples: IntArray) -> BoolArray:
    """bool [rows, cols]: False in every tile in which a sample differs."""
    spared = np.ones((frame.rows, frame.cols), np.bool_)
    grid = TileGrid(frame.rows, frame.cols)
    for row, col in _touched(frame, samples):
        window = grid.window(row * grid.shape[1] + col)
        spared[window.top : window.bottom, window.left : window.right] = False
    return spared


def _detection(rows: list[_Row]) -> Table:
    lines = tuple(_attack_line(name, [r for r in rows if r.attack == name]) for name in _names(rows))
    attacked = [row for row in rows if row.attack != "none"]
    columns = (
        "attack",
        "images",
        "detected",
        "harmless",
        "missed",
        "located, tiles",
        "spurious",
        "located, global",
    )
    return Table("Detection and location", columns, (*lines, _attack_line("all attacks", attacked)))


def _names(rows: list[_Row]) -> list[str]:
    return list(dict.fromkeys(row.attack for row in rows))


def _attack_line(name: str, rows: list[_Row]) -> tuple[Cell, ...]:
    local = [row for row in rows if row.local]
    tiled = [row for row in local if row.framing == Framing.TILE]
    whole = [row for row in local if row.framing == Framing.GLOBAL]
    return (
        name,
        len(rows),
        share(sum(row.detected for row in rows), len(rows)),
        sum(row.harmless for row in rows),
        sum(not (row.detected or row.harmless) for row in rows),
        share(sum(row.located for row in tiled), len(tiled)) if local else None,
        sum(row.spurious for row in tiled) / len(tiled) if tiled else None,
        share(sum(row.located for row in whole), len(whole)) if local else None,
    )


def _survival(hits: list[_Hit]) -> Table:
    groups = {
        "noise": [h for h in hits if h.fill == "noise"],
        "black": [h for h in hits if h.fill == "black"],
    }
    lines = tuple(_hit_line(name, found) for name, found in (*groups.items(), ("all", hits)))
    columns = ("filled with", "hits", "record readable", "all other tiles restored exactly", "detected")
    return Table("Random 160 x 160 hits on tile-framed images of at least 448 x 448", columns, lines)


def _hit_line(name: str, hits: list[_Hit]) -> tuple[Cell, ...]:
    return (
        name,
        len(hits),
        share(sum(hit.readable for hit in hits), len(hits)),
        share(sum(hit.rest_exact for hit in hits), len(hits)),
        share(sum(hit.detected for hit in hits), len(hits)),
    )
