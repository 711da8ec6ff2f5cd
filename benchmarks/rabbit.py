"""A RabbitMQ of one's own: with ports, folder and name that nobody else has; the system's is left alone."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from benchmarks.stand import Program, free_port, listens, wait_until

_BIN = Path("/usr/lib/rabbitmq/bin")
_USER = "rabbitmq"
VHOST = "dicom-node"
NAME = "dicom-node"


def installed() -> bool:
    """Whether this machine has one to start."""
    return (_BIN / "rabbitmq-server").exists()


class Rabbit(Program):
    """Debian's RabbitMQ, started as its own user; `kill` and `start` again keep what is in its queues."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._host = host
        folder = Path(tempfile.mkdtemp(prefix="rabbit-"))
        super().__init__(folder, free_port())
        self._names = free_port(), free_port()  # of epmd, and between nodes
        self.password = secrets.token_hex(8)
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            f"{f'listeners.tcp.2 = {host}:{self.port}' if host != '127.0.0.1' else ''}\n"
            f"default_vhost = {VHOST}\ndefault_user = {NAME}\ndefault_pass = {self.password}\n"
            "raft.wal_max_size_bytes = 16777216\nvm_memory_high_watermark.relative = 0.3\n"
            "disk_free_limit.absolute = 50MB\n",
            "utf-8",
        )
        (folder / "enabled_plugins").write_text("[].\n", "utf-8")
        if os.geteuid() == 0:
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, _USER, _USER)

    @property
    def url(self) -> str:
        """Where it is, without the password."""
        return f"amqp://{NAME}@{self._host}:{self.port}/{VHOST}"

    def start(self) -> Rabbit:
        """Start, and wait until it takes connections."""
        self.launch(self._as_user("rabbitmq-server"), self._environment())
        self.await_port()
        wait_until(lambda: self.control("await_startup"), 60.0, "RabbitMQ")
        return self

    def control(self, *words: str) -> str:
        """What `rabbitmqctl` says; empty when it fails."""
        command = [str(part) for part in self._as_user("rabbitmqctl")]
        environment = {**os.environ, **self._environment()}
        done = subprocess.run(
            [*command, "-q", *words], env=environment, capture_output=True, text=True, check=False, timeout=90
        )
        return (done.stdout or "done") if done.returncode == 0 else ""

    def depths(self) -> dict[str, int]:
        """Messages in each queue, those on their way to a consumer included."""
        said = self.control("list_queues", "-p", VHOST, "name", "messages", "--no-table-headers")
        return {
            name: int(count) for name, count in (line.split() for line in said.splitlines() if "\t" in line)
        }

    def purge(self) -> None:
        """Take every waiting message out of every queue."""
        for name in self.depths():
            self.control("purge_queue", "-p", VHOST, name)

    def close(self) -> None:
        """End it for good, with all that it has started, and forget its files."""
        if self.running:
            self.kill()
        wait_until(self._names_are_gone, 10.0, "the end of epmd")
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        """SIGKILL to the server and to what it has started."""
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self.folder / "pid").read_text("ascii")), signal.SIGKILL)
        super().kill()

    def _names_are_gone(self) -> bool:
        """Ask epmd to end; it does not while it knows a node."""
        names = {**os.environ, "ERL_EPMD_PORT": str(self._names[0])}
        subprocess.run(["epmd", "-kill"], env=names, capture_output=True, check=False)
        return not listens(self._names[0])

    def _as_user(self, program: str) -> list[str | Path]:
        command: list[str | Path] = [_BIN / program]
        return ["runuser", "-u", _USER, "--", *command] if os.geteuid() == 0 else command

    def _environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return {
            "HOME": folder,
            "ERL_EPMD_PORT": str(self._names[0]),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"node-{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._names[1]),
            "RABBITMQ_BASE": folder,
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        }
