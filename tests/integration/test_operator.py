"""An operator's commands, from another process, on a node that runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.stand import free_port
from dicom_node.config import Config
from dicom_node.jobs import PASSED, Outcome, Work, passed
from dicom_node.service import Service
from dicom_node.worker import Processor, Tell
from tests.integration.test_store_and_forward import Archive, node, objects, send
from tests.waiting import wait_until

_COMMAND = Path(sys.executable).with_name("dicom-node")


def poison(made: Config, _tell: Tell) -> Processor:
    """Passes on, but dies of everything as long as there is a file of that name."""

    def fragile(work: Work) -> Outcome:
        if (made.storage.folder / "poison").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return passed(work, made.routes[0], PASSED)

    return fragile


@pytest.fixture
def archive() -> Iterator[Archive]:
    made = Archive(free_port()).start()
    yield made
    made.stop()


def operator(service: Service, *arguments: str) -> str:
    """Run the installed command on the node's own state; what it printed."""
    folder = service.spool.folder.parent
    path = folder / "node.yaml"
    path.write_text(
        f"node: {{id: n, ae_title: NODE}}\nstorage: {{folder: {folder}}}\n"
        "destinations:\n  a: {ae_title: A, host: 127.0.0.1, port: 104}\n"
        "routes:\n  - {name: all, role: pass, destinations: [a]}\n"
    )
    done = subprocess.run(
        [str(_COMMAND), *arguments, "--config", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "Synthetic" not in done.stdout + done.stderr
    return done.stdout


def rows(service: Service, state: str) -> list[dict[str, object]]:
    told = operator(service, "queue", "list", "--json", "--state", state)
    found: list[dict[str, object]] = json.loads(told)["rows"]
    return found


def test_a_paused_destination_waits_and_a_resumed_one_is_served(tmp_path: Path, archive: Archive) -> None:
    paths = objects(tmp_path / "in", 3)
    with node(tmp_path / "node", {"a": archive.port}) as service:
        operator(service, "queue", "pause", "a")
        assert send(service, paths) == [0x0000] * 3
        wait_until(lambda: service.ledger.counts().deliveries["queued"] == 3)
        time.sleep(1.5)  # longer than a lane sleeps
        assert archive.data_sets == {}
        operator(service, "queue", "resume", "a")
        wait_until(lambda: archive.holds(paths))


@pytest.mark.slow
def test_poison_is_quarantined_with_its_reason_and_retried_by_hand(tmp_path: Path, archive: Archive) -> None:
    paths = objects(tmp_path / "in", 1)
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "poison").touch()
    with node(tmp_path / "node", {"a": archive.port}, "protect", factory=poison) as service:
        assert send(service, paths) == [0x0000]
        wait_until(lambda: service.ledger.counts().instances["quarantined"])
        (row,) = rows(service, "quarantined")
        assert row["reason"] == "killed-its-worker"
        (tmp_path / "node" / "poison").unlink()
        operator(service, "queue", "retry", str(row["id"]))
        wait_until(lambda: archive.holds(paths))
        told = operator(service, "trace", "1.2.826.0.1.1")
        words = [line.split()[2] for line in told.partition("\n\n")[0].splitlines()[1:]]
        assert words == ["received", "lost", "quarantined", "resumed", "ready", "queued", "delivered"], told


@pytest.mark.slow
def test_what_is_dropped_is_never_sent(tmp_path: Path, archive: Archive) -> None:
    paths = objects(tmp_path / "in", 2)
    with node(tmp_path / "node", {"a": archive.port}) as service:
        operator(service, "queue", "pause", "a")
        send(service, paths)
        wait_until(lambda: service.ledger.counts().deliveries["queued"] == 2)
        last = rows(service, "queued")[-1]
        operator(service, "queue", "drop", str(last["id"]), "--yes")
        operator(service, "queue", "resume", "a")
        wait_until(lambda: archive.holds(paths[:1]))
        assert service.ledger.counts().deliveries["dropped"] == 1
