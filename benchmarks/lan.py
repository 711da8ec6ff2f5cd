"""Machines of a LAN on one machine: network namespaces, each with a link of limited pace to one bridge.

What is not put into one is at the other end of the bridge. Needs root and iproute2.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterator

from benchmarks.several import Place

#: seconds of a link that may wait before it, and bytes that may go at once
_WAITS, _BURST = "50ms", "64kb"


class Lan:
    """One bridge, and namespaces with their links to it.

    Parameters
    ----------
    mbit_s : pace of every link, each way
    """

    def __init__(self, mbit_s: int) -> None:
        self._mbit_s = mbit_s
        self._tag = f"{random.SystemRandom().randrange(1 << 16):04x}"
        self._bridge = f"br{self._tag}"
        self._net = f"10.{random.SystemRandom().randrange(64, 192)}.{random.SystemRandom().randrange(256)}"
        self._links: dict[str, str] = {}
        self._places: dict[str, Place] = {}

    @property
    def host(self) -> str:
        """The address of whatever is in no namespace."""
        return f"{self._net}.1"

    @property
    def network(self) -> str:
        """All addresses of it."""
        return f"{self._net}.0/24"

    def make(self) -> Lan:
        """The bridge; OSError where that is not allowed."""
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self.host}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        return self

    def join(self, name: str) -> Place:
        """The namespace of that name, with its link; made when it is first asked for."""
        if name not in self._places:
            self._places[name] = self._joined(name)
        return self._places[name]

    def _joined(self, name: str) -> Place:
        number = len(self._links) + 2
        space, link, inner = f"ns{self._tag}-{number}", f"ve{self._tag}{number}", f"vi{self._tag}{number}"
        self._links[name] = link
        _ip("netns", "add", space)
        _ip("link", "add", link, "type", "veth", "peer", "name", inner)
        _ip("link", "set", inner, "netns", space)
        _ip("-n", space, "addr", "add", f"{self._net}.{number}/24", "dev", inner)
        for device in ("lo", inner):
            _ip("-n", space, "link", "set", device, "up")
        _ip("link", "set", link, "master", self._bridge, "up")
        pace = ("root", "tbf", "rate", f"{self._mbit_s}mbit", "burst", _BURST, "latency", _WAITS)
        _call("tc", "qdisc", "add", "dev", link, *pace)
        _call("tc", "-n", space, "qdisc", "add", "dev", inner, *pace)
        return Place(f"{self._net}.{number}", ("ip", "netns", "exec", space))

    def cut(self, name: str) -> None:
        """Let nothing through to or from a namespace."""
        _ip("link", "set", self._links[name], "down")

    def mend(self, name: str) -> None:
        """Let everything through again."""
        _ip("link", "set", self._links[name], "up")

    def remove(self) -> None:
        """All of it; what runs in the namespaces must have ended."""
        for number, link in enumerate(self._links.values(), 2):
            with contextlib.suppress(OSError):
                _ip("link", "del", link)
            with contextlib.suppress(OSError):
                _ip("netns", "del", f"ns{self._tag}-{number}")
        with contextlib.suppress(OSError):
            _ip("link", "del", self._bridge)


@contextlib.contextmanager
def lan(mbit_s: int) -> Iterator[Lan | None]:
    """A LAN until the end of the block; None where this machine does not allow one."""
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("tc")):
        yield None
        return
    made = Lan(mbit_s)
    try:
        try:
            made.make()
            made.join("a first one")
        except OSError:
            yield None
            return
        yield made
    finally:
        made.remove()


def _ip(*words: str) -> None:
    _call("ip", *words)


def _call(*command: str) -> None:
    """Run a program; OSError with what it says when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
