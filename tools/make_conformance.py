"""Writes the tables of docs/conformance.md from the code that decides: `make docs`."""

from __future__ import annotations

from pydicom.uid import UID

from blessmark.pixels import Reason
from dicom_node import config
from dicom_node.dimse import admission, patches, reception, scp, structure
from dicom_node.dimse.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES
from tools.generated import REPOSITORY, filled, table, update

DOCUMENT = REPOSITORY / "docs" / "conformance.md"


def rendered(text: str) -> str:
    """The document with its tables as the code would have them today."""
    return filled(
        text,
        {
            "limits": _limits(),
            "rejections": _rejections(),
            "transfer-syntaxes": _syntaxes(),
            "sop-classes": _classes(),
            "store-statuses": _statuses(),
            "passed-through": _reasons(),
        },
    )


def _limits() -> str:
    rows = (
        ("associations at once", "node.max_associations", ""),
        ("of one calling AE title at one address", "node.max_associations_per_peer", ""),
        ("an open association with nothing on its way", "node.idle_s", " s"),
        ("a PDU that is arriving, a pause in an object, an answer that is not taken", "node.stall_s", " s"),
        ("a PDU", "node.max_pdu", " bytes"),
        ("a connection that asks for no association", scp.ASK_S, " s"),
        ("speed of an object that is arriving, at least", patches.SLOWEST_BYTES_S, " bytes a second"),
        ("a command set", patches.LARGEST_COMMAND, " bytes"),
        ("sequences in sequences", structure.DEEPEST, ""),
        ("elements, items and fragments of an object", structure.MOST_ELEMENTS, ""),
        ("a deflated data set, unfolded", structure.MOST_INFLATED, " bytes"),
    )
    return table(("What", "Limit"), ((what, _limit(limit, unit)) for what, limit, unit in rows))


def _limit(limit: str | float, unit: str) -> str:
    """A fixed limit, or a key of the configuration with its default."""
    if not isinstance(limit, str):
        return f"{limit:g}{unit}" if limit < 1000 else f"{limit:,}{unit}".replace(",", " ")
    default = config.Node.model_fields[limit.removeprefix("node.")].default
    return f"`{limit}`, default {_limit(default, unit)}"


def _rejections() -> str:
    rows = ((r.word, f"{r.result}, {r.source}, {r.reason}") for r in admission.REJECTIONS)
    return table(("Word in the log", "Result, source, reason"), rows)


def _statuses() -> str:
    rows = sorted((f"{refusal.status:04X}", refusal.comment) for refusal in reception.REFUSALS)
    return table(("Status", "Error Comment"), rows)


def _syntaxes() -> str:
    return table(("Transfer syntax", "UID"), ((UID(uid).name, f"`{uid}`") for uid in TRANSFER_SYNTAXES))


def _classes() -> str:
    named = sorted((UID(uid).name, uid) for uid in STORAGE_CLASSES)
    return table(("SOP class", "UID"), ((name, f"`{uid}`") for name, uid in named))


def _reasons() -> str:
    return table(("Reason code", "Meaning"), ((f"`{reason}`", reason.meaning) for reason in Reason))


if __name__ == "__main__":
    update(DOCUMENT, rendered(DOCUMENT.read_text("utf-8")))
