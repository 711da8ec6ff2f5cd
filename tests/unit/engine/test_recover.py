"""Going back to the frame as it was."""

from __future__ import annotations

import numpy as np
import pytest

from blessmark.embed import embed
from blessmark.embed_dct import embed_dct
from blessmark.errors import WatermarkError
from blessmark.fidelity import psnr_db
from blessmark.recover import recover
from blessmark.segment.anatomy import Anatomy
from blessmark.types import Finding
from tests.phantoms import body_in_air, frame
from tests.strategies import ABOUT, OTHER_KEY, RING, Ring

IMAGE = frame(body_in_air())
MARKED = embed(IMAGE, ABOUT, RING, Anatomy()).frame


def test_the_original_comes_back_bit_for_bit():
    recovery = recover(MARKED, RING, [Anatomy()])

    assert recovery.exact
    assert recovery.verdict.finding is Finding.AUTHENTIC
    assert (recovery.frame.samples == IMAGE.samples).all()


def test_all_but_the_altered_tile_comes_back():
    samples = MARKED.samples.copy()
    samples[0, 130, 130] += 1

    recovery = recover(MARKED.with_samples(samples), RING, [Anatomy()])

    assert not recovery.exact
    assert np.argwhere(recovery.frame.samples[0] != IMAGE.samples[0]).tolist() == [[130, 130]]


def test_what_the_papers_carrier_marked_comes_back_nearly():
    image = frame(body_in_air((640, 640)))
    marked = embed_dct(image, ABOUT, RING, Anatomy()).frame
    recovery = recover(marked, RING, [Anatomy()])
    assert not recovery.exact
    assert recovery.verdict.approximate
    told = recovery.verdict.evidence.restored_psnr_db
    assert psnr_db(image, recovery.frame.samples) >= told > psnr_db(image, marked.samples)


def test_without_a_watermark_there_is_nothing_to_go_back_to():
    with pytest.raises(WatermarkError, match="frame 1 holds no watermark"):
        recover(IMAGE, RING, [Anatomy()])


def test_another_key_does_not_go_back():
    with pytest.raises(WatermarkError, match="no watermark that this key ring can read"):
        recover(MARKED, Ring(OTHER_KEY), [Anatomy()])
