"""A node becomes part of a cluster with all that it had, whole, wherever the move is cut off."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dicom_node import moving, stores
from dicom_node.audit.trail import store_of
from dicom_node.blobs.shared import SharedStore
from dicom_node.config import Audit, Config
from dicom_node.errors import LedgerError, SpoolError, UsageError
from dicom_node.jobs import DeliveryState, InstanceState, Outcome
from dicom_node.ledger import Ledger
from dicom_node.moving import Move, check
from dicom_node.spool import Spool
from tests.ledgers import arrival

_NODE: dict[str, Any] = {
    "node": {"id": "n", "ae_title": "NODE"},
    "destinations": {"pacs": {"ae_title": "PACS", "host": "pacs", "port": 104}},
    "routes": ({"name": "all", "role": "pass", "destinations": ("pacs",)},),
}
_CUTS = (("put", 1), ("note_moved", 0), ("note_moved", 1), ("copy_to", 0))
_MORE_CUTS = (
    *(("put", 0), ("put", 4), ("note_moved", 2)),
    *(("recover", 0), ("counts", 0), ("counts", 2), ("holds", 9)),
)


class CutError(Exception):
    """What a test puts in the place of a kill."""


@dataclass
class Site:
    """A node that has run alone for a while, and where it is to go."""

    old: Config
    new: Config
    spool: Spool
    number: int = 0

    def book(self, *, even_moved: bool = False) -> Ledger:
        return Ledger(self.old.storage.ledger_path, even_moved=even_moved)

    def add(self, book: Ledger, end: Callable[[Ledger], None] = lambda _: None) -> None:
        self.number += 1
        blob = self.spool.put([b"came", str(self.number).encode()])
        book.add(arrival(f"1.2.{self.number}", "all"), blob.name, blob.size)
        end(book)

    def finish(self, book: Ledger) -> None:
        (work,) = book.claim_work("w", 1, 60.0)
        blob = self.spool.put([b"leaves", str(self.number).encode()])
        outcome = Outcome(
            InstanceState.READY,
            "protected",
            blob=blob.name,
            size=blob.size,
            sop_class_uid=work.arrival.sop_class_uid,
            sop_instance_uid=work.arrival.sop_instance_uid,
            transfer_syntax_uid=work.arrival.transfer_syntax_uid,
            destinations=("pacs",),
        )
        book.finish(work, outcome)

    def send(self, book: Ledger) -> Any:
        self.finish(book)
        (send,) = book.claim_sends("pacs", 1, 60.0)
        return send

    def hold(self, book: Ledger) -> None:
        (work,) = book.claim_work("w", 1, 60.0)
        book.finish(work, Outcome(InstanceState.HELD, "held", "no-pixel-data"))

    def run_for_a_while(self) -> None:
        """One of everything: held, delivered, dead, being sent, queued, in work, received."""
        book = self.book()
        self.add(book, self.hold)
        self.add(book, lambda book: book.delivered(self.send(book), 0))
        self.add(book, lambda book: book.dead(self.send(book), "status-c000"))
        self.add(book, lambda book: self.send(book))
        self.add(book, self.finish)
        self.add(book, lambda book: book.claim_work("w", 1, 60.0))
        self.add(book)
        book.close()

    def move(self) -> moving.Moved:
        return Move(self.old, self.new).run()


@pytest.fixture
def site(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    old = Config.model_validate(
        _NODE | {"storage": {"folder": scratch / "old", "reserve_mb": 16}}, strict=False
    )
    cluster = {
        "name": "radiology",
        "database": {"url": "postgresql://node@db.example/dicom_node"},
        "blobs": {"kind": "directory", "directory": scratch / "shared"},
    }
    changed = {"storage": {"folder": scratch / "new", "reserve_mb": 16}, "cluster": cluster}
    new = Config.model_validate(_NODE | changed, strict=False)
    open_ledger = stores.open_ledger

    def in_a_file(config: Config, **how: Any) -> Ledger:
        """The database of the cluster is a file here; tests/interop has a server."""
        return open_ledger(config.model_copy(update={"cluster": None}), **how)

    monkeypatch.setattr(stores, "open_ledger", in_a_file)
    monkeypatch.setattr(moving, "open_ledger", in_a_file)
    made = Site(old, new, Spool(old.storage.spool_dir, 0))
    made.run_for_a_while()
    return made


def in_cluster(site: Site) -> Ledger:
    return stores.open_ledger(site.new)


def assert_moved(site: Site) -> None:
    """All of it is there, the cluster can begin, and the node cannot."""
    book = in_cluster(site)
    counts = book.counts()
    assert counts.instances[InstanceState.RECEIVED] == 2  # one of them was in work
    assert counts.instances[InstanceState.HELD] == 1
    assert counts.instances[InstanceState.READY] == 4
    assert counts.deliveries[DeliveryState.QUEUED] == 2  # one of them was under way
    assert counts.deliveries[DeliveryState.DEAD] == counts.deliveries[DeliveryState.DELIVERED] == 1
    store = stores.open_spool(site.new)
    claims = list(book.claims())
    assert len(claims) == 6
    for claim in claims:
        store.verify(claim.blob)
        seen = store.look(claim.blob)
        assert seen is not None
        assert seen.size == claim.size
    assert {send.destination for send in book.claim_sends("pacs", 9, 60.0)} == {"pacs"}
    book.close()
    with pytest.raises(LedgerError, match="moved to radiology"):
        site.book()


def test_everything_goes(site: Site) -> None:
    moved = site.move()
    assert (moved.copied, moved.claims) == (6, 6)
    assert_moved(site)
    with pytest.raises(LedgerError, match="moved to the cluster radiology already"):
        site.move()


def test_while_the_node_runs_its_objects_are_copied_and_no_more(site: Site) -> None:
    with stores.runs(site.old), pytest.raises(LedgerError, match="the node runs; stop it"):
        site.move()
    book = site.book()
    site.add(book, site.finish)  # it goes on
    book.close()
    store = stores.open_spool(site.new)
    assert store.used_bytes() > 0
    assert site.move().copied == 2  # what came since, and what was made since
    with pytest.raises(LedgerError, match="moved to radiology"):
        site.book()


def test_a_node_does_not_start_while_it_is_moved(site: Site) -> None:
    with (
        stores.stopped(site.old),
        pytest.raises(LedgerError, match="being moved"),
        stores.runs(site.old),
    ):
        pass


@pytest.mark.parametrize(
    ("step", "number"), [*_CUTS, *(pytest.param(*cut, marks=pytest.mark.slow) for cut in _MORE_CUTS)]
)
@pytest.mark.parametrize("after", [False, True])
def test_wherever_it_is_cut_off_the_same_again_ends_it(
    site: Site, monkeypatch: pytest.MonkeyPatch, step: str, number: int, after: bool
) -> None:
    calls = itertools.count()
    owner: Any = SharedStore if step == "put" else Ledger
    if step == "holds":
        owner = type(stores.open_spool(site.new))
    whole = getattr(owner, step)

    def cut(*args: Any, **kwargs: Any) -> Any:
        last = next(calls) == number
        if last and not after:
            raise CutError
        result = whole(*args, **kwargs)
        if last:
            raise CutError
        return result

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, cut)
        with pytest.raises(CutError):
            site.move()
    done = _is_open(site)
    if not done:
        site.move()
    assert_moved(site)


def _is_open(site: Site) -> bool:
    """Whether the cluster may begin; at no moment may the node as well."""
    alone = True
    try:
        site.book().close()
    except LedgerError:
        alone = False
    book = stores.open_ledger(site.new, even_moved=True)
    ready = book.moved_to() == "" and any(book.counts().instances.values())
    book.close()
    assert not (alone and ready)
    return ready


def test_what_was_lost_says_so(site: Site) -> None:
    book = site.book()
    lost = next(claim for claim in book.claims() if claim.part == "leaves")
    changed = next(claim for claim in book.claims() if claim.part == "came")
    book.close()
    site.spool.path(lost.blob).unlink()
    path = site.spool.path(changed.blob)
    path.write_bytes(bytes(path.stat().st_size))
    site.move()
    book = in_cluster(site)
    assert book.counts().instances[InstanceState.QUARANTINED] == 1
    assert {dead.reason for dead in book.parcels("pacs", DeliveryState.DEAD, 9)} >= {"bytes-missing"}
    book.close()


def test_the_audit_trail_goes_on_where_the_node_ended(site: Site) -> None:
    site.run_for_a_while()
    site.old = site.old.model_copy(update={"audit": Audit(host="audit.example")})
    told = site.book().last_step() - 2
    store_of(site.old).note(told_to=told)
    site.move()
    assert in_cluster(site).told_to() == told


def test_it_is_taken_back(site: Site) -> None:
    with pytest.raises(LedgerError, match="nothing to take back"):
        Move(site.old, site.new).back_out()
    site.move()
    Move(site.old, site.new).back_out()
    site.book().close()
    with pytest.raises(LedgerError, match="has not come to its end"):
        in_cluster(site)
    with pytest.raises(LedgerError, match="rows of its own"):
        site.move()


def test_what_the_cluster_has_worked_on_is_not_taken_back(site: Site) -> None:
    site.move()
    book = in_cluster(site)
    (send, *_) = book.claim_sends("pacs", 9, 60.0)
    book.delivered(send, 0)
    book.close()
    with pytest.raises(LedgerError, match="lost or sent twice"):
        Move(site.old, site.new).back_out()
    in_cluster(site).close()


def test_a_cluster_that_has_rows_takes_no_others(site: Site) -> None:
    book = in_cluster(site)
    book.add(arrival("1.9"), "ab" * 32, 1)
    book.close()
    with pytest.raises(LedgerError, match="rows of its own"):
        site.move()


def test_the_configurations_are_what_they_should_be(site: Site, scratch: Path) -> None:
    with pytest.raises(UsageError, match="there already"):
        Move(site.new, site.new)
    with pytest.raises(UsageError, match="without a section cluster"):
        Move(site.old, site.old)
    none = site.old.model_copy(update={"storage": site.new.storage})
    with pytest.raises(LedgerError, match="nothing to move"):
        Move(none, site.new)


def test_a_check_finds_what_is_lost_and_says_so(site: Site) -> None:
    site.move()
    assert check(site.new, lose=False) == (6, 0)
    book = in_cluster(site)
    claim = next(claim for claim in book.claims() if claim.part == "came")
    book.close()
    stores.open_spool(site.new).path(claim.blob).write_bytes(b"other")
    assert check(site.new, lose=True) == (6, 1)
    assert check(site.new, lose=False) == (5, 0)


def test_what_does_not_come_through_keeps_the_cluster_closed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(moving, "_is_held", lambda *_: False)
        with pytest.raises(SpoolError, match="6 of 6 objects are not in"):
            site.move()
    with pytest.raises(LedgerError, match="has not come to its end"):
        in_cluster(site)
    site.move()
    assert_moved(site)
