"""Modality -> node -> PACS -> verify -> recover, with DCMTK and Orthanc at either end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blessmark import pixels
from blessmark.payload.record import pixel_digest
from tests.interop import peers

pytestmark = pytest.mark.interop

#: what is sent, and the option that makes storescu propose its transfer syntax
IMAGES = {
    "CT, padded, two-level air": ("ct_head/10.dcm", "-xe"),
    "CT, circular fill": ("ct_phantom/000245.dcm", "-xe"),
    "MR": ("mr_structural/N2D_0081.dcm", "-xe"),
    "MR, little NROI": ("mr_sagittal/0097-*.dcm", "-xe"),
    "enhanced MR, 176 frames": ("mr_enhanced/philips_mprage.dcm", "-xe"),
    "CR": ("cr/RG3_UNCR.dcm", "-xe"),
    "CR, nothing outside the patient": ("cr/RG1_UNCR.dcm", "-xe"),
    "DX": ("dx/cat.dcm", "-xe"),
    "US, grey cine": ("us/GREYSCALE_CINE.dcm", "-xe"),
    "US, colour cine, JPEG baseline": ("us/color3d_jpeg_baseline.dcm", "-xy"),
    "SC, RGB": ("transfer_syntaxes/LittleEndianExplicit/SC_rgb_16bit.dcm", "-xe"),
    "US, big endian, banded": ("edge_cases/US-RGB-8-epicard-Banded-bigendian.dcm", "-xb"),
    "CT, JPEG lossless": ("edge_cases/CT-JPEGLosslessSV1.dcm", "-xs"),
    "MR, RLE": ("transfer_syntaxes/RLELossless/MR_small_RLE.dcm", "-xr"),
}


def _digests(path: Path) -> list[bytes]:
    image = pixels.load(pixels.read(path))
    assert isinstance(image, pixels.Image)
    return [pixel_digest(frame) for frame in image]


def _source(shared_data: Path, pattern: str) -> Path:
    return next((shared_data / "dicom").glob(pattern))


def test_every_kind_of_image_comes_back_bit_for_bit(shared_data: Path, tmp_path: Path) -> None:
    """Sent by storescu, watermarked, stored by storescp and Orthanc, verified, recovered: equal by hash."""
    sources = {name: _source(shared_data, pattern) for name, (pattern, _) in IMAGES.items()}
    with (
        peers.storescp(tmp_path / "dcmtk") as dcmtk,
        peers.orthanc(tmp_path / "orthanc") as archive,
        peers.node(
            tmp_path / "node", {"dcmtk": ("STORESCP", dcmtk.port), "orthanc": ("ORTHANC", archive.dicom_port)}
        ) as node,
    ):
        for name, (_, option) in IMAGES.items():
            peers.send(node.port, [sources[name]], option)
        peers.wait_until(lambda: len(dcmtk.files()) == len(IMAGES), 240, "all at storescp")
        peers.wait_until(lambda: len(archive.instances()) == len(IMAGES), 240, "all at Orthanc")
        at_orthanc = tmp_path / "from-orthanc"
        at_orthanc.mkdir()
        for instance in archive.instances():
            (at_orthanc / f"{instance}.dcm").write_bytes(archive.file(instance))

    expected = {_uid(path): _digests(path) for path in sources.values()}
    for folder in (dcmtk.folder, at_orthanc):
        judged = peers.dicom_node("verify", str(folder), "--keys", str(node.keys), "--json")
        findings = [entry["finding"] for entry in json.loads(judged.stdout)["instances"]]
        assert findings == ["authentic"] * len(IMAGES), judged.stdout
        assert judged.returncode == 0
        assert any(_digests(path) != expected[_uid(path)] for path in folder.iterdir())

        restored = tmp_path / f"restored-{folder.name}"
        done = peers.dicom_node("recover", str(folder), "--out", str(restored), "--keys", str(node.keys))
        assert done.returncode == 0, done.stdout + done.stderr
        assert {_uid(path): _digests(path) for path in restored.iterdir()} == expected


def _uid(path: Path) -> str:
    return str(pixels.read(path).SOPInstanceUID)


def test_what_is_no_image_passes_byte_for_byte(shared_data: Path, tmp_path: Path) -> None:
    """Presentation states arrive with exactly the bytes that storescu sends to a storescp without a node."""
    sources = [shared_data / "dicom" / "edge_cases" / name for name in ("prLUTs.dcm", "prOverlay.dcm")]
    with (
        peers.storescp(tmp_path / "direct") as direct,
        peers.storescp(tmp_path / "dcmtk") as dcmtk,
        peers.node(tmp_path / "node", {"dcmtk": ("STORESCP", dcmtk.port)}) as node,
    ):
        for port in (direct.port, node.port):
            peers.send(port, sources, "-xe")
        peers.wait_until(lambda: len(dcmtk.files()) == len(sources), 60, "all at storescp")
        assert {_data_set(path) for path in dcmtk.files()} == {_data_set(path) for path in direct.files()}
    for path in sources:
        story = peers.dicom_node("trace", _uid(path), "--config", str(node.folder / "node.yaml"))
        assert "no-pixel-data" in story.stdout, story.stdout + story.stderr


def _data_set(path: Path) -> bytes:
    """Everything behind the file meta information (PS3.10 section 7.1)."""
    content = path.read_bytes()
    length = int.from_bytes(content[140:144], "little")
    return content[144 + length :]
