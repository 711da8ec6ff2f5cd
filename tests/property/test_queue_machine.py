"""Ledger and spool against a perfect memory: no acknowledged object is lost, none is ever in two hands."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from dicom_node.errors import StaleLease
from dicom_node.housekeeping import reconcile
from dicom_node.jobs import Arrival, DeliveryState, InstanceState, Outcome, Send, Work
from dicom_node.ledger import INTERRUPTED_LIMIT, LOST_LIMIT, Ledger
from dicom_node.ledger.dialects import Place
from dicom_node.metrics import ATTEMPTS, REPEATS, RESULTS, DeliveryTally, InstanceTally
from dicom_node.spool import Spool

_DESTINATIONS = ("pacs", "vna")
_LEASE_S = 10.0
_KEPT = (InstanceState.HELD, InstanceState.QUARANTINED)
_DROPPABLE = (DeliveryState.QUEUED, DeliveryState.DEAD)
_SETTLED = (DeliveryState.DELIVERED, DeliveryState.DROPPED)
_MEMORY = Path("/dev/shm")
#: the law is not about the disk, and waiting for one takes all the time
_SCRATCH = _MEMORY if _MEMORY.is_dir() else None


@dataclass
class Delivery:
    state: DeliveryState = DeliveryState.QUEUED
    next_at: float = 0.0
    token: int = 0
    lease_until: float = 0.0


@dataclass
class Instance:
    content: bytes
    state: InstanceState = InstanceState.RECEIVED
    next_at: float = 0.0
    token: int = 0
    lease_until: float = 0.0
    lost: int = 0
    interrupted: int = 0
    output: bytes = b""
    #: time of its last event
    touched: float = 0.0
    deliveries: dict[str, Delivery] = field(default_factory=dict)


class QueueMachine(RuleBasedStateMachine):
    """Random arrivals, claims, results, deaths, waits and restarts, checked after every step."""

    works = Bundle("works")
    sends = Bundle("sends")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="queue-machine-", dir=_SCRATCH))
        self.now = 1_000_000.0
        self.instances: dict[int, Instance] = {}
        self.known: dict[tuple[str, bytes], int] = {}
        self.repeats = 0
        self.counted: dict[tuple[str, tuple[str, ...], str], float] = {}
        self.paused: set[str] = set()
        self.at = self.place()
        self.open()

    def place(self) -> Place:
        """Where the ledger is to be."""
        return self.folder / "ledger.sqlite"

    def open(self) -> None:
        self.spool = Spool(self.folder / "spool", 0, keep_s=0.0)
        self.ledger = Ledger(self.at, clock=lambda: self.now)

    def teardown(self) -> None:
        self.ledger.close()
        shutil.rmtree(self.folder)

    @rule(uid=st.sampled_from(["1.1", "1.2", "1.3"]), content=st.sampled_from([b"a", b"b"]))
    def arrive(self, uid: str, content: bytes) -> None:
        blob = self.spool.put([uid.encode(), content])
        added = self.ledger.add(Arrival("1", uid, "1", "CT", "NODE", "protect"), blob.name, blob.size)
        assert added.duplicate == ((uid, content) in self.known)
        if added.duplicate:
            assert added.id == self.known[uid, content]
            self.repeats += 1
            return
        assert added.conflict == any(known == uid for known, _ in self.known)
        self.known[uid, content] = added.id
        self.instances[added.id] = Instance(uid.encode() + content, next_at=self.now, touched=self.now)

    @rule(target=works, limit=st.integers(1, 3))
    def claim_work(self, limit: int) -> list[Work]:
        self._expire_work()
        waiting = sorted(
            (instance.next_at, number)
            for number, instance in self.instances.items()
            if instance.state is InstanceState.RECEIVED and instance.next_at <= self.now
        )
        expected = self._without_company([number for _, number in waiting][:limit])
        claimed = self.ledger.claim_work("w", limit, _LEASE_S)
        assert [work.id for work in claimed] == expected
        for work in claimed:
            instance = self.instances[work.id]
            assert work.token > instance.token
            instance.state, instance.token = InstanceState.WORKING, work.token
            instance.lease_until = self.now + _LEASE_S
            with self.spool.open(work.blob) as file:
                assert file.read() == instance.content
        return claimed

    @rule(
        batch=consumes(works),
        end=st.sampled_from([InstanceState.READY, InstanceState.HELD, InstanceState.REJECTED]),
        destinations=st.sets(st.sampled_from(_DESTINATIONS)),
    )
    def finish(self, batch: list[Work], end: InstanceState, destinations: set[str]) -> None:
        for work in batch:
            output = self.spool.path(work.blob).read_bytes() + b"!" if self._holds_work(work) else b"late"
            blob = self.spool.put([output]).name
            sent = tuple(sorted(destinations)) if end is InstanceState.READY else ()
            outcome = Outcome(end, "done", blob=blob, sop_instance_uid="2.25.1", destinations=sent)
            if not self._holds_work(work):
                with pytest.raises(StaleLease):
                    self.ledger.finish(work, outcome)
                continue
            self.ledger.finish(work, outcome)
            instance = self.instances[work.id]
            instance.state, instance.output, instance.touched = end, output, self.now
            instance.deliveries = {name: Delivery(next_at=self.now) for name in sent}

    @rule(batch=consumes(works), delay=st.sampled_from([0.0, 5.0]))
    def release(self, batch: list[Work], delay: float) -> None:
        for work in batch:
            if not self._holds_work(work):
                with pytest.raises(StaleLease):
                    self.ledger.release(work, self.now + delay, "busy")
                continue
            self.ledger.release(work, self.now + delay, "busy")
            instance = self.instances[work.id]
            instance.state, instance.next_at = InstanceState.RECEIVED, self.now + delay
            instance.touched = self.now

    @rule(batch=works)
    def beat(self, batch: list[Work]) -> None:
        for work in batch:
            if not self._holds_work(work):
                with pytest.raises(StaleLease):
                    self.ledger.beat(work, _LEASE_S)
                continue
            self.ledger.beat(work, _LEASE_S)
            self.instances[work.id].lease_until = self.now + _LEASE_S

    @rule(poison=st.booleans())
    def work_again_on_what_is_kept(self, poison: bool) -> None:
        for kept in self.ledger.held():
            assert self.instances[kept.id].state is kept.state
            if poison:
                self.ledger.rework(kept.id)
        if not poison:
            self.ledger.rework_held()
        for instance in self.instances.values():
            if instance.state is InstanceState.HELD or (poison and instance.state in _KEPT):
                instance.state, instance.next_at, instance.touched = (
                    InstanceState.RECEIVED,
                    self.now,
                    self.now,
                )

    @rule()
    def reject_what_is_held(self) -> None:
        for kept in self.ledger.held():
            self.ledger.reject(kept.id)
            self.instances[kept.id].state = InstanceState.REJECTED
            self.instances[kept.id].touched = self.now

    @rule(destination=st.sampled_from(_DESTINATIONS))
    def pause(self, destination: str) -> None:
        assert self.ledger.pause(destination) == (destination not in self.paused)
        self.paused.add(destination)

    @rule(destination=st.sampled_from(_DESTINATIONS))
    def resume(self, destination: str) -> None:
        assert self.ledger.resume(destination) == (destination in self.paused)
        self.paused.discard(destination)

    @rule(target=sends, destination=st.sampled_from(_DESTINATIONS), limit=st.integers(1, 3))
    def claim_sends(self, destination: str, limit: int) -> list[Send]:
        due = [
            delivery
            for instance in self.instances.values()
            for name, delivery in instance.deliveries.items()
            if name == destination and self._is_due(delivery)
        ]
        claimed = self.ledger.claim_sends(destination, limit, _LEASE_S)
        assert len(claimed) == (0 if destination in self.paused else min(limit, len(due)))
        self._expire_sends(destination)
        for send in claimed:
            delivery = self._delivery(send)
            assert delivery is not None
            assert delivery.state is DeliveryState.QUEUED
            assert delivery.next_at <= self.now
            delivery.state, delivery.token = DeliveryState.SENDING, send.token
            delivery.lease_until = self.now + _LEASE_S
        return claimed

    @rule(batch=consumes(sends), end=st.sampled_from(["delivered", "retry", "dead", "put back"]))
    def end_sends(self, batch: list[Send], end: str) -> None:
        for send in batch:
            moves = {
                "delivered": (lambda s: self.ledger.delivered(s, 0), DeliveryState.DELIVERED),
                "retry": (lambda s: self.ledger.retry(s, self.now + 5, "busy"), DeliveryState.QUEUED),
                "dead": (lambda s: self.ledger.dead(s, "refused"), DeliveryState.DEAD),
                "put back": (self.ledger.put_back, DeliveryState.QUEUED),
            }
            move, state = moves[end]
            delivery = self._delivery(send)
            if (
                delivery is None
                or delivery.state is not DeliveryState.SENDING
                or delivery.token != send.token
            ):
                with pytest.raises(StaleLease):
                    move(send)
                continue
            move(send)
            delivery.state = state
            delivery.next_at = self.now + 5 if end == "retry" else delivery.next_at
            if end != "put back":
                self._touch(delivery)

    @rule(together=st.booleans())
    def requeue_the_dead(self, together: bool) -> None:
        if together:
            self.ledger.requeue_dead()
        for letter in self.ledger.dead_letters():
            self.ledger.requeue(letter.id)
        for delivery in self._deliveries():
            if delivery.state is DeliveryState.DEAD:
                delivery.state, delivery.next_at = DeliveryState.QUEUED, self.now
                self._touch(delivery)

    @rule(destination=st.sampled_from(_DESTINATIONS), state=st.sampled_from(_DROPPABLE))
    def drop_one(self, destination: str, state: DeliveryState) -> None:
        for parcel in self.ledger.parcels(destination, state, 1):
            self.ledger.drop(parcel.id)
            delivery = self.instances[parcel.instance_id].deliveries[destination]
            assert delivery.state is state
            delivery.state = DeliveryState.DROPPED
            self._touch(delivery)

    @rule(destination=st.sampled_from(_DESTINATIONS))
    def drop_all(self, destination: str) -> None:
        while self.ledger.drop_waiting(destination):
            pass
        for instance in self.instances.values():
            delivery = instance.deliveries.get(destination)
            if delivery is not None and delivery.state in _DROPPABLE:
                delivery.state, instance.touched = DeliveryState.DROPPED, self.now

    @rule(age=st.sampled_from([-1.0, 5.0]))
    def purge(self, age: float) -> None:
        after: int | None = 0
        while after is not None:
            after = self.ledger.purge(self.now - age, after).after
        ripe = [number for number, instance in self.instances.items() if self._is_ripe(instance, age)]
        for number in ripe:
            del self.instances[number]
        self.known = {key: number for key, number in self.known.items() if number in self.instances}

    @rule(seconds=st.sampled_from([1.0, 5.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def discard_what_nobody_needs(self) -> None:
        self.spool.discard(self.ledger.needed)

    @rule()
    def crash_and_reopen(self) -> None:
        (self.spool.folder / "tmp" / "1-1-1-dead").write_bytes(b"half")
        self.ledger.close()
        self.open()
        self.ledger.recover()
        assert reconcile(self.spool, self.ledger, "boot").lost == 0
        for instance in self.instances.values():
            if instance.state is InstanceState.WORKING:
                instance.interrupted += 1
                self._lose(instance, instance.interrupted >= INTERRUPTED_LIMIT)
        for delivery in self._deliveries():
            if delivery.state is DeliveryState.SENDING:
                delivery.state, delivery.next_at = DeliveryState.QUEUED, self.now
                self._touch(delivery)

    @invariant()
    def states_agree(self) -> None:
        counts = self.ledger.counts()
        instances = Counter(instance.state for instance in self.instances.values())
        deliveries = Counter(delivery.state for delivery in self._deliveries())
        assert dict(counts.instances) == {state: instances[state] for state in InstanceState}
        assert dict(counts.deliveries) == {state: deliveries[state] for state in DeliveryState}
        snapshot = self.ledger.snapshot()
        assert snapshot.total(REPEATS) == self.repeats
        assert set(snapshot.paused) == self.paused

    @invariant()
    def what_the_triggers_count_is_what_the_rows_say(self) -> None:
        snapshot = self.ledger.snapshot()
        with self.ledger._reading() as connection:
            instances = connection.exec_driver_sql(
                "SELECT state, result, reason, count(*) FROM instances GROUP BY 1, 2, 3"
            ).all()
            deliveries = connection.exec_driver_sql(
                "SELECT destination, state, count(*) FROM deliveries GROUP BY 1, 2"
            ).all()
        assert set(snapshot.instances) == {InstanceTally(*row) for row in instances}
        assert set(snapshot.deliveries) == {DeliveryTally(*row) for row in deliveries}

    @invariant()
    def no_counter_falls(self) -> None:
        snapshot = self.ledger.snapshot()
        counted = {(each.metric, each.labels, each.bound): each.value for each in snapshot.counted}
        assert all(counted[key] >= value for key, value in self.counted.items())
        assert snapshot.total(RESULTS) <= snapshot.total(ATTEMPTS), "each end is an attempt"
        self.counted = counted

    @invariant()
    def whatever_is_still_needed_is_there(self) -> None:
        for instance in self.instances.values():
            if instance.state not in (InstanceState.READY, InstanceState.REJECTED):
                self._check_kept(instance.content)
            if any(each.state not in _SETTLED for each in instance.deliveries.values()):
                self._check_kept(instance.output)

    def _check_kept(self, content: bytes) -> None:
        self.spool.verify(_name(content))

    def _deliveries(self) -> list[Delivery]:
        return [each for instance in self.instances.values() for each in instance.deliveries.values()]

    def _delivery(self, send: Send) -> Delivery | None:
        """The delivery that was leased; None if it was purged since."""
        parcel = self.ledger.parcel(send.id)
        return None if parcel is None else self.instances[parcel.instance_id].deliveries[send.destination]

    def _touch(self, delivery: Delivery) -> None:
        for instance in self.instances.values():
            if any(each is delivery for each in instance.deliveries.values()):
                instance.touched = self.now

    def _is_ripe(self, instance: Instance, age: float) -> bool:
        return (
            instance.state in (InstanceState.READY, InstanceState.REJECTED)
            and all(each.state in _SETTLED for each in instance.deliveries.values())
            and instance.touched < self.now - age
        )

    def _is_due(self, delivery: Delivery) -> bool:
        if delivery.state is DeliveryState.QUEUED:
            return delivery.next_at <= self.now
        return delivery.state is DeliveryState.SENDING and delivery.lease_until <= self.now

    def _holds_work(self, work: Work) -> bool:
        instance = self.instances.get(work.id)
        return (
            instance is not None and instance.state is InstanceState.WORKING and instance.token == work.token
        )

    def _expire_work(self) -> None:
        for instance in self.instances.values():
            if instance.state is InstanceState.WORKING and instance.lease_until <= self.now:
                instance.lost += 1
                self._lose(instance, instance.lost >= LOST_LIMIT)

    def _expire_sends(self, destination: str) -> None:
        for instance in self.instances.values():
            delivery = instance.deliveries.get(destination)
            if delivery and delivery.state is DeliveryState.SENDING and delivery.lease_until <= self.now:
                delivery.state, delivery.next_at, instance.touched = DeliveryState.QUEUED, self.now, self.now

    def _lose(self, instance: Instance, for_good: bool) -> None:
        instance.state = InstanceState.QUARANTINED if for_good else InstanceState.RECEIVED
        instance.next_at = instance.touched = self.now

    def _without_company(self, numbers: list[int]) -> list[int]:
        suspects = [bool(self.instances[n].lost or self.instances[n].interrupted) for n in numbers]
        if suspects[:1] == [True]:
            return numbers[:1]
        return numbers[: suspects.index(True)] if True in suspects else numbers


def _name(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


_SHORT = settings(max_examples=15, stateful_step_count=40, deadline=None)
TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = _SHORT


@pytest.mark.slow
def test_the_law_holds_for_long_lives() -> None:
    run_state_machine_as_test(
        QueueMachine, settings=settings(max_examples=200, stateful_step_count=80, deadline=None)
    )
