"""What a process takes, what this one may take, and which boot of the machine it is.

As /proc and the control groups tell it (proc(5), cgroups(7)); workers are not asked.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
#: what libraries of linear algebra read how many threads they may start from, when they are loaded
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
#: what glibc's allocator takes from the system it keeps, up to a bound: else a worker gives the planes of
#: every image back and has the system clear the same pages again for the next, some 700 for a CT image
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(32 << 20)}
_BOOT_ID = _PROC / "sys" / "kernel" / "random" / "boot_id"
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
#: places in /proc/PID/stat behind the name: utime, stime, rss
_USER, _SYSTEM, _RESIDENT = 11, 12, 21


@dataclass(frozen=True, slots=True)
class Usage:
    """User and system CPU time so far, seconds; memory at this moment, bytes."""

    cpu_s: float
    resident_bytes: int


def usage(pid: int) -> Usage | None:
    """What a process takes; None if it is gone, or the system has no /proc."""
    try:
        text = (_PROC / str(pid) / "stat").read_text("ascii", "replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    cpu_s = (int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS
    return Usage(cpu_s, int(fields[_RESIDENT]) * _PAGE_BYTES)


def usable_cores() -> int:
    """The cores that this process may use: those that it may run on, or fewer if a quota says so."""
    cores = len(os.sched_getaffinity(0))
    return max(1, min([cores, *(math.ceil(quota) for quota in _quotas())]))


def _quotas() -> Iterator[float]:
    """The quotas of this process' control group and those above it, in cores; cgroups(7) of both versions."""
    for line in _read(_PROC / "self" / "cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        if not controllers:
            yield from _along(_GROUPS, name, "cpu.max")
        elif "cpu" in controllers.split(","):
            yield from _along(_GROUPS / "cpu", name, "cpu.cfs_quota_us", "cpu.cfs_period_us")


def _along(root: Path, name: str, *files: str) -> Iterator[float]:
    group = root / name.lstrip("/")
    while group.is_relative_to(root):
        quota, *period = " ".join(_read(group / file) for file in files).split() or ["max"]
        if quota.isdecimal() and period and period[0].isdecimal() and int(period[0]):
            yield int(quota) / int(period[0])
        if group == root:
            break
        group = group.parent


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""


def share_cores(processes: int) -> None:
    """Have so many processes, started from now on, share the cores, each with memory that it keeps.

    Else libraries take all cores in each. What the operator has set stays.
    """
    threads = max(1, usable_cores() // max(1, processes))
    for name in _THREADS:
        os.environ.setdefault(name, str(threads))
    for name, value in _ALLOCATOR.items():
        os.environ.setdefault(name, value)


def boot_id() -> str:
    """Which boot of the machine this is; empty where the system does not tell."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


def living(held: Mapping[str, BaseProcess | None]) -> dict[str, int]:
    """The process id of each that runs, by its name."""
    return {
        name: process.pid
        for name, process in held.items()
        if process is not None and process.pid is not None and process.is_alive()
    }
