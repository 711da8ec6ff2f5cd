"""What `anatomy` must leave alone, what it must find, and that its maps are frozen."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels import pixel_array
from scipy import ndimage

from blessmark.roi import block_map, pixel_mask
from blessmark.segment import anatomy
from blessmark.segment.anatomy import Anatomy
from blessmark.types import BoolArray, Frame, IntArray, Lattice
from blessmark.view import invariant_view
from tests.phantoms import blocks_of, body, body_in_air, circular_ct, disc, ellipse, frame, noise

SHAPE = (256, 256)
CT = {"lo": -32768, "hi": 32767}


def roi_of(image: Frame, lattice: Lattice = Lattice.QUARTER) -> BoolArray:
    return Anatomy().roi_blocks(invariant_view(image, lattice))


def air_around(shape: tuple[int, int] = SHAPE) -> BoolArray:
    """Blocks that are air and well away from the body of the phantoms."""
    return ~blocks_of(body(shape), grown_by=2)


def corners(roi: BoolArray) -> BoolArray:
    return roi[np.ix_([0, -1], [0, -1])]


@pytest.mark.parametrize("lattice", Lattice)
def test_body_is_roi_with_a_block_around_it_and_air_is_not(lattice):
    roi = roi_of(frame(body_in_air()), lattice)

    assert roi[blocks_of(body(SHAPE), grown_by=1)].all()  # the lung inside it included
    assert not roi[air_around()].any()


@pytest.mark.parametrize("shift", [-30000, -1024, 0, 61000])
def test_only_differences_of_level_matter(shift):
    plain = roi_of(frame(body_in_air()))
    plane = body_in_air() + shift

    assert (roi_of(frame(plane, lo=min(shift, 0), hi=65535)) == plain).all()


def test_a_letter_in_the_air_is_roi_with_its_surroundings():
    plane = body_in_air()
    letter = np.zeros(SHAPE, bool)
    letter[20:27, 24:29] = True
    plane[letter] = 4000

    roi = roi_of(frame(plane))

    assert roi[blocks_of(letter, grown_by=1)].all()
    assert not roi[0, 0]


def test_a_hollow_open_to_the_air_is_roi():
    """Row filling: the space between an arm and the trunk is not outside."""
    plane = noise(SHAPE, 21)
    for left in (48, 176):
        plane[60:220, left : left + 32] = 1000
    plane[190:220, 48:208] = 1000

    roi = roi_of(frame(plane))

    assert roi[60 // 8 : 220 // 8, 48 // 8 : 208 // 8].all()
    assert not corners(roi).any()


@pytest.mark.parametrize(
    "plane",
    [
        np.zeros(SHAPE, int),
        np.full(SHAPE, 4095),
        noise(SHAPE, 4096),
        noise(SHAPE, 30) + 700,
        np.add.outer(np.arange(256), np.arange(256)) * 8,
        np.where(body(SHAPE), 3000, 800 + noise(SHAPE, 1500)),
    ],
    ids=["black", "white", "noise", "faint noise", "ramp", "no plateau"],
)
def test_without_a_plateau_of_air_everything_is_roi(plane):
    assert roi_of(frame(plane)).all()


def test_body_that_touches_most_of_the_border_is_roi():
    """Less than 5 % of the border is air."""
    plane = 1000 + noise(SHAPE, 41)
    plane[100:148, :80] = noise((48, 80), 21)

    assert roi_of(frame(plane)).all()


@pytest.mark.parametrize("inverted", [False, True])
def test_constant_surround_keeps_a_faint_interior(inverted):
    """An ultrasound sector whose gain is low is no background: beside exact black only exact black is."""
    plane = np.zeros(SHAPE, int)
    sector = ellipse(SHAPE, 0, 128, 200, 110)
    plane[sector] = 1 + noise(SHAPE, 4)[sector]
    plane[60:90, 90:160] = 200

    roi = roi_of(frame(255 - plane if inverted else plane, hi=255))

    assert roi[blocks_of(sector, grown_by=1)].all()
    assert not roi[-1].any()


def test_inverted_radiograph_has_a_white_surround():
    plane = (4150 - body_in_air()).clip(0, 4095)

    roi = roi_of(frame(plane))

    assert roi[blocks_of(body(SHAPE), grown_by=1)].all()
    assert not roi[air_around()].any()


@pytest.mark.parametrize("brightest", [3010, 4095])
def test_bright_surround_that_is_not_saturated_is_roi(brightest):
    """A bright plateau that still varies may be tissue, even the brightest."""
    plane = 3000 - body_in_air(air=0)
    plane[100:130, 100:130] = brightest

    assert roi_of(frame(plane)).all()


def test_a_burnt_out_corner_is_no_surround():
    plane = 3000 - body_in_air(air=0)
    plane[:100, :100] = 4095

    assert roi_of(frame(plane)).all()


def test_colour_is_roi_where_any_channel_is():
    grey = body_in_air() // 8
    marked = grey.copy()
    marked[24:28, 200:210] = 255
    mark = np.zeros(SHAPE, bool)
    mark[24:28, 200:210] = True

    roi = roi_of(frame(grey, grey, marked, hi=255))

    assert roi[blocks_of(mark, grown_by=1)].all()
    assert (roi | blocks_of(mark, grown_by=1) == roi_of(frame(marked, hi=255))).all()
    assert not corners(roi).any()


@pytest.mark.parametrize("padding", [None, (-2000, -2000), (-2048, -1990)])
def test_air_inside_a_circular_field_of_view_is_found(padding):
    roi = roi_of(frame(circular_ct(), **CT, padding=padding))
    edge = blocks_of(disc(SHAPE)) & blocks_of(~disc(SHAPE), grown_by=1)

    assert roi[blocks_of(body(SHAPE), grown_by=1)].all()
    assert not roi[air_around() & blocks_of(disc(SHAPE)) & ~edge].any()


@pytest.mark.parametrize("padding", [None, (-2000, -2000)])
def test_air_in_a_circle_is_found_though_the_border_shows_none(padding):
    """A cross of tissue reaches all four sides; the air lies between its arms, reached through the fill."""
    plane = noise(SHAPE, 21) - 1010
    plane[112:144] = plane[:, 112:144] = 30
    plane[~disc(SHAPE)] = -2000

    roi = roi_of(frame(plane, **CT, padding=padding))

    assert roi[14:18].all()
    assert roi[:, 14:18].all()
    assert not roi[9, 9]
    assert not roi[22, 22]


def test_a_short_dark_stretch_of_the_rim_is_not_air():
    """Air that is sure surrounds the body: it takes at least a quarter of the rim."""
    plane = 1000 + noise(SHAPE, 41)
    plane[110:150, :90] = noise((40, 90), 21) + 100
    plane[~disc(SHAPE)] = 0

    assert roi_of(frame(plane))[blocks_of(disc(SHAPE), grown_by=1)].all()


def test_circle_without_air_yields_nothing_but_the_fill():
    plane = np.where(disc(SHAPE), 1000 + noise(SHAPE, 600), 0)

    roi = roi_of(frame(plane))

    assert roi[blocks_of(disc(SHAPE), grown_by=1)].all()
    assert not corners(roi).any()


def test_circle_without_air_in_declared_padding_yields_nothing():
    plane = np.where(disc(SHAPE), 1000 + noise(SHAPE, 600), -2000)

    assert roi_of(frame(plane, **CT, padding=(-2000, -2000))).all()


@pytest.mark.parametrize(("channels", "hi"), [(1, 255), (3, 255), (3, 65535)])
def test_circle_of_a_camera_or_a_probe_is_no_ct(channels, hi):
    """The dark rim of a fundus photograph or an intravascular ultrasound is not air."""
    plane = np.where(disc(SHAPE), 30 + noise(SHAPE, 5) + 150 * body(SHAPE), 0)

    roi = roi_of(frame(*[plane] * channels, hi=hi))

    assert roi[blocks_of(disc(SHAPE), grown_by=1)].all()
    assert not corners(roi).any()


def _diamond() -> BoolArray:
    row, col = np.ogrid[-128:128, -128:128]
    return np.abs(row) + np.abs(col) <= 128


@pytest.mark.parametrize(
    "inside", [body(SHAPE), disc((256, 256)) & _diamond(), ellipse(SHAPE, 128, 90, 89, 89)]
)
def test_fill_that_leaves_no_full_disc_is_taken_as_it_is(inside):
    """A brain cut out of its skull lies in exact black; dark tissue at its rim is no air."""
    plane = np.where(inside, 100 + noise(SHAPE, 5), 0)
    plane[ellipse(SHAPE, 128, 90, 30, 30)] = 2000

    roi = roi_of(frame(plane))

    assert roi[blocks_of(inside, grown_by=1)].all()
    assert not corners(roi).any()


@pytest.mark.parametrize("padding", [-2000, 4000])
def test_padding_is_not_taken_for_air(padding):
    """A padded half of the border must not decide the air level, nor the padding cut the air off."""
    plane = body_in_air()
    plane[:, :24] = plane[:, -24:] = plane[:24] = padding

    roi = roi_of(frame(plane, lo=-2048, hi=4095, padding=(padding, padding)))

    assert roi[blocks_of(body(SHAPE), grown_by=1)].all()
    assert not roi[-2].any()


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (8, 8), (9, 17), (24, 40), (8, 128)])
def test_too_small_for_sixteen_blocks_of_air_is_roi(shape):
    plane = noise(shape, 5)
    plane[shape[0] // 2, shape[1] // 2 :] = 1000

    roi = roi_of(frame(plane))

    assert roi.shape == (shape[0] // 8, shape[1] // 8)
    assert roi.dtype == np.bool_
    assert roi.all()


@pytest.mark.parametrize("shape", [(129, 255), (131, 203), (250, 134)])
def test_odd_sides_and_partial_blocks(shape):
    roi = roi_of(frame(body_in_air(shape)))

    assert roi.shape == (shape[0] // 8, shape[1] // 8)
    assert roi[blocks_of(body(shape), grown_by=1)].all()
    assert not roi[air_around(shape)].any()


@pytest.mark.parametrize(
    ("image", "digest"),
    [
        (frame(body_in_air()), "ebef20f341f5589e"),
        (frame(body_in_air((203, 331)) * 16, hi=65535), "085862a84ce2b4f1"),
        (frame((4150 - body_in_air((240, 180))).clip(0, 4095)), "239054c35c779f99"),
        (frame(circular_ct((320, 320)), **CT), "8454c94ca8b7d693"),
        (frame(circular_ct((384, 384)), **CT, padding=(-2000, -2000)), "b8c66e4869ebe3cc"),
    ],
    ids=["air", "16 bit", "inverted", "circle", "padded circle"],
)
def test_maps_of_this_version_never_change(image, digest):
    """`anatomy/1` is bound into watermarks: another map needs another version."""
    packed = b"".join(np.packbits(roi_of(image, lattice)).tobytes() for lattice in Lattice)

    assert hashlib.sha256(packed).hexdigest()[:16] == digest


def _best_split(cells: IntArray) -> int:
    """Otsu's threshold straight from its definition."""

    def separation(level: int) -> Fraction:
        below, above = cells[cells < level], cells[cells >= level]
        gap = Fraction(int(below.sum()), below.size) - Fraction(int(above.sum()), above.size)
        return below.size * above.size * gap**2

    return max((int(level) + 1 for level in np.unique(cells)[:-1]), key=separation)


