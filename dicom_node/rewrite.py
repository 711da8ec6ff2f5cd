"""A data set with some of its elements replaced, at any depth; what does not change is shared, not copied.

Sequences are never changed in place: a data set that was read keeps the elements it was read with, and what
was changed can be told by comparing (`blessmark.pixels.changes`).
"""

from __future__ import annotations

import copy
import enum
from collections.abc import Callable

from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence


class Fate(enum.Enum):
    """What a rule says of an element that it does not replace."""

    KEEP = enum.auto()  #: it stays; a sequence is entered
    LEAVE = enum.auto()  #: it stays, and a sequence is not entered
    REMOVE = enum.auto()  #: it goes


Element = DataElement | RawDataElement
#: (the data set or item that holds it, its tag, the element) -> what becomes of it
Rule = Callable[[Dataset, int, Element], Fate | Element]


def rewrite(ds: Dataset, rule: Rule) -> bool:
    """Apply `rule` to every element of `ds` and of the items below; whether anything changed.

    `ds` itself is changed, the items below are replaced by changed copies. Elements that are no values of
    their type are shown to the rule as they are and not entered.
    """
    edits = _edits(ds, rule)
    for tag, element in edits.items():
        if element is None:
            del ds[tag]
        else:
            ds[tag] = element
    return bool(edits)


def _edits(ds: Dataset, rule: Rule) -> dict[int, Element | None]:
    edits: dict[int, Element | None] = {}
    for tag in sorted(int(tag) for tag in ds.keys()):  # noqa: SIM118 - iterating a Dataset decodes it
        element: Element = ds.get_item(tag, keep_deferred=True)
        fate = rule(ds, tag, element)
        if fate is Fate.REMOVE:
            edits[tag] = None
        elif fate is Fate.KEEP:
            fresh = entered(ds, element, rule)
            if fresh is not None:
                edits[tag] = fresh
        elif not isinstance(fate, Fate):
            edits[tag] = fate
    return edits


def entered(ds: Dataset, element: Element, rule: Rule) -> DataElement | None:
    """The sequence with its items changed by a rule, None if nothing in it changes or it is none."""
    sequence = as_sequence(ds, element)
    if sequence is None:
        return None
    items = [_changed_item(item, rule) for item in sequence.value]
    if not any(changed for _, changed in items):
        return None
    fresh = DataElement(element.tag, "SQ", DicomSequence([item for item, _ in items]))
    fresh.is_undefined_length = sequence.is_undefined_length
    return fresh


def as_sequence(ds: Dataset, element: Element) -> DataElement | None:
    """The element as a sequence, None if it is none; `ds` is not touched."""
    if isinstance(element, RawDataElement):
        if element.VR not in (None, "SQ", "UN"):
            return None
        try:
            element = convert_raw_data_element(element, ds=ds)
        except Exception:
            return None
    return element if element.VR == "SQ" else None


def _changed_item(item: Dataset, rule: Rule) -> tuple[Dataset, bool]:
    edits = _edits(item, rule)
    if not edits:
        return item, False
    fresh = shallow(item)
    for tag, element in edits.items():
        if element is None:
            del fresh[tag]
        else:
            fresh[tag] = element
    return fresh, True


def shallow(item: Dataset) -> Dataset:
    """Another data set with the same elements; adding to it leaves `item` alone."""
    fresh = copy.copy(item)
    fresh._dict = dict(item._dict)
    fresh._private_blocks = {}
    return fresh
