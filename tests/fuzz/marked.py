"""Marked files, frames and records for the fuzzer to change."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from pydicom.dataset import Dataset

from blessmark.embed import describe, embed
from blessmark.payload import crypto, record
from blessmark.segment import segmenter
from blessmark.types import Carrier, Frame, Tier
from dicom_node.config import RECORD_FIELDS, Uids
from dicom_node.header import text
from dicom_node.originals import unseal
from dicom_node.protect import Site, protect
from tests.builders import ct, dataset, file_bytes, phantom, reread
from tests.strategies import ABOUT, RING

_SITE = Site("fuzz", RING, segmenter("anatomy"), tuple(RECORD_FIELDS.values()), uids=Uids.DERIVE)
_TIME_S = 1_790_000_000


def _marked(ds: Dataset, carrier: Carrier = Carrier.LATTICE) -> Dataset:
    whole = reread(ds)
    done = protect(
        whole, Site(**{name: getattr(_SITE, name) for name in _FIELDS} | {"carrier": carrier}), _TIME_S
    )
    assert done.changed, done
    return whole


_FIELDS = ("node", "ring", "segmenter", "record_tags", "uids")


@functools.cache
def files() -> Sequence[bytes]:
    """In the pixels of both carriers, and in the header."""
    plain = ct(96, 96, PatientName="Phantom^Test", PatientID="P-1")
    made = [
        _marked(plain),
        _marked(plain, Carrier.DCT),
        _marked(dataset(phantom(16, 16), PatientName="Phantom^Test")),
    ]
    assert all(text(ds, 0x00080018) for ds in made)
    return [file_bytes(ds) for ds in made]


@functools.cache
def marked_frame() -> Frame:
    """One marked frame."""
    plain = Frame(phantom(96, 96)[0], 0, 4095)
    return embed(plain, ABOUT, RING, segmenter("anatomy")).frame


@functools.cache
def plaintexts() -> Sequence[bytes]:
    """What is sealed: records of every tier, and the originals of a header; with a byte in front of each."""
    plain = Frame(phantom(96, 96)[0], 0, 4095)
    full = describe(plain, ABOUT, segmenter("anatomy"), crypto.derive(RING.current))
    sealed = [record.encode(record.reduce(full, tier)) for tier in Tier]
    found = unseal(_marked(ct(32, 32, PatientName="Phantom^Test")), RING)
    assert found is not None
    return [b"\1" + each for each in (*sealed, found.to_bytes(), found.changes.to_bytes())]
