"""What a configuration opens: without a cluster a file, a folder and semaphores, as ever."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicom_node import stores
from dicom_node.bells import Bells
from dicom_node.config import Broker, Config, Storage
from dicom_node.errors import KeyFileError, LedgerError, LedgerUnavailable
from dicom_node.stores import holder, ledger_exists, open_bells, open_ledger, open_spool


def config(folder: Path, **more: object) -> Config:
    return Config.model_validate(
        {
            **more,
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


def of_cluster(folder: Path) -> Config:
    """On a database that nobody listens for."""
    secret = folder / "password"
    secret.write_text("s3cr/et\n")
    secret.chmod(0o600)
    cluster = {
        "name": "radiology",
        "parts": ("work", "forward"),
        "database": {"url": "postgresql://node@127.0.0.1:1/dicom_node", "password_file": secret},
        "blobs": {"kind": "directory", "directory": folder / "blobs"},
    }
    return config(folder / "data", cluster=cluster)


def test_the_password_of_a_clusters_database_is_in_a_file_and_in_no_message(tmp_path: Path) -> None:
    made = of_cluster(tmp_path)
    assert ledger_exists(made), "only the server knows of its own"
    with pytest.raises(LedgerUnavailable, match=r"dicom_node on 127\.0\.0\.1") as caught:
        open_ledger(made)
    assert "s3cr" not in f"{caught.value!r} {caught.value.__cause__!r}"
    (tmp_path / "password").chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        open_ledger(made)


def test_no_two_nodes_lease_under_one_name_not_even_on_one_machine(tmp_path: Path) -> None:
    made = of_cluster(tmp_path)
    assert holder(made) == holder(made)
    assert holder(made) != holder(made.model_copy(update={"storage": Storage(folder=tmp_path / "other")}))


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


def test_bells_of_a_cluster_ring_over_its_broker_if_it_has_one(tmp_path: Path) -> None:
    pytest.importorskip("celery")
    made = of_cluster(tmp_path)
    assert made.cluster is not None
    assert type(open_bells(made)) is Bells, "nobody rings for other machines"
    broker = Broker(url="amqp://node@127.0.0.1:1/v")
    cluster = made.cluster.model_copy(update={"broker": broker})
    bells = open_bells(made.model_copy(update={"cluster": cluster}))
    assert type(bells).__name__ == "Carillon"
    bells.close()


class _Names:
    """The locks of a database."""

    def __init__(self, *taken: str) -> None:
        self.taken = set(taken)

    @contextlib.contextmanager
    def lead(self, name: str) -> Iterator[bool]:
        alone = name not in self.taken
        self.taken.add(name)
        try:
            yield alone
        finally:
            if alone:
                self.taken.discard(name)


def test_two_nodes_of_a_cluster_do_not_run_under_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As machines copied from one image would, which would take back each other's leases."""
    monkeypatch.setattr(stores, "_NAME_S", 0.02)
    monkeypatch.setattr(stores, "_TRY_S", 0.01)
    made, names = of_cluster(tmp_path), _Names()
    ledger: Any = names
    with stores.under_its_name(made, ledger):
        assert names.taken == {f"node {stores.holder(made)}"}
        with pytest.raises(LedgerError, match="another node of the cluster runs as"):
            stores.under_its_name(made, ledger).__enter__()
        with stores.under_its_name(config(tmp_path / "alone"), ledger):
            assert len(names.taken) == 1, "a node alone needs no name"
    assert names.taken == set()
    with stores.under_its_name(made, ledger):
        pass
