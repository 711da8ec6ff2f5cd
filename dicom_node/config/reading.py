"""From a file to a `Config`, or to every problem of the file at once."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from dicom_node.config.document import Document, Place, syntax_problem
from dicom_node.config.kinds import Section
from dicom_node.config.references import check_references
from dicom_node.config.whole import Config, Workstation
from dicom_node.errors import ConfigError

Whole = TypeVar("Whole", Config, Workstation)

_NODE_ALONE = ("node", "storage", "routes")


def load(path: Path) -> Config:
    """Read and check a configuration file.

    Raises
    ------
    ConfigError : with every problem of the file, each with its line and what to write instead
    """
    return parse(_text(path), path)


def load_any(path: Path) -> Config | Workstation:
    """Read and check a file of either kind. Raises ConfigError, as `load`."""
    return _either(_text(path), path)


def load_workstation(path: Path) -> Workstation:
    """Read and check the file of a machine that asks archives: a node's, or one without a node.

    Raises ConfigError, as `load`.
    """
    return parse_workstation(_text(path), path)


def parse(text: str, path: Path) -> Config:
    """Check the text of a configuration file; `path` is where it came from. Raises ConfigError."""
    data, document = _read(text, path)
    return _checked(Config, data, document)


def parse_workstation(text: str, path: Path) -> Workstation:
    """As `parse`, of the file of a machine that asks archives."""
    found = _either(text, path)
    return Workstation.of_node(found) if isinstance(found, Config) else found


def _either(text: str, path: Path) -> Config | Workstation:
    """A file without any of the sections that only a node has, but with `query`, is a workstation's."""
    data, document = _read(text, path)
    if isinstance(data, dict) and "query" in data and not any(key in data for key in _NODE_ALONE):
        return _checked(Workstation, data, document)
    return _checked(Config, data, document)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise ConfigError((f"{path}: cannot be read: {error.strerror}",)) from error
    except UnicodeDecodeError as error:
        raise ConfigError((f"{path}: is not UTF-8 text",)) from error


def _read(text: str, path: Path) -> tuple[Any, Document]:
    document = Document(path)
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError((syntax_problem(path, error),)) from error
    return document.value(root, ()) if root is not None else {}, document


def _checked(model: type[Whole], data: Any, document: Document) -> Whole:
    config = _validated(model, data, document)
    check_references(data, document)
    if document.problems or config is None:
        raise ConfigError(document.messages())
    return config


def json_schema() -> str:
    """The JSON schema of the file, for editors; what `config/dicom-node.schema.json` holds."""
    schema = Config.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def _validated(model: type[Whole], data: Any, document: Document) -> Whole | None:
    # JSON mode is strict about values, yet takes paths, tuples and words of an enumeration from their only
    # spelling; Python's strict mode would want the objects themselves.
    try:
        return model.model_validate_json(json.dumps(data), context=document.path.parent)
    except ValidationError as error:
        unreadable = set(document.problems)
        for found in error.errors(include_url=False, include_context=False):
            if found["type"] == "too_short" and found["input"]:
                continue  # only what is good was counted; what is wrong with the others is told by itself
            place = _written_place(found["loc"], document, missing=found["type"] == "missing")
            if place not in unreadable:
                document.problem(place, _said(found["type"], found["msg"], found["input"], place))
        return None


def _written_place(location: Place, document: Document, *, missing: bool) -> Place:
    """Where in the file an error belongs: a union adds the name of its variant, which nobody wrote."""
    if missing or location in document.lines:
        return location
    return location[:-1]


def _said(kind: str, message: str, given: Any, place: Place) -> str:
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return f"is unknown here{_nearest(str(place[-1]))}"
    plain = message.removeprefix("Value error, ").removeprefix("Input ")
    return plain if isinstance(given, dict | list) else f"{plain}, not {json.dumps(given)}"


def _nearest(key: str) -> str:
    """A suggestion, if some key of the file is spelled much like this one."""
    known = [name for section in Section.__subclasses__() for name in section.model_fields]
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; the sections are {', '.join(Config.model_fields)}"
