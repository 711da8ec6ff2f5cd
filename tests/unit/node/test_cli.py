"""Arguments and exit codes: what a command raises becomes one line and a number."""

from __future__ import annotations

import argparse
import signal
import sys
import types
import warnings
from pathlib import Path

import pytest

from blessmark.errors import SegmenterError
from dicom_node import cli
from dicom_node.errors import ConfigError, InputError, NodeError, UsageError


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The `selftest` command, replaced by one that a test fills."""
    module = types.ModuleType("dicom_node.cli.selftest")
    monkeypatch.setitem(sys.modules, "dicom_node.cli.selftest", module)
    return module


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (NodeError("no"), 1, "dicom-node: no\n"),
        (UsageError("not so"), 2, "dicom-node: not so\n"),
        (InputError("x.dcm: bad"), 1, "dicom-node: x.dcm: bad\n"),
        (ConfigError(("a:1: b", "a:2: c")), 1, "dicom-node: a:1: b\na:2: c\n"),
        (SegmenterError("weights are damaged"), 1, "dicom-node: weights are damaged\n"),
        (KeyboardInterrupt(), 1, "dicom-node: interrupted; files written so far are complete"),
    ],
)
def test_an_error_is_a_line_and_a_number(
    command: types.ModuleType,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    line: str,
) -> None:
    def run(_args: argparse.Namespace) -> int:
        raise error

    command.run = run  # type: ignore[attr-defined]
    assert cli.main(["selftest"]) == code
    assert capsys.readouterr().err.startswith(line)


def test_what_nobody_foresaw_shows_type_and_place_only(
    command: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_args: argparse.Namespace) -> int:
        raise ValueError("quotes a patient")

    command.run = run  # type: ignore[attr-defined]
    assert cli.main(["selftest"]) == 1
    said = capsys.readouterr().err
    assert "patient" not in said
    assert said.startswith("dicom-node: unexpected ValueError in test_cli.py:")


def test_warnings_of_libraries_stay_quiet_and_sigterm_interrupts(command: types.ModuleType) -> None:
    def run(_args: argparse.Namespace) -> int:
        warnings.warn("quotes a patient", UserWarning, stacklevel=1)
        return 0 if signal.getsignal(signal.SIGTERM) is signal.default_int_handler else 1

    before = signal.getsignal(signal.SIGTERM)
    command.run = run  # type: ignore[attr-defined]
    assert cli.main(["selftest"]) == 0
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required"),
        (["burn"], "invalid choice"),
        (["verify"], "PATH"),
        (["verify", "x", "--jobs", "0"], "1 to 999"),
        (["verify", "x", "--json", "--csv"], "not allowed with"),
        (["protect", "in"], "--out"),
        (["protect", "in", "--out", "out", "--max-change", "0"], "1 to 65535"),
        (["protect", "in", "--out", "out", "--max-change", "65536"], "1 to 65535"),
        (["protect", "in", "--out", "out", "--node-id", "a node"], "1 to 16"),
        (["protect", "in", "--out", "out", "--on-unprotectable", "hold"], "invalid choice"),
        (["keys"], "ACTION"),
        (["config", "check"], "FILE"),
    ],
)
def test_a_wrong_command_line_exits_with_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_standard_input_and_a_file_of_its_name_are_told_apart() -> None:
    assert cli.parser().parse_args(["verify", "-", "./-"]).paths == ["-", "./-"]


def test_arguments_arrive_as_values() -> None:
    args = cli.parser().parse_args(
        ["protect", "in", "--out", "out", "--max-change", "7", "--node-id", "ct-1"]
    )
    assert (args.source, args.out, args.max_change, args.node_id) == (Path("in"), Path("out"), 7, "ct-1")
    assert (args.segmenter, args.on_unprotectable) == (None, "header")
