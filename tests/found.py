"""Reports and pictures as a judge hands them over, made by hand; for the tests of what is made of them."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from dicom_node.report import FramePictures, FrameReport, InstancePictures, InstanceReport, Place


def picture(width: int = 8, height: int = 8, kind: str = "WEBP") -> bytes:
    """A small picture of one colour."""
    file = io.BytesIO()
    Image.new("L", (width, height), 90).save(file, kind)
    return file.getvalue()


def a_frame(number: int = 1, finding: str = "authentic", **changed: Any) -> FrameReport:
    """One frame that was marked in tiles and is as it was, but for what is changed."""
    values: dict[str, Any] = {
        "frame": number,
        "finding": finding,
        "exact": finding in ("authentic", "header-altered"),
        "framing": "tile",
        "lattice": "quarter",
        "tier": "full",
        "segmenter": "anatomy/1",
        "key_id": 1,
        "packets": 14,
        "shards_needed": 9,
        "changed_samples": 1200,
        "psnr_db": 84.5,
        "localisation": "indicative",
        "restoration": "exact" if finding in ("authentic", "header-altered") else "none",
    }
    return FrameReport(**{**values, **changed})


def painted(finding: str = "authentic", frames: int = 1, **changed: Any) -> InstancePictures:
    """Pictures of an instance of 128 x 192 pixels, `frames` of it in full."""
    values: dict[str, Any] = {
        "finding": finding,
        "rows": 128,
        "cols": 192,
        "received": picture(),
        "restored": picture(),
        "change": picture(kind="PNG"),
        "roi": picture(24, 16, "PNG"),
        "roi_share": 0.4,
        "packets": picture(3, 2, "PNG"),
    }
    each = tuple(FramePictures(frame=number, **{**values, **changed}) for number in range(1, frames + 1))
    return InstancePictures(picture(), each, ((-1, 40), (0, 24000), (1, 96)), "the range of its samples")


def a_report(finding: str = "authentic", *frames: FrameReport, **changed: Any) -> InstanceReport:
    """An instance of one frame with that finding, or of those frames."""
    values: dict[str, Any] = {
        "source": "images/one.dcm",
        "finding": finding,
        "protected_at": "2026-09-21T17:46:40Z",
        "node": "ct-room",
        "frames_expected": len(frames) or 1,
        "segmenters": ("anatomy/1",),
        "frames": frames or (a_frame(finding=finding),),
        "place": Place("1.2.3", "1.2.3.1", "1.2.3.1.7", "CT", 7),
        "number_of_frames": len(frames) or 1,
        "fields": ("PatientName", "PatientID"),
        "pictures": painted(finding),
    }
    return InstanceReport(**{**values, **changed})
