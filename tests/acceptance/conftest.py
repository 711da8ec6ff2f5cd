"""The installed command, a folder of good files and a folder of bad ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import builders

COMMAND = Path(sys.executable).with_name("dicom-node")

Run = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Site:
    """What the tests of this folder read and never write."""

    keys: Path
    images: (
        Path  #: originals: a CT without extension, a cine below a folder, a report, a DICOMDIR, a hidden file
    )
    marked: Path  #: what `protect` made of them
    said: subprocess.CompletedProcess[str]  #: what it said


def run(*arguments: str | Path, keys: Path | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the installed `dicom-node`."""
    environment = dict(os.environ)
    environment.pop("DICOM_NODE_KEYS", None)
    if keys is not None:
        environment["DICOM_NODE_KEYS"] = str(keys)
    command = [str(COMMAND), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env=environment, **options
    )


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    keys, images, marked = folder / "keyring", folder / "images", folder / "marked"
    assert run("keys", "new", "--keys", keys).returncode == 0
    write(images / "ct", builders.ct(256, 256, PatientName="Synthetic^Person", PatientID="0000"))
    write(images / "below" / "cine.dcm", builders.us(256, 256))
    write(images / "report.dcm", report())
    write(images / "DICOMDIR", dicomdir())
    (images / ".thumbnail").write_bytes(b"not DICOM at all")
    return Site(keys, images, marked, run("protect", images, "--out", marked, keys=keys))


def write(path: Path, ds: builders.Dataset) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(builders.file_bytes(ds))
    return path


def report() -> builders.Dataset:
    """A structured report: an instance without pixels."""
    ds = builders.ct(16, 16, seed=1)
    for tag in [item.tag for item in ds if item.tag.group == 0x0028 or item.tag == builders.PIXEL_DATA]:
        del ds[tag]
    ds.Modality, ds.SOPClassUID = "SR", "1.2.840.10008.5.1.4.1.1.88.11"
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    return ds


def dicomdir() -> builders.Dataset:
    """An index of files, as at the root of a CD."""
    ds = builders.Dataset()
    ds.file_meta = builders.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    ds.file_meta.MediaStorageSOPInstanceUID = builders.synthetic_uid("dicomdir")
    ds.FileSetID = "SYNTHETIC"
    ds.DirectoryRecordSequence = []
    return ds


def names(folder: Path) -> set[str]:
    """Every file below `folder`, hidden ones included."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
