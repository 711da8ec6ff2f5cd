"""What may be converted, and what becomes of the process that does it: it may crash, hang or be killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom import dcmread, uid

from dicom_node import transcode
from dicom_node.config import Config, Destination
from dicom_node.dimse.contexts import TRANSFER_SYNTAXES
from dicom_node.errors import BlobsUnavailable, ConversionError, SpoolFull
from dicom_node.spool import Spool
from dicom_node.transcode import CONVERTIBLE, Transcoder, alternatives, patience_s
from tests.builders import Encoding, dataset, file_bytes, phantom

EXPLICIT, IMPLICIT = str(uid.ExplicitVRLittleEndian), str(uid.ImplicitVRLittleEndian)


def destination(**changes: Any) -> Destination:
    return Destination.model_validate({"ae_title": "A", "host": "h", "port": 1} | changes, strict=False)


@pytest.mark.parametrize(
    ("syntax", "expected"),
    [
        (EXPLICIT, (IMPLICIT,)),
        (IMPLICIT, (EXPLICIT,)),
        (uid.ExplicitVRBigEndian, (EXPLICIT, IMPLICIT)),
        (uid.JPEGLSLossless, (EXPLICIT, IMPLICIT)),
        (uid.JPEGBaseline8Bit, (EXPLICIT, IMPLICIT)),
        (uid.MPEG2MPML, ()),
        ("1.2.840.10008.1.2.4.110", ()),
        ("1.3.99", ()),
    ],
)
def test_what_an_object_may_become(syntax: str, expected: tuple[str, ...]) -> None:
    assert alternatives(destination(), str(syntax)) == expected
    assert alternatives(destination(transcode="never"), str(syntax)) == ()


def test_the_order_is_the_configured_one() -> None:
    assert alternatives(destination(transcode_to=("implicit", "explicit")), uid.RLELossless) == (
        IMPLICIT,
        EXPLICIT,
    )
    assert alternatives(destination(transcode_to=("implicit",)), uid.RLELossless) == (IMPLICIT,)


def test_only_what_is_accepted_can_be_converted() -> None:
    assert set(TRANSFER_SYNTAXES) >= CONVERTIBLE


class Place:
    def __init__(self, folder: Path) -> None:
        self.config = Config.model_validate(
            {
                "node": {"id": "n", "ae_title": "NODE"},
                "storage": {"folder": folder, "reserve_mb": 16},
                "destinations": {"a": {"ae_title": "A", "host": "h", "port": 1}},
                "routes": ({"name": "r", "role": "pass", "destinations": ("a",)},),
            },
            strict=False,
        )
        storage = self.config.storage
        self.spool = Spool(storage.spool_dir, storage.reserve_bytes)
        self.transcoder = Transcoder(self.config)

    def put(self, syntax: str = EXPLICIT) -> str:
        return self.spool.put([file_bytes(dataset(phantom(64, 64), Encoding(syntax=syntax)))]).name

    def pid(self) -> int:
        process = self.transcoder._process
        assert process is not None
        assert process.pid is not None
        return process.pid


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.transcoder.close()
    assert made.transcoder._process is None


def test_conversions_crashes_and_hangs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """One story, because every process takes seconds to start."""
    blob = place.put(uid.JPEGLSLossless)
    made = place.transcoder.convert(blob, EXPLICIT, 300.0)
    assert dcmread(place.spool.path(made)).PixelData == phantom(64, 64).astype("<u2").tobytes()
    place.spool.verify(made)
    what_cannot_be_converted_is_said_and_the_process_goes_on(place)
    killed_between_two_objects_another_takes_its_place(place, blob, made)
    hanging_it_is_ended_when_the_time_is_over(place, blob)
    crashing_over_an_object_costs_one_attempt(place, blob)
    without_work_it_goes_away(place, blob, made, monkeypatch)


def what_cannot_be_converted_is_said_and_the_process_goes_on(place: Place) -> None:
    first = place.pid()
    broken = place.spool.put([b"no DICOM file at all" * 20]).name
    with pytest.raises(ConversionError, match="DICM") as caught:
        place.transcoder.convert(broken, EXPLICIT, 300.0)
    assert caught.value.reason == "not-convertible"
    assert place.pid() == first


def killed_between_two_objects_another_takes_its_place(place: Place, blob: str, made: str) -> None:
    first = place.pid()
    os.kill(first, signal.SIGKILL)
    place.transcoder._process.join(120)  # type: ignore[union-attr]
    assert place.transcoder.convert(blob, IMPLICIT, 300.0) != made
    assert place.pid() != first


def hanging_it_is_ended_when_the_time_is_over(place: Place, blob: str) -> None:
    os.kill(place.pid(), signal.SIGSTOP)
    with pytest.raises(ConversionError, match="within 0 s") as caught:
        place.transcoder.convert(blob, EXPLICIT, 0.3)
    assert caught.value.reason == "conversion-hung"
    assert place.transcoder._process is None


def crashing_over_an_object_costs_one_attempt(place: Place, blob: str) -> None:
    transcoder = place.transcoder
    transcoder.convert(blob, EXPLICIT, 300.0)
    os.kill(place.pid(), signal.SIGSTOP)
    pipe: Any = transcoder._pipe
    killer = threading.Thread(target=transcoder.abort)

    def poll(limit_s: float) -> bool:
        """The order is out, and nobody has it yet."""
        killer.start()
        return bool(pipe.poll(limit_s))

    stand_in: Any = SimpleNamespace(send=pipe.send, poll=poll, recv=pipe.recv, close=pipe.close)
    transcoder._pipe = stand_in
    with pytest.raises(ConversionError, match="ended the process") as caught:
        transcoder.convert(blob, EXPLICIT, 300.0)
    killer.join()
    assert caught.value.reason == "conversion-crashed"


def without_work_it_goes_away(place: Place, blob: str, made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    transcoder = place.transcoder
    assert transcoder.convert(blob, EXPLICIT, 300.0) == made
    transcoder.rest()
    assert transcoder._process is not None
    monkeypatch.setattr(transcode, "_IDLE_S", 0.0)
    time.sleep(0.01)
    transcoder.rest()
    assert transcoder._process is None


def test_a_full_spool_is_not_the_fault_of_the_object() -> None:
    with pytest.raises(SpoolFull, match="no room"):
        transcode._understood("full", "no room left")
    with pytest.raises(BlobsUnavailable, match="no answer"):
        transcode._understood("away", "no answer")
    with pytest.raises(ConversionError, match="because"):
        transcode._understood("impossible", "because")
    assert transcode._understood("made", "name") == "name"


def test_conversions_leave_half_of_the_reserve_to_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "spool", 0)
    orders = [(spool.put([b"object"]).name, EXPLICIT)]
    answers: list[tuple[str, str]] = []

    class Pipe:
        def recv(self) -> tuple[str, str]:
            if not orders:
                raise EOFError
            return orders.pop()

        send = staticmethod(answers.append)

    monkeypatch.setattr(transcode.signal, "signal", lambda *_: None)
    monkeypatch.setattr(transcode.log, "setup", lambda *_: None)
    monkeypatch.setattr(transcode, "open_spool", lambda _config: Spool(spool.folder, 1 << 60))
    transcode._serve(Place(tmp_path).config, Pipe())  # type: ignore[arg-type]
    assert [kind for kind, _ in answers] == ["full"]


def test_patience_grows_with_the_object(tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(bytes(1 << 18))
    assert patience_s(path) == 151.0
    with pytest.raises(ConversionError, match="gone from the spool"):
        patience_s(tmp_path / "absent")
