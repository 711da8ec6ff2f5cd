"""Work that takes too long ends its process, whatever it does with the interpreter."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.architecture.repository import ROOT

HEAD = """import threading, time
from dicom_node import watchdog
from dicom_node.watchdog import Watchdog, bites
bites()
"""
#: a regular expression holds the interpreter for as long as it looks: for years
HELD = "import re\ndog = Watchdog()\nwith dog.over(0.3):\n    re.match('(a+)+$', 'a' * 64 + 'b')\n"
ASLEEP = "dog = Watchdog()\nwith dog.over(0.3):\n    time.sleep(600)\n"
#: another thread ends its work again and again
BESIDE = """
dog = Watchdog()
def hang():
    with dog.over(0.5):
        time.sleep(600)
threading.Thread(target=hang, daemon=True).start()
while True:
    with dog.over(0.5):
        time.sleep(0.01)
"""
#: another thread begins with what may take long
LONGER = BESIDE.partition("while")[0] + "with dog.over(60):\n    time.sleep(60)\n"
BLOCKED = "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})\n"
QUICK = """
dog = Watchdog()
for _ in range(20):
    with dog.over(0.5):
        time.sleep(0.05)
try:
    with dog.over(0.5):
        raise ValueError
except ValueError:
    time.sleep(1.0)
"""


#: of two seconds, and each step of less than one and a half
STEPS = """
watchdog._OFTEN_S = 0.1
dog = Watchdog()
with dog.over(1.0) as step:
    for _ in range(20):
        time.sleep(0.1)
        step()
step()
time.sleep(1.5)
"""
#: the last step of which hangs
STUCK = STEPS.replace("        step()\n", "        step()\n    time.sleep(600)\n")


@pytest.mark.parametrize(
    ("work", "code"),
    [
        (HELD, -signal.SIGALRM),
        (ASLEEP, -signal.SIGALRM),
        (BESIDE, -signal.SIGALRM),
        (LONGER, -signal.SIGALRM),
        (STUCK, -signal.SIGALRM),
    ],
)
def test_what_hangs_ends_its_process(work: str, code: int) -> None:
    assert ended(work) == code


def test_it_bites_where_whoever_started_the_process_blocks_the_signal() -> None:
    """Blocked signals stay so in whatever a process starts."""
    assert ended(ASLEEP, before=BLOCKED) == -signal.SIGALRM


def test_what_ends_does_not() -> None:
    """Also where all of it together takes longer, and where it fails."""
    assert ended(QUICK.replace("0.5", "60")) == 0


def test_what_goes_on_has_its_time_again_at_every_step() -> None:
    """A slide of many frames takes hours, each of them a second."""
    assert ended(STEPS) == 0


def ended(work: str, before: str = "") -> int:
    command = [sys.executable, "-c", before + HEAD + work]
    return subprocess.run(command, cwd=ROOT, check=False, timeout=120).returncode
