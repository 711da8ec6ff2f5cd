"""The paper's own carrier between DCMTK peers: protected, forwarded, verified and recovered."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from blessmark import pixels
from tests.builders import file_bytes
from tests.integration.test_dct_carrier import angiogram, fundus
from tests.interop import peers

pytestmark = pytest.mark.interop

#: a real image of each kind that is at hand, and what storescu proposes for it
REAL = {
    "CT": ("ct_head/10.dcm", "-xe"),
    "CT, circular fill": ("ct_phantom/000245.dcm", "-xe"),
    "MR": ("mr_structural/N2D_0081.dcm", "-xe"),
    "US, grey cine": ("us/GREYSCALE_CINE.dcm", "-xe"),
    "US, colour": ("edge_cases/US-RGB-8-epicard-Banded-bigendian.dcm", "-xb"),
}
WATERMARK = "watermark: {carrier: dct, segmenter_rules: [{use: vessels, modality: [OP]}]}\n"


def samples_of(path: Path) -> np.ndarray:
    image = pixels.load(pixels.read(path))
    assert isinstance(image, pixels.Image)
    return np.stack([frame.samples for frame in image])


def by_uid(folder: Path) -> dict[str, Path]:
    return {str(pixels.read(path).SOPInstanceUID): path for path in folder.iterdir()}


def test_every_kind_of_image_comes_back_nearly(shared_data: Path, tmp_path: Path) -> None:
    sources = {name: shared_data / "dicom" / place for name, (place, _) in REAL.items()}
    for name, made in (("OP", fundus()), ("XA", angiogram())):
        sources[name] = tmp_path / f"{name}.dcm"
        sources[name].write_bytes(file_bytes(made))
    with (
        peers.storescp(tmp_path / "dcmtk") as dcmtk,
        peers.node(tmp_path / "node", {"dcmtk": ("STORESCP", dcmtk.port)}, more=WATERMARK) as node,
    ):
        for name, path in sources.items():
            peers.send(node.port, [path], REAL.get(name, ("", "-xe"))[1])
        peers.wait_until(lambda: len(dcmtk.files()) == len(sources), 240, "all at storescp")
    judged = {
        entry["source"]: entry
        for drawer in ("anatomy", "vessels")
        for entry in json.loads(
            peers.dicom_node(
                "verify", str(dcmtk.folder), "--keys", str(node.keys), "--segmenter", drawer, "--json"
            ).stdout
        )["instances"]
        if entry["finding"] == "authentic"
    }
    assert len(judged) == len(sources), "each is authentic by one of the two"
    framings = {frame["framing"] for entry in judged.values() for frame in entry["frames"]}
    assert framings <= {"blocks", "header"}, "what has no room for one bit a block travels in the header"
    assert "blocks" in framings
    for drawer in ("anatomy", "vessels"):
        restored = tmp_path / f"restored-{drawer}"
        peers.dicom_node(
            "recover",
            str(dcmtk.folder),
            "--out",
            str(restored),
            "--keys",
            str(node.keys),
            "--segmenter",
            drawer,
        )
        marked, back = by_uid(dcmtk.folder), by_uid(restored)
        assert back
        for path in sources.values():
            uid = str(pixels.read(path).SOPInstanceUID)
            if uid in back:
                original = samples_of(path)
                errors = [np.mean((samples_of(each[uid]) - original) ** 2.0) for each in (marked, back)]
                assert errors[1] <= errors[0]
