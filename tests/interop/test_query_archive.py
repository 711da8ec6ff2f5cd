"""An auditor asks Orthanc and DCMTK's archive: by C-GET, C-MOVE and DICOMweb, through the command line."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from benchmarks.stand import free_port
from tests import builders
from tests.interop.peers import (
    DICOMWEB_PLUGIN,
    ENVIRONMENT,
    Orthanc,
    dicom_node,
    listens,
    orthanc,
    process,
    storescp,
    wait_until,
)

pytestmark = pytest.mark.interop

WAYS = ("get", "move", "web")
NAME = "Müller^Jörg"


@dataclass(frozen=True)
class Archive:
    """An archive full of marked images, the originals, and a workstation that may ask it."""

    orthanc: Orthanc
    originals: Path
    marked: Path
    keys: Path
    config: Path
    study: str

    def query(self, action: str, way: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return dicom_node("query", action, "--config", str(self.config), "--peer", way, *arguments)


def original(number: int) -> Dataset:
    """A CT of one study in two series, with room for a record."""
    return builders.ct(
        256,
        256,
        seed=number,
        SpecificCharacterSet="ISO_IR 100",
        PatientName=NAME,
        PatientID="P-1",
        StudyDate="20240105",
        InstanceNumber=number + 1,
        SeriesInstanceUID=f"1.2.3.{number % 2}",
    )


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    folder = tmp_path_factory.mktemp("archive")
    originals, marked, keys = folder / "originals", folder / "marked", folder / "keyring"
    originals.mkdir()
    for number in range(8):
        (originals / f"{number}.dcm").write_bytes(builders.file_bytes(original(number)))
    assert dicom_node("keys", "new", "--keys", str(keys)).returncode == 0
    done = dicom_node("protect", str(originals), "--out", str(marked), "--keys", str(keys))
    assert done.returncode == 0, done.stderr
    move_port = free_port()
    with orthanc(
        folder / "orthanc",
        DicomModalities={"auditor": ["AUDITOR", "127.0.0.1", move_port]},
        DicomAlwaysAllowFind=True,
        DicomAlwaysAllowGet=True,
        DicomAlwaysAllowMove=True,
        Plugins=[str(DICOMWEB_PLUGIN)],
    ) as peer:
        for path in sorted(marked.iterdir()):
            peer.store(path.read_bytes())
        config = folder / "workstation.yaml"
        config.write_text(
            f"keys: {{ring: {keys}}}\n"
            f"query:\n  ae_title: AUDITOR\n  bind: 127.0.0.1\n  port: {move_port}\n  peers:\n"
            f"    get: {{ae_title: ORTHANC, host: 127.0.0.1, port: {peer.dicom_port}}}\n"
            f"    move: {{ae_title: ORTHANC, host: 127.0.0.1, port: {peer.dicom_port}, retrieve: move}}\n"
            f"    web: {{dicomweb: 'http://127.0.0.1:{peer.http_port}/dicom-web'}}\n"
        )
        study = str(dcmread(marked / "0.dcm").StudyInstanceUID)
        yield Archive(peer, originals, marked, keys, config, study)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_there_is_listed_the_same_by_every_way(archive: Archive, way: str) -> None:
    done = archive.query("list", way, "--patient-id", "P*", "--date", "20240101-20241231", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert (row["PatientName"], row["StudyInstanceUID"]) == (NAME, archive.study)
    assert row["NumberOfStudyRelatedInstances"] == "8"
    listed = archive.query("list", way, "--study", archive.study, "--level", "image", "--csv")
    rows = list(csv.DictReader(io.StringIO(listed.stdout)))
    assert {row["SOPClassUID"] for row in rows} == {"1.2.840.10008.5.1.4.1.1.2"}
    assert len({row["SOPInstanceUID"] for row in rows}) == 8


@pytest.mark.parametrize("way", WAYS)
def test_a_study_is_judged_with_one_command_and_recovered_with_another(
    archive: Archive, way: str, tmp_path: Path
) -> None:
    keys = ("--keys", str(archive.keys))
    judged = archive.query("verify", way, "--study", archive.study, *keys)
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert judged.stdout.splitlines()[-1] == "8 authentic"
    done = archive.query("recover", way, "--study", archive.study, "--out", str(tmp_path / "out"), *keys)
    assert done.returncode == 0, done.stderr
    recovered = {dcmread(path).SOPInstanceUID: path for path in (tmp_path / "out").iterdir()}
    for path in archive.originals.iterdir():
        again = dcmread(recovered[dcmread(path).SOPInstanceUID])
        assert again.PixelData == dcmread(path).PixelData


@pytest.mark.parametrize("way", WAYS)
def test_what_is_fetched_is_what_is_there_and_comes_once(archive: Archive, way: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = archive.query("fetch", way, "--patient-id", "P-1", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "8 fetched\n"
    marked = {dcmread(path).SOPInstanceUID: dcmread(path) for path in archive.marked.iterdir()}
    files = sorted(out.glob("*.dcm"))
    assert {dcmread(path).SOPInstanceUID for path in files} == set(marked)
    assert all(dcmread(path) == marked[dcmread(path).SOPInstanceUID] for path in files)
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-2])
    again = archive.query("fetch", way, "--patient-id", "P-1", "--out", str(out))
    assert again.stdout == "6 already there, 2 fetched\n", again.stderr
    assert len(sorted(out.glob("*.dcm"))) == 8


def test_an_address_is_enough(archive: Archive) -> None:
    """What the README shows: no configuration at all."""
    peer = f"ORTHANC@127.0.0.1:{archive.orthanc.dicom_port}"
    done = dicom_node(
        "query", "verify", "--peer", peer, "--study", archive.study, "--keys", str(archive.keys)
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "8 authentic"


def test_originals_are_sent_on(archive: Archive, tmp_path: Path) -> None:
    keys = ("--keys", str(archive.keys))
    with storescp(tmp_path / "scp") as receiver:
        to = f"STORESCP@127.0.0.1:{receiver.port}"
        done = archive.query("send", "get", "--study", archive.study, "--to", to, "--recover", *keys)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.splitlines()[-1] == "8 sent"
        received = {dcmread(path).SOPInstanceUID: dcmread(path) for path in receiver.files()}
    for path in archive.originals.iterdir():
        ds = dcmread(path)
        assert received[ds.SOPInstanceUID].PixelData == ds.PixelData


def test_an_archive_that_does_not_know_us_is_told_apart(archive: Archive, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    done = archive.query("fetch", "move", "--aet", "STRANGER", "--study", archive.study, "--out", out)
    assert done.returncode == 1
    assert done.stdout == "8 error\n"
    assert done.stderr.count("C-MOVE ended with status") == 8


# ---- DCMTK's archive ----


@contextlib.contextmanager
def dcmqrscp(folder: Path, move_port: int) -> Iterator[int]:
    """DCMTK's image archive, empty."""
    port = free_port()
    (folder / "db").mkdir(parents=True)
    settings = folder / "dcmqrscp.cfg"
    settings.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n\n"
        f"HostTable BEGIN\nauditor = (AUDITOR, 127.0.0.1, {move_port})\nHostTable END\n\n"
        "VendorTable BEGIN\nVendorTable END\n\n"
        f"AETable BEGIN\nDCMQR {folder / 'db'} RW (200, 1024mb) ANY\nAETable END\n"
    )
    with process("/usr/bin/dcmqrscp", "-c", settings, log=folder / "log.txt"):
        wait_until(lambda: listens(port), 20, "dcmqrscp listens")
        yield port


