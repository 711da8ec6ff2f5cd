"""DCMTK on both sides of what is measured: senders that log when they sent what, a sink that keeps what came.

Senders   storescu, one process for each association
Sink      storescp, one file for each object; when it came is when its file was written last
Usage     CPU seconds and memory of a process group
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from benchmarks.stand import listens, wait_until
from benchmarks.wire import head_of

STORESCU, STORESCP = "/usr/bin/storescu", "/usr/bin/storescp"
#: DCMTK leaves Nagle's algorithm on, which costs some 40 ms an object; every program here runs without it
_ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}
_LOG = """log4cplus.rootLogger = INFO, f
log4cplus.appender.f = log4cplus::FileAppender
log4cplus.appender.f.File = {log}
log4cplus.appender.f.ImmediateFlush = true
log4cplus.appender.f.layout = log4cplus::PatternLayout
log4cplus.appender.f.layout.ConversionPattern = %D{{%s.%q}} %m%n
"""
_TICKS, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
_SAMPLE_S = 0.1
#: nothing has come for so long: nothing will
_QUIET_S = 20.0


@dataclass(frozen=True, slots=True)
class Sent:
    """When an object began to be sent and was answered, seconds since 1970; the latter None if never."""

    at: float
    answered_at: float | None


class Senders:
    """So many associations, each with its share of the files, one object after the other."""

    def __init__(
        self, folder: Path, port: int, files: Sequence[Path], associations: int, host: str = "127.0.0.1"
    ) -> None:
        self._logs: list[Path] = []
        self._processes = []
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(associations):
            log, settings = folder / f"{number}.log", folder / f"{number}.cfg"
            settings.write_text(_LOG.format(log=log), "utf-8")
            share = [str(path) for path in files[number::associations]]
            command = [STORESCU, "-lc", str(settings), "-R", "-aet", f"BENCH{number}", "-aec", "NODE"]
            command += ["-to", "20", "-td", "120", host, str(port), *share]
            self._logs.append(log)
            self._processes.append(
                subprocess.Popen(
                    command, env=_ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            )

    def wait(self, limit_s: float) -> None:
        """Wait until every sender has ended."""
        deadline = time.monotonic() + limit_s
        for process in self._processes:
            process.wait(max(0.1, deadline - time.monotonic()))

    def sent(self) -> dict[str, Sent]:
        """What was sent, by file name."""
        found: dict[str, Sent] = {}
        for log in self._logs:
            name = ""
            for line in log.read_text("utf-8", "replace").splitlines():
                said_at, _, message = line.partition(" ")
                if message.startswith("Sending file: "):
                    name = Path(message[14:].strip()).name
                    found[name] = Sent(float(said_at), None)
                elif message.startswith("Received Store Response (Success)"):
                    found[name] = Sent(found[name].at, float(said_at))
        return found


class Sink:
    """A receiver that keeps every object under a name of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        folder.mkdir(parents=True)
        command = [STORESCP, "--fork", "-aet", "SINK", "-pdu", "131072", "-pm", "+xa", "+B", "+uf"]
        self._process = subprocess.Popen(
            [*command, "-od", str(folder), str(port)],
            env=_ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(lambda: listens(port), 20.0, "the sink listens")

    def count(self) -> int:
        """How many files there are, the last of which may still be written to."""
        return sum(1 for _ in self.folder.iterdir())

    def wait(self, wanted: int) -> None:
        """Wait until so many objects have come, or nothing has for long."""
        seen, since = -1, time.monotonic()
        while time.monotonic() - since < _QUIET_S:
            if (now := self.count()) != seen:
                seen, since = now, time.monotonic()
            if seen >= wanted and time.monotonic() - since > 1.0:
                return
            time.sleep(0.02)

    def arrivals(self) -> dict[str, list[float]]:
        """SOP Instance UID -> when it came, each time."""
        found: dict[str, list[float]] = {}
        for path in self.folder.iterdir():
            found.setdefault(head_of(path).sop_instance_uid, []).append(path.stat().st_mtime)
        return found

    def close(self) -> None:
        """End it and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Usage(threading.Thread):
    """CPU seconds and greatest memory of every process of some groups, from its start to `finish`."""

    def __init__(self, *groups: int) -> None:
        super().__init__(daemon=True)
        self._groups, self._ended = frozenset(groups), threading.Event()
        self._most = 0.0
        self.peak_mb = 0.0
        self._look()
        self._before = self._most

    def run(self) -> None:
        """Look now and then."""
        while not self._ended.wait(_SAMPLE_S):
            self._look()

    def finish(self) -> float:
        """CPU seconds spent since the start, those of processes that ended included."""
        self._ended.set()
        self.join()
        self._look()
        return self._most - self._before

    def _look(self) -> None:
        cpu_s, memory = spent(self._groups)
        self._most = max(self._most, cpu_s)
        self.peak_mb = max(self.peak_mb, memory / 1e6)


def spent(roots: AbstractSet[int]) -> tuple[float, int]:
    """CPU seconds so far, and bytes of memory now, of these processes, their groups and their children."""
    ticks = memory = 0
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (entry / "stat").read_text("utf-8").rpartition(")")[2].split()
            if not roots.isdisjoint({int(entry.name), int(fields[1]), int(fields[2])}):
                ticks += sum(map(int, fields[11:15]))  # its own, and of its children that have ended
                memory += int(fields[21]) * _PAGE
    return ticks / _TICKS, memory
