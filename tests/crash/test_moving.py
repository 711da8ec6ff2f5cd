"""A node that receives and sends is moved to a cluster by a command that is killed again and again."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.buckets import S3Server
from benchmarks.postgresql import PASSWORD, Server, is_installed
from benchmarks.stand import Node, Peer, Setup, objects, wait_until
from benchmarks.witnesses import SUCCESS, Archive, Modality, account
from dicom_node.jobs import DeliveryState
from dicom_node.ledger import Ledger
from tests.crash.conftest import Nodes

pytestmark = [pytest.mark.slow, pytest.mark.interop]

_BEFORE, _MEANWHILE, _AFTER = 60, 20, 20
_CANNOT = 0xC000


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if not is_installed():
        pytest.skip("no PostgreSQL; tools/install_peers.sh postgresql")
    made = Server().make()
    yield made
    made.remove()


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    made = S3Server()
    yield made
    made.stop()


@pytest.fixture
def cluster(server: Server, s3: S3Server, tmp_path: Path) -> dict[str, object]:
    """The section of a cluster with a new database and a new bucket."""
    url, password = server.database(), tmp_path / "password"
    password.write_text(PASSWORD)
    password.chmod(0o600)
    bucket = s3.bucket(f"objects-{time.time_ns()}", tmp_path)
    return {
        "name": "radiology",
        "database": {
            "url": f"postgresql://{url.username}@{url.host}:{url.port}/{url.database}",
            "password_file": str(password),
        },
        "blobs": {
            "kind": "s3",
            "bucket": bucket.name,
            "prefix": bucket.prefix,
            "endpoint_url": bucket.endpoint_url,
            "region": bucket.region,
            "credentials_file": str(bucket.credentials_file),
        },
    }


def command(old: Node, new: Node, *more: str) -> subprocess.Popen[str]:
    arguments = ["cluster", "move", "--from", str(old._config), "--config", str(new._config), *more]
    return subprocess.Popen(
        [sys.executable, "-m", "dicom_node", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def killed_until_done(old: Node, new: Node, *, rng: random.Random) -> tuple[int, str]:
    """Give the command until it ends by itself, killing it a little later every time; kills, what it said."""
    for kills in range(20):
        process = command(old, new)
        try:
            # how long it takes depends on the machine: some kills meet its start, some its work
            out, complaint = process.communicate(timeout=rng.uniform(1.6, 2.0) * 1.5**kills)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            continue
        return kills, out + complaint
    raise AssertionError("never came to its end")


@dataclass(frozen=True)
class Three:
    """Archives: one takes everything, one is away, one refuses for good; `mend` makes all of them take."""

    up: Archive
    down: Archive
    picky: Archive

    @property
    def named(self) -> dict[str, Archive]:
        return {"up": self.up, "down": self.down, "picky": self.picky}

    def misbehave(self) -> None:
        self.down.stop()
        self.picky.answer = lambda _uid, _times: _CANNOT

    def mend(self) -> None:
        self.picky.answer = lambda _uid, _times: SUCCESS
        self.down.start()


def test_everything_is_delivered_once_by_the_cluster(
    tmp_path: Path,
    nodes: Nodes,
    archives: Callable[[], Archive],
    cluster: dict[str, object],
    record_property: Callable[[str, object], None],
) -> None:
    paths = objects(tmp_path / "in", _BEFORE + _MEANWHILE + _AFTER)
    before, meanwhile = paths[:_BEFORE], paths[_BEFORE : _BEFORE + _MEANWHILE]
    after = paths[_BEFORE + _MEANWHILE :]
    three = Three(archives(), archives(), archives())
    three.misbehave()
    peers = {name: Peer(each.port, refusals=1) for name, each in three.named.items()}
    old = nodes(Setup(peers)).start()
    acknowledged = send(old, before)
    wait_until(lambda: len(three.up.digests()) == _BEFORE, 120, "everything at the one that is up")
    wait_until(lambda: dead_letters(old) == _BEFORE, 120, "dead letters")

    first, second = (nodes(Setup(peers, sections={"cluster": cluster})) for _ in range(2))
    kills, more = moved_while_it_sends(old, first, meanwhile, three.up)
    acknowledged |= more
    record_property("kills", kills)
    assert_does_not_start(old)
    three.mend()
    for node in (first, second):
        node.start()
    retry_the_dead(first)
    acknowledged |= send(first, after[: _AFTER // 2]) | send(second, after[_AFTER // 2 :])
    for name, archive in three.named.items():
        wait_until(lambda a=archive: len(a.digests()) == len(paths), 180, f"everything at {name}")
    time.sleep(2.0)  # a second delivery would come now
    assert [node.terminate() for node in (first, second)] == [0, 0]
    for archive in three.named.values():
        books = account(len(paths), acknowledged, archive)
        assert (books.accepted, books.once, books.never, books.changed) == (len(paths), len(paths), 0, 0)


def moved_while_it_sends(
    old: Node, new: Node, meanwhile: list[Path], up: Archive
) -> tuple[int, dict[str, float]]:
    """Copy while a modality sends, stop the node, move it; the kills, and what was acknowledged meanwhile."""
    rng = random.Random(1)
    modality = Modality(old.port, meanwhile)
    modality.start()
    kills, said = killed_until_done(old, new, rng=rng)
    assert "the node runs; stop it" in said
    modality.join(120)
    wait_until(lambda: len(up.digests()) == _BEFORE + _MEANWHILE, 120, "what came meanwhile")
    assert old.terminate() == 0
    more, said = killed_until_done(old, new, rng=rng)
    assert "the machines of the cluster may start" in said or "was moved to the cluster" in said, said
    return kills + more, modality.acknowledged


def assert_does_not_start(old: Node) -> None:
    old.start(ready=False)
    assert old.wait() == 1
    assert "moved to radiology" in old.said()


def retry_the_dead(node: Node) -> None:
    retry = [sys.executable, "-m", "dicom_node", "queue", "retry", "--dead", "--config", str(node._config)]
    subprocess.run(retry, check=True, capture_output=True, timeout=60, cwd=Path(__file__).parents[2])


def dead_letters(node: Node) -> int:
    ledger = Ledger(node.state / "ledger.sqlite", existing=True)
    try:
        return ledger.counts().deliveries[DeliveryState.DEAD]
    finally:
        ledger.close()


def send(node: Node, paths: list[Path]) -> dict[str, float]:
    modality = Modality(node.port, paths)
    modality.start()
    modality.join(120)
    return modality.acknowledged
