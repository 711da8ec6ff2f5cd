"""A line says what is on the list, in the clear or hashed as the list says, and nothing else."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from dicom_node import log
from dicom_node.errors import InputError

Reader = Callable[[], list[str]]
_LOGGER = logging.getLogger("dicom_node.test")
_PATIENT = "Doe^Jane"


@pytest.fixture
def lines(request: pytest.FixtureRequest) -> Iterator[Reader]:
    """Sets JSON logging up (text with an indirect parameter) and reads what has been written since."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    log.setup(getattr(request, "param", "json"), "info", salt=b"site", stream=stream)
    yield lambda: stream.getvalue().splitlines()
    root.handlers[:], root.level = before[0], before[1]


def parsed(lines: Reader) -> dict[str, object]:
    assert len(lines()) == 1
    loaded: dict[str, object] = json.loads(lines()[0])
    return loaded


def test_an_event_is_one_json_line_with_its_fields(lines: Reader) -> None:
    log.event(_LOGGER, "instance", job=7, result="protected", total_s=0.123456, duplicate=False, reason=None)
    line = parsed(lines)
    assert line.pop("time")
    assert line == {
        "level": "info",
        "event": "instance",
        "job": 7,
        "result": "protected",
        "total_s": 0.1235,
        "duplicate": False,
    }


@pytest.mark.parametrize("lines", ["text"], indirect=True)
def test_an_event_is_one_text_line_with_its_fields(lines: Reader) -> None:
    log.event(_LOGGER, "instance", job=7, result="held", error='a "b"\nlevel=error')
    assert len(lines()) == 1
    time, rest = lines()[0].split(" ", 1)
    assert time.endswith("+00:00")
    assert rest == 'info instance job=7 result=held error="a \\"b\\"\\nlevel=error"'


@pytest.mark.parametrize("lines", ["json", "text"], indirect=True)
def test_a_field_that_is_not_on_the_list_is_named_but_not_shown(lines: Reader) -> None:
    log.event(_LOGGER, "instance", job=7, patient_name=_PATIENT)
    assert _PATIENT not in lines()[0]
    assert "patient_name" in lines()[0]
    assert "refused" in lines()[0]


def test_library_lines_show_their_origin_only(lines: Reader) -> None:
    logging.getLogger("another.package").error("bad value %s in " + _PATIENT, _PATIENT)
    line = parsed(lines)
    assert _PATIENT not in json.dumps(line)
    assert (line["event"], line["logger"], line["level"]) == ("library", "another.package", "error")
    assert str(line["place"]).startswith("test_log:")


def test_plain_lines_of_our_own_show_numbers_and_our_errors_only(lines: Reader) -> None:
    error = InputError("job 7: truncated")
    _LOGGER.warning("job %d of %s failed: %s, %s", 7, _PATIENT, error, ValueError(_PATIENT))
    assert parsed(lines)["text"] == "job 7 of <str> failed: job 7: truncated, <ValueError>"


def test_a_format_that_does_not_fit_is_shown_unfilled(lines: Reader) -> None:
    _LOGGER.warning("took %.1f s", Decimal(1))
    assert parsed(lines)["text"] == "took %.1f s"


def raise_with(error: Exception) -> Exception:
    try:
        try:
            raise KeyError(_PATIENT)
        except KeyError as cause:
            raise error from cause
    except type(error) as raised:
        return raised


def test_a_foreign_exception_shows_type_and_place_but_no_message(lines: Reader) -> None:
    log.event(_LOGGER, "failed", error=raise_with(ValueError(_PATIENT)), job=7)
    line = parsed(lines)
    assert _PATIENT not in json.dumps(line)
    assert (line["exception"], line["cause"], line["job"]) == ("ValueError", "KeyError", 7)
    assert str(line["place"]).startswith("test_log.py:")


def test_an_exception_of_ours_shows_its_message(lines: Reader) -> None:
    log.event(_LOGGER, "failed", error=raise_with(InputError("truncated at byte 12")))
    assert parsed(lines)["error"] == "truncated at byte 12"


