"""A fetch that is killed half-way: what bears its name is whole, and the next run brings the rest."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

from pydicom import dcmread

from tests.shelf import Shelf, instance
from tests.waiting import wait_until


def test_a_killed_fetch_is_resumed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    shelf = Shelf([instance(number) for number in range(8)])
    killed = threading.Event()
    shelf.before_each = lambda event, number: number < 3 or killed.wait(60.0)
    with shelf.open() as settings:
        command = [sys.executable, "-m", "dicom_node", "query", "fetch", "--all", "--out", str(out)]
        command += ["--peer", f"SHELF@127.0.0.1:{settings.port}"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
            wait_until(lambda: len(list(out.glob("*.dcm"))) == 3)
            child.send_signal(signal.SIGKILL)
        killed.set()
        assert all(dcmread(path).SOPInstanceUID.startswith("1.2.3.") for path in out.glob("*.dcm"))
        (out / ".dicom-node-1-1").write_bytes(b"what a crash may leave")
        shelf.before_each = lambda event, number: None
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    # one that had its name and not its line yet is fetched again
    assert done.stdout in ("5 fetched, 3 already there\n", "6 fetched, 2 already there\n")
    assert {dcmread(path).SOPInstanceUID for path in out.glob("*.dcm")} == {f"1.2.3.{n}" for n in range(8)}
    assert sorted(path.suffix for path in out.iterdir()) == [".dcm"] * 8 + [".jsonl"]
    assert len((out / "manifest.jsonl").read_text().splitlines()) >= 8
