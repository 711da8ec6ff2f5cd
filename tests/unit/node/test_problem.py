"""One line that says what is wrong, quotes no patient and steers no terminal."""

from __future__ import annotations

import errno

import pytest

from blessmark.errors import PixelError
from dicom_node.errors import InputError
from dicom_node.problem import printable, problem


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            PixelError("x.dcm is not a DICOM file"),
            "is not a DICOM file; correct it at its source or leave it out",
        ),
        (PixelError("x.dcm: cut short; send it again"), "cut short; send it again"),
        (InputError("has no UID; do this"), "has no UID; do this"),
        (MemoryError(), "needs more memory than there is; take it to a larger machine"),
        (
            PermissionError(errno.EACCES, "Permission denied", "x.dcm"),
            "cannot be read (Permission denied); check the path and its permissions",
        ),
    ],
)
def test_a_problem_is_one_line_that_says_what_to_do(error: Exception, line: str) -> None:
    assert problem("x.dcm", error) == line


def test_a_problem_never_quotes_an_unknown_error() -> None:
    try:
        raise KeyError("quotes a patient")
    except KeyError as error:
        line = problem("x.dcm", error)
    assert "patient" not in line
    assert line.startswith("unexpected KeyError in test_problem.py:")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("Jürgen/日本.dcm", "Jürgen/日本.dcm"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\nb\0c", "a\\nb\\x00c"),
        ("a\x9bb\u202ec", "a\\x9bb\\u202ec"),
        ("a\udc9bb", "a\\udc9bb"),
    ],
)
def test_what_would_steer_a_terminal_is_spelled_out(given: str, shown: str) -> None:
    assert printable(given) == shown
