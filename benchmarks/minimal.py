"""A minimal durable store-and-forward node on pynetdicom: the peer that a careful afternoon buys.

    python -m benchmarks.minimal PORT SINK_PORT FOLDER

C-STORE into a temporary file, fsync, link into `ready/`, fsync of the folder, 0000. Two threads, each with an
association that stays open, send what is ready and remove it after success. No ledger, no retry policy beyond
a second's pause, no watermark; what is in `ready/` at a start is sent again.
"""

from __future__ import annotations

import os
import queue
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, _config, build_context, evt

from benchmarks.wire import VERIFICATION, head_of

_SENDERS = 2


class Minimal:
    """Receives into a folder and sends what lies there."""

    def __init__(self, sink_port: int, folder: Path) -> None:
        self._sink_port, self._ready = sink_port, folder / "ready"
        self._todo: queue.Queue[Path] = queue.Queue()
        self._ready.mkdir(parents=True, exist_ok=True)
        for left in sorted(self._ready.iterdir()):
            self._todo.put(left)

    def keep(self, event: Any) -> int:
        """Keep one object; the status to answer."""
        try:
            file = event.request._dataset_file
            file.flush()
            os.fsync(file.fileno())
            final = self._ready / f"{time.time_ns()}-{threading.get_ident()}.dcm"
            os.link(event.dataset_path, final)
            folder = os.open(self._ready, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
        except OSError:
            return 0xA700
        self._todo.put(final)
        return 0x0000

    def send(self) -> None:
        """Send what is ready, for ever."""
        association, known = None, {}
        while True:
            path = self._todo.get()
            while True:
                head = head_of(path)
                context = (head.sop_class_uid, head.transfer_syntax_uid)
                if association is None or not association.is_established or context not in known:
                    if association is not None and association.is_established:
                        association.release()
                    known[context] = build_context(*context)
                    entity = AE("MINI")
                    entity.maximum_pdu_size = 0
                    association = entity.associate(
                        "127.0.0.1", self._sink_port, contexts=list(known.values()), ae_title="SINK"
                    )
                if association.is_established:
                    answer = association.send_c_store(path)
                    if answer and answer.Status == 0x0000:
                        path.unlink()
                        break
                time.sleep(1)


def main(port: int, sink_port: int, folder: Path) -> None:
    """Run until killed."""
    _config.STORE_RECV_CHUNKED_DATASET = _config.STORE_SEND_CHUNKED_DATASET = True
    arriving = folder / "arriving"
    arriving.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(arriving)
    node = Minimal(sink_port, folder)
    for _ in range(_SENDERS):
        threading.Thread(target=node.send, daemon=True).start()
    entity = AE("NODE")
    entity.maximum_associations = 50
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)
    entity.add_supported_context(VERIFICATION)
    entity.start_server(
        ("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, node.keep), (evt.EVT_C_ECHO, lambda _: 0)]
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
