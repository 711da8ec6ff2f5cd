"""Hints at what happened to a frame; how often they are right on real images is measured by a benchmark."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from benchmarks.alterations import alterations, jpeg
from blessmark.cause import Claims, explained, likely, quantiser_step
from blessmark.embed import embed
from blessmark.portrait import portrait
from blessmark.segment.anatomy import Anatomy
from blessmark.types import Cause, Evidence, Finding, Frame, Verdict
from blessmark.verify import verify
from tests.phantoms import body_in_air, frame
from tests.strategies import ABOUT, RING


def scene(shape: tuple[int, int] = (256, 256)) -> Frame:
    """A body with something in it: other than plain noise, as images are."""
    rows, cols = np.ogrid[: shape[0], : shape[1]]
    plane = body_in_air(shape)
    inside = plane > 500
    plane[inside] += (200 * np.sin(rows / 7) * np.cos(cols / 11) + cols)[inside].astype(np.int32)
    plane[60:90, 130:140] += 400
    return frame(plane)


IMAGE = scene()
THEN = portrait(IMAGE)
NO_CLAIMS = Claims()
MADE = {each.name: each for each in alterations(IMAGE, np.random.default_rng(3))}


def first(then: object, image: Frame, claims: Claims = NO_CLAIMS, altered: int = 0) -> Cause | None:
    hints = likely(then, image, altered, 16 if altered else 0, claims)  # type: ignore[arg-type]
    return hints[0].cause if hints else None


#: what is told wrongly here: a gamma stretches noisy air, and these changes are less than a portrait shows
_HARD = ("gamma 0.8", "1 % of the samples moved by 1", "16 x 16 from elsewhere")


@pytest.mark.parametrize("name", [name for name in MADE if name not in _HARD])
def test_what_was_done_is_told(name: str) -> None:
    assert first(THEN, MADE[name].frame) in MADE[name].causes


def test_an_honest_header_is_believed_about_codecs() -> None:
    lightly = MADE["JPEG-LS, near 1"].frame
    assert first(THEN, lightly, Claims(lossy_now=True)) is Cause.LOSSY_COMPRESSION
    noisy = MADE["noise of 2 % of the range"].frame
    already = Claims(lossy_now=True, lossy_then=True)
    assert first(THEN, noisy, already) is Cause.NOISE, "it was lossy before, so that explains nothing"


def test_what_the_header_said_at_release_may_not_be_known() -> None:
    (hint,) = likely(None, IMAGE, 0, 0, Claims(lossy_now=True))
    assert hint.because == "the header says so"
    (since, *_) = likely(THEN, MADE["JPEG-LS, near 1"].frame, 0, 0, Claims(lossy_now=True, lossy_then=False))
    assert "did not when" in since.because


def test_without_a_portrait_little_is_told() -> None:
    assert first(None, MADE["JPEG, quality 50"].frame) is Cause.LOSSY_COMPRESSION
    assert first(None, IMAGE, altered=2) is Cause.PASTED_REGION
    assert first(None, IMAGE, altered=12) is None
    assert first(None, MADE["brightness + 5 %"].frame) is None


def test_known_tiles_speak_for_a_region_too_small_for_the_portrait() -> None:
    samples = IMAGE.samples.copy()
    samples[0, 100, 100] += 1
    changed = IMAGE.with_samples(samples)
    assert first(THEN, changed, altered=1) is Cause.PASTED_REGION


@pytest.mark.parametrize("quality", [50, 75, 90])
def test_the_step_of_a_quantiser_shows(quality: int) -> None:
    eight = Frame((IMAGE.samples // 16).astype(np.int32), 0, 255)
    assert quantiser_step(jpeg(eight, quality)) is not None
    assert quantiser_step(jpeg(IMAGE, quality)) is not None
    assert quantiser_step(eight) is None
    assert quantiser_step(IMAGE) is None


def test_blurring_leaves_no_step() -> None:
    blurred = ndimage.gaussian_filter(IMAGE.samples.astype(float), (0, 1, 1))
    assert quantiser_step(IMAGE.with_samples(np.rint(blurred).astype(np.int32))) is None


@pytest.mark.parametrize("samples", [np.zeros((1, 5, 5)), np.zeros((1, 64, 64)), np.full((3, 16, 16), 9)])
def test_nothing_breaks_on_nothing(samples: np.ndarray) -> None:
    tiny = Frame(samples.astype(np.int32), 0, 255)
    assert quantiser_step(tiny) is None
    assert likely(portrait(tiny), tiny, 0, 0, NO_CLAIMS)
    assert likely(None, tiny, 0, 0, NO_CLAIMS) == ()
    other = replace(tiny, samples=np.ascontiguousarray(tiny.samples[:, ::2]))
    assert likely(portrait(tiny), other, 0, 0, NO_CLAIMS)


@pytest.mark.parametrize(
    "finding", [Finding.AUTHENTIC, Finding.HEADER_ALTERED, Finding.UNMARKED, Finding.WRONG_KEY]
)
def test_only_what_was_found_altered_is_explained(finding: Finding) -> None:
    verdict = Verdict(finding, Evidence(1))
    assert explained(verdict, MADE["JPEG, quality 50"].frame, THEN, NO_CLAIMS) is verdict


def test_a_verdict_keeps_its_finding_and_gains_a_hint() -> None:
    done = embed(IMAGE, ABOUT, RING, Anatomy())
    then = portrait(done.frame)
    samples = done.frame.samples.copy()
    samples[:, 100:140, 100:140] = 3000
    changed = done.frame.with_samples(samples)
    verdict = verify(changed, RING, [Anatomy()])
    told = explained(verdict, changed, then, NO_CLAIMS)
    assert told.finding is verdict.finding is Finding.PIXELS_ALTERED
    assert told.evidence.causes[0].cause is Cause.PASTED_REGION
    assert "8 x 8" not in told.evidence.causes[0].because
