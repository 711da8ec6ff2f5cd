"""What the processes of a pool are asked to do in tests; a module, because a spawned process imports it."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from dicom_node import pool
from dicom_node.errors import KeyFileError
from dicom_node.measuring import stage
from tests.waiting import wait_until

Task = tuple[str, str]


def prepared() -> Callable[[Task], str]:
    return _answer


def refusing() -> Callable[[Task], str]:
    raise KeyFileError("the ring is gone")


def beginning(folder: str) -> Callable[[Task], str]:
    """Begins for ever, and notes it if it is interrupted instead of ended."""
    Path(folder, "begun").touch()
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        Path(folder, "interrupted").touch()
        raise
    return _answer


def dying() -> Callable[[Task], str]:
    os._exit(7)


def lost(task: Task, code: int | None) -> str:
    return f"lost {task[1]} {code}"


def limit_s(task: Task) -> float:
    """What hangs is given little time, so that a test is quick; whatever ends has all it wants."""
    return 0.2 if task[0] == "hang" else math.inf


def _answer(task: Task) -> str:
    verb, argument = task
    if verb == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if verb == "die-once" and not Path(argument).exists():
        Path(argument).touch()
        os._exit(3)
    if verb == "hang":  # as a decoder does that is not even reached by a signal to end
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    if verb == "hang-once" and not Path(argument).exists():  # until it is killed
        Path(argument).touch()
        time.sleep(600)
    if verb.startswith("steps"):
        pool._TOLD_S = 0.0
        for _ in range(20):
            with stage("decode"):
                time.sleep(0.1)
    if verb == "steps-and-hang":
        time.sleep(600)
    if verb == "sleep":
        time.sleep(float(argument))
    if verb == "meet":  # does not end before another has been here
        wait_until(Path(argument).exists)
    if verb == "touch":
        Path(argument).touch()
    if verb == "tidy":  # has something to take back when it is ended
        try:
            Path(argument).touch()  # within: it may be ended as soon as the file is there
            time.sleep(600)
        finally:
            Path(argument).unlink(missing_ok=True)
    if verb == "environment":
        return os.environ.get(argument, "")
    if verb == "alone":  # others at work at the same time leave their file
        here = Path(argument) / str(os.getpid())
        here.touch()
        time.sleep(0.05)
        others = len(list(Path(argument).iterdir()))
        here.unlink()
        return str(others)
    return argument
