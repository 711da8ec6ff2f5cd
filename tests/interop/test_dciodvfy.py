"""`dciodvfy -new` finds nothing in what leaves that it did not find in what came, on any route."""

from __future__ import annotations

import re
import subprocess
import tempfile
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import uid

from benchmarks.images import RING, dicom_files
from benchmarks.journeys import public_files
from benchmarks.run import spread
from blessmark import pixels
from blessmark.errors import WatermarkError
from blessmark.payload.record import FULL_FIELDS
from blessmark.segment import segmenter
from dicom_node.config import Deidentify, Profile, Uids
from dicom_node.errors import NodeError
from dicom_node.protect import Site, protect, written

pytestmark = [pytest.mark.interop, pytest.mark.slow]

#: what the private creator and the private coding scheme bring with them
_MEANT = re.compile(r'"DICOM-NODE"|<99DNODE>')
#: what the profile asks for although an IOD does not: emptied keys of a DICOMDIR, who answers for an animal,
#: patient attributes in objects without patient; and UIDs that were equal before they were derived
_OF_THE_PROFILE = re.compile(
    r"needed to build DICOMDIR|<99DNODE>|ResponsiblePerson|ResponsibleOrganization|has same value as"
    r"|ReasonForRequestedProcedureCodeSequence"
    r"|(PatientIdentityRemoved|Deidentification)[^>]*> - Attribute is not"
    r"|/CodeValue|/CodingSchemeDesignator\(0008,0102\)> - Attribute is not|/CodeMeaning"
)

#: the UID of an original that was malformed, told again where the source image is named
_OF_THE_SOURCE = re.compile(r"SourceImage.*(Illegal root|Value invalid for this VR \[UI\])")


def site(route: str) -> Site:
    plain = Site("test", RING, segmenter("anatomy"), FULL_FIELDS)
    if route == "derived":
        return replace(plain, uids=Uids.DERIVE)
    return replace(plain, deidentify=Deidentify(profile=Profile.BASIC)) if route == "de-identified" else plain


def findings(path: Path) -> Counter[str]:
    """Errors and warnings; the values of UIDs and offsets, which differ rightly, folded."""
    done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, check=False, timeout=120)
    lines = (done.stderr + done.stdout).decode("latin-1").splitlines()
    kept = (line.strip() for line in lines if line.startswith(("Error", "Warning")))
    return Counter(re.sub(r"0x[0-9a-f]{5,}|<<?[0-9.]+>>?|\b\d+(\.\d+){3,}\b", "#", line) for line in kept)


def new_findings(task: tuple[Path, str]) -> tuple[str, bool, list[str]]:
    """Name, whether the file left changed, and what dciodvfy says of the output alone."""
    path, route = task
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        try:
            ds = pixels.read(path)
            # dciodvfy does not inflate: it reads noise
            deflated = ds.file_meta.get("TransferSyntaxUID") == uid.DeflatedExplicitVRLittleEndian
            if deflated or not protect(ds, site(route), 1_790_000_000).changed:
                return path.name, False, []
            sent = Path(folder, "sent.dcm")
            sent.write_bytes(written(ds))
        except (WatermarkError, NodeError):
            return path.name, False, []
        new = findings(sent) - findings(path)
    told = [line for line in new if not _MEANT.search(line)]
    if route == "derived":
        told = [line for line in told if not _OF_THE_SOURCE.search(line)]
    if route == "de-identified":
        told = [line for line in told if not _OF_THE_PROFILE.search(line)]
    return path.name, True, told


def judged(files: list[Path], route: str) -> None:
    results = spread(new_findings, [(path, route) for path in files])
    assert sum(changed for _, changed, _ in results) > 20
    assert {name: new for name, _, new in results if new} == {}


@pytest.mark.parametrize("route", ["plain", "derived", "de-identified"])
def test_the_image_folder(shared_data, route):
    judged(dicom_files(shared_data), route)


@pytest.mark.parametrize("route", ["plain", "derived", "de-identified"])
def test_the_files_that_pydicom_tests_itself_with(route):
    judged(public_files(), route)
