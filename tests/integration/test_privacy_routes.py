"""Out by a node that derives UIDs or de-identifies, back by one that recovers, byte for byte."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from pydicom import dcmread, uid
from pydicom.dataset import Dataset, FileMetaDataset
from pynetdicom.presentation import build_context

from benchmarks.stand import free_port
from dicom_node import keys
from dicom_node.config import Config
from dicom_node.service import Service
from tests.builders import file_bytes, mr
from tests.integration.test_store_and_forward import Archive, data_set_of
from tests.integration.test_store_and_forward import send as send_files
from tests.waiting import wait_until

KO = uid.KeyObjectSelectionDocumentStorage
SYNTAXES = [uid.ExplicitVRLittleEndian]


def config(folder: Path, ring: Path, route: dict[str, object], port: int) -> Config:
    return Config.model_validate(
        {
            "node": {"id": "n", "ae_title": "NODE", "bind": "127.0.0.1", "port": free_port()},
            "storage": {"folder": folder, "reserve_mb": 16},
            "keys": {"ring": ring},
            "workers": {"count": 1},
            "networks": {"engine": "numpy"},
            "destinations": {"out": {"ae_title": "OUT", "host": "127.0.0.1", "port": port}},
            "routes": ({"name": "all", "destinations": ("out",), **route},),
            "http": {"port": None},
        },
        strict=False,
    )


def study() -> dict[str, bytes]:
    """An image and a key object note that refers to it: SOP class -> file."""
    image = mr(256, 192, PatientName="Phantom^Test", PatientID="P-1")
    note = mr(8, 8, PatientName="Phantom^Test", PatientID="P-1", SOPClassUID=KO)
    for keyword in ("PixelData", "BitsAllocated"):
        delattr(note, keyword)
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = (
        image.SOPClassUID,
        image.SOPInstanceUID,
    )
    series = Dataset()
    series.SeriesInstanceUID, series.ReferencedSOPSequence = image.SeriesInstanceUID, [reference]
    evidence = Dataset()
    evidence.StudyInstanceUID, evidence.ReferencedSeriesSequence = image.StudyInstanceUID, [series]
    note.CurrentRequestedProcedureEvidenceSequence = [evidence]
    return {ds.SOPClassUID: file_bytes(ds) for ds in (image, note)}


class Keeper(Archive):
    """An archive for the classes of `study`."""

    contexts = tuple(build_context(each, SYNTAXES) for each in (uid.MRImageStorage, KO))


def send(service: Service, folder: Path, files: list[bytes]) -> None:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number}.dcm" for number in range(len(files))]
    for path, content in zip(paths, files, strict=True):
        path.write_bytes(content)
    assert set(send_files(service, paths, *Keeper.contexts)) == {0x0000}


def as_file(data_set: bytes, sop_class: str, instance: str) -> bytes:
    """What an archive would give back."""
    meta = Dataset()
    meta.file_meta = FileMetaDataset()
    meta.file_meta.MediaStorageSOPClassUID, meta.file_meta.MediaStorageSOPInstanceUID = sop_class, instance
    meta.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    meta.SOPClassUID, meta.SOPInstanceUID = sop_class, instance
    whole = file_bytes(meta)
    return whole[: len(whole) - len(data_set_of(whole))] + data_set


@pytest.mark.parametrize("rewriting", [{"uids": "derive"}, {"deidentify": {"profile": "basic"}}])
def test_out_and_back(tmp_path, rewriting):
    ring = tmp_path / "keyring"
    keys.generate(ring)
    files = study()
    outside, home = Keeper(free_port()).start(), Keeper(free_port()).start()
    node = Service(config(tmp_path / "a", ring, {"role": "protect", **rewriting}, outside.port))
    node.start()
    try:
        for _ in range(2):
            send(node, tmp_path / "sent", list(files.values()))
        wait_until(lambda: len(outside.data_sets) == 2)
    finally:
        node.stop()
    arrived = {
        str(ds.SOPClassUID): ds
        for ds in (dcmread(io.BytesIO(raw), force=True) for raw in outside.data_sets.values())
    }
    assert {str(ds.SOPInstanceUID) for ds in arrived.values()} == set(outside.data_sets)
    image, note = arrived[uid.MRImageStorage], arrived[KO]
    (series,) = note.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID
    assert series.SeriesInstanceUID == image.SeriesInstanceUID
    assert image.SOPInstanceUID not in files[uid.MRImageStorage].decode("latin-1")
    if "deidentify" in rewriting:
        assert not any(b"Phantom" in raw for raw in outside.data_sets.values())

    node = Service(config(tmp_path / "b", ring, {"role": "recover"}, home.port))
    node.start()
    try:
        send_back = [
            as_file(outside.data_sets[str(ds.SOPInstanceUID)], sop_class, str(ds.SOPInstanceUID))
            for sop_class, ds in arrived.items()
        ]
        send(node, tmp_path / "back", send_back)
        wait_until(lambda: len(home.data_sets) == 2)
    finally:
        node.stop()
    originals = {
        str(dcmread(io.BytesIO(content)).SOPInstanceUID): data_set_of(content) for content in files.values()
    }
    assert home.data_sets == originals
    outside.stop()
    home.stop()
