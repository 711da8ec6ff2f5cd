"""Fixtures that more than one suite needs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from benchmarks.postgresql import Server

# Machines are shared and loops compile on first use, so no example has a deadline. CI repeats the same
# examples, so that a red run is about the change; everywhere else each run looks at new ones.
settings.register_profile(
    "dicom-node",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("dicom-node")

# In the background of a shell Ctrl-C is switched off, and so it would be for whatever the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with public images (`dicom/`, `hrf/`): $DICOM_NODE_DATA, or shared/data beside the checkout."""
    folder = Path(os.environ.get("DICOM_NODE_DATA", _REPOSITORY.parent / "shared" / "data"))
    if not (folder / "dicom").is_dir():
        pytest.skip("no image folder; set DICOM_NODE_DATA to one that holds dicom/")
    return folder


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server for all tests that share one; each has a database of its own."""
    from benchmarks import postgresql

    if not postgresql.is_installed():
        pytest.skip("no PostgreSQL; tools/install_peers.sh postgresql")
    made = postgresql.Server().make()
    yield made
    made.remove()
