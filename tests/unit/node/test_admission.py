"""Who is let in, and how many of them."""

from __future__ import annotations

from pathlib import Path

from dicom_node.config import Config
from dicom_node.dimse.admission import (
    TOO_MANY,
    TOO_MANY_OF_PEER,
    UNKNOWN_CALLED,
    UNKNOWN_CALLER,
    Admission,
    Peer,
    rejection,
)

ONE, TWO = Peer("CT1", "10.0.0.1"), Peer("CT2", "10.0.0.1")


class Association:
    """As far as it is counted."""

    def __init__(self) -> None:
        self.alive = True

    def is_alive(self) -> bool:
        return self.alive


def config(**match: tuple[str, ...]) -> Config:
    return Config.model_validate(
        {
            "node": {"id": "n", "ae_title": "NODE"},
            "storage": {"folder": Path("/nowhere")},
            "routes": ({"name": "all", "role": "pass", "match": match},),
        },
        strict=False,
    )


def test_who_is_let_in() -> None:
    made = config(calling_ae=("CT*",), called_ae=("IN",))
    assert rejection(made, "CT1", "IN") is None
    assert rejection(made, "CT1", "OUT") is UNKNOWN_CALLED
    assert rejection(made, "MR1", "IN") is UNKNOWN_CALLER


def test_a_peer_that_takes_all_its_places_leaves_those_of_others() -> None:
    admission = Admission(total=5, per_peer=2)
    assert [admission.admit(Association(), ONE) for _ in range(3)] == [None, None, TOO_MANY_OF_PEER]
    assert [admission.admit(Association(), TWO) for _ in range(3)] == [None, None, TOO_MANY_OF_PEER]
    assert admission.admit(Association(), Peer("CT1", "10.0.0.2")) is None
    assert admission.admit(Association(), Peer("CT3", "10.0.0.2")) is TOO_MANY


def test_a_place_is_free_again_when_its_association_has_ended() -> None:
    admission = Admission(total=1, per_peer=1)
    first = Association()
    assert admission.admit(first, ONE) is None
    assert admission.admit(Association(), TWO) is TOO_MANY
    first.alive = False
    assert admission.admit(Association(), TWO) is None


def test_too_many_is_told_as_something_that_passes() -> None:
    """A-ASSOCIATE-RJ, transient, presentation service provider, local limit exceeded (PS3.8 table 9-21)."""
    for verdict in (TOO_MANY, TOO_MANY_OF_PEER):
        assert (verdict.result, verdict.source, verdict.reason) == (2, 3, 2)
