"""`verify` on everything that an auditor may have: media, archives, a pipe; and the end of its processes."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from blessmark import pixels
from tests import builders, media
from tests.acceptance.conftest import COMMAND, Site, run, write
from tests.acceptance.test_protect_verify_recover import documented


@pytest.fixture(scope="module")
def marked(site: Site) -> bytes:
    return (site.marked / "ct").read_bytes()


def piped(site: Site, content: bytes, *options: str) -> subprocess.CompletedProcess[bytes]:
    command = [COMMAND, "verify", "-", "--keys", site.keys, *options]
    return subprocess.run(command, input=content, capture_output=True, check=False, timeout=120)


def test_standard_input_is_one_instance(site: Site, marked: bytes) -> None:
    done = piped(site, marked)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].endswith(b"standard input")
    done = piped(site, media.zipped({"a": marked}))
    assert (done.returncode, done.stdout) == (1, b"1 error\n")
    assert b"standard input takes one" in done.stderr


def test_an_archive_is_judged_member_by_member_and_nothing_in_it_is_followed(
    site: Site, marked: bytes, tmp_path: Path
) -> None:
    members = {
        "a/1.dcm": marked,
        "../../escaped": marked,
        "\x1b[2Jred\n": marked,
        "inner.zip": media.zipped({"x": marked}),
        "notes.txt": b"burn two copies",
    }
    path = media.archive(tmp_path / "cd.zip", members)
    done = run("verify", path, keys=site.keys)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "3 authentic, 2 error"
    assert f"{path}!a/1.dcm" in done.stdout
    assert "archive within an archive" in done.stderr
    assert "\x1b" not in done.stdout
    assert [each.name for each in tmp_path.iterdir()] == ["cd.zip"]


def test_a_bomb_is_refused_and_its_neighbours_are_judged(site: Site, marked: bytes, tmp_path: Path) -> None:
    path = media.archive(tmp_path / "a.zip", {"bomb": marked + bytes(80 << 20), "good": marked})
    done = run("verify", path, keys=site.keys)
    assert done.stdout.splitlines()[-1] == "1 authentic, 1 error"
    assert "would inflate to" in done.stderr


@pytest.fixture(scope="module")
def pressed(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A medium as another program writes it: three marked instances and their DICOMDIR."""
    folder = tmp_path_factory.mktemp("pressed")
    for number in (1, 2, 3):
        ds = builders.ct(256, 256, seed=number, InstanceNumber=number, PatientID="1", PatientName="A")
        ds.StudyDate, ds.StudyTime, ds.StudyID, ds.SeriesNumber = "20260101", "000000", "1", 1
        write(folder / "original" / f"{number}.dcm", ds)
    run("protect", folder / "original", "--out", folder / "marked", keys=site.keys)
    return media.disc(folder / "disc", map(pixels.read, sorted((folder / "marked").iterdir())))


@pytest.fixture
def disc(pressed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pressed, tmp_path / "disc")


def instances(disc: Path) -> list[Path]:
    return [path for path in sorted(disc.rglob("*")) if path.is_file() and path.name != "DICOMDIR"]


def test_a_medium_is_held_against_its_index(site: Site, disc: Path) -> None:
    for given in (disc, disc / "DICOMDIR"):
        done = run("verify", given, keys=site.keys)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.splitlines()[-1] == "3 authentic"
        assert "lists 3 files, 0 missing" in done.stderr
    first = instances(disc)[0]
    first.unlink()
    shutil.copy(instances(disc)[0], disc / "EXTRA")
    done = run("verify", disc, "--json", keys=site.keys)
    documented(done)
    document = json.loads(done.stdout)
    assert done.returncode == 3
    missing, unlisted = (
        [note["source"] for note in document["notes"] if note["kind"] == kind]
        for kind in ("missing", "unlisted")
    )
    assert missing == [str(first.relative_to(disc))]
    assert unlisted == [str(disc / "EXTRA")]


def test_an_index_cannot_have_anything_read_outside_of_its_folder(
    site: Site, marked: bytes, tmp_path: Path
) -> None:
    disc = tmp_path / "disc"
    disc.mkdir()
    (tmp_path / "secret").write_bytes(marked)
    (disc / "LINK").symlink_to(tmp_path / "secret")
    (disc / "OK").write_bytes(marked)
    names = ["..\\secret", str(tmp_path / "secret"), "LINK", "A\0B", "\x1b[2J\\X", "OK"]
    (disc / "DICOMDIR").write_bytes(media.dicomdir(names))
    done = run("verify", disc / "DICOMDIR", keys=site.keys)
    assert done.returncode == 3
    assert done.stdout.splitlines()[-1] == "4 missing, 1 authentic"
    assert "secret" not in done.stdout
    assert "\x1b" not in done.stderr


