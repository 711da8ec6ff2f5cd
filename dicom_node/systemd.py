"""What the service manager is told: sd_notify(3) and sd_watchdog_enabled(3), without its library."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence

from dicom_node import log

_LOG = logging.getLogger(__name__)


def notify(state: str) -> None:
    """Tell the service manager; without one, or with one that does not listen, do nothing.

    Whoever stops, reloads or watches must not end because nobody wants to hear of it.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
    ):
        # a leading @ stands for the zero byte of Linux's abstract names
        sock.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def watchdog_s() -> float | None:
    """How often the service manager wants to hear of this process, seconds; None if it does not."""
    wanted = os.environ.get("WATCHDOG_USEC", "")
    meant = os.environ.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
    return int(wanted) / 1e6 if wanted.isdigit() and int(wanted) and meant else None


class Watchdog:
    """Says that the node lives for as long as it does; silence has the service manager start it again.

    Parameters
    ----------
    dead_parts : names of what has ended although nobody stopped it; a full disk or a peer that is away is no
        such thing, for no start mends those
    """

    def __init__(self, dead_parts: Callable[[], Sequence[str]]) -> None:
        self._dead_parts = dead_parts
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, if the service manager wants to hear anything."""
        every = watchdog_s()
        if every is not None:
            self._thread = threading.Thread(target=self._run, args=(every / 3,), name="watchdog", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Say nothing more; a node that stops has `TimeoutStopSec`, not the watchdog, to answer to."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, every: float) -> None:
        silent = False
        while True:
            dead = self._dead_parts()
            if not dead:
                notify("WATCHDOG=1")
            elif not silent:
                log.event(_LOG, "parts-dead", level=logging.CRITICAL, reason=" ".join(dead))
            silent = bool(dead)
            if self._ended.wait(every):
                return
