"""What is done to marked images, and what a reader must say to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from blessmark.selftest import original_frame, received_frame, written
from blessmark.types import IntArray
from tools.vector_making import (
    FINGERPRINT,
    KEY,
    OTHER_FINGERPRINT,
    OTHER_KEY,
    Vector,
    about,
    added,
    attacked,
    filled,
    header_with,
    marked,
    order_of,
    pristine,
    shaken,
)

ALTERED = "pixels-altered"
NAME, UID = 0x00100010, 0x00080018
OTHER_NAME = b"Example^Berta "


def tampering_vectors(made: Mapping[str, Vector]) -> list[Vector]:
    """Pixels changed after embedding; `made` are the marks by id."""
    return [
        *_small_changes(made["tile-grey12"]),
        *_large_changes(made["tile-grey12"], made["tile-anatomy"]),
        *_copies(made["tile-grey12"], made["tile-grey12-again"]),
        *_whole_images(made["tile-small"]),
        *_other_marks(made),
        *_global_framing(made["global-quarter"], made["global-one-sided"]),
        *_embedded_again(made["tile-small"]),
    ]


def _small_changes(grey: Vector) -> Iterator[Vector]:
    image = marked(grey)
    changes = {
        "one-site": ("a carrier pixel", added(image, 21, 13, 1), (0, 0)),
        "one-pixel": ("a pixel that is no site, in a used tile", added(image, 20, 12, -1), (0, 0)),
        "one-roi-pixel": ("the ROI of a used tile", added(image, 100, 56, 1), (1, 0)),
        "one-quiet-pixel": ("a tile without a packet: the grid finds it", added(image, 160, 150, 3), (2, 2)),
        "patch-16": ("16 x 16 pixels of a used tile", filled(image, 40, 200, 56, 216, 22), (0, 3)),
        "patch-16-quiet": ("16 x 16 pixels of the body", filled(image, 150, 140, 166, 156, 950), (2, 2)),
    }
    for id_, (comment, samples, tile) in changes.items():
        yield attacked(grey, id_, comment, ALTERED, samples, tiles=[tile])


def _large_changes(grey: Vector, anatomy: Vector) -> Iterator[Vector]:
    hit = filled(marked(anatomy), 30, 250, 190, 410, 700)
    yield attacked(anatomy, "patch-160-anatomy", "the segmenter draws another map", ALTERED, hit, tiles=None)
    hit = filled(marked(grey), 0, 0, 160, 160, 25)
    nine = [(row, col) for row in range(3) for col in range(3)]
    yield attacked(grey, "patch-160", "160 x 160 pixels painted over", ALTERED, hit, tiles=nine)
    rolled = marked(grey)
    rolled[:, 100] = np.roll(rolled[:, 100], 1, axis=-1)
    five = [(1, col) for col in range(5)]
    yield attacked(grey, "one-row-shifted", "row 100 moved by one pixel", ALTERED, rolled, tiles=five)


def _copies(grey: Vector, again: Vector) -> Iterator[Vector]:
    image = marked(grey)
    image[:, 64:128, :64] = marked(again)[:, 64:128, :64]
    comment = "its packet authenticates, its shards do not agree"
    yield attacked(grey, "tile-of-another-image", comment, ALTERED, image, tiles=[(1, 0)])
    transplanted = pristine(again) + marked(grey) - pristine(grey)
    comment = "all changes copied onto another original"
    yield attacked(again, "watermark-of-another-image", comment, "unmarked", transplanted)


def _whole_images(small: Vector) -> Iterator[Vector]:
    image = marked(small)
    lost = filled(filled(image, 0, 0, 128, 192, 21), 128, 0, 192, 64, 21)
    yield attacked(small, "most-tiles-lost", "one packet is left of six", "damaged", lost)
    yield attacked(small, "noise", "plus one on half of the samples", "unmarked", shaken(image))
    yield attacked(small, "rounded", "lossy: the two lowest bits cleared", "unmarked", image & ~3)
    yield attacked(small, "moved-down", "every row one lower", "unmarked", np.roll(image, 1, axis=1))
    comment = "the last 64 rows are missing: packets without a record"
    yield attacked(small, "rows-cut", comment, "damaged", cut=(128, 192))
    yield attacked(small, "columns-cut", "the last 64 columns are missing", "unmarked", cut=(192, 128))


def _other_marks(made: Mapping[str, Vector]) -> Iterator[Vector]:
    colour, seal, element = made["tile-rgb"], made["tile-seal"], made["header-element"]
    blue = added(marked(colour), 130, 90, 1, channel=2)
    yield attacked(colour, "one-blue-sample", "one sample of one channel", ALTERED, blue, tiles=[(2, 1)])
    lost = added(marked(seal), 3, 3, 1)
    yield attacked(seal, "seal-one-pixel", "the larger of two packets is lost", "damaged", lost)
    quiet = added(marked(seal), 100, 100, 1)
    yield attacked(seal, "seal-roi-pixel", "known to be altered, not where", ALTERED, quiet)
    pixel = added(pristine(element), 70, 130, 1)
    comment = "the sealed record locates the change"
    yield attacked(element, "header-element-pixel", comment, ALTERED, pixel, tiles=[(1, 2)])


def _global_framing(one: Vector, sided: Vector) -> Iterator[Vector]:
    first, late = _site_undone(one, 0.0), _site_undone(one, 0.8)
    yield attacked(one, "global-header-bit", "a site of the header packet", "unmarked", first)
    yield attacked(one, "global-message-bit", "the header reads, the record does not", "damaged", late)
    pixel = added(marked(sided), 70, 60, 1)
    yield attacked(sided, "global-roi-pixel", "the grid finds and locates it", ALTERED, pixel, tiles=[(1, 0)])


def _site_undone(vector: Vector, place: float) -> IntArray:
    """One of the sites that embedding changed, at that share of them in coding order, as it was before."""
    samples, before = marked(vector), pristine(vector).reshape(-1)
    changed = set(np.flatnonzero(samples.reshape(-1) != before).tolist())
    sites = [index for index in order_of(vector) if index in changed]
    site = sites[int(place * len(sites))]
    samples.reshape(-1)[site] = before[site]
    return samples


def _embedded_again(base: Vector) -> Iterator[Vector]:
    """A second watermark over the first: it is read instead, and gives the first marked image back."""
    frame = received_frame(base, original_frame(base))
    own = {**base, "write": {**base["write"], "about": about(node="second")}}
    other = {**base, "write": {**base["write"], "key": OTHER_KEY}}
    twice, foreign = (written(each, frame).frame.samples for each in (own, other))
    yield attacked(base, "embedded-again", "the later record reads", "authentic", twice, exact=True)
    comment = "under another key: the first watermark is buried"
    yield attacked(base, "embedded-again-elsewhere", comment, "unmarked", foreign)
    both, comment = [KEY, OTHER_KEY], "under another key of the ring: the later record reads"
    yield attacked(base, "embedded-again-here", comment, "authentic", foreign, exact=True, keys=both)


def identity_vectors(made: Mapping[str, Vector]) -> list[Vector]:
    """Whole images, keys, numbers and headers exchanged, lost or altered."""
    return [
        *_nothing_to_find(made["tile-small"]),
        *_wrong_keys(made["tile-small"], made["global-quarter"]),
        *_wrong_facts(made),
        *_headers(made["tile-small"]),
        *_elements(made["header-element"]),
    ]


def _nothing_to_find(small: Vector) -> Iterator[Vector]:
    before = pristine(small)
    yield attacked(small, "unmarked", "the original itself", "unmarked", before)
    comment = "the header still claims a key that the ring holds"
    yield attacked(small, "watermark-removed", comment, "damaged", before, hinted_keys=[FINGERPRINT])
    hint, comment = [OTHER_FINGERPRINT], "a hint proves nothing"
    yield attacked(small, "false-hint", comment, "authentic", exact=True, hinted_keys=hint)


def _wrong_keys(small: Vector, one: Vector) -> Iterator[Vector]:
    keys, comment = [OTHER_KEY], "nothing tells it from an unmarked image"
    yield attacked(small, "wrong-key", comment, "unmarked", keys=keys)
    hint, comment = [FINGERPRINT], "the header claims a key that the ring lacks"
    yield attacked(small, "wrong-key-with-hint", comment, "wrong-key", keys=keys, hinted_keys=hint)
    yield attacked(one, "global-wrong-key", "global framing", "unmarked", keys=keys)


def _wrong_facts(made: Mapping[str, Vector]) -> Iterator[Vector]:
    small, forced, one = made["tile-small"], made["tile-forced-roi"], made["global-quarter"]
    hint, comment = [FINGERPRINT], "frame 5 in the place of frame 6"
    yield attacked(forced, "frames-swapped", comment, "damaged", number=6, hinted_keys=hint)
    yield attacked(one, "global-frame-number", "another frame number", "unmarked", number=2)
    comment = "BitsStored says another range: packets without a record"
    yield attacked(small, "range-altered", comment, "damaged", frame={"hi": 8191})
    comment = "a padding value that was not declared: other bounds"
    yield attacked(small, "padding-altered", comment, "unmarked", frame={"padding": [0, 24]})


def _headers(small: Vector) -> Iterator[Vector]:
    headers = {
        "header-altered": ("another patient's name", NAME, OTHER_NAME),
        "header-field-missing": ("a field of the record is gone", NAME, None),
        "image-exchanged": ("a marked image under another instance's header", UID, b"2.25.1\0\0"),
    }
    for id_, (comment, tag, value) in headers.items():
        header = header_with(small, tag, value)
        yield attacked(small, id_, comment, "header-altered", fields=[tag], exact=True, header=header)
    header = header_with(small, NAME, b"Example^Anna  ")
    comment = "padding is no alteration"
    yield attacked(small, "header-padding-differs", comment, "authentic", exact=True, header=header)
    header, pixel = header_with(small, NAME, OTHER_NAME), added(marked(small), 100, 100, 1)
    id_, comment = "header-and-pixels-altered", "pixels weigh more"
    yield attacked(small, id_, comment, ALTERED, pixel, tiles=[(1, 1)], fields=[NAME], header=header)


def _elements(element: Vector) -> Iterator[Vector]:
    hint = [FINGERPRINT]
    comment = "the sealed record of another frame"
    yield attacked(element, "header-element-other-frame", comment, "unmarked", number=1)
    id_, comment = "header-element-wrong-key", "no key of the ring opens it"
    yield attacked(element, id_, comment, "wrong-key", keys=[OTHER_KEY], hinted_keys=hint)
    flipped = bytearray.fromhex(element["write"]["sealed"])
    flipped[40] ^= 1
    id_, comment = "header-element-flipped", "one bit of it is flipped"
    yield attacked(element, id_, comment, "damaged", sealed=flipped.hex(), hinted_keys=hint)
    id_, header = "header-element-field", header_with(element, NAME, OTHER_NAME)
    comment = "and the header says another name"
    yield attacked(element, id_, comment, "header-altered", exact=True, fields=[NAME], header=header)
