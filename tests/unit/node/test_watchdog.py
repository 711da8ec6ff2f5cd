"""Work that takes too long ends its process, whatever it does with the interpreter."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.architecture.repository import ROOT

HEAD = "import threading, time\nfrom dicom_node.watchdog import Watchdog, bites\nbites()\n"
#: a regular expression holds the interpreter for as long as it looks: for years
HELD = "import re\ndog = Watchdog(0.3)\nwith dog:\n    re.match('(a+)+$', 'a' * 64 + 'b')\n"
ASLEEP = "dog = Watchdog(0.3)\nwith dog:\n    time.sleep(600)\n"
#: another thread ends its work again and again
BESIDE = """
dog = Watchdog(0.5)
def hang():
    with dog:
        time.sleep(600)
threading.Thread(target=hang, daemon=True).start()
while True:
    with dog:
        time.sleep(0.01)
"""
QUICK = """
dog = Watchdog(0.5)
for _ in range(20):
    with dog:
        time.sleep(0.05)
try:
    with dog:
        raise ValueError
except ValueError:
    time.sleep(1.0)
"""


@pytest.mark.parametrize(
    ("work", "code"),
    [(HELD, -signal.SIGALRM), (ASLEEP, -signal.SIGALRM), (BESIDE, -signal.SIGALRM)],
)
def test_what_hangs_ends_its_process(work: str, code: int) -> None:
    assert ended(work) == code


def test_what_ends_does_not() -> None:
    """Also where all of it together takes longer, and where it fails."""
    assert ended(QUICK.replace("0.5", "60")) == 0


def ended(work: str) -> int:
    command = [sys.executable, "-c", HEAD + work]
    return subprocess.run(command, cwd=ROOT, check=False, timeout=120).returncode
