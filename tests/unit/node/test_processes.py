"""What /proc says of a process is what it takes."""

from __future__ import annotations

import multiprocessing
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dicom_node import processes
from dicom_node.processes import boot_id, living, share_cores, usable_cores, usage


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


@pytest.mark.parametrize(
    ("line", "files", "cores"),
    [
        ("0::/", {"cpu.max": "max 100000"}, 4),
        ("0::/", {"cpu.max": "150000 100000"}, 2),
        ("0::/", {"cpu.max": "20000 100000"}, 1),
        ("0::/", {"cpu.max": "900000 100000"}, 4),
        ("0::/system.slice/node.service", {"system.slice/node.service/cpu.max": "200000 100000"}, 2),
        ("0::/system.slice/node.service", {"system.slice/cpu.max": "100000 100000"}, 1),
        ("3:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "300000", "cpu/a/cpu.cfs_period_us": "100000"}, 3),
        ("3:cpu:/a", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, 4),
        ("3:memory:/a", {"memory/a/cpu.cfs_quota_us": "100000"}, 4),
        ("0::/", {}, 4),
        ("0::/", {"cpu.max": "nonsense"}, 4),
    ],
)
def test_a_quota_of_the_control_group_counts(
    line: str, files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups, proc = tmp_path / "cgroup", tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(f"{line}\n")
    for name, content in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(f"{content}\n")
    monkeypatch.setattr(processes, "_PROC", proc)
    monkeypatch.setattr(processes, "_GROUPS", groups)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3})
    assert usable_cores() == cores


def test_libraries_start_as_many_threads_as_are_left_to_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"MKL_NUM_THREADS": "7"})
    monkeypatch.setattr(processes, "usable_cores", lambda: 8)
    share_cores(3)
    assert {name: value for name, value in os.environ.items() if name.endswith("_THREADS")} == {
        "OMP_NUM_THREADS": "2",
        "OPENBLAS_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "7",
    }


def test_a_process_keeps_the_memory_of_an_image_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {**os.environ, "MALLOC_TRIM_THRESHOLD_": "131072"})
    share_cores(3)
    assert os.environ["MALLOC_TRIM_THRESHOLD_"] == "131072"  # the operator's
    code = (
        "import numpy as np, resource\n"
        "def images(count):\n"
        "    for _ in range(count):\n"
        "        planes = [np.ones((512, 512), np.int32) for _ in range(8)]\n"
        "images(3)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "images(20)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    del os.environ["MALLOC_TRIM_THRESHOLD_"]
    share_cores(3)
    made = subprocess.run(
        [sys.executable, "-c", code], env=os.environ, capture_output=True, check=True, timeout=60
    )
    if "glibc" in platform.libc_ver():
        assert int(made.stdout) < 20 * 256  # one plane's pages an image; otherwise those of eight


def test_the_boot_has_a_name_here() -> None:
    assert boot_id() == boot_id() != ""


def test_who_lives_is_named_with_its_number_and_nobody_else() -> None:
    context = multiprocessing.get_context("spawn")
    running, ended, never = (context.Process(target=time.sleep, args=(60,)) for _ in range(3))
    running.start()
    ended.start()
    ended.kill()
    ended.join()
    try:
        assert living({"a": running, "b": ended, "c": never, "d": None}) == {"a": running.pid}
    finally:
        running.kill()
        running.join()
