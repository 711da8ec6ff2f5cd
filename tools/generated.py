"""Parts of documents that are written by a program, between two markers that stay in the document.

<!-- generated: NAME -->
...
<!-- end -->
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def filled(text: str, parts: Mapping[str, str]) -> str:
    """`text` with every marked part replaced; KeyError for a marker without a part."""

    def fill(marker: re.Match[str]) -> str:
        return f"{marker[1]}\n{parts[marker[2]]}\n<!-- end -->"

    return re.sub(r"(<!-- generated: ([a-z-]+) -->)\n.*?<!-- end -->", fill, text, flags=re.DOTALL)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def update(path: Path, text: str) -> None:
    """Write `path` if that changes it, and say which."""
    fresh = path.exists() and path.read_text("utf-8") == text
    path.write_text(text, "utf-8")
    print(f"{path.relative_to(REPOSITORY)}: {'unchanged' if fresh else 'written'}")
