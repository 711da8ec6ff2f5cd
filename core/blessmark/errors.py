"""Everything the engine can raise.

    WatermarkError                 anything below; catch this to catch all of them
    ├── PixelError                 the pixels cannot be read or written (truncated, contradicting, too large)
    ├── RecordError                a record cannot be encoded or decoded
    ├── CapacityError              the message does not fit into this image; nothing was changed
    ├── KeyRingError               a key is missing, malformed or unusable
    ├── SegmenterError             a segmenter is unknown or cannot be loaded
    └── SelfTestError              this machine does not reproduce the packaged vectors

A *finding* ("tampered", "wrong key", "no watermark") is never an exception: it is a `types.Verdict`.
"""

from __future__ import annotations


class WatermarkError(Exception):
    """Root of the engine's errors; the message tells what happened and never names a patient."""


class PixelError(WatermarkError):
    """The pixels cannot be read or written."""


class RecordError(WatermarkError):
    """A record cannot be encoded or decoded."""


class CapacityError(WatermarkError):
    """The message does not fit into this image; nothing was changed."""


class KeyRingError(WatermarkError):
    """A key is missing, malformed or unusable."""


class SegmenterError(WatermarkError):
    """A segmenter is unknown or cannot be loaded."""


class SelfTestError(WatermarkError):
    """This machine does not reproduce the packaged vectors; it must not touch images."""
