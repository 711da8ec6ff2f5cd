"""How a destination stands, as an operator is told."""

from __future__ import annotations

import time
from pathlib import Path

from dicom_node.standing import Standing, standing
from tests import busy

NOW = time.time()


def stands(
    name: str, paused: dict[str, float] | None = None, down: dict[str, float] | None = None
) -> Standing:
    return standing(busy.config(Path("/srv/node")), name, paused or {}, down or {}, NOW)


def test_nothing_keeps_one_that_is_open() -> None:
    assert stands(busy.PACS) == Standing(configured=True)


def test_one_that_is_paused() -> None:
    assert stands(busy.PACS, paused={busy.PACS: 7.0}) == Standing(True, paused_since=7.0)


def test_one_outside_its_windows() -> None:
    closed_until = stands(busy.NIGHT).closed_until
    assert closed_until is not None
    assert closed_until > NOW


def test_one_that_is_down_is_replaced_after_a_while() -> None:
    briefly = stands(busy.PACS, down={busy.PACS: NOW - 60})
    assert (briefly.down_since, briefly.goes_to) == (NOW - 60, None)
    long = stands(busy.PACS, down={busy.PACS: NOW - 601})
    assert long.goes_to == "spare"
    assert stands(busy.ARCHIVE, down={busy.ARCHIVE: NOW - 601}).goes_to is None


def test_one_that_only_the_ledger_knows() -> None:
    assert stands("no-more", down={"no-more": 3.0}) == Standing(False, down_since=3.0)
