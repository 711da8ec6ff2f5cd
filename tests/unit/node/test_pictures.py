"""Pictures show the image as its header wants it, what was found in it, and nothing twice."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from blessmark import pixels
from blessmark.payload.record import FULL_FIELDS
from blessmark.segment import segmenter
from blessmark.types import Evidence, Finding, Frame, Verdict
from dicom_node.config import OnUnprotectable, Uids
from dicom_node.header import put_bytes
from dicom_node.pictures import Gallery, Painter, display
from dicom_node.protect import Site, protect, written
from dicom_node.report import CHANGE_LIMIT, InstancePictures
from dicom_node.review import Reader, review
from tests import builders
from tests.builders import reread
from tests.strategies import RING

SITE = Site("node-1", RING, segmenter("anatomy"), FULL_FIELDS)
READER = Reader(RING, (segmenter("anatomy"),))


def frame(*planes: Any, lo: int = 0, hi: int = 255, number: int = 1, padding: Any = None) -> Frame:
    return Frame(np.asarray(planes, np.int32), lo, hi, padding, number)


def header(photometric: str = "MONOCHROME2", bits: int = 12, signed: int = 0, **attributes: Any) -> Dataset:
    ds = builders.mr(16, 16, **attributes)
    ds.PhotometricInterpretation, ds.BitsStored, ds.PixelRepresentation = photometric, bits, signed
    for keyword in ("WindowCenter", "WindowWidth"):
        if keyword not in attributes and keyword in ds:
            delattr(ds, keyword)
    return ds


def shown(ds: Dataset, frame: Frame, *values: int) -> list[int]:
    """The greys of stored values."""
    return display(ds, frame).grey(np.asarray([values], np.int32))[0].tolist()


def opened(picture: bytes) -> Image.Image:
    return Image.open(io.BytesIO(picture))


class TestGreys:
    """PS3.3 C.11.2: a window, a function, a table, and headers that make no sense."""

    wide = frame(np.zeros((16, 16)), lo=0, hi=4095)

    def test_a_window_after_the_rescale(self):
        ds = header(WindowCenter=40, WindowWidth=401, RescaleSlope=1, RescaleIntercept=-1024)
        assert shown(ds, self.wide, 0, 863, 1063, 1263, 4095) == [0, 0, 127, 255, 255]

    def test_of_several_windows_the_first(self):
        ds = header(WindowCenter=[100, 2000], WindowWidth=[101, 50])
        assert shown(ds, self.wide, 49, 151) == [0, 255]
        assert "centre 100, width 101" in display(ds, self.wide).words

    def test_the_exact_linear_function_and_the_sigmoid(self):
        exact = header(WindowCenter=100, WindowWidth=100, VOILUTFunction="LINEAR_EXACT")
        assert shown(exact, self.wide, 50, 100, 150) == [0, 128, 255]
        sigmoid = header(WindowCenter=100, WindowWidth=100, VOILUTFunction="SIGMOID")
        assert shown(sigmoid, self.wide, 100) == [128]

    @pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
    def test_low_is_bright_in_monochrome1(self, photometric):
        ds = header(photometric, WindowCenter=100, WindowWidth=101)
        expected = [255, 0] if photometric == "MONOCHROME1" else [0, 255]
        assert shown(ds, self.wide, 0, 4095) == expected

    def test_an_inverse_presentation(self):
        ds = header(WindowCenter=100, WindowWidth=101, PresentationLUTShape="INVERSE")
        assert shown(ds, self.wide, 0, 4095) == [255, 0]

    def test_a_table_before_a_window(self):
        item = Dataset()
        item.LUTDescriptor, item.LUTData = [3, 10, 8], [0, 128, 255]
        item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
        ds = header(WindowCenter=100, WindowWidth=101, VOILUTSequence=Sequence([item]))
        assert shown(ds, self.wide, 5, 10, 11, 12, 4000) == [0, 0, 128, 255, 255]
        assert "VOI LUT" in display(ds, self.wide).words

    def test_signed_samples(self):
        signed = frame(np.zeros((16, 16)), lo=-2048, hi=2047)
        ds = header(signed=1, WindowCenter=0, WindowWidth=201)
        assert shown(ds, signed, -2048, -100, 0, 100) == [0, 1, 128, 255]

    def test_each_frame_has_its_own_window_in_an_enhanced_object(self):
        ds = header(WindowCenter=9, WindowWidth=9)
        ds.PerFrameFunctionalGroupsSequence = Sequence([_window(100), _window(1000)])
        assert shown(ds, self.wide, 200) == [255]
        assert shown(ds, replace(self.wide, number=2), 200) == [0]

    def test_a_window_that_all_frames_share(self):
        ds = header()
        ds.SharedFunctionalGroupsSequence = Sequence([_window(100)])
        assert "centre 100" in display(ds, self.wide).words

    def test_without_a_window_the_range_that_is_used_and_no_padding(self):
        plane = np.full((16, 16), 4000)
        plane[:8], plane[0, 0] = 100, 0
        some = frame(plane, lo=0, hi=4095, padding=(4000, 4000))
        some = replace(some, samples=np.where(some.samples == 0, 90, some.samples).astype(np.int32))
        greys = display(header(), some)
        assert greys.words == "the range of its samples"
        assert greys.grey(np.asarray([[90, 100, 4000]], np.int32)).max() == 255

    @pytest.mark.parametrize(
        "nonsense",
        [
            {"WindowCenter": 1, "WindowWidth": 0},
            {"WindowCenter": 1, "WindowWidth": 10, "VOILUTFunction": "CUBIC"},
            {"WindowCenter": 1, "WindowWidth": 10, "RescaleSlope": 0, "RescaleIntercept": 0},
            {"VOILUTSequence": Sequence([Dataset()])},
            {"ModalityLUTSequence": Sequence([Dataset()]), "WindowCenter": 1, "WindowWidth": 5},
            {"WindowCenter": [], "WindowWidth": []},
        ],
    )
    def test_a_header_that_makes_no_sense_still_gives_a_picture(self, nonsense):
        plane = np.arange(256).reshape(16, 16)
        greys = display(header(**nonsense), frame(plane, lo=0, hi=4095)).grey(plane)
        assert greys.shape == (16, 16)


def _window(centre: int) -> Dataset:
    voi, group = Dataset(), Dataset()
    voi.WindowCenter, voi.WindowWidth = centre, 11
    group.FrameVOILUTSequence = Sequence([voi])
    return group


def painted(ds: Dataset, *, in_full: bool = True) -> InstancePictures:
    painter = Painter(ds, in_full=in_full)
    review(ds, "x", READER, on_frame=painter)
    found = painter.pictures()
    assert found is not None
    return found


def marked(ds: Dataset | None = None) -> Dataset:
    ds = reread(builders.mr(256, 256) if ds is None else ds)
    assert protect(ds, SITE, 0).changed
    return pixels.read(written(ds))


class TestPainting:
    def test_an_authentic_image_in_full(self):
        found = painted(marked())
        (one,) = found.frames
        assert (one.frame, one.finding, one.rows, one.cols) == (1, "authentic", 256, 256)
        for picture in (one.received, one.restored, one.change):
            assert opened(picture).size == (256, 256)
        assert opened(one.roi).size == (32, 32)
        assert opened(one.packets).size == (4, 4)
        assert 0 < one.roi_share < 1
        assert max(opened(found.thumbnail).size) <= 96
        assert (one.altered_tiles, one.foreign_tiles) == ((), ())

    def test_its_changes_are_counted_to_the_last_sample(self):
        ds = marked()
        painter = Painter(ds, in_full=False)
        report = review(ds, "x", READER, on_frame=painter).report
        counts = dict(painter.pictures().changes)
        assert sum(counts.values()) == 256 * 256
        assert sum(n for step, n in counts.items() if step) == report.frames[0].changed_samples
        assert max(map(abs, counts)) <= CHANGE_LIMIT

    def test_the_map_is_painted_where_the_map_is(self):
        seen = {}
        ds = marked()
        review(ds, "x", READER, on_frame=lambda frame, verdict: seen.update(roi=verdict.evidence.roi))
        alpha = np.asarray(opened(painted(ds).frames[0].roi).convert("RGBA"))[..., 3]
        assert np.array_equal(alpha > 0, seen["roi"])

    def test_the_changes_are_painted_where_samples_moved_and_which_way(self):
        plane = np.full((70, 90), 100)
        moved = plane.copy()
        moved[3, 5], moved[60, 80], moved[10, 10] = 103, 90, 101
        colours = np.asarray(opened(_frame_of(plane, moved).change).convert("RGBA"))
        assert np.argwhere(colours[..., 3] > 0).tolist() == [[3, 5], [10, 10], [60, 80]]
        assert colours[3, 5, 0] > colours[3, 5, 2]
        assert colours[60, 80, 0] < colours[60, 80, 2]
        assert colours[10, 10, 3] < colours[3, 5, 3]

    def test_a_large_frame_shows_the_greatest_change_of_each_place(self):
        plane = np.full((1100, 700), 100)
        moved = plane.copy()
        moved[1099, 699] = 104
        found = _frame_of(plane, moved)
        assert max(opened(found.received).size) == 512
        alpha = np.asarray(opened(found.change).convert("RGBA"))[..., 3]
        assert np.argwhere(alpha).tolist() == [[366, 233]]

    def test_of_one_that_nothing_was_taken_off_no_copy_is_kept(self):
        plane = np.full((70, 90), 100)
        found = _frame_of(plane, plane)
        assert (found.restored, found.change) == (b"", b"")

    def test_without_a_watermark_there_is_the_image(self):
        (one,) = painted(reread(builders.mr(64, 64)), in_full=False).frames
        assert (one.finding, one.restored, one.change, one.roi, one.packets) == ("unmarked", *(4 * [b""]))

    @pytest.mark.parametrize(
        ("photometric", "planes", "expected"),
        [
            ("RGB", (200, 30, 10), (200, 30, 10)),
            ("YBR_FULL", (76, 85, 255), (254, 0, 0)),
        ],
    )
    def test_colours_are_those_of_the_header(self, photometric, planes, expected):
        ds = builders.us(16, 16, frames=1)
        ds.PhotometricInterpretation = photometric
        painter = Painter(ds, in_full=True)
        one = frame(*(np.full((16, 16), value) for value in planes))
        painter(one, Verdict(Finding.UNMARKED, Evidence(1)))
        assert opened(painter.pictures().frames[0].received).convert("RGB").getpixel((8, 8)) == expected


def _frame_of(restored: Any, received: Any) -> Any:
    painter = Painter(header(), in_full=True)
    verdict = Verdict(Finding.AUTHENTIC, Evidence(1), restored=frame(restored), exact=True)
    painter(frame(received), verdict)
    (one,) = painter.pictures().frames
    return one


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (513, 1025), (64, 64)])
@pytest.mark.parametrize(
    ("channels", "lo", "hi"), [(1, 0, 65535), (1, -32768, 32767), (3, 0, 255), (4, 0, 255)]
)
def test_whatever_the_shape_there_is_a_picture(
    shape: tuple[int, int], channels: int, lo: int, hi: int
) -> None:
    plane = np.linspace(lo, hi, shape[0] * shape[1]).astype(np.int32).reshape(shape)
    received = frame(*(plane for _ in range(channels)), lo=lo, hi=hi)
    marked = received.with_samples(np.clip(received.samples + 1, lo, hi))
    painter = Painter(header(), in_full=True)
    painter(marked, Verdict(Finding.AUTHENTIC, Evidence(1), restored=received, exact=True))
    pictures = painter.pictures()
    assert pictures is not None
    (one,) = pictures.frames
    longest = min(512, max(shape))
    assert max(opened(one.received).size) == max(opened(one.restored).size) == longest
    assert max(opened(one.change).size) in range(longest // 2, longest + 1)
    assert max(opened(pictures.thumbnail).size) == min(96, max(shape))


class TestFramesOfACine:
    """The middle frame stands for the rest, and what differs is shown."""

    @staticmethod
    def walked(findings: list[Finding], *, in_full: bool) -> InstancePictures:
        ds = builders.us(16, 16, frames=len(findings))
        painter = Painter(ds, in_full=in_full)
        for number, finding in enumerate(findings, start=1):
            plane = np.full((16, 16), number)
            painter(frame(plane, plane, plane, number=number), Verdict(finding, Evidence(number)))
        found = painter.pictures()
        assert found is not None
        return found

    def test_the_middle_one_in_full_or_as_a_thumbnail_only(self):
        assert [f.frame for f in self.walked([Finding.AUTHENTIC] * 9, in_full=True).frames] == [5]
        assert self.walked([Finding.AUTHENTIC] * 9, in_full=False).frames == ()

    def test_those_that_differ_up_to_a_limit(self):
        some = [Finding.AUTHENTIC] * 9
        some[1] = some[7] = Finding.PIXELS_ALTERED
        assert [f.frame for f in self.walked(some, in_full=False).frames] == [2, 8]
        assert len(self.walked([Finding.PIXELS_ALTERED] * 40, in_full=False).frames) <= 9

    def test_an_altered_header_needs_one_frame(self):
        frames = self.walked([Finding.HEADER_ALTERED] * 9, in_full=False).frames
        assert [f.frame for f in frames] == [5]

    def test_an_object_without_frames_has_no_pictures(self):
        assert Painter(builders.us(16, 16), in_full=True).pictures() is None


class TestAGallery:
    def test_disturbs_no_verdict_that_rests_on_bytes(self):
        """What pydicom would write otherwise once looked at: numbers, paddings, lengths of sequences."""
        window, group, uid = b"+40.0 \\00080.0", Dataset(), b"1.2.840.4711\0"
        group.FrameVOILUTSequence = Sequence([_window(100)])
        samples = np.random.default_rng(1).normal(2000, 4, (1, 1, 128, 128)).astype(np.int32)
        ds = reread(builders.dataset(samples, SharedFunctionalGroupsSequence=Sequence([group])))
        for tag, vr, value in (
            (0x00281050, "DS", window),
            (0x00281051, "DS", window),
            (0x0020000E, "UI", uid),
        ):
            put_bytes(ds, tag, vr, value)
        ds = reread(ds)
        site = replace(SITE, on_unprotectable=OnUnprotectable.PASS, uids=Uids.DERIVE)
        assert protect(ds, site, 0).result == "rewritten"
        content = written(ds)
        ds, gallery = pixels.read(content), Gallery()
        painter = gallery.painter(ds)
        found = review(ds, "x", READER, on_frame=painter)
        assert gallery.finished(ds, painter, found.finding) is not None
        assert found.finding is Finding.AUTHENTIC
        assert written(ds) == content
        for tag in (0x00281050, 0x52009229):
            assert isinstance(ds.get_item(tag), RawDataElement), "nobody looked at it"

    def test_paints_what_has_values_that_are_none(self):
        ds = header()
        for tag in (0x00281050, 0x00281051, 0x00281053, 0x00281052):
            put_bytes(ds, tag, "DS", b"forty \\1e")
        ds = reread(ds)
        painter = Gallery().painter(ds)
        painter(frame(np.arange(256).reshape(16, 16)), Verdict(Finding.UNMARKED, Evidence(1)))
        assert painter.pictures().greys == "the range of its samples"

    def test_paints_one_authentic_instance_of_a_series_in_full(self):
        gallery, plane = Gallery(), np.full((16, 16), 1)
        for series, finding, full in [
            ("1.1", Finding.HEADER_ALTERED, True),
            ("1.1", Finding.AUTHENTIC, True),
            ("1.1", Finding.AUTHENTIC, False),
            ("1.2", Finding.AUTHENTIC, True),
            ("1.1", Finding.PIXELS_ALTERED, True),
        ]:
            ds = header(SeriesInstanceUID=series)
            painter = gallery.painter(ds)
            painter(frame(plane), Verdict(finding, Evidence(1)))
            pictures = gallery.finished(ds, painter, finding)
            assert pictures is not None
            assert bool(pictures.frames) is full
