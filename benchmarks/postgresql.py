"""A PostgreSQL server of one's own: on a free port, in a folder that goes with it.

What was killed leaves its folder behind, as a rule in memory; whoever makes the next server removes it. Whose
folder it is shows a lock that its maker holds as long as it lives, and whether a server is at work in it, the
command lines of all processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg
import sqlalchemy as sa

from benchmarks.stand import free_port

_PROGRAMS = Path("/usr/lib/postgresql/15/bin")
_MEMORY = Path("/dev/shm")
#: how our folders are called, and the file in each that its maker has locked
_PREFIX, _OWNED = "dicom-node-pg-", "owned"
_ROLE = "postgres"
#: a role that owns its databases and nothing else, and its password
NODE, PASSWORD = "dicom_node", "kept:out/of@sight"


def is_installed() -> bool:
    return (_PROGRAMS / "postgres").exists()


def sweep(place: Path) -> list[Path]:
    """Remove the folders in `place` whose makers and servers are dead; they are returned.

    What is not ours to remove stays where it is.
    """
    removed = []
    for folder in sorted(place.glob(f"{_PREFIX}*")):
        with contextlib.suppress(OSError), (folder / _OWNED).open("rb") as owned:
            fcntl.flock(owned, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_in_use(folder):
                shutil.rmtree(folder)
                removed.append(folder)
    return removed


def _is_in_use(folder: Path) -> bool:
    """Whether a process was started with a path in the folder, as servers and their tools are."""
    name = f"{folder}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if name in (process / "cmdline").read_bytes():
                return True
    return False


class Server:
    """One server, and the databases made in it.

    Parameters
    ----------
    settings : of the server, beyond its own
    folder : where its files are; left out, in memory
    on_disk : they are in a folder for what is temporary, as those of a server that is measured must be
    network : who is let in by password, besides this machine, and the address that they find it at
    """

    def __init__(
        self,
        settings: Sequence[str] = (),
        *,
        folder: Path | None = None,
        on_disk: bool = False,
        network: tuple[str, str] | None = None,
    ) -> None:
        place = _MEMORY if _MEMORY.is_dir() and not on_disk else Path(tempfile.gettempdir())
        sweep(place)
        self._made = tempfile.mkdtemp(prefix=_PREFIX, dir=place)
        self._owned = _owned(Path(self._made))
        self._network = network
        self.folder = folder or Path(self._made) / "data"
        self.port = free_port()
        self._settings = list(settings)
        self._names = (f"ledger_{number}" for number in itertools.count(1))
        shutil.chown(self._made, _ROLE) if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None

    def make(self) -> Server:
        """A new cluster of databases, started, with the role of the node."""
        self._run("initdb", "-D", str(self.folder), "-U", _ROLE, "-A", "trust", "--no-sync", "-E", "UTF8")
        self._admit()
        self.start()
        self.execute(f"CREATE ROLE {NODE} LOGIN PASSWORD '{PASSWORD}'")
        return self

    def _admit(self) -> None:
        """The superuser by trust, everybody else by password, standbys too."""
        lines = (
            f"host all {_ROLE} 127.0.0.1/32 trust",
            f"host replication {_ROLE} 127.0.0.1/32 trust",
            "host all all 127.0.0.1/32 scram-sha-256",
            *([f"host all all {self._network[0]} scram-sha-256"] if self._network else []),
        )
        (self.folder / "pg_hba.conf").write_text("\n".join(lines) + "\n")

    def copy(self) -> Server:
        """A standby of this server, started."""
        standby = Server(self._settings)
        command = ("-h", "127.0.0.1", "-p", str(self.port), "-U", _ROLE, "-R", "-X", "stream", "--no-sync")
        standby._run("pg_basebackup", "-D", str(standby.folder), "-c", "fast", *command)
        standby.start()
        return standby

    def start(self) -> None:
        command = ["postgres", "-D", str(self.folder), "-p", str(self.port), "-k", self._made]
        heard = ",".join(["127.0.0.1", *([self._network[1]] if self._network else [])])
        for setting in (f"listen_addresses={heard}", "max_connections=60", *self._settings):
            command += ["-c", setting]
        with (Path(self._made) / "log").open("ab") as log:
            self._process = subprocess.Popen(_as_role(command), stdout=log, stderr=log)
        self._wait()

    def _wait(self) -> None:
        ends_at = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self._admin("postgres")).close()
            except psycopg.OperationalError as error:
                if time.monotonic() > ends_at:
                    raise AssertionError((Path(self._made) / "log").read_text()[-3000:]) from error
                time.sleep(0.05)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server in good order, or with SIGKILL as a machine that falls would."""
        if self._process is None:
            return
        children = _children(self.pid)
        os.kill(self.pid, how)
        self._process.wait(60)
        self._process = None
        ends_at = time.monotonic() + 30
        while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < ends_at:
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        return int((self.folder / "postmaster.pid").read_text().split("\n")[0])

    def promote(self) -> None:
        """Make a standby take writes."""
        self._run("pg_ctl", "promote", "-D", str(self.folder), "-w")

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._made, ignore_errors=True)
        os.close(self._owned)

    def database(self) -> sa.URL:
        """A new and empty database, and how the node reaches it."""
        name = next(self._names)
        self.execute(f"CREATE DATABASE {name} OWNER {NODE}")
        return self.url(name)

    def url(self, name: str) -> sa.URL:
        return sa.URL.create("postgresql", NODE, PASSWORD, "127.0.0.1", self.port, name)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement as the superuser."""
        with psycopg.connect(self._admin(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _admin(self, database: str) -> str:
        return f"host=127.0.0.1 port={self.port} user={_ROLE} dbname={database} connect_timeout=5"

    def _run(self, program: str, *arguments: str) -> None:
        command = _as_role([program, *arguments])
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr


def _owned(folder: Path) -> int:
    """The descriptor of the file that says whose folder it is, locked before it has its name."""
    made = folder / f"{_OWNED}.new"
    file = os.open(made, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(file, fcntl.LOCK_EX)
    made.rename(folder / _OWNED)
    return file


def _as_role(command: list[str]) -> list[str]:
    """A server does not run as root."""
    command = [str(_PROGRAMS / command[0]), *command[1:]]
    drop = ["setpriv", f"--reuid={_ROLE}", f"--regid={_ROLE}", "--init-groups"] if os.geteuid() == 0 else []
    return [*drop, *command]


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
