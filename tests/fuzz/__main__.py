"""Coverage-guided fuzzing of what strangers' bytes go through: `make fuzz`.

    python -m tests.fuzz pdu --runs 100000      one target
    python -m tests.fuzz all --seconds 60       every target, one after the other; writes a table

An input that makes a target raise, hang for 5 s or take 2 GiB is kept in `fuzz-out/` and ends that target.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OUT = Path("fuzz-out")
_MEMORY_MB, _HANG_S = 2048, 5
_INSTRUMENTED = ["blessmark", "dicom_node", "pydicom", "pynetdicom"]
_EXECUTED = re.compile(r"stat::number_of_executed_units: +(\d+)|Done (\d+) (?:runs )?in")
_COVERED = re.compile(r"cov: (\d+)")


def main() -> int:
    """Run one target in this process, or every one in a process of its own."""
    asked = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    asked.add_argument("target")
    asked.add_argument("--runs", type=int, default=-1)
    asked.add_argument("--seconds", type=int, default=0)
    args = asked.parse_args()
    if args.target != "all":
        return _one(args.target, args.runs, args.seconds)
    return _all(args.runs, args.seconds)


def _one(name: str, runs: int, seconds: int) -> int:
    import atheris

    with atheris.instrument_imports(include=_INSTRUMENTED, exclude=_compiled()):
        from tests.fuzz.targets import TARGETS
    from dicom_node import log

    log.silence_warnings()
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(target.seeds()):
            Path(corpus, str(number)).write_bytes(seed)
            target.run(seed)  # compiles what is compiled at first use, outside the clock
        options = {
            "runs": runs,
            "max_total_time": seconds,
            "max_len": target.longest,
            "timeout": _HANG_S,
            "rss_limit_mb": _MEMORY_MB,
            "artifact_prefix": f"{OUT}/{name}-",
            "print_final_stats": 1,
            "len_control": 20,
        }
        OUT.mkdir(exist_ok=True)
        atheris.Setup(
            [sys.argv[0], *(f"-{key}={value}" for key, value in options.items()), corpus], target.run
        )
        atheris.Fuzz()  # ends the process
    return 0


def _compiled() -> list[str]:
    """Modules with loops that numba compiles, which it cannot do with the instruments in them."""
    source = Path(__file__).resolve().parents[2] / "core"
    compiled = [path for path in source.rglob("*.py") if "blessmark.jit import" in path.read_text("utf-8")]
    return [".".join(path.relative_to(source).with_suffix("").parts) for path in compiled]


def _all(runs: int, seconds: int) -> int:
    from benchmarks.results import environment
    from tests.fuzz.targets import TARGETS

    rows = [_measured(name, runs, seconds, target.round) for name, target in TARGETS.items()]
    OUT.mkdir(exist_ok=True)
    (OUT / "result.json").write_text(
        json.dumps({"environment": environment(), "targets": rows}, indent=2) + "\n"
    )
    for row in rows:
        print(" ".join(f"{key}={value}" for key, value in row.items()))
    return 1 if any(row["found"] for row in rows) else 0


def _measured(name: str, runs: int, seconds: int, most: int) -> dict[str, object]:
    """Run a target in processes of `most` cases each, until so many runs or seconds are over."""
    began, cases, covered, found = time.monotonic(), 0, 0, False
    while not found and (runs < 0 or cases < runs) and (not seconds or time.monotonic() - began < seconds):
        left = most if runs < 0 else min(most, runs - cases)
        rest = max(1, round(seconds - (time.monotonic() - began))) if seconds else 0
        done = _round(name, left, rest)
        found = done.returncode != 0
        cases += max((int(one or other) for one, other in _EXECUTED.findall(done.stderr)), default=0)
        covered = max([covered, *(int(count) for count in _COVERED.findall(done.stderr))])
        if found:
            print(done.stderr[-3000:], file=sys.stderr)
    took = round(time.monotonic() - began)
    return {"target": name, "cases": cases, "covered": covered, "seconds": took, "found": found}


def _round(name: str, runs: int, seconds: int) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "tests.fuzz", name, "--runs", str(runs), "--seconds", str(seconds))
    return subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")


if __name__ == "__main__":
    sys.exit(main())
