"""Lengths of sequences and items, which whoever stores a data set may write anew without changing a value.

A sequence, and each item in it, states its length or has an undefined one and ends with a delimiter (PS3.5
section 7.5). Programs mostly write all of them one way, and archives in theirs. So what a data set was before
can be tried, and a hash decides.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from blessmark.pixels import layout
from blessmark.pixels.layout import Piece
from blessmark.pixels.plain import Encoding, Item


@dataclass(frozen=True, slots=True)
class Style:
    """Whether sequences, and whether their items, have undefined lengths."""

    sequences: bool
    items: bool


STYLES = tuple(Style(*both) for both in itertools.product((True, False), repeat=2))


def variants(
    ds: Dataset, pieces: Sequence[Piece], encoding: Encoding, fixed: Collection[int]
) -> Iterator[tuple[Piece, ...]]:
    """`pieces` with their sequences in one style after the other, those of the tags `fixed` apart.

    What comes out as it went in is left out, and so is a sequence that cannot be read.
    """
    known = {tuple(piece.raw for piece in pieces)}
    for style in STYLES:
        made = tuple(p if p.tag in fixed else _written_in(ds, p, encoding, style) for p in pieces)
        raw = tuple(piece.raw for piece in made)
        if raw not in known:
            known.add(raw)
            yield made


def _written_in(ds: Dataset, piece: Piece, encoding: Encoding, style: Style) -> Piece:
    element = None if piece.item is None else styled(ds, piece.item, style)
    if element is None:
        return piece
    return piece._replace(raw=layout.written(ds, element, encoding))


def styled(holder: Dataset, item: Item, style: Style) -> DataElement | None:
    """The sequence with every length in a style, at any depth; None for what is no sequence."""
    if isinstance(item, RawDataElement):
        if item.VR not in (None, "SQ"):  # one that is called UN is written as UN
            return None
        try:
            item = convert_raw_data_element(item, ds=holder)
        except Exception:  # bytes that are no value of their type
            return None
    if item.VR != "SQ":
        return None
    fresh = DataElement(item.tag, "SQ", DicomSequence([_styled_item(each, style) for each in item.value]))
    fresh.is_undefined_length = style.sequences
    return fresh


def _styled_item(item: Dataset, style: Style) -> Dataset:
    fresh = copy.copy(item)
    fresh._dict = dict(item._dict)
    for tag, element in item._dict.items():
        nested = styled(item, element, style)
        if nested is not None:
            fresh._dict[tag] = nested
    fresh.is_undefined_length_sequence_item = style.items
    return fresh
