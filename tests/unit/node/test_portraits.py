"""The sealed portraits in the private block, and the hints that a review draws from them."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset

from blessmark import pixels
from blessmark.portrait import portrait
from blessmark.segment import segmenter
from blessmark.segment.whole import Whole
from dicom_node import header, label, portraits
from dicom_node.report import FrameReport
from dicom_node.review import Reader, review
from tests import builders
from tests.builders import reread
from tests.phantoms import body_in_air, frame
from tests.strategies import OTHER_KEY, RING, Ring
from tests.unit.node.test_protect import PATIENT, TIME_S, protect, site

READER = Reader(RING, (segmenter("anatomy"), Whole()))
UID = "2.25.99"
SOME = {2: portrait(frame(body_in_air((64, 64))))}


def protected(**attributes: object) -> Dataset:
    ds = builders.ct(256, 256, **PATIENT, **attributes)
    assert protect(ds, site(), TIME_S).changed
    return reread(ds)


def altered(ds: Dataset, change: object) -> Dataset:
    image = pixels.load(ds)
    assert isinstance(image, pixels.Image)
    pixels.store(ds, image, (change(one.samples.copy()) for one in image))  # type: ignore[operator]
    return reread(ds)


def frame_of(ds: Dataset) -> FrameReport:
    return review(ds, "x", READER).report.frames[0]


@pytest.mark.parametrize(("frames", "count"), [(1, 1), (16, 16), (17, 16), (1000, 16)])
def test_long_instances_have_some(frames: int, count: int) -> None:
    numbers = portraits.chosen(frames)
    assert len(numbers) == count
    assert min(numbers) == 1
    assert max(numbers) <= frames


def holder(content: bytes, uid: str = UID) -> tuple[Dataset, label.Mark]:
    ds = Dataset()
    header.put_bytes(ds, 0x00080018, "UI", uid.encode())
    return ds, label.Mark(b"1234", sealed_portraits=content)


def test_they_come_back_under_the_key_and_for_the_instance_only() -> None:
    content = portraits.sealed(SOME, UID, RING, lossy=True)
    found = portraits.unseal(*holder(content), RING)
    assert found.lossy
    assert found.frames.keys() == {2}
    assert found.frames[2].to_bytes() == SOME[2].to_bytes()
    assert not portraits.unseal(*holder(content, "2.25.98"), RING).frames
    assert portraits.unseal(*holder(content, "2.25.98"), RING).lossy is None
    derived, mark = holder(content, "2.25.98")
    source = Dataset()
    source.ReferencedSOPInstanceUID = UID
    derived.SourceImageSequence = [source]
    assert portraits.unseal(derived, mark, RING).frames, "compressed with loss, under a new UID"
    assert not portraits.unseal(*holder(content), Ring(OTHER_KEY)).frames
    assert not portraits.unseal(*holder(content[:-1]), RING).frames
    assert not portraits.unseal(Dataset(), None, RING).frames
    assert portraits.sealed({}, UID, RING, lossy=False) == b""


def test_a_protected_image_has_them_and_says_nothing_while_it_is_authentic() -> None:
    ds = protected()
    mark = label.read_mark(ds)
    assert mark is not None
    assert portraits.unseal(ds, mark, RING).frames.keys() == {1}
    assert frame_of(ds).causes == ()


def test_a_turned_image_is_told_to_be_turned() -> None:
    found = frame_of(altered(protected(), lambda samples: samples[:, ::-1]))
    assert found.finding == "damaged"
    assert found.causes[0][0] == "turned"


def test_a_painted_region_is_told() -> None:
    def paint(samples: np.ndarray) -> np.ndarray:
        samples[:, 100:130, 100:130] = samples.max()
        return samples

    found = frame_of(altered(protected(), paint))
    assert (found.finding, found.causes[0][0]) == ("pixels-altered", "pasted-region")
    line = review(altered(protected(), paint), "x", READER).report
    assert line.frames[0].causes


def test_a_header_that_says_lossy_since_is_believed() -> None:
    def sprinkle(samples: np.ndarray) -> np.ndarray:
        samples[:, ::3, ::3] ^= 1
        return samples

    ds = altered(protected(), sprinkle)
    ds.LossyImageCompression = "01"
    assert frame_of(ds).causes[0][0] == "lossy-compression"
    before = altered(protected(LossyImageCompression="01"), sprinkle)
    assert "header" not in frame_of(before).causes[0][1]


def test_without_the_private_block_there_may_be_no_hint_and_the_finding_stands() -> None:
    ds = altered(protected(), lambda samples: samples[:, ::-1])
    for tag in [tag for tag in ds.keys() if int(tag) >> 16 == 0x0099]:  # noqa: SIM118
        del ds[tag]
    found = frame_of(ds)
    assert found.finding == "unmarked"
    assert found.causes == ()


@pytest.mark.parametrize(
    ("attributes", "lossy"),
    [({}, False), ({"LossyImageCompression": "01"}, True), ({"LossyImageCompression": "00"}, False)],
)
def test_what_the_header_says_of_compression(attributes: dict[str, str], lossy: bool) -> None:
    assert portraits.is_lossy(builders.ct(**attributes)) is lossy
