"""What a benchmark found: saved as JSON beside where it was found, and rendered into RESULTS.md."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"
PAGE = Path(__file__).parent / "RESULTS.md"
_LIBRARIES = ("numpy", "numba", "scipy", "pydicom", "pyjpegls", "cryptography")

Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class Table:
    """One table: a caption, column names and rows of as many cells."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"{self.caption}: a row has not {len(self.columns)} cells")


@dataclass(frozen=True, slots=True)
class Result:
    """What one benchmark found; `notes` say how it was measured, `parameters` what chose the inputs."""

    name: str
    title: str
    notes: tuple[str, ...]
    tables: tuple[Table, ...]
    parameters: Mapping[str, Cell] = field(default_factory=dict)
    #: the few figures to be compared over the commits; every saved run adds a line
    summary: Mapping[str, Cell] = field(default_factory=dict)


def save(result: Result) -> Path:
    """Write `results/NAME.json` and the page of all results."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{result.name}.json"
    document = {**asdict(result), "environment": environment()}
    if result.summary:
        _remember(result)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
    return path


def _remember(result: Result) -> None:
    """Add a line to the history of a benchmark."""
    found = environment()
    line = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "commit": found["commit"], "cpu": found["cpu"]}
    with (FOLDER / f"{result.name}.history.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({**line, **result.summary}, ensure_ascii=False) + "\n")


def _history(name: str) -> str:
    """Every saved run of a benchmark that keeps a history, as a table; else nothing."""
    path = FOLDER / f"{name}.history.jsonl"
    if not path.exists():
        return ""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    columns = tuple(dict.fromkeys(key for line in lines for key in line))
    rows = tuple(tuple(line.get(key) for key in columns) for line in lines)
    return markdown(Table("Over the commits", columns, rows)) + "\n"


def environment() -> dict[str, Cell]:
    """Commit, machine and library versions."""
    found: dict[str, Cell] = {
        "commit": _git("rev-parse", "--short", "HEAD") + ("+" if _git("status", "--porcelain") else ""),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    return found | {name: version(name) for name in _LIBRARIES}


def page() -> str:
    """RESULTS.md from every saved result that has tables."""
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))]
    parts = [
        "# Results\n\nWritten by `make bench` from the files in `results/`; do not edit. A `+` behind the "
        "commit means uncommitted changes.\n"
    ]
    parts += [_section(document) for document in documents if "tables" in document]
    return "\n".join(parts)


def _section(document: Mapping[str, Any]) -> str:
    """One result as Markdown."""
    tables = [Table(**table) for table in document["tables"]]
    notes = "\n".join(f"- {note}" for note in document["notes"])
    about = {**document["parameters"], **document["environment"]}
    line = ", ".join(f"{key} {value}" for key, value in about.items())
    shown = "\n".join(markdown(table) for table in tables if table.rows)
    shown += "\n" * bool(shown) + _history(document["name"])
    return f"## {document['title']}\n\n{notes}\n\n{shown}\n<sub>{line}</sub>\n"


def markdown(table: Table) -> str:
    """A table with its caption above; numbers are aligned to the right."""
    numeric = [
        any(isinstance(row[at], (int, float)) for row in table.rows) for at in range(len(table.columns))
    ]
    rule = ["---:" if number else "---" for number in numeric]
    rows = [table.columns, rule, *([_text(cell) for cell in row] for row in table.rows)]
    return f"**{table.caption}**\n\n" + "".join("| " + " | ".join(row) + " |\n" for row in rows)


def _text(cell: Cell) -> str:
    if cell is None:
        return "–"  # noqa: RUF001 - a dash for a reader, not a minus sign
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell)


def share(part: int, whole: int) -> str:
    """`part` of `whole` as a percentage with the counts beside it."""
    return f"{100 * part / whole:.1f} % ({part}/{whole})" if whole else "none"


def quantiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Least, median, greatest."""
    ordered = sorted(values)
    return ordered[0], ordered[len(ordered) // 2], ordered[-1]


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), *arguments], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else "unknown"
