"""C-GET and C-MOVE from an archive in this process that sends what it should, or what it should not."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.config import Query, QueryPeer, Retrieve, Tls
from dicom_node.dimse.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES
from dicom_node.dimse.retrieve import PROPOSED_SYNTAXES, DimseArchive, proposed
from dicom_node.dimse.secure import client_context
from dicom_node.dimse.store import MAX_CONTEXTS
from dicom_node.errors import OutputError, PeerError, TlsError
from dicom_node.inquiry import Level, Order
from dicom_node.landing import Landed, Landing
from tests.certificates import Authority
from tests.shelf import CT, EXPLICIT, IMPLICIT, MR, Shelf, instance
from tests.waiting import failing, wait_until

WAYS = ("get", "move")


class Fetched:
    """What came of an order."""

    def __init__(self, archive: DimseArchive, shelf: Shelf, folder: Path) -> None:
        self.archive, self.shelf = archive, shelf
        self.came: list[Landed] = []
        self.landing = Landing(folder, self.came.append, durable=False)

    def fetch(self, order: Order) -> Any:
        self.landing.expect(order)
        return self.archive.fetch(order, self.landing)

    @property
    def uids(self) -> set[str]:
        return {landed.uid for landed in self.came}


@contextlib.contextmanager
def fetching(shelf: Shelf, folder: Path, way: str = "get", **peer: Any) -> Iterator[Fetched]:
    query = Query.model_construct(ae_title="AUDITOR", bind="127.0.0.1", port=0, peers={})
    with (
        shelf.open(retrieve=way, **peer) as settings,
        contextlib.closing(DimseArchive("shelf", settings, query)) as archive,
    ):
        if archive._berth is not None:
            archive._berth.open(Landing(folder))
            shelf.auditor_port = archive._berth.port
        yield Fetched(archive, shelf, folder)


def series(*instances: Dataset, level: Level = Level.SERIES) -> Order:
    expected = {str(ds.SOPInstanceUID): str(ds.SOPClassUID) for ds in instances}
    held_by = "" if level is Level.STUDY else str(instances[0].SeriesInstanceUID)
    return Order(level, "1.2.300", held_by, expected)


@pytest.mark.parametrize("way", WAYS)
def test_a_series_comes_as_it_is(way: str, tmp_path: Path) -> None:
    held = [instance(number) for number in range(5)]
    with fetching(Shelf(held), tmp_path, way) as made:
        told = made.fetch(series(*held))
    assert (told.status, told.completed, told.failed) == (0, 5, 0)
    assert {path.name for path in tmp_path.iterdir()} == {landed.file for landed in made.came}
    for landed in made.came:
        ours = dcmread(made.landing.path(landed))
        assert ours == next(ds for ds in held if ds.SOPInstanceUID == landed.uid)


@pytest.mark.parametrize("way", WAYS)
def test_studies_and_single_instances_are_asked_for_by_their_own_keys(way: str, tmp_path: Path) -> None:
    held = [instance(1), instance(2, series=1), instance(3)]
    with fetching(Shelf(held), tmp_path, way) as made:
        made.fetch(series(*held, level=Level.STUDY))
        made.fetch(series(held[0], held[2], level=Level.IMAGE))
    study, image = made.shelf.gets
    assert (study.QueryRetrieveLevel, "SeriesInstanceUID" in study) == ("STUDY", False)
    assert (image.QueryRetrieveLevel, list(image.SOPInstanceUID)) == ("IMAGE", ["1.2.3.1", "1.2.3.3"])


def test_contexts_follow_the_classes_that_the_archive_told(tmp_path: Path) -> None:
    held = [instance(1), instance(2, series=1, sop_class=MR), instance(3)]
    with fetching(Shelf(held), tmp_path) as made:
        made.fetch(series(held[0]))
        assert {uid for uid, _ in made.shelf.proposed[1:]} == {CT}
        assert [syntax for _, syntax in made.shelf.proposed[1:3]] == [EXPLICIT, IMPLICIT]
        made.fetch(series(held[1]))
        assert {uid for uid, _ in made.shelf.proposed[1:]} == {CT, MR}
        made.fetch(series(held[2]))
    assert made.shelf.associations == 2
    assert made.uids == {"1.2.3.1", "1.2.3.2", "1.2.3.3"}


def test_proposals_fit_an_association_and_unknown_classes_are_all() -> None:
    one, four, unknown = proposed([CT]), proposed([CT, MR, "1.2.3", "1.2.4"]), proposed(["", CT])
    assert {syntax for _, syntax in one} == set(TRANSFER_SYNTAXES) == set(PROPOSED_SYNTAXES)
    assert {uid for uid, _ in four} == {CT, MR, "1.2.3", "1.2.4"}
    assert all(len(pairs) < MAX_CONTEXTS for pairs in (one, four, unknown))
    assert unknown[0] == (CT, EXPLICIT)
    assert {uid for uid, _ in unknown} <= set(STORAGE_CLASSES)


def test_many_classes_are_several_requests(tmp_path: Path) -> None:
    classes = [f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2", "4", "1", "6.1", "7", "128")]
    held = [instance(number, sop_class=uid) for number, uid in enumerate(classes)]
    with fetching(Shelf(held, classes=tuple(classes)), tmp_path) as made:
        told = made.fetch(series(*held))
    assert (told.completed, len(made.came), made.shelf.associations) == (6, 6, 2)


@pytest.mark.parametrize("way", WAYS)
def test_what_was_not_asked_for_and_what_comes_twice_is_not_kept(way: str, tmp_path: Path) -> None:
    asked, other = instance(1), instance(9)
    changed = instance(1)
    changed.PatientID = "P2"
    shelf = Shelf([asked], instead=lambda found: [*found, other, asked, changed])
    with fetching(shelf, tmp_path, way) as made:
        told = made.fetch(series(asked))
    assert made.uids == {"1.2.3.1"}
    assert made.landing.refused == {"not asked for": 1, "sent twice with different content": 1}
    assert (told.completed, told.failed) == (2, 2)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("way", WAYS)
def test_failures_of_the_archive_are_told(way: str, tmp_path: Path) -> None:
    held = [instance(number) for number in range(3)]
    with fetching(Shelf(held, status=0xA702), tmp_path, way) as made:
        with pytest.raises(PeerError, match="A702: it is out of resources"):
            made.fetch(series(*held))
        made.shelf.status = None
        assert made.fetch(series(*held)).completed == 3


def test_failed_instances_are_listed(tmp_path: Path) -> None:
    held = [instance(1), instance(2, sop_class=MR)]
    order = series(held[0])
    with fetching(Shelf(held), tmp_path) as made:
        made.landing.expect(order)
        told = made.fetch(Order(Level.SERIES, "1.2.300", "1.2.30.0", {"1.2.3.1": CT}))
    # the archive has another one in this series, for which there is no context
    assert (told.status, told.completed, told.failed) == (0xB000, 1, 1)
    assert told.failures == ("1.2.3.2",)


def test_an_archive_that_does_not_know_where_to_send_is_told_what_to_enter(tmp_path: Path) -> None:
    held = [instance(1)]
    with fetching(Shelf(held), tmp_path, "move") as made:
        made.shelf.auditor_port = 0
        with pytest.raises(PeerError, match=r"A801: .*query\.port"):
            made.fetch(series(*held))


@pytest.mark.parametrize("way", WAYS)
def test_an_archive_that_breaks_off_half_way_leaves_whole_files_only(way: str, tmp_path: Path) -> None:
    held = [instance(number) for number in range(6)]
    shelf = Shelf(held, before_each=lambda event, number: event.assoc.abort() if number == 3 else None)
    with fetching(shelf, tmp_path, way) as made:
        with pytest.raises(PeerError, match="broke off"):
            made.fetch(series(*held))
        assert len(made.came) == 3
        shelf.before_each = lambda event, number: None
        assert made.fetch(series(*held).of(made.landing.missing(series(*held)))).completed == 3
    assert len(list(tmp_path.iterdir())) == 6


def test_an_archive_that_still_sends_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is counted from the last piece of an object, not from the last response."""
    asked_about: list[float] = []
    monkeypatch.setattr("dicom_node.dimse.query._LOOK_S", 0.01)
    monkeypatch.setattr(
        "dicom_node.dimse.query._check_there", lambda _a, _n, heard, _q: asked_about.append(heard)
    )
    held, later = [instance(1)], time.monotonic() + 1000.0
    shelf = Shelf(held, before_each=lambda event, number: wait_until(lambda: later in asked_about))
    with fetching(shelf, tmp_path) as made:
        made.landing.moved_at = later
        assert made.fetch(series(*held)).completed == 1
    assert later in asked_about


