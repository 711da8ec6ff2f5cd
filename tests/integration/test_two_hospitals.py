"""Two nodes with an archive between them, as docs/receiver.md has it: what B's archive gets, and what not.

The archive is in this process and hands on what it holds; the nodes, their workers and ledgers are whole.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pynetdicom import AE
from pynetdicom.presentation import build_context

from benchmarks.stand import free_port
from blessmark import pixels
from dicom_node import cli, config, keys
from dicom_node.protect import written
from dicom_node.service import Service
from tests.architecture.repository import ROOT
from tests.builders import Encoding, dataset, file_bytes, mr, phantom
from tests.integration.test_privacy_routes import KO, study
from tests.integration.test_store_and_forward import Archive, data_set_of
from tests.waiting import wait_until

SC = uid.SecondaryCaptureImageStorage
CLASSES = (uid.MRImageStorage, KO, SC)
SYNTAXES = (uid.ExplicitVRLittleEndian, uid.JPEGLSLossless)


class Pacs(Archive):
    """An archive that takes what these tests send, and gives it back as files."""

    contexts = tuple(build_context(each, list(SYNTAXES)) for each in CLASSES)

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.files: dict[str, bytes] = {}

    def _store(self, event: Any) -> int:
        """Keeps the object by its SOP class: there is one of each here."""
        request = event.request
        meta = Dataset()
        meta.file_meta = FileMetaDataset()
        meta.SOPClassUID = meta.file_meta.MediaStorageSOPClassUID = request.AffectedSOPClassUID
        meta.SOPInstanceUID = meta.file_meta.MediaStorageSOPInstanceUID = request.AffectedSOPInstanceUID
        meta.file_meta.TransferSyntaxUID = event.context.transfer_syntax
        whole = file_bytes(meta)
        head = whole[: len(whole) - len(data_set_of(whole))]
        self.files[str(request.AffectedSOPClassUID)] = head + request.DataSet.getvalue()
        return super()._store(event)


def documented(number: int, folder: Path, ring: Path, port: int) -> Path:
    """The n-th configuration of the page as a file, with the places and ports of this machine."""
    blocks = re.findall(r"```yaml\n(node: .*?)```", (ROOT / "docs" / "receiver.md").read_text("utf-8"), re.S)
    text = blocks[number]
    for there, here in (
        ("/var/lib/dicom-node", str(folder / "state")),
        ("/etc/dicom-node/keyring", str(ring)),
        ("port: 11112}", f"port: {free_port()}, bind: 127.0.0.1}}"),
        ("pacs.example, port: 104}", f"127.0.0.1, port: {port}, retry: {{first_s: 0.2}}}}"),
        ("archive.example, port: 104}", f"127.0.0.1, port: {port}, retry: {{first_s: 0.2}}}}"),
    ):
        text = text.replace(there, here)
    folder.mkdir(exist_ok=True)
    path = folder / "node.yaml"
    path.write_text(text + "http: {port: null}\nworkers: {count: 1}\nnetworks: {engine: numpy}\n", "utf-8")
    return path


@contextlib.contextmanager
def running(path: Path) -> Iterator[Service]:
    service = Service(config.load(path))
    service.start()
    try:
        yield service
    finally:
        service.stop()


def send(service: Service, calling_ae: str, folder: Path, files: list[bytes]) -> None:
    folder.mkdir(exist_ok=True)
    association = AE(ae_title=calling_ae).associate(
        "127.0.0.1",
        service.receiver.port,
        contexts=[build_context(each, syntax) for each in CLASSES for syntax in SYNTAXES],
    )
    assert association.is_established
    for number, content in enumerate(files):
        path = folder / f"{number}.dcm"
        path.write_bytes(content)
        assert association.send_c_store(path).Status == 0x0000
    association.release()


@contextlib.contextmanager
def archives() -> Iterator[tuple[Pacs, Pacs]]:
    between, at_b = Pacs(free_port()).start(), Pacs(free_port()).start()
    try:
        yield between, at_b
    finally:
        between.stop()
        at_b.stop()


def altered(content: bytes, instance: str) -> bytes:
    """The same image with a patch of noise, as another instance."""
    ds = pixels.read(content)
    image = pixels.load(ds)
    assert isinstance(image, pixels.Image)
    samples = image.frame(1).samples.copy()
    samples[:, 100:116, 100:116] = np.random.default_rng(0).integers(0, 4096, (16, 16))
    pixels.store(ds, image, [samples])
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = instance
    return written(ds)


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What A's modality sends: SOP class -> file. A compressed image is among them."""
    compressed = dataset(phantom(256, 192, hi=3000), Encoding(syntax=uid.JPEGLSLossless), PatientID="P-1")
    return {**study(), str(SC): file_bytes(compressed)}


