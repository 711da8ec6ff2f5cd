"""QIDO-RS and WADO-RS against a server in this process that answers, pages, breaks off or is none."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from pydicom.dataset import Dataset

from dicom_node.config import QueryPeer
from dicom_node.errors import DataSetError, InputError, PeerError
from dicom_node.inquiry import RETURNED, Level, Order
from dicom_node.landing import Landed, Landing
from dicom_node.web import WebArchive, credentials, parts, whole
from tests import builders
from tests.shelf import CT, instance

STUDY, SERIES = "1.2.300", "1.2.30.0"
ORDER = Order(Level.SERIES, STUDY, SERIES, {f"1.2.3.{number}": CT for number in range(3)})


@dataclass
class Site:
    """A DICOMweb server: what it holds, and how it misbehaves."""

    held: list[Dataset] = field(default_factory=list)
    status: int = 200
    page: int = 1000
    pages: bool = True
    #: in place of the multipart message
    message: Callable[[bytes], bytes] = lambda whole: whole
    content_type: str = 'multipart/related; type="application/dicom"; boundary=xx'
    requests: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    authorization: list[str | None] = field(default_factory=list)
    refuses_star: bool = False

    def answer(self, path: str, accept: str) -> tuple[int, str, bytes]:
        split = urlsplit(path)
        places = split.path.removeprefix("/dicom-web/").split("/")
        query = parse_qs(split.query)
        if self.status != 200:
            return self.status, "text/plain", b"PatientName DOE is unknown"
        if "json" in accept:
            return 200, "application/dicom+json", self._found(len(places) // 2, query)
        if self.refuses_star and "transfer-syntax" in accept:
            return 406, "text/plain", b""
        wanted = places[5] if len(places) > 5 else None
        if wanted is not None and all(ds.SOPInstanceUID != wanted for ds in self.held):
            return 404, "text/plain", b""
        bodies = [builders.file_bytes(ds) for ds in self.held if wanted in (None, ds.SOPInstanceUID)]
        head = b"Content-Type: application/dicom\r\n\r\n"
        message = b"".join(b"--xx\r\n" + head + body + b"\r\n" for body in bodies) + b"--xx--\r\n"
        return 200, self.content_type, self.message(message)

    def _found(self, depth: int, query: dict[str, list[str]]) -> bytes:
        key = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")[depth]
        first: dict[str, Dataset] = {}
        for ds in self.held:
            first.setdefault(str(ds.get(key)), ds)
        offset = int(query["offset"][0]) if self.pages else 0
        rows = list(first.values())[offset : offset + self.page]
        return json.dumps([self._row(ds) for ds in rows]).encode() if rows else b""

    def _row(self, ds: Dataset) -> dict[str, object]:
        shown = Dataset()
        for keyword in (
            "PatientID",
            "StudyInstanceUID",
            "SeriesInstanceUID",
            "SOPInstanceUID",
            "SOPClassUID",
        ):
            setattr(shown, keyword, ds.get(keyword))
        return dict(shown.to_json_dict())


@contextlib.contextmanager
def serving(site: Site) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.requests.append(self.path)
            site.accepted.append(self.headers["Accept"])
            site.authorization.append(self.headers.get("Authorization"))
            status, kind, body = site.answer(self.path, self.headers["Accept"])
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def asked(site: Site, **peer: object) -> Iterator[WebArchive]:
    with serving(site) as url:
        settings = QueryPeer.model_validate({"dicomweb": url, "timeout_s": 60.0, **peer})
        with contextlib.closing(WebArchive("web", settings)) as archive:
            yield archive


def fetched(archive: WebArchive, folder: Path, order: Order = ORDER) -> tuple[set[str], Landing, object]:
    came: list[Landed] = []
    landing = Landing(folder, came.append, durable=False)
    landing.expect(order)
    told = archive.fetch(order, landing)
    return {landed.uid for landed in came}, landing, told


def site(count: int = 3, **more: object) -> Site:
    return Site([instance(number) for number in range(count)], **more)  # type: ignore[arg-type]


# asking


def test_levels_are_resources() -> None:
    there = site()
    with asked(there) as archive:
        (study,) = archive.find(Level.STUDY, {"PatientID": "P*"}, RETURNED[Level.STUDY], None)
        keys = {"StudyInstanceUID": study.unique}
        (series,) = archive.find(Level.SERIES, keys, RETURNED[Level.SERIES], None)
        keys["SeriesInstanceUID"] = series.unique
        images = list(archive.find(Level.IMAGE, keys, RETURNED[Level.IMAGE], None))
    assert [row.unique for row in images] == ["1.2.3.0", "1.2.3.1", "1.2.3.2"]
    assert "PatientID=P*&" in there.requests[0]  # not escaped: some archives undo no escapes
    assert f"/studies/{STUDY}/series/{SERIES}/instances?" in there.requests[-1]


def test_patients_are_gathered_from_their_studies() -> None:
    there = Site(
        [
            instance(1),
            instance(2, StudyInstanceUID="1.2.301"),
            instance(3, PatientID="P2", StudyInstanceUID="9"),
        ]
    )
    with asked(there) as archive:
        rows = list(archive.find(Level.PATIENT, {}, RETURNED[Level.PATIENT], None))
        assert len(list(archive.find(Level.PATIENT, {}, RETURNED[Level.PATIENT], 1))) == 1
    assert [(row.unique, row.get("NumberOfPatientRelatedStudies")) for row in rows] == [
        ("P1", "2"),
        ("P2", "1"),
    ]


@pytest.mark.parametrize("pages", [True, False])
def test_pages_are_turned_and_a_server_that_turns_none_is_left(pages: bool) -> None:
    there = site(25, page=10, pages=pages)
    with asked(there) as archive:
        rows = list(archive.find(Level.IMAGE, _KEYS, RETURNED[Level.IMAGE], None))
        some = list(archive.find(Level.IMAGE, _KEYS, RETURNED[Level.IMAGE], 3))
    assert len(rows) == (25 if pages else 10)
    assert len(some) == 3


_KEYS = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES}


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(401, "credentials"), (404, "base URL"), (500, "log of the archive"), (400, "fewer keys")],
)
def test_what_the_server_refuses_is_told_without_what_it_says(status: int, remedy: str) -> None:
    with asked(site(status=status)) as archive, pytest.raises(PeerError, match=remedy) as caught:
        list(archive.find(Level.IMAGE, _KEYS, RETURNED[Level.IMAGE], None))
    assert caught.value.status == status
    assert "DOE" not in str(caught.value)
    assert STUDY not in str(caught.value)


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    there = Site()
    there._found = lambda *_: b"<html>"  # type: ignore[method-assign]
    with asked(there) as archive, pytest.raises(PeerError, match="DICOM JSON"):
        list(archive.find(Level.STUDY, {}, RETURNED[Level.STUDY], None))
    with pytest.raises(PeerError, match="cannot be reached"):
        list(archive.find(Level.STUDY, {}, RETURNED[Level.STUDY], None))


# fetching


def test_a_series_comes_byte_for_byte(tmp_path: Path) -> None:
    there = site()
    with asked(there) as archive:
        uids, _, told = fetched(archive, tmp_path)
    assert uids == set(ORDER.expected)
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {
        builders.file_bytes(ds) for ds in there.held
    }
    assert (told.status, told.completed, told.failed) == (0, 3, 0)  # type: ignore[attr-defined]
    assert there.accepted == ['multipart/related; type="application/dicom"; transfer-syntax=*']


def test_instances_are_asked_for_one_by_one(tmp_path: Path) -> None:
    there = site()
    with asked(there) as archive:
        uids, _, _ = fetched(archive, tmp_path, ORDER.of(["1.2.3.0", "1.2.3.2"]))
    assert uids == {"1.2.3.0", "1.2.3.2"}
    assert [path.rsplit("/", 1)[1] for path in there.requests] == ["1.2.3.0", "1.2.3.2"]


def test_an_instance_that_is_gone_does_not_keep_the_others_away(tmp_path: Path) -> None:
    with asked(Site([instance(number) for number in (0, 2)])) as archive:
        order = Order(Level.IMAGE, STUDY, SERIES, ORDER.expected)
        uids, landing, told = fetched(archive, tmp_path, order)
    assert uids == {"1.2.3.0", "1.2.3.2"}
    assert (told.completed, told.failed) == (2, 1)  # type: ignore[attr-defined]
    assert landing.missing(order) == ("1.2.3.1",)


def test_a_server_that_knows_no_transfer_syntax_of_any_kind_is_asked_without(tmp_path: Path) -> None:
    with asked(site(refuses_star=True)) as archive:
        assert len(fetched(archive, tmp_path)[0]) == 3


def test_one_object_by_itself_is_taken_too(tmp_path: Path) -> None:
    one = instance(1)
    there = site(content_type="application/dicom", message=lambda _: builders.file_bytes(one))
    with asked(there) as archive:
        assert fetched(archive, tmp_path, ORDER.of(["1.2.3.1"]))[0] == {"1.2.3.1"}


def test_what_was_not_asked_for_and_what_is_broken_is_passed_over(tmp_path: Path) -> None:
    there = Site([instance(0), instance(9), instance(2)])
    cut = builders.file_bytes(instance(0))
    there.message = lambda message: message.replace(cut, cut[:-10])
    with asked(there) as archive:
        uids, landing, told = fetched(archive, tmp_path)
    assert uids == {"1.2.3.2"}
    assert landing.refused == {"not asked for": 1}
    assert (told.status, told.completed, told.failed) == (0xB000, 1, 2)  # type: ignore[attr-defined]
    assert len(list(tmp_path.iterdir())) == 1


def test_an_answer_that_breaks_off_leaves_whole_files_only(tmp_path: Path) -> None:
    there = site(message=lambda message: message[:-700])
    with asked(there) as archive, pytest.raises(PeerError, match="broke off"):
        fetched(archive, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_is_whole_or_not(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(builders.file_bytes(instance(7)))
    assert whole(path) == "1.2.3.7"
    path.write_bytes(builders.file_bytes(instance(7))[:-3])
    with pytest.raises(DataSetError):
        whole(path)
    path.write_bytes(b"<html>")
    with pytest.raises(InputError, match="Part 10"):
        whole(path)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_multipart_message_is_the_same_in_any_pieces(size: int) -> None:
    bodies = [b"one\r\n--x\r\n", b"", b"\r\n\r\n--xx"[:6], b"three" * 50]
    message = (
        b"preamble\r\n"
        + b"".join(b"--xx\r\nA: b\r\n\r\n" + body + b"\r\n" for body in bodies)
        + b"--xx--epilogue"
    )
    pieces = iter([message[at : at + size] for at in range(0, len(message), size)])
    assert [b"".join(part) for part in parts(pieces, "multipart/related; boundary=xx")] == bodies


def test_parts_that_are_not_taken_are_passed_over() -> None:
    message = b"--x\r\n\r\none\r\n--x\r\n\r\ntwo\r\n--x--"
    assert len(list(parts(iter([message]), 'multipart/related; boundary="x"'))) == 2


def test_headers_without_an_end_are_not_kept() -> None:
    with pytest.raises(PeerError, match="headers"):
        list(parts(iter([b"--x\r\n" + b"A" * 70000, b"A"]), "multipart/related; boundary=x"))


# credentials


def secret(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "credentials"
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("text", "sent"), [("me:pass:word\n", "Basic bWU6cGFzczp3b3Jk"), ("Bearer abc\n", "Bearer abc")]
)
def test_credentials_come_from_a_file(text: str, sent: str, tmp_path: Path) -> None:
    there = site()
    with asked(there, credentials=secret(tmp_path, text)) as archive:
        list(archive.find(Level.STUDY, {}, RETURNED[Level.STUDY], None))
        assert archive.notes == ["its credentials travel unencrypted; use https"]
    assert there.authorization[0] == sent


@pytest.mark.parametrize(
    ("text", "mode", "said"), [("a:b", 0o644, "0600"), ("secret", 0o600, "USER:PASSWORD")]
)
def test_credentials_that_others_read_or_that_are_none_are_refused(
    text: str, mode: int, said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said) as caught:
        credentials(secret(tmp_path, text, mode))
    assert "secret" not in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        credentials(tmp_path / "nothing")
