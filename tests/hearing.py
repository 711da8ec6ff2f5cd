"""A process that hears the bells of a cluster, for tests that kill it or cut it off."""

from __future__ import annotations

from multiprocessing.connection import Connection

from dicom_node.dispatch.carillon import Carillon


def hear(bells: Carillon, test: Connection) -> None:
    """Say whenever a ring was heard; the turn that it sets off ends when the test says so."""
    bells.hear_work()
    while True:
        bells.rest_work(600.0)
        test.send("heard")
        test.recv()
