"""Files that cannot be used: one clear line each, exit code 1, nothing half-written; the batch goes on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import builders
from tests.acceptance.conftest import Site, names, run, write

#: file -> what its line must say
BAD = {
    "bomb.dcm": "over the limit",
    "contradicting.dcm": "Pixel Data holds",
    "empty.dcm": "is not a DICOM file",
    "no-rows.dcm": "one of them is zero",
    "notes.txt": "is not a DICOM file",
    "truncated.dcm": "cut short",
    "without-bits.dcm": "BitsStored is missing",
}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of bad file around one good one."""
    folder = tmp_path_factory.mktemp("mixed")
    ct = builders.ct(64, 64)
    write(folder / "bomb.dcm", builders.ct(64, 64, Rows=65535, Columns=65535, NumberOfFrames=1000))
    write(folder / "contradicting.dcm", builders.ct(64, 64, Rows=65))
    write(folder / "no-rows.dcm", builders.ct(64, 64, Rows=0))
    write(folder / "without-bits.dcm", builders.ct(64, 64, BitsStored=None))
    (folder / "empty.dcm").touch()
    (folder / "notes.txt").write_text("burn two copies\n")
    (folder / "truncated.dcm").write_bytes(builders.file_bytes(ct)[:5000])
    write(folder / "good.dcm", builders.mr(256, 256))
    return folder


@pytest.fixture(scope="module")
def protected(
    mixed: Path, site: Site, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str, str, int]:
    out = tmp_path_factory.mktemp("out") / "marked"
    done = run("protect", mixed, "--out", out, keys=site.keys)
    return out, done.stdout, done.stderr, done.returncode


def lines(stderr: str) -> dict[str, str]:
    """File name -> its line."""
    return {Path(line.split(": ")[0].split()[-1]).name: line for line in stderr.splitlines()}


def test_every_bad_file_gets_one_line_that_says_what_to_do(protected: tuple[Path, str, str, int]) -> None:
    _, _, stderr, code = protected
    said = lines(stderr)
    assert code == 1
    assert set(said) == set(BAD)
    assert len(stderr.splitlines()) == len(BAD)
    for name, words in BAD.items():
        assert words in said[name]
        assert "; " in said[name]


def test_the_batch_goes_on_and_nothing_is_half_written(protected: tuple[Path, str, str, int]) -> None:
    out, stdout, _, _ = protected
    assert names(out) == {"good.dcm"}
    assert stdout.splitlines()[-1] == f"{len(BAD)} error, 1 protected"


def test_verify_goes_on_too_and_an_error_outweighs_a_finding(mixed: Path, site: Site, tmp_path: Path) -> None:
    done = run("verify", mixed, tmp_path / "nowhere.dcm", keys=site.keys)
    assert done.returncode == 1
    assert set(lines(done.stderr)) == {*BAD, "nowhere.dcm"}
    assert done.stdout.splitlines()[-1] == f"{len(BAD) + 1} error, 1 unmarked"


def test_a_missing_key_ring_says_how_to_make_one(site: Site, tmp_path: Path) -> None:
    ring = tmp_path / "ring"
    done = run("verify", site.marked, "--keys", ring)
    assert done.returncode == 1
    assert done.stderr.strip().endswith(f"make one with: dicom-node keys new --keys {ring}")


def test_a_key_ring_that_others_can_read_is_refused(site: Site, tmp_path: Path) -> None:
    ring = tmp_path / "ring"
    ring.write_bytes(site.keys.read_bytes())
    ring.chmod(0o644)
    done = run("verify", site.marked, "--keys", ring)
    assert done.returncode == 1
    assert f"chmod 600 {ring}" in done.stderr


def test_in_and_out_must_differ(site: Site) -> None:
    """A wrong command line exits with 2 and touches nothing."""
    before = (site.images / "ct").read_bytes()
    done = run("protect", site.images / "ct", "--out", site.images / "ct", keys=site.keys)
    assert done.returncode == 2
    assert "IN and OUT are the same file" in done.stderr
    assert (site.images / "ct").read_bytes() == before


def test_an_empty_folder_is_no_proof_of_anything(site: Site, tmp_path: Path) -> None:
    done = run("verify", tmp_path, keys=site.keys)
    assert done.returncode == 1
    assert str(tmp_path) in done.stderr


def test_a_pipe_is_refused_rather_than_waited_for(site: Site, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = run("verify", tmp_path / "pipe", keys=site.keys)
    assert done.returncode == 1
    assert "neither a file nor a folder" in done.stderr
