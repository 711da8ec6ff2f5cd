"""What a configuration opens: without a cluster a file, a folder and semaphores, as ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.bells import Bells
from dicom_node.config import Config
from dicom_node.errors import LedgerError
from dicom_node.stores import ledger_exists, open_bells, open_ledger, open_spool


def config(folder: Path) -> Config:
    return Config.model_validate(
        {
            "node": {"id": "n", "ae_title": "NODE"},
            "storage": {"folder": folder, "reserve_mb": 16, "keep_s": 7200.0},
            "destinations": {"a": {"ae_title": "A", "host": "h", "port": 1}},
            "routes": ({"name": "r", "role": "pass", "destinations": ("a",)},),
        },
        strict=False,
    )


def test_without_a_cluster_the_ledger_is_a_file_that_its_opening_makes(tmp_path: Path) -> None:
    made = config(tmp_path / "data")
    assert not ledger_exists(made)
    ledger = open_ledger(made)
    try:
        ledger.answers()
    finally:
        ledger.close()
    assert ledger_exists(made)
    assert made.storage.ledger_path.exists()


def test_who_only_looks_in_makes_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(LedgerError):
        open_ledger(config(tmp_path / "data"), existing=True)


def test_without_a_cluster_objects_lie_in_the_storage_folder(tmp_path: Path) -> None:
    made = config(tmp_path / "data")
    spool = open_spool(made)
    blob = spool.put([b"object"])
    assert spool.path(blob.name).parent.parent == made.storage.spool_dir
    assert spool.reserve_bytes == 16_000_000
    assert not spool.remove(blob.name), "younger than keep_s"
    assert open_spool(made, reserve_bytes=0).reserve_bytes == 0


def test_without_a_cluster_bells_are_semaphores_for_every_destination(tmp_path: Path) -> None:
    bells = open_bells(config(tmp_path))
    assert isinstance(bells, Bells)
    bells.ring_sends("a")
    bells.rest_sends("a", 0.0)