@pytest.mark.parametrize("way", ["get", "move"])
def test_dcmtk_is_asked_and_sends(archive: Archive, way: str, tmp_path: Path) -> None:
    move_port = free_port()
    with dcmqrscp(tmp_path / "qr", move_port) as port:
        command = ["/usr/bin/storescu", "-aec", "DCMQR", "127.0.0.1", str(port), "+sd", str(archive.marked)]
        subprocess.run(command, check=True, env=ENVIRONMENT, timeout=120)
        peer = ("--peer", f"DCMQR@127.0.0.1:{port}", "--aet", "AUDITOR", "--port", str(move_port))
        keys = ("--keys", str(archive.keys))
        done = dicom_node("query", "verify", *peer, "--retrieve", way, "--patient-id", "P-1", *keys)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.splitlines()[-1] == "8 authentic"


def test_pages_are_written_as_by_verify(archive: Archive, tmp_path: Path) -> None:
    pages, keys = tmp_path / "pages", ("--keys", str(archive.keys))
    done = archive.query(
        "verify", "get", "--study", archive.study, "--summary-only", "--html", str(pages), *keys
    )
    assert done.returncode == 0, done.stderr
    assert "open it in a browser" in done.stderr
    assert list(pages.glob("*.html"))
    assert done.stdout.splitlines()[-1] == "8 authentic"


_FETCH = """
import sys
from dicom_node import cli
code = cli.main(sys.argv[1:])
(peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("peak", peak)
raise SystemExit(code)
"""


@pytest.mark.parametrize("way", WAYS)
def test_an_object_of_a_hundred_megabytes_is_never_in_memory(
    archive: Archive, way: str, tmp_path: Path
) -> None:
    ds = builders.ct(16, 16, PatientID="LARGE", StudyInstanceUID="1.2.9", SeriesInstanceUID="1.2.9.1")
    ds.Rows = ds.Columns = 7168
    ds.PixelData = bytes(range(256)) * (7168 * 7168 * 2 // 256)
    content = builders.file_bytes(ds)
    name = archive.orthanc.store(content)
    command = ["query", "fetch", "--config", str(archive.config), "--peer", way, "--study", "1.2.9"]
    done = subprocess.run(
        [sys.executable, "-c", _FETCH, *command, "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    archive.orthanc.remove(name)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "out").glob("*.dcm")
    assert dcmread(path).PixelData == ds.PixelData
    kilobytes = int(done.stdout.split()[-1])
    assert kilobytes < 130_000, f"{kilobytes} kB; the object has {len(content) // 1024}"
