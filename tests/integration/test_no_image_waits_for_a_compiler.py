"""After the self-test, which the node runs before it accepts anything, no loop is left to be compiled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]

#: prints the loops that were compiled, or loaded for other types of arguments, only after the self-test
_SCRIPT = """
import json
from blessmark import jit
from blessmark.selftest import selftest
selftest()
before = {loop: len(loop.signatures) for loop in jit.LOOPS}
from tests.integration.test_marks_stay_the_same import FROZEN, images, made
for name, image in images():
    if not name.startswith("file"):
        list(made(image))
late = [str(loop) for loop in jit.LOOPS if len(loop.signatures) != before.get(loop, 0)]
print(json.dumps({"loops": len(before), "late": late}))
"""


def test_the_self_test_leaves_nothing_to_compile() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": f"{_ROOT}:{_ROOT / 'core'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout.splitlines()[-1])

    assert told["loops"] > 40
    assert told["late"] == []


def test_the_engine_works_where_nothing_can_be_cached(tmp_path: Path) -> None:
    """Neither beside the program nor in a home: each process compiles for itself, and says nothing."""
    script = (
        "import numba.core.caching as caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "from blessmark.fidelity import _squares\n"
        "import numpy as np\n"
        "plane = np.arange(6, dtype=np.int32).reshape(1, 2, 3)\n"
        "print(_squares(plane, plane + 2))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(_ROOT / "core")},
        capture_output=True,
        text=True,
        check=True,
    )

    assert (done.stdout.strip(), done.stderr) == ("24", "")
