"""The documentation builds into pages, and every link and anchor in it leads somewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.architecture.repository import ROOT


def test_the_pages_build_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site"))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "site" / "index.html").exists()
