"""What is wrong with a file, on one line for a person: never a value out of a data set, nor a raw byte."""

from __future__ import annotations

import traceback
from pathlib import Path

from blessmark.errors import PixelError, WatermarkError
from dicom_node.errors import NodeError


def problem(name: str, error: Exception) -> str:
    """What is wrong with the file of that name and what to do."""
    if isinstance(error, PixelError):
        text = str(error).removeprefix(f"{name}: ").removeprefix(f"{name} ")
        return text if "; " in text else f"{text}; correct it at its source or leave it out"
    if isinstance(error, NodeError | WatermarkError):
        return str(error)
    if isinstance(error, MemoryError):
        return "needs more memory than there is; take it to a larger machine"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror}); check the path and its permissions"
    return unforeseen(error)


def unforeseen(error: Exception) -> str:
    """Type and place of an error that nobody expects; its text may quote a patient and is not shown."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"unexpected {type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}; please report it"
    )


def printable(text: str) -> str:
    r"""Text of a stranger for a terminal: whatever would steer it is spelled out, ESC as \x1b."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
