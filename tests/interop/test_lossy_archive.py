"""An archive that compresses with loss, by DCMTK: what a reader says of its objects, and of lossless ones."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from blessmark import pixels
from blessmark.payload.signature import PublicKey, SigningKey
from blessmark.segment import segmenter
from blessmark.segment.whole import Whole
from dicom_node.protect import protect
from dicom_node.report import InstanceReport
from dicom_node.review import Reader, review
from tests import builders
from tests.strategies import RING
from tests.unit.node.test_protect import PATIENT, TIME_S, site

pytestmark = pytest.mark.interop

SIGNER = SigningKey(bytes(range(32)))
READER = Reader(RING, (segmenter("anatomy"), Whole()), public_keys=(PublicKey(SIGNER.public),))


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ds = builders.mr(256, 192, **PATIENT)
    assert protect(ds, site(signer=SIGNER), TIME_S).changed
    path = tmp_path_factory.mktemp("archive") / "marked.dcm"
    path.write_bytes(builders.file_bytes(ds))
    return path


def after(marked: Path, *steps: str) -> InstanceReport:
    """The report on the object after DCMTK's commands went over it, one after the other."""
    path = marked
    for number, step in enumerate(steps):
        command, *options = step.split()
        target = marked.with_name(f"{number}-{command}.dcm")
        done = subprocess.run(
            [f"/usr/bin/{command}", *options, path, target],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        path = target
    return review(pixels.read(path), "x", READER).report


@pytest.mark.parametrize(
    "steps",
    [
        ("dcmcjpls",),
        ("dcmcjpls", "dcmdjpls"),
        ("dcmcjpeg",),
        ("dcmcjpeg", "dcmdjpeg"),
        ("dcmcrle", "dcmdrle"),
    ],
    ids=" ".join,
)
def test_coding_without_loss_changes_nothing(marked: Path, steps: tuple[str, ...]) -> None:
    report = after(marked, *steps)
    assert (report.finding, report.signature.state) == ("authentic", "valid")
    assert report.frames[0].causes == ()


@pytest.mark.parametrize(
    "steps",
    [
        ("dcmcjpls +en +md 2", "dcmdjpls"),
        ("dcmcjpeg +ee +q 90", "dcmdjpeg"),
        ("dcmcjpeg +ee +q 50", "dcmdjpeg"),
        ("dcmcjpeg +ee +q 90 +un", "dcmdjpeg"),
    ],
    ids=" ".join,
)
def test_coding_with_loss_is_never_authentic_and_looks_like_it(marked: Path, steps: tuple[str, ...]) -> None:
    report = after(marked, *steps)
    assert report.finding == "damaged"
    assert report.signature.state == "invalid"
    assert report.frames[0].causes[0][0] == "lossy-compression"
