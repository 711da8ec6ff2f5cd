"""`make demo` tells the truth: it passes where everything is right and fails where something is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import write
from tests.architecture.repository import ROOT
from tests.builders import ct
from tools import demo
from tools.demo import Sample


def run_demo(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.demo", "--pacs", "pynetdicom", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.slow
def test_the_whole_line_with_an_image_of_ones_own(tmp_path: Path) -> None:
    own = write(tmp_path / "own" / "mine.dcm", ct(256, 256))
    (tmp_path / "own" / "notes.txt").write_text("no image")
    done = run_demo(tmp_path / "own", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith(own.name))
    assert "authentic" in line
    assert line.endswith("bit for bit")
    assert "left out   notes.txt" in done.stdout
    assert "pixels-altered" in done.stdout


def test_data_that_is_not_there_ends_the_demonstration(tmp_path: Path) -> None:
    done = run_demo(tmp_path / "nowhere", "--out", tmp_path / "out")
    assert done.returncode != 0
    assert "no such file or folder" in done.stderr


@pytest.mark.parametrize(
    ("finding", "restored", "outcome"),
    [
        ("authentic", "hash", "bit for bit"),
        ("authentic", "another hash", "DIFFERS"),
        ("pixels-altered", "hash", "DIFFERS"),
        ("unmarked", "hash", "DIFFERS"),
    ],
)
def test_only_authentic_and_equal_is_right(finding: str, restored: str, outcome: str) -> None:
    sample = Sample(Path("a.dcm"), "1.2", "1.2.3", "1.2.4", "CT 64x64, 16 bit", True, "hash", ())
    reports = {"1.2": {"finding": finding, "reason": "", "frames": []}}
    assert demo._row(sample, reports, {"1.2": restored}, {})[-1] == outcome


def test_what_did_not_arrive_is_wrong() -> None:
    sample = Sample(Path("a.dcm"), "1.2", "1.2.3", "1.2.4", "SR", False, "hash", ())
    assert demo._row(sample, {}, {}, {})[-1] == "no"


def test_a_tally_adds_up_a_state_over_all_its_labels() -> None:
    metrics = (
        'dicom_node_instances{reason="",result="",state="held"} 2.0\n'
        'dicom_node_deliveries{destination="a",state="delivered"} 3.0\n'
        'dicom_node_deliveries{destination="b",state="delivered"} 4.0\n'
    )
    assert demo._tally(metrics, "delivered") == 7
    assert demo._tally(metrics, "held") == 2
    assert demo._tally(metrics, "dead") == 0
