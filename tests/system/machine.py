"""A bare Debian, booted under its own systemd in a container, for the node to be installed on."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv,procps,curl"
_ENVIRONMENT = (
    "/usr/bin/env",
    "-i",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
)


@dataclass(frozen=True)
class Machine:
    """A booted system: `leader` is its PID 1 as this machine sees it, `root` its file system."""

    root: Path
    leader: int

    def run(self, *command: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root."""
        return self._enter("-a", *_ENVIRONMENT, *command, seconds=seconds)

    def peer(self, *command: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a program of this machine on the other's network: a modality, say."""
        return self._enter("-n", "/usr/bin/env", "TCP_NODELAY=1", *command, seconds=seconds)

    def _enter(self, what: str, *command: str, seconds: float) -> subprocess.CompletedProcess[str]:
        entry = ("nsenter", "-t", str(self.leader), what, "--", *command)
        return subprocess.run(entry, capture_output=True, text=True, check=False, timeout=seconds)

    def must(self, *command: str, seconds: float = 120) -> str:
        """The output of a command that has to succeed."""
        done = self.run(*command, seconds=seconds)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def journal(self) -> str:
        return self.must("journalctl", "--no-pager", "-u", "dicom-node", "-o", "cat")

    def main_pid(self) -> int:
        return int(self.must("systemctl", "show", "-p", "MainPID", "--value", "dicom-node"))

    @contextlib.contextmanager
    def archive(self, folder: Path, port: int) -> Iterator[Path]:
        """DCMTK's storescp on the other's network, keeping what arrives in `folder`."""
        folder.mkdir(exist_ok=True)
        command = (
            "nsenter",
            "-t",
            str(self.leader),
            "-n",
            "--",
            "/usr/bin/storescp",
            "--fork",
            "+xa",
            "-od",
            folder,
            port,
        )
        with subprocess.Popen(
            [str(part) for part in command], env={**os.environ, "TCP_NODELAY": "1"}
        ) as child:
            try:
                yield folder
            finally:
                child.terminate()


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Return once `condition` holds; fail with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.2)


def release() -> str:
    """The Debian release of this machine, whose Python the bundle's wheels fit."""
    return platform.freedesktop_os_release()["VERSION_CODENAME"]


def bootstrap(root: Path) -> None:
    """A bare system from Debian's packages."""
    command = ("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", release(), str(root))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@contextlib.contextmanager
def booted(root: Path, log: Path) -> Iterator[Machine]:
    """Boot it, with a network of its own; switch it off at the end."""
    command = (
        "systemd-nspawn",
        "-q",
        "-D",
        str(root),
        "--boot",
        "--register=no",
        "--keep-unit",
        "--private-network",
    )
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL) as keeper,
    ):
        try:
            machine = Machine(root, _leader(keeper))
            until(
                lambda: machine.run("systemctl", "is-system-running").stdout.strip() == "running",
                60,
                "it has booted",
            )
            yield machine
            machine.run("systemctl", "poweroff")
            keeper.wait(60)
        finally:
            keeper.kill()


def _leader(keeper: subprocess.Popen[bytes]) -> int:
    """The child of systemd-nspawn that is PID 1 inside."""
    children = Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children")
    until(lambda: any(_is_init(int(pid)) for pid in children.read_text().split()), 30, "PID 1 runs")
    return int(children.read_text().split()[0])


def _is_init(pid: int) -> bool:
    return (
        b"systemd" in Path(f"/proc/{pid}/comm").read_bytes()
        and b"NSpid:" in Path(f"/proc/{pid}/status").read_bytes()
    )


def bundle(folder: Path) -> Path:
    """What `make bundle` makes: everything to install without a package index."""
    done = subprocess.run(
        ("sh", str(ROOT / "packaging" / "make_bundle.sh")),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "OUT": str(folder), "PYTHON": sys.executable},
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())
