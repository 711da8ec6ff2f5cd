"""Which segmenter draws a map, and how a worker's engines start, fail and are told of."""

from __future__ import annotations

import io
import logging
import sys
from types import ModuleType

import numpy as np
import pytest
from pydicom import uid

from blessmark.segment import segmenter
from blessmark.segment.engine import Deferred
from blessmark.segment.integer import NumpyRuntime
from blessmark.types import Lattice
from blessmark.view import invariant_view
from dicom_node import log
from dicom_node.config import Device, Engine, Networks, SegmenterRule, Watermark
from dicom_node.metrics import NetworkRun
from dicom_node.segmenters import Engines, chosen, rules_of
from tests import builders
from tests.phantoms import frame, fundus

VESSELS = segmenter("vessels").id


def test_by_default_colour_photographs_of_the_eye_get_vessels_and_all_else_what_is_usual():
    rules = rules_of(Watermark())
    photograph = builders.secondary_capture(64, 64, Modality="OP")
    assert photograph.SamplesPerPixel == 3
    assert chosen(photograph, rules) is segmenter("vessels")
    for other in (builders.ct(64, 64, Modality="OP"), builders.ct(64, 64, Modality="XA"), builders.us()):
        assert chosen(other, rules) is None


@pytest.mark.parametrize(
    "syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian]
)
def test_choosing_leaves_the_data_set_as_it_was_read(syntax):
    """What is decoded to be looked at is decoded again by whoever compares it with the file."""
    for channels in (1, 3):
        encoding = builders.Encoding(
            syntax=syntax,
            bits_allocated=8,
            bits_stored=8,
            photometric="RGB" if channels == 3 else "MONOCHROME2",
        )
        ds = builders.reread(
            builders.dataset(builders.phantom(16, 16, channels=channels, hi=255), encoding, Modality="OP")
        )
        held = dict(ds._dict)
        assert (chosen(ds, rules_of(Watermark())) is not None) == (channels == 3)
        assert all(ds._dict[tag] is item for tag, item in held.items())


def test_the_first_rule_that_fits_decides():
    rules = rules_of(
        Watermark(
            segmenter_rules=(
                SegmenterRule(use="whole", modality=("XA",), body_part=("HEART",)),
                SegmenterRule(use="vessels", modality=("XA",)),
            )
        )
    )
    assert chosen(builders.ct(64, 64, Modality="XA", BodyPartExamined="HEART"), rules).id == "whole/1"
    assert chosen(builders.ct(64, 64, Modality="XA"), rules).id == VESSELS


@pytest.fixture
def lines(caplog):
    """The canonical lines written while a test runs."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(log._Text())
    logging.getLogger("dicom_node").addHandler(handler)
    caplog.set_level(logging.INFO, "dicom_node")
    yield lambda: stream.getvalue().splitlines()
    logging.getLogger("dicom_node").removeHandler(handler)


def a_view():
    return invariant_view(frame(fundus((96, 128)), hi=255), Lattice.QUARTER)


def test_a_network_starts_with_the_first_view_that_it_is_shown_and_is_told_of_once(lines):
    told: list[NetworkRun] = []
    engines = Engines(Networks(engine=Engine.NUMPY), told.append)
    vessels = engines.segmenter("vessels")
    assert vessels is engines.segmenter("vessels")
    assert isinstance(vessels.runtime, Deferred)
    assert (told, lines()) == ([], [])
    for _ in range(2):
        assert np.array_equal(vessels.roi_blocks(a_view()), segmenter("vessels").roi_blocks(a_view()))
    assert told == [NetworkRun(VESSELS, "numpy", "ok")]
    (line,) = lines()
    assert "info network-started" in line
    assert f"segmenter={VESSELS} engine=numpy reason=ok" in line


@pytest.mark.parametrize(
    ("runtime", "outcome"),
    [(lambda network, wish: Wrong(network), "differs"), (lambda network, wish: 1 / 0, "failed")],
)
def test_a_wrong_engine_is_replaced_counted_and_warned_of(monkeypatch, lines, runtime, outcome):
    module = ModuleType("fake")
    module.runtime = runtime
    monkeypatch.setattr("blessmark.segment.engine._KERAS", "fake")
    monkeypatch.setitem(sys.modules, "fake", module)
    monkeypatch.setenv("KERAS_BACKEND", "")
    told: list[NetworkRun] = []

    vessels = Engines(Networks(engine=Engine.TENSORFLOW), told.append).segmenter("vessels")

    assert np.array_equal(vessels.roi_blocks(a_view()), segmenter("vessels").roi_blocks(a_view()))
    assert told == [NetworkRun(VESSELS, "numpy", outcome)]
    (line,) = lines()
    assert "warning network-started" in line
    assert f"engine=numpy reason={outcome}" in line
    assert "running on NumPy" in line


class Wrong:
    """A library that finds vessels where there are none."""

    backend = "tensorflow"

    def __init__(self, network) -> None:
        self.network = network

    def logits(self, images):
        return -NumpyRuntime(self.network).logits(images)


def test_what_is_configured_is_what_is_wished(monkeypatch):
    wished = []
    monkeypatch.setattr(
        "blessmark.segment.engine.start",
        lambda network, wish: wished.append(wish) or Started(network),
    )
    networks = Networks(
        engine=Engine.JAX,
        device=Device.GPU,
        memory_growth=False,
        threads=3,
        batch_cells=20000,
    )
    Engines(networks, lambda run: None).segmenter("vessels").roi_blocks(a_view())
    (wish,) = wished
    assert (wish.engine, wish.device, wish.memory_growth) == ("jax", "gpu", False)
    assert (wish.threads, wish.batch_samples) == (3, 20000)


class Started:
    outcome, warning = "ok", None

    def __init__(self, network) -> None:
        self.runtime = NumpyRuntime(network)
