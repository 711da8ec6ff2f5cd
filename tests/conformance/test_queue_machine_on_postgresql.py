"""The law of the queue holds on a server as it does in a file, for whatever is done in whatever order."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from benchmarks.postgresql import Server
from tests.property.test_queue_machine import QueueMachine


@pytest.mark.interop
@pytest.mark.slow
def test_the_law_holds_on_a_server(server: Server) -> None:
    class OnServer(QueueMachine):
        def place(self) -> sa.URL:
            return server.database()

    run_state_machine_as_test(
        OnServer, settings=settings(max_examples=6, stateful_step_count=30, deadline=None)
    )
