"""Objects in a transfer syntax that their destination takes: which there are, and who makes them.

Decoders are native code that reads what a stranger wrote. They run in a process of their own, one for each
destination: a crash costs one attempt of one object, what hangs is ended, and neither is noticed elsewhere.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from dicom_node import log, private
from dicom_node.config import Config, Destination, Plain, Transcode
from dicom_node.errors import BlobsUnavailable, ConversionError, NodeError, SpoolFull
from dicom_node.jobs import NOT_SENDABLE
from dicom_node.stores import open_spool

_UIDS = {Plain.EXPLICIT: "1.2.840.10008.1.2.1", Plain.IMPLICIT: "1.2.840.10008.1.2"}
_JPEG = "1.2.840.10008.1.2.4."
#: transfer syntaxes whose samples can be written uncompressed; no video, and nothing without a decoder
CONVERTIBLE = frozenset(
    {
        *_UIDS.values(),
        "1.2.840.10008.1.2.2",  # Explicit VR Big Endian
        "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
        "1.2.840.10008.1.2.5",  # RLE
        *(_JPEG + suffix for suffix in ("50", "51", "57", "70")),  # JPEG, lossy and lossless
        *(_JPEG + suffix for suffix in ("80", "81")),  # JPEG-LS
        *(_JPEG + suffix for suffix in ("90", "91", "201", "202", "203")),  # JPEG 2000, HTJ2K
    }
)

#: a new process loads the decoders first, seconds
_START_S = 120.0
_FIXED_S = 30.0
#: JPEG 2000 decodes a few megabytes of codestream a second; this is far below
_SLOWEST_BYTES_S = 1 << 18
#: a process without work is ended after this many seconds
_IDLE_S = 60.0


def alternatives(destination: Destination, syntax: str) -> tuple[str, ...]:
    """What an object in `syntax` may be converted to for a destination, best first."""
    if destination.transcode is Transcode.NEVER or syntax not in CONVERTIBLE:
        return ()
    return tuple(_UIDS[plain] for plain in destination.transcode_to if _UIDS[plain] != syntax)


def patience_s(path: Path) -> float:
    """Seconds after which the conversion of a file is taken to hang; raises ConversionError if it is gone."""
    try:
        return _START_S + _FIXED_S + path.stat().st_size / _SLOWEST_BYTES_S
    except OSError as error:
        raise ConversionError(f"{path.name} is gone from the spool", reason=NOT_SENDABLE) from error


class Transcoder:
    """Converts objects of the spool for one destination, one at a time; for use by several threads."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._context = multiprocessing.get_context("spawn")
        self._turn = threading.Lock()
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._last_used = time.monotonic()

    def convert(self, blob: str, syntax: str, limit_s: float) -> str:
        """The name in the spool of object `blob` in `syntax`, Explicit or Implicit VR Little Endian.

        Raises
        ------
        ConversionError : it cannot be converted, or the process crashed over it or took longer than `limit_s`
        SpoolFull : there is no room for the result
        BlobsUnavailable : the objects cannot be reached
        """
        with self._turn:
            pipe = self._running()
            try:
                pipe.send((blob, syntax))
                answered = pipe.poll(limit_s)
                kind, content = pipe.recv() if answered else ("", "")
            except (EOFError, OSError) as error:
                self._end()
                raise ConversionError(
                    f"object {blob} ended the process that converted it; examine it, or set transcode: never",
                    reason="conversion-crashed",
                ) from error
            self._last_used = time.monotonic()
            if not answered:
                self._end()
                raise ConversionError(
                    f"object {blob} was not converted within {limit_s:.0f} s; examine it",
                    reason="conversion-hung",
                )
        return _understood(kind, content)

    def rest(self) -> None:
        """End the process if it has had nothing to do for a while."""
        if self._process is not None and self._turn.acquire(blocking=False):
            try:
                if time.monotonic() - self._last_used > _IDLE_S:
                    self._end()
            finally:
                self._turn.release()

    def abort(self) -> None:
        """End the process, whatever it does; from any thread."""
        process = self._process
        if process is not None:
            with contextlib.suppress(ValueError):  # closed by the thread that uses it
                process.kill()

    def close(self) -> None:
        """End the process for good."""
        self.abort()
        if self._turn.acquire(timeout=1.0):
            try:
                self._end()
            finally:
                self._turn.release()

    def _running(self) -> Connection:
        if self._process is not None and self._process.is_alive() and self._pipe is not None:
            return self._pipe
        self._end()
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(self._config, theirs), name="transcoder", daemon=True
        )
        process.start()
        theirs.close()
        self._process, self._pipe = process, ours
        return ours

    def _end(self) -> None:
        process, self._process = self._process, None
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.close()
        if process is not None:
            process.kill()
            process.join()
            process.close()


def _understood(kind: str, content: str) -> str:
    if kind == "made":
        return content
    if kind == "full":
        raise SpoolFull(content)
    if kind == "away":
        raise BlobsUnavailable(content)
    raise ConversionError(content, reason="not-convertible")


def _serve(config: Config, pipe: Connection) -> None:
    """The body of the process: answer each order, until the other end of the pipe is closed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # they reach the whole group; the node itself says when to stop
    log.setup(config.log.format, config.log.level)
    log.silence_warnings()
    private.keep_out_of_dumps()
    from blessmark.errors import WatermarkError
    from dicom_node import convert

    spool = open_spool(config)
    with contextlib.suppress(EOFError, OSError):
        while True:
            blob, syntax = pipe.recv()
            try:
                spool.check_room_to_work(blob)
                answer = ("made", spool.put_output(convert.converted(spool.path(blob), syntax)).name)
            except SpoolFull as error:
                answer = ("full", str(error))
            except BlobsUnavailable as error:
                answer = ("away", str(error))
            except (NodeError, WatermarkError) as error:
                answer = ("impossible", str(error))
            except Exception as error:
                # the text of a library's error could quote a value
                answer = ("impossible", f"object {blob} cannot be converted ({type(error).__name__})")
            pipe.send(answer)
