"""Whatever happens to an object, nothing that a node says or leaves about tells whose it was.

One node does everything to objects full of values that stand nowhere else: protects, judges, gives back,
holds, refuses, fails to deliver, is spoken to by broken and hostile peers. Then all that it wrote and said at
the most talkative level is searched for each of these values, in every spelling that a program might use.
"""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context

from benchmarks.stand import Node, Peer, Setup, free_port, wait_until
from blessmark.payload.record import FULL_FIELDS
from blessmark.segment import segmenter
from dicom_node import keys
from dicom_node.audit.syslog import document
from dicom_node.dimse import patches
from dicom_node.keys import FileKeyRing
from dicom_node.protect import Site, protect
from tests.audit_trails import Sink
from tests.builders import file_bytes, mr

pytestmark = pytest.mark.slow

_ROOT = "1.2.826.0.1.3680043.8.498.31415926535"
_STUDY = f"{_ROOT}.7"
#: keyword -> a value that stands nowhere else
_VALUES = {
    "PatientName": "Wölfinger-Quastel^Zacharias",
    "PatientID": "ZQX-77120-K",
    "PatientBirthDate": "19470811",
    "PatientBirthTime": "031407.265358",
    "OtherPatientIDs": "ALT-ZQX-99",
    "AccessionNumber": "ACC-QQ-81726",
    "StudyInstanceUID": _STUDY,
    "SeriesInstanceUID": f"{_ROOT}.8",
    "FrameOfReferenceUID": f"{_ROOT}.9",
    "StudyDate": "20190823",
    "StudyTime": "174533.112358",
    "StudyID": "STID-QZ-5",
    "StudyDescription": "Zwölffingerdarm nach Quastel",
    "SeriesDescription": "Series-of-Quastel",
    "PatientComments": "said: tell nobody-4711-QZ",
    "InstitutionName": "Spital Quastelheim",
    "ReferringPhysicianName": "Obermoser-Qvist^Balthasar",
    "PerformingPhysicianName": "Untermoser-Qvist^Melchior",
    "OperatorsName": "Mittermoser-Qvist^Kaspar",
    "PatientAddress": "Quastelgasse 17",
    "StationName": "STAT-QZ-0815",
    "DeviceSerialNumber": "SER-QZ-271828",
    "ProtocolName": "Protocol-of-Quastel",
}
_PRIVATE = "private-secret-of-Quastel"
_CHARSET = {"SpecificCharacterSet": "ISO_IR 192"}
_CONTEXT = build_context(uid.MRImageStorage, ExplicitVRLittleEndian)
#: what the log must tell of for the scenario to be worth anything
_HAPPENED = (
    *("held", "dead-letter", "refused", "association-rejected", "not-kept", "same-uid-other-content"),
    *("received", "processed", "delivered", "association"),
)
#: shorter words stand by chance in other text
_LEAST = 5
_MARK_ROUTES = [
    {"name": "marks", "match": {"calling_ae": ["MARKS"]}, "role": "protect"},
    {
        "name": "cleans",
        "match": {"calling_ae": ["CLEANS"]},
        "role": "protect",
        "deidentify": {"profile": "basic"},
    },
    {"name": "judges", "match": {"calling_ae": ["JUDGES"]}, "role": "verify"},
    {"name": "returns", "match": {"calling_ae": ["RETURNS"]}, "role": "recover"},
    {"name": "passes", "match": {"calling_ae": ["PASSES"]}, "role": "pass"},
]


class Telltale:
    """An archive that refuses some objects with a comment that names the patient, and resets others."""

    def __init__(self) -> None:
        self.port = free_port()
        self.taken = 0
        entity = AE(ae_title="ARCHIVE")
        entity.supported_contexts = [_CONTEXT]
        self._server = entity.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )

    def _store(self, event: Any) -> Dataset | int:
        if str(event.request.AffectedSOPInstanceUID).endswith(".666"):
            answer = Dataset()
            answer.Status = 0xC123
            answer.ErrorComment = f"{_VALUES['PatientID']} of {_VALUES['PatientBirthDate']} is dead"
            return answer
        self.taken += 1
        return 0x0000

    def stop(self) -> None:
        self._server.shutdown()


