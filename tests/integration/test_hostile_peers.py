"""Peers that are many, silent, broken or bad: the others are served, and nothing stays behind them.

How long it took is told (`record_property`), never asserted.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from dicom_node.config import Config
from dicom_node.dimse.scp import Receiver
from dicom_node.ledger import Ledger
from dicom_node.spool import Spool
from tests import wire
from tests.data_sets import EXPLICIT, Writer, simple
from tests.waiting import wait_until
from tests.wire import CT, Wire, pdu

Tell = Callable[[str, object], None]
#: images that pass while others misbehave
IMAGES, PIXELS = 20, 500_000


class Site:
    """A receiver, what it keeps, and what it takes of this process."""

    def __init__(self, folder: Path, **node: int) -> None:
        self.spool = Spool(folder / "spool", 1_000_000)
        self.ledger = Ledger(folder / "ledger.sqlite")
        made = Config.model_validate(
            {
                "node": {"id": "n", "ae_title": "NODE", "bind": "127.0.0.1", **node},
                "storage": {"folder": folder},
                "routes": ({"name": "all", "role": "pass"},),
            },
            strict=False,
        )
        # the models take no port 0
        made = made.model_copy(update={"node": made.node.model_copy(update={"port": 0})})
        self.receiver = Receiver(made, self.spool, self.ledger)
        self.receiver.start()

    @property
    def port(self) -> int:
        assert self.receiver.port is not None
        return self.receiver.port

    def kept(self) -> int:
        return len(self.ledger.claim_work("test", 10_000, 60.0))

    def is_quiet(self) -> bool:
        """Whether no connection is left, and nothing half-written."""
        return not self.receiver.associations and not list((self.spool.folder / "tmp").iterdir())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    yield from running(tmp_path)


@pytest.fixture
def roomy_site(tmp_path: Path) -> Iterator[Site]:
    yield from running(tmp_path, max_associations=250, max_associations_per_peer=250)


def running(folder: Path, **node: int) -> Iterator[Site]:
    """A receiver that has to leave as many threads as there were before."""
    before = threading.active_count()
    made = Site(folder, **node)
    yield made
    wait_until(made.is_quiet)
    made.receiver.stop(1.0)
    made.ledger.close()
    wait_until(lambda: threading.active_count() <= before)


def send_images(site: Site, prefix: str) -> float:
    """Send some images on one association; the seconds that it took."""
    images = [(f"1.2.{prefix}.{number}", number) for number in range(1, IMAGES + 1)]
    started = time.monotonic()
    with Wire(site.port) as sender:
        assert sender.associate() == wire.ACCEPTED
        for uid, _ in images:
            assert sender.store(CT, uid, simple(CT, uid, pixels=PIXELS), piece=100_000) == 0x0000
    return time.monotonic() - started


def resident_mb() -> float:
    return float(psutil.Process().memory_info().rss) / 1e6


@pytest.mark.slow
def test_two_hundred_associations_at_once(roomy_site: Site, record_property: Tell) -> None:
    """Every one stores an object, and no answer is lost or given to another."""
    before = resident_mb()
    with contextlib.ExitStack() as held:
        wires = []
        for _ in range(200):
            # asked for at once: on a busy machine the last would have been silent for longer than it may
            wires.append(held.enter_context(Wire(roomy_site.port, timeout=60)))
            assert wires[-1].associate() == wire.ACCEPTED
        record_property("rss_grown_mb", round(resident_mb() - before, 1))
        for number, one in enumerate(wires, start=1):
            one.begin_store(CT, f"1.2.{number}")
            one.data([simple(CT, f"1.2.{number}")])
        assert [one.status() for one in wires] == [0x0000] * 200
    assert roomy_site.kept() == 200


def test_of_more_associations_than_places_the_rest_is_told_to_come_back(site: Site) -> None:
    with contextlib.ExitStack() as held:
        wires = [held.enter_context(Wire(site.port)) for _ in range(30)]
        answers = [one.associate() for one in wires]
        assert answers.count(wire.ACCEPTED) == 20
        assert answers.count(wire.REJECTED) == 10
        with Wire(site.port) as other:
            assert other.associate(calling="OTHER") == wire.ACCEPTED
            assert other.store(CT, "1.2.3", simple(CT, "1.2.3")) == 0x0000
    assert site.kept() == 1


@pytest.mark.slow
def test_half_open_connections_do_not_slow_others_down(site: Site, record_property: Tell) -> None:
    """Twenty images, first alone, then beside forty connections of which each began a request."""
    alone = send_images(site, "1")
    with contextlib.ExitStack() as held:
        for _ in range(40):
            held.enter_context(Wire(site.port)).send(wire.request()[:30])
        beside = send_images(site, "2")
    record_property("seconds_alone", round(alone, 2))
    record_property("seconds_beside_40", round(beside, 2))
    assert site.kept() == 2 * IMAGES


@pytest.mark.slow
def test_ten_thousand_health_checks(site: Site, record_property: Tell) -> None:
    """A load balancer that connects and hangs up leaves no thread, no file, and no memory that grows."""

    def checks(count: int) -> None:
        for _ in range(count):
            with socket.create_connection(("127.0.0.1", site.port), timeout=20):
                pass

    checks(1000)
    wait_until(site.is_quiet)
    files, before, started = psutil.Process().num_fds(), resident_mb(), time.monotonic()
    checks(10_000)
    wait_until(site.is_quiet)
    record_property("checks_per_s", round(10_000 / (time.monotonic() - started)))
    record_property("rss_grown_mb", round(resident_mb() - before, 1))
    assert resident_mb() - before < 20
    assert psutil.Process().num_fds() <= files + 5


@pytest.mark.slow
def test_noise_of_all_kinds(site: Site) -> None:
    """Random damage to a good conversation costs that conversation at most."""
    random_ = random.Random(1)
    uid = "1.2.3"
    spoken = b"".join(
        (
            wire.request(),
            pdu(wire.DATA, wire.value(wire.store_command(CT, uid), wire.COMMAND | wire.LAST)),
            pdu(wire.DATA, wire.value(simple(CT, uid), wire.LAST)),
            pdu(wire.RELEASE, bytes(4)),
        )
    )
    for _ in range(300):
        damaged = bytearray(spoken)
        for _ in range(random_.randint(1, 8)):
            damaged[random_.randrange(len(damaged))] = random_.randrange(256)
        with contextlib.suppress(OSError), Wire(site.port, timeout=0.2) as one:
            one.send(bytes(damaged[: random_.randint(1, len(damaged))]))
            one.hung_up()
    send_images(site, "9")
    wait_until(site.is_quiet)


def test_senders_that_die_at_every_point_of_an_object(site: Site) -> None:
    whole = simple(CT, "1.2.3", pixels=200_000)
    for sent in (0, 1, 1000, 100_000, len(whole) - 1):
        with Wire(site.port) as one:
            assert one.associate() == wire.ACCEPTED
            one.begin_store(CT, "1.2.3")
            for at in range(0, sent, 50_000):
                one.data([whole[at : min(at + 50_000, sent)]], last=False)
            # no farewell: the system resets the connection
            one.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(site.is_quiet)
    assert site.kept() == 0
    send_images(site, "7")
    assert site.kept() == IMAGES


def test_no_name_on_the_disk_comes_from_the_wire(site: Site, tmp_path: Path) -> None:
    names = ("../../x", "/tmp/x", "..", ".", "a" * 64, "1" * 300, "", "1.2.3/x", "1.2.3\0x")
    before = {path for path in tmp_path.rglob("*") if len(path.name) < 60}
    for name in names:
        with Wire(site.port) as one:
            one.associate()
            assert one.store(CT, name, simple(CT, name)) == 0x0117, name
    assert {path for path in tmp_path.rglob("*") if len(path.name) < 60} - before == set()
    assert site.kept() == 0


@pytest.mark.slow
def test_a_gigabyte_takes_the_memory_of_a_pdu(site: Site, record_property: Tell) -> None:
    """A multi-frame object of 1 GB goes to the disk as it comes, and is there at once when it has come."""
    frame, frames = bytes(range(256)) * 400, 10_000
    writer = Writer(EXPLICIT)
    pixels = writer.element(0x7FE00010, "OW", b"", len(frame) * frames)
    head = writer.identity(CT, "1.2.3") + pixels
    before, highest, started = resident_mb(), 0.0, time.monotonic()
    with Wire(site.port, timeout=120) as one:
        assert one.associate() == wire.ACCEPTED
        one.begin_store(CT, "1.2.3")
        one.data([head], last=False)
        for number in range(frames - 1):
            one.data([frame], last=False)
            if number % 100 == 0:
                highest = max(highest, resident_mb())
        one.data([frame])
        assert one.status() == 0x0000
    record_property("mb_per_s", round(len(frame) * frames / 1e6 / (time.monotonic() - started)))
    record_property("rss_grown_mb", round(max(highest, resident_mb()) - before, 1))
    assert max(highest, resident_mb()) - before < 50
    (work,) = site.ledger.claim_work("test", 2, 60.0)
    kept = site.spool.path(work.blob)
    assert kept.stat().st_size > len(frame) * frames
    kept.unlink()
