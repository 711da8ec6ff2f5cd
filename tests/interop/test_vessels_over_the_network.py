"""Real fundus photographs and made-up angiograms: storescu -> node -> storescp -> verify -> recover."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset

from blessmark import pixels
from blessmark.payload.record import pixel_digest
from blessmark.segment import segmenter
from tests.builders import COLOUR_8, GREY_8, dataset
from tests.interop import peers
from tests.phantoms import angiogram

pytestmark = [pytest.mark.interop, pytest.mark.slow]

PATIENT = {"PatientName": "Phantom^Test", "PatientID": "P-1", "StudyDate": "20260921"}
RULES = "watermark: {segmenter_rules: [{use: vessels, modality: [OP, XA]}]}\n"


def photographs(folder: Path) -> list[Dataset]:
    """One photograph of each kind of eye in full size, and one at half its size."""
    whole = [
        np.asarray(Image.open(next((folder / "images").glob(f"{name}.*"))))
        for name in ("13_dr", "13_g", "13_h")
    ]
    return [
        dataset(
            np.moveaxis(rgb, 2, 0)[None].astype(np.int32),
            COLOUR_8,
            SOPClassUID=uid.OphthalmicPhotography8BitImageStorage,
            Modality="OP",
            **PATIENT,
        )
        for rgb in (*whole, whole[0][::2, ::2])
    ]


def angiographies() -> list[Dataset]:
    """A run of 8 frames, and a single frame of 1 024 x 1 024."""
    runs = [
        np.stack([angiogram((512, 512), seed) for seed in range(8)]),
        angiogram((1024, 1024))[None],
    ]
    return [
        dataset(run[:, None], GREY_8, SOPClassUID=uid.XRayAngiographicImageStorage, Modality="XA", **PATIENT)
        for run in runs
    ]


def digests(path: Path) -> list[bytes]:
    image = pixels.load(pixels.read(path))
    assert isinstance(image, pixels.Image)
    return [pixel_digest(frame) for frame in image]


def by_uid(folder: Path) -> dict[str, list[bytes]]:
    return {str(pixels.read(path).SOPInstanceUID): digests(path) for path in folder.iterdir()}


def test_photographs_and_angiograms_come_back_bit_for_bit(shared_data: Path, tmp_path: Path) -> None:
    if not (shared_data / "hrf").is_dir():
        pytest.skip("no fundus photographs beside the images")
    sent = tmp_path / "sent"
    sent.mkdir()
    for number, image in enumerate((*photographs(shared_data / "hrf"), *angiographies())):
        image.save_as(sent / f"{number}.dcm", enforce_file_format=True)
    files = sorted(sent.iterdir())
    with (
        peers.storescp(tmp_path / "pacs") as pacs,
        peers.node(tmp_path / "node", {"pacs": ("STORESCP", pacs.port)}, more=RULES) as node,
    ):
        peers.send(node.port, files, "-xe")
        peers.wait_until(lambda: len(pacs.files()) == len(files), 600, "all at storescp")

    judged = peers.dicom_node("verify", str(pacs.folder), "--keys", str(node.keys), "--json")
    instances = json.loads(judged.stdout)["instances"]
    assert [instance["finding"] for instance in instances] == ["authentic"] * len(files), judged.stdout
    used = {frame["segmenter"] for instance in instances for frame in instance["frames"]}
    assert used == {segmenter("vessels").id}

    expected, marked = by_uid(sent), by_uid(pacs.folder)
    assert all(marked[name] != expected[name] for name in expected)
    restored = tmp_path / "restored"
    done = peers.dicom_node("recover", str(pacs.folder), "--out", str(restored), "--keys", str(node.keys))
    assert done.returncode == 0, done.stdout + done.stderr
    assert by_uid(restored) == expected
