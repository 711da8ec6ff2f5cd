"""What would keep a broker from working for a cluster; nothing is declared that is not there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from amqp.exceptions import AccessRefused, NotAllowed, NotFound, PreconditionFailed
from kombu.exceptions import OperationalError

from dicom_node.config import Broker
from dicom_node.dispatch.application import application, queue
from dicom_node.errors import BrokerError


def inspect(broker: Broker, names: list[str]) -> int:
    """How many of the queues are there already; the others the first node makes.

    Raises
    ------
    BrokerError : it is not reached, does not let us in, or has a queue of that name of another kind
    KeyFileError : the file of its password cannot be used
    """
    place = f"the broker at {urlsplit(broker.url).hostname}"
    with _refusals(place), application(broker, publishes=True).connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=5)
        return sum(_is_ours(connection, place, name) for name in names)


def _is_ours(connection: Any, place: str, name: str) -> bool:
    """Whether a queue is there, as it is to be."""
    try:
        with connection.channel() as channel:
            channel.queue_declare(name, passive=True)
    except NotFound:
        return False
    try:
        with connection.channel() as channel:
            queue(name)(channel).declare()  # type: ignore[no-untyped-call]  # what is there already with these properties is not touched
    except PreconditionFailed as error:
        raise BrokerError(
            f"{place} has a queue {name} of another kind; delete it (nothing is lost), or choose another "
            "cluster.name"
        ) from error
    return True


@contextlib.contextmanager
def _refusals(place: str) -> Iterator[None]:
    """Say what the broker said; never its address, which holds the password."""
    try:
        yield
    except (AccessRefused, NotAllowed) as error:
        raise BrokerError(
            f"{place} does not let us in; check user, password file, virtual host and its rights "
            "(configure, write, read)"
        ) from error
    except (OperationalError, OSError) as error:
        raise BrokerError(f"{place} is not reached; check cluster.broker.url, the server and TLS") from error
