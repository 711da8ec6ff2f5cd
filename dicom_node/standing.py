"""How a destination stands, as an operator is told: paused, closed, down, replaced by its fail-over.

Pure: what the ledger remembers and the time are arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dicom_node.config import Config
from dicom_node.windows import opens_at


@dataclass(frozen=True, slots=True)
class Standing:
    """What keeps a destination from being sent to; times in seconds since 1970-01-01 UTC, None if nothing.

    `closed_until` is when its next window opens; `goes_to` the fail-over that takes its deliveries now.
    `configured` is false for a destination that the ledger knows and the configuration does not, or no more.
    """

    configured: bool
    paused_since: float | None = None
    closed_until: float | None = None
    down_since: float | None = None
    goes_to: str | None = None


def standing(
    config: Config, name: str, paused: Mapping[str, float], down: Mapping[str, float], now: float
) -> Standing:
    """How the destination `name` stands at `now`; `paused` and `down` are since when which ones are."""
    destination, since = config.destinations.get(name), down.get(name)
    if destination is None:
        return Standing(False, paused.get(name), None, since, None)
    opening = opens_at(destination.open_hours, now)
    over = since is not None and opening == now and now - since >= destination.failover_after_s
    return Standing(
        configured=True,
        paused_since=paused.get(name),
        closed_until=None if opening == now else opening,
        down_since=since,
        goes_to=destination.failover if over else None,
    )
