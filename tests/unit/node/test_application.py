"""What the queues are declared with, and where the password is not seen."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("celery")

from dicom_node.config import Broker
from dicom_node.dispatch import application as made
from dicom_node.errors import KeyFileError

URL = "amqp://node@mq.example:5672/dicom-node"


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    secret = tmp_path / "secret"
    secret.write_text("p@ss/word\n", "ascii")
    secret.chmod(0o600)
    return Broker(url=URL, password_file=secret)


def test_every_queue_is_a_bounded_quorum_queue_whose_messages_are_not_kept_for_ever() -> None:
    queue = made.queue(made.send_queue("radiology", "pacs"))
    assert queue.name == "radiology.send.pacs"
    assert queue.durable
    arguments = queue.queue_arguments
    assert arguments["x-queue-type"] == "quorum"
    assert arguments["x-overflow"] == "drop-head"
    assert 0 < arguments["x-delivery-limit"] < 20
    assert 0 < arguments["x-max-length"] <= 10_000
    assert 0 < arguments["x-message-ttl"] <= 600_000


def test_a_message_is_acknowledged_late_taken_singly_and_answered_by_nothing(broker: Broker) -> None:
    app = made.application(broker, [made.work_queue("radiology")])
    assert app.conf.task_acks_late
    assert app.conf.task_reject_on_worker_lost
    assert app.conf.worker_prefetch_multiplier == 1
    assert app.conf.task_ignore_result
    assert app.conf.accept_content == ["json"]
    assert list(app.amqp.queues) == ["radiology.work"]


def test_the_password_is_in_the_address_and_in_nothing_that_shows_it(broker: Broker) -> None:
    assert made.address(broker) == "amqp://node:p%40ss%2Fword@mq.example:5672/dicom-node"
    assert "p@ss" not in repr(broker)
    connection = made.application(broker).connection_for_write()
    assert connection.password == "p@ss/word"
    assert "p%40ss" not in connection.as_uri() + repr(connection)


def test_a_password_that_others_can_read_is_refused(broker: Broker) -> None:
    assert broker.password_file is not None
    broker.password_file.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        made.address(broker)


def test_who_publishes_waits_for_confirmation_and_never_long(broker: Broker) -> None:
    options = made.application(broker, publishes=True).conf.broker_transport_options
    assert options["confirm_publish"]
    assert options["read_timeout"] <= 5.0
    assert made.application(broker).conf.broker_transport_options == {}


def test_over_tls_the_broker_proves_who_it_is(tmp_path: Path) -> None:
    broker = Broker(url="amqps://node@mq.example/v", ca=tmp_path / "ca.pem")
    encryption = made.application(broker).conf.broker_use_ssl
    assert encryption["ca_certs"] == str(tmp_path / "ca.pem")
    assert encryption["server_hostname"] == "mq.example"
    assert made.application(Broker(url=URL)).conf.broker_use_ssl is None
