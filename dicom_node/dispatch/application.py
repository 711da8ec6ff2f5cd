"""The Celery application: which queues there are, and how messages travel."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from celery import Celery
from kombu.entity import Exchange, Queue

from dicom_node import private
from dicom_node.config import Broker

#: names of the tasks
WORK, SEND = "dicom-node.work", "dicom-node.send"
#: seconds after which a broker that does not answer is taken for gone
TIMEOUT_S = 3.0
#: seconds between signs of life to and from the broker; they go on while a task runs
_HEARTBEAT_S = 20.0
#: messages that a queue holds at most; beyond it the oldest go, for each is only a hint
MAX_LENGTH = 1000
#: milliseconds after which a hint is none any more: the reconciler has looked since
_TTL_MS = 60_000
#: times that a message may come back from who died over it; of the row the ledger decides earlier
_DELIVERY_LIMIT = 5

_QUORUM = {
    "x-queue-type": "quorum",
    "x-delivery-limit": _DELIVERY_LIMIT,
    "x-max-length": MAX_LENGTH,
    "x-message-ttl": _TTL_MS,
    "x-overflow": "drop-head",
}


def work_queue(cluster: str) -> str:
    """The queue in which arrivals are told to workers."""
    return f"{cluster}.work"


def send_queue(cluster: str, destination: str) -> str:
    """The queue in which deliveries to a destination are told to forwarders."""
    return f"{cluster}.send.{destination}"


def queue(name: str) -> Queue:
    """A quorum queue, declared by whoever first sends to it or hears from it."""
    exchange = Exchange("")  # type: ignore[no-untyped-call]
    return Queue(  # type: ignore[no-untyped-call]
        name, exchange, routing_key=name, durable=True, queue_arguments=_QUORUM
    )


def address(broker: Broker) -> str:
    """The URL with its password; for the connection itself and for nothing that is shown.

    Raises KeyFileError when the file of the password cannot be used.
    """
    if broker.password_file is None:
        return broker.url
    remedy = "write the password of the broker into it, mode 0600"
    password = private.read_text(broker.password_file, remedy).strip()
    parts = urlsplit(broker.url)
    user, _, place = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{place}"))


def application(broker: Broker, names: Iterable[str] = (), *, publishes: bool = False) -> Celery:
    """A Celery application for one connection; `names` are the queues that it hears from.

    With `publishes` it waits for the broker's confirmation of every message, and for no answer for long.
    """
    app = Celery("dicom-node", broker=address(broker), set_as_current=False, fixups=[])
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        result_backend="disabled",
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        task_queues=[queue(name) for name in names],
        task_create_missing_queues=False,
        task_default_delivery_mode="persistent",
        broker_connection_timeout=TIMEOUT_S,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_heartbeat=None if publishes else _HEARTBEAT_S,
        broker_use_ssl=_encryption(broker),
        broker_transport_options=_PUBLISHING if publishes else {},
        worker_consumer="dicom_node.dispatch.hearer:Consumer",
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        task_send_sent_event=False,
    )
    return app


#: py-amqp's: who publishes waits for a confirmation, and never for longer than this
_PUBLISHING: dict[str, Any] = {
    "confirm_publish": True,
    "read_timeout": TIMEOUT_S,
    "write_timeout": TIMEOUT_S,
}


def _encryption(broker: Broker) -> dict[str, Any] | None:
    if urlsplit(broker.url).scheme != "amqps":
        return None
    known = None if broker.ca is None else str(broker.ca)
    return {
        "cert_reqs": ssl.CERT_REQUIRED,
        "ca_certs": known,
        "server_hostname": urlsplit(broker.url).hostname,
    }
