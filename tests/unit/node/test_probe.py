"""What a peer would take is asked by negotiation, and it is sent nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context

from dicom_node.config import Destination, Tls
from dicom_node.dimse.contexts import TRANSFER_SYNTAXES, VERIFICATION, is_storage
from dicom_node.dimse.probe import CLASSES, SYNTAXES, probe
from dicom_node.dimse.store import MAX_CONTEXTS
from dicom_node.errors import PeerError


@contextlib.contextmanager
def archive(*contexts: Any, echo: int = 0x0000) -> Iterator[Destination]:
    entity = AE(ae_title="PACS")
    server = entity.start_server(
        ("127.0.0.1", 0),
        block=False,
        contexts=list(contexts),
        evt_handlers=[(evt.EVT_C_ECHO, lambda _event: echo)],
    )
    try:
        port = server.socket.getsockname()[1]
        yield Destination.model_validate(
            {"ae_title": "PACS", "host": "127.0.0.1", "port": port, "timeout_s": 60.0}
        )
    finally:
        server.shutdown()


def everything() -> list[Any]:
    return [build_context(uid, list(SYNTAXES)) for uid in CLASSES]


def test_what_is_asked_fits_one_association_and_is_what_the_node_sends() -> None:
    assert 1 + len(CLASSES) * len(SYNTAXES) <= MAX_CONTEXTS
    assert all(is_storage(uid) for uid in CLASSES)
    assert set(SYNTAXES) <= set(TRANSFER_SYNTAXES)


def test_a_peer_that_takes_everything() -> None:
    with archive(build_context(VERIFICATION), *everything()) as peer:
        answer = probe("pacs", peer, "NODE", Tls())
    assert (answer.echo, answer.refused, answer.uncompressed_only) == (0, (), False)


def test_a_peer_that_takes_little() -> None:
    with archive(
        build_context(VERIFICATION), build_context("1.2.840.10008.5.1.4.1.1.2"), echo=0x0110
    ) as peer:
        answer = probe("pacs", peer, "NODE", Tls())
    assert answer.echo == 0x0110
    assert set(answer.refused) == set(CLASSES.values()) - {"CT"}
    assert answer.uncompressed_only


def test_a_peer_without_verification() -> None:
    with archive(*everything()) as peer:
        assert probe("pacs", peer, "NODE", Tls()).echo is None


def test_a_peer_that_takes_nothing_at_all() -> None:
    with archive(build_context("1.2.840.10008.5.1.4.31")) as peer:
        answer = probe("pacs", peer, "NODE", Tls())
    assert (answer.echo, len(answer.refused)) == (None, len(CLASSES))


def test_a_peer_that_is_away() -> None:
    with archive(*everything()) as peer:
        pass
    with pytest.raises(PeerError, match="cannot be reached"):
        probe("pacs", peer, "NODE", Tls())