def test_an_archive_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    held = [instance(1)]
    silent = Shelf(held, before_each=lambda event, number: time.sleep(2))
    with fetching(silent, tmp_path, timeout_s=0.5) as made:
        failing(lambda: made.fetch(series(*held)), PeerError, "has sent nothing")


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        query = Query(ae_title="AUDITOR", bind="127.0.0.1", port=taken.getsockname()[1])
        with Shelf([]).open(retrieve="move") as settings:
            archive = DimseArchive("shelf", settings, query)
            with pytest.raises(OutputError, match="another program"):
                archive.fetch(series(instance(1)), Landing(tmp_path))
            archive.close()


def test_who_calls_another_title_is_rejected(tmp_path: Path) -> None:
    from pynetdicom import AE

    with fetching(Shelf([]), tmp_path, "move") as made:
        entity = AE()
        entity.add_requested_context(CT)
        association = entity.associate("127.0.0.1", made.shelf.auditor_port, ae_title="OTHER")
        assert association.is_rejected


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def shown(authority: Authority, name: str) -> Tls:
    issued = authority.issue(name, "localhost")
    return Tls(certificate=issued.certificate, key=issued.key, ca=authority.file)


def moved(port: int, ds: Dataset, tls: Tls | None = None) -> int | None:
    """Send as an archive does that was told to move; the status, None where no association came about."""
    from pynetdicom import AE

    entity = AE()
    entity.acse_timeout = entity.network_timeout = 60.0
    entity.add_requested_context(CT, EXPLICIT)
    more = {} if tls is None else {"tls_args": (client_context(tls), "localhost")}
    association = entity.associate("127.0.0.1", port, ae_title="AUDITOR", **more)
    if not association.is_established:
        return None
    status = association.send_c_store(ds).Status
    association.release()
    return int(status)


