"""A folder that cannot be written, a disk that is full, a user who loses patience: nothing half-written."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import builders
from tests.acceptance.conftest import COMMAND, Site, names, run, write


def test_a_read_only_folder_is_named_and_left_empty(site: Site, tmp_path: Path) -> None:
    """Root may write everywhere, so root first gives that right away."""
    out = tmp_path / "out"
    out.mkdir(mode=0o555)
    done = _unprivileged("protect", str(site.images / "ct"), "--out", str(out), "--keys", str(site.keys))
    assert done.returncode == 1
    assert f"{out / 'ct'} cannot be written (Permission denied); nothing was written" in done.stderr
    assert names(out) == set()


def _unprivileged(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(COMMAND), *arguments]
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("root, and no setpriv to give rights away")
        command = [setpriv, "--bounding-set=-dac_override,-dac_read_search", *command]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_file_that_does_not_fit_is_not_begun_and_the_next_one_is_written(
    site: Site, tmp_path: Path
) -> None:
    """The limit on file sizes stands in for a full disk: the write fails in its middle."""
    images, out = tmp_path / "images", tmp_path / "out"
    write(images / "a-large.dcm", builders.ct(512, 512))
    write(images / "b-small.dcm", builders.mr(256, 256))
    limit = 300_000

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = run("protect", images, "--out", out, keys=site.keys, preexec_fn=small_disk)
    assert done.returncode == 1
    assert "a-large.dcm cannot be written (File too large)" in done.stderr
    assert names(out) == {"b-small.dcm"}


def test_a_full_disk(site: Site, tmp_path: Path) -> None:
    with _tiny_disk(tmp_path / "disk", kilobytes=200) as disk:
        done = run("protect", site.images, "--out", disk / "out", keys=site.keys)
        assert done.returncode == 1
        assert "cine.dcm cannot be written (No space left on device)" in done.stderr
        assert names(disk) == {"out/ct", "out/report.dcm"}


@contextlib.contextmanager
def _tiny_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("a file system cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


#: as many as are not done by the time that who looks for the first one sees it, however late that is
_COPIES = 2000


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupt_leaves_whole_files_only(site: Site, tmp_path: Path, number: signal.Signals) -> None:
    """Interrupted in the middle of a folder: every file in OUT is complete, and there is no other."""
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for copy in range(_COPIES):
        os.link(site.images / "below" / "cine.dcm", images / f"{copy:04d}.dcm")
    command = [str(COMMAND), "protect", str(images), "--out", str(out), "--keys", str(site.keys)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell starts background jobs with SIGINT ignored, and a child inherits that
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as child:
        deadline = time.monotonic() + 180
        while not list(out.glob("[!.]*")) and time.monotonic() < deadline:
            time.sleep(0.002)
        child.send_signal(number)
        _, stderr = child.communicate(timeout=180)
    assert child.returncode == 1
    assert stderr.splitlines()[-1].startswith("dicom-node: interrupted")
    written = names(out)
    assert 0 < len(written) < _COPIES
    assert all(not name.startswith(".") for name in written)
    done = run("verify", out, "--summary-only", keys=site.keys)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, f"{len(written)} authentic"), done.stderr
