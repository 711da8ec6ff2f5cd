"""Nodes with the paper's own carrier: protected, forwarded, verified and recovered over the network."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.transport import ThreadedAssociationServer

from benchmarks.stand import free_port
from blessmark import pixels
from blessmark.segment import segmenter
from dicom_node import keys
from dicom_node.config import Config
from dicom_node.review import Reader, review
from dicom_node.service import Service
from tests.builders import COLOUR_8, GREY_8, ct, dataset, phantom, reread, us
from tests.waiting import wait_until

PATIENT = {"PatientName": "Phantom^Test", "PatientID": "P-1", "StudyDate": "20260921"}


def fundus() -> Dataset:
    """A colour photograph of a retina: a bright disc with dark vessels in a black surround."""
    rows, cols = 390, 584
    y, x = np.ogrid[-1 : 1 : rows * 1j, -1.5 : 1.5 : cols * 1j]
    noise = np.random.default_rng(1).normal(0, 1.2, (1, 3, rows, cols))
    level = np.array([150, 90, 50])[None, :, None, None] * (1 - 0.25 * (x**2 + y**2))
    vessel = np.abs(y - 0.5 * np.sin(2.5 * x)) < 0.02
    samples = np.where(x**2 + y**2 < 0.95, level * np.where(vessel, 0.6, 1) + noise, 0)
    return dataset(
        np.clip(samples, 0, 255).astype(np.int32),
        COLOUR_8,
        Modality="OP",
        SOPClassUID=uid.OphthalmicPhotography8BitImageStorage,
        **PATIENT,
    )


def angiogram() -> Dataset:
    """Two frames of contrast medium on a collimated field."""
    samples = phantom(512, 512, frames=2, hi=255)
    return dataset(samples, GREY_8, Modality="XA", SOPClassUID=uid.XRayAngiographicImageStorage, **PATIENT)


IMAGES = {
    "OP": fundus,
    "XA": angiogram,
    "CT": lambda: ct(640, 640, **PATIENT),
    "US": lambda: us(300, 420, frames=2, SequenceOfUltrasoundRegions=[], **PATIENT),
}


class Archive:
    """A storage SCP in this process that keeps whole data sets."""

    def __init__(self) -> None:
        self.port = free_port()
        self.kept: dict[str, Dataset] = {}

    def start(self) -> Any:
        entity = AE(ae_title="ARCHIVE")
        for made in IMAGES.values():
            entity.add_supported_context(made().SOPClassUID, [uid.ExplicitVRLittleEndian])
        server = entity.make_server(
            ("127.0.0.1", self.port),
            server_class=ThreadedAssociationServer,
            contexts=entity.supported_contexts,
            evt_handlers=[(evt.EVT_C_STORE, self._store)],
        )
        entity._servers.append(server)
        import threading

        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def _store(self, event: Any) -> int:
        buffer = io.BytesIO()
        event.dataset.file_meta = event.file_meta
        event.dataset.save_as(buffer, enforce_file_format=True)
        self.kept[str(event.request.AffectedSOPInstanceUID)] = dcmread(io.BytesIO(buffer.getvalue()))
        return 0x0000


def config(folder: Path, ring: Path, role: str, destinations: dict[str, int]) -> Config:
    folder.mkdir()
    return Config.model_validate(
        {
            "node": {"id": "n", "ae_title": "NODE", "bind": "127.0.0.1", "port": free_port()},
            "storage": {"folder": folder, "reserve_mb": 16},
            "keys": {"ring": ring},
            "watermark": {
                "carrier": "dct",
                "segmenter_rules": [{"use": "vessels", "modality": ["OP"]}],
            },
            "workers": {"count": 1},
            "destinations": {
                name: {"ae_title": name.upper(), "host": "127.0.0.1", "port": port, "retry": {"first_s": 0.2}}
                for name, port in destinations.items()
            },
            "routes": ({"name": "all", "role": role, "destinations": tuple(destinations)},),
            "http": {"port": None},
        },
        strict=False,
    )


@contextlib.contextmanager
def running(made: Config) -> Iterator[Service]:
    service = Service(made)
    service.start()
    try:
        yield service
    finally:
        service.stop()


def send(port: int, images: list[Dataset]) -> None:
    entity = AE(ae_title="MODALITY")
    for ds in images:
        entity.add_requested_context(ds.SOPClassUID, [uid.ExplicitVRLittleEndian])
    association = entity.associate("127.0.0.1", port)
    assert association.is_established
    assert [association.send_c_store(ds).Status for ds in images] == [0] * len(images)
    association.release()


def samples_of(ds: Dataset) -> np.ndarray:
    image = pixels.load(ds)
    assert isinstance(image, pixels.Image)
    return np.stack([frame.samples for frame in image])


@pytest.fixture(scope="module")
def arrived(tmp_path_factory) -> tuple[dict[str, Dataset], dict[str, Dataset], Path]:
    """What an archive holds behind a protecting node, and behind a recovering one after that."""
    folder = tmp_path_factory.mktemp("dct")
    ring = folder / "keyring"
    keys.generate(ring)
    marked, restored = Archive(), Archive()
    servers = [marked.start(), restored.start()]
    back = config(folder / "back", ring, "recover", {"archive": restored.port})
    forth = config(folder / "forth", ring, "protect", {"pacs": marked.port, "back": back.node.port})
    with running(back), running(forth):
        send(forth.node.port, [reread(made()) for made in IMAGES.values()])
        wait_until(lambda: len(restored.kept) == len(marked.kept) == len(IMAGES))
    for server in servers:
        server.shutdown()
        server.server_close()
    return marked.kept, restored.kept, ring


@pytest.mark.parametrize("modality", IMAGES)
def test_is_authentic_at_the_archive(arrived, modality):
    marked, _, ring = arrived
    reader = Reader(keys.FileKeyRing.load(ring), (segmenter("anatomy"), segmenter("vessels")))
    found = review(marked[str(IMAGES[modality]().SOPInstanceUID)], modality, reader)
    assert found.report.finding == "authentic"
    assert {frame.framing for frame in found.report.frames} == {"blocks"}
    assert {frame.restoration for frame in found.report.frames} == {"approximate"}


def errors_of(arrived, modality: str) -> tuple[float, float]:
    """Mean squared error against the original, of what the archive holds and of what came back from it."""
    marked, restored, _ = arrived
    original = reread(IMAGES[modality]())
    name = str(original.SOPInstanceUID)
    before, there, back = (samples_of(each) for each in (original, marked[name], restored[name]))
    return float(np.mean((there - before) ** 2)), float(np.mean((back - before) ** 2))


def test_comes_back_nearer_than_it_was(arrived):
    # keys are new each time, and which blocks of one image carry which bits: one may be unlucky
    errors = [errors_of(arrived, modality) for modality in IMAGES]
    assert np.mean([back / there for there, back in errors]) < 1


@pytest.mark.parametrize("modality", IMAGES)
def test_comes_back_nearly_and_says_so(arrived, modality):
    _, restored, _ = arrived
    there, back = errors_of(arrived, modality)
    assert 0 < back < 2 * there
    name = str(IMAGES[modality]().SOPInstanceUID)
    assert "approximately" in restored[name].DerivationDescription
    assert str(restored[name].PatientName) == PATIENT["PatientName"]
