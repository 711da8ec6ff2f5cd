"""The sender, answered by real SCPs over loopback."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context
from pynetdicom.transport import ThreadedAssociationServer

from dicom_node.config import Destination
from dicom_node.dimse import stream
from dicom_node.dimse.exchange import Exchange
from dicom_node.dimse.reception import part10_head
from dicom_node.dimse.store import MAX_CONTEXTS, Sender, patience_s
from dicom_node.errors import PeerError, SpoolError
from dicom_node.jobs import Arrival, Send
from tests.waiting import failing, wait_until

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT, IMPLICIT, J2K = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.90"
DATA_SET = bytes(range(256)) * 1200


class Peer:
    """A storage SCP that answers what it is told and remembers what it got."""

    def __init__(self, *contexts: Any, answer: Callable[[], int] = lambda: 0x0000) -> None:
        self.received: list[bytes] = []
        self.associations = 0
        self.answer = answer
        entity = AE(ae_title="ARCHIVE")
        entity.maximum_pdu_size = 32768
        self.server = entity.make_server(
            ("127.0.0.1", 0),
            server_class=ThreadedAssociationServer,
            contexts=list(contexts or (build_context(CT, [EXPLICIT, J2K]), build_context(MR, EXPLICIT))),
            evt_handlers=[(evt.EVT_C_STORE, self._store), (evt.EVT_ACCEPTED, self._accepted)],
        )
        entity._servers.append(self.server)
        self.port = self.server.server_address[1]
        # `start_server` would look only every half second whether it is to stop
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def _accepted(self, _event: Any) -> None:
        self.associations += 1

    def _store(self, event: Any) -> int:
        self.received.append(event.request.DataSet.getvalue())
        return self.answer()

    def close(self) -> None:
        self.server.shutdown()


@contextlib.contextmanager
def peer(*contexts: Any, **options: Any) -> Iterator[Peer]:
    with contextlib.closing(Peer(*contexts, **options)) as made:
        yield made


def destination(port: int, **changes: Any) -> Destination:
    return Destination.model_validate(
        {"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": port, "timeout_s": 60.0} | changes
    )


class Out(Sender):
    """A sender whose objects are agreed about and sent in one go, in their own syntax."""

    def deliver(self, send: Send, path: Path) -> int:
        return self.send(send, path, self.agree(send))


@contextlib.contextmanager
def sender(port: int, **changes: Any) -> Iterator[Out]:
    with contextlib.closing(Out("archive", destination(port, **changes), "NODE")) as made:
        yield made


def job(sop_class: str = CT, syntax: str = EXPLICIT) -> Send:
    return Send(1, 1, 1, "archive", "", sop_class, "1.2.3.4", syntax)


def part10(folder: Path, sop_class: str = CT, syntax: str = EXPLICIT) -> Path:
    path = folder / f"{sop_class}-{syntax}.dcm"
    head = part10_head(Arrival(sop_class, "1.2.3.4", syntax, "A", "B", "r"))
    path.write_bytes(head + DATA_SET)
    return path


def test_the_bytes_of_the_data_set_arrive_as_they_are(tmp_path: Path) -> None:
    with peer() as archive, sender(archive.port) as out:
        assert out.deliver(job(), part10(tmp_path)) == 0x0000
        assert out.deliver(job(syntax=J2K), part10(tmp_path, syntax=J2K)) == 0x0000
    assert archive.received == [DATA_SET, DATA_SET]


def test_one_association_serves_many(tmp_path: Path) -> None:
    path = part10(tmp_path)
    with peer() as archive, sender(archive.port) as out:
        for _ in range(5):
            out.deliver(job(), path)
        assert out.connected
    assert archive.associations == 1
    assert len(archive.received) == 5


def test_a_new_class_is_negotiated_beside_the_old(tmp_path: Path) -> None:
    with peer() as archive, sender(archive.port) as out:
        for sop_class in (CT, MR, CT, MR):
            assert out.deliver(job(sop_class), part10(tmp_path, sop_class)) == 0x0000
    assert archive.associations == 2


def test_what_the_peer_does_not_take_is_told_apart_and_does_not_harm_the_rest(tmp_path: Path) -> None:
    with peer(build_context(CT, EXPLICIT)) as archive, sender(archive.port) as out:
        assert out.deliver(job(), part10(tmp_path)) == 0x0000
        for _ in range(2):
            with pytest.raises(PeerError, match="no presentation context for MR Image Storage") as caught:
                out.deliver(job(MR), part10(tmp_path, MR))
            assert not caught.value.retryable
        assert out.deliver(job(), part10(tmp_path)) == 0x0000
    assert archive.associations == 2


def test_a_peer_that_takes_nothing_at_all(tmp_path: Path) -> None:
    refusal = pytest.raises(PeerError, match="no presentation context")
    with peer(build_context(CT, IMPLICIT)) as archive, sender(archive.port) as out, refusal as caught:
        out.deliver(job(), part10(tmp_path))
    assert not caught.value.retryable
    assert archive.received == []


@pytest.mark.parametrize("status", [0xA700, 0xB000, 0xC123, 0x0122])
def test_the_status_of_the_peer_is_returned(tmp_path: Path, status: int) -> None:
    with peer(answer=lambda: status) as archive, sender(archive.port) as out:
        assert out.deliver(job(), part10(tmp_path)) == status
        assert out.connected


def test_nobody_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with sender(port) as out, pytest.raises(PeerError, match="cannot be reached at 127") as caught:
        out.deliver(job(), part10(tmp_path))
    assert caught.value.retryable


def test_a_name_that_does_not_resolve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_query: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with (
        sender(104, host="archive.invalid") as out,
        pytest.raises(PeerError, match="cannot be found") as caught,
    ):
        out.deliver(job(), part10(tmp_path))
    assert caught.value.retryable


def test_a_peer_that_refuses_the_association(tmp_path: Path) -> None:
    with peer() as archive:
        archive.server.ae.require_called_aet = True
        refusal = pytest.raises(PeerError, match="refuses the association")
        with sender(archive.port, ae_title="WRONG") as out, refusal as caught:
            out.deliver(job(), part10(tmp_path))
    # the fault is in somebody's configuration, not in the object
    assert caught.value.retryable


def test_a_peer_that_accepts_and_says_nothing(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        sender(silent.getsockname()[1], timeout_s=0.3) as out,
        pytest.raises(PeerError, match="cannot be reached") as caught,
    ):
        out.deliver(job(), part10(tmp_path))
    assert caught.value.retryable


def test_a_peer_that_does_not_answer_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_node.dimse.exchange.SLOWEST_ANSWER_BYTES_S", 1 << 40)
    go = threading.Event()

    def stall() -> int:
        go.wait(60)
        return 0x0000

    with peer(answer=stall) as archive, sender(archive.port, timeout_s=0.3) as out:
        path = part10(tmp_path)
        error = failing(lambda: out.deliver(job(), path), PeerError, "gave no answer")
        go.set()
        assert error.retryable
        assert not out.connected
        archive.answer = lambda: 0x0000

        def taken() -> bool:
            with contextlib.suppress(PeerError):
                return out.deliver(job(), path) == 0x0000
            return False

        wait_until(taken)
    assert archive.associations >= 2


def test_a_peer_that_aborts_is_tried_anew_next_time(tmp_path: Path) -> None:
    with peer() as archive, sender(archive.port) as out:
        out.deliver(job(), part10(tmp_path))
        archive.answer = lambda: archive.server.active_associations[0].abort() or 0x0000  # type: ignore[func-returns-value]
        with pytest.raises(PeerError) as caught:
            out.deliver(job(), part10(tmp_path))
        assert caught.value.retryable
        archive.answer = lambda: 0x0000
        assert out.deliver(job(), part10(tmp_path)) == 0x0000


def test_abort_breaks_a_send_that_hangs(tmp_path: Path) -> None:
    go, errors = threading.Event(), []
    with peer(answer=lambda: int(not go.wait(60))) as archive, sender(archive.port, timeout_s=60.0) as out:

        def send() -> None:
            try:
                out.deliver(job(), part10(tmp_path))
            except PeerError as error:
                errors.append(error)

        thread = threading.Thread(target=send)
        thread.start()
        wait_until(lambda: archive.received)
        out.abort()
        thread.join(120)
        go.set()
        assert not thread.is_alive()
    assert len(errors) == 1


def test_a_file_that_is_gone_or_is_none(tmp_path: Path) -> None:
    with peer() as archive, sender(archive.port) as out:
        with pytest.raises(SpoolError, match="gone from the spool"):
            out.deliver(job(), tmp_path / "absent")
        rubbish = tmp_path / "rubbish"
        rubbish.write_bytes(b"no DICOM at all" * 20)
        with pytest.raises(SpoolError, match="cannot be read as a DICOM file"):
            out.deliver(job(), rubbish)
        assert out.deliver(job(), part10(tmp_path)) == 0x0000
    assert archive.received == [DATA_SET]


def test_more_classes_than_an_association_can_carry(tmp_path: Path) -> None:
    with peer() as archive, sender(archive.port) as out:
        for number in range(MAX_CONTEXTS):
            out._proposed[(f"1.3.99.{number}", EXPLICIT)] = None
        assert out.deliver(job(), part10(tmp_path)) == 0x0000
        assert len(out._proposed) == MAX_CONTEXTS
        assert ("1.3.99.0", EXPLICIT) not in out._proposed


def release(association: Any) -> None:
    """Ask for release and wait for no answer: the sender reads only with its next object."""
    association.acse_timeout = 0.2
    association.release()


LEAVES: dict[str, Callable[[Any], Any]] = {
    "aborts": lambda association: association.abort(),
    "releases": release,
    "hangs up": lambda association: association.dul.socket.socket.shutdown(socket.SHUT_RDWR),
}


@pytest.mark.parametrize("rested", [False, True])
@pytest.mark.parametrize("how", LEAVES)
def test_a_peer_that_leaves_between_two_objects_costs_neither(tmp_path: Path, how: str, rested: bool) -> None:
    """Whether the connection is in the sender's hands then or in the library's."""
    path = part10(tmp_path)
    with peer() as archive, sender(archive.port) as out:
        assert out.deliver(job(), path) == 0x0000
        if rested:
            out.rest()
        LEAVES[how](archive.server.active_associations[0])
        wait_until(lambda: not (rested and out.connected))
        assert out.deliver(job(), path) == 0x0000
    assert archive.associations == 2


def test_what_was_read_ahead_is_sent_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other, opened = part10(tmp_path), part10(tmp_path, syntax=J2K), []
    real = stream.Outgoing
    monkeypatch.setattr(stream, "Outgoing", lambda path: opened.append(path) or real(path))
    with peer() as archive, sender(archive.port) as out:
        out.prepare(job(), path)  # not connected: there is nothing to prepare for
        assert opened == []
        assert out.deliver(job(), path) == 0x0000
        out.prepare(job(), path)
        assert out.deliver(job(), path) == 0x0000
        assert opened == [path, path]
        out.prepare(job(), path)
        assert out.deliver(job(syntax=J2K), other) == 0x0000
        out.prepare(job(), tmp_path / "absent")
        assert out.deliver(job(), path) == 0x0000
        out.prepare(job(), path)
        out.rest()
        assert out.deliver(job(), path) == 0x0000
    assert archive.received == [DATA_SET] * 5
    assert archive.associations == 2


def test_whoever_is_to_forget_an_association_does_in_whatever_state_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = part10(tmp_path)
    with peer() as archive, sender(archive.port) as out:
        out.deliver(job(), path)
        out.prepare(job(), path)
        with monkeypatch.context() as broken:
            broken.setattr(Exchange, "unload", lambda _self, _loaded: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                out.forget()
        assert not out.connected
        assert out.deliver(job(), path) == 0x0000
        assert out.connected
    assert archive.associations == 2


def test_what_is_done_meanwhile_is_done_before_the_answer_comes(tmp_path: Path) -> None:
    said: list[str] = []
    go = threading.Event()

    def answer() -> int:
        go.wait(60)
        said.append("answered")
        return 0x0000

    def meanwhile() -> None:
        said.append("meanwhile")
        go.set()

    path = part10(tmp_path)
    with peer(answer=answer) as archive, sender(archive.port) as out:
        assert out.send(job(), path, out.agree(job()), meanwhile) == 0x0000
    assert said == ["meanwhile", "answered"]


def test_neither_a_release_nor_an_abort_leaves_threads_behind(tmp_path: Path) -> None:
    """They stand still while objects are sent; whoever forgot them would keep the process from ending."""
    before = set(threading.enumerate())
    with peer() as archive:
        for end in (Sender.close, Sender.abort):
            with sender(archive.port) as out:
                out.deliver(job(), part10(tmp_path))
                ours = [each for each in threading.enumerate() if "Requestor" in each.name]
                assert ours
                end(out)
                for thread in ours:
                    thread.join(120)
                assert not any(thread.is_alive() for thread in ours)
    wait_until(lambda: before >= set(threading.enumerate()))


def test_patience_grows_with_the_object() -> None:
    assert patience_s(destination(104, timeout_s=10.0), 1 << 20) == 37.0


@pytest.mark.parametrize("says", ["release", "abort", "half a message", "the end"])
def test_what_a_peer_says_while_nothing_is_sent_is_noticed(tmp_path: Path, says: str) -> None:
    """A lane that rests keeps the connection in hand, so nobody else listens."""
    with peer() as archive, sender(archive.port) as out:
        out.deliver(job(), part10(tmp_path))
        assert out.is_quiet()
        association = archive.server.active_associations[0]
        connection = association.dul.socket.socket
        saying = {
            "release": association.release,
            "abort": association.abort,
            "half a message": lambda: connection.sendall(b"\x05\x00\x00"),
            "the end": lambda: connection.shutdown(socket.SHUT_WR),
        }[says]
        thread = threading.Thread(target=saying)
        thread.start()
        wait_until(lambda: not out.is_quiet())
        assert not out.connected
        thread.join(60)
        assert association.is_released == (says == "release")
        assert out.deliver(job(), part10(tmp_path)) == 0x0000
    assert archive.associations == 2
