"""New elements of a data set, given by keyword; where that is certain, as the very bytes that they become.

    add(ds, {"DerivationDescription": "...", "DerivationCodeSequence": [{"CodeValue": "..."}]})
    put(ds, 0x00991001, "LO", b"...")

A data set of pydicom's for every item, and an element for every value, take longer than a frame takes to be
copied. So text and sequences that a data set did not have are written at once, and held as if they had been
read so. What is not plain (`plain`), or takes the place of something, is given to pydicom.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TypeAlias

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from blessmark.pixels import elements, layout
from blessmark.pixels.plain import SHORT_BYTES, TEXT_PADDING, Encoding, ascii_text

#: keyword -> text, or the items of a sequence, of which some may be there already
Content: TypeAlias = "Mapping[str, str | Sequence[Content | Fixed | Dataset]]"

#: the first of several words, and the others; a blank may only fill an odd length
_PLAIN_WORDS = re.compile(rb"([A-Z0-9_]+)((?:\\[A-Z0-9_]+)+) ?")


@dataclass(frozen=True, slots=True, eq=False)
class Fixed:
    """An item that many data sets get: it is written once for each encoding. Its content is not changed."""

    content: Content
    _written: dict[Encoding, bytes | None] = field(default_factory=dict)

    def written(self, encoding: Encoding) -> bytes | None:
        """The item, None where pydicom must write it."""
        if encoding not in self._written:
            self._written[encoding] = _item(self.content, encoding)
        return self._written[encoding]


def add(ds: Dataset, content: Content) -> None:
    """Give `ds` these elements, in place of those of their tags that it has."""
    for keyword, value in content.items():
        tag, vr = _of(keyword)
        encoding = _encoding_of_new(ds, tag)
        written = None if encoding is None else _value(vr, value, encoding)
        if encoding is None or written is None:
            setattr(ds, keyword, value if isinstance(value, str) else DicomSequence(map(made, value)))
        else:
            _hold(ds, tag, vr, written, encoding)


def put(ds: Dataset, tag: int, vr: str, value: str | bytes) -> None:
    """Give `ds` an element with text, or with bytes of an even length (OB)."""
    encoding = _encoding_of_new(ds, tag)
    written = value if isinstance(value, bytes) else ascii_text(value, TEXT_PADDING[vr])
    if encoding is None or written is None:
        ds.add_new(tag, vr, value)
    else:
        _hold(ds, tag, vr, written, encoding)


def put_first(ds: Dataset, tag: int, word: str) -> bool:
    """Put `word` in the place of the first of several words of a code string (CS) that stands as it was read.

    False, and nothing done, where pydicom's reading of it might be another, or it has that word already.
    """
    item, found = elements.held(ds, tag), layout.kept(ds)
    if found is None or not isinstance(item, RawDataElement) or not found.encoding.wrote(item):
        return False
    words = _PLAIN_WORDS.fullmatch(item.value or b"")
    if words is None or words[1] == word.encode() or item.VR not in (None, "CS"):
        return False
    text = word.encode() + words[2]
    value = text + b" " * (len(text) % 2)
    ds._dict[item.tag] = item._replace(value=value, length=len(value))
    return True


def made(content: Content | Fixed | Dataset) -> Dataset:
    """An item of a sequence."""
    if isinstance(content, Dataset):
        return content
    item = Dataset()
    add(item, content.content if isinstance(content, Fixed) else content)
    return item


@functools.lru_cache(maxsize=256)
def _of(keyword: str) -> tuple[int, str]:
    tag = elements.tag_of(keyword)
    return tag, str(dictionary_VR(tag))


def _encoding_of_new(ds: Dataset, tag: int) -> Encoding | None:
    """How an element is written that `ds` neither has nor was read with; None for one that is not so new."""
    found = layout.kept(ds)
    replaces = isinstance(elements.held(ds, tag), DataElement)
    return None if found is None or replaces or tag in found.known else found.encoding


def _hold(ds: Dataset, tag: int, vr: str, value: bytes, encoding: Encoding) -> None:
    """Let `ds` hold an element as if it had been read; pydicom would look into a private one first."""
    raw = RawDataElement(
        elements.tag_object(tag), vr, len(value), value, 0, encoding.implicit, encoding.little
    )
    ds._dict[raw.tag] = raw


def _value(vr: str, value: str | Sequence[Content | Fixed | Dataset], encoding: Encoding) -> bytes | None:
    """The value field of an element, None where pydicom must write it."""
    if not isinstance(value, str):
        return _sequence(value, encoding)
    written = ascii_text(value, TEXT_PADDING[vr])
    return written if written is not None and len(written) <= SHORT_BYTES else None


def _sequence(contents: Sequence[Content | Fixed | Dataset], encoding: Encoding) -> bytes | None:
    written = [_element_of_sequence(each, encoding) for each in contents]
    return None if None in written else b"".join(filter(None, written))


def _element_of_sequence(content: Content | Fixed | Dataset, encoding: Encoding) -> bytes | None:
    if isinstance(content, Fixed):
        return content.written(encoding)
    return None if isinstance(content, Dataset) else _item(content, encoding)


def _item(content: Content, encoding: Encoding) -> bytes | None:
    parts = []
    for (tag, vr), value in sorted(
        ((_of(word), value) for word, value in content.items()), key=itemgetter(0)
    ):
        written = _value(vr, value, encoding)
        if written is None:
            return None
        parts.append(encoding.element(tag, vr, written))
    return encoding.item(b"".join(parts))
