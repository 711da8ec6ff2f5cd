"""Media for tests: an index of files that says whatever a test wants, and archives."""

from __future__ import annotations

import gc
import io
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.fileset import FileSet

from tests import builders

INDEX_CLASS = "1.2.840.10008.1.3.10"


def dicomdir(
    names: Iterable[str], *, syntax: str = "1.2.840.10008.1.2.1", unused: Iterable[str] = ()
) -> bytes:
    """An index that lists files by the names given, components separated by backslashes."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID = INDEX_CLASS
    ds.file_meta.MediaStorageSOPInstanceUID = builders.synthetic_uid("dicomdir")
    ds.FileSetID = "SYNTHETIC"
    patient = Dataset()
    patient.DirectoryRecordType, patient.PatientName = "PATIENT", "Synthetic^Person"
    gone = [_record(name, 0) for name in unused]
    ds.DirectoryRecordSequence = [patient, *gone, *(_record(name, 0xFFFF) for name in names)]
    return builders.file_bytes(ds)


def _record(name: str, in_use: int) -> Dataset:
    record = Dataset()
    record.RecordInUseFlag, record.DirectoryRecordType = in_use, "IMAGE"
    record.add_new(0x00041500, "UN", name.encode("utf-8", "surrogateescape"))
    return record


def disc(folder: Path, instances: Iterable[Dataset]) -> Path:
    """A medium with its index, as pydicom writes it."""
    fileset = FileSet()
    for ds in instances:
        fileset.add(ds)
    fileset.write(folder)
    with warnings.catch_warnings():  # the set has a folder of its own that only its end cleans up
        warnings.simplefilter("ignore", ResourceWarning)
        del fileset
        gc.collect()
    return folder


def archive(path: Path, members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip with these members, their names as they are."""
    with zipfile.ZipFile(path, "w", method) as target:
        for name, content in members.items():
            target.writestr(zipfile.ZipInfo(name), content, method)
    return path


def zipped(members: Mapping[str, bytes]) -> bytes:
    """The content of a zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for name, content in members.items():
            target.writestr(name, content)
    return buffer.getvalue()