def test_the_engines_errors_count_as_ours(lines: Reader) -> None:
    from blessmark.errors import PixelError

    log.event(_LOGGER, "failed", error=PixelError("rows contradict the data"))
    assert parsed(lines)["error"] == "rows contradict the data"


def test_levels_below_the_configured_one_are_silent(lines: Reader) -> None:
    log.event(_LOGGER, "detail", level=logging.DEBUG, job=1)
    assert lines() == []


def test_a_uid_hash_is_stable_short_and_the_sites_own(lines: Reader) -> None:
    uid = "1.2.3.4"
    here = log.uid_hash(uid)
    assert here == log.uid_hash(uid)
    assert len(here) == 12
    assert here != log.uid_hash("1.2.3.5")
    log.setup("json", "info", salt=b"other site", stream=io.StringIO())
    there = log.uid_hash(uid)
    assert here != there
    log.use_salt(b"a third")
    assert log.uid_hash(uid) not in (here, there)
    log.use_salt(b"other site")
    assert log.uid_hash(uid) == there


def test_a_uid_hash_takes_whatever_a_peer_sends(lines: Reader) -> None:
    assert len(log.uid_hash("\udce4../../x")) == 12


def test_a_library_is_heard_from_an_error_on(lines: Reader) -> None:
    logging.getLogger("pydicom").warning("bad value in " + _PATIENT)
    assert lines() == []


def test_at_the_level_debug_it_is_always_heard() -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    try:
        log.setup("json", "debug", stream=stream)
        logging.getLogger("pydicom").warning("bad value in " + _PATIENT)
    finally:
        root.handlers[:], root.level = before[0], before[1]
    assert '"logger": "pydicom"' in stream.getvalue()
    assert _PATIENT not in stream.getvalue()


def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: str) -> list[str]:
    """What a process writes whose standard error is a file that JOURNAL_STREAM may name."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    with (tmp_path / "stderr").open("w+") as stream:
        facts = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", journal.format(dev=facts.st_dev, ino=facts.st_ino))
        try:
            log.setup("text", "debug", stream=stream)
            for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
                log.event(_LOGGER, "instance", level=level)
        finally:
            root.handlers[:], root.level = before[0], before[1]
        stream.seek(0)
        return stream.read().splitlines()


def test_the_journal_gets_priorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [line[:3] for line in written(tmp_path, monkeypatch, "{dev}:{ino}")] == [
        "<7>",
        "<6>",
        "<4>",
        "<3>",
        "<2>",
    ]


@pytest.mark.parametrize("journal", ["", "{dev}:1", "nonsense"])
def test_nobody_else_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: str) -> None:
    assert not any(line.startswith("<") for line in written(tmp_path, monkeypatch, journal))


def test_a_stream_without_a_file_is_not_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    assert not log.goes_to_the_journal(io.StringIO())


@pytest.mark.parametrize(
    "uid", ["1.2.826.0.1.3680043.8.498.1", "2.25.329800735698586629295641978511506172918"]
)
def test_uids_in_our_errors_are_hashed(lines: Reader, uid: str) -> None:
    try:
        raise InputError(
            f"instance {uid}: truncated; 10.0.0.255:104 sent it in 1.2.840.10008.1.2.4.50, not {uid}."
        )
    except InputError as error:
        log.event(_LOGGER, "instance", error=error)
    hashed = f"uid={log.uid_hash(uid)}"
    said = f"instance {hashed}: truncated; 10.0.0.255:104 sent it in 1.2.840.10008.1.2.4.50, not {hashed}."
    assert parsed(lines)["error"] == said


def test_uids_in_the_text_of_an_error_are_hashed(lines: Reader) -> None:
    log.event(_LOGGER, "instance", error="1.2.3.4.5.6 is broken")
    _LOGGER.warning("failed: %s", InputError("1.2.3.4.5.6 is broken"))
    assert [json.loads(line).get("error", "") or json.loads(line)["text"][8:] for line in lines()] == [
        f"uid={log.uid_hash('1.2.3.4.5.6')} is broken"
    ] * 2
