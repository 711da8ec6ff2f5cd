"""A process that hears the bells of a cluster, for tests that kill it or cut it off."""

from __future__ import annotations

import time
from multiprocessing.connection import Connection

from dicom_node.dispatch.carillon import Carillon


def hear(bells: Carillon, said: Connection, turn_s: float) -> None:
    """Say how long each rest lasted that a ring ended; each turn that it sets off takes `turn_s`."""
    bells.hear_work()
    while True:
        started = time.monotonic()
        bells.rest_work(600.0)
        said.send(time.monotonic() - started)
        time.sleep(turn_s)
