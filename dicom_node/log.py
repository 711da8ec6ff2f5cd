"""What the node says about itself: one canonical line per unit of work, and nothing about patients.

Rules that bind here:
1. A line is an event name and fields from `FIELDS`. A field of another name is left out; only its name is
   shown, under `refused`.
2. UIDs appear as `uid_hash`, the same at one site for ever and different at every other.
3. Of a library's line only where it came from is shown: its text may quote a data set. What remains of a
   warning says nothing to anybody, so below an error a library is heard at the level `debug` only. Of a plain
   line of our own the text is shown, with numbers and our own errors filled in and everything else as its
   type. Python's warnings are not shown at all: see `silence_warnings`.
4. Of an exception the type and the place are shown; its message only if it is one of ours, which never name
   a patient. UIDs in it appear as `uid_hash` too.
5. Under systemd each line begins with its priority (sd-daemon(3)), which the journal takes off and keeps.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO

#: every field that a line may carry, and what it holds
FIELDS: Mapping[str, str] = {
    "job": "number of the instance in the ledger",
    "delivery": "number of the delivery in the ledger",
    "uid": "uid_hash of the SOP Instance UID",
    "transaction": "uid_hash of the Transaction UID of a storage commitment",
    "sop_class": "SOP Class UID (a constant of the standard)",
    "transfer_syntax": "Transfer Syntax UID (a constant of the standard)",
    "route": "name of the route",
    "role": "what the route does",
    "destination": "name of the destination",
    "via": "name of the destination that stood in for it",
    "worker": "name of the worker",
    "receiver": "name of the receiver process, where there are several",
    "calling_ae": "AE title of the peer",
    "called_ae": "AE title the peer asked for",
    "peer": "address of the peer",
    "port": "port",
    "tls_port": "port with TLS",
    "tls": "which file of TLS",
    "days": "days until it runs out",
    "state": "state the job is in now",
    "result": "what became of the instance",
    "reason": "reason code",
    "status": "DIMSE status, 4 hex digits",
    "error": "message of one of our own errors",
    "attempts": "attempts so far",
    "retry_in_s": "seconds until the next attempt",
    "duplicate": "whether the same bytes were here already",
    "conflict": "whether the UID had come with other content",
    "bytes": "size of the object",
    "count": "how many",
    "refusals": "how many objects of an association were refused",
    "swept": "half-written files removed at start",
    "leases": "leases that a restart ended",
    "checked": "rows held against the spool",
    "lost": "rows whose bytes are gone or changed",
    "committed": "how many instances are committed to",
    "failures": "how many instances are not",
    "asked_again": "how many instances are asked for again",
    "sent_again": "how many instances are sent again",
    "given_up": "how many instances became dead letters",
    "frames": "frames of the image",
    "modality": "modality",
    "segmenter": "id of the segmenter",
    "engine": "what evaluates a network",
    "tier": "how much of the record travels",
    "framing": "how the message is laid out",
    "key_id": "id of the key",
    "fingerprint": "public fingerprint of the key",
    "psnr_db": "quality of the marked image",
    "changed": "samples changed",
    "finding": "verdict",
    "receive_s": "seconds to receive",
    "spool_s": "seconds to keep an object on disk",
    "decode_s": "seconds to decode",
    "segment_s": "seconds to find the region of interest",
    "embed_s": "seconds to embed",
    "extract_s": "seconds to extract and verify",
    "encode_s": "seconds to encode",
    "work_s": "seconds from the arrival of an object until it was ready to be sent",
    "send_s": "seconds to send, the last attempt",
    "total_s": "seconds in all; of a delivery, since the object arrived",
    "ms": "milliseconds in all",
    "version": "version of this software",
    "node": "id of this node",
    "pid": "process id",
    "signal": "signal received",
    "exit_code": "exit status of a process",
}

#: by name, because importing the engine for its errors would load the engine
_OUR_ERRORS = frozenset({"dicom_node.errors", "blessmark.errors"})
_OUR_LOGGERS = frozenset({"dicom_node", "blessmark"})
_HASH_DIGITS = 12
#: digits and dots that are longer than an IPv4 address or have more parts; those of DICOM itself are known
_UID = re.compile(r"(?<![\w.])(?!1\.2\.840\.10008\.)(?=[\d.]{16}|(?:\d+\.){4})\d+(?:\.\d+)+")
_MARK = "dicom_node_event"
_salt = b""
#: what every line of this process carries
_everywhere: dict[str, object] = {}


def setup(
    format: str, level: str, *, salt: bytes = b"", stream: TextIO | None = None, receiver: str | None = None
) -> None:
    """Send every line of this process to `stream` (standard error).

    Parameters
    ----------
    format : "text" (one line of key=value) or "json" (one object a line)
    level : "debug", "info", "warning" or "error"
    salt : makes `uid_hash` this site's own; give every process the same
    receiver : the name of a receiver process, which every line of it carries
    """
    global _salt, _everywhere
    _salt = salt
    _everywhere = {} if receiver is None else {"receiver": receiver}
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    formatter = _Json() if format == "json" else _Text()
    handler.setFormatter(_Prioritised(formatter) if goes_to_the_journal(stream) else formatter)
    if level != "debug":
        handler.addFilter(_is_heard)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)


def use_salt(salt: bytes) -> None:
    """Make `uid_hash` that of `salt` from now on; the rest of what `setup` was told stays."""
    global _salt
    _salt = salt


def goes_to_the_journal(stream: TextIO) -> bool:
    """Whether systemd has connected this very stream to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    named = os.environ.get("JOURNAL_STREAM", "")
    try:
        facts = os.fstat(stream.fileno())
    except (OSError, ValueError):  # a stream without a file
        return False
    return named == f"{facts.st_dev}:{facts.st_ino}"


