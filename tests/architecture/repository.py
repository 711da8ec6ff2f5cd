"""The files of the repository, as these tests see them."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def files() -> list[Path]:
    """Every file that is, or would be, under version control; everything but build outputs without git."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        return [path for folder in _FOLDERS for path in (ROOT / folder).rglob("*") if _is_source(path)]
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


_FOLDERS = (
    "core",
    "dicom_node",
    "tests",
    "tools",
    "docs",
    "config",
    "systemd",
    "deploy",
    "benchmarks",
    "training",
)


def _is_source(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def modules(package: str) -> dict[str, Path]:
    """Dotted name below the package -> file, for `blessmark` or `dicom_node`."""
    source = ROOT / "core" / "blessmark" if package == "blessmark" else ROOT / package
    found = {}
    for path in source.rglob("*.py"):
        parts = path.relative_to(source).with_suffix("").parts
        found[".".join(parts)] = path
    return found
