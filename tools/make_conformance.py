"""Writes the tables of docs/conformance.md from the code that decides: `make docs`."""

from __future__ import annotations

from pydicom.uid import UID

from blessmark.pixels import Reason
from dicom_node import config, inquiry, retry
from dicom_node.commitment import STEPS, Answer, Step
from dicom_node.dimse import admission, patches, reception, scp, structure
from dicom_node.dimse.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES
from dicom_node.transcode import alternatives
from tools.fates import KINDS, class_rows, name_of, syntax_rows
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
            "pixels-by-syntax": table(("Transfer syntax", *KINDS), syntax_rows()),
            "fate-by-class": table(("What becomes of it", "SOP classes (Storage)"), class_rows()),
            "passed-through": _reasons(),
            "commitment-given": _given(),
            "commitment-taken": _taken(),
            "query-keys": _query_keys(),
            "convertible": _convertible(),
            "answers": _answers(),
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
    named = sorted((name_of(uid), uid) for uid in STORAGE_CLASSES)
    return table(("SOP class", "UID"), ((name, f"`{uid}`") for name, uid in named))


#: when the node gives each failure reason; PS3.2 table N.5-16 wants all of them named
_GIVEN = {
    Answer.PROCESSING_FAILURE: "held, quarantined, given up or dropped; rejected by policy; bound for no "
    "mandatory destination; or still under way after `commitment.wait_s`",
    Answer.NO_SUCH_INSTANCE: "never received under this UID, or no longer in the ledger",
    Answer.CLASS_CONFLICT: "received under another SOP class",
    Answer.CLASS_NOT_SUPPORTED: "not given: every storage class is committed to",
    Answer.DUPLICATE_TRANSACTION: "not given: such an N-ACTION is refused with status 0115",
    Answer.RESOURCE_LIMITATION: "not given: what has no room is refused by C-STORE",
}

_STEPS = {
    Step.ASK_AGAIN: "asked for again, under a new Transaction UID",
    Step.SEND_AGAIN: "sent again, then asked for again",
    Step.GIVE_UP: "dead letter at once",
}


def _given() -> str:
    return table(("Failure reason", "Condition"), ((f"{code:04X}", _GIVEN[code]) for code in _failures()))


def _taken() -> str:
    return table(("Failure reason", "Then"), ((f"{code:04X}", _STEPS[STEPS[code]]) for code in _failures()))


def _failures() -> list[Answer]:
    return [answer for answer in Answer if answer is not Answer.COMMITTED]


def _reasons() -> str:
    return table(("Reason code", "Meaning"), ((f"`{reason}`", reason.meaning) for reason in Reason))


def _query_keys() -> str:
    rows = ((level.capitalize(), ", ".join(keys)) for level, keys in inquiry.RETURNED.items())
    return table(("Level", "Keys"), rows)


def _convertible() -> str:
    """What an object is converted to where the peer takes it in no other form."""
    peer = config.Destination(ae_title="PEER", host="peer", port=104)
    rows = ((uid, alternatives(peer, uid)) for uid in TRANSFER_SYNTAXES)
    return table(
        ("Transfer syntax of the object", "Proposed behind it"),
        ((UID(uid).name, ", ".join(UID(other).name for other in others)) for uid, others in rows if others),
    )


_CONSEQUENCES = {
    retry.Meaning.DONE: "delivered",
    retry.Meaning.WARNING: "delivered; the status is kept and counted as a warning",
    retry.Meaning.TRANSIENT: "tried again, waits grow, for ever unless `retry.give_up_after` says otherwise",
    retry.Meaning.REFUSED: "a dead letter after `retry.refusals` such answers",
}


def _answers() -> str:
    """Every status that a peer can give, by what follows."""
    classes = [retry.classify(status) for status in range(0x10000)]
    rows = []
    for answer, consequence in _CONSEQUENCES.items():
        if answer is retry.Meaning.REFUSED:
            rows.append(("any other", consequence))
            continue
        found = [status for status in range(0x10000) if classes[status] is answer]
        rows.append((", ".join(_ranges(found)), consequence))
    return table(("Status", "Then"), rows)


def _ranges(statuses: list[int]) -> list[str]:
    """`[1, 0xA700 .. 0xA7FF]` as `0001`, `A700 to A7FF`."""
    starts = [status for status in statuses if status - 1 not in statuses]
    ends = [status for status in statuses if status + 1 not in statuses]
    return [
        f"`{start:04X}`" if start == end else f"`{start:04X}` to `{end:04X}`"
        for start, end in zip(starts, ends, strict=True)
    ]


if __name__ == "__main__":
    update(DOCUMENT, rendered(DOCUMENT.read_text("utf-8")))
