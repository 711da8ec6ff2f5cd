"""Who is let in, and how many of them."""

from __future__ import annotations

from pathlib import Path

from dicom_node import users
from dicom_node.config import Access, Config
from dicom_node.dimse.admission import (
    NOT_LISTED,
    OTHER_ADDRESS,
    OTHER_CERTIFICATE,
    OTHER_IDENTITY,
    TOO_MANY,
    TOO_MANY_OF_PEER,
    UNKNOWN_CALLED,
    UNKNOWN_CALLER,
    Admission,
    Identities,
    Identity,
    Peer,
    rejection,
    stranger,
)
from dicom_node.dimse.secure import Proof

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


# ---- beyond the routes ----


def access(*callers: dict[str, object]) -> Access:
    return Access.model_validate({"callers": callers}, strict=False)


def test_without_callers_everybody_comes_in() -> None:
    assert stranger(Access(), ONE, None) is None


def test_who_is_in_no_entry_stays_out() -> None:
    assert stranger(access({"ae_title": "MR*"}), ONE, None) is NOT_LISTED


def test_where_a_caller_must_be() -> None:
    listed = access({"ae_title": "CT*", "addresses": ("10.0.0.0/24", "2001:db8::/32")})
    for address, verdict in (
        ("10.0.0.1", None),
        ("::ffff:10.0.0.1", None),  # of a socket that takes both kinds
        ("2001:db8::7", None),
        ("10.0.1.1", OTHER_ADDRESS),
        ("fe80::1%eth0", OTHER_ADDRESS),
        ("nonsense", OTHER_ADDRESS),
    ):
        assert stranger(listed, Peer("CT1", address), None) is verdict


def test_what_a_caller_must_show() -> None:
    listed = access(
        {"ae_title": "CT1", "certificates": ("CT1.example", "sha256:" + "a" * 64)}, {"ae_title": "CT*"}
    )
    shown = Proof(frozenset({"ct1.example"}), "b" * 64)
    assert stranger(listed, ONE, shown) is None
    assert stranger(listed, ONE, Proof(frozenset(), "a" * 64)) is None
    assert stranger(listed, ONE, Proof(frozenset({"ct2.example"}), "b" * 64)) is OTHER_CERTIFICATE
    assert stranger(listed, ONE, Proof()) is OTHER_CERTIFICATE
    assert stranger(listed, ONE, None) is OTHER_CERTIFICATE
    assert stranger(listed, TWO, None) is None


def test_an_identity_shows_nothing_of_itself() -> None:
    assert "sesame" not in repr(Identity("ct1", b"sesame"))
    assert "ct1" not in repr(Identity("ct1", b"sesame"))


def test_a_file_of_users_that_vanishes_lets_nobody_in(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text(users.entry("ct1", "sesame"))
    file.chmod(0o600)
    known = Identities(
        Access.model_validate(
            {"callers": ({"ae_title": "CT1", "users": ("*",)},), "users": file}, strict=False
        )
    )
    assert known.required(ONE)
    assert not known.required(TWO)
    assert known.rejection(ONE, Identity("ct1", b"sesame")) is None
    file.unlink()
    assert known.rejection(ONE, Identity("ct1", b"sesame")) is OTHER_IDENTITY
    assert known.rejection(TWO, None) is None
