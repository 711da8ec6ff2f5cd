"""What strangers' bytes go through, one function each: whatever they are, it returns.

An error of ours is an answer and is swallowed here; any other exception is a finding. `seeds` are inputs that
get far, to be changed by the fuzzer; the first byte of some chooses a variant.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dsutils import encode
from pynetdicom.pdu_primitives import A_ASSOCIATE, P_DATA
from pynetdicom.presentation import build_context

from blessmark import pixels
from blessmark.errors import PixelError, RecordError, WatermarkError
from blessmark.payload import erasure, packets, record
from blessmark.segment import segmenter
from blessmark.types import Frame
from blessmark.verify import verify
from dicom_node import config, inquiry, keys, review, web
from dicom_node.dimse import patches, query, scp
from dicom_node.dimse.contexts import is_accepted_class
from dicom_node.dimse.reception import Intake, Reception
from dicom_node.dimse.structure import StructureWalk
from dicom_node.errors import ConfigError, DataSetError, InputError, KeyFileError, NodeError, PeerError
from dicom_node.inquiry import Level
from dicom_node.jobs import Arrival
from dicom_node.originals import Originals
from dicom_node.sources import found
from dicom_node.spool import Spool
from tests import media, wire
from tests.builders import Encoding, ct, dataset, file_bytes, mr, phantom, us
from tests.data_sets import BIG, DEFLATED, EXPLICIT, IMPLICIT, JPEG, Writer, simple
from tests.fuzz import marked
from tests.strategies import RING

#: no object of a case is larger decoded
LIMIT_BYTES = 1 << 24
_SYNTAXES = (IMPLICIT, EXPLICIT, BIG, DEFLATED, JPEG)
_FRAMES = 3


@dataclass(frozen=True, slots=True)
class Target:
    """A way in."""

    run: Callable[[bytes], object]
    seeds: Callable[[], Sequence[bytes]]
    #: longest input that is tried, bytes
    longest: int = 1 << 14
    #: cases of one process: where arrays are compared, the instruments keep what they saw
    round: int = 1_000_000


class _Bytes:
    """A socket that has sent everything already."""

    def __init__(self, data: bytes) -> None:
        self._rest = io.BytesIO(data)
        self.socket = SimpleNamespace(recv=self._rest.read)

    def recv(self, count: int) -> bytearray:
        return bytearray(self._rest.read(count))

    def close(self) -> None:
        """There is nothing to close."""


@functools.cache
def _spool() -> Spool:
    memory = Path("/dev/shm")
    return Spool(Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None)), 1)


def pdu(data: bytes) -> None:
    """A peer's bytes as PDUs, what they carry as messages, their data sets into the spool; one thread."""
    patches.apply()
    association = Association(AE(), "acceptor")
    association.requestor.maximum_length = 16384
    association.dul.socket = _Bytes(data)  # type: ignore[assignment]
    association._accepted_cx = {1: SimpleNamespace(abstract_syntax=wire.CT, transfer_syntax=[EXPLICIT])}  # type: ignore[dict-item]
    begun: list[Reception] = []

    def begin(sop_class: str, instance: str, context_id: int) -> Reception:
        context = association._accepted_cx[context_id]
        said = Arrival(sop_class, instance, context.transfer_syntax[0], "A", "B", "r")  # type: ignore[index]
        begun.append(Reception(said, wire.CT, _spool()))
        return begun[-1]

    patches.conduct(association, Intake(begin), 5.0)
    for primitive in _primitives(association):
        _serve(association, primitive)
    for reception in begun:
        reception.discard()


def _primitives(association: Any) -> Iterator[Any]:
    while patches._read_pdu(association.dul) not in (patches._CLOSED, patches._INVALID):
        read = association.dul._recv_pdu.get()
        with contextlib.suppress(Exception):  # the library's state machine ends the association then
            yield read.to_primitive()


def _serve(association: Any, primitive: Any) -> None:
    if isinstance(primitive, P_DATA):
        association.dimse.receive_primitive(primitive)
        while not association.dimse.msg_queue.empty():
            _, request = association.dimse.msg_queue.get()
            reception = (
                patches.take_inflow(association, request) if hasattr(request, "_dataset_path") else None
            )
            if reception is not None:
                reception.finish()
    elif isinstance(primitive, A_ASSOCIATE) and primitive.result is None:
        association.requestor.primitive = primitive
        scp.negotiate(association, primitive.presentation_context_definition_list, is_accepted_class)


