"""Opens what the configuration keeps things in: the ledger, the spool, and the bells between them.

Everybody who needs one of them asks here, so that nobody else knows on how many machines the node runs.
"""

from __future__ import annotations

from collections.abc import Callable

from dicom_node.bells import Bells
from dicom_node.config import Config
from dicom_node.ledger import Ledger
from dicom_node.spool import Spool, release_reserve


def open_ledger(
    config: Config, *, existing: bool = False, on_full: Callable[[], bool] | None = None
) -> Ledger:
    """The state of every job.

    Parameters
    ----------
    existing : neither make nor change it, for whoever looks in from outside
    on_full : called when its disk is full; returns whether that made room. None gives the reserve back

    Raises LedgerError.
    """
    storage = config.storage
    if existing:
        return Ledger(storage.ledger_path, existing=True)
    return Ledger(storage.ledger_path, on_full=on_full or (lambda: release_reserve(storage.spool_dir)))


def ledger_exists(config: Config) -> bool:
    """Whether a node was ever started with this configuration, so that there is a ledger to look into."""
    return config.storage.ledger_path.exists()


def open_spool(config: Config, *, reserve_bytes: int | None = None) -> Spool:
    """The bytes of every object; `reserve_bytes` takes the place of the configured. Raises SpoolError."""
    storage = config.storage
    reserve = storage.reserve_bytes if reserve_bytes is None else reserve_bytes
    return Spool(storage.spool_dir, reserve, keep_s=storage.keep_s)


def open_bells(config: Config) -> Bells:
    """What wakes who rests; everybody who is to hear it is given the same."""
    return Bells(config.destinations)
