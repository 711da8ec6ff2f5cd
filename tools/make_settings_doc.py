"""Writes docs/settings.md from the models of dicom_node/config/ and the commented example: `make docs`.

Defaults, types and ranges come from the models; what a key is for comes from the comments of
config/dicom-node.example.yaml, so that neither is said twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dicom_node import config
from tools.generated import REPOSITORY, table, update

DOCUMENT = REPOSITORY / "docs" / "settings.md"
_EXAMPLE = REPOSITORY / "config" / "dicom-node.example.yaml"
#: what few need, in a file of its own: it takes the place of the section in the example
_CLUSTER_EXAMPLE = REPOSITORY / "config" / "dicom-node.cluster.example.yaml"
#: where the keys are names that the site chooses
_NAMED_BY_THE_SITE = (["destinations"], ["query", "peers"])
_KEY = re.compile(r"(?P<indent> *)(?P<item>- )?(?P<key>[a-z_]+):")

_HEAD = """\
# Settings

<!-- written by `make docs` from dicom_node/config/ and the examples in config/; do not edit -->

One YAML file, named by `dicom-node serve --config FILE`. Check it with `dicom-node config check FILE`: every
problem is reported at once, with its line and a remedy. Relative paths are relative to the file. Values that
YAML would read as something else (`NO`, `0104`, `12:30`) are refused until they are quoted; unknown and
repeated keys are errors. A commented file with every key is `config/dicom-node.example.yaml`
(its section `cluster`: `config/dicom-node.cluster.example.yaml`);
`config/dicom-node.schema.json` is for editors (`dicom-node config schema` prints it).
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key of the example: where it stands and what its comment says."""

    path: tuple[str, ...]
    comment: str


def rendered() -> str:
    """The whole document."""
    schema = json.loads(config.json_schema())
    entries = [entry for entry in _entries(_EXAMPLE.read_text("utf-8")) if entry.path[0] != "cluster"]
    entries += _entries(_CLUSTER_EXAMPLE.read_text("utf-8"))
    sections = [_section(name, schema, entries) for name in config.Config.model_fields]
    return "\n".join([_HEAD, *sections])


def _section(name: str, schema: Mapping[str, Any], entries: list[Entry]) -> str:
    own = [entry for entry in entries if entry.path[0] == name]
    rows = [row for entry in own[1:] if (row := _row(entry, schema)) is not None]
    headings = ("Key", "Default", "Allowed", "Meaning")
    return f"## {name}\n\n{own[0].comment}\n\n{table(headings, rows)}\n"


def _row(entry: Entry, schema: Mapping[str, Any]) -> tuple[str, str, str, str] | None:
    """Key, default, allowed values, meaning; None for a name that the site chooses."""
    found = _property(entry.path, schema)
    if found is None:
        return None
    facts, required = found
    shown = ".".join(entry.path[1:])
    default = "required" if required else _default(facts.get("default"))
    return f"`{shown}`", default, _allowed(facts, schema), entry.comment.removeprefix("Required. ")


def _property(path: tuple[str, ...], schema: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool] | None:
    """What the schema says of a key, and whether it must be given."""
    facts, required = schema, False
    for name in path:
        model = _resolved(_present(facts.get("items", facts)), schema)
        if name == "NAME":
            (facts,) = model["patternProperties"].values()
        else:
            facts, required = model["properties"][name], name in model.get("required", ())
    return None if path[-1] == "NAME" else (facts, required)


def _resolved(facts: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in facts:
        facts = schema["$defs"][facts["$ref"].rpartition("/")[2]]
    return facts


def _present(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a section that may also be null, the section."""
    return next((variant for variant in facts.get("anyOf", ()) if "$ref" in variant), facts)


def _default(value: Any) -> str:
    if isinstance(value, list) and (len(value) > 3 or any(isinstance(each, dict) for each in value)):
        return "see the example"
    if isinstance(value, dict) and value:
        return "as below"
    return f"`{json.dumps(value)}`"


def _allowed(facts: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    facts = _resolved(facts, schema)
    if "anyOf" in facts:
        return " or ".join(_allowed(variant, schema) for variant in facts["anyOf"])
    if "enum" in facts or "const" in facts:
        return ", ".join(f"`{word}`" for word in facts.get("enum", [facts.get("const")]))
    if "propertyNames" in facts:
        return (
            f"{_allowed(facts['propertyNames'], schema)}: {_allowed(facts['additionalProperties'], schema)}"
        )
    kind = str(facts.get("type", "text"))
    if kind == "array":
        return f"list of {_allowed(facts['items'], schema)}"
    words = {"string": "text", "integer": "whole number", "null": "`null`", "object": "keys below"}
    return " ".join([words.get(kind, kind), *_range(facts)])


def _range(facts: Mapping[str, Any]) -> Iterator[str]:
    if "exclusiveMinimum" in facts:
        yield f"above {facts['exclusiveMinimum']:.10g}"
    if "minimum" in facts:
        yield f"from {facts['minimum']:.10g}"
    if "maximum" in facts:
        yield f"to {facts['maximum']:.10g}"
    if "maxLength" in facts:
        yield f"of at most {facts['maxLength']} characters"


def _entries(text: str) -> Iterator[Entry]:
    """Every key of the example with the comment above it; a site's own names become NAME."""
    stack: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#  - "):
            continue  # a value as an example, not a word about the next key
        if stripped.startswith("#"):
            comment.append(stripped.lstrip("# "))
        elif match := _KEY.match(line):
            indent = len(match["indent"]) + len(match["item"] or "")
            stack = [(depth, name) for depth, name in stack if depth < indent]
            name = "NAME" if [n for _, n in stack] in _NAMED_BY_THE_SITE else match["key"]
            stack.append((indent, name))
            yield Entry(tuple(n for _, n in stack), " ".join(comment))
            comment = []
        elif not stripped:
            comment = []


if __name__ == "__main__":
    update(DOCUMENT, rendered())
