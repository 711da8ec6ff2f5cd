"""Hours of the day in which a destination may be used; pure: clock and time zone are arguments.

A window is written `22:00-06:00`, in the local time of the machine as clocks on the wall show it: the hour
that is skipped in spring is never inside, the hour that comes twice in autumn is inside both times.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

_FORM = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")
_MINUTE_S = 60
#: no window is shorter than a minute, and none is further off than a day and the hour that a clock may jump
_HORIZON_MIN = 26 * 60


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` up to, not including, `end`; minutes since midnight. It may go past midnight."""

    start: int
    end: int

    def holds(self, minute: int) -> bool:
        """Whether a minute of the day, 0..1439, is inside."""
        if self.start < self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end


def parse(text: str) -> Window:
    """The window that `22:00-06:00` means.

    Raises
    ------
    ValueError : it is not written like this, or begins when it ends
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError("is written HH:MM-HH:MM, for example 22:00-06:00")
    hours = [int(part) for part in found.groups()]
    window = Window(hours[0] * 60 + hours[1], hours[2] * 60 + hours[3])
    if window.start == window.end:
        raise ValueError("begins when it ends; leave windows out to have no limit")
    return window


def is_open(windows: Sequence[Window], now: float, zone: tzinfo | None = None) -> bool:
    """Whether `now` (seconds since 1970) is inside one of the windows; without any it always is.

    `zone` is the local time zone, None that of the machine.
    """
    if not windows:
        return True
    local = datetime.fromtimestamp(now, zone)
    minute = local.hour * 60 + local.minute
    return any(window.holds(minute) for window in windows)


def opens_at(windows: Sequence[Window], now: float, zone: tzinfo | None = None) -> float:
    """When it is open: `now` if it is, else the next minute at which it will be, seconds since 1970."""
    if is_open(windows, now, zone):
        return now
    minute = now // _MINUTE_S * _MINUTE_S
    later = (minute + _MINUTE_S * step for step in range(1, _HORIZON_MIN))
    # a window that lies whole in the skipped hour opens a day later
    return next((at for at in later if is_open(windows, at, zone)), minute + _MINUTE_S * _HORIZON_MIN)
