"""The signature layer: put over a marked frame, taken off by anybody, judged by public keys."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from blessmark.carrier import global_framing, tile_framing
from blessmark.carrier.lattice import NO_DOWN, Bands, insert
from blessmark.embed import embed
from blessmark.embed_dct import embed_dct
from blessmark.extract import extract
from blessmark.payload import crypto, signature
from blessmark.payload.signature import LAYER_KEY, Instance, PublicKey, Signature, SigningKey
from blessmark.roi import block_map, pixel_mask
from blessmark.segment.anatomy import Anatomy
from blessmark.segment.whole import Whole
from blessmark.signing import Release, check, peel, sign
from blessmark.types import Embedded, Finding, Frame, Framing, Lattice, Segmenter, SignatureState
from blessmark.verify import verify
from tests.phantoms import blocks_of, body, body_in_air, frame
from tests.strategies import ABOUT, KEY, OTHER_KEY, RING, Drawn, Ring

SHAPE = (512, 512)
IMAGE = frame(body_in_air(SHAPE))
ROI = blocks_of(body(SHAPE), grown_by=1)
DRAWN = Drawn(ROI)
SIGNER, OTHER_SIGNER = SigningKey(bytes(range(32))), SigningKey(bytes(32))
INSTANCE = Instance(ABOUT.sop_instance_uid, 1)
TIME_S = 1_790_000_000
MARKED = embed(IMAGE, ABOUT, RING, DRAWN)
SIGNED = sign(IMAGE, MARKED, DRAWN, INSTANCE, TIME_S, SIGNER)
FRAME = SIGNED.done.frame
TRUSTING = Release(INSTANCE, (PublicKey(SIGNER.public),))


def one_more(image: Frame, row: int, col: int) -> Frame:
    samples = image.samples.copy()
    samples[:, row, col] += 1
    return image.with_samples(samples)


def state(image: Frame, release: Release = TRUSTING) -> SignatureState:
    return check(image, [DRAWN], release).state


def test_the_layer_comes_off_bit_for_bit_without_a_key() -> None:
    found = peel(FRAME, [DRAWN])
    assert found is not None
    assert np.array_equal(found.frame.samples, MARKED.frame.samples)
    assert found.signature == SIGNED.signature


def test_the_region_of_interest_is_untouched_and_the_cap_holds_for_both_together() -> None:
    inside = pixel_mask(ROI, *SHAPE)
    assert (FRAME.samples[:, inside] == IMAGE.samples[:, inside]).all()
    allowed = (int(IMAGE.samples.max()) - int(IMAGE.samples.min())) // 100
    changes = np.abs(FRAME.samples - IMAGE.samples)
    assert changes.max() == SIGNED.done.receipt.max_change <= allowed
    assert np.count_nonzero(changes) == SIGNED.done.receipt.changed_samples


@pytest.mark.parametrize("hinted", [True, False])
def test_a_holder_of_the_ring_reads_the_record_below_and_the_signature(hinted: bool) -> None:
    verdict = verify(
        FRAME, RING, [DRAWN], header=dict(ABOUT.fields), release=replace(TRUSTING, hinted=hinted)
    )
    assert verdict.finding is Finding.AUTHENTIC
    assert verdict.exact
    assert np.array_equal(verdict.restored.samples, IMAGE.samples)
    assert verdict.signature.state is SignatureState.VALID
    assert (verdict.signature.key, verdict.signature.time_s) == (PublicKey(SIGNER.public).id, TIME_S)
    assert verdict.signature.carried == "pixels"
    assert verdict.evidence.changed_samples == SIGNED.done.receipt.changed_samples


def test_public_keys_alone_tell_who_released_it() -> None:
    assert state(FRAME) is SignatureState.VALID
    assert state(FRAME, Release(INSTANCE)) is SignatureState.UNKNOWN_KEY
    assert state(FRAME, Release(INSTANCE, (PublicKey(OTHER_SIGNER.public),))) is SignatureState.UNKNOWN_KEY
    assert (
        state(FRAME, Release(INSTANCE, (PublicKey(SIGNER.public, revoked=True),))) is SignatureState.REVOKED
    )
    assert state(MARKED.frame) is SignatureState.NONE
    assert state(IMAGE) is SignatureState.NONE


@pytest.mark.parametrize("instance", [Instance("2.25.1", 1), Instance(ABOUT.sop_instance_uid, 2)])
def test_it_is_of_this_instance_only(instance: Instance) -> None:
    assert state(FRAME, replace(TRUSTING, instance=instance)) is SignatureState.INVALID


@pytest.mark.parametrize("at", [(256, 256), (40, 300), (41, 301), (0, 0), (511, 511)])
def test_no_sample_can_be_changed(at: tuple[int, int]) -> None:
    assert state(one_more(FRAME, *at)) is SignatureState.INVALID


def test_a_signature_of_another_image_does_not_hold() -> None:
    other = one_more(IMAGE, 256, 256)
    theirs = embed(other, ABOUT, RING, DRAWN)
    layer = FRAME.samples - MARKED.frame.samples
    assert state(theirs.frame.with_samples(theirs.frame.samples + layer)) is not SignatureState.VALID


def test_a_stranger_cannot_sign_in_our_name() -> None:
    forged = sign(IMAGE, MARKED, DRAWN, INSTANCE, TIME_S, OTHER_SIGNER).done.frame
    assert state(forged) is SignatureState.UNKNOWN_KEY
    both = replace(TRUSTING, keys=(*TRUSTING.keys, PublicKey(OTHER_SIGNER.public)))
    evidence = check(forged, [DRAWN], both)
    assert (evidence.state, evidence.key) == (SignatureState.VALID, PublicKey(OTHER_SIGNER.public).id)


def test_an_invalid_signature_changes_no_finding() -> None:
    """Everybody can write a layer; if that altered a finding, anybody could make images look altered."""
    elsewhere = replace(TRUSTING, instance=Instance("2.25.1", 1))
    verdict = verify(FRAME, RING, [DRAWN], release=elsewhere)
    assert verdict.finding is Finding.AUTHENTIC
    assert verdict.signature.state is SignatureState.INVALID


def test_a_layer_that_the_header_speaks_of_and_that_is_gone_is_invalid() -> None:
    verdict = verify(MARKED.frame, RING, [DRAWN], release=replace(TRUSTING, hinted=True))
    assert verdict.finding is Finding.AUTHENTIC
    assert verdict.signature.state is SignatureState.INVALID


def test_damage_is_located_below_the_layer() -> None:
    samples = FRAME.samples.copy()
    samples[:, 70:120, 200:250] = 3000
    verdict = verify(FRAME.with_samples(samples), RING, [DRAWN], release=TRUSTING)
    assert verdict.finding is Finding.PIXELS_ALTERED
    assert verdict.evidence.altered_tiles == ((1, 3),)
    assert verdict.signature.state is SignatureState.INVALID


def test_damage_under_a_map_that_was_redrawn() -> None:
    """Tiles whose map is another one now are read by maps of their own, those of the layer too."""
    marked = embed(IMAGE, ABOUT, RING, Anatomy())
    signed = sign(IMAGE, marked, Anatomy(), INSTANCE, TIME_S, SIGNER).done.frame
    samples = signed.samples.copy()
    samples[:, 30:190, 250:410] = 700
    plain = marked.frame.samples.copy()
    plain[:, 30:190, 250:410] = 700
    verdict = verify(signed.with_samples(samples), RING, [Anatomy()], release=TRUSTING)
    without = verify(marked.frame.with_samples(plain), RING, [Anatomy()])
    assert verdict.finding is without.finding is Finding.PIXELS_ALTERED
    assert len(verdict.evidence.altered_tiles) <= len(without.evidence.altered_tiles) + 4


def test_a_wrong_ring_still_sees_the_signature() -> None:
    verdict = verify(FRAME, Ring(OTHER_KEY), [DRAWN], release=TRUSTING)
    assert verdict.finding is Finding.UNMARKED
    assert verdict.signature.state is SignatureState.VALID


def test_a_signed_image_can_be_marked_and_signed_again() -> None:
    second = embed(FRAME, ABOUT, Ring(OTHER_KEY), DRAWN, max_change=40)
    again = sign(FRAME, second, DRAWN, INSTANCE, TIME_S + 1, OTHER_SIGNER, max_change=80)
    assert not again.beside
    verdict = verify(again.done.frame, Ring(OTHER_KEY), [DRAWN])
    assert verdict.exact
    assert np.array_equal(verdict.restored.samples, FRAME.samples)


def test_global_framing_is_signed_in_global_framing() -> None:
    marked = embed(IMAGE, ABOUT, RING, DRAWN, framings=(Framing.GLOBAL,))
    signed = sign(IMAGE, marked, DRAWN, INSTANCE, TIME_S, SIGNER)
    assert not signed.beside
    verdict = verify(signed.done.frame, RING, [DRAWN], release=TRUSTING)
    assert (verdict.finding, verdict.signature.state) == (Finding.AUTHENTIC, SignatureState.VALID)


def beside_cases() -> dict[str, tuple[Frame, Embedded, object]]:
    tight = embed(IMAGE, ABOUT, RING, DRAWN, max_change=MARKED.receipt.max_change)
    large = frame(body_in_air((640, 640)))
    return {
        "no grey level left": (IMAGE, tight, DRAWN),
        "carrier dct": (large, embed_dct(large, ABOUT, RING, Anatomy()), Anatomy()),
    }


@pytest.mark.parametrize("name", ["no grey level left", "carrier dct"])
def test_without_room_it_travels_beside_the_pixels(name: str) -> None:
    original, marked, segmenter = beside_cases()[name]
    signed = sign(original, marked, segmenter, INSTANCE, TIME_S, SIGNER, max_change=marked.receipt.max_change)
    assert signed.beside
    assert signed.done is marked
    release = replace(TRUSTING, beside=signed.signature.to_bytes())
    verdict = verify(marked.frame, RING, [segmenter, Whole()], release=release)
    assert verdict.finding is Finding.AUTHENTIC
    assert (verdict.signature.state, verdict.signature.carried) == (SignatureState.VALID, "header")
    changed = check(one_more(marked.frame, 3, 3), [segmenter], release)
    assert changed.state is SignatureState.INVALID


def test_a_broken_header_element_is_invalid() -> None:
    assert state(MARKED.frame, replace(TRUSTING, beside=b"\1\2\3")) is SignatureState.INVALID


def test_a_reader_of_v1_alone_never_calls_it_authentic() -> None:
    """What it finds below a layer that it does not know is at most a record without its pixels."""
    found = extract(FRAME, Ring(KEY), [DRAWN])
    assert found is None or not np.array_equal(found.restored.samples, IMAGE.samples)


def with_a_strangers_layer(image: Frame, drawer: Segmenter, made: Signature | None = None) -> Frame:
    """A layer that holds no signature of ours, or `made`, by a map of the stranger's choice."""
    content = signature.seal(made or Signature(bytes(8), TIME_S, bytes(64)), image)
    keys, roi = crypto.derive(LAYER_KEY), block_map(drawer, image, Lattice.QUARTER)
    plan = tile_framing.plan(image, roi, Lattice.QUARTER, keys, 4)
    layered = tile_framing.embed(plan, keys, content, resilient=False)
    assert layered is not None
    return layered


