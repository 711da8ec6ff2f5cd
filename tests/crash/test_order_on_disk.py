"""What survives a power cut: the order of the system calls between an object and its acknowledgement."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.stand import Peer, Setup, free_port, objects
from benchmarks.witnesses import Modality
from tests.crash.conftest import Nodes

pytestmark = pytest.mark.slow

_CALLS = "trace=fsync,fdatasync,rename,renameat,renameat2,link,linkat,sendto"
#: step -> what its line in the trace holds; a sync counts when it has returned, an answer when it begins
_STEPS = {
    "bytes synced": re.compile(r"f(?:data)?sync\(\d+<[^>]*/spool/tmp/[^>]*>\) += 0"),
    "named": re.compile(r"(?:rename|link)\w*\(.*/spool/tmp/.* = 0$"),
    "name synced": re.compile(r"fsync\(\d+<[^>]*/spool/[0-9a-f]{2}>\) += 0"),
    "row synced": re.compile(r"f(?:data)?sync\(\d+<[^>]*ledger\.sqlite-wal>\) += 0"),
    "answered": re.compile(r"sendto\(\d+<.*>, \"\\4\\0"),
}
_UNFINISHED = re.compile(r"^(\d+) +(.*?) ?<unfinished \.\.\.>$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$")
_LINE = re.compile(r"^(\d+) +(.*)$")

#: the thread that calls, and the call
Call = tuple[str, str]


def _calls(trace: str) -> list[Call]:
    """The calls in the order of their return; a call to send stands where it began."""
    begun: dict[str, str] = {}
    found = []
    for line in trace.splitlines():
        unfinished, resumed, whole = _UNFINISHED.match(line), _RESUMED.match(line), _LINE.match(line)
        if unfinished:
            begun[unfinished[1]] = unfinished[2]
            if unfinished[2].startswith("sendto"):
                found.append((unfinished[1], unfinished[2]))
        elif resumed:
            call = begun.pop(resumed[1], "")
            if not call.startswith("sendto"):
                found.append((resumed[1], call + resumed[2]))
        elif whole:
            found.append((whole[1], whole[2]))
    return found


def _strace() -> str:
    """The tracer, where it is installed and allowed."""
    path = shutil.which("strace")
    if path is None or subprocess.run([path, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("no strace, or not allowed to trace")
    return path


def test_everything_is_synced_before_it_is_acknowledged(tmp_path: Path, nodes: Nodes) -> None:
    """Bytes, then their name, then the folder that holds the name, then the row, then the answer."""
    trace = tmp_path / "trace"
    node = nodes(Setup({"away": Peer(free_port(), first_s=600.0, cap_s=600.0)}))
    node.start(under=(_strace(), "-f", "-y", "-o", trace, "-e", _CALLS))
    begin = trace.stat().st_size
    (path,) = objects(tmp_path / "in", 1)
    modality = Modality(node.port, [path])
    modality.start()
    modality.join(60)
    assert len(modality.acknowledged) == 1
    node.kill()
    calls = _calls(trace.read_text("utf-8", "replace")[begin:])
    keeper = next(thread for thread, call in calls if _STEPS["bytes synced"].search(call))
    answered = next(at for at, (_, call) in enumerate(calls) if _STEPS["answered"].search(call))
    own = [call for thread, call in calls[:answered] if thread == keeper] + [calls[answered][1]]
    at = -1
    for step, pattern in _STEPS.items():
        following = (number for number, call in enumerate(own) if number > at and pattern.search(call))
        at = next(following, -1)
        assert at >= 0, f"not {step} in its turn: {calls}"
