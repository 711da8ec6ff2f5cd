"""One HTML page with every table and picture of a result, to look at without anything installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from benchmarks.results import Cell, Result, Table, environment

_STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:1100px;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;margin:.5em 0 2em}td,th{border:1px solid #bbb;padding:.2em .7em}"
    "td+td{text-align:right}img{max-width:100%}figcaption,small{color:#555}"
)


@dataclass(frozen=True, slots=True)
class Sheet:
    """A picture beside the page: its file name and what it shows."""

    file: str
    caption: str


def write(folder: Path, result: Result, sheets: Sequence[Sheet]) -> Path:
    """Write `index.html` into the folder that holds the pictures; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {**result.parameters, **environment()}
    parts = [
        f"<!doctype html><meta charset=utf-8><title>{escape(result.title)}</title><style>{_STYLE}</style>",
        f"<h1>{escape(result.title)}</h1>",
        "<ul>" + "".join(f"<li>{escape(note)}" for note in result.notes) + "</ul>",
        *(_table(table) for table in result.tables),
        *(
            f'<figure><img src="{escape(sheet.file)}" alt=""><figcaption>{escape(sheet.caption)}'
            "</figcaption></figure>"
            for sheet in sheets
        ),
        f"<small>{escape(', '.join(f'{key} {value}' for key, value in about.items()))}</small>",
    ]
    path = folder / "index.html"
    path.write_text("\n".join(parts) + "\n", encoding="utf-8")
    return path


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}" for column in table.columns)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}" for cell in row) for row in table.rows)
    return f"<h2>{escape(table.caption)}</h2><table><tr>{head}{body}</table>"


def _text(cell: Cell) -> str:
    if cell is None:
        return "&ndash;"
    return f"{cell:.2f}" if isinstance(cell, float) else escape(str(cell))
