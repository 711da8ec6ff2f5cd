"""What a running node can take up, and what only a start can."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dicom_node import config
from dicom_node.config import Config
from dicom_node.reloading import Reloads, needs_restart

_FOLDER = Path(__file__).resolve().parents[3] / "config"


def changed(section: str, **keys: Any) -> tuple[Config, Config]:
    before = config.load(_FOLDER / "dicom-node.example.yaml")
    after = getattr(before, section).model_copy(update=keys)
    return before, before.model_copy(update={section: after})


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("node", "port", 104),
        ("node", "tls_port", 2762),
        ("node", "bind", "127.0.0.1"),
        ("node", "ae_title", "OTHER"),
        ("node", "max_pdu", 4096),
        ("storage", "folder", Path("/srv/other")),
        ("audit", "host", "repository"),
    ],
)
def test_what_is_bound_at_the_start_needs_another(section: str, key: str, value: object) -> None:
    assert needs_restart(*changed(section, **{key: value})) == [f"{section}.{key}"]


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("node", "id", "other"),
        ("node", "idle_s", 5.0),
        ("node", "max_associations", 3),
        ("storage", "reserve_mb", 99),
        ("http", "port", None),
        ("log", "level", "debug"),
    ],
)
def test_everything_else_is_taken_up(section: str, key: str, value: object) -> None:
    assert needs_restart(*changed(section, **{key: value})) == []


def test_certificates_of_an_audit_trail_need_a_restart_others_do_not() -> None:
    before, after = changed("tls", ca=Path("/srv/ca.pem"))
    assert needs_restart(before, after) == []
    told = before.audit.model_copy(update={"host": "repository"})
    before, after = (each.model_copy(update={"audit": told}) for each in (before, after))
    assert needs_restart(before, after) == ["tls (the audit trail uses it)"]


def test_the_name_that_an_audit_trail_says_needs_a_restart() -> None:
    before, after = changed("node", id="other")
    assert needs_restart(before, after) == []
    told = before.audit.model_copy(update={"host": "repository"})
    before, after = (each.model_copy(update={"audit": told}) for each in (before, after))
    assert needs_restart(before, after) == ["node.id (the audit trail says it)"]


def test_the_last_reload_is_remembered() -> None:
    reloads = Reloads()
    first = reloads.taken_up_at
    assert reloads.successful
    reloads.failed()
    assert (reloads.successful, reloads.taken_up_at) == (False, first)
    reloads.done()
    assert reloads.successful
    assert reloads.taken_up_at >= first