def pdu_seeds() -> Sequence[bytes]:
    """Associations, and objects in one PDU and in many."""
    data = simple(wire.CT, "1.2.3")
    command = wire.store_command(wire.CT, "1.2.3")
    whole = wire.pdu(wire.DATA, wire.value(command, 3) + wire.value(data, 2))
    pieces = b"".join(
        wire.pdu(wire.DATA, wire.value(data[at : at + 40], 0)) for at in range(0, len(data), 40)
    )
    split = wire.pdu(wire.DATA, wire.value(command, 3)) + pieces + wire.pdu(wire.DATA, wire.value(b"", 2))
    asked = wire.request(
        wire.context(1, wire.CT, EXPLICIT, JPEG), wire.context(3, wire.VERIFICATION, IMPLICIT)
    )
    echo = wire.pdu(
        wire.DATA, wire.value(wire.command(sop_class=wire.VERIFICATION, field=0x30, data_set=0x101), 3)
    )
    return [
        asked,
        whole,
        split,
        asked + whole,
        echo,
        wire.pdu(wire.RELEASE, bytes(4)),
        wire.pdu(wire.ABORT, bytes(4)),
    ]


def data_set(data: bytes) -> None:
    """A data set as it arrives, in pieces; the first byte chooses transfer syntax and size of the pieces."""
    if not data:
        return
    syntax, size = _SYNTAXES[data[0] % len(_SYNTAXES)], 1 + data[0] // len(_SYNTAXES) * 7
    walk = StructureWalk(syntax)
    with contextlib.suppress(DataSetError):
        for at in range(1, len(data), size):
            walk.feed(data[at : at + size])
        walk.close()


def data_set_seeds() -> Sequence[bytes]:
    """Whole data sets of every encoding, nested and fragmented."""
    seeds = []
    for number, syntax in enumerate(_SYNTAXES):
        writer = Writer(syntax)
        inner = writer.element(0x00080100, "SH", b"CODE")
        nested = writer.sequence(0x00081140, [writer.item(inner, delimited=True)], delimited=True)
        seeds.append(bytes([number + 100]) + simple(wire.CT, "1.2.3", syntax))
        seeds.append(bytes([number]) + nested)
        seeds.append(bytes([number + 50]) + writer.fragments(0x7FE00010, [b"", b"abcd", b"ef"]))
    return seeds


def decode(data: bytes) -> None:
    """A file: read, its pixels decoded, frame by frame."""
    try:
        ds = pixels.read(data, limit_bytes=LIMIT_BYTES)
        if _claims(ds) > LIMIT_BYTES:
            return
        image = pixels.load(ds)
        if isinstance(image, pixels.Image):
            for number in range(1, min(image.frames, _FRAMES) + 1):
                image.frame(number)
    except PixelError:
        pass


def _claims(ds: Dataset) -> int:
    """Samples that the header claims; the engine's own limit is above what fuzzing has memory for."""
    claimed = 1
    for keyword in ("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames"):
        with contextlib.suppress(Exception):  # whatever odd value stands there is the engine's to refuse
            claimed *= max(1, int(ds.get(keyword, 1)))
    return claimed


_COMPRESSED = (
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.70",
)


def decode_seeds() -> Sequence[bytes]:
    """Small images of every codec."""
    seeds = [file_bytes(ds) for ds in (ct(16, 16), mr(16, 16), us(16, 16))]
    for syntax in _COMPRESSED:
        encoding = Encoding(syntax=syntax, bits_allocated=8, bits_stored=8)
        seeds.append(file_bytes(dataset(phantom(32, 32, hi=255), encoding)))
    return seeds


def judge(data: bytes) -> None:
    """A marked file that somebody has changed: labels, originals, packets, record, and back."""
    reader = review.Reader(RING, (segmenter("anatomy"),))
    try:
        ds = pixels.read(data, limit_bytes=LIMIT_BYTES)
        if _claims(ds) <= LIMIT_BYTES:
            review.review(ds, "case", reader, show_record=True)
            review.recover(ds, "case", reader, partial=True)
    except (WatermarkError, NodeError):
        pass


def frame(data: bytes) -> None:
    """A marked frame whose samples are changed: the packet readers of every lattice, framing and carrier."""
    before = marked.marked_frame()
    changes = np.frombuffer(data, np.uint8)
    samples = before.samples.copy()
    flat = samples.reshape(-1)
    for at in range(0, len(changes) - 2, 3):
        flat[(int(changes[at]) << 8 | int(changes[at + 1])) % flat.size] = int(changes[at + 2])
    verify(Frame(samples, before.lo, before.hi), RING, (segmenter("anatomy"),))


def message(data: bytes) -> None:
    """Shards as a reader collects them, then the message that they make, then the record in it."""
    if len(data) < 2:
        return
    count, rest = data[0] % 12, data[1:]
    shards = packets.shards_in(rest[: len(rest) - len(rest) % 6])
    groups = np.arange(len(shards)) // 4
    tiles = np.unique(groups)
    points = packets.points(data[0] + tiles, np.full(len(tiles), 4))[: len(shards)]
    for decoded in erasure.decode(points, shards, count, groups=groups):
        packets.message_of(decoded.data)
    with contextlib.suppress(RecordError):
        record.decode(rest, data[0])
    for parse in (Originals.from_bytes, pixels.Changes.from_bytes):
        with contextlib.suppress(PixelError):
            parse(rest)


def message_seeds() -> Sequence[bytes]:
    """Records of every tier as they were sealed, and originals."""
    return marked.plaintexts()


