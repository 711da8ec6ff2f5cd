"""Writes the tables of docs/logging.md from the code that writes the lines: `make docs`.

Every call that writes a line is found in the sources, with the words that it may write, its levels and its
fields; so a line that is new stands in the document, and one that is gone does not. What a line means is said
here, for those whose name does not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dicom_node import log
from tools.generated import REPOSITORY, filled, table, update

DOCUMENT = REPOSITORY / "docs" / "logging.md"
_LEVELS = {"DEBUG": "debug", "INFO": "info", "WARNING": "warning", "ERROR": "error", "CRITICAL": "critical"}

#: line -> what happened
MEANINGS: Mapping[str, str] = {
    "association": "an association of a peer has ended: who it was, how it ended, what it brought",
    "association-rejected": "a peer was not let in, with the word for why",
    "audit-fault": "the audit trail met something unforeseen; it goes on",
    "audit-begins-anew": "the ledger is older than what was told of it; the trail goes on from its end",
    "audit-held-up": "the audit trail is full or cannot be written; what happened waits in the ledger",
    "audit-lost": "events could not be told to the audit trail and were counted instead",
    "audit-repository-away": "the audit repository cannot be reached; messages wait on disk",
    "audit-repository-back": "it takes messages again",
    "broker-away": "the broker of the cluster takes no messages; everybody looks into the ledger instead",
    "broker-back": "it takes messages again",
    "broker-heard-again": "messages of the broker are heard again",
    "broker-not-heard": "the broker of the cluster cannot be heard; everybody looks into the ledger instead",
    "bytes-lost": "a start found the bytes of an object missing or changed",
    "cleaned": "what nobody needs any more was removed",
    "dead-letter": "a delivery was given up; an operator decides",
    "clock-set-back": "the clock of this machine was set back; what waits in the ledger follows it",
    "delivered": "an object has reached a destination: its whole way in one line",
    "batch-failed": "the batcher could not evaluate a network; the workers that asked do it themselves",
    "batcher-silent": "the batcher did not answer a worker, which asks again and then helps itself",
    "delivery-failed": "an attempt failed and will be repeated",
    "destination-back": "a destination that was down takes objects again",
    "destination-down": "a destination is asked with one object at a time until it answers",
    "dispatch-fault": "what hears the broker met something unforeseen; it begins anew",
    "forwarder-fault": "a lane met something unforeseen; if a delivery is named, it cost that an attempt",
    "lease-lost": "somebody else has the object now; this result is dropped",
    "leading": "this node does now what one node of a cluster does for all",
    "leading-no-more": "it has laid that down",
    "ledger-refuses": "the database refuses for now; the write is repeated",
    "library": "a library said something; only where it came from is shown",
    "made-again": "what was to be sent had been lost and is made again from what arrived",
    "network-started": "a worker evaluates a network, on what, and whether it proved itself",
    "not-leading": "this node could not lead; another may, and it tries again",
    "not-kept": "an object could not be kept; its sender hears a status",
    "note": "a line without an event of its own",
    "processed": "a worker has ended its work on an object; at level debug if it goes on to a destination",
    "purged": "finished objects were forgotten (storage.history_days)",
    "put-off": "the work is tried again later",
    "ready": "the node serves",
    "reconciler-fault": "a look for what is due failed; the next follows in seconds",
    "received": "an object is on disk and was acknowledged",
    "recovered": "a start has put right what the last run left",
    "refused": "an object was refused, with the status that its sender heard",
    "relieved": "the disk is short; finished objects went before their time",
    "same-uid-other-content": "a SOP Instance UID came again with other content",
    "signature-not-checked": "a route judged a signed image by the ring; whose signature it is only `verify` "
    "with `--public-key` tells. Once for each route of a worker",
    "stopped": "the node has ended",
    "stopping": "the node was told to end",
    "study-unknown": "an object does not tell its study; the audit trail says unknown",
    "unknown-destination": "deliveries wait for a destination that is not in the configuration",
    "unknown-objects": "the spool holds objects that the ledger does not know",
    "worker-died": "a worker process or the batcher ended, by itself if it hung; what it had in hand was "
    "taken back",
}


@dataclass(frozen=True, slots=True)
class Line:
    """A call that writes a line: the words that it may write, its levels and its fields."""

    names: tuple[str, ...]
    levels: tuple[str, ...]
    fields: tuple[str, ...]


def lines() -> list[Line]:
    """Every call in the sources that writes a line, in the order of files and lines."""
    found: list[Line] = []
    for path in sorted((REPOSITORY / "dicom_node").rglob("*.py")):
        module = ast.parse(path.read_text("utf-8"))
        for scope in ast.walk(module):
            if isinstance(scope, ast.FunctionDef):
                values = _values(module) | _values(scope)
                found += [line for call in _calls(scope) if (line := _line(call, values)) is not None]
    return found


def _calls(scope: ast.AST) -> Iterator[ast.Call]:
    """The calls of a function, without those of the functions in it."""
    for child in ast.iter_child_nodes(scope):
        if isinstance(child, ast.Call):
            yield child
        if not isinstance(child, ast.FunctionDef):
            yield from _calls(child)


def _values(scope: ast.Module | ast.FunctionDef) -> dict[str, ast.AST]:
    """Name -> the expression that it stands for, or the function."""
    found: dict[str, ast.AST] = {}
    for node in ast.walk(scope) if isinstance(scope, ast.FunctionDef) else scope.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value
        elif isinstance(node, ast.FunctionDef):
            found[node.name] = node
    return found


def _line(call: ast.Call, values: Mapping[str, ast.AST]) -> Line | None:
    function = ast.unparse(call.func)
    given = {word.arg: word.value for word in call.keywords if word.arg is not None}
    fields = tuple(name for name in given if name != "level")
    match function:
        case "log.event":
            names = tuple(_texts(call.args[1], values))
            levels = tuple(_levels(given["level"], values)) if "level" in given else ()
            return Line(names, levels or ("info",), fields) if names else None
        case "audit" if call.args:  # what an operator did, `cli.live.audit`
            return Line(tuple(_texts(call.args[0], values)), ("info",), (*fields, "reason"))
        case "Occurrence" | "security.Occurrence":
            told = ("reason", "peer", "calling_ae", "called_ae")
            return Line(tuple(_texts(call.args[0], values)), ("warning",), told)
    return None


def _texts(node: ast.AST, values: Mapping[str, ast.AST]) -> Iterator[str]:
    """The words that an expression may be."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from (*_texts(node.body, values), *_texts(node.orelse, values))
    elif isinstance(node, ast.Name) and node.id in values:
        yield from _texts(values[node.id], {})