def image(number: int, **changes: Any) -> Dataset:
    ds = mr(128, 96, seed=number, SOPInstanceUID=f"{_ROOT}.{number}", **_CHARSET, **_VALUES)
    block = ds.private_block(0x0099, "QUASTEL INC", create=True)
    block.add_new(0x01, "LO", _PRIVATE)
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    return ds


def marked(number: int, ring: Path, *, tampered: bool = False) -> bytes:
    ds = image(number)
    protect(ds, Site("n", FileKeyRing.load(ring), segmenter("anatomy"), FULL_FIELDS), 1_790_000_000)
    if tampered:
        samples = bytearray(ds.PixelData)
        samples[9000:9400] = bytes(400)
        ds.PixelData = bytes(samples)
    return file_bytes(ds)


def send(port: int, folder: Path, calling: str, *files: bytes) -> list[int]:
    """The statuses; fewer where the association ended."""
    patches.apply()  # sends files as they are, broken ones too
    association = AE(ae_title=calling).associate("127.0.0.1", port, contexts=[_CONTEXT])
    statuses = []
    for number, content in enumerate(files):
        if association.is_established:
            path = folder / f"{calling}-{number}.dcm"
            path.write_bytes(content)
            statuses.append(int(association.send_c_store(path).get("Status", -1)))
    if association.is_established:
        association.release()
    return statuses


def do_everything(node: Node, folder: Path) -> None:
    """Every way that an object can go, and every way that it cannot."""
    other = folder / "other-keys"
    keys.generate(other)
    whole = file_bytes(image(1))
    no_pixels = image(2)
    del no_pixels.PixelData
    broken = image(3, BitsAllocated=13)
    short = image(4, PixelData=b"\0" * 100)
    odd = [file_bytes(each) for each in (no_pixels, broken, short)]
    assert send(node.port, folder, "MARKS", whole, whole, *odd) == [0] * 5
    send(node.port, folder, "CLEANS", file_bytes(image(5)), file_bytes(image(6, BurnedInAnnotation="YES")))
    judged = marked(7, node.keys), marked(8, node.keys, tampered=True), marked(9, other), whole
    for calling in ("JUDGES", "RETURNS"):
        assert send(node.port, folder, calling, *judged) == [0] * 4
    again = file_bytes(image(1, PatientComments="another content"))
    refused = file_bytes(image(666)), whole[:-300], whole[:700], whole + _VALUES["PatientName"].encode()
    send(node.port, folder, "PASSES", whole, again, *refused)
    send(node.port, folder, "STRANGER", whole)
    send(node.port, folder, "A" * 16, whole)
    for garbage in (whole, b"\x01\x00" + whole, b"\x04\x00\x00\x00\x10\x00" + whole[400:5000]):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", node.port), 5) as peer:
            peer.sendall(garbage)
            peer.settimeout(60)
            peer.recv(100)


def commands(node: Node, folder: Path) -> Iterator[bytes]:
    """What the operator's commands show."""
    config = ["--config", str(node.folder / "node.yaml")]
    for command in (
        ["queue", "list", "--limit", "100", "--json", *config],
        ["queue", "show", "2", *config],
        ["queue", "export", "1", "--out", str(folder / "exported"), *config],
        ["queue", "drop", "2", "--yes", *config],
        ["audit", "status", "--json", *config],
        ["recover", str(folder / "exported"), "--out", str(folder / "no"), "--keys", str(node.keys), *config],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "dicom_node", *command], capture_output=True, timeout=120, cwd=folder
        )
        yield done.stdout + done.stderr


