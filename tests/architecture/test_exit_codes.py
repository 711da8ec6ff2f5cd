"""Exit codes and DIMSE statuses: every error has one, and the documents say the same."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dicom_node import cli, errors
from dicom_node.errors import EXIT_DONE, EXIT_ERROR, EXIT_FINDING, EXIT_USAGE, NodeError, UsageError
from tests.architecture.repository import ROOT


def every_error(root: type[NodeError] = NodeError) -> Iterator[type[NodeError]]:
    yield root
    for child in root.__subclasses__():
        yield from every_error(child)


def test_an_error_exits_with_1_and_a_wrong_command_line_with_2() -> None:
    for kind in every_error():
        assert kind.exit_code == (EXIT_USAGE if issubclass(kind, UsageError) else EXIT_ERROR)


def test_every_status_is_a_c_store_failure() -> None:
    assert {f"{kind.dimse_status:04X}"[0] for kind in every_error()} <= {"A", "C"}


def test_every_error_is_drawn_in_the_tree() -> None:
    assert errors.__doc__ is not None
    for kind in every_error():
        assert kind.__name__ in errors.__doc__


def test_the_documents_list_the_codes() -> None:
    table = (ROOT / "docs" / "cli.md").read_text("utf-8")
    codes = [int(code) for code in re.findall(r"^\| ([0-9]) \|", table, re.M)]
    assert codes == [EXIT_DONE, EXIT_ERROR, EXIT_USAGE, EXIT_FINDING] == [0, 1, 2, 3]
    epilog = cli.parser().epilog or ""
    assert [int(code) for code in re.findall(r"\b([0-9])\b", epilog)] == codes


def test_every_command_is_documented() -> None:
    table = (ROOT / "docs" / "cli.md").read_text("utf-8")
    (commands,) = (action for action in cli.parser()._actions if action.dest == "command")
    assert commands.choices is not None
    for name in commands.choices:
        assert f"| `{name}" in table
