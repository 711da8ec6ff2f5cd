"""Writes the tables of docs/conformance.md from the code that decides: `make docs`."""

from __future__ import annotations

from pydicom.uid import UID

from blessmark.pixels import Reason
from dicom_node.dimse.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES
from tools.fates import KINDS, class_rows, name_of, syntax_rows
from tools.generated import REPOSITORY, filled, table, update

DOCUMENT = REPOSITORY / "docs" / "conformance.md"


def rendered(text: str) -> str:
    """The document with its tables as the code would have them today."""
    parts = {
        "transfer-syntaxes": _syntaxes(),
        "sop-classes": _classes(),
        "pixels-by-syntax": table(("Transfer syntax", *KINDS), syntax_rows()),
        "fate-by-class": table(("What becomes of it", "SOP classes (Storage)"), class_rows()),
        "passed-through": _reasons(),
    }
    return filled(text, parts)


def _syntaxes() -> str:
    return table(("Transfer syntax", "UID"), ((UID(uid).name, f"`{uid}`") for uid in TRANSFER_SYNTAXES))


def _classes() -> str:
    named = sorted((name_of(uid), uid) for uid in STORAGE_CLASSES)
    return table(("SOP class", "UID"), ((name, f"`{uid}`") for name, uid in named))


def _reasons() -> str:
    return table(("Reason code", "Meaning"), ((f"`{reason}`", reason.meaning) for reason in Reason))


if __name__ == "__main__":
    update(DOCUMENT, rendered(DOCUMENT.read_text("utf-8")))
