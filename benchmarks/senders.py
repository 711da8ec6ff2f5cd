"""Senders that take next to no processor time: what they send is prepared before the clock runs.

DCMTK's storescu takes twice the processor time of a receiver that is measured with it, on the same cores.
What many receivers do together can be seen only beside senders that leave the cores to them.

    python -m benchmarks.senders PORT FILE ...   associates, says "ready", sends when a line comes, ends
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import wire

_LIMIT_S = 300.0


@contextlib.contextmanager
def ready(port: int, shares: Sequence[Sequence[Path]]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """One sender for each share, associated with what listens at a loopback port; `sent` lets them go."""
    senders = [_started(port, share) for share in shares]
    try:
        for sender in senders:
            assert sender.stdout is not None
            if sender.stdout.readline() != b"ready\n":
                raise RuntimeError("a sender was not let in")
        yield senders
    finally:
        for sender in senders:
            sender.kill()
            sender.communicate()


def sent(senders: Sequence[subprocess.Popen[bytes]]) -> float:
    """Have all of them send; seconds until the last has its last answer."""
    began = time.monotonic()
    for sender in senders:
        assert sender.stdin is not None
        sender.stdin.write(b"\n")
        sender.stdin.flush()
    for sender in senders:
        if sender.wait(_LIMIT_S):
            raise RuntimeError("a sender was not answered with success")
    return time.monotonic() - began


def _started(port: int, share: Sequence[Path]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.senders", str(port), *share]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _main(port: int, paths: Sequence[Path]) -> int:
    heads = [wire.head_of(path) for path in paths]
    contexts = sorted({(head.sop_class_uid, head.transfer_syntax_uid) for head in heads})
    association = wire.call(port, "NODE", "BENCH", contexts, _LIMIT_S)
    requests = [b"".join(association.request(*each)) for each in zip(paths, heads, strict=True)]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    refused = sum(association.ask([request]) != 0 for request in requests)
    association.release()
    return int(refused > 0)


if __name__ == "__main__":
    sys.exit(_main(int(sys.argv[1]), [Path(name) for name in sys.argv[2:]]))