@pytest.mark.parametrize("made", [None, SIGNED.signature])
def test_a_layer_in_the_region_of_interest_is_a_change_of_it(made: Signature | None) -> None:
    """Everybody can write one there, and take it off again; a signer's leaves it alone."""
    received = with_a_strangers_layer(MARKED.frame, Whole(), made)
    inside = pixel_mask(ROI, *SHAPE)
    assert (received.samples[:, inside] != MARKED.frame.samples[:, inside]).any()
    for hinted in (True, False):
        verdict = verify(received, RING, [DRAWN, Whole()], release=replace(TRUSTING, hinted=hinted))
        assert (verdict.finding, verdict.exact) == (Finding.PIXELS_ALTERED, False)
        assert verdict.evidence.localisation == "exact"
        touched = (received.samples != MARKED.frame.samples)[0] & inside
        rows, cols = (places // 64 for places in np.nonzero(touched))
        assert set(verdict.evidence.proven_tiles) == set(zip(rows.tolist(), cols.tolist(), strict=True))


def test_a_strangers_layer_outside_of_it_comes_off_as_noise_of_few_steps() -> None:
    received = with_a_strangers_layer(MARKED.frame, DRAWN)
    assert np.abs(received.samples - MARKED.frame.samples).max() <= 4
    verdict = verify(received, RING, [DRAWN], release=TRUSTING)
    assert (verdict.finding, verdict.signature.state) == (Finding.AUTHENTIC, SignatureState.UNKNOWN_KEY)
    assert np.array_equal(verdict.restored.samples, IMAGE.samples)


def moved_far(image: Frame, padding: int, bands: Bands) -> Frame:
    """A layer in global framing whose header names bands that no signer uses."""
    keys, roi = crypto.derive(LAYER_KEY), block_map(DRAWN, image, Lattice.QUINCUNX)
    plan = global_framing.plan(image, roi, Lattice.QUINCUNX, keys, 4)
    assert plan.header_bands is not None
    made = Signature(bytes(8), TIME_S, bytes(64)).to_bytes() + bytes(padding)
    message = crypto.seal_message(keys, made, crypto.context(image) + b"signature")
    choice = global_framing._Choice(0, bands, 0)
    header = global_framing._pack_header(plan, plan.header_bands, keys, choice, 8 * len(message))
    values, bounds = plan.sites.values(image.planes), image.plane_bounds
    insert(values, plan.sites.predicted, bounds, plan.header_bands, 0, np.unpackbits(header))
    predicted = global_framing.predict_again(image, plan.sites, Lattice.QUINCUNX, 0)
    bits = np.unpackbits(np.frombuffer(message, np.uint8))
    assert insert(values, predicted, bounds, bands, plan.header_end, bits) > 0
    return image.with_planes(plan.sites.put(image.planes, values))


FAR, NEAR = Bands(-20, NO_DOWN, 1000, 1000, 1000), Bands(0, NO_DOWN, 4, 2048, 2048)


@pytest.mark.parametrize(("padding", "bands"), [(3, FAR), (2925, FAR), (603, NEAR)])
@pytest.mark.parametrize("hinted", [True, False])
def test_what_moves_samples_far_or_says_much_is_no_layer(padding: int, bands: Bands, hinted: bool) -> None:
    """Else a stranger could change what everybody sees, and have it called authentic."""
    received = moved_far(MARKED.frame, padding, bands)
    assert (np.abs(received.samples - MARKED.frame.samples).max() > 4) == (bands is FAR)
    verdict = verify(received, RING, [DRAWN], release=replace(TRUSTING, hinted=hinted))
    assert verdict.finding is not Finding.AUTHENTIC
    assert not verdict.exact


def test_a_short_one_that_moves_them_a_little_is_one() -> None:
    verdict = verify(moved_far(MARKED.frame, 3, NEAR), RING, [DRAWN], release=TRUSTING)
    assert (verdict.finding, verdict.signature.state) == (Finding.AUTHENTIC, SignatureState.UNKNOWN_KEY)


@pytest.mark.parametrize("hinted", [True, False])
def test_a_layer_over_a_mark_that_proves_every_sample_is_a_change_of_them(hinted: bool) -> None:
    """The carrier `dct` has no layers: signatures of its frames travel beside them."""
    _, marked, drawer = beside_cases()["carrier dct"]
    received = with_a_strangers_layer(marked.frame, drawer)
    assert verify(marked.frame, RING, [drawer]).approximate
    verdict = verify(received, RING, [drawer], release=replace(TRUSTING, hinted=hinted))
    assert (verdict.finding, verdict.approximate) == (Finding.PIXELS_ALTERED, False)
    assert verdict.evidence.proven_tiles


def test_a_signature_beside_is_of_the_frame_as_it_arrived() -> None:
    """A stranger puts some packets of a layer over a frame whose signature lies in the header."""
    original, marked, drawer = beside_cases()["carrier dct"]
    signed = sign(original, marked, drawer, INSTANCE, TIME_S, SIGNER)
    assert signed.beside
    trusting = replace(TRUSTING, beside=signed.signature.to_bytes())
    layered = with_a_strangers_layer(marked.frame, drawer)
    one_tile = marked.frame.samples.copy()
    one_tile[:, :64, :64] = layered.samples[:, :64, :64]
    received = marked.frame.with_samples(one_tile)
    found = peel(received, [drawer])
    assert found is not None
    assert np.array_equal(found.frame.samples, marked.frame.samples)
    assert check(marked.frame, [drawer], trusting).state is SignatureState.VALID
    assert check(received, [drawer], trusting).state is SignatureState.INVALID
