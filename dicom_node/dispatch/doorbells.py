"""Where those who rest inside this process are woken, and who rang waits for the end of what he set off."""

from __future__ import annotations

import threading
from collections import deque


class Doorbell:
    """One bell, for everybody in this process who does the same.

    A ring lasts until who heard it rests again, so that its message is acknowledged when the ledger has what
    came of it. Whoever is busy looks into the ledger by himself: with `patient` a ring waits for him, and
    its message keeps further ones for processes that rest; without, it ends at once and leaves its mark, so
    that nobody rests without having looked.

    Parameters
    ----------
    patient : whether a ring waits for somebody who is busy
    """

    def __init__(self, *, patient: bool) -> None:
        self._patient = patient
        self._changed = threading.Condition()
        self._resting = 0
        self._rung = self._roused = self._closed = False
        self._calls: deque[threading.Event] = deque()
        #: thread -> the call that it answered when it last rested
        self._answering: dict[int, threading.Event] = {}

    def ring(self, limit_s: float) -> None:
        """Wake one who rests, and return when he rests again, at most after `limit_s`."""
        call = threading.Event()
        with self._changed:
            if self._closed:
                return
            if not self._patient and self._resting <= len(self._calls):
                self._rung = True
                return
            self._calls.append(call)
            self._changed.notify()
        if not call.wait(limit_s):
            with self._changed:
                if call in self._calls:  # nobody came to rest in all that time
                    self._calls.remove(call)

    def rouse(self) -> None:
        """Let nobody rest any more: they are to stop."""
        with self._changed:
            self._roused = True
            self._changed.notify_all()

    def rest(self, seconds: float) -> None:
        """End what the last ring has set off, and wait for the next, at most `seconds`."""
        me = threading.get_ident()
        with self._changed:
            done = self._answering.pop(me, None)
            if done is not None:
                done.set()
            self._resting += 1
            self._changed.wait_for(lambda: self._rung or self._roused or self._calls, seconds)
            self._resting -= 1
            self._rung = False
            if self._calls:
                self._answering[me] = self._calls.popleft()

    def close(self) -> None:
        """End every ring, and take no more."""
        with self._changed:
            self._closed = True
            for call in (*self._calls, *self._answering.values()):
                call.set()
            self._calls.clear()
            self._answering.clear()
