"""Every attack of the benchmark on tampering, carried out on images in an Orthanc, ends in its verdict."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import tampering
from blessmark import pixels
from blessmark.types import Finding
from dicom_node.keys import FileKeyRing
from tests import builders
from tests.interop.peers import dicom_node, orthanc

pytestmark = pytest.mark.interop

#: one image for each attack, because an archive holds one object under one UID
IMAGES = 14


def original(folder: Path, number: int) -> Path:
    path = folder / f"{number}.dcm"
    ds = builders.ct(
        256, 256, seed=number, PatientName="Attack^Target", PatientID="A-1", StudyDate="20240105"
    )
    path.write_bytes(builders.file_bytes(ds))
    return path


def attacked(folder: Path) -> dict[str, tuple[str, Finding, bytes]]:
    """SOP Instance UID -> attack, what the engine makes of it, and the object."""
    made: dict[str, tuple[str, Finding, bytes]] = {}
    other = tampering._marked(original(folder, 1000))
    for number in range(IMAGES):
        path = original(folder, number)
        first = tampering._marked(path)
        assert first is not None
        attacks = list(tampering._attacks(first, other, np.random.default_rng(number)))
        assert len(attacks) == IMAGES, [attack.name for attack in attacks]
        attack = attacks[number]
        ds = pixels.read(path)
        image = pixels.load(ds)
        assert isinstance(image, pixels.Image)
        pixels.store(ds, image, iter([attack.samples]))
        finding = tampering._verdict(first, attack.samples).finding
        made[str(ds.SOPInstanceUID)] = (attack.name, finding, b"".join(map(bytes, pixels.parts(ds))))
    return made


def test_every_attack_is_found_through_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = tmp_path / "keyring"
    assert dicom_node("keys", "new", "--keys", str(keys)).returncode == 0
    monkeypatch.setattr(tampering, "RING", FileKeyRing.load(keys))
    held = attacked(tmp_path)
    with orthanc(tmp_path / "orthanc", DicomAlwaysAllowFind=True, DicomAlwaysAllowGet=True) as archive:
        for _, _, content in held.values():
            archive.store(content)
        peer = f"ORTHANC@127.0.0.1:{archive.dicom_port}"
        done = dicom_node(
            "query", "verify", "--peer", peer, "--patient-id", "A-1", "--keys", str(keys), "--json"
        )
    assert done.returncode == 3, done.stderr
    document = json.loads(done.stdout)
    assert document["errors"] == []
    found = {each["source"].removeprefix("ORTHANC:"): each["finding"] for each in document["instances"]}
    assert {held[uid][0]: finding for uid, finding in found.items()} == {
        name: str(finding) for name, finding, _ in held.values()
    }
    authentic = {held[uid][0] for uid, finding in found.items() if finding == "authentic"}
    # the tile of another image is the same air here as there, or it is found
    assert {"none"} <= authentic <= {"none", "a tile of another marked image"}
