"""OP and XA through a whole node: sent, marked by `vessels`, stored, judged, restored bit for bit."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context

from benchmarks.stand import free_port
from blessmark import pixels
from blessmark.segment import segmenter
from dicom_node.config import Config
from dicom_node.keys import FileKeyRing, generate
from dicom_node.metrics import NetworkRun
from dicom_node.review import reader_of, recover, review
from dicom_node.service import Service
from tests.builders import COLOUR_8, GREY_8, dataset
from tests.phantoms import angiogram, fundus
from tests.waiting import wait_until

VESSELS = segmenter("vessels").id
PATIENT = {"PatientName": "Phantom^Test", "PatientID": "P-1", "StudyDate": "20260921"}
RULES = ({"use": "vessels", "modality": ("OP", "XA")},)


def photograph(seed: int = 0) -> Dataset:
    """A colour photograph of a retina: the blood absorbs green."""
    green = fundus((384, 512), seed)
    planes = np.stack([np.minimum(green * 3 // 2, 255), green, green // 3])
    return dataset(
        planes[None],
        COLOUR_8,
        SOPClassUID=uid.OphthalmicPhotography8BitImageStorage,
        Modality="OP",
        **PATIENT,
    )


def angiography(frames: int = 6) -> Dataset:
    """A run of an angiogram, the vessels wandering from frame to frame."""
    planes = np.stack([angiogram((256, 256), seed) for seed in range(frames)])
    return dataset(
        planes[:, None], GREY_8, SOPClassUID=uid.XRayAngiographicImageStorage, Modality="XA", **PATIENT
    )


def samples_of(ds: Dataset) -> np.ndarray:
    image = pixels.load(ds)
    assert isinstance(image, pixels.Image)
    return np.stack([frame.samples for frame in image])


@contextlib.contextmanager
def archive() -> Iterator[tuple[int, dict[str, Dataset]]]:
    """A storage SCP; its port, and what it has by SOP Instance UID."""
    kept: dict[str, Dataset] = {}

    def store(event: Any) -> int:
        kept[str(event.request.AffectedSOPInstanceUID)] = dcmread(io.BytesIO(event.encoded_dataset()))
        return 0x0000

    entity = AE(ae_title="ARCHIVE")
    entity.supported_contexts = [
        build_context(syntax, [uid.ExplicitVRLittleEndian])
        for syntax in (uid.OphthalmicPhotography8BitImageStorage, uid.XRayAngiographicImageStorage)
    ]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    assert server is not None
    try:
        yield int(server.server_address[1]), kept
    finally:
        server.shutdown()


def config(folder: Path, port: int, **networks: Any) -> Config:
    generate(folder / "ring")
    return Config.model_validate(
        {
            "node": {"id": "n", "ae_title": "NODE", "bind": "127.0.0.1", "port": free_port()},
            "storage": {"folder": folder / "state", "reserve_mb": 16},
            "keys": {"ring": folder / "ring"},
            "watermark": {"segmenter_rules": RULES},
            "networks": networks,
            "workers": {"count": 1},
            "destinations": {"pacs": {"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": port}},
            "routes": ({"name": "all", "role": "protect", "destinations": ("pacs",)},),
            "http": {"port": None},
        },
        strict=False,
    )


@contextlib.contextmanager
def node(made: Config) -> Iterator[Service]:
    service = Service(made)
    service.start()
    try:
        yield service
    finally:
        service.stop()


def send(service: Service, *images: Dataset) -> None:
    entity = AE(ae_title="MODALITY")
    contexts = [build_context(image.SOPClassUID, uid.ExplicitVRLittleEndian) for image in images]
    association = entity.associate("127.0.0.1", service.receiver.port, contexts=contexts)
    assert association.is_established
    try:
        assert [int(association.send_c_store(image).Status) for image in images] == [0x0000] * len(images)
    finally:
        association.release()


def test_there_and_back_by_vessels_on_tensorflow(tmp_path: Path) -> None:
    images = [photograph(), angiography()]
    originals = {str(image.SOPInstanceUID): samples_of(image) for image in images}
    with archive() as (port, kept):
        made = config(tmp_path, port)
        with node(made) as service:
            assert service.workers.networks == ()
            send(service, *images)
            wait_until(lambda: len(kept) == len(images))
            assert service.workers.networks == (NetworkRun(VESSELS, "tensorflow", "ok"),)

    reader = reader_of(made, FileKeyRing.load(made.keys.ring))
    for name, received in kept.items():
        assert not np.array_equal(samples_of(received), originals[name])
        found = review(received, name, reader)
        assert found.finding == "authentic"
        assert {frame.segmenter for frame in found.report.frames} == {VESSELS}
        assert recover(received, name, reader).restored
        assert np.array_equal(samples_of(received), originals[name])


@pytest.mark.skipif(find_spec("torch") is not None, reason="torch is installed")
def test_an_engine_that_is_missing_costs_time_and_nothing_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    original = photograph(1)
    before = samples_of(original)
    with archive() as (port, kept):
        made = config(tmp_path, port, engine="torch")
        with node(made) as service:
            send(service, original)
            wait_until(lambda: kept)
            # told through a pipe that is looked at a few times a second
            wait_until(lambda: service.workers.networks)
            assert service.workers.networks == (NetworkRun(VESSELS, "numpy", "not-installed"),)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "network-started" in line]
    assert " warning network-started " in line
    assert "engine=numpy reason=not-installed" in line

    (received,) = kept.values()
    reader = reader_of(made, FileKeyRing.load(made.keys.ring))
    assert recover(received, "x", reader).finding == "authentic"
    assert np.array_equal(samples_of(received), before)