@pytest.mark.parametrize("seed", range(5))
def test_threshold_is_otsus(seed):
    plane = noise((32, 32), 120, seed) + 60 * (noise((32, 32), 3, seed + 9) == 0)
    field = anatomy._measure(plane, np.zeros((32, 32), bool))

    assert anatomy._otsu(field) == _best_split(field.cells)


@pytest.mark.parametrize("folder", ["ct_head", "ct_phantom"])
def test_no_tissue_outside_on_real_ct(shared_data: Path, folder: str):
    """No NROI pixel above -300 HU, and there is NROI on every slice."""
    for file in sorted((shared_data / "dicom" / folder).iterdir()):
        data = pydicom.dcmread(file)
        stored = pixel_array(data).astype(np.int32)
        value = data.get("PixelPaddingValue")
        image = frame(stored, lo=-32768, hi=65535, padding=None if value is None else (value, value))
        roi = block_map(Anatomy(), image, Lattice.QUARTER)
        outside = stored[~pixel_mask(roi, *stored.shape)] * data.RescaleSlope + data.RescaleIntercept

        assert outside.size > 0, file.name
        assert outside.max() <= -300, file.name


def test_connected_parts_are_those_of_a_library() -> None:
    """`_reached` in one loop, against the same made of SciPy's labels."""
    random = np.random.default_rng(7)
    for smooth in (1, 2, 3, 5, 8) * 6:
        shape = tuple(random.integers(1, 60, 2))
        air = ndimage.uniform_filter(random.random(shape), smooth) > random.uniform(0.3, 0.7)
        assert np.array_equal(anatomy._reached(air), reached_by_labels(air))


def reached_by_labels(air: BoolArray) -> BoolArray:
    eight = np.ones((3, 3), np.bool_)
    labels, count = ndimage.label(~ndimage.binary_dilation(~air, eight))
    outside = np.zeros_like(air)
    for label in range(1, count + 1):
        part = labels == label
        if part.sum() >= 16 and (part[[0, -1]].any() or part[:, [0, -1]].any()):
            outside |= part
    filled = ~outside
    labels, count = ndimage.label(~outside, eight)
    for label in range(1, count + 1):
        part = labels == label
        if part.sum() >= 64:
            for each, target in ((part, filled), (part.T, filled.T)):
                for row, line in zip(each, target, strict=True):
                    if row.any():
                        line[row.argmax() : len(row) - row[::-1].argmax()] = True
    return ~filled
