"""Give back the frame as it was before embedding, as far as what arrived allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blessmark.errors import WatermarkError
from blessmark.types import Finding, Frame, KeyRing, Segmenter, Verdict
from blessmark.verify import verify


@dataclass(frozen=True, slots=True)
class Recovery:
    """A restored frame and the verdict it rests on; `exact` is proven by the hash inside the watermark."""

    frame: Frame
    verdict: Verdict

    @property
    def exact(self) -> bool:
        return self.verdict.exact


def recover(frame: Frame, ring: KeyRing, segmenters: Sequence[Segmenter]) -> Recovery:
    """Remove the watermark of `frame`.

    Tiles whose packets authenticate come back bit for bit even when others are lost.

    Raises
    ------
    WatermarkError
        there is no watermark that `ring` can read, so there is nothing to go back to.
    """
    verdict = verify(frame, ring, segmenters)
    if verdict.restored is None:
        if verdict.finding is Finding.UNMARKED:
            raise WatermarkError(f"frame {frame.number} holds no watermark that this key ring can read")
        raise WatermarkError(f"frame {frame.number} cannot be restored: {verdict.finding}")
    return Recovery(verdict.restored, verdict)