def secrets() -> list[str]:
    """Every value, and the parts of names, addresses and comments."""
    values = {*_VALUES.values(), _PRIVATE, *(f"{_ROOT}.{number}" for number in (*range(1, 10), 666))}
    words = {word for value in values for word in re.split(r"[\^\s=]+", value)}
    return sorted(each for each in values | words if len(each) >= _LEAST)


def spellings(secret: str) -> Iterator[bytes]:
    """A value as a program might write it."""
    for codec in ("utf-8", "latin-1", "utf-16-le", "utf-16-be"):
        plain = secret.encode(codec)
        yield from (plain, plain.hex().encode(), plain.hex().upper().encode(), plain.hex(" ").encode())
        yield plain.hex(":").encode()
        for shift in range(3):
            coded = base64.b64encode(bytes(shift) + plain).rstrip(b"=")
            core = coded[(shift * 8 + 5) // 6 : len(coded) - 1]
            if len(core) >= _LEAST:
                yield core
    yield from (secret.encode("unicode_escape"), urllib.parse.quote(secret).encode(), secret[::-1].encode())
    yield repr(secret)[1:-1].encode()


def leaks(content: bytes, allowed: tuple[str, ...] = ()) -> list[str]:
    content = content.lower()
    return [
        secret
        for secret in secrets()
        if secret not in allowed and any(each.lower() in content for each in spellings(secret))
    ]


@pytest.mark.parametrize("how", ["text", "json"])
def test_no_patient_is_named(tmp_path: Path, how: str) -> None:
    archive, sink = Telltale(), Sink()
    sections: dict[str, object] = {
        "routes": [{**route, "destinations": ["archive"]} for route in _MARK_ROUTES],
        "log": {"format": how, "level": "debug"},
        "audit": {"host": "127.0.0.1", "port": sink.port, "transport": "tcp", "aggregate_s": 0.2},
    }
    node = Node(tmp_path / "node", Setup({"archive": Peer(archive.port)}, "protect", 1, sections=sections))
    told: list[bytes] = []
    with sink:
        node.start()
        try:
            do_everything(node, tmp_path)
            wait_until(lambda: node.metric("dicom_node_deliveries", state="dead") >= 1, 180, "a dead letter")
            wait_until(lambda: node.metric("dicom_node_instances", state="received") == 0, 180, "work")
            wait_until(lambda: node.metric("dicom_node_deliveries", state="queued") == 0, 180, "sending")
            told += commands(node, tmp_path)
            told += [repr(node.page(path)).encode() for path in ("/metrics", "/healthz", "/readyz", "/none")]
        finally:
            node.terminate()
            archive.stop()
        sink.wait_for_bytes(11)
    log = node.log.read_text("utf-8")
    assert [word for word in _HAPPENED if word not in log] == []
    told.append(log.encode())
    told.append("\n".join(str(path) for path in node.state.rglob("*")).encode())
    told += [path.read_bytes() for path in (node.state / "audit").glob("*.json")]
    assert archive.taken >= 5
    assert [leaks(each) for each in told if leaks(each)] == []
    messages = b"\n".join(document(message) for message in sink.messages)
    assert messages.count(b"<AuditMessage>") > 10
    assert leaks(messages, allowed=(_STUDY,)) == []
    assert leaks(_everything_hidden(messages)) == []


def _everything_hidden(messages: bytes) -> bytes:
    """What stands in base64 in the messages."""
    return b"\n".join(base64.b64decode(each) for each in re.findall(rb'value="([^"]+)"', messages))


@pytest.mark.parametrize("secret", ["Wölfinger-Quastel^Zacharias", _STUDY])
def test_every_spelling_is_found(secret: str) -> None:
    for spelling in spellings(secret):
        assert secret in leaks(b"xx" + spelling + b"yy")
    for shift in range(3):
        assert secret in leaks(base64.b64encode(b"x" * shift + secret.encode() + b" and more"))
    assert leaks(b"nothing to see") == []