def test_an_archive_that_is_asked_over_tls_sends_over_tls(tmp_path: Path, authority: Authority) -> None:
    """Nobody else does: not in the clear, and nobody whose certificate is not believed."""
    held = instance(1)
    query = Query.model_construct(ae_title="AUDITOR", bind="127.0.0.1", port=0, peers={})
    peer = QueryPeer(ae_title="A", host="h", port=104, tls=True, retrieve=Retrieve.MOVE)
    stranger = Authority(tmp_path / "other")
    landing = Landing(tmp_path / "out", durable=False)
    landing.expect(series(held))
    with contextlib.closing(DimseArchive("a", peer, query, shown(authority, "auditor"))) as archive:
        assert archive._berth is not None
        archive._berth.open(landing)
        assert moved(archive._berth.port, held) is None
        foreign = shown(stranger, "foreign").model_copy(update={"ca": authority.file})
        assert moved(archive._berth.port, held, foreign) is None
        assert landing.missing(series(held))
        assert moved(archive._berth.port, held, shown(authority, "archive")) == 0
    assert not landing.missing(series(held))


def test_a_machine_that_has_nothing_to_show_does_not_listen(authority: Authority) -> None:
    peer = QueryPeer(ae_title="A", host="h", port=104, tls=True, retrieve=Retrieve.MOVE)
    with pytest.raises(TlsError, match=r"tls\.certificate"):
        DimseArchive("a", peer, Query(), Tls(ca=authority.file))
