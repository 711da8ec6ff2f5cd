"""SIGHUP under load: no association ends by it, nothing is lost, and the next one goes the new way."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.presentation import build_context

from benchmarks.stand import free_port
from tests.builders import ct
from tests.integration.test_store_and_forward import CT, Archive
from tests.waiting import wait_until


@dataclass
class Site:
    """A node as a process, and its two archives."""

    folder: Path
    port: int = field(default_factory=free_port)
    http: int = field(default_factory=free_port)
    archives: dict[str, Archive] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def configure(self, destination: str, more: str = "") -> None:
        peers = "".join(
            f"  {name}: {{ae_title: ARCHIVE, host: 127.0.0.1, port: {archive.port}}}\n"
            for name, archive in self.archives.items()
        )
        (self.folder / "node.yaml").write_text(
            f"node: {{id: n, ae_title: NODE, bind: 127.0.0.1, port: {self.port}}}\n"
            "storage: {folder: state, reserve_mb: 16}\nworkers: {count: 1}\n"
            f"http: {{port: {self.http}}}\ndestinations:\n{peers}"
            f"routes:\n  - {{name: all, role: pass, destinations: [{destination}]}}\n{more}"
        )

    def reload(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def told(self, event: str) -> int:
        return (self.folder / "log").read_text().count(f" {event} ")

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/metrics", timeout=60) as answer:
            return str(answer.read().decode())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    with contextlib.ExitStack() as undo:
        for name in ("one", "two"):
            made.archives[name] = Archive(free_port()).start()
            undo.callback(made.archives[name].stop)
        made.configure("one")
        log = undo.enter_context((tmp_path / "log").open("wb"))
        command = [sys.executable, "-m", "dicom_node", "serve", "--config", str(tmp_path / "node.yaml")]
        made.process = undo.enter_context(
            subprocess.Popen(command, stderr=log, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        )
        undo.callback(made.process.terminate)
        wait_until(lambda: made.told("ready") == 1)
        yield made


def associate(port: int) -> Any:
    entity = AE(ae_title="MODALITY")
    association = entity.associate("127.0.0.1", port, contexts=[build_context(CT)], ae_title="NODE")
    assert association.is_established
    return association


def image(seed: int) -> Dataset:
    ds = ct(32, 32, seed=seed)
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    return ds


def send(site: Site, sender: int, objects: int, statuses: list[int | None], aborted: list[bool]) -> None:
    """One modality, one association, one image after the other, a pause between them."""
    association = associate(site.port)
    for number in range(objects):
        answer = association.send_c_store(image(1000 * sender + number))
        statuses.append(answer.Status if "Status" in answer else None)
        time.sleep(0.1)
    aborted.append(not association.is_established)
    association.release()


@pytest.mark.parametrize(
    ("transfers", "objects"), [(2, 20), pytest.param(8, 12, marks=pytest.mark.slow)], ids=["two", "eight"]
)
def test_several_transfers_and_three_reloads(site: Site, transfers: int, objects: int) -> None:
    statuses: list[int | None] = []
    aborted: list[bool] = []
    senders = [
        threading.Thread(target=send, args=(site, number, objects, statuses, aborted))
        for number in range(transfers)
    ]
    for sender in senders:
        sender.start()
    for reloads, destination in enumerate(("two", "one", "two"), 1):
        wait_until(lambda reloads=reloads: len(statuses) >= 10 * reloads)  # type: ignore[misc]
        site.configure(destination)
        site.reload()
        wait_until(lambda reloads=reloads: site.told("reloaded") == reloads)  # type: ignore[misc]
    for sender in senders:
        sender.join()
    assert statuses == [0x0000] * (transfers * objects)
    assert aborted == [False] * transfers
    one, two = site.archives["one"].data_sets, site.archives["two"].data_sets
    wait_until(lambda: len(one) + len(two) == transfers * objects)
    assert one
    assert not set(one) & set(two), "every object goes one way"

    before = len(two)
    association = associate(site.port)
    association.send_c_store(image(99_999))
    association.release()
    wait_until(lambda: len(two) == before + 1)


def test_a_bad_configuration_changes_nothing_and_is_told(site: Site) -> None:
    site.configure("two", more="surprise: 1\n")
    site.reload()
    wait_until(lambda: site.told("reload-refused") == 1)
    assert "dicom_node_config_last_reload_successful 0.0" in site.metrics()
    association = associate(site.port)
    association.send_c_store(image(1))
    wait_until(lambda: len(site.archives["one"].data_sets) == 1)
    association.release()
    site.configure("two")
    site.reload()
    wait_until(lambda: site.told("reloaded") == 1)
    assert "dicom_node_config_last_reload_successful 1.0" in site.metrics()
