"""Bells of a cluster have the methods of bells, go along to other processes, and ring over the broker."""

from __future__ import annotations

import inspect
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("celery")

from celery import Celery

from dicom_node.bells import Bells
from dicom_node.config import Config
from dicom_node.dispatch import carillon as made
from dicom_node.dispatch.application import queue
from dicom_node.dispatch.carillon import Carillon


def config(folder: Path) -> Config:
    return Config.model_validate(
        {
            "node": {"id": "n", "ae_title": "NODE"},
            "storage": {"folder": folder},
            "destinations": {"a": {"ae_title": "A", "host": "h", "port": 1, "associations": 2}},
            "routes": ({"name": "r", "role": "pass", "destinations": ("a",)},),
            "cluster": {
                "name": "site",
                "database": {"url": "postgresql://u@h/d"},
                "broker": {"url": "amqp://u@h/v"},
                "blobs": {"kind": "directory", "directory": folder},
            },
        },
        strict=False,
    )


def _in_memory(_broker: object, names: tuple[str, ...] = (), *, publishes: bool = False) -> Celery:
    app = Celery("t", broker="memory://carillon", set_as_current=False, fixups=[])
    app.conf.update(
        task_queues=[queue(name) for name in names],
        broker_transport_options={"polling_interval": 0.02},
        task_ignore_result=True,
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        broker_connection_retry_on_startup=True,
        worker_consumer="dicom_node.dispatch.hearer:Consumer",
    )
    return app


@pytest.fixture
def bells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Carillon]:
    monkeypatch.setattr(made, "application", _in_memory)
    carillon = Carillon(config(tmp_path))
    yield carillon
    carillon.close()


def _rested_s(rest: Callable[[], object]) -> float:
    started = time.monotonic()
    rest()
    return time.monotonic() - started


def test_it_takes_the_place_of_bells() -> None:
    public = {name for name, _ in inspect.getmembers(Bells) if not name.startswith("_")}
    assert public <= set(vars(Carillon)), "every method is its own: there are no semaphores behind it"


def test_a_ring_for_work_is_heard(bells: Carillon) -> None:
    bells.hear_work()
    bells.ring_work(17)
    assert _rested_s(lambda: bells.rest_work(600.0)) < 500.0


def test_a_ring_for_a_destination_is_heard_by_its_lanes(bells: Carillon) -> None:
    bells.hear_sends()
    bells.ring_sends("a", 3)
    assert _rested_s(lambda: bells.rest_sends("a", 600.0)) < 500.0
    bells.ring_sends("unknown")


def test_who_is_roused_rests_no_more(bells: Carillon) -> None:
    bells.rouse_work()
    bells.rouse_sends("a")
    assert _rested_s(lambda: (bells.rest_work(600.0), bells.rest_sends("a", 600.0))) < 500.0


def test_it_goes_along_to_another_process_without_what_is_open(bells: Carillon) -> None:
    bells.ring_work()
    copy = pickle.loads(pickle.dumps(bells))
    assert isinstance(copy, Carillon)
    assert copy.connected
    copy.ring_work()
    copy.close()