def silence_warnings() -> None:
    """Have this process show no Python warnings: those of pydicom quote values, which may be a patient's.

    Filters are not inherited by spawned processes, so each of ours calls it. Besides, what is shown once for
    each text is kept for ever, which in a service is memory without an end.
    """
    warnings.simplefilter("ignore")


def event(
    logger: logging.Logger,
    name: str,
    *,
    level: int = logging.INFO,
    error: BaseException | str | None = None,
    **fields: object,
) -> None:
    """Write the canonical line of one unit of work; see `FIELDS` for the names that it may carry.

    `error` as an exception adds its type and place, and its message if it is one of ours; as text it is
    shown as it is, so it must be one of ours.
    """
    if not logger.isEnabledFor(level):
        return
    raised = error if isinstance(error, BaseException) else None
    told = {} if error is raised else {"error": error}
    logger.log(level, name, extra={_MARK: fields | told}, exc_info=raised, stacklevel=2)


def uid_hash(uid: str) -> str:
    """The 12 hex digits under which a UID appears in the log; only who knows the salt can check a guess."""
    return hmac.new(_salt, uid.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:_HASH_DIGITS]


def without_uids(text: str) -> str:
    """The text of an error with the UIDs in it as their hashes; constants of the standard stay as they are.

    Errors name the instance that they are about, for whoever asked about a file of his own.
    """
    return _UID.sub(lambda found: f"uid={uid_hash(found[0])}", text)


def line(record: logging.LogRecord) -> dict[str, object]:
    """What may be shown of a log record, in order: time, level, event, fields."""
    shown: dict[str, object] = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
    }
    fields = getattr(record, _MARK, None)
    if fields is not None:
        shown |= {"event": record.msg} | _allowed(fields)
    elif record.name.split(".", 1)[0] in _OUR_LOGGERS:
        shown |= {"event": "note", "text": _own_text(record)}
    else:
        shown |= {"event": "library", "logger": record.name, "place": f"{record.module}:{record.lineno}"}
    shown |= _everywhere
    if record.exc_info and record.exc_info[1] is not None:
        shown |= _exception(record.exc_info[1])
    return shown


def _allowed(fields: Mapping[str, object]) -> dict[str, object]:
    shown = {name: _plain(value) for name, value in fields.items() if name in FIELDS and value is not None}
    if "error" in shown:
        shown["error"] = without_uids(str(shown["error"]))
    refused = sorted(name for name in fields if name not in FIELDS)
    return shown | ({"refused": refused} if refused else {})


def _own_text(record: logging.LogRecord) -> str:
    """The line with its harmless arguments filled in."""
    if not isinstance(record.args, tuple) or not record.args:
        return str(record.msg)
    try:
        return str(record.msg) % tuple(_harmless(value) for value in record.args)
    except (TypeError, ValueError):  # a conversion other than %s meant for what is not shown
        return str(record.msg)


def _harmless(value: object) -> object:
    if isinstance(value, int | float):
        return value
    return without_uids(str(value)) if _is_our_error(value) else f"<{type(value).__name__}>"


def _is_our_error(value: object) -> bool:
    return any(kind.__module__ in _OUR_ERRORS for kind in type(value).__mro__)


def _plain(value: object) -> object:
    if isinstance(value, float):
        return round(value, 4)
    return value if isinstance(value, bool | int) else str(value)


def _exception(error: BaseException) -> dict[str, object]:
    """Type, place and, if it is ours, message; of the causes the types."""
    frames = traceback.extract_tb(error.__traceback__)
    shown: dict[str, object] = {"exception": type(error).__name__}
    if frames:
        shown["place"] = f"{frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}"
    if _is_our_error(error):
        shown["error"] = without_uids(str(error))
    if error.__cause__ is not None:
        shown["cause"] = type(error.__cause__).__name__
    return shown


def _is_heard(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR or record.name.split(".", 1)[0] in _OUR_LOGGERS


#: sd-daemon(3)
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


class _Prioritised(logging.Formatter):
    """Another formatter's line behind the priority that the journal files it under."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
        return f"<{priority}>{self._formatter.format(record)}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(line(record), ensure_ascii=True)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        shown = line(record)
        head = [str(shown.pop("time")), str(shown.pop("level")), str(shown.pop("event"))]
        return " ".join(head + [f"{name}={_word(value)}" for name, value in shown.items()])


def _word(value: object) -> str:
    """A value as one word; what could break the line or forge another is quoted."""
    text = str(value)
    plain = text.isascii() and text.isprintable() and text and not set(text) & set(' "=')
    return text if plain else json.dumps(text)
