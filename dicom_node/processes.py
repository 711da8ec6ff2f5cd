"""What /proc tells (proc(5)): what a process of this machine takes, and which boot of the machine it is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
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


def boot_id() -> str:
    """Which boot of the machine this is; empty where the system does not tell."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""