def settings(data: bytes) -> None:
    """A configuration file."""
    with contextlib.suppress(ConfigError, UnicodeDecodeError):
        config.parse(data.decode(), Path("case.yaml"))


def settings_seeds() -> Sequence[bytes]:
    """The manual, and small files."""
    folder = Path(__file__).resolve().parents[2] / "config"
    return [path.read_bytes() for path in sorted(folder.glob("*.yaml"))]


def ring(data: bytes) -> None:
    """A key ring."""
    with contextlib.suppress(KeyFileError, UnicodeDecodeError):
        keys._parse(Path("ring"), data.decode("ascii"))


def ring_seeds() -> Sequence[bytes]:
    """A ring of two keys, and one with a key to come and one that is revoked."""
    return [
        b"key 1 2026-01-31T09:00:00Z "
        + b"7f" * 32
        + b"\nkey 2 2027-01-31T09:00:00Z "
        + b"01" * 32
        + b"\nkey 3 2027-01-31T09:00:00Z "
        + b"02" * 32
        + b"\ncurrent 2\ncurrent 3 from 2027-02-15T00:00:00Z\nrevoked 1 2027-03-01T12:00:00Z\n",
        b"# keys\nkey 1 2026-01-31T09:00:00Z "
        + b"7f" * 32
        + b"\nkey 2 2027-01-31T09:00:00Z "
        + b"01" * 32
        + b"\ncurrent 2\n",
    ]


@functools.cache
def _disc() -> Path:
    return Path(tempfile.mkdtemp(dir=_spool().folder))


def medium(data: bytes) -> None:
    """What an auditor was given: an index of files, an archive, or a stream; nothing is left behind."""
    name = {0: "DICOMDIR", 1: "x.zip"}.get(data[0] if data else 0, "-")
    path = _disc() / name
    with contextlib.suppress(InputError):
        if name == "-":
            list(found(["-"], _disc(), io.BytesIO(data[1:])))
            return
        path.write_bytes(data[1:])
        list(found([str(path), str(_disc())], _disc(), io.BytesIO()))
    path.unlink()
    assert list(_disc().iterdir()) == []


def medium_seeds() -> Sequence[bytes]:
    """One of each, whole."""
    index, instance = media.dicomdir(["A\\B", "..\\C", "D"], unused=["E"]), file_bytes(ct(16, 16))
    archive = media.zipped({"cd/DICOMDIR": index, "cd/A/B": instance, "x/../../y": instance, "z": b"text"})
    return [b"\0" + index, b"\1" + archive, b"\2" + instance]


def answer(data: bytes) -> None:
    """What an archive answers: matches by C-FIND or QIDO-RS, objects by WADO-RS."""
    kind, rest = data[0] % 4 if data else 0, data[1:]
    wanted = [key for level in inquiry.RETURNED.values() for key in level]
    if kind < 2:
        context = build_context(query.STUDY_ROOT_FIND, (EXPLICIT, IMPLICIT)[kind])
        row = inquiry.row_of(Level.IMAGE, query.decoded(io.BytesIO(rest), context), wanted)
    elif kind == 2:
        with contextlib.suppress(ValueError):
            value = json.loads(rest)
            row = inquiry.row_of_json(Level.IMAGE, value if isinstance(value, dict) else {}, wanted)
            assert all(isinstance(row.get(key), str) for key in wanted)
        return
    else:
        with contextlib.suppress(PeerError):
            for part in web.parts(iter([rest]), "multipart/related; boundary=xx"):
                b"".join(part)
        return
    assert not [each for key in wanted for each in row.get(key) if unicodedata.category(each)[0] == "C"]


def answer_seeds() -> Sequence[bytes]:
    """One of each."""
    match = mr(
        16,
        16,
        SpecificCharacterSet=["", "ISO 2022 IR 87"],
        PatientName="Yamada^Tarou=\u5c71\u7530",
        InstanceNumber=3,
    )
    del match.PixelData
    explicit, implicit = (encode(match, is_implicit, True) or b"" for is_implicit in (False, True))
    message = b"--xx\r\nContent-Type: application/dicom\r\n\r\none\r\n--xx\r\n\r\ntwo\r\n--xx--"
    return [
        b"\0" + explicit,
        b"\1" + implicit,
        b"\2" + json.dumps(match.to_json_dict()).encode(),
        b"\3" + message,
    ]


TARGETS: Mapping[str, Target] = {
    "pdu": Target(pdu, pdu_seeds),
    "data-set": Target(data_set, data_set_seeds),
    "decode": Target(decode, decode_seeds),
    "judge": Target(judge, marked.files, longest=1 << 17, round=4000),
    "frame": Target(frame, lambda: [b"\0\0\0", bytes(range(90))], longest=300, round=10_000),
    "message": Target(message, message_seeds, longest=4096),
    "settings": Target(settings, settings_seeds),
    "ring": Target(ring, ring_seeds, longest=1024),
    "medium": Target(medium, medium_seeds),
    "answer": Target(answer, answer_seeds),
}
