"""Model cards: what a network was made from, what it scored, what was not measured."""

from __future__ import annotations

from blessmark.segment.integer import Network


def card_text(network: Network) -> str:
    """The generated part of a model card, in Markdown."""
    card = network.card
    lines = [f"# {network.id}", "", f"SHA-256 `{network.digest}`", "", f"Data: {card['data']}", ""]
    lines += [f"Licence: {card['licence']}", "", "## Scores", ""]
    for lattice, rows in card["scores"].items():
        lines += [f"Part or view: {lattice}", "", *_table(rows), ""]
    lines += ["## Training", "", *(f"- {name}: {value}" for name, value in card["training"].items())]
    return "\n".join(lines) + "\n"


def _table(rows: list[dict[str, float | str]]) -> list[str]:
    heads = list(rows[0])
    body = [[str(row[head]) for head in heads] for row in rows]
    return ["| " + " | ".join(cells) + " |" for cells in (heads, ["---"] * len(heads), *body)]