def test_b_gets_what_a_sent_and_nothing_that_was_changed_on_its_way(
    tmp_path: Path, sent: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    ring, copy = tmp_path / "ring-of-a", tmp_path / "ring-of-b"
    keys.generate(ring)
    shutil.copy2(ring, copy)
    keys.generate(ring)  # which nobody has told B
    with archives() as (between, at_b):
        with running(documented(0, tmp_path / "a", ring, between.port)) as node:
            send(node, "MR1", tmp_path / "modality", list(sent.values()))
            wait_until(lambda: len(between.data_sets) == len(sent))
        public = dict(between.files)
        assert not any(b"Phantom" in content for content in public.values())

        receiver = documented(1, tmp_path / "b", copy, at_b.port)
        note = pixels.read(public[str(KO)]).SOPInstanceUID
        unmarked = file_bytes(mr(64, 64, seed=9))
        tampered = altered(public[str(uid.MRImageStorage)], "2.25.4711")
        with running(receiver) as node:
            send(node, "PACS", tmp_path / "public", list(public.values()))
            wait_until(lambda: node.ledger.counts().instances["held"] == len(sent))
            assert node.ledger.verdicts() == {("from-public", "wrong-key"): len(sent)}
        assert at_b.data_sets == {}

        shutil.copy2(ring, copy)
        with running(receiver) as node:
            assert cli.main(["queue", "retry", "--held", "--config", str(receiver)]) == 0
            send(node, "PACS", tmp_path / "public", [tampered, unmarked])
            wait_until(lambda: len(at_b.data_sets) == len(sent))
            wait_until(lambda: node.ledger.counts().idle)
            assert node.ledger.verdicts() == {
                ("from-public", "authentic"): 3,
                ("from-public", "pixels-altered"): 1,
                ("from-public", "unmarked"): 1,
                ("from-public", "wrong-key"): 3,
            }
        _are_what_was_sent(at_b.files, sent)
        capsys.readouterr()
        assert cli.main(["queue", "list", "--state", "held", "--config", str(receiver)]) == 0
        listed = capsys.readouterr().out
        assert "pixels-altered" in listed
        assert "unmarked" in listed
        assert cli.main(["trace", str(note), "--config", str(receiver)]) == 0
        story = capsys.readouterr().out
        assert story.index("wrong-key") < story.index("resumed") < story.index("delivered")


def _are_what_was_sent(arrived: dict[str, bytes], sent: dict[str, bytes]) -> None:
    for sop_class in (uid.MRImageStorage, KO):
        assert data_set_of(arrived[str(sop_class)]) == data_set_of(sent[str(sop_class)])
    ours, theirs = (pixels.read(files[str(SC)]) for files in (arrived, sent))
    assert values(ours) == values(theirs)
    for one, other in zip(_image(ours), _image(theirs), strict=True):
        assert np.array_equal(one.samples, other.samples)


def values(ds: Dataset) -> dict[int, str]:
    """Every element but the pixels, by value."""
    return {int(element.tag): repr(element.value) for element in ds if element.tag != 0x7FE00010}


def _image(ds: Dataset) -> pixels.Image:
    image = pixels.load(ds)
    assert isinstance(image, pixels.Image)
    return image
