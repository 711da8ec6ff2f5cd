"""A YAML text as plain values with the line of each; what YAML would guess at is a problem."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

Place = tuple[str | int, ...]

_PLAIN_INT = re.compile(r"-?(0|[1-9][0-9]*)")
_PLAIN_FLOAT = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]+")
_TAG = "tag:yaml.org,2002:"


class Document:
    """The values of a YAML text with the line of each, and the problems found so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[Place, int] = {}
        self.problems: dict[Place, list[str]] = {}
        self._seen: set[int] = set()

    def problem(self, place: Place, message: str) -> None:
        """Note a problem; a place may have several, but each only once."""
        messages = self.problems.setdefault(place, [])
        if message not in messages:
            messages.append(message)

    def messages(self) -> tuple[str, ...]:
        """Every problem as `file:line: key: what is wrong`, in the order of the file."""
        found = [(self.line(place), place, " or ".join(said)) for place, said in self.problems.items()]
        found.sort(key=lambda problem: problem[0])
        return tuple(f"{self.path}:{line}: {_dotted(place)}: {said}" for line, place, said in found)

    def line(self, place: Place) -> int:
        """The line of a place, or of the nearest thing around it that is written down."""
        return next(
            (self.lines[place[:end]] for end in range(len(place), -1, -1) if place[:end] in self.lines), 1
        )

    def value(self, node: yaml.Node, place: Place) -> Any:
        """The plain value of a node; what YAML would guess at becomes a problem."""
        self.lines.setdefault(place, node.start_mark.line + 1)
        if id(node) in self._seen:
            self.problem(place, "anchors and aliases are not supported; write the value out")
            return None
        self._seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*place, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, place)

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
            inner = (*place, key)
            line = key_node.start_mark.line + 1
            if key in values:
                self.problem(
                    inner, f"is there twice, first on line {self.lines[inner]}, again on line {line}"
                )
                continue
            self.lines[inner] = line
            if key_node.tag != f"{_TAG}str":
                self.problem(inner, f"a key must be plain text; quote it: '{key}'")
            values[key] = self.value(value_node, inner)
        return values

    def _scalar(self, node: yaml.Node, place: Place) -> Any:
        text, kind = str(node.value), str(node.tag).removeprefix(_TAG)
        if kind == "str":
            return text
        if kind == "null" and text in ("", "~", "null"):
            return None
        if kind == "bool" and text in ("true", "false"):
            return text == "true"
        if kind == "int" and _PLAIN_INT.fullmatch(text):
            return int(text)
        if kind == "float" and _PLAIN_FLOAT.fullmatch(text):
            return float(text)
        self.problem(place, f"YAML reads {text} as {_guess(kind)}; if text is meant, quote it: '{text}'")
        return text


def _guess(kind: str) -> str:
    """What plain YAML would make of a value, in words."""
    words = {
        "bool": "true or false",
        "int": "a number in another base",
        "float": "a number in an unusual form",
        "null": "nothing",
        "timestamp": "a date",
    }
    return words.get(kind, f"a {kind}")


def syntax_problem(path: Path, error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        said = ", ".join(part for part in (error.context, error.problem) if part)
        return f"{path}:{error.problem_mark.line + 1}: {said}"
    return f"{path}: is not YAML: {error}"


def _dotted(place: Place) -> str:
    """`("routes", 0, "role")` as `routes[0].role`."""
    words = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return words.removeprefix(".") or "the file"