def _levels(node: ast.AST, values: Mapping[str, ast.AST]) -> Iterator[str]:
    """The levels that an expression may be: all that it, or what it names, mentions."""
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and part.attr in _LEVELS:
            yield _LEVELS[part.attr]
        elif isinstance(part, ast.Name) and part.id in values:
            yield from _levels(values[part.id], {})


def rendered(text: str) -> str:
    """The document with its tables as the code would have them today."""
    return filled(text, {"log-lines": _lines(), "log-fields": _fields()})


def _lines() -> str:
    rows: dict[str, tuple[set[str], dict[str, None]]] = {}
    for line in lines():
        for name in line.names:
            levels, fields = rows.setdefault(name, (set(), {}))
            levels |= set(line.levels)
            fields |= dict.fromkeys(line.fields)
    order = list(_LEVELS.values())
    return table(
        ("Line", "Level", "What happened", "Fields"),
        (
            (
                f"`{name}`",
                ", ".join(sorted(levels, key=order.index)),
                MEANINGS.get(name, name.replace("-", " ")),
                ", ".join(f"`{field}`" for field in fields),
            )
            for name, (levels, fields) in sorted(rows.items())
        ),
    )


def _fields() -> str:
    return table(("Field", "What it holds"), ((f"`{name}`", meaning) for name, meaning in log.FIELDS.items()))


if __name__ == "__main__":
    update(DOCUMENT, rendered(DOCUMENT.read_text("utf-8")))
