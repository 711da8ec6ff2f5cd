"""The quick start does what it says: its own commands and its own file, against DCMTK for modality and PACS.

Only what a newcomer would type differently is replaced: address and ports, and the names of the files.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.stand import free_port
from tests.architecture.repository import ROOT
from tests.builders import ct, file_bytes
from tests.interop import peers

pytestmark = pytest.mark.interop

_BLOCK = re.compile(r"^```(sh|yaml)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_TEXT = (ROOT / "docs" / "quickstart.md").read_text("utf-8")


def commands() -> Iterator[list[str]]:
    """What the quick start has one type; a line that is no command is what one is answered."""
    for kind, block in _BLOCK.findall(_TEXT):
        for line in block.splitlines() if kind == "sh" else ():
            words = shlex.split(line, comments=True)
            if words and words[0] in ("dicom-node", "echoscu", "storescu"):
                yield words


def test_a_newcomer_gets_an_image_through_and_back(tmp_path: Path) -> None:
    port, http = free_port(), free_port()
    image = tmp_path / "image.dcm"
    image.write_bytes(file_bytes(ct(256, 256, PatientName="Phantom^Test")))
    with peers.storescp(tmp_path / "pacs") as pacs:
        written = _BLOCK.findall(_TEXT)
        settings = next(block for kind, block in written if kind == "yaml")
        settings = settings.replace("pacs.example, port: 104", f"127.0.0.1, port: {pacs.port}")
        settings = settings.replace("port: 11112", f"port: {port}, bind: 127.0.0.1")
        (tmp_path / "node.yaml").write_text(f"{settings}http: {{port: {http}}}\n", "utf-8")
        typed = [[word.replace("11112", str(port)) for word in words] for words in commands()]
        assert [" ".join(words[:2]) for words in typed][1:] == [
            "dicom-node keys",
            "dicom-node config",
            "dicom-node serve",
            "echoscu -aec",
            "storescu -aec",
            "dicom-node verify",
            "dicom-node recover",
        ]
        selftest, keys, check, serve, echo, store, verify, recover = typed
        for words in (selftest, keys, check):
            run(tmp_path, words)
        with peers.process(*_node(serve), log=tmp_path / "log", cwd=tmp_path):
            peers.wait_until(lambda: " ready " in (tmp_path / "log").read_text(), 60, "the node is ready")
            run(tmp_path, echo)
            run(tmp_path, store)
            peers.wait_until(lambda: len(pacs.files()) == 1, 60, "it has arrived")
            peers.wait_until(lambda: " delivered " in (tmp_path / "log").read_text(), 30, "the node says so")
        pacs.files()[0].rename(tmp_path / "exported.dcm")
        assert run(tmp_path, verify).startswith("authentic")
        run(tmp_path, recover)
    assert (tmp_path / "original.dcm").read_bytes()[132:] != (tmp_path / "exported.dcm").read_bytes()[132:]


def _node(words: list[str]) -> list[str]:
    return (
        [sys.executable, "-m", "dicom_node", *words[1:]]
        if words[0] == "dicom-node"
        else [f"/usr/bin/{words[0]}", *words[1:]]
    )


def run(folder: Path, words: list[str]) -> str:
    """Do as the quick start says; its output."""
    done = subprocess.run(
        _node(words),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=dict(os.environ),
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout
