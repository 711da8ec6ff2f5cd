"""Global framing: one order over the whole image, for images whose NROI is scarce.

The smoothest sites carry a short authenticated header by the bands that need no header themselves, found
by trial like a tile packet; it names predictor, bands and length, and the message rides on the sites that
follow (docs/format/v1.md section 6). Nothing is substituted, so padding and range hold here as well.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from blessmark.carrier.lattice import NO_DOWN, Bands, fits, insert, remove
from blessmark.carrier.sites import Sites, Window, find_sites, predict_again
from blessmark.carrier.tile_framing import band_candidates
from blessmark.payload.crypto import DerivedKeys, header_mac, header_mask, order_words
from blessmark.planes import PlaneArray
from blessmark.profile import V1
from blessmark.types import BoolArray, Frame, Lattice

#: predictor, up, down, T, Z up, Z down, message bits
_HEADER = struct.Struct(">BbbHHHI")
_HEADER_BITS = 8 * (_HEADER.size + V1.mac_bytes)

#: error bins tried for a message: both sides of a centre, then one side only
_CENTRES = tuple((up, up - 1) for up in (0, 1, -1, 2, -2)) + tuple((up, NO_DOWN) for up in (0, 1, -1, 2, -2))
_PREDICTORS = {Lattice.QUARTER: (3, 0, 1, 2, 4, 5), Lattice.QUINCUNX: (0, 2, 5)}
_MOST_DOUBLINGS = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """A frame laid out for global framing on one lattice: its sites and where the header goes."""

    frame: Frame
    roi: BoolArray
    lattice: Lattice
    keys: DerivedKeys = field(repr=False)
    sites: Sites
    header_bands: Bands | None
    header_end: int
    max_change: int

    def holds_in(self, marked: Frame, _turn: int) -> bool:
        """Whether a reader of `marked` finds the sites of this plan, in order and with their predictions."""
        return _all_sites(marked, self.roi, self.lattice, self.keys).same_as(self.sites)


@dataclass(frozen=True, slots=True)
class Reading:
    """The message of a frame whose header authenticates, and the frame without it."""

    lattice: Lattice
    message: bytes
    restored: Frame


@dataclass(frozen=True, slots=True)
class _Choice:
    """Bands and predictor for one message, and twice their expected squared change."""

    predictor: int
    bands: Bands
    cost: int


def plan(frame: Frame, roi: BoolArray, lattice: Lattice, keys: DerivedKeys, max_change: int) -> Plan:
    """Order the sites and find the cheapest header bands; no sample may move by more than `max_change`."""
    sites = _all_sites(frame, roi, lattice, keys)
    values = sites.values(frame.planes)
    best: tuple[int, int, Bands] | None = None
    for bands in band_candidates(max_change):
        end, cost, _, _ = fits(values, sites.predicted, frame.plane_bounds, bands, 0, _HEADER_BITS)
        if end >= 0 and (best is None or cost < best[0]):
            best = cost, end, bands
    _, end, header_bands = best if best is not None else (0, -1, None)
    return Plan(frame, roi, lattice, keys, sites, header_bands, end, max_change)


def embed(plan: Plan, keys: DerivedKeys, message: bytes) -> Frame | None:
    """The marked frame, or None when the message does not fit; `plan.frame` is not touched."""
    choice = _cheapest(plan, 8 * len(message))
    if choice is None or plan.header_bands is None:
        return None
    frame, sites = plan.frame, plan.sites
    values = sites.values(frame.planes)
    header = _pack_header(plan, plan.header_bands, keys, choice, 8 * len(message))
    insert(values, sites.predicted, frame.plane_bounds, plan.header_bands, 0, np.unpackbits(header))
    predicted = predict_again(frame, sites, plan.lattice, choice.predictor)
    bits = np.unpackbits(np.frombuffer(message, np.uint8))
    insert(values, predicted, frame.plane_bounds, choice.bands, plan.header_end, bits)
    return frame.with_planes(sites.put(frame.planes, values))


def read(
    frame: Frame, roi: BoolArray, lattice: Lattice, keys: DerivedKeys, *, of: Plan | None = None
) -> Reading | None:
    """The message, or None when no header authenticates or the message runs past the last site.

    `of` is the plan that `frame` was marked by, where its sender reads it back (`tile_framing.Reader`).
    """
    sites = _all_sites(frame, roi, lattice, keys) if of is None else of.sites
    if sites.index.size < _HEADER_BITS:
        return None
    marked = sites.values(frame.planes)
    for bands in band_candidates(V1.expansions[-1]):
        values = marked.copy()
        bits, ends = remove(values, sites.predicted, frame.plane_bounds, bands, 0, _HEADER_BITS)
        if bits.size < _HEADER_BITS:
            continue
        header = _unpack_header(frame, lattice, bands, keys, np.packbits(bits))
        if header is not None:
            return _read_message(frame, sites, lattice, header, values, int(ends[-1]))
    return None


def _read_message(
    frame: Frame,
    sites: Sites,
    lattice: Lattice,
    header: tuple[int, Bands, int],
    values: PlaneArray,
    start: int,
) -> Reading | None:
    predictor, bands, length = header
    if length > sites.index.size:
        return None
    predicted = predict_again(frame, sites, lattice, predictor)
    bits, _ = remove(values, predicted, frame.plane_bounds, bands, start, length)
    if bits.size < length:
        return None
    restored = frame.with_planes(sites.put(frame.planes, values))
    return Reading(lattice, np.packbits(bits).tobytes(), restored)


def _all_sites(frame: Frame, roi: BoolArray, lattice: Lattice, keys: DerivedKeys) -> Sites:
    words = order_words(keys, frame.number, lattice, frame.rows, frame.cols)
    window = Window(0, 0, frame.rows, frame.cols)
    return find_sites(frame, roi, window, lattice, V1.predictor(lattice), words)


def _cheapest(plan: Plan, bits: int) -> _Choice | None:
    """The bands of least cost at the smallest T at which the message fits."""
    if plan.header_bands is None or bits > plan.sites.index.size - plan.header_end:
        return None
    predictions = {
        predictor: predict_again(plan.frame, plan.sites, plan.lattice, predictor)
        for predictor in _PREDICTORS[plan.lattice]
    }
    for expansion in V1.expansions:
        if expansion > plan.max_change:
            break
        choices = list(_fitting(plan, predictions, expansion, bits))
        if choices:
            return min(choices, key=lambda choice: choice.cost)
    return None


def _fitting(plan: Plan, predictions: dict[int, PlaneArray], expansion: int, bits: int) -> Iterator[_Choice]:
    values = plan.sites.values(plan.frame.planes)
    for (predictor, predicted), (up, down) in itertools.product(predictions.items(), _CENTRES):
        bands = Bands(up, down, expansion, expansion, expansion)
        found = _widen_until_empty(values, predicted, plan.frame.plane_bounds, bands, plan.header_end, bits)
        if found is not None:
            yield _Choice(predictor, *found)


def _widen_until_empty(
    values: PlaneArray, predicted: PlaneArray, bounds: tuple[int, int], bands: Bands, start: int, bits: int
) -> tuple[Bands, int] | None:
    """Double Z on the side whose gap [Z, Z + T) is not empty until the message fits."""
    for _ in range(2 * _MOST_DOUBLINGS):
        end, cost, k_up, k_down = fits(values, predicted, bounds, bands, start, bits)
        if end >= 0:
            return bands, cost
        if k_up < 0 and k_down < 0:
            return None
        bands = replace(
            bands,
            z_up=bands.z_up << (k_up >= 0),
            z_down=bands.z_down << (k_down >= 0),
        )
        if max(bands.z_up, bands.z_down) > bands.expansion << _MOST_DOUBLINGS:
            return None
    return None


def _pack_header(
    plan: Plan, own: Bands, keys: DerivedKeys, choice: _Choice, bits: int
) -> npt.NDArray[np.uint8]:
    bands = choice.bands
    fields = _HEADER.pack(
        choice.predictor, bands.up, bands.down, bands.expansion, bands.z_up, bands.z_down, bits
    )
    packet = fields + _header_tag(plan.frame, plan.lattice, own, keys, fields)
    return np.frombuffer(packet, np.uint8) ^ header_mask(keys, plan.frame.number, plan.lattice, len(packet))


def _unpack_header(
    frame: Frame, lattice: Lattice, own: Bands, keys: DerivedKeys, masked: npt.NDArray[np.uint8]
) -> tuple[int, Bands, int] | None:
    packet = (masked ^ header_mask(keys, frame.number, lattice, masked.size)).tobytes()
    fields, tag = packet[: _HEADER.size], packet[_HEADER.size :]
    if tag != _header_tag(frame, lattice, own, keys, fields):
        return None
    predictor, up, down, expansion, z_up, z_down, bits = _HEADER.unpack(fields)
    if predictor not in _PREDICTORS[lattice]:
        return None
    return predictor, Bands(up, down, expansion, z_up, z_down), bits


def _header_tag(frame: Frame, lattice: Lattice, own: Bands, keys: DerivedKeys, fields: bytes) -> bytes:
    """MAC over the place, the header's own bands and its fields.

    Two bands may give the same bits and still restore the sites differently, so the MAC must tell them apart.
    """
    place = (frame.number, frame.rows, frame.cols, frame.channels, int(lattice), own.expansion, own.z_up)
    mac = header_mac(keys)
    mac.update(struct.pack(">IIIBBHH", *place))
    mac.update(fields)
    return bytes(mac.digest())
