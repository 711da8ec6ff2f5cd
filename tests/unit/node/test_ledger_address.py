"""An address is shown without its password."""

from __future__ import annotations

from dicom_node.ledger.address import address

_SECRET = "kept:out/of@sight"


def test_a_password_is_used_and_not_shown() -> None:
    found = address("postgresql://node@db.example:5433/dicom_node", _SECRET)
    assert (found.password, found.host, found.port, found.database) == (
        _SECRET,
        "db.example",
        5433,
        "dicom_node",
    )
    assert "kept" not in f"{found} {found!r}"


def test_a_database_may_ask_for_none() -> None:
    assert address("postgresql://node@db.example/dicom_node", None).password is None
