"""What /proc says of a process is what it takes."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil

from dicom_node.processes import boot_id, usage


def test_this_process_as_psutil_sees_it() -> None:
    found, seen = usage(os.getpid()), psutil.Process()
    assert found is not None
    assert abs(found.resident_bytes - seen.memory_info().rss) < 50_000_000
    times = seen.cpu_times()
    assert abs(found.cpu_s - times.user - times.system) < 1.0


def test_cpu_time_goes_up() -> None:
    before = usage(os.getpid())
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    after = usage(os.getpid())
    assert before is not None
    assert after is not None
    assert after.cpu_s > before.cpu_s


def test_a_process_that_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert usage(child.pid) is None


def test_the_boot_has_a_name_here() -> None:
    assert boot_id() == boot_id() != ""
