"""Archives that speak DICOMweb: QIDO-RS to ask, WADO-RS to fetch (PS3.18 sections 10.4 and 10.6).

Rules that bind here:
1. An object is written as it comes, part by part; no more of it than a piece is in memory.
2. A part is kept only if it is a whole Part 10 file of an instance that was ordered.
3. Credentials come from a file that nobody else can read. No address, UID or answer stands in an error.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator, Mapping
from email.message import Message
from pathlib import Path
from typing import Any

import requests
from dicomweb_client.web import DICOMwebClient
from requests.auth import AuthBase, HTTPBasicAuth

from dicom_node.config import QueryPeer
from dicom_node.dimse.contexts import is_uid
from dicom_node.dimse.stream import data_set_of
from dicom_node.dimse.structure import StructureWalk
from dicom_node.errors import InputError, PeerError, SpoolError
from dicom_node.inquiry import RETURNED, Keys, Level, Order, Row, Told, row_of_json
from dicom_node.landing import Landing

#: matches asked for at once; servers may give fewer
_PAGE = 500
_PIECE_BYTES = 1 << 18
_LONGEST_HEADERS = 1 << 16
_ACCEPT = 'multipart/related; type="application/dicom"'
_AS_STORED = f"{_ACCEPT}; transfer-syntax=*"
_NOT_ACCEPTABLE, _GONE = 406, (404, 410)
#: of wildcards and lists
_PLAIN = {"%2A": "*", "%3F": "?", "%2C": ","}
_PARTLY, _SUCCESS = 0xB000, 0x0000
_OPEN_CREDENTIALS = "its credentials travel unencrypted; use https"

_REMEDIES = {
    400: "it does not take this question; try fewer keys, or another level",
    401: "it wants credentials; name a file that holds them",
    403: "these credentials may not do this",
    404: "there is nothing there; is the base URL right, and are the objects still there?",
    406: "it cannot send objects as they are stored",
    413: "there is too much at once; ask for less",
    503: "it is busy; try again later",
}


class WebArchive:
    """An archive behind a base URL; see `archives.Source`.

    Raises InputError when the credentials or certificates cannot be used.
    """

    def __init__(self, name: str, peer: QueryPeer) -> None:
        assert peer.dicomweb is not None
        self.name = name
        self.notes: list[str] = []
        self._url = peer.dicomweb.rstrip("/")
        self._timeout_s = peer.timeout_s
        self._session = _session(peer)
        self._client = DICOMwebClient(self._url, self._session, timeout=peer.timeout_s)
        self._client.set_http_retry_params(retry=False)
        self._closed = False
        if peer.credentials is not None and self._url.startswith("http://"):
            self.notes.append(_OPEN_CREDENTIALS)

    def find(self, level: Level, keys: Keys, wanted: tuple[str, ...], limit: int | None) -> Iterator[Row]:
        """See `archives.Source`; there are no patients in QIDO-RS, so they are gathered from studies."""
        if level is Level.PATIENT:
            return self._patients(keys, wanted, limit)
        return self._pages(level, keys, wanted, limit)

    def fetch(self, order: Order, landing: Landing) -> Told:
        """See `archives.Source`; at image level one request an instance."""
        place = f"{self._url}/studies/{order.study}" + (f"/series/{order.series}" if order.series else "")
        if order.level is not Level.IMAGE:
            kept, refused = self._retrieved(place, landing)
            return Told(_PARTLY if refused else _SUCCESS, kept, refused)
        kept = refused = 0
        for uid in order.expected:
            done, failed = self._one(f"{place}/instances/{uid}", landing)
            kept, refused = kept + done, refused + failed
        return Told(_PARTLY if refused else _SUCCESS, kept, refused)

    def _one(self, address: str, landing: Landing) -> tuple[int, int]:
        """As `_retrieved`; an instance that is not there any more does not end the request for the others."""
        try:
            return self._retrieved(address, landing)
        except PeerError as error:
            if error.status not in _GONE:
                raise
            return 0, 1

    def close(self) -> None:
        """See `archives.Source`."""
        self._closed = True
        self._session.close()

    # ---- QIDO-RS ----

    def _patients(self, keys: Keys, wanted: tuple[str, ...], limit: int | None) -> Iterator[Row]:
        studies: dict[str, int] = {}
        rows: dict[str, Row] = {}
        for row in self._pages(Level.STUDY, keys, (*wanted, *RETURNED[Level.STUDY]), None):
            patient = row.get("PatientID")
            studies[patient] = studies.get(patient, 0) + 1
            rows.setdefault(patient, row)
        for patient, row in list(rows.items())[:limit]:
            counted = {**row.values, "NumberOfPatientRelatedStudies": str(studies[patient])}
            yield Row(Level.PATIENT, {key: counted.get(key, "") for key in wanted})

    def _pages(self, level: Level, keys: Keys, wanted: tuple[str, ...], limit: int | None) -> Iterator[Row]:
        """Every match, page by page; a server that gives the same page again is at its end."""
        seen: set[str] = set()
        offset = 0
        while True:
            page = self._page(level, keys, wanted, offset)
            offset += len(page)
            fresh = [row for row in page if row.unique not in seen]
            for row in fresh:
                yield row
                seen.add(row.unique)
                if limit is not None and len(seen) >= limit:
                    return
            if not fresh:
                return

    def _page(self, level: Level, keys: Keys, wanted: tuple[str, ...], offset: int) -> list[Row]:
        filters = {key: value.replace("\\", ",") for key, value in keys.items()}
        asked: dict[str, Any] = {"limit": _PAGE, "offset": offset, "fields": list(wanted)}
        study, series = filters.get("StudyInstanceUID", ""), filters.get("SeriesInstanceUID", "")
        with self._failures("the query"):
            if level is Level.STUDY:
                found = self._client.search_for_studies(**asked, search_filters=filters)
            elif level is Level.SERIES:
                filters.pop("StudyInstanceUID")
                found = self._client.search_for_series(study, **asked, search_filters=filters)
            else:
                del filters["StudyInstanceUID"], filters["SeriesInstanceUID"]
                found = self._client.search_for_instances(study, series, **asked, search_filters=filters)
        return [row_of_json(level, one, wanted) for one in found if isinstance(one, Mapping)]

    # ---- WADO-RS ----

    def _retrieved(self, address: str, landing: Landing) -> tuple[int, int]:
        """Fetch one resource; how many objects were kept, and how many not."""
        with self._failures("the retrieval"):
            answer = self._get(address, _AS_STORED)
            if answer.status_code == _NOT_ACCEPTABLE:
                answer.close()
                answer = self._get(address, _ACCEPT)
            with contextlib.closing(answer):
                answer.raise_for_status()
                return self._kept(answer, landing)

    def _get(self, address: str, accept: str) -> Any:
        return self._session.get(address, headers={"Accept": accept}, stream=True, timeout=self._timeout_s)

    def _kept(self, answer: Any, landing: Landing) -> tuple[int, int]:
        kept = refused = 0
        for part in parts(self._pieces(answer, landing), answer.headers.get("Content-Type", "")):
            try:
                _keep(part, landing)
            except InputError:
                refused += 1
            else:
                kept += 1
        return kept, refused

    def _pieces(self, answer: Any, landing: Landing) -> Iterator[bytes]:
        for piece in answer.iter_content(_PIECE_BYTES):
            if self._closed:
                raise PeerError(f"archive {self.name}: the retrieval was broken off")
            landing.touch()
            yield piece

    @contextlib.contextmanager
    def _failures(self, what: str) -> Iterator[None]:
        """Turn what the library says, which quotes addresses and so UIDs, into what to do."""
        try:
            yield
        except requests.HTTPError as error:
            status = 0 if error.response is None else error.response.status_code
            remedy = _REMEDIES.get(status, "see the log of the archive")
            said = f"archive {self.name}: {what} ended with HTTP status {status}: {remedy}"
            raise PeerError(said, status=status) from None
        except requests.exceptions.SSLError:
            said = "its certificate is not trusted; name the certificates that it is signed by (ca)"
            raise PeerError(f"archive {self.name}: {said}", retryable=False) from None
        except requests.Timeout:
            said = f"has sent nothing for {self._timeout_s:.0f} s; if it needs longer, raise timeout_s"
            raise PeerError(f"archive {self.name} {said}") from None
        except ValueError:
            said = f"archive {self.name}: {what} was not answered in DICOM JSON"
            raise PeerError(said, retryable=False) from None
        except (requests.RequestException, OSError) as error:
            kind = (
                "cannot be reached" if isinstance(error, requests.ConnectionError) else "broke off its answer"
            )
            raise PeerError(f"archive {self.name} {kind}; check dicomweb and the network") from None


def _keep(pieces: Iterator[bytes], landing: Landing) -> None:
    """Write one object and give it its name; raises InputError unless it is whole and wanted."""
    room = landing.room(whole)
    room.check_room()
    writer = room.writer()
    try:
        for piece in pieces:
            writer.write(piece)
        writer.keep()
    finally:
        writer.discard()


def whole(path: Path) -> str:
    """The SOP Instance UID of a Part 10 file; raises InputError if it is cut off, or not what it says."""
    try:
        data = data_set_of(path)
    except SpoolError as error:
        raise InputError("a part of the answer is no Part 10 file") from error
    walk = StructureWalk(data.transfer_syntax_uid)
    with path.open("rb") as file:
        file.seek(data.start)
        while piece := file.read(_PIECE_BYTES):
            walk.feed(piece)
    uid = walk.close().sop_instance_uid
    if not is_uid(uid):
        raise InputError("a part of the answer has no usable SOP Instance UID")
    return uid


def parts(pieces: Iterator[bytes], content_type: str) -> Iterator[Iterator[bytes]]:
    """The bodies of a multipart/related message (RFC 2046), each in pieces; of any other, all of it.

    Raises PeerError when it ends before its end.
    """
    boundary = _boundary(content_type)
    if not boundary:
        yield pieces
        return
    message = _Multipart(pieces, boundary.encode("latin-1"))
    while message.next_part():
        body = message.body()
        yield body
        for _ in body:  # what was not taken is passed over
            pass


def _boundary(content_type: str) -> str:
    message = Message()
    message["Content-Type"] = content_type
    if message.get_content_maintype() != "multipart":
        return ""
    return str(message.get_param("boundary", ""))


class _Multipart:
    """A multipart message that is read once, from its front."""

    def __init__(self, pieces: Iterator[bytes], boundary: bytes) -> None:
        self._pieces = pieces
        self._delimiter = b"\r\n--" + boundary
        # a message may begin with its first delimiter
        self._buffer = bytearray(b"\r\n")
        self._begun = False

    def next_part(self) -> bool:
        """Go to the body of the next part; False after the last one."""
        if not self._begun:
            self._begun = True
            for _ in self.body():
                pass
        while len(self._buffer) < 2:
            self._read()
        if self._buffer.startswith(b"--"):
            return False
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _LONGEST_HEADERS:
                raise PeerError("the archive sends a part without an end to its headers", retryable=False)
            self._read()
        del self._buffer[: end + 4]
        return True

    def body(self) -> Iterator[bytes]:
        """The rest of the present part, up to its delimiter, which is passed over."""
        while (end := self._buffer.find(self._delimiter)) < 0:
            safe = len(self._buffer) - len(self._delimiter) + 1
            if safe > 0:
                piece = bytes(self._buffer[:safe])
                del self._buffer[:safe]
                yield piece
            self._read()
        last = bytes(self._buffer[:end])
        del self._buffer[: end + len(self._delimiter)]
        if last:
            yield last

    def _read(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            raise PeerError("the archive broke off a multipart answer")
        self._buffer += piece


# ---- credentials ----


class _Bearer(AuthBase):
    """A token in the header; as an object, so that no other credentials of this machine take its place."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class _Session(requests.Session):
    """Leaves unescaped what may be so in a query (RFC 3986 section 3.4): some archives undo no escapes."""

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        for escaped, plain in _PLAIN.items():
            request.url = (request.url or "").replace(escaped, plain)
        return super().send(request, **options)


def _session(peer: QueryPeer) -> requests.Session:
    session = _Session()
    if peer.credentials is not None:
        session.auth = credentials(peer.credentials)
    if peer.ca is not None:
        if not peer.ca.is_file():
            raise InputError(f"{peer.ca}: there are no certificates here; correct ca")
        session.verify = str(peer.ca)
    return session


def credentials(path: Path) -> AuthBase:
    """What a file holds: `USER:PASSWORD`, or `Bearer TOKEN`; raises InputError."""
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise InputError(f"{path}: others can read these credentials; make it mode 0600")
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: the credentials cannot be read; check the path and its permissions"
        ) from error
    kind, _, token = text.partition(" ")
    if kind.lower() == "bearer" and token and "\n" not in token:
        return _Bearer(token.strip())
    user, colon, password = text.partition(":")
    if not colon or "\n" in text:
        raise InputError(f"{path}: must hold USER:PASSWORD or Bearer TOKEN, on one line")
    return HTTPBasicAuth(user, password)