def test_the_summary_tells_what_is_proven_and_what_is_a_hint(site: Site, disc: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    one, _, three = instances(disc)
    moved = pixels.read(one)
    moved.SeriesInstanceUID = builders.synthetic_uid("another")
    write(folder / "moved.dcm", moved)
    shutil.copy(one, folder / "one.dcm")
    shutil.copy(three, folder / "three.dcm")
    touched = pixels.read(three)
    touched.StationName = "ELSEWHERE"
    write(folder / "touched.dcm", touched)
    done = run("verify", folder, keys=site.keys)
    assert done.returncode == 3
    said = done.stdout
    assert "proven: marked in another series than the header says now" in said
    assert "proven: the same SOP Instance UID, different content" in said
    assert "hint: no instance is numbered 2; numbers are the header's" in said
    assert "3 of 3 proven to belong here" in said


def test_exchanged_and_cut_frames_are_told(site: Site, tmp_path: Path) -> None:
    ds = pixels.read(site.marked / "below" / "cine.dcm")
    image = pixels.load(ds)
    assert isinstance(image, pixels.Image)
    planes = [frame.samples for frame in image]
    pixels.store(ds, image, [planes[0], planes[2], planes[1]])
    write(tmp_path / "exchanged.dcm", ds)
    cut = pixels.read(site.marked / "below" / "cine.dcm")
    words = np.moveaxis(np.stack(planes)[[0, 2]], 1, 3)
    cut.PixelData = words.astype(np.uint8).tobytes()
    cut.NumberOfFrames = 2
    write(tmp_path / "cut.dcm", cut)
    done = run("verify", tmp_path, "--json", keys=site.keys)
    said = documented(done)
    assert {entry["finding"] for entry in said.values()} == {"pixels-altered"}
    holds = {name: [frame["holds_frame"] for frame in entry["frames"]] for name, entry in said.items()}  # type: ignore[attr-defined]
    assert holds == {"exchanged.dcm": [None, 3, 2], "cut.dcm": [None, 3]}
    (study,) = json.loads(done.stdout)["studies"]
    kinds = {remark["kind"] for remark in study["series"][0]["remarks"] if remark["proven"]}
    assert kinds == {"frames-exchanged", "frames-missing"}


def test_csv_and_summary_only(site: Site) -> None:
    done = run("verify", site.marked, "--csv", keys=site.keys)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert done.returncode == 3
    assert sorted(row["finding"] for row in rows) == ["authentic", "authentic", "unmarked"]
    done = run("verify", site.marked, "--summary-only", "--jobs", "1", keys=site.keys)
    assert "cine.dcm" not in done.stdout
    assert done.stdout.splitlines()[-1] == "2 authentic, 1 unmarked"
    done = run("verify", site.marked, "--csv", "--json", keys=site.keys)
    assert done.returncode == 2


def test_recover_works_with_several_processes(site: Site, tmp_path: Path) -> None:
    done = run("recover", site.marked, "--out", tmp_path / "out", "--jobs", "2", keys=site.keys)
    assert done.stdout.splitlines()[-1] == "2 authentic, 1 unmarked"
    restored = pixels.read(tmp_path / "out" / "ct")
    assert pixels.digest(restored) == pixels.digest(pixels.read(site.images / "ct"))


@contextlib.contextmanager
def running(site: Site, folder: Path, instances: int) -> Iterator[subprocess.Popen[str]]:
    """A command that has begun to judge so many instances, its judges at work."""
    folder.mkdir()
    for n in range(instances):
        (folder / f"{n:04}").symlink_to(site.marked / "ct")
    command = [str(each) for each in (COMMAND, "verify", folder, "--jobs", "2", "--keys", site.keys)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child
        child.kill()


def descendants(child: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(child.pid).children(recursive=True)


def test_a_judge_that_is_killed_costs_nothing(site: Site, tmp_path: Path) -> None:
    with running(site, tmp_path / "many", 40) as child:
        judge = next(each for each in descendants(child) if "spawn_main" in " ".join(each.cmdline()))
        judge.kill()
        out, err = child.communicate(timeout=120)
    assert (child.returncode, err) == (0, "")
    assert out.splitlines()[-1] == "40 authentic"


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_command(site: Site, tmp_path: Path, ended_by: signal.Signals) -> None:
    """Ctrl-C reaches the whole group, as from a terminal; the others one process."""
    with running(site, tmp_path / "many", 2000) as child:
        others = descendants(child)
        assert others
        if ended_by is signal.SIGINT:
            os.killpg(child.pid, ended_by)
        else:
            child.send_signal(ended_by)
        _, err = child.communicate(timeout=120)
    assert psutil.wait_procs(others, timeout=120)[1] == []
    if ended_by is not signal.SIGKILL:
        assert "Traceback" not in err
        assert child.returncode == 1
        assert err.startswith("dicom-node: interrupted")
