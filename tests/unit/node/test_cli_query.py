"""`dicom-node query` in this process against an archive in this process; judging is in tests/interop."""

from __future__ import annotations

import contextlib
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context

from blessmark.payload.record import FULL_FIELDS
from blessmark.segment import segmenter
from dicom_node import cli
from dicom_node.cli.trail import Told
from dicom_node.keys import FileKeyRing
from dicom_node.landing import name_of
from dicom_node.protect import Site, protect
from tests import builders
from tests.shelf import CT, EXPLICIT, Shelf, instance


def query(action: str, shelf: Shelf, *arguments: str, **peer: object) -> int:
    with shelf.open(**peer) as settings:
        return cli.main(["query", action, "--peer", f"SHELF@127.0.0.1:{settings.port}", *arguments])


def shelf(count: int = 3, **more: object) -> Shelf:
    return Shelf([instance(number) for number in range(count)], **more)  # type: ignore[arg-type]


def test_rows_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert query("list", shelf(), "--patient-id", "P*", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["PatientID"], row["StudyDate"]) == ("P1", "20240105")


def test_a_limit_says_that_there_is_more(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--study", "1.2.300", "-L", "image", "--csv", "--limit")
    assert query("list", shelf(), *arguments, "2") == 0
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 3
    assert "there are more than 2" in shown.err
    assert query("list", shelf(), *arguments, "3") == 0
    assert capsys.readouterr().err == ""


def test_notes_and_failures_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert query("list", shelf(pending=0xFF01)) == 0
    assert "note: archive SHELF: it ignores some of the keys" in capsys.readouterr().err
    assert query("list", shelf(status=0xA900)) == 1
    assert "A900" in capsys.readouterr().err


def test_a_fetch_is_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    broken = shelf(8)
    broken.before_each = lambda event, number: event.assoc.abort() if number == 3 else None
    arguments = ("--patient-id", "P1", "--out", str(out))
    assert query("fetch", broken, *arguments) == 1
    assert capsys.readouterr().out == "6 fetched, 2 error\n"  # three at each of two tries
    assert query("fetch", shelf(8), *arguments) == 0
    assert capsys.readouterr().out == "6 already there, 2 fetched\n"
    assert query("fetch", shelf(8), *arguments) == 0
    assert capsys.readouterr().out == "8 already there\n"
    assert {dcmread(path).SOPInstanceUID for path in out.glob("*.dcm")} == {f"1.2.3.{n}" for n in range(8)}
    assert len((out / "manifest.jsonl").read_text().splitlines()) == 8
    assert stat.S_IMODE(out.stat().st_mode) == 0o700


def test_nothing_found_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert query("fetch", shelf(), "--patient-id", "P9", "--out", str(tmp_path)) == 1
    assert capsys.readouterr().out == "nothing found\n"


def test_what_is_found_is_sent_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    received: list[str] = []

    def store(event: evt.Event) -> int:
        received.append(str(event.request.AffectedSOPInstanceUID))
        return 0xA900 if event.request.AffectedSOPInstanceUID == "1.2.3.1" else 0

    entity = AE(ae_title="DEST")
    server = entity.start_server(
        ("127.0.0.1", 0),
        block=False,
        contexts=[build_context(CT, EXPLICIT)],
        evt_handlers=[(evt.EVT_C_STORE, store)],
    )
    assert server is not None
    try:
        to = ("--to", f"DEST@127.0.0.1:{server.server_address[1]}")
        assert query("send", shelf(), "--all", *to) == 1
    finally:
        server.shutdown()
    shown = capsys.readouterr()
    assert sorted(set(received)) == ["1.2.3.0", "1.2.3.1", "1.2.3.2"]
    assert shown.out == "2 sent, 1 error\n"
    assert "SHELF:1.2.3.1: the destination refuses it with status A900" in shown.err


@contextlib.contextmanager
def destination() -> Iterator[tuple[str, list[str]]]:
    """An address that takes CT images, and the UIDs of what came."""
    received: list[str] = []

    def store(event: evt.Event) -> int:
        received.append(str(event.request.AffectedSOPInstanceUID))
        return 0

    server = AE(ae_title="DEST").start_server(
        ("127.0.0.1", 0),
        block=False,
        contexts=[build_context(CT, EXPLICIT)],
        evt_handlers=[(evt.EVT_C_STORE, store)],
    )
    assert server is not None
    try:
        yield f"DEST@127.0.0.1:{server.server_address[1]}", received
    finally:
        server.shutdown()


def test_an_original_under_another_name_is_sent_on_and_is_a_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its record puts the name right; that somebody had changed it is no success without a word."""
    keys = tmp_path / "keyring"
    assert cli.main(["keys", "new", "--keys", str(keys)]) == 0
    site = Site("n", FileKeyRing.load(keys), segmenter("anatomy"), FULL_FIELDS)
    ds = builders.reread(builders.ct(256, 256, StudyInstanceUID="1.2.300", PatientID="P1"))
    assert protect(ds, site, 1_790_000_000).changed
    ds.PatientID = "P2"
    with destination() as (to, received):
        arguments = ("--all", "--to", to, "--recover", "--keys", str(keys))
        assert query("send", Shelf([ds]), *arguments) == 3
    assert received == [ds.SOPInstanceUID]
    shown = capsys.readouterr()
    assert "header-altered" in shown.out
    assert shown.out.endswith("1 sent\n")


def test_a_file_of_an_earlier_run_is_no_original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not restored now is not told as restored because a file of its name is there."""
    keys, out = tmp_path / "keyring", tmp_path / "out"
    assert cli.main(["keys", "new", "--keys", str(keys)]) == 0
    out.mkdir()
    (out / name_of("1.2.3.0")).write_bytes(b"earlier")
    told: list[str] = []
    monkeypatch.setattr(Told, "restored", lambda _, study: told.append(study))
    assert query("recover", shelf(1), "--all", "--out", str(out), "--keys", str(keys)) == 3
    assert told == []


def test_a_key_ring_that_is_not_there_is_told_before_anything_is_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = shelf()
    assert query("verify", there, "--all", "--keys", str(tmp_path / "none")) == 1
    assert "dicom-node keys new" in capsys.readouterr().err
    assert there.finds == []


def test_an_archive_that_is_not_there_is_an_error_in_a_whole_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keyring"
    assert cli.main(["keys", "new", "--keys", str(keys)]) == 0
    capsys.readouterr()
    with shelf().open() as settings:
        pass
    arguments = ["--peer", f"SHELF@127.0.0.1:{settings.port}", "--all", "--keys", str(keys), "--json"]
    assert cli.main(["query", "verify", *arguments]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["instances"] == []
    assert "cannot be reached" in document["errors"][0]["error"]


def test_what_has_no_uid_cannot_be_fetched_and_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = Shelf([instance(1), instance(2, SOPInstanceUID="not-a-uid")])
    assert query("fetch", there, "--all", "--out", str(tmp_path)) == 1
    shown = capsys.readouterr()
    assert shown.out == "1 fetched, 1 error\n"
    assert "rows without a usable UID" in shown.err


def test_one_uid_with_two_contents_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = Shelf([instance(1)], instead=lambda found: [*found, instance(1, PatientID="P2")])
    assert query("fetch", there, "--all", "--out", str(tmp_path)) == 1
    shown = capsys.readouterr()
    assert shown.out == "1 fetched, 1 error\n"
    assert "sent twice with different content" in shown.err
