"""What a server of PostgreSQL that was killed leaves behind goes with the next one; what lives stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import postgresql
from benchmarks.postgresql import Server, sweep

#: makes a folder as a server does, says which, and waits
MAKER = (
    "import sys, time, tempfile; from pathlib import Path; from benchmarks import postgresql as pg\n"
    "folder = Path(tempfile.mkdtemp(prefix=pg._PREFIX, dir=sys.argv[1])); held = pg._owned(folder)\n"
    "print(folder, flush=True); time.sleep(600)\n"
)
AT_WORK = "import sys, time; print('ready', flush=True); time.sleep(600)"


class Processes:
    """Started by a test, and ended with it."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> tuple[subprocess.Popen[str], str]:
        """Start Python; what it says first."""
        command = [sys.executable, "-c", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    def kill(self, process: subprocess.Popen[str]) -> None:
        process.kill()
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()
        self.started.remove(process)


@pytest.fixture
def processes() -> Iterator[Processes]:
    made = Processes()
    yield made
    for process in made.started[:]:
        made.kill(process)


def test_a_folder_goes_when_its_maker_and_its_server_are_dead(tmp_path: Path, processes: Processes) -> None:
    strange, half = tmp_path / "tmpabc", tmp_path / f"{postgresql._PREFIX}half-made"
    strange.mkdir()
    half.mkdir()
    maker, folder = processes.start(MAKER, str(tmp_path))
    assert sweep(tmp_path) == [], "its maker lives"
    server, _ = processes.start(AT_WORK, "-D", f"{folder}/data")
    processes.kill(maker)
    assert sweep(tmp_path) == [], "its server lives"
    processes.kill(server)
    assert sweep(tmp_path) == [Path(folder)]
    assert sorted(tmp_path.iterdir()) == sorted([strange, half])


@pytest.mark.interop
@pytest.mark.slow
@pytest.mark.skipif(not postgresql.is_installed(), reason="sh tools/install_peers.sh postgresql")
def test_the_next_server_removes_what_one_that_was_killed_with_its_maker_left(processes: Processes) -> None:
    run = (
        "import time; from benchmarks.postgresql import Server; made = Server().make()\n"
        "print(made._made, made.pid, flush=True); time.sleep(600)\n"
    )
    maker, said = processes.start(run)
    folder, pid = said.split()
    processes.kill(maker)
    beside = Server()
    assert Path(folder).exists(), "the server is alive"
    os.kill(int(pid), signal.SIGQUIT)
    while Path(f"/proc/{pid}").exists():
        os.sched_yield()
    again = Server().make()
    assert not Path(folder).exists()
    assert Path(beside._made).exists()
    again.remove()
    beside.remove()
    assert not Path(again._made).exists()
