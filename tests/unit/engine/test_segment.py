"""Looking segmenters up."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from blessmark.errors import SegmenterError
from blessmark.segment import known, segmenter
from blessmark.segment.integer import NumpyRuntime
from blessmark.types import Lattice
from blessmark.view import invariant_view
from tests.phantoms import body_in_air, frame


class On(NumpyRuntime):
    """A runtime that is not the reference."""


@pytest.mark.parametrize("name", ["anatomy", "vessels", "whole"])
def test_name_and_version_give_the_same_segmenter(name):
    assert segmenter(name) is segmenter(f"{name}/1")
    assert segmenter(name).id.startswith(f"{name}/")


def test_an_id_begins_with_name_and_version_and_ends_with_the_weights_if_there_are_any():
    assert [segmenter(each).id.partition("-")[0] for each in known()] == list(known())
    assert [each for each in known() if "-" in segmenter(each).id] == ["vessels/1"]


def test_a_network_is_put_on_the_runtime_that_is_asked_for():
    on_another = segmenter("vessels", On)
    assert isinstance(on_another.runtime, On)
    assert on_another is segmenter("vessels/1", On)
    assert on_another.id == segmenter("vessels").id
    assert segmenter("anatomy", On).id == segmenter("anatomy").id


@pytest.mark.parametrize("name", ["", "anatomy/2", "Anatomy", "vessel"])
def test_unknown_name_lists_the_known_ones(name):
    with pytest.raises(SegmenterError, match=r"anatomy/1.*whole/1"):
        segmenter(name)


def test_whole_leaves_nothing_out():
    view = invariant_view(frame(body_in_air((131, 70))), Lattice.QUINCUNX)

    roi = segmenter("whole").roi_blocks(view)

    assert roi.shape == (16, 8)
    assert roi.dtype == np.bool_
    assert not roi.any()
    assert segmenter("whole").reach_px == 0


def test_nothing_heavy_is_imported_before_it_is_asked_for():
    """The command line names segmenters long before it needs one."""
    code = "import sys; import blessmark.segment; sys.exit('scipy.ndimage' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
