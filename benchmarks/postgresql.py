"""A PostgreSQL server of one's own: on a free port, in a folder that goes with it."""

from __future__ import annotations

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
_ROLE = "postgres"
#: a role that owns its databases and nothing else, and its password
NODE, PASSWORD = "dicom_node", "kept:out/of@sight"


def is_installed() -> bool:
    return (_PROGRAMS / "postgres").exists()


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
        self._made = tempfile.mkdtemp(dir=_MEMORY if _MEMORY.is_dir() and not on_disk else None)
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


def _as_role(command: list[str]) -> list[str]:
    """A server does not run as root."""
    command = [str(_PROGRAMS / command[0]), *command[1:]]
    drop = ["setpriv", f"--reuid={_ROLE}", f"--regid={_ROLE}", "--init-groups"] if os.geteuid() == 0 else []
    return [*drop, *command]


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
